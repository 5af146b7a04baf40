/*
 * Exchanges and their bindings, and the routes that follow from them.
 *
 * A route is the answer for one exchange and key. It is cached and valid until any binding or exchange changes, which raises `version`. Where a headers exchange had a
 * say, the answer holds for one message only: such a route says so and is asked for again with each message's headers.
 */
import { BrokerError } from '../model/error.ts'
import { MQTT_EXCHANGE, swapSeparators } from '../model/message.ts'
import type { Binding, Destination } from './binding.ts'
import type { LiveReceiver } from './consumer.ts'
import { DEFAULT_EXCHANGE, Exchange, type ExchangeSpec, type Headers } from './exchange.ts'
import type { Keeper } from './keeper.ts'
import { AMQP_DIALECT, MQTT_DIALECT } from './topic-tree.ts'

/** Where the messages of one exchange and key go; valid while its version is the table's. */
export interface Route {
  readonly version: number
  readonly exchange: string
  readonly key: string
  /** The key as a topic: what live receivers are told. */
  readonly topic: string
  /** Nobody may publish here: below `$SYS/` the gateway itself speaks. A protocol gives the same to whoever has no permission. */
  readonly isForbidden: boolean
  /** At least one binding leads to a queue or a receiver; where headers have a say: for the headers it was resolved with. */
  readonly isRouted: boolean
  /** A headers exchange is on the way: resolve again with the headers of each message. */
  readonly readsHeaders: boolean
  /** Receivers of messages published at QoS 0, and those that take QoS 1 and 2 at QoS 0. */
  readonly live0: readonly LiveTarget[]
  readonly live1: readonly LiveTarget[]
  readonly queues0: readonly QueueTarget[]
  readonly queues1: readonly QueueTarget[]
  /** How many of queues1 are durable. */
  readonly durable1: number
}

export interface LiveTarget {
  readonly receiver: LiveReceiver
  readonly note: number
}

export interface QueueTarget {
  readonly queue: Keeper
  readonly note: number
}

interface Target {
  readonly destination: Destination
  readonly maxQos: number
  readonly note: number
}

/** Routes remembered per version, and letters of their keys; a publisher that sprays topics makes the cache start over, no more. */
const MAX_CACHED_ROUTES = 4096
const MAX_CACHED_LETTERS = 512 * 1024
const NO_HEADERS: Headers = new Map()

export class RoutingTable {
  readonly #exchanges = new Map<string, Exchange>()
  #version = 1
  #routes = new Map<string, Route>()
  #letters = 0

  constructor() {
    const builtIn = { isDurable: true, isInternal: false, alternate: null }
    this.add({ name: MQTT_EXCHANGE, kind: 'topic', ...builtIn })
    this.add({ name: DEFAULT_EXCHANGE, kind: 'direct', ...builtIn })
    // AMQP 0-9-1 section 3.1.3; `amq.topic` is `mqtt` under its other name.
    for (const kind of ['direct', 'fanout', 'headers'] as const) this.add({ name: `amq.${kind}`, kind, ...builtIn })
  }

  /** Rises with every change of exchanges and bindings. */
  get version(): number {
    return this.#version
  }

  exchanges(): Iterable<Exchange> {
    return this.#exchanges.values()
  }

  find(name: string): Exchange | undefined {
    return this.#exchanges.get(name)
  }

  has(name: string): boolean {
    return this.#exchanges.has(name)
  }

  /** @throws BrokerError EXCHANGE_NOT_FOUND */
  exchange(name: string): Exchange {
    const exchange = this.#exchanges.get(name)
    if (exchange === undefined) {
      throw new BrokerError(
        'EXCHANGE_NOT_FOUND',
        `there is no exchange ${name}; \`sluice exchanges\` lists those there are`,
        {
          facts: { exchange: name },
        },
      )
    }
    return exchange
  }

  add(spec: ExchangeSpec): Exchange {
    const exchange = new Exchange(spec, spec.name === MQTT_EXCHANGE ? MQTT_DIALECT : AMQP_DIALECT)
    this.#exchanges.set(spec.name, exchange)
    this.#changed()
    return exchange
  }

  remove(name: string): void {
    this.#exchanges.delete(name)
    this.#changed()
  }

  bind(exchange: string, binding: Binding): void {
    this.exchange(exchange).matcher.bind(binding)
    this.#changed()
  }

  /** False if that very binding is not held. */
  unbind(exchange: string, binding: Binding): boolean {
    const isHeld = this.#exchanges.get(exchange)?.matcher.unbind(binding) ?? false
    if (isHeld) this.#changed()
    return isHeld
  }

  /** All routes are asked for again: what protocols keep with them may be different now. */
  forgetRoutes(): void {
    this.#changed()
  }

  #changed(): void {
    this.#version++
    if (this.#routes.size > 0) this.#forgetRoutes()
  }

  #forgetRoutes(): void {
    this.#routes = new Map()
    this.#letters = 0
  }

  /** Cached; on a miss walks the exchange. @throws BrokerError EXCHANGE_NOT_FOUND */
  route(exchange: string, key: string): Route {
    const cacheKey = `${exchange}\0${key}`
    const cached = this.#routes.get(cacheKey)
    if (cached !== undefined) return cached
    const route = this.resolve(exchange, key, NO_HEADERS)
    if (this.#routes.size >= MAX_CACHED_ROUTES || this.#letters >= MAX_CACHED_LETTERS) this.#forgetRoutes()
    this.#letters += cacheKey.length
    this.#routes.set(cacheKey, route)
    return route
  }

  /** Not cached: for a message whose headers matter. */
  resolve(name: string, key: string, headers: Headers): Route {
    // To all that have a matching binding [MQTT-4.5.0-1], one delivery per destination, with the highest QoS [MQTT-3.3.4-2], 3.1.1 [MQTT-3.3.5-1].
    const best = new Map<Keeper | Destination, Target>()
    // Each exchange once: cycles of exchange-to-exchange bindings are allowed (RabbitMQ, Exchange to Exchange Bindings).
    const seen = new Set<string>([name])
    const toVisit = [this.exchange(name)]
    let readsHeaders = false
    for (let exchange = toVisit.shift(); exchange !== undefined; exchange = toVisit.shift()) {
      readsHeaders ||= exchange.readsHeaders
      let matches = 0
      const visit = (binding: Binding): void => {
        matches++
        const { destination, maxQos, note } = binding
        if ('exchange' in destination) {
          this.#visitNext(destination.exchange, seen, toVisit)
          return
        }
        // A queue is one destination whoever bound it.
        const identity = destination.live === null ? (destination.queue ?? destination) : destination
        const known = best.get(identity)
        if (known === undefined) {
          best.set(identity, { destination, maxQos, note })
        } else {
          best.set(identity, { destination, maxQos: Math.max(known.maxQos, maxQos), note: known.note | note })
        }
      }
      const localKey = keyFor(exchange, name, key)
      if (localKey !== null) exchange.matcher.match(localKey, headers, visit)
      const { alternate } = exchange.spec
      if (matches === 0 && alternate !== null) this.#visitNext(alternate, seen, toVisit)
    }
    return this.#routeTo(name, key, best, readsHeaders)
  }

  #visitNext(name: string, seen: Set<string>, toVisit: Exchange[]): void {
    if (seen.has(name)) return
    seen.add(name)
    const exchange = this.#exchanges.get(name)
    // A deleted alternate exchange or target takes nothing (RabbitMQ does the same and warns).
    if (exchange !== undefined) toVisit.push(exchange)
  }

  #routeTo(exchange: string, key: string, best: ReadonlyMap<unknown, Target>, readsHeaders: boolean): Route {
    const live0: LiveTarget[] = []
    const live1: LiveTarget[] = []
    const queues0: QueueTarget[] = []
    const queues1: QueueTarget[] = []
    for (const { destination, maxQos, note } of best.values()) {
      const { live, queue } = destination
      if (live !== null) live0.push({ receiver: live, note })
      else if (queue !== null && queue.qos0 !== 'ignore') queues0.push({ queue, note })
      if (queue !== null && (maxQos > 0 || live === null)) queues1.push({ queue, note })
      else if (live !== null) live1.push({ receiver: live, note })
    }
    return {
      version: this.#version,
      exchange,
      key,
      topic: exchange === MQTT_EXCHANGE ? key : swapSeparators(key),
      isForbidden: exchange === MQTT_EXCHANGE && isReservedTopic(key),
      isRouted: best.size > 0,
      readsHeaders,
      live0,
      live1,
      queues0,
      queues1,
      durable1: queues1.filter(target => target.queue.isDurable).length,
    }
  }
}

/**
 * The key in the dialect of the exchange at hand: `mqtt` writes topics, all others routing keys. Null: a routing key that is no topic
 * (empty, or with an MQTT wildcard) matches nothing in `mqtt`, since no MQTT client could be sent it [MQTT-3.3.2-2]; nor does one below `$SYS/`.
 */
function keyFor(exchange: Exchange, publishedTo: string, key: string): string | null {
  const isTopic = publishedTo === MQTT_EXCHANGE
  if (isTopic === (exchange.name === MQTT_EXCHANGE)) return key
  const swapped = swapSeparators(key)
  return isTopic || (isTopicName(swapped) && !isReservedTopic(swapped)) ? swapped : null
}

/** A key under which `mqtt` may deliver: a topic without wildcards [MQTT-3.3.2-2]. */
export const isTopicName = (text: string): boolean => text !== '' && !/[+#\0]/.test(text)

/** Topics of the gateway's own. */
export const isReservedTopic = (topic: string): boolean => topic.startsWith('$SYS/')
