import { BrokerError } from '../model/error.ts'
import type { QueuePolicy } from '../model/queue-policy.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Clock } from './clock.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { DeadLetters } from './dead-letter.ts'
import { encodeDefinitionRecord } from './definition-record.ts'
import { type GetOptions, type GetVisitor, getMessages } from './get.ts'
import type { StoredLane } from './lane.ts'
import { type DropReason, EMPTY_FIGURES, withQueued } from './ledger.ts'
import {
  decodeLedgerRecord,
  type LaneRecord,
  LEDGERS,
  type LedgerRecord,
  ledgerKey,
  ledgerNumber,
} from './ledger-record.ts'
import type { MemoryBudget } from './memory.ts'
import { Mover } from './mover.ts'
import { type AgeMs, type Durability, Queue, type QueueLimits, type StoredQueue } from './queue.ts'
import {
  decodeDefinition,
  defineQueue,
  definitionKey,
  foundQueue,
  type Origin,
  QUEUE_DEFINITIONS,
  type QueueDefinition,
  type QueueSpec,
  resolvePolicy,
} from './queue-definition.ts'
import { Registry } from './registry.ts'
import { type Replayed, type ReplayOptions, replay } from './replay.ts'
import type { RoutingTable } from './routing-table.ts'
import type { Tickets } from './tickets.ts'
import { decodeTried, type Tried, triedNumber, triedPosition } from './tried.ts'

/** So many queues' fronts are read at a start, and in each second after it, so that their age can be told. */
const LOOKS_AT_ONCE = 32

/** So many parts of queues, of 512 KiB each, are read in a second to find what has expired on disk. */
const DISK_SWEEPS_AT_ONCE = 4

/** What exists: durable queues and their definitions, kept in the store; memory queues by their owners. */
export class Topology {
  readonly #store: Store
  readonly #schedule: CommitSchedule
  readonly #tickets: Tickets
  readonly #memory: MemoryBudget
  readonly #clock: Clock
  readonly #ageMs: AgeMs
  readonly #queues: Registry<Queue, QueueDefinition>
  /** All queues with messages that expire, sessions' own among them. */
  readonly #expiring = new Set<Queue>()
  /** Whose disk is looked through next. */
  #sweeping = this.#expiring.values()
  #isSweepingDisk = false
  /** What queues that no list has, those of sessions, have dropped since this start, by reason; `expired` beside. */
  readonly unlistedDropped = new Map<DropReason | 'expired', number>()
  /** Streams whose definitions damage has taken, by name; their messages are in the store under that number. */
  readonly foundStreams = new Map<string, number>()
  /** Names of streams. */
  readonly #reserved = new Set<string>()
  /** Moves dead letters and replays. */
  readonly mover: Mover
  #nextNumber = 1
  /** Whose front is looked at next. */
  #looking: Iterator<Queue>
  /** By number of the lane, until its queue is opened. */
  readonly #tried = new Map<number, Map<number, Tried>>()
  /** Numbers of queues whose owners bring them back themselves, with what the disk remembers of each, until that is done. */
  readonly #claimed = new Map<number, LedgerRecord | undefined>()

  constructor({
    store,
    schedule,
    tickets,
    memory,
    clock,
    table,
    ageMs,
  }: {
    store: Store
    schedule: CommitSchedule
    tickets: Tickets
    memory: MemoryBudget
    clock: Clock
    table: RoutingTable
    ageMs: AgeMs
  }) {
    this.#store = store
    this.#schedule = schedule
    this.#tickets = tickets
    this.#memory = memory
    this.#clock = clock
    this.#queues = new Registry('queue', table)
    this.#looking = this.#queues.all()[Symbol.iterator]()
    this.#ageMs = ageMs
    this.mover = new Mover({ table, clock, boot: store.boot.boot, refusal: () => store.refusal })
  }

  /**
   * Brings back every durable queue the store knows, whether or not the configuration still names it. `isStream` tells which segments are none of a queue's. However many
   * there are, their records are read in one go, and of their messages nothing.
   */
  async load(isStream: (number: number, name: string) => boolean): Promise<void> {
    const definitions: QueueDefinition[] = []
    for await (const [, value] of this.#store.readState(QUEUE_DEFINITIONS)) {
      definitions.push(decodeDefinition(value))
    }
    const ledgers = new Map<number, LedgerRecord>()
    for await (const [key, value] of this.#store.readState(LEDGERS)) {
      ledgers.set(ledgerNumber(key), decodeLedgerRecord(value))
    }
    const known = new Set(definitions.flatMap(({ number, lanes }) => [number, ...lanes]))
    for (const number of this.#claimed.keys()) known.add(number)
    // Definitions that damage has taken while messages are in log/: kept as orphans until the configuration names them again. Lanes are numbered by priority.
    const found = new Map<string, number[]>()
    for (const [number, name] of await this.#strays(ledgers, number => known.has(number) || isStream(number, ''))) {
      this.#nextNumber = Math.max(this.#nextNumber, number + 1)
      if (isStream(number, name)) this.foundStreams.set(name, number)
      else found.set(name, [...(found.get(name) ?? []), number])
    }
    for (const [name, numbers] of found) definitions.push(foundQueue(name, numbers))
    for await (const [key, value] of this.#store.readState(Buffer.from([StatePrefix.retry]))) {
      const tried = decodeTried(value)
      if (tried !== null) this.#triedOf(triedNumber(key)).set(triedPosition(key), tried)
    }
    for (const number of this.#claimed.keys()) this.#claimed.set(number, ledgers.get(number))
    for (const definition of definitions) {
      const { number, lanes } = definition
      this.#nextNumber = Math.max(this.#nextNumber, number + 1, ...lanes.map(lane => lane + 1))
      this.#open(definition, await this.#stored([number, ...lanes], ledgers.get(number)))
    }
    this.#tried.clear()
    this.#lookAtFronts()
  }

  /** By number, the names of what lies in log/ and nobody is known to own. */
  async #strays(
    ledgers: ReadonlyMap<number, LedgerRecord>,
    isOwned: (number: number) => boolean,
  ): Promise<[number, string][]> {
    const strays = new Map([...this.#store.recovery.queueNames].filter(([number]) => !isOwned(number)))
    for (const [first, { lanes }] of ledgers) {
      if (isOwned(first)) continue
      const name = await this.#store.nameOf(first)
      // The lanes of a queue were mostly made together.
      for (let number = first; name !== null && number < first + lanes.length; number++) {
        if (!isOwned(number) && (await this.#store.nameOf(number)) === name) strays.set(number, name)
      }
    }
    return [...strays].sort(([a], [b]) => a - b)
  }

  #triedOf(number: number): Map<number, Tried> {
    const tried = this.#tried.get(number) ?? new Map<number, Tried>()
    this.#tried.set(number, tried)
    return tried
  }

  /** A number nothing has in the store. */
  newNumber(): number {
    return this.#nextNumber++
  }

  /** That number and that name are a stream's. */
  reserve(number: number, name: string): void {
    this.#nextNumber = Math.max(this.#nextNumber, number + 1)
    this.#reserved.add(name)
  }

  /** The stream of this name is gone. */
  release(name: string): void {
    this.#reserved.delete(name)
  }

  #open(definition: QueueDefinition, stored: StoredQueue | null): Queue {
    const queue = this.#durableQueue(definition, stored)
    this.#add(queue, definition)
    return queue
  }

  #durableQueue({ number, lanes, name, limits, qos0, policy }: QueueDefinition, stored: StoredQueue | null): Queue {
    const numbers = [number, ...lanes]
    for (const lane of numbers) this.#store.nameQueue(lane, name)
    return new Queue({
      name,
      limits,
      qos0,
      policy: resolvePolicy(policy),
      memory: this.#memory,
      monotonicMs: this.#clock.monotonicMs,
      ageMs: this.#ageMs,
      expiring: this.#expiring,
      durability: this.#durability(numbers),
      stored,
    })
  }

  #durability(numbers: readonly number[]): Durability {
    return {
      numbers,
      schedule: this.#schedule,
      tickets: this.#tickets,
      store: this.#store,
      ledgerKey: ledgerKey(numbers[0] ?? 0),
    }
  }

  #add(queue: Queue, definition: QueueDefinition): void {
    this.#sendDeadLetters(queue, definition)
    this.#queues.add(queue, definition)
  }

  #sendDeadLetters(queue: Queue, { deadLetter }: QueueDefinition): void {
    queue.deadLetter = deadLetter === null ? null : new DeadLetters(queue, deadLetter, this.mover)
  }

  async #stored(numbers: readonly number[], record: LedgerRecord | undefined): Promise<StoredQueue> {
    const { isStateRebuilt } = this.#store.recovery
    const lanes: StoredLane[] = []
    for (const [priority, number] of numbers.entries()) {
      const kept = record?.lanes[priority]
      const { next, ...lane } = kept === undefined || isStateRebuilt ? await this.#counted(number, kept) : kept
      lanes.push({ ...lane, nextPosition: next, tried: this.#tried.get(number) ?? new Map() })
    }
    const messages = lanes.reduce((sum, lane) => sum + lane.messages, 0)
    const figures = record?.figures ?? EMPTY_FIGURES
    const isCounted = record === undefined || isStateRebuilt
    return { figures: isCounted ? withQueued(figures, messages) : figures, lanes, owed: record?.owed ?? 0 }
  }

  /** What its own record can't be relied on to say, or is not there to say, by the index. */
  async #counted(number: number, kept: LaneRecord | undefined): Promise<LaneRecord> {
    const [{ messages, bytes }, last] = await Promise.all([
      this.#store.unsettled(number),
      this.#store.lastSegment(number),
    ])
    const next = Math.max(kept?.next ?? 0, last?.end ?? 0)
    return { messages, bytes, next, delivered: kept?.delivered ?? 0, last: last?.ref ?? null }
  }

  /**
   * For whoever owns the name, the configuration above all; declarations of others go through Declarations.
   * A queue by this name: the one that is there with the limits and policy of `spec`, or a new one. Resolves when its definition is durable, if it is to be.
   * @throws BrokerError DECLARATION_MISMATCH if a stream has this name.
   */
  async declareQueue(spec: QueueSpec): Promise<Queue> {
    const { name, limits, qos0, policy = {}, isDurable = true } = spec
    this.checkName(name)
    this.#queues.noteDeclared(name)
    const queue = this.#queues.find(name)
    const known = this.#queues.definitionOf(name)
    if (known === undefined || queue === undefined) return isDurable ? this.#create(spec) : this.#createInMemory(spec)
    queue.used()
    const resolved = resolvePolicy(policy)
    const numbers = [known.number, ...known.lanes]
    while (queue.isDurable && numbers.length <= resolved.maxPriority) {
      numbers.push(this.#nextNumber++)
      this.#store.nameQueue(numbers.at(-1) ?? 0, name)
      queue.addLane(numbers.at(-1) ?? 0)
    }
    const definition = defineQueue(spec, numbers)
    if (encodeDefinitionRecord(known).equals(encodeDefinitionRecord(definition))) return queue
    queue.limits = limits
    queue.qos0 = qos0
    queue.policy = resolved
    this.#sendDeadLetters(queue, definition)
    this.#queues.redefine(definition)
    if (queue.isDurable) await this.#keep(definition)
    return queue
  }

  /** @throws BrokerError DECLARATION_MISMATCH if a stream has this name. */
  checkName(name: string): void {
    if (this.#reserved.has(name)) this.#queues.refuseTaken(name)
  }

  async #create(spec: QueueSpec): Promise<Queue> {
    const lanes = resolvePolicy(spec.policy ?? {}).maxPriority + 1
    const definition = defineQueue(
      spec,
      Array.from({ length: lanes }, () => this.#nextNumber++),
    )
    const queue = this.#open(definition, null)
    // With its definition goes a ledger: where there is none, a start takes it for lost, and counts.
    this.#schedule.touch(queue)
    await this.#keep(definition)
    return queue
  }

  #createInMemory(spec: QueueSpec): Queue {
    const queue = this.#memoryQueue(spec.name, spec.limits, spec.policy)
    queue.qos0 = spec.qos0
    this.#add(queue, defineQueue(spec, []))
    return queue
  }

  /**
   * Says whether a queue may be deleted now.
   * @throws BrokerError QUEUE_NOT_FOUND; QUEUE_IN_USE if the configuration declares it or somebody consumes from it.
   */
  checkDeletable(name: string): void {
    this.#queues.checkDeletable(name, 'consumers', this.queue(name).consumerCount)
  }

  /**
   * Deletes a queue with what waits in it; no binding may lead to it any more but the default exchange's. Resolves when that is durable.
   * @throws BrokerError as checkDeletable, or STORE_UNAVAILABLE: then the queue is still there.
   */
  async deleteQueue(name: string): Promise<void> {
    this.checkDeletable(name)
    const queue = this.queue(name)
    // Hidden, so that nobody can publish to it or consume from it while it is emptied.
    const definition = this.#queues.hide(name)
    try {
      if (queue.isDurable) await queue.purge()
      // Its marks are durable before its definition goes: otherwise its messages would come back with nobody to own them.
      await this.#schedule.flush()
    } catch (error) {
      this.#queues.show(queue)
      throw error
    }
    queue.delete('deleted')
    this.#queues.forget(name)
    if (!queue.isDurable) return
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
   * Sends messages of a queue on (core/replay.ts). It resolves when what was moved is durable.
   * @throws BrokerError QUEUE_NOT_FOUND, STORE_UNAVAILABLE.
   */
  replay(name: string, options: ReplayOptions): Promise<Replayed> {
    const { monotonicMs } = this.#clock
    return replay(this.queue(name), options, { mover: this.mover, schedule: this.#schedule, monotonicMs })
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
      value: encodeDefinitionRecord(definition),
    })
  }

  /** A queue that dies with the process; its owner ends it with `delete`. */
  memoryQueue(name: string, limits: QueueLimits): Queue {
    return this.#unlisted(this.#memoryQueue(name, limits))
  }

  #unlisted(queue: Queue): Queue {
    queue.ledger.totals = this.unlistedDropped
    queue.forgetsUnattended = true
    return queue
  }

  #memoryQueue(name: string, limits: QueueLimits, policy: Partial<QueuePolicy> = {}): Queue {
    return new Queue({
      name,
      limits,
      qos0: 'buffer',
      policy: resolvePolicy(policy),
      memory: this.#memory,
      monotonicMs: this.#clock.monotonicMs,
      ageMs: this.#ageMs,
      expiring: this.#expiring,
      durability: null,
      stored: null,
    })
  }

  // ---- durable queues of owners who keep their numbers themselves: nobody else finds them, and no list has them

  /** The queue of this number will be opened by its owner; before `load`. */
  claim(number: number): void {
    this.#nextNumber = Math.max(this.#nextNumber, number + 1)
    this.#claimed.set(number, undefined)
  }

  /** Brings back a claimed queue; once. */
  async openClaimed(number: number, name: string, limits: QueueLimits): Promise<Queue> {
    const stored = await this.#stored([number], this.#claimed.get(number))
    this.#claimed.delete(number)
    return this.#unlisted(this.#durableQueue(claimedQueue(number, name, limits), stored))
  }

  /** A new one; its owner keeps the number. */
  newClaimed(name: string, limits: QueueLimits): { readonly number: number; readonly queue: Queue } {
    const number = this.newNumber()
    const queue = this.#unlisted(this.#durableQueue(claimedQueue(number, name, limits), null))
    // With its number goes a ledger: where there is none, a start takes it for lost, and counts.
    this.#schedule.touch(queue)
    return { number, queue }
  }

  /** A queue in memory is one from now on, with what is in it; its owner keeps the number. */
  keepClaimed(queue: Queue): number {
    const number = this.newNumber()
    this.#store.nameQueue(number, queue.name)
    queue.keep(this.#durability([number]))
    return number
  }

  /**
   * Ends one with what waits in it; nothing leads to it and nobody consumes from it any more. Resolves when the disk has nothing of it but the number. May be
   * called again.
   * @throws BrokerError STORE_UNAVAILABLE, STOPPING
   */
  async endClaimed(number: number, queue: Queue): Promise<void> {
    await queue.purge()
    await this.#schedule.flush()
    queue.delete('session_ended')
    await this.#schedule.change({ key: ledgerKey(number), value: null })
  }

  /** Lets go of what is expired, and of what the memory has no room for; called every second. */
  expire(): void {
    this.#memory.relieve()
    this.#lookAtFronts()
    for (const queue of this.#queues.all()) queue.expire()
    for (const queue of this.#expiring) queue.sweep()
    if (this.#isSweepingDisk) return
    // It rejects when the store is closed.
    this.#sweepDisks().catch(() => undefined)
  }

  /** In turn, a bounded number of parts. */
  async #sweepDisks(): Promise<void> {
    this.#isSweepingDisk = true
    let isAnyDue = true
    for (let left = DISK_SWEEPS_AT_ONCE; left > 0; ) {
      const { done, value: queue } = this.#sweeping.next()
      if (done === true) {
        this.#sweeping = this.#expiring.values()
        if (!isAnyDue) break
        isAnyDue = false
      } else if (queue.isDiskSweepDue) {
        isAnyDue = true
        left--
        await queue.sweepDisk()
      }
    }
    this.#isSweepingDisk = false
  }

  /** In turn, so that each has its own, and a bounded number at once: a gateway with many queues has better things to do at its start. */
  #lookAtFronts(): void {
    for (let left = LOOKS_AT_ONCE; left > 0; ) {
      const { done, value } = this.#looking.next()
      if (done === true) {
        this.#looking = this.#queues.all()[Symbol.iterator]()
        return
      }
      if (value.lookAtFront()) left--
    }
  }

  /** For an orderly stop, when nobody publishes any more: the last commit will owe nothing. */
  settleUp(): void {
    for (const queue of this.#queues.all()) queue.settleUp()
  }

  /** All but sessions' own: those in use and orphans. */
  queues(): Iterable<Queue> {
    return this.#queues.all()
  }

  get queueCount(): number {
    return this.#queues.size
  }

  originOf(name: string): Origin {
    return this.#queues.originOf(name)
  }

  /** Left over from an earlier configuration: kept until it is deleted, or declared again. */
  isOrphan(name: string): boolean {
    return this.#queues.isOrphan(name)
  }

  has(name: string): boolean {
    return this.#queues.find(name) !== undefined
  }

  /** @throws BrokerError QUEUE_NOT_FOUND */
  queue(name: string): Queue {
    const queue = this.#queues.find(name)
    if (queue === undefined) {
      throw new BrokerError('QUEUE_NOT_FOUND', `there is no queue ${name}; \`sluice queues\` lists those there are`, {
        facts: { queue: name },
      })
    }
    return queue
  }
}

const claimedQueue = (number: number, name: string, limits: QueueLimits): QueueDefinition =>
  defineQueue({ name, origin: 'client', limits, qos0: 'buffer' }, [number])
