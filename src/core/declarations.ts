import { BrokerError } from '../model/error.ts'
import { MQTT_EXCHANGE } from '../model/message.ts'
import { routingKey, topicFilter } from '../model/names.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Binding } from './binding.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { DEFAULT_EXCHANGE, type Exchange, type ExchangeSpec } from './exchange.ts'
import type { HeadersMatch, HeaderValue } from './exchanges/headers.ts'
import type { Keeper } from './keeper.ts'
import type { Queue } from './queue.ts'
import { isSamePolicy, type Origin, type QueueSpec, resolvePolicy } from './queue-definition.ts'
import type { RoutingTable } from './routing-table.ts'
import type { Streams } from './streams.ts'
import type { Topology } from './topology.ts'

/** A binding by names, as it is declared and kept. */
export interface BindingSpec {
  readonly source: string
  readonly destination: { readonly kind: 'queue' | 'exchange'; readonly name: string }
  /** Routing key or pattern, in the source's dialect. */
  readonly key: string
  /** Only for a headers exchange; null there: every message. */
  readonly headers: { readonly match: HeadersMatch; readonly values: readonly HeaderPair[] } | null
}

export type HeaderPair = readonly [name: string, value: HeaderValue]

export interface Declared<Spec> {
  readonly spec: Spec
  readonly origin: Origin
}

/** Whether a declaration changed anything. */
export type DeclareOutcome = 'created' | 'exists'

/** How many there may be. What the configuration declares counts and is never refused. */
export interface DeclaredLimits {
  readonly queues: number
  /** Without the built-in ones. */
  readonly exchanges: number
  readonly bindings: number
}

interface DeclaredBinding extends Declared<BindingSpec> {
  readonly binding: Binding
}

const EXCHANGES = Buffer.from([StatePrefix.definition, 'x'.charCodeAt(0)])
const BINDINGS = Buffer.from([StatePrefix.definition, 'b'.charCodeAt(0)])
/** A binding between durable things takes whatever comes. */
const MAX_QOS = 2

/**
 * Exchanges, queues and bindings declared by name: by the configuration, over the API, by clients. Durable exchanges and the bindings between durable things are
 * kept in the store and are there again after a restart; a transient exchange goes with the process, and its bindings with it. What the configuration
 * declares is not kept: the configuration says it again.
 *
 * Declarations take effect one after the other, each on what the one before has left.
 */
export class Declarations {
  readonly #store: Store
  readonly #schedule: CommitSchedule
  readonly #table: RoutingTable
  readonly #topology: Topology
  readonly #streams: Streams
  readonly #limits: DeclaredLimits
  readonly #log: Logger
  readonly #exchanges = new Map<string, Declared<ExchangeSpec>>()
  readonly #bindings = new Map<string, DeclaredBinding>()
  #turn: Promise<unknown> = Promise.resolve()

  constructor({
    store,
    schedule,
    table,
    topology,
    streams,
    limits,
    log,
  }: {
    store: Store
    schedule: CommitSchedule
    table: RoutingTable
    topology: Topology
    streams: Streams
    limits: DeclaredLimits
    log: Logger
  }) {
    this.#store = store
    this.#schedule = schedule
    this.#table = table
    this.#topology = topology
    this.#streams = streams
    this.#limits = limits
    this.#log = log
  }

  /** Brings back what was declared durable; after all queues are there. A binding that leads from or to nothing any more is forgotten. */
  async load(): Promise<void> {
    for await (const [, value] of this.#store.readState(EXCHANGES)) {
      const declared = JSON.parse(value.toString()) as Declared<ExchangeSpec>
      this.#exchanges.set(declared.spec.name, declared)
      this.#table.add(declared.spec)
    }
    const gone: Buffer[] = []
    for await (const [key, value] of this.#store.readState(BINDINGS)) {
      const { spec, origin } = JSON.parse(value.toString()) as Declared<BindingSpec>
      if (this.#bindings.has(bindingId(spec))) continue
      const { source, destination } = spec
      const isThere =
        destination.kind === 'queue' ? this.#hasKeeper(destination.name) : this.#table.has(destination.name)
      if (isThere && this.#table.has(source)) {
        this.#bind(spec, origin)
      } else {
        this.#log.warn({ source, destination }, 'a binding is forgotten: one of its ends is not there any more')
        gone.push(key)
      }
    }
    await Promise.all(gone.map(key => this.#schedule.change({ key, value: null })))
  }

  exchanges(): Iterable<{ readonly exchange: Exchange; readonly origin: Origin | 'built-in' }> {
    return [...this.#table.exchanges()].map(exchange => ({
      exchange,
      origin: this.#exchanges.get(exchange.name)?.origin ?? 'built-in',
    }))
  }

  /** All but those of the default exchange, which are given. */
  bindings(): Iterable<Declared<BindingSpec>> {
    return this.#bindings.values()
  }

  /**
   * Declares an exchange; one that is there with the same attributes is fine. Resolves when it is durable, if it is to be.
   * @throws BrokerError DECLARATION_MISMATCH if it is there with others, NOT_AUTHORIZED for reserved names, LIMIT_REACHED.
   */
  declareExchange(spec: ExchangeSpec, origin: Origin): Promise<DeclareOutcome> {
    return this.#inTurn(async () => {
      const known = this.#table.find(spec.name)
      if (known !== undefined) {
        if (isSameExchange(known.spec, spec)) return 'exists'
        throw new BrokerError(
          'DECLARATION_MISMATCH',
          `exchange ${spec.name} exists with other attributes (${known.spec.kind}); delete it first, or declare it as it is`,
          { facts: { exchange: spec.name } },
        )
      }
      refuseReserved('exchange', spec.name)
      this.#refuseOver('exchanges', this.#exchanges.size, origin)
      const declared = { spec, origin }
      this.#exchanges.set(spec.name, declared)
      this.#table.add(spec)
      if (spec.isDurable) await this.#keep(exchangeKey(spec.name), declared)
      return 'created'
    })
  }

  /**
   * Deletes an exchange and all bindings from and to it; what was routed is not touched.
   * @throws BrokerError EXCHANGE_NOT_FOUND, NOT_AUTHORIZED for a built-in one.
   */
  deleteExchange(name: string): Promise<void> {
    return this.#inTurn(async () => {
      const { spec } = this.#table.exchange(name)
      if (!this.#exchanges.has(name)) {
        throw new BrokerError('NOT_AUTHORIZED', `exchange ${name} is built in and stays`, { facts: { exchange: name } })
      }
      const bound = [...this.#bindings.values()].filter(
        ({ spec: { source, destination } }) =>
          source === name || (destination.kind === 'exchange' && destination.name === name),
      )
      const changes = bound.map(declared => this.#unbind(declared))
      this.#exchanges.delete(name)
      this.#table.remove(name)
      if (spec.isDurable) changes.push(this.#forget(exchangeKey(name)))
      await Promise.all(changes)
    })
  }

  /**
   * Declares a queue; one that is there with the same limits and policy is fine. Resolves when its definition is durable, if it is to be.
   * @throws BrokerError DECLARATION_MISMATCH if it is there with others, NOT_AUTHORIZED for reserved names, LIMIT_REACHED.
   */
  declareQueue(spec: QueueSpec): Promise<DeclareOutcome> {
    return this.#inTurn(async () => {
      const { name } = spec
      if (this.#topology.has(name) && !this.#topology.isOrphan(name)) {
        const queue = this.#topology.queue(name)
        if (isSameQueue(queue, spec)) {
          queue.used()
          return 'exists'
        }
        throw new BrokerError(
          'DECLARATION_MISMATCH',
          `queue ${name} exists with other limits or another policy; delete it first, or declare it as it is`,
          { facts: { queue: name } },
        )
      }
      refuseReserved('queue', name)
      if (!this.#topology.has(name)) this.#refuseOver('queues', this.#topology.queueCount, spec.origin)
      await this.#topology.declareQueue(spec)
      return 'created'
    })
  }

  /** Deletes queues that nobody has used for as long as their policy grants. What cannot be deleted now is looked at again. */
  expire(): void {
    for (const { name, isUnused } of this.#topology.queues()) if (isUnused) this.#expireQueue(name)
  }

  #expireQueue(name: string): void {
    const isOver = (): boolean => this.#topology.has(name) && this.#topology.queue(name).isUnused
    const deleted = this.#inTurn(async () => {
      if (!isOver()) return
      await this.#deleteQueue(name)
      this.#log.info({ queue: name }, 'queue deleted: nobody has used it for longer than its expiry')
    })
    deleted.catch((error: unknown) => {
      if (!(error instanceof BrokerError)) throw error
      this.#log.warn({ queue: name }, `an unused queue could not be deleted yet: ${error.message}`)
    })
  }

  /** Deletes a queue with its messages and all its bindings; throws as Topology.deleteQueue does, and then nothing has changed. */
  deleteQueue(name: string): Promise<void> {
    return this.#inTurn(() => this.#deleteQueue(name))
  }

  /** The same with a stream; throws as Streams.delete does. */
  deleteStream(name: string): Promise<void> {
    return this.#inTurn(async () => {
      this.#streams.checkDeletable(name)
      await this.#deleteBound(name, () => this.#streams.delete(name))
    })
  }

  async #deleteQueue(name: string): Promise<void> {
    this.#topology.checkDeletable(name)
    await this.#deleteBound(name, () => this.#topology.deleteQueue(name))
  }

  async #deleteBound(name: string, act: () => Promise<void>): Promise<void> {
    const bound = [...this.#bindings.values()].filter(
      ({ spec: { destination } }) => destination.kind === 'queue' && destination.name === name,
    )
    for (const { spec, binding } of bound) this.#table.unbind(spec.source, binding)
    try {
      await act()
    } catch (error) {
      for (const { spec, binding } of bound) this.#table.bind(spec.source, binding)
      throw error
    }
    await Promise.all(bound.map(declared => this.#unbind(declared)))
  }

  /**
   * Binds; a binding that is there already is fine. Resolves when it is durable, if both ends are and it does not come from the configuration.
   * @throws BrokerError EXCHANGE_NOT_FOUND, QUEUE_NOT_FOUND, NOT_AUTHORIZED for the default exchange, NAME_INVALID for a key the source cannot match,
   * REQUEST_INVALID for headers where the source does not look at them, LIMIT_REACHED.
   */
  bind(spec: BindingSpec, origin: Origin): Promise<DeclareOutcome> {
    return this.#inTurn(async () => {
      refuseDefault(spec)
      const { kind } = this.#table.exchange(spec.source).spec
      if (spec.source === MQTT_EXCHANGE) topicFilter(spec.key)
      else routingKey(spec.key)
      if (kind !== 'headers' && spec.headers !== null) {
        throw new BrokerError(
          'REQUEST_INVALID',
          `${spec.source} is a ${kind} exchange and looks at no arguments; bind without them, or to a headers exchange`,
          { facts: { exchange: spec.source } },
        )
      }
      if (this.#bindings.has(bindingId(spec))) return 'exists'
      this.#refuseOver('bindings', this.#bindings.size, origin)
      const declared = this.#bind(spec, origin)
      if (this.#isKept(declared)) await this.#keep(bindingKey(spec), { spec, origin })
      return 'created'
    })
  }

  /** @throws BrokerError BINDING_NOT_FOUND, NOT_AUTHORIZED for one of the configuration or of the default exchange. */
  unbind(spec: BindingSpec): Promise<void> {
    return this.#inTurn(async () => {
      refuseDefault(spec)
      const declared = this.#bindings.get(bindingId(spec))
      const ends = `${spec.source} to ${spec.destination.kind} ${spec.destination.name} with key ${JSON.stringify(spec.key)}`
      if (declared === undefined) throw new BrokerError('BINDING_NOT_FOUND', `there is no binding from ${ends}`)
      if (declared.origin === 'config') {
        throw new BrokerError(
          'NOT_AUTHORIZED',
          `the binding from ${ends} comes from the configuration; take it out there`,
        )
      }
      await this.#unbind(declared)
    })
  }

  #refuseOver(what: keyof DeclaredLimits, count: number, origin: Origin): void {
    if (count < this.#limits[what] || origin === 'config') return
    throw new BrokerError(
      'LIMIT_REACHED',
      `there are ${count} ${what} already, as many as limits.${what} permits; delete some, or raise it`,
      { facts: { limit: this.#limits[what] } },
    )
  }

  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(act)
    // Whoever asked is told of a failure; the next one starts all the same.
    this.#turn = done.catch(() => undefined)
    return done
  }

  #bind(spec: BindingSpec, origin: Origin): DeclaredBinding {
    const { source, destination, key, headers } = spec
    const target =
      destination.kind === 'queue'
        ? { live: null, queue: this.#keeper(destination.name) }
        : { exchange: this.#table.exchange(destination.name).name }
    const binding: Binding = {
      pattern: key,
      destination: target,
      maxQos: MAX_QOS,
      note: 0,
      ...(headers === null ? {} : { headers: { match: headers.match, values: new Map(headers.values) } }),
    }
    this.#table.bind(source, binding)
    const declared = { spec, origin, binding }
    this.#bindings.set(bindingId(spec), declared)
    return declared
  }

  /** Queues and streams share their names; to a binding, as in RabbitMQ, a stream is a queue. */
  #hasKeeper(name: string): boolean {
    return this.#streams.find(name) !== undefined || this.#topology.has(name)
  }

  /** @throws BrokerError QUEUE_NOT_FOUND */
  #keeper(name: string): Keeper {
    return this.#streams.find(name) ?? this.#topology.queue(name)
  }

  async #unbind(declared: DeclaredBinding): Promise<void> {
    const { spec, binding } = declared
    const isKept = this.#isKept(declared)
    this.#bindings.delete(bindingId(spec))
    this.#table.unbind(spec.source, binding)
    if (isKept) await this.#forget(bindingKey(spec))
  }

  #isKept({ spec: { source, destination }, origin }: Declared<BindingSpec>): boolean {
    const isDurable = (exchange: string): boolean => this.#table.find(exchange)?.spec.isDurable ?? false
    // One that is deleted may have been durable.
    const isKeptQueue = (queue: string): boolean => !this.#topology.has(queue) || this.#topology.queue(queue).isDurable
    const isKept = destination.kind === 'queue' ? isKeptQueue : isDurable
    return origin !== 'config' && isDurable(source) && isKept(destination.name)
  }

  #keep(key: Buffer, declared: Declared<ExchangeSpec | BindingSpec>): Promise<void> {
    return this.#schedule.change({ key, value: Buffer.from(JSON.stringify(declared)) })
  }

  #forget(key: Buffer): Promise<void> {
    return this.#schedule.change({ key, value: null })
  }
}

const exchangeKey = (name: string): Buffer => Buffer.concat([EXCHANGES, Buffer.from(name)])
const bindingKey = (spec: BindingSpec): Buffer => Buffer.concat([BINDINGS, Buffer.from(bindingId(spec))])

/** Source, destination, key and arguments together name a binding (AMQP 0-9-1, queue.bind); arguments in any order. */
function bindingId({ source, destination, key, headers }: BindingSpec): string {
  const values = headers?.values.toSorted(([a], [b]) => (a < b ? -1 : 1)) ?? null
  return JSON.stringify([source, destination.kind, destination.name, key, headers?.match ?? null, values])
}

/** AMQP 0-9-1 section 3.1.3.1: every queue is bound to it by its name, and by nothing else. */
function refuseDefault({ source, destination }: BindingSpec): void {
  const isToDefault = destination.kind === 'exchange' && destination.name === DEFAULT_EXCHANGE
  if (source !== DEFAULT_EXCHANGE && !isToDefault) return
  throw new BrokerError(
    'NOT_AUTHORIZED',
    'the default exchange has the bindings it has: each queue under its name; bind to another exchange',
  )
}

function refuseReserved(what: 'exchange' | 'queue', name: string): void {
  if (!name.startsWith('amq.')) return
  throw new BrokerError('NOT_AUTHORIZED', `${what} names beginning with amq. are reserved; choose another than ${name}`)
}

function isSameExchange(a: ExchangeSpec, b: ExchangeSpec): boolean {
  return (
    a.kind === b.kind && a.isDurable === b.isDurable && a.isInternal === b.isInternal && a.alternate === b.alternate
  )
}

function isSameQueue(
  queue: Queue,
  { limits, qos0, policy = {}, deadLetter = null, isDurable = true }: QueueSpec,
): boolean {
  return (
    queue.isDurable === isDurable &&
    queue.qos0 === qos0 &&
    queue.limits.messages === limits.messages &&
    queue.limits.bytes === limits.bytes &&
    queue.limits.ageMs === limits.ageMs &&
    queue.limits.onFull === limits.onFull &&
    isSamePolicy(queue.policy, resolvePolicy(policy)) &&
    queue.deadLetter?.address.exchange === deadLetter?.exchange &&
    queue.deadLetter?.address.key === deadLetter?.key
  )
}
