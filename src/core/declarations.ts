import { BrokerError } from '../model/error.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Binding } from './binding.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import type { Exchange, ExchangeSpec } from './exchange.ts'
import type { HeadersMatch, HeaderValue } from './exchanges/headers.ts'
import type { RoutingTable } from './routing-table.ts'
import type { Origin, Topology } from './topology.ts'

/** A binding by names, as it is declared and kept. */
export interface BindingSpec {
  readonly source: string
  readonly destination: { readonly kind: 'queue' | 'exchange'; readonly name: string }
  /** Routing key or pattern, in the source's dialect. */
  readonly key: string
  /** Only for a headers exchange. */
  readonly headers: { readonly match: HeadersMatch; readonly values: Readonly<Record<string, HeaderValue>> } | null
}

interface Declared<Spec> {
  readonly spec: Spec
  readonly origin: Origin
}

interface DeclaredBinding extends Declared<BindingSpec> {
  readonly binding: Binding
}

const EXCHANGES = Buffer.from([StatePrefix.definition, 'x'.charCodeAt(0)])
const BINDINGS = Buffer.from([StatePrefix.definition, 'b'.charCodeAt(0)])
/** A binding between durable things takes whatever comes. */
const MAX_QOS = 2

/**
 * Exchanges and bindings declared by name, over the API or by clients. Those between durable things are kept in the store and are
 * there again after a restart; a transient exchange goes with the process, and its bindings with it.
 */
export class Declarations {
  readonly #store: Store
  readonly #schedule: CommitSchedule
  readonly #table: RoutingTable
  readonly #topology: Topology
  readonly #exchanges = new Map<string, Declared<ExchangeSpec>>()
  readonly #bindings = new Map<string, DeclaredBinding>()

  constructor({
    store,
    schedule,
    table,
    topology,
  }: {
    store: Store
    schedule: CommitSchedule
    table: RoutingTable
    topology: Topology
  }) {
    this.#store = store
    this.#schedule = schedule
    this.#table = table
    this.#topology = topology
  }

  /** Brings back what was declared durable; after the topology has its queues. */
  async load(): Promise<void> {
    for await (const [, value] of this.#store.readState(EXCHANGES)) {
      const declared = JSON.parse(value.toString()) as Declared<ExchangeSpec>
      this.#exchanges.set(declared.spec.name, declared)
      this.#table.add(declared.spec)
    }
    for await (const [, value] of this.#store.readState(BINDINGS)) {
      const { spec, origin } = JSON.parse(value.toString()) as Declared<BindingSpec>
      this.#bind(spec, origin)
    }
  }

  exchanges(): Iterable<{ readonly exchange: Exchange; readonly origin: Origin | 'built-in' }> {
    return [...this.#table.exchanges()].map(exchange => ({
      exchange,
      origin: this.#exchanges.get(exchange.name)?.origin ?? 'built-in',
    }))
  }

  bindings(): Iterable<Declared<BindingSpec>> {
    return this.#bindings.values()
  }

  /**
   * Declares an exchange; one that is there with the same attributes is fine. Resolves when it is durable, if it is to be.
   * @throws BrokerError DECLARATION_MISMATCH if it is there with others, NAME_INVALID for reserved names.
   */
  async declareExchange(spec: ExchangeSpec, origin: Origin): Promise<void> {
    const known = this.#table.find(spec.name)
    if (known !== undefined) {
      if (isSame(known.spec, spec)) return
      throw new BrokerError(
        'DECLARATION_MISMATCH',
        `exchange ${spec.name} exists with other attributes (${known.spec.kind}); delete it first, or declare it as it is`,
        { facts: { exchange: spec.name } },
      )
    }
    if (isReserved(spec.name)) {
      throw new BrokerError(
        'NAME_INVALID',
        `exchange names beginning with amq. are reserved; choose another than ${spec.name}`,
      )
    }
    const declared = { spec, origin }
    this.#exchanges.set(spec.name, declared)
    this.#table.add(spec)
    if (spec.isDurable) await this.#keep(exchangeKey(spec.name), declared)
  }

  /**
   * Deletes an exchange and all bindings from and to it; what was routed is not touched.
   * @throws BrokerError EXCHANGE_NOT_FOUND, NAME_INVALID for a built-in one.
   */
  async deleteExchange(name: string): Promise<void> {
    const { spec } = this.#table.exchange(name)
    if (!this.#exchanges.has(name))
      throw new BrokerError('NAME_INVALID', `exchange ${name || '(default)'} is built in and stays`)
    const changes: Promise<void>[] = []
    for (const { spec: binding } of [...this.#bindings.values()]) {
      const isTarget = binding.destination.kind === 'exchange' && binding.destination.name === name
      if (binding.source === name || isTarget) changes.push(this.unbind(binding))
    }
    this.#exchanges.delete(name)
    this.#table.remove(name)
    if (spec.isDurable) changes.push(this.#forget(exchangeKey(name)))
    await Promise.all(changes)
  }

  /**
   * Binds; a binding that is there already is fine. Resolves when it is durable, if both ends are.
   * @throws BrokerError EXCHANGE_NOT_FOUND, QUEUE_NOT_FOUND, NAME_INVALID for the default exchange.
   */
  async bind(spec: BindingSpec, origin: Origin): Promise<void> {
    if (spec.source === '' || (spec.destination.kind === 'exchange' && spec.destination.name === '')) {
      // AMQP 0-9-1: the default exchange's bindings are given.
      throw new BrokerError(
        'NAME_INVALID',
        'nothing can be bound to or from the default exchange; it routes by queue name',
      )
    }
    if (this.#bindings.has(bindingId(spec))) return
    this.#bind(spec, origin)
    if (this.#isDurable(spec)) await this.#keep(bindingKey(spec), { spec, origin })
  }

  /** @throws BrokerError BINDING_NOT_FOUND */
  async unbind(spec: BindingSpec): Promise<void> {
    const id = bindingId(spec)
    const declared = this.#bindings.get(id)
    if (declared === undefined) {
      throw new BrokerError(
        'BINDING_NOT_FOUND',
        `${spec.source} is not bound to ${spec.destination.name} with key ${spec.key}`,
      )
    }
    const isDurable = this.#isDurable(declared.spec)
    this.#bindings.delete(id)
    this.#table.unbind(spec.source, declared.binding)
    if (isDurable) await this.#forget(bindingKey(spec))
  }

  /** Deletes a queue with all its bindings; throws as Topology.deleteQueue does, and then nothing has changed. */
  async deleteQueue(name: string): Promise<void> {
    await this.#topology.deleteQueue(name)
    const bound = [...this.#bindings.values()].filter(
      ({ spec: { destination } }) => destination.kind === 'queue' && destination.name === name,
    )
    await Promise.all(bound.map(({ spec }) => this.unbind(spec)))
  }

  #bind(spec: BindingSpec, origin: Origin): void {
    const { source, destination, key, headers } = spec
    const target =
      destination.kind === 'queue'
        ? { live: null, queue: this.#topology.queue(destination.name) }
        : { exchange: this.#table.exchange(destination.name).name }
    const binding: Binding = {
      pattern: key,
      destination: target,
      maxQos: MAX_QOS,
      note: 0,
      ...(headers === null
        ? {}
        : { headers: { match: headers.match, values: new Map(Object.entries(headers.values)) } }),
    }
    this.#table.bind(source, binding)
    this.#bindings.set(bindingId(spec), { spec, origin, binding })
  }

  #isDurable({ source, destination }: BindingSpec): boolean {
    const isSourceDurable = this.#table.find(source)?.spec.isDurable ?? false
    return (
      isSourceDurable && (destination.kind === 'queue' || (this.#table.find(destination.name)?.spec.isDurable ?? false))
    )
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

/** Source, destination, key and arguments together name a binding (AMQP 0-9-1, queue.bind). */
const bindingId = ({ source, destination, key, headers }: BindingSpec): string =>
  JSON.stringify([source, destination.kind, destination.name, key, headers])

const isReserved = (name: string): boolean => name.startsWith('amq.') || name === ''

function isSame(a: ExchangeSpec, b: ExchangeSpec): boolean {
  return (
    a.kind === b.kind && a.isDurable === b.isDurable && a.isInternal === b.isInternal && a.alternate === b.alternate
  )
}
