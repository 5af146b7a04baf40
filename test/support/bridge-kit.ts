import { Writable } from 'node:stream'
import { type ConfirmChannel, connect, type Options } from 'amqplib'
import pino from 'pino'
import { type Login, Upstream, type UpstreamStatus } from '../../src/bridge/upstream.ts'
import type { RouteConfig, UpstreamConfig } from '../../src/config/schema.ts'
import { systemClock } from '../../src/core/clock.ts'
import type { Queue } from '../../src/core/queue.ts'
import type { Message } from '../../src/model/message.ts'
import { exchangeName } from '../../src/model/names.ts'
import { PLAIN_POLICY, type QueuePolicy } from '../../src/model/queue-policy.ts'
import { eventually } from './eventually.ts'
import { messageTo, WIDE_LIMITS } from './messages.ts'
import { type TempDir, tempDir } from './temp-dir.ts'
import { CoreUnderTest } from './with-core.ts'

type UpstreamTimes = Omit<UpstreamConfig, 'name' | 'urls' | 'tls'>

/** Pauses short enough for tests; each test overrides what it is about. */
const QUICK: UpstreamTimes = {
  window: 64,
  share: { live: 70, backlog: 30 },
  drain: { messagesPerS: 0, bytesPerS: 0 },
  heartbeatMs: 15_000,
  stallTimeoutMs: 1000,
  reconnect: { firstMs: 50, maxMs: 400, connectTimeoutMs: 1000, handshakeTimeoutMs: 2000, returnMs: 200 },
}

export interface RouteUnderTest {
  readonly from: string
  readonly exchange: {
    readonly name: string
    readonly type: RouteConfig['exchange']['type']
    readonly declare: RouteConfig['exchange']['declare']
  }
  readonly codec?: RouteConfig['codec']
  readonly order?: RouteConfig['order']
  readonly priority?: number
  readonly late?: RouteConfig['late']
  readonly policy?: Partial<QueuePolicy>
}

/** Store, core and one upstream with its routes, as the gateway composes them. Outboxes are named as their routes. */
export class BridgeUnderTest implements AsyncDisposable {
  readonly core: CoreUnderTest
  readonly upstream: Upstream
  readonly queues: ReadonlyMap<string, Queue>
  /** Lines of the log. */
  readonly log: string[]
  readonly #directory: TempDir
  #published = 0

  private constructor(
    core: CoreUnderTest,
    upstream: Upstream,
    queues: Map<string, Queue>,
    log: string[],
    directory: TempDir,
  ) {
    this.core = core
    this.upstream = upstream
    this.queues = queues
    this.log = log
    this.#directory = directory
  }

  static async start(
    url: string | (() => Login),
    routes: Readonly<Record<string, RouteUnderTest>>,
    options: Partial<UpstreamTimes> = {},
  ): Promise<BridgeUnderTest> {
    const directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    const lines: string[] = []
    const sink = new Writable({
      write(chunk, _encoding, done) {
        lines.push(String(chunk))
        done()
      },
    })
    const queues = new Map<string, Queue>()
    for (const [name, { from, policy = {} }] of Object.entries(routes)) {
      const dead = `${name}.dead`
      await core.topology.declareQueue({ name: dead, origin: 'config', limits: WIDE_LIMITS, qos0: 'buffer' })
      const queue = await core.queue(name, from, WIDE_LIMITS, { exchange: '', key: dead })
      queue.policy = { ...PLAIN_POLICY, ...policy }
      queues.set(name, queue)
    }
    const upstream = new Upstream({
      name: 'central',
      login: typeof url === 'string' ? () => ({ urls: [url], tls: { ca: null, client: null } }) : url,
      options: { ...QUICK, ...options },
      routes: Object.entries(routes).map(([name, route]) => {
        const queue = queues.get(name)
        if (queue === undefined) throw new TypeError(name)
        const {
          codec = 'escaped',
          order = 'live_first',
          priority = 0,
          late = { exchange: null, keySuffix: '' },
        } = route
        const exchange = { ...route.exchange, name: exchangeName(route.exchange.name) }
        return { route: { name, exchange, codec, late, order, priority, routingKey: '{topic}' }, queue }
      }),
      identities: core.identities,
      log: pino({ level: 'info' }, sink),
      clock: systemClock,
      random: Math.random,
    })
    upstream.start()
    return new BridgeUnderTest(core, upstream, queues, lines, directory)
  }

  /** Publishes so many messages, payloads counting on from the last call and padded to a size; resolves when all are safe. */
  async publish(count: number, topic: string, changes: Partial<Message> = {}, bytes = 0): Promise<void> {
    const receipts: Promise<unknown>[] = []
    for (let i = 0; i < count; i++) {
      receipts.push(this.core.router.publish(messageTo(topic, String(this.#published++).padEnd(bytes), changes)))
    }
    await Promise.all(receipts)
  }

  /** Publishes one message every few milliseconds until `isOver`. */
  async publishUntil(isOver: () => boolean, topic: string): Promise<void> {
    await eventually(
      async () => {
        await this.publish(5, topic)
        return isOver()
      },
      { deadlineMs: 60_000, intervalMs: 5, what: 'the end of publishing' },
    )
  }

  get published(): number {
    return this.#published
  }

  status(): UpstreamStatus {
    return this.upstream.status()
  }

  route(name: string): UpstreamStatus['routes'][number] {
    const found = this.status().routes.find(route => route.name === name)
    if (found === undefined) throw new TypeError(`no route ${name}`)
    return found
  }

  reaches(state: UpstreamStatus['state'], deadlineMs = 20_000): Promise<unknown> {
    return eventually(() => this.status().state === state, { what: `state ${state}`, deadlineMs })
  }

  /** Waits until nothing is left to forward, and looks at the books. */
  async settlesAll(deadlineMs = 30_000): Promise<void> {
    for (const queue of this.queues.values()) {
      await eventually(
        () => {
          if (queue.depth > 0) throw new Error(`${queue.depth} left, ${JSON.stringify(this.status())}`)
          return true
        },
        { what: `an empty outbox ${queue.name}`, deadlineMs },
      )
      const { accepted, settled } = queue.ledger
      if (accepted !== settled) throw new Error(`${queue.name}: accepted ${accepted}, settled ${settled}`)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.upstream.stop()
    await this.core.close()
    await this.#directory[Symbol.asyncDispose]()
  }
}

export interface Arrival {
  readonly id: string
  readonly payload: string
  readonly key: string
  readonly headers: Readonly<Record<string, unknown>>
  readonly properties: Readonly<Record<string, unknown>>
}

/** Runs `act` on a confirm channel of its own; errors of a channel the test wants to break reject. */
export async function onChannel<T>(url: string, act: (channel: ConfirmChannel) => Promise<T>): Promise<T> {
  const connection = await connect(url)
  connection.on('error', () => undefined)
  try {
    const channel = await connection.createConfirmChannel()
    channel.on('error', () => undefined)
    return await act(channel)
  } finally {
    await connection.close().catch(() => undefined)
  }
}

/** A durable quorum queue bound to everything an exchange gets. */
export async function bindQueue(
  url: string,
  queue: string,
  exchange: string,
  { pattern = '#', options = {} }: { pattern?: string; options?: Options.AssertQueue } = {},
): Promise<void> {
  await onChannel(url, async channel => {
    await channel.assertExchange(exchange, 'topic', { durable: true })
    await channel.assertQueue(queue, { durable: true, arguments: { 'x-queue-type': 'quorum' }, ...options })
    await channel.bindQueue(queue, exchange, pattern)
  })
}

/** Takes everything out of a queue. */
export function arrivals(url: string, queue: string): Promise<Arrival[]> {
  return onChannel(url, async channel => {
    const found: Arrival[] = []
    for (;;) {
      const message = await channel.get(queue, { noAck: true })
      if (message === false) return found
      // A quorum queue adds x-delivery-count.
      const { headers: { 'x-delivery-count': _count, ...headers } = {}, ...properties } = message.properties
      found.push({
        id: String(properties.messageId),
        payload: message.content.toString(),
        key: message.fields.routingKey,
        headers,
        properties,
      })
    }
  })
}
