/*
 * `$SYS/broker/#`: what the gateway tells of itself over MQTT, under mosquitto's names. A subscriber is sent the figures as they are, as if they were retained, and
 * from then on those that have changed. While nobody listens nothing is reckoned; nothing is ever written.
 */
import { readBuild } from './assets.ts'
import type { Access } from './core/access.ts'
import type { Clock } from './core/clock.ts'
import type { Queue } from './core/queue.ts'
import type { Retained } from './core/retained.ts'
import type { Router } from './core/router.ts'
import { TopicMap } from './core/topic-map.ts'
import type { Topology } from './core/topology.ts'
import { encodeRecord, type Message, MQTT_EXCHANGE, PropertiesTag } from './model/message.ts'
import type { RetainedWalk } from './protocol/mqtt/retained-feed.ts'
import type { MqttServer } from './protocol/mqtt/server.ts'

/** A topic, and what is said there now. */
interface Figure {
  readonly topic: string
  readonly read: () => string
  said: string
}

interface SysSources {
  readonly mqtt: MqttServer
  readonly router: Router
  readonly topology: Topology
  readonly retained: Retained
  readonly access: Access
  readonly clock: Clock
}

const MINUTE_MS = 60_000
const LOAD_MINUTES = [1, 5, 15] as const
/** Figures of one moment are reckoned from one look. */
const SAME_MOMENT_MS = 1000
const NOTHING = Buffer.alloc(0)

/** How much of something there was a minute, over about the last 1, 5 and 15: means that forget exponentially, however rarely anybody looks. */
class Load {
  readonly #total: () => number
  readonly #monotonicMs: () => number
  readonly #means = LOAD_MINUTES.map(() => 0)
  #before = 0
  #atMs = 0

  constructor(total: () => number, monotonicMs: () => number) {
    this.#total = total
    this.#monotonicMs = monotonicMs
  }

  mean(index: number): number {
    const elapsedMs = this.#monotonicMs() - this.#atMs
    if (elapsedMs >= SAME_MOMENT_MS) {
      const total = this.#total()
      const minutes = elapsedMs / MINUTE_MS
      const rate = (total - this.#before) / minutes
      for (const [n, period] of LOAD_MINUTES.entries()) {
        const mean = this.#means[n] ?? 0
        this.#means[n] = mean + (rate - mean) * (1 - Math.exp(-minutes / period))
      }
      this.#before = total
      this.#atMs += elapsedMs
    }
    return this.#means[index] ?? 0
  }
}

export class SysTopics {
  readonly #router: Router
  readonly #figures: readonly Figure[]
  readonly #topics = new TopicMap<Figure>()
  #timer: NodeJS.Timeout | null = null

  constructor(sources: SysSources) {
    this.#router = sources.router
    this.#figures = figuresOf(sources)
    for (const figure of this.#figures) this.#topics.set(figure.topic, figure)
  }

  /** Says what has changed every so often, until `stop`. */
  start(intervalMs: number): void {
    this.#timer = setInterval(() => this.say(), intervalMs)
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  /** Says what has changed, to whoever listens. */
  say(): void {
    for (const figure of this.#figures) {
      if (!this.#router.route(MQTT_EXCHANGE, figure.topic).isRouted) continue
      const text = figure.read()
      if (text === figure.said) continue
      figure.said = text
      this.#router.announce(message(figure.topic, text))
    }
  }

  /** The figures whose topics match a filter, in stored form, each as it is when its turn comes. */
  walk(filter: string): RetainedWalk {
    const figures = this.#topics.walk(filter, () => true)
    return {
      get isDone() {
        return figures.isDone
      },
      get visited() {
        return figures.visited
      },
      next(steps) {
        const figure = figures.next(steps)
        if (figure === null) return null
        // Nobody asks for its id or its age: it is made for one delivery.
        const acceptance = { seq: 0, boot: 0, acceptedAt: 0, clock: 0 } as const
        return { slab: { bytes: encodeRecord(message(figure.topic, figure.read()), acceptance) }, at: 0 }
      },
      renew() {
        // Each figure is as it is when its turn comes.
      },
    }
  }
}

function message(topic: string, text: string): Message {
  return {
    exchange: MQTT_EXCHANGE,
    key: topic,
    qos: 0,
    retain: true,
    dup: false,
    priority: 0,
    clientId: '',
    user: '',
    expiryMs: null,
    propertiesTag: PropertiesTag.none,
    properties: NOTHING,
    payload: Buffer.from(text),
  }
}

/** Every topic below `$SYS/broker/` with its figure. */
function figuresOf({ mqtt, router, topology, retained, access, clock }: SysSources): readonly Figure[] {
  const { counters } = mqtt
  const { version } = readBuild()
  const inQueues = (of: (queue: Queue) => number) => sum([...topology.queues()].map(of))
  /** What only rises: its total, and its name among the loads. */
  const counted: readonly (readonly [topic: string, load: string, total: () => number])[] = [
    ['messages/received', 'messages/received', () => counters.controlIn + sum(counters.messagesIn)],
    ['messages/sent', 'messages/sent', () => counters.controlOut + counters.sentMessages],
    ['publish/messages/received', 'publish/received', () => sum(counters.messagesIn)],
    ['publish/messages/sent', 'publish/sent', () => counters.sentMessages],
    ['publish/messages/dropped', 'publish/dropped', () => counters.dropped],
    ['bytes/received', 'bytes/received', () => counters.bytesIn],
    ['bytes/sent', 'bytes/sent', () => counters.bytesOut],
  ]
  const plain: readonly (readonly [topic: string, read: () => string | number])[] = [
    ['version', () => `sluice version ${version}`],
    ['uptime', () => `${Math.floor(clock.monotonicMs() / 1000)} seconds`],
    ['clients/connected', () => mqtt.clientCount],
    ['clients/disconnected', () => mqtt.sessionCount - mqtt.clientCount],
    ['clients/total', () => mqtt.sessionCount],
    ['clients/maximum', () => counters.mostClients],
    // mosquitto has none of logins.
    ['logins/accepted', () => access.accepted],
    ['logins/refused', () => sum(Object.values(access.refused))],
    ['publish/bytes/received', () => router.counters.acceptedBytes],
    ['subscriptions/count', () => mqtt.subscriptionCount],
    ['retained messages/count', () => retained.messages],
    ['store/messages/count', () => retained.messages + inQueues(({ depth }) => depth)],
    ['store/messages/bytes', () => retained.bytes + inQueues(({ bytes }) => bytes)],
    ['heap/current', () => process.memoryUsage().heapUsed],
    ...counted.map(([topic, , total]) => [topic, total] as const),
  ]
  const loads: readonly (readonly [name: string, total: () => number])[] = [
    ['connections', () => counters.connected],
    ['sockets', () => counters.connected + counters.refusedConnections],
    ...counted.map(([, load, total]) => [load, total] as const),
  ]
  const figures = plain.map(([topic, read]) => ({
    topic: `$SYS/broker/${topic}`,
    read: () => String(read()),
    said: '',
  }))
  for (const [name, total] of loads) {
    const load = new Load(total, clock.monotonicMs)
    for (const [index, minutes] of LOAD_MINUTES.entries()) {
      const topic = `$SYS/broker/load/${name}/${minutes}min`
      figures.push({ topic, read: () => load.mean(index).toFixed(2), said: '' })
    }
  }
  return figures
}

const sum = (counts: readonly number[]): number => counts.reduce((total, count) => total + count, 0)
