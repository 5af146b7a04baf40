import { BrokerError } from '../model/error.ts'
import { MQTT_EXCHANGE } from '../model/message.ts'
import { routingKey, topicFilter } from '../model/names.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Binding } from './binding.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { decodeDefinitionRecord, encodeDefinitionRecord } from './definition-record.ts'
import { DEFAULT_EXCHANGE, type Exchange, type ExchangeSpec } from './exchange.ts'
import type { HeadersMatch, HeaderValue } from './exchanges/headers.ts'
import type { Keeper } from './keeper.ts'
import type { Queue } from './queue.ts'
import { isSamePolicy, type Origin, type QueueSpec, resolvePolicy } from './queue-definition.ts'
import type { RoutingTable } from './routing-table.ts'
import type { StreamSpec, Streams } from './streams.ts'
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
  /** Streams among them. */
  readonly queues: number
  /** Without the built-in ones. */
  readonly exchanges: number
  readonly bindings: number
}

/** What is declared by name, to be declared together; nothing of it comes from the configuration. */
export interface Definitions {
  readonly exchanges: readonly Declared<ExchangeSpec>[]
  readonly queues: readonly QueueSpec[]
  readonly streams: readonly StreamSpec[]
  readonly bindings: readonly Declared<BindingSpec>[]
}

/** Why one definition cannot be declared. */
export interface DefinitionRefusal {
  /** Which one, for people: `queue jobs`. */
  readonly item: string
  readonly error: BrokerError
}

/** What is declared together with something, and there when it is. */
interface Alongside {
  readonly exchanges: ReadonlyMap<string, ExchangeSpec>
  /** Names of queues and streams. */
  readonly keepers: ReadonlySet<string>
  /** How many of each will be new. */
  readonly counts: DeclaredLimits
}

const NOTHING: Alongside = {
  exchanges: new Map(),
  keepers: new Set(),
  counts: { exchanges: 0, queues: 0, bindings: 0 },
}
/** So many refusals are told one by one. */
const REFUSALS_TOLD = 100

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

  /**
   * Brings back what was declared durable; after all queues are there. A binding that leads from or to nothing any more is forgotten.
   * @throws BrokerError STORE_FORMAT_UNKNOWN
   */
  async load(): Promise<void> {
    for await (const [, value] of this.#store.readState(EXCHANGES)) {
      const declared = decodeDefinitionRecord<Declared<ExchangeSpec>>(value)
      this.#exchanges.set(declared.spec.name, declared)
      this.#table.add(declared.spec)
    }
    const gone: Buffer[] = []
    for await (const [key, value] of this.#store.readState(BINDINGS)) {
      const { spec, origin } = decodeDefinitionRecord<Declared<BindingSpec>>(value)
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
      const outcome = this.#judgeExchange({ spec, origin }, NOTHING)
      if (outcome === 'created') await this.#addExchange({ spec, origin })
      return outcome
    })
  }

  #judgeExchange({ spec, origin }: Declared<ExchangeSpec>, { counts }: Alongside): DeclareOutcome {
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
    this.#refuseOver('exchanges', this.#exchanges.size + counts.exchanges, origin)
    return 'created'
  }

  async #addExchange(declared: Declared<ExchangeSpec>): Promise<void> {
    const { spec } = declared
    this.#exchanges.set(spec.name, declared)
    this.#table.add(spec)
    if (spec.isDurable) await this.#keep(exchangeKey(spec.name), declared)
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
   * @throws BrokerError DECLARATION_MISMATCH if it is there with others or a stream has its name, NOT_AUTHORIZED for reserved names, LIMIT_REACHED.
   */
  declareQueue(spec: QueueSpec): Promise<DeclareOutcome> {
    return this.#inTurn(async () => {
      const outcome = this.#judgeQueue(spec, NOTHING)
      if (outcome === 'created') await this.#topology.declareQueue(spec)
      else this.#topology.queue(spec.name).used()
      return outcome
    })
  }

  #judgeQueue(spec: QueueSpec, { counts }: Alongside): DeclareOutcome {
    const { name } = spec
    if (this.#topology.has(name) && !this.#topology.isOrphan(name)) {
      if (isSameQueue(this.#topology.queue(name), spec)) return 'exists'
      throw new BrokerError(
        'DECLARATION_MISMATCH',
        `queue ${name} exists with other limits or another policy; delete it first, or declare it as it is`,
        { facts: { queue: name } },
      )
    }
    refuseReserved('queue', name)
    this.#topology.checkName(name)
    if (!this.#topology.has(name)) this.#refuseOver('queues', this.#keeperCount + counts.queues, spec.origin)
    return 'created'
  }

  #judgeStream({ name, origin, retention, ack }: StreamSpec, { counts }: Alongside): DeclareOutcome {
    const known = this.#streams.find(name)
    if (known !== undefined && !this.#streams.isOrphan(name)) {
      const isSame = known.retention.ageMs === retention.ageMs && known.retention.bytes === retention.bytes
      if (isSame && known.ack === ack) return 'exists'
      throw new BrokerError(
        'DECLARATION_MISMATCH',
        `stream ${name} exists with another retention or ack; delete it first, or declare it as it is`,
        { facts: { stream: name } },
      )
    }
    refuseReserved('stream', name)
    this.#streams.checkName(name)
    if (known === undefined) this.#refuseOver('queues', this.#keeperCount + counts.queues, origin)
    return 'created'
  }

  get #keeperCount(): number {
    return this.#topology.queueCount + this.#streams.count
  }

  /**
   * Declares all of `definitions` that is not there, or nothing if anything of it is refused; what is there stays as it is. Resolves with what was missing, when it is
   * durable; with `isDryRun` nothing is declared. What a power cut leaves of it is completed by declaring it again.
   * @throws BrokerError DEFINITIONS_REFUSED with an error for each definition that is refused.
   */
  declareAll(definitions: Definitions, { isDryRun }: { readonly isDryRun: boolean }): Promise<Definitions> {
    return this.#inTurn(async () => {
      const missing = this.#missing(definitions)
      if (isDryRun) return missing
      await Promise.all(missing.exchanges.map(declared => this.#addExchange(declared)))
      await Promise.all([
        ...missing.queues.map(spec => this.#topology.declareQueue(spec)),
        ...missing.streams.map(spec => this.#streams.declare(spec)),
      ])
      await Promise.all(missing.bindings.map(declared => this.#addBinding(declared)))
      for (const { name } of definitions.queues) this.#topology.queue(name).used()
      return missing
    })
  }

  /** What of `definitions` is not there. @throws BrokerError DEFINITIONS_REFUSED */
  #missing({ exchanges, queues, streams, bindings }: Definitions): Definitions {
    const missing = {
      exchanges: [] as Declared<ExchangeSpec>[],
      queues: [] as QueueSpec[],
      streams: [] as StreamSpec[],
      bindings: [] as Declared<BindingSpec>[],
    }
    const alongside: Alongside = {
      exchanges: new Map(exchanges.map(({ spec }) => [spec.name, spec])),
      keepers: new Set([...queues, ...streams].map(({ name }) => name)),
      counts: {
        get exchanges() {
          return missing.exchanges.length
        },
        get queues() {
          return missing.queues.length + missing.streams.length
        },
        get bindings() {
          return missing.bindings.length
        },
      },
    }
    const refusals: DefinitionRefusal[] = []
    const seen = new Set<string>()
    const sift = <T>(given: readonly T[], into: T[], { id, item, judge }: Sieve<T>): void => {
      for (const one of given) {
        try {
          if (seen.has(id(one))) throw new BrokerError('REQUEST_INVALID', 'this name is there twice; take one out')
          seen.add(id(one))
          if (judge(one) === 'created') into.push(one)
        } catch (error) {
          if (!(error instanceof BrokerError)) throw error
          refusals.push({ item: item(one), error })
        }
      }
    }
    sift(exchanges, missing.exchanges, {
      id: ({ spec }) => `exchange ${spec.name}`,
      item: ({ spec }) => `exchange ${spec.name}`,
      judge: declared => this.#judgeExchange(declared, alongside),
    })
    sift(queues, missing.queues, {
      id: ({ name }) => `queue ${name}`,
      item: ({ name }) => `queue ${name}`,
      judge: spec => this.#judgeQueue(spec, alongside),
    })
    sift(streams, missing.streams, {
      // Queues and streams share their names.
      id: ({ name }) => `queue ${name}`,
      item: ({ name }) => `stream ${name}`,
      judge: spec => this.#judgeStream(spec, alongside),
    })
    sift(bindings, missing.bindings, {
      id: ({ spec }) => bindingId(spec),
      item: ({ spec }) => bindingText(spec),
      judge: declared => this.#judgeBinding(declared, alongside),
    })
    if (refusals.length > 0) throw definitionsRefused(refusals)
    return missing
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
      const outcome = this.#judgeBinding({ spec, origin }, NOTHING)
      if (outcome === 'created') await this.#addBinding({ spec, origin })
      return outcome
    })
  }

  #judgeBinding({ spec, origin }: Declared<BindingSpec>, { exchanges, keepers, counts }: Alongside): DeclareOutcome {
    const { source, destination, key, headers } = spec
    refuseDefault(spec)
    const exchangeOf = (name: string): ExchangeSpec =>
      this.#table.find(name)?.spec ?? exchanges.get(name) ?? this.#table.exchange(name).spec
    const { kind } = exchangeOf(source)
    if (source === MQTT_EXCHANGE) topicFilter(key)
    else routingKey(key)
    if (kind !== 'headers' && headers !== null) {
      throw new BrokerError(
        'REQUEST_INVALID',
        `${source} is a ${kind} exchange and looks at no arguments; bind without them, or to a headers exchange`,
        { facts: { exchange: source } },
      )
    }
    if (this.#bindings.has(bindingId(spec))) return 'exists'
    if (destination.kind === 'exchange') exchangeOf(destination.name)
    else if (!keepers.has(destination.name)) this.#keeper(destination.name)
    this.#refuseOver('bindings', this.#bindings.size + counts.bindings, origin)
    return 'created'
  }

  async #addBinding({ spec, origin }: Declared<BindingSpec>): Promise<void> {
    const declared = this.#bind(spec, origin)
    if (this.#isKept(declared)) await this.#keep(bindingKey(spec), { spec, origin })
  }

  /** @throws BrokerError BINDING_NOT_FOUND, NOT_AUTHORIZED for one of the configuration or of the default exchange. */
  unbind(spec: BindingSpec): Promise<void> {
    return this.#inTurn(async () => {
      refuseDefault(spec)
      const declared = this.#bindings.get(bindingId(spec))
      if (declared === undefined) throw new BrokerError('BINDING_NOT_FOUND', `there is no ${bindingText(spec)}`)
      if (declared.origin === 'config') {
        throw new BrokerError(
          'NOT_AUTHORIZED',
          `the ${bindingText(spec)} comes from the configuration; take it out there`,
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
    return this.#schedule.change({ key, value: encodeDefinitionRecord(declared) })
  }

  #forget(key: Buffer): Promise<void> {
    return this.#schedule.change({ key, value: null })
  }
}

interface Sieve<T> {
  readonly id: (one: T) => string
  readonly item: (one: T) => string
  readonly judge: (one: T) => DeclareOutcome
}

/** One error for several definitions, of which nothing was declared. */
export function definitionsRefused(refusals: readonly DefinitionRefusal[]): BrokerError {
  const told = refusals.slice(0, REFUSALS_TOLD)
  const errors = told.map(({ item, error }) => ({ item, code: error.code, detail: error.message }))
  const which = told.length < refusals.length ? `; these are the first ${told.length}` : ''
  return new BrokerError(
    'DEFINITIONS_REFUSED',
    `nothing was changed: ${refusals.length} of the definitions cannot be declared${which}`,
    { facts: { refused: refusals.length, errors } },
  )
}

/** A binding in words. */
export const bindingText = ({ source, destination, key }: BindingSpec): string =>
  `binding from ${source} to ${destination.kind} ${destination.name} with key ${JSON.stringify(key)}`

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

function refuseReserved(what: 'exchange' | 'queue' | 'stream', name: string): void {
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
