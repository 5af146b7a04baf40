import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import { type Channel, type ChannelModel, type ConsumeMessage, connect } from 'amqplib'
import { Arrivals, type Report } from './arrivals.ts'
import type { LedgerSnapshot } from './ledger.ts'

export interface VerifierOptions {
  /** Of the upstream broker. */
  readonly url: string
  /** Declared and bound before `startVerifier` resolves, so that nothing published later is unroutable. Durable. */
  readonly queue: { readonly name: string; readonly type?: 'quorum' | 'classic' }
  /** Declared too, durable; null: the queue exists and is only read. */
  readonly exchange: { readonly name: string; readonly type: string } | null
  /** Default `#`: everything of a topic exchange. */
  readonly bindingKey?: string
}

export interface Verifier {
  /** Deliveries so far, repetitions included. */
  readonly deliveries: number
  /** Distinct readings so far. */
  readonly received: number
  /** Connections made after the first. */
  readonly reconnects: number
  /** Acknowledged readings that have not arrived yet. */
  missing(ledgers: readonly LedgerSnapshot[]): number
  /** Waits until nothing acknowledged is missing; false if something still is when the time is up. */
  complete(ledgers: readonly LedgerSnapshot[], deadlineMs: number): Promise<boolean>
  /** What arrived, held against what the devices know. */
  verify(ledgers: readonly LedgerSnapshot[]): Report
  stop(): Promise<void>
}

const PREFETCH = 1000
/** Deliveries are acknowledged together, at the latest this long after. */
const ACK_PERIOD_MS = 50
const RECONNECT_PAUSE_MS = 200
const CONNECT_TIMEOUT_MS = 5000
/** Seconds; a broker that stands still is noticed after two of them. */
const HEARTBEAT_S = 5
const LOOK_PERIOD_MS = 50

interface Connection {
  readonly model: ChannelModel
  readonly channel: Channel
  /** Resolves when the connection or its channel has ended, whatever the reason. */
  readonly ended: Promise<void>
}

/** Consumes a queue of the upstream broker and keeps account of it; reconnects until stopped. */
export async function startVerifier(options: VerifierOptions): Promise<Verifier> {
  const arrivals = new Arrivals()
  const stopping = new AbortController()
  const stopped = once(stopping.signal, 'abort')
  let connection = await open(options, arrivals)
  let reconnects = 0

  const running = (async () => {
    while (!stopping.signal.aborted) {
      await Promise.race([connection.ended, stopped])
      if (stopping.signal.aborted) return
      // Where only the channel has ended, the connection is still open.
      void close(connection)
      const next = await reopen()
      if (next === null) return
      connection = next
      reconnects++
    }
  })()

  async function reopen(): Promise<Connection | null> {
    while (!stopping.signal.aborted) {
      try {
        const opened = await open(options, arrivals)
        if (!stopping.signal.aborted) return opened
        await close(opened)
      } catch {
        // Upstream is down, which is what this is made for: try again.
        await delay(RECONNECT_PAUSE_MS)
      }
    }
    return null
  }

  return {
    get deliveries() {
      return arrivals.deliveries
    },
    get received() {
      return arrivals.received
    },
    get reconnects() {
      return reconnects
    },
    missing: ledgers => arrivals.missing(ledgers),
    complete: async (ledgers, deadlineMs) => {
      const deadline = performance.now() + deadlineMs
      while (arrivals.missing(ledgers) > 0) {
        if (performance.now() >= deadline) return false
        await delay(LOOK_PERIOD_MS)
      }
      return true
    },
    verify: ledgers => arrivals.report(ledgers),
    stop: async () => {
      stopping.abort()
      await close(connection)
      await running
    },
  }
}

async function open(options: VerifierOptions, arrivals: Arrivals): Promise<Connection> {
  const { url, queue, exchange, bindingKey = '#' } = options
  const address = new URL(url)
  address.searchParams.set('heartbeat', String(HEARTBEAT_S))
  const model = await connect(address.href, { timeout: CONNECT_TIMEOUT_MS, noDelay: true })
  const { promise: ended, resolve } = Promise.withResolvers<void>()
  model.on('close', () => resolve())
  // 'close' follows on the connection; on a channel it need not, so its end is made the connection's.
  model.on('error', () => undefined)
  try {
    const channel = await model.createChannel()
    channel.on('error', () => undefined)
    channel.on('close', () => resolve())
    if (exchange !== null) {
      await channel.assertExchange(exchange.name, exchange.type, { durable: true })
      await channel.assertQueue(queue.name, { durable: true, arguments: { 'x-queue-type': queue.type ?? 'quorum' } })
      await channel.bindQueue(queue.name, exchange.name, bindingKey)
    }
    await channel.prefetch(PREFETCH)
    await consume(channel, queue.name, arrivals, resolve)
    return { model, channel, ended }
  } catch (error) {
    await model.close().catch(() => undefined) // the first error is the one that matters
    throw error
  }
}

async function consume(channel: Channel, queue: string, arrivals: Arrivals, onEnd: () => void): Promise<void> {
  let latest: ConsumeMessage | null = null
  let timer: NodeJS.Timeout | null = null
  const acknowledge = () => {
    timer = null
    if (latest === null) return
    try {
      channel.ack(latest, true)
    } catch {
      // The channel has closed meanwhile: the broker delivers again, and the ids show it.
    }
    latest = null
  }
  channel.on('close', () => {
    if (timer !== null) clearTimeout(timer)
  })
  await channel.consume(queue, delivery => {
    // Null: the consumer was cancelled, because the queue was deleted or has moved.
    if (delivery === null) {
      onEnd()
      return
    }
    const headers = delivery.properties.headers ?? {}
    arrivals.note({
      messageId: delivery.properties.messageId,
      topic: headers['x-mqtt-topic'],
      clientId: headers['x-mqtt-client-id'],
      isDup: headers['x-mqtt-dup'] === true,
      isReplay: headers['x-sluice-replay'] === true,
      isRetried: headers['x-sluice-attempts'] !== undefined,
      payload: delivery.content,
    })
    latest = delivery
    timer ??= setTimeout(acknowledge, ACK_PERIOD_MS)
  })
}

async function close({ model, ended }: Connection): Promise<void> {
  // Rejects if the connection is closed already or dies while closing; a frozen broker answers neither.
  const closed = model.close().catch(() => undefined)
  await Promise.race([closed, ended, delay(CONNECT_TIMEOUT_MS, undefined, { ref: false })])
}
