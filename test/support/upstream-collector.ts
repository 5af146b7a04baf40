import { connect } from 'amqplib'

/** What has arrived at one exchange since the collector was made. */
export interface UpstreamCollector extends AsyncDisposable {
  /** Payloads as text, in order of arrival, repeats included. */
  readonly payloads: readonly string[]
}

/** Binds a queue of its own to a topic exchange (declared durable, as routes do) and consumes all that passes. */
export async function collectUpstream(amqpUrl: string, exchange: string): Promise<UpstreamCollector> {
  const connection = await connect(amqpUrl)
  const channel = await connection.createChannel()
  await channel.assertExchange(exchange, 'topic', { durable: true })
  const { queue } = await channel.assertQueue('', { exclusive: true })
  await channel.bindQueue(queue, exchange, '#')
  const payloads: string[] = []
  await channel.consume(queue, message => message && payloads.push(message.content.toString()), { noAck: true })
  return { payloads, [Symbol.asyncDispose]: () => connection.close() }
}
