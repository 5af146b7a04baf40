import { BrokerError } from '../model/error.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Binding } from './binding.ts'
import type { Clock } from './clock.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { DEFAULT_EXCHANGE } from './exchange.ts'
import { type GetOptions, type GetVisitor, getMessages } from './get.ts'
import { type LedgerFigures, withQueued } from './ledger.ts'
import type { MemoryBudget } from './memory.ts'
import { Queue, type QueueLimits, type QueueRecord } from './queue.ts'
import type { RoutingTable } from './routing-table.ts'
import type { Tickets } from './tickets.ts'

export type Origin = 'config' | 'api' | 'client'
export type Qos0Policy = 'buffer' | 'pass' | 'ignore'

export interface QueueSpec {
  readonly name: string
  readonly origin: Origin
  readonly limits: QueueLimits
  readonly qos0: Qos0Policy
}

/** A queue's definition as kept in the store. */
interface QueueDefinition {
  readonly number: number
  readonly name: string
  readonly origin: Origin
  readonly limits: QueueLimits
  readonly qos0: Qos0Policy
}

const EMPTY_FIGURES: LedgerFigures = {
  accepted: 0,
  settled: 0,
  queued: 0,
  in_flight: 0,
  dropped: {},
  expired: 0,
  dead_lettered: {},
}

/** Of a queue that only its messages tell of. */
const FOUND_LIMITS: QueueLimits = {
  messages: Number.MAX_SAFE_INTEGER,
  bytes: Number.MAX_SAFE_INTEGER,
  ageMs: Number.MAX_SAFE_INTEGER,
  onFull: 'reject',
}

const QUEUE_DEFINITIONS = Buffer.from([StatePrefix.definition, 'q'.charCodeAt(0)])

/** What exists: durable queues and their definitions, kept in the store; memory queues by their owners. */
export class Topology {
  readonly #store: Store
  readonly #schedule: CommitSchedule
  readonly #tickets: Tickets
  readonly #memory: MemoryBudget
  readonly #clock: Clock
  readonly #table: RoutingTable
  readonly #queues = new Map<string, Queue>()
  readonly #definitions = new Map<string, QueueDefinition>()
  readonly #declared = new Set<string>()
  /** By queue, the binding that lets the default exchange find it. */
  readonly #byName = new Map<string, Binding>()
  #nextNumber = 1

  constructor({
    store,
    schedule,
    tickets,
    memory,
    clock,
    table,
  }: {
    store: Store
    schedule: CommitSchedule
    tickets: Tickets
    memory: MemoryBudget
    clock: Clock
    table: RoutingTable
  }) {
    this.#store = store
    this.#schedule = schedule
    this.#tickets = tickets
    this.#memory = memory
    this.#clock = clock
    this.#table = table
  }

  /** Brings back every durable queue the store knows, whether or not the configuration still names it. */
  async load(): Promise<void> {
    const definitions: QueueDefinition[] = []
    for await (const [, value] of this.#store.readState(QUEUE_DEFINITIONS)) {
      definitions.push(decodeDefinition(value))
    }
    const { queueNames } = this.#store.recovery
    const known = new Set(definitions.map(({ number }) => number))
    for (const [number, name] of queueNames) {
      // Its definition went with state/, its messages are in log/: kept as an orphan until the configuration names it again.
      if (!known.has(number)) definitions.push({ number, name, origin: 'config', limits: FOUND_LIMITS, qos0: 'buffer' })
    }
    for (const definition of definitions) {
      this.#nextNumber = Math.max(this.#nextNumber, definition.number + 1)
      await this.#open(definition)
    }
  }

  async #open(definition: QueueDefinition): Promise<Queue> {
    const { number, name, limits, qos0 } = definition
    const key = ledgerKey(number)
    this.#store.nameQueue(number, name)
    const value = await this.#store.getState(key)
    const record = value === undefined ? null : (JSON.parse(value.toString()) as QueueRecord)
    const last = await this.#store.lastSegment(number)
    const { isStateRebuilt } = this.#store.recovery
    const counted = isStateRebuilt ? await this.#store.unsettled(number) : null
    const figures = record?.figures ?? EMPTY_FIGURES
    const queue = new Queue({
      name,
      limits,
      qos0,
      memory: this.#memory,
      monotonicMs: this.#clock.monotonicMs,
      durability: {
        number,
        schedule: this.#schedule,
        tickets: this.#tickets,
        read: (after, maxBytes) => this.#store.segments(number, after, maxBytes),
        ledgerKey: key,
      },
      stored: {
        figures: counted === null ? figures : withQueued(figures, counted.messages),
        bytes: counted?.bytes ?? record?.bytes ?? 0,
        nextPosition: Math.max(record?.next ?? 0, last?.end ?? 0),
        last: last?.ref ?? null,
      },
    })
    this.#queues.set(name, queue)
    this.#definitions.set(name, definition)
    const byName: Binding = { pattern: name, destination: { live: null, queue }, maxQos: 2, note: 0 }
    this.#byName.set(name, byName)
    this.#table.bind(DEFAULT_EXCHANGE, byName)
    queue.prefetch()
    return queue
  }

  /**
   * For whoever owns the name, the configuration above all; declarations of others go through Declarations.
   * A durable queue by this name: the one that is there with the limits of `spec`, or a new one. Resolves when its definition is durable.
   */
  async declareQueue(spec: QueueSpec): Promise<Queue> {
    this.#declared.add(spec.name)
    const known = this.#definitions.get(spec.name)
    const definition: QueueDefinition = { number: known?.number ?? this.#nextNumber++, ...spec }
    const queue = this.#queues.get(spec.name)
    if (known !== undefined && queue !== undefined) {
      if (encodeDefinition(known).equals(encodeDefinition(definition))) return queue
      queue.limits = spec.limits
      queue.qos0 = spec.qos0
      this.#definitions.set(spec.name, definition)
      await this.#keep(definition)
      return queue
    }
    const opened = await this.#open(definition)
    await this.#keep(definition)
    return opened
  }

  /**
   * Says whether a queue may be deleted now.
   * @throws BrokerError QUEUE_NOT_FOUND; QUEUE_IN_USE if the configuration declares it or somebody consumes from it.
   */
  checkDeletable(name: string): void {
    const { consumerCount } = this.queue(name)
    if (this.originOf(name) === 'config' && !this.isOrphan(name)) {
      throw new BrokerError('QUEUE_IN_USE', `queue ${name} comes from the configuration; take it out there`, {
        facts: { queue: name },
      })
    }
    if (consumerCount > 0) {
      throw new BrokerError('QUEUE_IN_USE', `queue ${name} has ${consumerCount} consumers; end them first`, {
        facts: { queue: name, consumers: consumerCount },
      })
    }
  }

  /**
   * Deletes a queue with what waits in it; no binding may lead to it any more but the default exchange's. Resolves when that is durable.
   * @throws BrokerError as checkDeletable, or STORE_UNAVAILABLE: then the queue is still there.
   */
  async deleteQueue(name: string): Promise<void> {
    this.checkDeletable(name)
    const queue = this.queue(name)
    const definition = this.#definitions.get(name)
    const byName = this.#byName.get(name)
    if (definition === undefined || byName === undefined) throw new TypeError(`queue ${name} has no definition`)
    // From here on nobody finds it, so nobody can publish to it or consume from it while it is emptied.
    this.#table.unbind(DEFAULT_EXCHANGE, byName)
    this.#queues.delete(name)
    try {
      await queue.purge()
      // Its marks are durable before its definition goes: otherwise its messages would come back with nobody to own them.
      await this.#schedule.flush()
    } catch (error) {
      this.#queues.set(name, queue)
      this.#table.bind(DEFAULT_EXCHANGE, byName)
      throw error
    }
    queue.delete('deleted')
    this.#byName.delete(name)
    this.#definitions.delete(name)
    this.#declared.delete(name)
    await Promise.all([
      this.#schedule.change({ key: definitionKey(definition.number), value: null }),
      this.#schedule.change({ key: ledgerKey(definition.number), value: null }),
    ])
  }

  /**
   * Drops everything that waits in a queue. Resolves with how many messages that were, when it is durable.
   * @throws BrokerError QUEUE_NOT_FOUND, STORE_UNAVAILABLE.
   */
  async purgeQueue(name: string): Promise<number> {
    const purged = await this.queue(name).purge()
    await this.#schedule.flush()
    return purged
  }

  /**
   * Gets messages from the front of a queue (core/get.ts). With `ack` it resolves when their leaving is durable.
   * @throws BrokerError QUEUE_NOT_FOUND, STORE_UNAVAILABLE.
   */
  async getMessages(name: string, options: GetOptions, visit: GetVisitor): Promise<void> {
    await getMessages(this.queue(name), options, visit)
    if (options.ackMode === 'ack') await this.#schedule.flush()
  }

  #keep(definition: QueueDefinition): Promise<void> {
    return this.#schedule.change({
      key: definitionKey(definition.number),
      value: encodeDefinition(definition),
    })
  }

  /** A queue that dies with the process; its owner ends it with `delete`. */
  memoryQueue(name: string, limits: QueueLimits): Queue {
    return new Queue({
      name,
      limits,
      qos0: 'buffer',
      memory: this.#memory,
      monotonicMs: this.#clock.monotonicMs,
      durability: null,
      stored: null,
    })
  }

  /** Expires what is over its queue's age limit; called every few seconds. */
  expire(ageMs: (bytes: Buffer, at: number) => number): void {
    for (const queue of this.#queues.values()) queue.expire(ageMs)
  }

  /** The durable queues, those in use and orphans. */
  queues(): Iterable<Queue> {
    return this.#queues.values()
  }

  originOf(name: string): Origin {
    return this.#definitions.get(name)?.origin ?? 'config'
  }

  /** Left over from an earlier configuration: kept until it is deleted, or declared again. */
  isOrphan(name: string): boolean {
    return this.#definitions.get(name)?.origin === 'config' && !this.#declared.has(name)
  }

  has(name: string): boolean {
    return this.#queues.has(name)
  }

  /** @throws BrokerError QUEUE_NOT_FOUND */
  queue(name: string): Queue {
    const queue = this.#queues.get(name)
    if (queue === undefined) {
      throw new BrokerError('QUEUE_NOT_FOUND', `there is no queue ${name}; \`sluice queues\` lists those there are`, {
        facts: { queue: name },
      })
    }
    return queue
  }
}

/** A definition as JSON; no age limit is written as null. */
function encodeDefinition(definition: QueueDefinition): Buffer {
  return Buffer.from(JSON.stringify(definition))
}

function decodeDefinition(value: Buffer): QueueDefinition {
  const { limits, ...definition } = JSON.parse(value.toString()) as Omit<QueueDefinition, 'limits'> & {
    readonly limits: Omit<QueueLimits, 'ageMs'> & { readonly ageMs: number | null }
  }
  return { ...definition, limits: { ...limits, ageMs: limits.ageMs ?? Number.POSITIVE_INFINITY } }
}

function definitionKey(queue: number): Buffer {
  return Buffer.concat([QUEUE_DEFINITIONS, numberBytes(queue)])
}

function ledgerKey(queue: number): Buffer {
  return Buffer.concat([Buffer.from([StatePrefix.ledger]), numberBytes(queue)])
}

function numberBytes(queue: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(queue)
  return bytes
}
