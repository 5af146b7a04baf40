/*
 * A queue: messages in order, consumers with credit, each message settled exactly once. Every place where messages wait is one: a session's queue, a route's
 * outbox, a dead-letter queue, a stream. Where its messages are, its lanes know (lane.ts).
 *
 * Invariants
 * - A position names a message for as long as it is in the queue; its lane is folded into it.
 * - The ledger's figures are counted where things happen; `queued + inFlight` is what `depth` says.
 *
 * Operations: take (append) → pump (deliver) → settle | requeue | reject; prepareCommit/committed by the commit schedule.
 */
import { BrokerError } from '../model/error.ts'
import { type Acceptance, type RecordPrefix, recordLength } from '../model/message.ts'
import type { Commit, LoadedSegment, SegmentRef } from '../store/types.ts'
import type { CommitSchedule, CommitSource } from './commit-schedule.ts'
import type { Consumer } from './consumer.ts'
import type { DeadLetterReason, DeadLetterTarget } from './dead-letter.ts'
import { Lane, type LaneOwner, type Peeked } from './lane.ts'
import { type DropReason, Ledger, type LedgerFigures } from './ledger.ts'
import type { MemoryBudget } from './memory.ts'
import { REDELIVERED, type Segment } from './segment.ts'
import { SettleTime } from './settle-time.ts'
import type { Tickets } from './tickets.ts'

export interface QueueLimits {
  readonly messages: number
  readonly bytes: number
  /** Messages that waited longer are expired, milliseconds; Infinity: none. */
  readonly ageMs: number
  readonly onFull: 'reject' | 'drop_oldest' | 'drop_newest'
}

/** What a durable queue needs beside memory. */
export interface Durability {
  /** Its number in the store. */
  readonly number: number
  readonly schedule: CommitSchedule
  readonly tickets: Tickets
  readonly read: (after: SegmentRef | null, maxBytes: number) => Promise<LoadedSegment[]>
  /** Key of its ledger record in the store's state. */
  readonly ledgerKey: Buffer
}

/** A durable queue as the disk remembers it. */
export interface StoredQueue {
  readonly figures: LedgerFigures
  readonly bytes: number
  readonly nextPosition: number
  readonly last: SegmentRef | null
}

/** The record kept under `ledgerKey`. */
export interface QueueRecord {
  readonly figures: LedgerFigures
  readonly bytes: number
  readonly next: number
}

/** What a queue says to a run before anything is appended. */
export type Admission = 'take' | 'refuse' | 'drop'

/** One byte per delivery names its consumer; slot 0 means none. */
const MAX_CONSUMERS = 255

export class Queue implements CommitSource, LaneOwner {
  readonly name: string
  /** May be changed while running; what is over a lowered limit stays. */
  limits: QueueLimits
  readonly ledger: Ledger
  /** How QoS 0 messages are treated: kept like others, kept only while noteNow says live, never taken. */
  qos0: 'buffer' | 'pass' | 'ignore'
  /** Or-ed into the note of every message accepted from now on. Bit 0: the consumer is forwarding (class live). */
  noteNow = 0
  /** Takes what the queue lets go of unsettled; null: that is dropped, or expired, and counted. May be changed while running. */
  deadLetter: DeadLetterTarget | null = null

  readonly #durability: Durability | null
  readonly #monotonicMs: () => number
  readonly #settleTime = new SettleTime()
  readonly #lane: Lane

  readonly #consumers: (Consumer | null)[] = [null]
  #turn = 1
  #consumerCount = 0
  #isPumping = false
  #pumpAgain = false
  #isDeleted = false

  constructor({
    name,
    limits,
    qos0,
    memory,
    monotonicMs,
    durability,
    stored,
  }: {
    name: string
    limits: QueueLimits
    qos0: 'buffer' | 'pass' | 'ignore'
    memory: MemoryBudget
    monotonicMs: () => number
    durability: Durability | null
    stored: StoredQueue | null
  }) {
    this.name = name
    this.limits = limits
    this.qos0 = qos0
    this.#monotonicMs = monotonicMs
    this.#durability = durability
    this.ledger = stored === null ? new Ledger() : Ledger.from(stored.figures)
    this.#lane = new Lane({
      owner: this,
      memory,
      durability,
      stored: stored === null ? null : { messages: this.ledger.queued, ...stored },
    })
  }

  get isDurable(): boolean {
    return this.#durability !== null
  }

  /** Messages waiting or in flight. */
  get depth(): number {
    return this.ledger.queued + this.ledger.inFlight
  }

  /** Bytes of their records. */
  get bytes(): number {
    return this.#lane.bytes
  }

  get inFlight(): number {
    return this.ledger.inFlight
  }

  get consumerCount(): number {
    return this.#consumerCount
  }

  get isDeleted(): boolean {
    return this.#isDeleted
  }

  /** Memory it holds, bytes. */
  get heldBytes(): number {
    return this.#lane.heldBytes
  }

  /** The record of the oldest message, for a look at once; null: empty, or not read yet. */
  get oldest(): { readonly bytes: Buffer; readonly at: number } | null {
    return this.#lane.oldest
  }

  /** Nothing waits that the pump has not handed out. */
  get isCaughtUp(): boolean {
    return this.ledger.queued === 0
  }

  /** How long a message may stay unwritten because its consumer will probably settle it sooner; Infinity before the first settlement. */
  get settleTimeP95Ms(): number {
    return this.#settleTime.p95Ms
  }

  // ---- taking messages

  /** What would happen to `count` messages of `bytes` in all. */
  admit(count: number, bytes: number): Admission {
    if (this.limits.onFull === 'drop_oldest') return 'take'
    if (this.depth + count <= this.limits.messages && this.bytes + bytes <= this.limits.bytes) return 'take'
    return this.limits.onFull === 'reject' ? 'refuse' : 'drop'
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
    this.#lane.append(
      recordLength(prefix, expiryMs, propertiesBytes, to - from - propertiesBytes),
      prefix,
      acceptance,
      expiryMs,
      source,
      from,
      to,
      propertiesBytes,
      note | this.noteNow,
      ticket,
      status,
    )
    this.ledger.accepted++
    this.ledger.queued++
    if (this.limits.onFull === 'drop_oldest') this.#dropOldest()
  }

  #dropOldest(): void {
    while (this.depth > this.limits.messages || this.bytes > this.limits.bytes) {
      const segment = this.#lane.nextReady()
      // What is on disk only is being read, and dropped when it is there.
      if (segment === null) return
      if (this.deadLetter === null) this.ledger.drop('overflow', 1)
      else if (!this.#handOver(segment, this.#lane.entry, 'maxlen')) return
      this.ledger.queued--
      this.#lane.drop(segment)
    }
  }

  /** Expires what has waited longer than limits.ageMs, from the front; `ageMs` tells how long a record has waited. */
  expire(ageMs: (bytes: Buffer, at: number) => number): void {
    if (this.limits.ageMs === Number.POSITIVE_INFINITY) return
    const lane = this.#lane
    for (let segment = lane.nextReady(); segment !== null; segment = lane.nextReady()) {
      if (ageMs(segment.bytes, segment.offsetAt(lane.entry)) <= this.limits.ageMs) return
      if (this.deadLetter === null) this.ledger.expired++
      else if (!this.#handOver(segment, lane.entry, 'expired')) return
      this.ledger.queued--
      lane.drop(segment)
    }
  }

  /** The dead-letter target takes it, and the ledger says so; false: it has no room, and nothing has changed. */
  #handOver(segment: Segment, index: number, reason: DeadLetterReason): boolean {
    if (this.deadLetter?.take(segment.bytes, segment.offsetAt(index), reason) !== true) return false
    this.ledger.deadLetter(reason, 1)
    return true
  }

  // ---- operators

  /**
   * Drops everything that waits now and books it as purged; deliveries in flight and what comes meanwhile stay. Resolves with how many;
   * it is durable after the schedule's next flush.
   * @throws BrokerError STORE_UNAVAILABLE if what is on disk cannot be read now; what was purged by then is gone, and the ledger tells.
   */
  async purge(): Promise<number> {
    const through = this.#lane.nextPosition
    let purged = 0
    for (;;) {
      const dropped = this.#lane.dropReady(through)
      if (dropped > 0) {
        this.ledger.queued -= dropped
        this.ledger.drop('purged', dropped)
        purged += dropped
      }
      // What lies beyond came meanwhile: reading on would only bring it into memory.
      if (this.#lane.isReadThrough(through) || !(await this.readMore())) return purged
    }
  }

  /**
   * Brings the next part of what is on disk only into memory and delivers what can be delivered; false: all of it is in memory.
   * @throws BrokerError STORE_UNAVAILABLE if it cannot be read now.
   */
  async readMore(): Promise<boolean> {
    const outcome = await this.#lane.readMore()
    if (outcome === 'unreadable') throw unreadable(this.name)
    return outcome === 'read'
  }

  /** Reads the front if nothing of it is in memory, so that its age can be told before anybody consumes. */
  prefetch(): void {
    this.#lane.prefetch()
  }

  /**
   * The first messages, for a look: `visit` gets each record, valid during the call, until it has had `limit` of them. Nothing changes.
   * @throws BrokerError STOPPING
   */
  async peek(limit: number, visit: (bytes: Buffer, at: number, seen: Peeked) => void): Promise<void> {
    let left = limit
    await this.#lane.peek((bytes, at, seen) => {
      visit(bytes, at, seen)
      left--
      return left > 0
    })
  }

  // ---- consumers

  attach(consumer: Consumer): void {
    let slot = this.#consumers.indexOf(null, 1)
    if (slot < 0) slot = this.#consumers.length
    if (slot > MAX_CONSUMERS) throw new TypeError(`a queue takes at most ${MAX_CONSUMERS} consumers`)
    this.#consumers[slot] = consumer
    this.#consumerCount++
    this.pump()
  }

  /** Its unsettled deliveries go back to their places and are marked redelivered. */
  detach(consumer: Consumer): void {
    const slot = this.#consumers.indexOf(consumer)
    if (slot < 1) return
    this.#consumers[slot] = null
    this.#consumerCount--
    const given = this.#lane.giveBackOf(slot)
    this.ledger.inFlight -= given
    this.ledger.queued += given
    this.#settleTime.abandoned()
    this.#dueIfUnwritten()
    this.pump()
  }

  /** Delivers while there are a message and a consumer with credit. */
  pump(): void {
    if (this.#isPumping) {
      this.#pumpAgain = true
      return
    }
    this.#isPumping = true
    do {
      this.#pumpAgain = false
      this.#deliverReady()
    } while (this.#pumpAgain)
    this.#isPumping = false
  }

  #deliverReady(): void {
    const lane = this.#lane
    for (;;) {
      const slot = this.#nextSlot()
      if (slot === 0) return
      const consumer = this.#consumers[slot]
      if (consumer === null || consumer === undefined) return
      const segment = lane.nextReady()
      if (segment === null) return
      const index = lane.handOut(segment, slot)
      const position = segment.first + index
      this.ledger.queued--
      this.ledger.inFlight++
      this.#settleTime.delivered(position, this.#monotonicMs)
      consumer.deliver(
        segment.bytes,
        segment.offsetAt(index),
        position,
        segment.notes[index] ?? 0,
        (segment.statusAt(index) & REDELIVERED) === 0 ? 0 : 1,
      )
    }
  }

  /** The next consumer in turn that has credit; 0: none. */
  #nextSlot(): number {
    if (this.#consumerCount === 0) return 0
    const slots = this.#consumers.length
    for (let tried = 1; tried < slots; tried++) {
      const slot = this.#turn
      this.#turn = slot + 1 < slots ? slot + 1 : 1
      const consumer = this.#consumers[slot]
      if (consumer !== null && consumer !== undefined && consumer.credit > 0) return slot
    }
    return 0
  }

  // ---- settling

  /** The consumer is done with it. A position that is not in flight is ignored: it was settled, or requeued meanwhile. */
  settle(position: number): void {
    const segment = this.#lane.inFlightAt(position)
    if (segment === null) return
    this.#settleTime.settled(position, this.#monotonicMs)
    this.ledger.inFlight--
    this.ledger.settled++
    this.#lane.end(segment, position - segment.first)
  }

  /** Back to its place, marked redelivered; the caller pumps when it wants it again. */
  requeue(position: number): void {
    const segment = this.#lane.inFlightAt(position)
    if (segment === null) return
    this.#giveBack(segment, position - segment.first)
    this.#settleTime.abandoned()
    this.#dueIfUnwritten()
  }

  /** Refused for good by its consumer: a dead letter, or else booked as dropped{reason} or as expired. What the dead-letter target has no room for goes back to its place. */
  reject(position: number, reason: DropReason | 'expired'): void {
    const segment = this.#lane.inFlightAt(position)
    if (segment === null) return
    const index = position - segment.first
    if (this.deadLetter !== null && (reason === 'rejected' || reason === 'expired')) {
      if (!this.#handOver(segment, index, reason)) {
        this.#giveBack(segment, index)
        return
      }
    } else if (reason === 'expired') this.ledger.expired++
    else this.ledger.drop(reason, 1)
    this.ledger.inFlight--
    this.#lane.end(segment, index)
  }

  #giveBack(segment: Segment, index: number): void {
    this.#lane.giveBack(segment, index)
    this.ledger.inFlight--
    this.ledger.queued++
  }

  // ---- disk

  /** Unwritten messages that nobody can take any more are due at once. */
  #dueIfUnwritten(): void {
    if (this.#durability === null || this.#lane.unwritten === 0) return
    this.#durability.schedule.touch(this)
    this.#durability.schedule.due(this.#durability.tickets.last)
  }

  isDueThrough(ticket: number, withMarks: boolean): boolean {
    return this.#lane.isDueThrough(ticket, withMarks)
  }

  prepareCommit(throughTicket: number, commit: Commit, commitNumber: number): void {
    if (this.#durability === null) return
    this.#lane.prepareCommit(throughTicket, commit, commitNumber)
    commit.changes.push({ key: this.#durability.ledgerKey, value: this.#record() })
    if (this.#lane.unwritten > 0) this.marksChanged()
  }

  committed(): void {
    this.#lane.committed()
  }

  #record(): Buffer {
    const record: QueueRecord = {
      figures: this.ledger.persistent(this.#lane.unwritten),
      bytes: this.#lane.bytes - this.#lane.unwrittenBytes,
      next: this.#lane.nextPosition,
    }
    return Buffer.from(JSON.stringify(record))
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
    if (this.limits.onFull === 'drop_oldest') this.#dropOldest()
    this.pump()
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
    this.ledger.drop(reason, this.depth)
    this.ledger.queued = 0
    this.ledger.inFlight = 0
    this.#lane.clear()
    this.#consumers.length = 1
    this.#consumerCount = 0
  }
}

const unreadable = (queue: string): BrokerError =>
  new BrokerError(
    'STORE_UNAVAILABLE',
    `the messages of queue ${queue} on disk cannot be read now: the store is being reopened; try again in a moment`,
    { facts: { queue } },
  )
