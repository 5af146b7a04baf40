/*
 * A queue: messages in order [MQTT-4.6.0-5], [MQTT-4.6.0-6], consumers with credit, each message settled exactly once. Every place where messages wait
 * is one: a session's queue, a route's outbox, a dead-letter queue, a stream. Where its messages are, its lanes know (lane.ts).
 *
 * Invariants
 * - A position names a message for as long as it is in the queue; its lane is folded into it.
 * - The ledger's figures are counted where things happen; `queued + inFlight` is what `depth` says. What waits for another attempt is queued.
 * - What is expired, or given up, is never delivered: it leaves when it comes to the front of its lane, with or without a consumer. Message expiry
 *   is looked for behind the front too: in memory once a second at most (sweep), on disk once a minute at most, a part at a time (sweepDisk).
 * - What the dead-letter target has no room for stays, and is offered again every OFFER_AGAIN_MS.
 *
 * Operations: take (append) → pump (deliver) → settle | requeue | fail | reject; prepareCommit/committed by the commit schedule.
 */
import { BrokerError } from '../model/error.ts'
import {
  type Acceptance,
  prefixPriority,
  type RecordPrefix,
  recordAcceptedAt,
  recordBoot,
  recordBytes,
  recordExpiryMs,
  recordLength,
  recordPriority,
} from '../model/message.ts'
import { PLAIN_POLICY, type QueuePolicy } from '../model/queue-policy.ts'
import type { Commit } from '../store/types.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { type Classes, type Consumer, NOTE_LIVE } from './consumer.ts'
import { Consumers, MAX_CONSUMERS } from './consumers.ts'
import type { DeadLetterReason, DeadLetterTarget } from './dead-letter.ts'
import type { Keeper } from './keeper.ts'
import {
  type Judge,
  Lane,
  type LaneDurability,
  type LaneOwner,
  type Peeked,
  type StoredLane,
  type Verdict,
} from './lane.ts'
import { type DropReason, Ledger, type PersistentFigures } from './ledger.ts'
import { encodeLedgerRecord } from './ledger-record.ts'
import type { MemoryBudget, MemoryHolder } from './memory.ts'
import type { MoveOutcome } from './mover.ts'
import { Owed } from './owed.ts'
import { PASSING, type Segment, SHARED } from './segment.ts'
import { SettleTime } from './settle-time.ts'
import type { Tickets } from './tickets.ts'
import { Waiting } from './waiting.ts'

export interface QueueLimits {
  readonly messages: number
  readonly bytes: number
  /** Messages that waited longer are expired, milliseconds; Infinity: none. */
  readonly ageMs: number
  readonly onFull: 'reject' | 'drop_oldest' | 'drop_newest'
}

/** What a durable queue needs beside memory. */
export interface Durability {
  /** Numbers of its lanes in the store, by priority. */
  readonly numbers: readonly number[]
  readonly schedule: CommitSchedule
  readonly tickets: Tickets
  readonly store: LaneDurability['store']
  /** Key of its ledger record in the store's state. */
  readonly ledgerKey: Buffer
}

/** A durable queue as the disk remembers it. */
export interface StoredQueue {
  readonly figures: PersistentFigures
  /** By priority. */
  readonly lanes: readonly StoredLane[]
  /** The most messages that may have been acknowledged and not written since (owed.ts). */
  readonly owed: number
}

/** Where a sift goes on, and for each lane where it ends. */
export interface SiftCursor {
  readonly position: number
  readonly through: readonly number[]
}

/** What a queue says to a run before anything is appended. */
export type Admission = 'take' | 'refuse' | 'drop'

/** Positions of a queue are those of its first lane, then those of the next one, …: 16 lanes fit a number. */
const LANE_POSITIONS = 2 ** 48
/** So many expired or given up messages leave in one turn of the event loop. */
const TURN_MESSAGES = 1000
/** What the dead-letter target has no room for is offered again after so long. */
const OFFER_AGAIN_MS = 5000
/** What is on disk only is not looked through for expired messages again before so long has passed. */
const DISK_SWEEP_MS = 60_000

export class Queue implements Keeper, LaneOwner, MemoryHolder {
  readonly name: string
  /** May be changed while running; what is over a lowered limit stays. */
  limits: QueueLimits
  readonly ledger: Ledger
  /** How QoS 0 messages are treated: kept like others, kept only while noteNow has NOTE_LIVE, never taken. */
  qos0: 'buffer' | 'pass' | 'ignore'
  /** How the consumer of an outbox takes live messages and backlog; null: what comes first, first. */
  classes: Classes | null = null
  /** Messages acknowledged before they were written (ack: buffered) that the end of the last run may have cost, at most; 0 after an orderly stop. */
  readonly lostAtMost: number
  /** What was delivered once has no message expiry any more while it waits to be delivered again [MQTT-4.3.3-7]. */
  keepsSent = false
  /** What is on disk is not in memory, too, while there is no consumer: nobody else looks at it, and there are many of its kind. */
  forgetsUnattended = false
  /** Takes what the queue lets go of unsettled; null: that is dropped, or expired, and counted. May be changed while running. */
  deadLetter: DeadLetterTarget | null = null

  /** The byte limit holds for both together: an outbox and its dead letters. */
  sharesBytesWith: Queue | null = null

  #durability: Durability | null
  readonly #memory: MemoryBudget
  readonly #monotonicMs: () => number
  readonly #expiring: Set<Queue>
  readonly #ageMs: AgeMs
  readonly #settleTime = new SettleTime()
  /** By priority. */
  readonly #lanes: Lane[] = []
  readonly #first: Lane
  #policy: QueuePolicy
  /** Made with the first message that waits. */
  #waiting: Waiting | null = null
  #isClearing = false
  /** Monotonic milliseconds; before then no message in memory expires, as far as is known. */
  #soonestExpiry = Number.POSITIVE_INFINITY
  #isSweeping = false
  /** Monotonic milliseconds; before then no message on disk expires, as far as is known. */
  #soonestOnDisk = Number.POSITIVE_INFINITY
  /** Where looking through what is on disk goes on; null: that has not begun. */
  #diskSweep: SiftCursor | null = null
  /** When the last one ended. */
  #diskSweptAtMs = Number.NEGATIVE_INFINITY
  /** The dead-letter target had no room for the last message it was offered. */
  #isRefused = false
  /** Or-ed into the note of every message accepted from now on. */
  #noteNow = 0
  /** Its consumers take nothing for now: the link they send over is blocked, or refuses everything. */
  #isStalled = false
  /** With classes: what is delivered now goes out as backlog. */
  #isBacklogTurn = false
  /** With classes: monotonic milliseconds before which no message was accepted that is live still, as of the last pump. */
  #liveSince = Number.POSITIVE_INFINITY
  /** Of the message that the dead-letter target is just being offered. */
  #leavingBytes = 0

  readonly #consumers = new Consumers()
  #usedAtMs: number
  /** Purges under way. */
  #purges = 0
  #isPumping = false
  #pumpAgain = false
  #isDeleted = false

  readonly #owed: Owed
  /** Messages of the commit under way. */
  #beingWritten = 0
  #withdrawTimer: NodeJS.Timeout | null = null

  constructor({
    name,
    limits,
    qos0,
    policy = PLAIN_POLICY,
    memory,
    monotonicMs,
    ageMs,
    expiring,
    durability,
    stored,
  }: {
    name: string
    limits: QueueLimits
    qos0: 'buffer' | 'pass' | 'ignore'
    policy?: QueuePolicy
    memory: MemoryBudget
    monotonicMs: () => number
    ageMs: AgeMs
    /** The queue is in here while it holds, or may hold, messages with an expiry. */
    expiring: Set<Queue>
    durability: Durability | null
    stored: StoredQueue | null
  }) {
    this.name = name
    this.limits = limits
    this.qos0 = qos0
    this.#monotonicMs = monotonicMs
    this.#ageMs = ageMs
    this.#expiring = expiring
    this.#usedAtMs = monotonicMs()
    this.#durability = durability
    this.#policy = policy
    this.lostAtMost = stored?.owed ?? 0
    this.#owed = new Owed(monotonicMs)
    this.ledger = stored === null ? new Ledger() : Ledger.from(stored.figures)
    const lanes = durability?.numbers.length ?? policy.maxPriority + 1
    this.#memory = memory
    this.#first = this.#makeLane(durability?.numbers[0] ?? 0, stored?.lanes[0] ?? null)
    for (let i = 1; i < lanes; i++) this.#makeLane(durability?.numbers[i] ?? 0, stored?.lanes[i] ?? null)
    for (const lane of this.#lanes) {
      for (const [position, { pauseMs }] of lane.waiting()) this.#wakeIn(lane.base + position, pauseMs)
    }
    // What is there from earlier runs may expire; nobody knows before it is read.
    if (this.depth > 0) this.#mayExpireOnDisk(monotonicMs())
    memory.join(this)
  }

  #makeLane(number: number, stored: StoredLane | null): Lane {
    const lane = new Lane({
      base: this.#lanes.length * LANE_POSITIONS,
      owner: this,
      memory: this.#memory,
      durability: this.#durability === null ? null : laneDurability(this.#durability, number),
      stored,
      keeps: 'front',
    })
    this.#lanes.push(lane)
    return lane
  }

  /** One that was in memory only is durable from now on, with what is in it: from the next commit on, which is due at once. */
  keep(durability: Durability): void {
    this.#durability = durability
    for (const [i, lane] of this.#lanes.entries()) lane.keep(laneDurability(durability, durability.numbers[i] ?? 0))
    this.#dueNow()
  }

  /** A lane for the next higher priority; `number` is its own in the store. */
  addLane(number: number): void {
    this.#makeLane(number, null)
    this.figuresChanged()
  }

  get policy(): QueuePolicy {
    return this.#policy
  }

  /** May be changed while running. Priorities above the number of its lanes count as the highest there is. */
  set policy(policy: QueuePolicy) {
    this.#policy = policy
    this.pump()
  }

  get isDurable(): boolean {
    return this.#durability !== null
  }

  get noteNow(): number {
    return this.#noteNow
  }

  /** Whether the link that its consumer sends over forwards, from now on; before the first call nothing is known of one. */
  setForwarding(isForwarding: boolean): void {
    this.#noteNow = isForwarding ? NOTE_LIVE : 0
    this.#isStalled = !isForwarding
    for (const lane of this.#lanes) lane.keepsLive = isForwarding && this.classes?.isStrict === false
  }

  /** Messages waiting or in flight. */
  get depth(): number {
    return this.ledger.queued + this.ledger.inFlight
  }

  /** Bytes of their records. */
  get bytes(): number {
    let bytes = this.#first.bytes
    for (let i = 1; i < this.#lanes.length; i++) bytes += this.#lanes[i]?.bytes ?? 0
    return bytes
  }

  /** Bytes that count towards the limit: those of the queue it shares the limit with, too. */
  get limitedBytes(): number {
    const peer = this.sharesBytesWith
    return this.bytes - this.#leavingBytes + (peer === null ? 0 : peer.bytes - peer.#leavingBytes)
  }

  get inFlight(): number {
    return this.ledger.inFlight
  }

  get consumerCount(): number {
    return this.#consumers.count
  }

  get ack(): QueuePolicy['ack'] {
    return this.#policy.ack
  }

  /** Somebody takes its messages now. */
  get isAttended(): boolean {
    return this.consumerCount > 0 && !this.#isStalled
  }

  get isDeleted(): boolean {
    return this.#isDeleted
  }

  /** Memory it holds, bytes. */
  get heldBytes(): number {
    return this.#lanes.reduce((held, lane) => held + lane.heldBytes, 0)
  }

  evict(): void {
    for (const lane of this.#lanes) {
      if (this.#consumers.count === 0) lane.letGoOfFront()
      else lane.evict()
    }
  }

  /** Drops the older half of what is ready, where messages are in memory only and a full queue drops its oldest. */
  giveWay(): void {
    if (this.isDurable || this.limits.onFull !== 'drop_oldest') return
    for (const lane of this.#lanes) {
      for (let left = Math.ceil(lane.ready / 2); left > 0; left--) {
        const segment = lane.nextReady()
        if (segment === null || !this.#letGo(lane, segment, lane.entry, 'maxlen')) return
      }
    }
  }

  /** The record of the oldest message, for a look at once; null: empty, or not read yet. */
  get oldest(): RecordAt | null {
    let oldest: RecordAt | null = null
    for (const { oldest: found } of this.#lanes) {
      if (found !== null && (oldest === null || isOlder(found, oldest))) oldest = found
    }
    return oldest
  }

  /** Something could be delivered now, in memory or on disk. */
  get hasReady(): boolean {
    return this.ledger.queued > this.waitingCount
  }

  /** Nothing is ready that the pump has not handed out, or nothing but a backlog that live messages overtake. */
  get isCaughtUp(): boolean {
    if (!this.hasReady) return true
    return this.#noteNow === NOTE_LIVE && this.classes?.isStrict === false && this.#first.isLiveOut
  }

  /** With classes: a live message is ready. */
  get hasLive(): boolean {
    return this.classes?.isStrict === true ? this.#frontClass === 'live' : !this.#first.isLiveOut
  }

  /** With classes: something of the backlog is ready, and in memory. */
  get hasBacklog(): boolean {
    return this.classes?.isStrict === true ? this.#frontClass === 'backlog' : this.#highestReady().hasBacklog
  }

  /** Of the first message that is ready; null: there is none in memory. */
  get #frontClass(): 'live' | 'backlog' | null {
    const lane = this.#highestReady()
    const segment = lane.nextReady()
    if (segment === null) return null
    return lane.isLive(segment, lane.entry, this.#liveSince) ? 'live' : 'backlog'
  }

  /** The next message to deliver is on disk only. */
  get isNextOnDisk(): boolean {
    const lane = this.#highestReady()
    return !this.isParked && lane.ready > 0 && lane.nextReady() === null
  }

  /** Messages that wait for another attempt, or for room in the dead-letter target. */
  get waitingCount(): number {
    return this.#waiting?.size ?? 0
  }

  /** So many messages wait that it delivers no further ones. */
  get isParked(): boolean {
    return this.#waiting !== null && this.#waiting.size >= this.#policy.retry.waiting
  }

  /** What should have become a dead letter is kept: the target has no room. */
  get isHoldingDeadLetters(): boolean {
    return this.#isRefused && this.depth > 0
  }

  /** Nobody has consumed from it for longer than its policy grants. A backlog alone does not count as use. */
  get isUnused(): boolean {
    return this.#consumers.count === 0 && this.#monotonicMs() - this.#usedAtMs > this.#policy.expiresMs
  }

  /** Whoever declares a queue again uses it. */
  used(): void {
    this.#usedAtMs = this.#monotonicMs()
  }

  /** How long a message may stay unwritten because its consumer will probably settle it sooner; Infinity before the first settlement. */
  get settleTimeP95Ms(): number {
    return this.#settleTime.p95Ms
  }

  // ---- taking messages

  /** What would happen to `count` messages of `bytes` in all. */
  admit(count: number, bytes: number): Admission {
    if (this.deadLetter !== null && this.limits.onFull !== 'reject') {
      // What gives way goes to the dead letters. Once these have no room the queue is over its limits, and takes nothing more.
      return this.#isRefused && this.#isOver() ? 'refuse' : 'take'
    }
    if (this.limits.onFull === 'drop_oldest') return 'take'
    if (this.hasRoomFor(count, bytes)) return 'take'
    return this.limits.onFull === 'reject' ? 'refuse' : 'drop'
  }

  growthFor(bytes: number): number {
    return this.#first.growthFor(bytes)
  }

  /** So many messages more, of so many bytes in all, exceed none of its limits. */
  hasRoomFor(count: number, bytes: number): boolean {
    return this.depth + count <= this.limits.messages && this.limitedBytes + bytes <= this.limits.bytes
  }

  /** Books messages that this queue's own policy turned away after acceptance. */
  bookDropped(count: number, reason: DropReason): void {
    this.ledger.accepted += count
    this.ledger.drop(reason, count)
    this.figuresChanged()
  }

  /**
   * Appends one accepted message; arguments as in writeRecord. `ticket` is the youngest ticket given out so far (its own, if it has one); `status`
   * holds SHARED and TICKETED where they apply (segment.ts). The caller pumps when its run is through.
   */
  take(
    prefix: RecordPrefix,
    acceptance: Acceptance,
    expiryMs: number,
    source: Buffer,
    from: number,
    to: number,
    propertiesBytes: number,
    note: number,
    ticket: number,
    status: number,
  ): void {
    const lane = this.#lanes.length === 1 ? this.#first : this.#laneOf(prefixPriority(prefix))
    lane.append(
      recordLength(prefix, expiryMs, propertiesBytes, to - from - propertiesBytes),
      prefix,
      acceptance,
      expiryMs,
      source,
      from,
      to,
      propertiesBytes,
      note | this.#noteNow,
      ticket,
      status,
    )
    this.ledger.accepted++
    this.ledger.queued++
    if (expiryMs > 0) this.#expiresAt(acceptance.acceptedAt + expiryMs)
    if ((status & PASSING) !== 0) this.#withdrawTimer ??= this.#withdrawIn(this.#policy.ackTimeoutMs)
    this.#appended(lane)
  }

  /** Takes a message that leaves another queue, in stored form; the commit that marks it there writes it here. The caller pumps. */
  takeMoved(record: Buffer, note: number, isShared: boolean): void {
    const lane = this.#laneOf(recordPriority(record, 0))
    lane.appendRecord(record, note, this.#durability?.tickets.last ?? 0, isShared ? SHARED : 0)
    this.ledger.accepted++
    this.ledger.queued++
    this.#noteExpiry(record, 0)
    this.#dueNow()
    this.#appended(lane)
  }

  #appended(lane: Lane): void {
    if (this.limits.onFull === 'drop_oldest') this.#dropOldest()
    else if (this.deadLetter !== null && this.limits.onFull === 'drop_newest' && this.#isOver()) this.#dropNewest(lane)
  }

  #laneOf(priority: number): Lane {
    return this.#lanes[Math.min(priority, this.#policy.maxPriority, this.#lanes.length - 1)] ?? this.#first
  }

  mayOwe(count: number): boolean {
    return this.#owed.mayOwe(this.#unwritten + this.#beingWritten + count)
  }

  /** For an orderly stop: nothing is acknowledged unwritten any more, and the last commit says so. */
  settleUp(): void {
    this.#owed.end()
    if (this.#owed.isOpen) this.#durability?.schedule.touch(this)
    if (this.#withdrawTimer !== null) clearTimeout(this.#withdrawTimer)
    this.#withdrawTimer = null
  }

  #withdrawIn(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.#withdraw(), ms).unref()
  }

  /** Takes out what no consumer has settled within ack_timeout. */
  #withdraw(): void {
    this.#withdrawTimer = null
    const now = this.#monotonicMs()
    const timeoutMs = this.#policy.ackTimeoutMs
    let ended = 0
    let passing = 0
    let oldest = now
    for (const lane of this.#lanes) {
      ended += lane.withdraw(now - timeoutMs)
      passing += lane.passing
      oldest = Math.min(oldest, lane.oldestPassing)
    }
    this.ledger.queued -= ended
    if (ended > 0) this.ledger.drop('ack_timeout', ended)
    // What is in flight and was refused is looked after until it comes back.
    if (passing > 0) this.#withdrawTimer = this.#withdrawIn(Math.max(1, oldest + timeoutMs - now))
  }

  #isOver(): boolean {
    return !this.hasRoomFor(0, 0)
  }

  /** Of the lowest priority there is first. */
  #dropOldest(): void {
    while (this.#isOver()) {
      const lane = this.#lanes.find(({ ready }) => ready > 0)
      // What is on disk only is being read, and dropped when it is there: no more of it than that, where nobody consumes.
      if (lane === undefined || (this.#consumers.count === 0 && lane.lookAtFront())) return
      const segment = lane.nextReady()
      if (segment === null) return
      const bytes = this.limitedBytes
      if (!this.#letGo(lane, segment, lane.entry, 'maxlen')) return
      // To dead letters under the same limit it is no relief until they have dropped their own oldest, which may have to be read first.
      if (this.limitedBytes >= bytes && this.depth <= this.limits.messages) return
    }
  }

  /** Without a dead-letter target the router does it, before anything is copied. */
  #dropNewest(lane: Lane): void {
    const { newest } = lane
    if (newest !== null) this.#letGo(lane, newest, newest.count - 1, 'maxlen')
  }

  /**
   * A message leaves unsettled: a dead letter if there is a target, else dropped or expired. False: the target has no room, and nothing has
   * changed.
   */
  #letGo(lane: Lane, segment: Segment, index: number, reason: DeadLetterReason): boolean {
    const wasInFlight = lane.isInFlight(segment, index)
    // Expiry and overflow are nobody's refusal.
    const words = reason === 'delivery_limit' ? (lane.triedAt(segment, index)?.words ?? null) : null
    const outcome = this.#offer(segment.bytes, segment.offsetAt(index), reason, words)
    if (outcome === 'held') return false
    if (wasInFlight) this.ledger.inFlight--
    else this.ledger.queued--
    if (outcome === 'moved') this.#moved(lane, segment, index)
    else lane.end(segment, index)
    return true
  }

  /** Offers a message to the dead-letter target, if there is one, and books what becomes of it: all but that it is not queued, or in flight, any more. */
  #offer(bytes: Buffer, at: number, reason: DeadLetterReason, words: string | null): MoveOutcome | 'no-target' {
    this.#leavingBytes = recordBytes(bytes, at)
    const outcome = this.deadLetter?.take(bytes, at, reason, words) ?? 'no-target'
    this.#leavingBytes = 0
    this.#isRefused = outcome === 'held'
    if (outcome === 'moved') this.ledger.deadLetter(reason, 1)
    else if (outcome === 'cycle' || outcome === 'unrouted') this.ledger.drop(outcome, 1)
    else if (outcome === 'no-target') this.#bookLeft(reason)
    return outcome
  }

  #bookLeft(reason: DeadLetterReason): void {
    if (reason === 'expired') this.ledger.expire(1)
    else this.ledger.drop(reason === 'maxlen' ? 'overflow' : reason, 1)
  }

  /** Another queue has it. That one's copy is written, and what is on disk here marked, by one commit; it takes all there is. */
  #moved(lane: Lane, segment: Segment, index: number): void {
    lane.move(segment, index)
    this.#dueNow()
  }

  /** Lets go of what is expired or given up at the front of its lanes, and delivers what comes after; a bounded number per turn of the event loop. */
  expire(): void {
    const ttlMs = Math.min(this.#policy.ttlMs, this.limits.ageMs)
    for (const lane of this.#lanes) {
      // What is on disk only is looked at when its turn comes (lookAtFront).
      const isKept = !lane.isFrontAway && this.#front(lane, ttlMs) !== null
      // The fronts of many queues that nobody takes from are not to fill the memory.
      if (isKept && this.#consumers.count === 0 && this.#memory.isTight) lane.letGoOfFront()
    }
    if (this.limits.onFull === 'drop_oldest') this.#dropOldest()
    this.pump()
  }

  /** The next message of a lane, or of one class in it, that may be delivered; null: there is none, or it is not in memory, or the turn is over. */
  #front(lane: Lane, ttlMs: number, part: 'all' | 'live' | 'backlog' = 'all'): Segment | null {
    let left = TURN_MESSAGES
    for (let segment = this.#nextOf(lane, part); segment !== null; segment = this.#nextOf(lane, part)) {
      if (lane.isWithdrawn(segment, lane.entry)) {
        this.ledger.queued--
        this.ledger.drop('ack_timeout', 1)
        lane.end(segment, lane.entry)
        continue
      }
      const reason = this.#verdictOn(lane, segment, ttlMs)
      if (reason === null) return segment
      if (left-- === 0) {
        this.#clearOn()
        return null
      }
      if (this.#letGo(lane, segment, lane.entry, reason)) continue
      if (this.isParked) return null
      this.#offerAgain(lane, segment, lane.entry, reason)
    }
    return null
  }

  #nextOf(lane: Lane, part: 'all' | 'live' | 'backlog'): Segment | null {
    if (part === 'live') return lane.nextLive(this.#liveSince)
    return part === 'backlog' ? lane.nextBacklog() : lane.nextReady()
  }

  #expiresAt(monotonicMs: number): void {
    this.#mayExpireInMemory(monotonicMs)
    // It may have left memory by then.
    if (this.#durability !== null) this.#mayExpireOnDisk(monotonicMs)
  }

  #mayExpireInMemory(monotonicMs: number): void {
    if (monotonicMs >= this.#soonestExpiry) return
    this.#soonestExpiry = monotonicMs
    this.#expiring.add(this)
  }

  #mayExpireOnDisk(monotonicMs: number): void {
    if (monotonicMs >= this.#soonestOnDisk) return
    this.#soonestOnDisk = monotonicMs
    this.#expiring.add(this)
  }

  /** Monotonic milliseconds at which a message expires, in the past if it has; Infinity: it does not. */
  #expiryOf(bytes: Buffer, at: number): number {
    const expiryMs = recordExpiryMs(bytes, at)
    return expiryMs === 0 ? Number.POSITIVE_INFINITY : this.#monotonicMs() + expiryMs - this.#ageMs(bytes, at)
  }

  /** True: the message has expired. Else it will be looked at again when it does. */
  #noteExpiry(bytes: Buffer, at: number): boolean {
    const expiry = this.#expiryOf(bytes, at)
    if (expiry <= this.#monotonicMs()) return true
    if (expiry !== Number.POSITIVE_INFINITY) this.#expiresAt(expiry)
    return false
  }

  /** Lets go of what has expired wherever it waits in memory [MQTT-3.3.2-5]; a bounded number per turn of the event loop. Called every second. */
  sweep(): void {
    if (this.#isSweeping || this.#monotonicMs() < this.#soonestExpiry) return
    this.#isSweeping = true
    this.#soonestExpiry = Number.POSITIVE_INFINITY
    this.#sweepOn(0, 0)
  }

  #sweepOn(priority: number, from: number): void {
    const lane = this.#lanes[priority]
    if (lane === undefined) {
      this.#isSweeping = false
      this.#noteNothingExpires()
      return
    }
    let left = TURN_MESSAGES
    let next = { priority: priority + 1, from: 0 }
    lane.eachReady(from, (segment, index) => {
      if (left-- === 0) {
        next = { priority, from: segment.first + index }
        return false
      }
      if (this.#isKept(lane, segment, index)) return true
      if (!this.#noteExpiry(segment.bytes, segment.offsetAt(index))) return true
      if (this.#letGo(lane, segment, index, 'expired')) return true
      // The dead letters have no room: the next sweep tries again.
      this.#mayExpireInMemory(this.#monotonicMs())
      return false
    })
    setImmediate(() => this.#sweepOn(next.priority, next.from))
  }

  #noteNothingExpires(): void {
    const soonest = Math.min(this.#soonestExpiry, this.#soonestOnDisk)
    if (soonest === Number.POSITIVE_INFINITY && this.#diskSweep === null) this.#expiring.delete(this)
  }

  /** Something that is on disk only may have expired, and was not looked for lately. */
  get isDiskSweepDue(): boolean {
    if (this.#durability === null || this.#isDeleted || this.#purges > 0) return false
    if (this.#diskSweep !== null) return true
    const now = this.#monotonicMs()
    return now >= this.#soonestOnDisk && now >= this.#diskSweptAtMs + DISK_SWEEP_MS
  }

  /**
   * Lets go of what has expired in the next part of what is on disk only [MQTT-3.3.2-5], about 512 KiB of it. Called from time to time while `isDiskSweepDue`.
   * @throws BrokerError if what is on disk cannot be read now.
   */
  async sweepDisk(): Promise<void> {
    if (this.#diskSweep === null) this.#soonestOnDisk = this.#soonestExpiry
    let isHeld = false
    const place = this.#placeOnDisk(this.#diskSweep ?? this.siftStart)
    const judge = (lane: Lane, bytes: Buffer, at: number, position: number): Verdict => {
      if (this.#isDeleted || this.#purges > 0) return 'stop'
      // The rest is looked through in memory.
      if (lane.segmentOf(position) !== null || (this.keepsSent && lane.wasDelivered(position))) return 'keep'
      const expiry = this.#expiryOf(bytes, at)
      if (expiry > this.#monotonicMs()) {
        this.#mayExpireOnDisk(expiry)
        return 'keep'
      }
      const outcome = this.#offer(bytes, at, 'expired', null)
      isHeld = outcome === 'held'
      if (isHeld) return 'stop'
      this.ledger.queued--
      if (outcome === 'moved') this.#dueNow()
      return outcome === 'moved' ? 'moved' : 'ended'
    }
    const next = place === null ? null : await this.#siftOn(place, judge)
    if (isHeld) this.#mayExpireOnDisk(this.#monotonicMs())
    this.#diskSweep = isHeld ? null : next
    if (this.#diskSweep !== null) return
    this.#diskSweptAtMs = this.#monotonicMs()
    this.#noteNothingExpires()
  }

  /** This place or the next one at which messages are on disk only; null: there is none. */
  #placeOnDisk({ position, through }: SiftCursor): SiftCursor | null {
    const first = this.#laneAt(position)
    for (const lane of this.#lanes.slice(0, this.#lanes.indexOf(first) + 1).toReversed()) {
      const place = lane.placeOnDisk(lane === first ? position - lane.base : 0)
      if (place !== null) return { position: lane.base + place, through }
    }
    return null
  }

  #clearOn(): void {
    if (this.#isClearing) return
    this.#isClearing = true
    setImmediate(() => {
      this.#isClearing = false
      this.expire()
    })
  }

  /** Why the message at the front is not to be delivered; null: it is. */
  #verdictOn(lane: Lane, segment: Segment, ttlMs: number): DeadLetterReason | null {
    const index = lane.entry
    const tried = lane.triedAt(segment, index)
    if (tried !== undefined) {
      if (tried.verdict !== null) return tried.verdict
      // The limit may have been lowered.
      if (tried.failures >= this.#policy.maxAttempts) return 'delivery_limit'
    }
    const at = segment.offsetAt(index)
    const expiryMs = this.#isKept(lane, segment, index) ? 0 : recordExpiryMs(segment.bytes, at)
    if (expiryMs === 0 && ttlMs === Number.POSITIVE_INFINITY) return null
    const ageMs = this.#ageMs(segment.bytes, at)
    return ageMs > ttlMs || (expiryMs > 0 && ageMs >= expiryMs) ? 'expired' : null
  }

  #isKept(lane: Lane, segment: Segment, index: number): boolean {
    return this.keepsSent && lane.attemptsAt(segment, index) > 0
  }

  #offerAgain(lane: Lane, segment: Segment, index: number, reason: DeadLetterReason): void {
    lane.trying(segment, index).verdict = reason
    this.#wait(lane, segment, index, OFFER_AGAIN_MS)
  }

  // ---- waiting

  #wait(lane: Lane, segment: Segment, index: number, pauseMs: number): void {
    if (lane.isInFlight(segment, index)) {
      this.ledger.inFlight--
      this.ledger.queued++
    }
    lane.wait(segment, index, pauseMs)
    this.#wakeIn(lane.base + segment.first + index, pauseMs)
    this.#dueIfUnwritten()
  }

  #wakeIn(position: number, pauseMs: number): void {
    this.#waiting ??= new Waiting(this.#monotonicMs, () => this.#wakeDue())
    this.#waiting.add(position, this.#monotonicMs() + pauseMs)
  }

  #wakeDue(): void {
    const waiting = this.#waiting
    if (waiting === null) return
    for (let position = waiting.takeDue(); position >= 0; position = waiting.takeDue()) {
      const lane = this.#laneAt(position)
      lane.wake(position - lane.base)
    }
    this.expire()
  }

  /** Nothing waits any more: what made messages fail is over, or whoever empties the queue takes it as it is. The caller pumps. */
  wakeAll(): void {
    this.#waiting?.clear()
    for (const lane of this.#lanes) for (const [position] of lane.waiting()) lane.wake(position)
  }

  // ---- operators

  /**
   * Drops everything that waits now and books it as purged; deliveries in flight and what comes meanwhile stay. Resolves with how many;
   * it is durable after the schedule's next flush.
   * @throws BrokerError STORE_UNAVAILABLE if what is on disk cannot be read now; what was purged by then is gone, and the ledger tells.
   */
  async purge(): Promise<number> {
    const throughs = this.#lanes.map(({ nextPosition }) => nextPosition)
    let purged = 0
    // What is read, or does not wait any more, only to be dropped goes to no consumer.
    this.#purges++
    this.#isRefused = false
    this.wakeAll()
    try {
      for (const [priority, lane] of this.#lanes.entries()) {
        purged += await this.#purgeLane(lane, throughs[priority] ?? 0)
      }
    } finally {
      this.#purges--
      this.pump()
    }
    return purged
  }

  async #purgeLane(lane: Lane, through: number): Promise<number> {
    let purged = 0
    for (;;) {
      const dropped = lane.dropReady(through)
      if (dropped > 0) {
        this.ledger.queued -= dropped
        this.ledger.drop('purged', dropped)
        purged += dropped
      }
      // What lies beyond came meanwhile: reading on would only bring it into memory.
      if (lane.isReadThrough(through) || !(await this.#readMoreOf(lane))) return purged
    }
  }

  /**
   * Brings the next part of what is on disk only into memory and delivers what can be delivered; false: all of it is in memory.
   * @throws BrokerError STORE_UNAVAILABLE if it cannot be read now.
   */
  async readMore(): Promise<boolean> {
    let isMore = false
    for (const lane of this.#lanes) isMore = (await this.#readMoreOf(lane)) || isMore
    return isMore
  }

  async #readMoreOf(lane: Lane): Promise<boolean> {
    const outcome = await lane.readMore()
    if (outcome === 'unreadable') throw unreadable(this.name)
    return outcome === 'read'
  }

  /** Reads the front of each lane of which nothing is in memory, so that its age can be told before anybody consumes. False: there is none to read. */
  lookAtFront(): boolean {
    let isReading = false
    for (const lane of this.#lanes) isReading = lane.lookAtFront() || isReading
    return isReading
  }

  /**
   * The first messages, those of the highest priority first, for a look: `visit` gets each record, valid during the call, until it has had `limit` of them. Nothing
   * changes.
   * @throws BrokerError STOPPING
   */
  async peek(limit: number, visit: (bytes: Buffer, at: number, seen: Peeked) => void): Promise<void> {
    let left = limit
    for (const lane of this.#lanes.toReversed()) {
      if (left <= 0) return
      await lane.peek((bytes, at, seen) => {
        visit(bytes, at, { ...seen, position: lane.base + seen.position })
        left--
        return left > 0
      })
    }
  }

  /** Behind the positions of what is in a queue without priorities now. */
  get end(): number {
    return this.#first.nextPosition
  }

  /** For a sift of all that is there now: positions come in the order of `sift`. */
  get siftStart(): SiftCursor {
    const through = this.#lanes.map(lane => lane.base + lane.nextPosition)
    return { position: (this.#lanes.at(-1) ?? this.#first).base, through }
  }

  /**
   * Goes on through the messages that are ready, those of the highest priority first, for a while; `judge` says of each what becomes of it. What it says was moved
   * is booked as settled. Resolves with where to go on; null: that was the last.
   * @throws BrokerError if what is on disk cannot be read now.
   */
  sift(cursor: SiftCursor, judge: Judge): Promise<SiftCursor | null> {
    return this.#siftOn(cursor, (lane, bytes, at, inLane) => {
      const verdict = judge(bytes, at, lane.base + inLane)
      if (verdict === 'moved') {
        this.ledger.queued--
        this.ledger.settled++
        this.#dueNow()
      }
      return verdict
    })
  }

  async #siftOn(
    { position, through }: SiftCursor,
    judge: (lane: Lane, bytes: Buffer, at: number, inLane: number) => Verdict,
  ): Promise<SiftCursor | null> {
    const lane = this.#laneAt(position)
    const priority = this.#lanes.indexOf(lane)
    const end = through[priority] ?? 0
    let isStopped = false
    const next = await lane.sift(position - lane.base, (bytes, at, inLane) => {
      const verdict = lane.base + inLane >= end ? 'keep' : judge(lane, bytes, at, inLane)
      isStopped ||= verdict === 'stop'
      return verdict
    })
    if (next !== null && (isStopped || lane.base + next < end)) return { position: lane.base + next, through }
    const below = this.#lanes[priority - 1]
    return below === undefined ? null : { position: below.base, through }
  }

  // ---- consumers

  /** @throws BrokerError QUEUE_IN_USE if it takes no further consumer. */
  attach(consumer: Consumer): void {
    const most = this.#policy.isExclusive ? 1 : MAX_CONSUMERS
    if (this.#consumers.count >= most) {
      throw new BrokerError(
        'QUEUE_IN_USE',
        `queue ${this.name} has ${this.#policy.isExclusive ? 'its only consumer, it is exclusive' : `${most} consumers, the most there may be`}; end one first`,
        { facts: { queue: this.name, consumers: this.#consumers.count } },
      )
    }
    this.#consumers.attach(consumer)
    this.pump()
  }

  /**
   * Its unsettled deliveries go back to their places. Where attempts count (maxAttempts) each of them was one, and the last one permitted gives a
   * message up.
   */
  detach(consumer: Consumer): void {
    const slot = this.#consumers.detach(consumer)
    if (slot === 0) return
    this.#usedAtMs = this.#monotonicMs()
    const isAttempt = this.#policy.maxAttempts !== Number.POSITIVE_INFINITY
    for (const lane of this.#lanes) {
      lane.eachOf(slot, (segment, index) => {
        if (isAttempt && this.#countFailure(lane, segment, index)) this.#giveUp(lane, segment, index, 'delivery_limit')
        else this.#giveBack(lane, segment, index)
      })
    }
    this.#settleTime.abandoned()
    this.#dueIfUnwritten()
    this.pump()
  }

  /** Delivers while there are a message and a consumer with credit. */
  pump(): void {
    if (this.#purges > 0) return
    if (this.#isPumping) {
      this.#pumpAgain = true
      return
    }
    this.#isPumping = true
    if (this.classes !== null) this.#liveSince = this.#monotonicMs() - this.classes.liveMs
    try {
      do {
        this.#pumpAgain = false
        this.#deliverReady()
      } while (this.#pumpAgain)
    } finally {
      // A consumer that throws has its delivery in flight; the others go on.
      this.#isPumping = false
    }
  }

  #deliverReady(): void {
    for (;;) {
      if (this.isParked) return
      const slot = this.#policy.hasSingleActiveConsumer ? this.#consumers.active() : this.#consumers.next()
      const consumer = this.#consumers.at(slot)
      if (consumer === null) return
      const lane = this.#lanes.length === 1 ? this.#first : this.#highestReady()
      // limits.age is looked after by the clock alone: to ask for the age of each message delivered would cost more than delivering it late.
      const segment = this.classes === null ? this.#front(lane, this.#policy.ttlMs) : this.#frontOf(lane, this.classes)
      if (segment === null) {
        // What was at the front may have been all of this lane.
        if (lane !== this.#first && lane.ready === 0) continue
        return
      }
      this.#consumers.served(slot)
      const index = lane.handOut(segment, slot)
      const position = lane.base + segment.first + index
      this.ledger.queued--
      this.ledger.inFlight++
      this.#settleTime.delivered(position, this.#monotonicMs)
      const note = segment.notes[index] ?? 0
      consumer.deliver(
        segment.bytes,
        segment.offsetAt(index),
        position,
        this.#isBacklogTurn ? note & ~NOTE_LIVE : note,
        lane.attemptsAt(segment, index),
      )
    }
  }

  /** The next message of the class whose turn it is; null: there is none, or its consumer takes none now. */
  #frontOf(lane: Lane, classes: Classes): Segment | null {
    const { ttlMs } = this.#policy
    if (classes.isStrict) {
      const segment = this.#front(lane, ttlMs)
      if (segment === null) return null
      this.#isBacklogTurn = !lane.isLive(segment, lane.entry, this.#liveSince)
      return (this.#isBacklogTurn ? classes.backlogCredit : classes.liveCredit) > 0 ? segment : null
    }
    this.#isBacklogTurn = false
    const live = this.#front(lane, ttlMs, 'live')
    if (live !== null && classes.liveCredit > 0) return live
    this.#isBacklogTurn = true
    return classes.backlogCredit > 0 ? this.#front(lane, ttlMs, 'backlog') : null
  }

  #highestReady(): Lane {
    for (let i = this.#lanes.length - 1; i > 0; i--) {
      const lane = this.#lanes[i]
      if (lane !== undefined && lane.ready > 0) return lane
    }
    return this.#first
  }

  // ---- settling

  #laneAt(position: number): Lane {
    return position < LANE_POSITIONS ? this.#first : (this.#lanes[Math.floor(position / LANE_POSITIONS)] ?? this.#first)
  }

  /** The consumer is done with it. A position that is not in flight is ignored: it was settled, or requeued meanwhile. */
  settle(position: number): void {
    const lane = this.#laneAt(position)
    const segment = this.#settled(lane, position)
    if (segment === null) return
    const index = position - lane.base - segment.first
    lane.confirm(segment, index)
    lane.end(segment, index)
  }

  /** Another queue has taken it over in this turn of the event loop: settled here, and written there by the commit that marks it here. */
  handOver(position: number): void {
    const lane = this.#laneAt(position)
    const segment = this.#settled(lane, position)
    if (segment !== null) this.#moved(lane, segment, position - lane.base - segment.first)
  }

  /** Books what was in flight as settled; null: it was not. */
  #settled(lane: Lane, position: number): Segment | null {
    const segment = lane.inFlightAt(position - lane.base)
    if (segment === null) return null
    this.#settleTime.settled(position, this.#monotonicMs)
    this.ledger.inFlight--
    this.ledger.settled++
    return segment
  }

  /** Back to its place, and no attempt; the caller pumps when it wants it again. */
  requeue(position: number): void {
    const lane = this.#laneAt(position)
    const segment = lane.inFlightAt(position - lane.base)
    if (segment === null) return
    this.#giveBack(lane, segment, position - lane.base - segment.first)
    this.#settleTime.abandoned()
    this.#dueIfUnwritten()
  }

  /**
   * A failed attempt: it waits for the next one, longer each time, while others pass it; after the last one it is given up, and `words` go with it: why it was
   * refused. The caller pumps.
   */
  fail(position: number, words: string | null = null): void {
    const lane = this.#laneAt(position)
    const segment = lane.inFlightAt(position - lane.base)
    if (segment === null) return
    const index = position - lane.base - segment.first
    this.#settleTime.abandoned()
    const tried = lane.trying(segment, index)
    tried.words = words
    if (this.#countFailure(lane, segment, index)) {
      this.#giveUp(lane, segment, index, 'delivery_limit')
      return
    }
    tried.deliveries++
    const { firstMs, maxMs } = this.#policy.retry
    this.#wait(lane, segment, index, Math.min(maxMs, firstMs * 2 ** (tried.failures - 1)))
  }

  /** How often a message in flight has failed before. */
  failuresOf(position: number): number {
    const lane = this.#laneAt(position)
    const segment = lane.inFlightAt(position - lane.base)
    return segment === null ? 0 : (lane.triedAt(segment, position - lane.base - segment.first)?.failures ?? 0)
  }

  /** Refused for good by its consumer: a dead letter, or else booked as dropped{reason} or as expired. */
  reject(position: number, reason: DropReason | 'expired'): void {
    const lane = this.#laneAt(position)
    const segment = lane.inFlightAt(position - lane.base)
    if (segment === null) return
    const index = position - lane.base - segment.first
    if (reason === 'rejected' || reason === 'expired') {
      this.#giveUp(lane, segment, index, reason)
      return
    }
    this.ledger.inFlight--
    this.ledger.drop(reason, 1)
    lane.end(segment, index)
  }

  /** True: it was the last attempt permitted. */
  #countFailure(lane: Lane, segment: Segment, index: number): boolean {
    const tried = lane.trying(segment, index)
    tried.failures++
    return tried.failures >= this.#policy.maxAttempts
  }

  #giveUp(lane: Lane, segment: Segment, index: number, reason: DeadLetterReason): void {
    if (!this.#letGo(lane, segment, index, reason)) this.#offerAgain(lane, segment, index, reason)
  }

  #giveBack(lane: Lane, segment: Segment, index: number): void {
    lane.giveBack(segment, index)
    this.ledger.inFlight--
    this.ledger.queued++
  }

  // ---- disk

  get #unwritten(): number {
    return this.#lanes.reduce((unwritten, lane) => unwritten + lane.unwritten, 0)
  }

  get #passing(): number {
    return this.#lanes.reduce((passing, lane) => passing + lane.passing, 0)
  }

  /** Unwritten messages that nobody can take any more are due at once. */
  #dueIfUnwritten(): void {
    if (this.#unwritten > 0) this.#dueNow()
  }

  #dueNow(): void {
    if (this.#durability === null) return
    this.#durability.schedule.touch(this)
    this.#durability.schedule.due(this.#durability.tickets.last)
  }

  isDueThrough(ticket: number, withMarks: boolean): boolean {
    return this.#lanes.some(lane => lane.isDueThrough(ticket, withMarks))
  }

  prepareCommit(throughTicket: number, commit: Commit, commitNumber: number): void {
    if (this.#durability === null) return
    const before = this.#unwritten
    for (const lane of this.#lanes) lane.prepareCommit(throughTicket, commit, commitNumber)
    this.#beingWritten = before - this.#unwritten
    commit.changes.push({ key: this.#durability.ledgerKey, value: this.#record() })
    if (this.#unwritten > 0) this.marksChanged()
  }

  committed(): void {
    this.#beingWritten = 0
    this.#owed.committed()
    for (const lane of this.#lanes) lane.committed()
    if (this.forgetsUnattended && this.#consumers.count === 0) for (const lane of this.#lanes) lane.letGoOfFront()
    // Nothing more came: a commit within a minute says that nothing is owed.
    if (this.#owed.isOpen && this.#unwritten === 0) this.figuresChanged()
  }

  #record(): Buffer {
    const unwritten = this.#unwritten
    return encodeLedgerRecord({
      figures: this.ledger.persistent(unwritten + this.#passing),
      owed: this.#owed.prepare(unwritten),
      lanes: this.#lanes.map(({ record }) => record),
    })
  }

  // ---- what lanes tell

  marksChanged(): void {
    this.#durability?.schedule.touch(this)
    this.#durability?.schedule.buffered()
  }

  figuresChanged(): void {
    this.#durability?.schedule.touch(this)
    this.#durability?.schedule.figuresChanged()
  }

  loaded(): void {
    // Nobody has looked yet at what was read.
    this.#mayExpireInMemory(this.#monotonicMs())
    this.expire()
  }

  lost(count: number): void {
    this.ledger.queued -= count
    this.ledger.drop('damage', count)
  }

  /** Ends a queue; what is in it is booked as dropped{reason}. A durable one has been purged, and the purge flushed, before. */
  delete(reason: DropReason): void {
    if (this.#durability !== null && this.depth > 0) throw new TypeError('a durable queue is not deleted with messages')
    if (this.#isDeleted) return
    this.#isDeleted = true
    this.#memory.leave(this)
    this.#expiring.delete(this)
    if (this.#withdrawTimer !== null) clearTimeout(this.#withdrawTimer)
    this.ledger.drop(reason, this.depth)
    this.ledger.queued = 0
    this.ledger.inFlight = 0
    for (const lane of this.#lanes) lane.clear()
    this.#waiting?.clear()
    this.#consumers.clear()
  }
}

/** How long ago a record was accepted, milliseconds, by a clock that never jumps (design.md section 5). */
export type AgeMs = (bytes: Buffer, at: number) => number

interface RecordAt {
  readonly bytes: Buffer
  readonly at: number
}

function isOlder(one: RecordAt, other: RecordAt): boolean {
  const boots = recordBoot(one.bytes, one.at) - recordBoot(other.bytes, other.at)
  return boots < 0 || (boots === 0 && recordAcceptedAt(one.bytes, one.at) < recordAcceptedAt(other.bytes, other.at))
}

const laneDurability = ({ tickets, store }: Durability, number: number): LaneDurability => ({ number, tickets, store })

const unreadable = (queue: string): BrokerError =>
  new BrokerError(
    'STORE_UNAVAILABLE',
    `the messages of queue ${queue} on disk cannot be read now: the store is being reopened; try again in a moment`,
    { facts: { queue } },
  )
