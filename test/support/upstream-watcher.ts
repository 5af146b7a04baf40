import { type ChannelModel, connect } from 'amqplib'

export interface TimedArrival {
  readonly id: string
  readonly payload: string
  readonly headers: Readonly<Record<string, unknown>>
  /** Wall time. */
  readonly atMs: number
}

/** Consumes from a queue of the upstream, and notes when what came. */
export class Watcher implements AsyncDisposable {
  readonly arrivals: TimedArrival[] = []
  readonly #connection: ChannelModel

  static async start(url: string, queue: string): Promise<Watcher> {
    const watcher = new Watcher(await connect(url))
    const channel = await watcher.#connection.createChannel()
    await channel.consume(
      queue,
      message => {
        if (message === null) return
        const { headers = {} } = message.properties
        const { messageId: id } = message.properties
        watcher.arrivals.push({ id, payload: message.content.toString(), headers, atMs: Date.now() })
      },
      { noAck: true },
    )
    return watcher
  }

  private constructor(connection: ChannelModel) {
    this.#connection = connection
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.close()
  }
}
