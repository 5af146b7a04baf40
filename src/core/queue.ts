/*
 * A queue: messages in order, consumers with credit, each message settled exactly once. Every place where messages wait is one: a session's queue, a route's
 * outbox, later dead letters and streams.
 *
 * Invariants
 * - Entries have contiguous positions, never reused. An entry is ready, in flight or done.
 * - In memory there is a row of segments in order of position. A durable queue may have one gap in that row, right behind the `#head`
 *   first segments: what lies in it is on disk only. Unwritten entries are always in memory, behind the gap.
 * - Entries in flight, redelivered, or with unwritten marks are in memory. So memory is bounded by the window, the consumers' credit
 *   and what one commit interval brings, not by the backlog.
 * - The ledger's figures are counted where things happen; `queued + inFlight` is what `depth` says.
 *
 * Operations: take (append) → pump (deliver) → settle | requeue | reject; prepareCommit/committed by the commit schedule; load ahead and evict around the gap.
 */
import { BrokerError } from '../model/error.ts'
import { type Acceptance, type RecordPrefix, recordLength } from '../model/message.ts'
import type { Commit, LoadedSegment, SegmentMarks, SegmentRef } from '../store/types.ts'
import type { CommitSchedule, CommitSource } from './commit-schedule.ts'
import type { Consumer } from './consumer.ts'
import type { DeadLetterReason, DeadLetterTarget } from './dead-letter.ts'
import { type DropReason, Ledger, type LedgerFigures } from './ledger.ts'
import { MemoryBudget } from './memory.ts'
import { DONE, IN_FLIGHT, REDELIVERED, SEGMENT_BYTES, Segment, SHARED } from './segment.ts'
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

/** What a look into a queue tells beside the record. */
export interface Peeked {
  readonly position: number
  readonly isInFlight: boolean
  readonly isRedelivered: boolean
}

/** What a queue says to a run before anything is appended. */
export type Admission = 'take' | 'refuse' | 'drop'

/** Memory a durable queue keeps at its front, bytes; the rest of a backlog is on disk only. */
const WINDOW_BYTES = 1024 * 1024
/** The same when limits.memory is half used. */
const TIGHT_WINDOW_BYTES = 128 * 1024
const READ_BYTES = 512 * 1024
/** Below so many bytes ahead of the consumer the next part is read. */
const READ_AHEAD_BYTES = 256 * 1024
/** One byte per delivery names its consumer; slot 0 means none. */
const MAX_CONSUMERS = 255
/** An empty open segment of at most this size is used again instead of being given back. */
const KEPT_BYTES = 16 * 1024

export class Queue implements CommitSource {
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
  readonly #memory: MemoryBudget
  readonly #monotonicMs: () => number
  readonly #settleTime = new SettleTime()

  #segments: Segment[] = []
  /** Segments before the gap; all of them if there is none. */
  #head = 0
  /** Reading goes on after this; meaningful while there is a gap. */
  #readAfter: SegmentRef | null = null
  /** Last segment in the gap; null: no gap. */
  #gapLast: SegmentRef | null = null
  #reading: Promise<void> | null = null
  /** Bytes the last open segment came to: the next one begins with room for as many. */
  #expectedBytes = 0
  #nextPosition: number
  #bytes: number
  /** Unsettled entries no commit has taken yet. */
  #unwritten = 0
  #unwrittenBytes = 0

  /** Where the pump looks next: index into #segments and entry in it. */
  #cursor = 0
  #entry = 0

  readonly #consumers: (Consumer | null)[] = [null]
  #turn = 1
  #consumerCount = 0
  #isPumping = false
  #pumpAgain = false

  #completed: SegmentMarks[] = []
  #marked: Segment[] = []
  #committing: Segment[] = []
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
    this.#memory = memory
    this.#monotonicMs = monotonicMs
    this.#durability = durability
    this.ledger = stored === null ? new Ledger() : Ledger.from(stored.figures)
    this.#nextPosition = stored?.nextPosition ?? 0
    this.#bytes = stored?.bytes ?? 0
    this.#gapLast = stored?.last ?? null
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
    return this.#bytes
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
    let held = 0
    for (const segment of this.#segments) held += segment.heldBytes
    return held
  }

  /** The record of the oldest message, for a look at once; null: empty, or not read yet. */
  get oldest(): { readonly bytes: Buffer; readonly at: number } | null {
    for (let s = 0; s < this.#head; s++) {
      const segment = this.#segments[s]
      if (segment === undefined || segment.live === 0) continue
      for (let i = segment.firstLive(); i < segment.count; i++) {
        if ((segment.statusAt(i) & DONE) === 0) return { bytes: segment.bytes, at: segment.offsetAt(i) }
      }
    }
    return null
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
    if (this.depth + count <= this.limits.messages && this.#bytes + bytes <= this.limits.bytes) return 'take'
    return this.limits.onFull === 'reject' ? 'refuse' : 'drop'
  }

  /** Books messages that this queue's own policy turned away after acceptance. */
  bookDropped(count: number, reason: DropReason): void {
    this.ledger.accepted += count
    this.ledger.drop(reason, count)
    this.#figuresChanged()
  }

  /**
   * Appends one accepted message; arguments as in writeRecord. `ticket` is the youngest ticket given out so far (its own, if it has one).
   * The caller pumps when its run is through.
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
    isShared: boolean,
  ): void {
    const length = recordLength(prefix, expiryMs, propertiesBytes, to - from - propertiesBytes)
    const segment = this.#openSegment(length)
    segment.append(
      prefix,
      acceptance,
      expiryMs,
      source,
      from,
      to,
      propertiesBytes,
      note | this.noteNow,
      ticket,
      isShared ? SHARED : 0,
    )
    this.#nextPosition++
    this.ledger.accepted++
    this.ledger.queued++
    this.#bytes += length
    if (this.#durability !== null) {
      this.#unwritten++
      this.#unwrittenBytes += length
    }
    if (this.limits.onFull === 'drop_oldest') this.#dropOldest()
  }

  #openSegment(length: number): Segment {
    const last = this.#segments.at(-1)
    if (last !== undefined && last.ref === null) {
      if (last.fits(length)) return last
      this.#expectedBytes = SEGMENT_BYTES
      if (last.live === 0 && last.inFlight === 0) this.#remove(this.#segments.length - 1)
    }
    const expectedBytes = this.#memory.isTight ? 0 : this.#expectedBytes
    const segment = Segment.open(this.#nextPosition, this.#memory, expectedBytes)
    this.#segments.push(segment)
    if (this.#gapLast === null) this.#head = this.#segments.length
    return segment
  }

  #dropOldest(): void {
    while (this.depth > this.limits.messages || this.#bytes > this.limits.bytes) {
      if (!this.#dropFront()) return
    }
  }

  /** False if the front is on disk only: it is read, and dropped when it is there; or if the dead-letter target has no room. */
  #dropFront(): boolean {
    for (let s = 0; s < this.#head; s++) {
      const segment = this.#segments[s]
      if (segment === undefined || segment.live === segment.inFlight) continue
      for (let i = segment.firstLive(); i < segment.count; i++) {
        if ((segment.statusAt(i) & (DONE | IN_FLIGHT)) !== 0) continue
        if (this.deadLetter === null) this.ledger.drop('overflow', 1)
        else if (!this.#handOver(segment, i, 'maxlen')) return false
        this.ledger.queued--
        this.#finish(segment, i)
        return true
      }
    }
    if (this.#gapLast !== null) this.#readOn()
    return false
  }

  /** Expires what has waited longer than limits.ageMs, from the front; `ageMs` tells how long a record has waited. */
  expire(ageMs: (bytes: Buffer, at: number) => number): void {
    if (this.limits.ageMs === Number.POSITIVE_INFINITY) return
    for (let s = 0; s < this.#head; s++) {
      const segment = this.#segments[s]
      if (segment === undefined) return
      for (let i = segment.firstLive(); i < segment.count; i++) {
        if ((segment.statusAt(i) & (DONE | IN_FLIGHT)) !== 0) continue
        if (ageMs(segment.bytes, segment.offsetAt(i)) <= this.limits.ageMs) return
        if (this.deadLetter === null) this.ledger.expired++
        else if (!this.#handOver(segment, i, 'expired')) return
        this.ledger.queued--
        this.#finish(segment, i)
        // The last one may have taken the segment with it.
        if (this.#segments[s] !== segment) {
          s--
          break
        }
      }
    }
    this.prefetch()
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
    const through = this.#nextPosition
    let purged = 0
    for (;;) {
      purged += this.#dropReady(through)
      // What lies beyond came meanwhile: reading on would only bring it into memory.
      if ((this.#segments[this.#head - 1]?.end ?? 0) >= through) return purged
      if (!(await this.readMore())) return purged
    }
  }

  /**
   * Brings the next part of what is on disk only into memory and delivers what can be delivered; false: all of it is in memory.
   * @throws BrokerError STORE_UNAVAILABLE if it cannot be read now.
   */
  async readMore(): Promise<boolean> {
    if (this.#gapLast === null) return false
    const readAfter = this.#readAfter
    this.#readOn()
    await this.#reading
    if (this.#gapLast !== null && this.#readAfter === readAfter) throw unreadable(this.name)
    return true
  }

  #dropReady(through: number): number {
    let dropped = 0
    for (const segment of this.#segments.slice(0, this.#head)) {
      const end = segment.end
      for (let position = segment.first; position < Math.min(end, through); position++) {
        const index = position - segment.first
        if ((segment.statusAt(index) & (DONE | IN_FLIGHT)) !== 0) continue
        this.ledger.queued--
        this.ledger.drop('purged', 1)
        dropped++
        const isLast = segment.live === 1
        this.#finish(segment, index)
        // The last one takes the segment with it.
        if (isLast) break
      }
    }
    return dropped
  }

  /**
   * The first messages, for a look: `visit` gets each record, valid during the call, until it has had `limit` of them. Nothing changes.
   * @throws BrokerError STOPPING
   */
  async peek(limit: number, visit: (bytes: Buffer, at: number, seen: Peeked) => void): Promise<void> {
    let left = limit
    /** Position behind what was shown: the queue goes on while the disk is read, and its segments may move between memory and disk. */
    let next = 0
    const show = (segment: Segment): void => {
      for (let i = Math.max(0, next - segment.first); i < segment.count && left > 0; i++) {
        const status = segment.statusAt(i)
        if ((status & DONE) !== 0) continue
        left--
        visit(segment.bytes, segment.offsetAt(i), {
          position: segment.first + i,
          isInFlight: (status & IN_FLIGHT) !== 0,
          isRedelivered: (status & REDELIVERED) !== 0,
        })
      }
      next = Math.max(next, segment.end)
    }
    for (const segment of this.#segments.slice(0, this.#head)) show(segment)
    let after = this.#readAfter
    let isMore = this.#gapLast !== null
    while (isMore && left > 0) {
      const loaded = (await this.#durability?.read(after, READ_BYTES)) ?? []
      // Of a budget of its own: a look must not press on limits.memory.
      for (const found of loaded) show(Segment.loaded(found, new MemoryBudget(Number.POSITIVE_INFINITY)))
      after = loaded.at(-1)?.ref ?? after
      isMore = loaded.length > 0
    }
    // What is unwritten is in memory only.
    for (const segment of this.#segments) show(segment)
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
    for (const segment of this.#segments) {
      if (segment.inFlight === 0) continue
      for (let i = 0; i < segment.count; i++) {
        if ((segment.statusAt(i) & IN_FLIGHT) !== 0 && segment.owners[i] === slot) this.#giveBack(segment, i)
      }
    }
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
    for (;;) {
      const slot = this.#nextSlot()
      if (slot === 0) return
      const consumer = this.#consumers[slot]
      if (consumer === null || consumer === undefined) return
      const segment = this.#nextReady()
      if (segment === null) return
      const index = this.#entry++
      const status = segment.statusAt(index)
      const position = segment.first + index
      segment.status[index] = status | IN_FLIGHT
      segment.owners[index] = slot
      segment.inFlight++
      this.ledger.queued--
      this.ledger.inFlight++
      this.#settleTime.delivered(position, this.#monotonicMs)
      consumer.deliver(
        segment.bytes,
        segment.offsetAt(index),
        position,
        segment.notes[index] ?? 0,
        (status & REDELIVERED) === 0 ? 0 : 1,
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

  /** Moves the cursor to the next ready entry; null if there is none in memory. */
  #nextReady(): Segment | null {
    if (this.ledger.queued === 0) return null
    while (this.#cursor < this.#head) {
      const segment = this.#segments[this.#cursor]
      if (segment === undefined) break
      while (this.#entry < segment.count) {
        if ((segment.statusAt(this.#entry) & (IN_FLIGHT | DONE)) === 0) {
          if (this.#gapLast !== null) this.#readAheadOf(segment)
          return segment
        }
        this.#entry++
      }
      if (this.#cursor === this.#segments.length - 1) return null
      this.#cursor++
      this.#entry = 0
    }
    if (this.#gapLast !== null) this.#readOn()
    return null
  }

  #readAheadOf(segment: Segment): void {
    if (this.#reading !== null || this.#cursor < this.#head - 2) return
    const ahead = segment.used - segment.offsetAt(this.#entry)
    const next = this.#cursor + 1 < this.#head ? (this.#segments[this.#cursor + 1]?.used ?? 0) : 0
    if (ahead + next < READ_AHEAD_BYTES) this.#readOn()
  }

  // ---- settling

  /** The consumer is done with it. A position that is not in flight is ignored: it was settled, or requeued meanwhile. */
  settle(position: number): void {
    const segment = this.#segmentOf(position)
    if (segment === null) return
    const index = position - segment.first
    if ((segment.statusAt(index) & IN_FLIGHT) === 0) return
    this.#settleTime.settled(position, this.#monotonicMs)
    this.ledger.inFlight--
    this.ledger.settled++
    this.#finish(segment, index)
  }

  /** Back to its place, marked redelivered; the caller pumps when it wants it again. */
  requeue(position: number): void {
    const segment = this.#segmentOf(position)
    if (segment === null) return
    const index = position - segment.first
    if ((segment.statusAt(index) & IN_FLIGHT) === 0) return
    this.#giveBack(segment, index)
    this.#settleTime.abandoned()
    this.#dueIfUnwritten()
  }

  /** Refused for good by its consumer: a dead letter, or else booked as dropped{reason} or as expired. What the dead-letter target has no room for goes back to its place. */
  reject(position: number, reason: DropReason | 'expired'): void {
    const segment = this.#segmentOf(position)
    if (segment === null) return
    const index = position - segment.first
    if ((segment.statusAt(index) & IN_FLIGHT) === 0) return
    if (this.deadLetter !== null && (reason === 'rejected' || reason === 'expired')) {
      if (!this.#handOver(segment, index, reason)) {
        this.#giveBack(segment, index)
        return
      }
    } else if (reason === 'expired') this.ledger.expired++
    else this.ledger.drop(reason, 1)
    this.ledger.inFlight--
    this.#finish(segment, index)
  }

  #giveBack(segment: Segment, index: number): void {
    const status = segment.statusAt(index)
    segment.status[index] = (status & ~IN_FLIGHT) | REDELIVERED
    segment.owners[index] = 0
    segment.inFlight--
    if ((status & REDELIVERED) === 0) segment.redelivered++
    this.ledger.inFlight--
    this.ledger.queued++
    const at = this.#segments.indexOf(segment)
    if (at < this.#cursor || (at === this.#cursor && index < this.#entry)) {
      this.#cursor = at
      this.#entry = index
    }
  }

  /** An entry needs no delivery any more, for whatever reason; the ledger has been told. */
  #finish(segment: Segment, index: number): void {
    const status = segment.statusAt(index)
    segment.status[index] = (status & SHARED) | DONE
    segment.live--
    if ((status & IN_FLIGHT) !== 0) segment.inFlight--
    if ((status & REDELIVERED) !== 0) segment.redelivered--
    const length = segment.recordBytesAt(index)
    this.#bytes -= length
    if (this.#durability !== null) {
      if (segment.ref === null) {
        this.#unwritten--
        this.#unwrittenBytes -= length
        this.#durability.tickets.settle(segment.tickets[index] ?? 0)
        this.#figuresChanged()
      } else {
        this.#mark(segment)
      }
    }
    if (segment.live === 0) this.#retire(segment)
  }

  #mark(segment: Segment): void {
    if (segment.live > 0 && !segment.isMarked) {
      segment.isMarked = true
      this.#marked.push(segment)
    }
    this.#durability?.schedule.touch(this)
    this.#durability?.schedule.buffered()
  }

  #figuresChanged(): void {
    this.#durability?.schedule.touch(this)
    this.#durability?.schedule.figuresChanged()
  }

  /** All of a segment is done: it leaves memory, and the disk too if it is there. */
  #retire(segment: Segment): void {
    if (segment.ref !== null && !segment.isCommitted) return
    const index = this.#segments.indexOf(segment)
    if (index < 0) return
    if (segment.ref === null && index === this.#segments.length - 1 && segment.bytes.length <= KEPT_BYTES) {
      segment.restart()
      if (this.#cursor === index) this.#entry = 0
      return
    }
    if (segment.ref === null) {
      this.#expectedBytes = segment.used
    } else {
      this.#completed.push({
        queue: this.#durability?.number ?? 0,
        ref: segment.ref,
        settled: segment.settledBitmap(),
        isComplete: true,
      })
      segment.isMarked = false
    }
    this.#remove(index)
  }

  #remove(index: number): void {
    const segment = this.#segments[index]
    if (segment === undefined) return
    this.#segments.splice(index, 1)
    if (index < this.#head) this.#head--
    if (index < this.#cursor) this.#cursor--
    else if (index === this.#cursor) this.#entry = 0
    segment.release()
  }

  #segmentOf(position: number): Segment | null {
    const segments = this.#segments
    let low = 0
    let high = segments.length - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const segment = segments[middle]
      if (segment === undefined) return null
      if (position < segment.first) high = middle - 1
      else if (position >= segment.end) low = middle + 1
      else return segment
    }
    return null
  }

  // ---- disk

  /** Unwritten messages that nobody can take any more are due at once. */
  #dueIfUnwritten(): void {
    if (this.#durability === null || this.#unwritten === 0) return
    this.#durability.schedule.touch(this)
    this.#durability.schedule.due(this.#durability.tickets.last)
  }

  isDueThrough(ticket: number, withMarks: boolean): boolean {
    if (withMarks && (this.#completed.length > 0 || this.#marked.some(({ isMarked, ref }) => isMarked && ref !== null)))
      return true
    if (this.#unwritten === 0) return false
    for (let s = this.#firstUnwritten(); s < this.#segments.length; s++) {
      const segment = this.#segments[s]
      if (segment === undefined) break
      const end = segment.live === 0 ? 0 : segment.indexAfterTicket(ticket)
      for (let i = 0; i < end; i++) if ((segment.statusAt(i) & DONE) === 0) return true
    }
    return false
  }

  prepareCommit(throughTicket: number, commit: Commit, commitNumber: number): void {
    if (this.#durability === null) return
    let part = 0
    for (let s = this.#firstUnwritten(); s < this.#segments.length; s++) {
      let segment = this.#segments[s]
      if (segment === undefined) break
      const cut = segment.indexAfterTicket(throughTicket)
      if (cut === 0) break
      if (segment.live === 0) continue
      if (cut < segment.count) {
        const rest = segment.splitAt(cut)
        this.#segments.splice(s + 1, 0, rest)
        if (this.#gapLast === null) this.#head++
        if (this.#cursor === s && this.#entry > cut) {
          this.#cursor = s + 1
          this.#entry -= cut
        } else if (this.#cursor > s) {
          this.#cursor++
        }
        if (segment.live === 0) {
          this.#remove(s)
          segment = undefined
          break
        }
      }
      const write = segment.toWrite(this.#durability.number, part)
      segment.ref = { commit: commitNumber, part }
      this.#expectedBytes = segment.used
      part++
      this.#committing.push(segment)
      commit.segments.push(write)
      for (let i = 0; i < segment.count; i++) {
        if ((segment.statusAt(i) & DONE) !== 0) continue
        const length = segment.recordBytesAt(i)
        this.#unwritten--
        this.#unwrittenBytes -= length
        commit.acceptedBytes += length
      }
      if (cut < segment.count) break
    }
    for (const segment of this.#marked) {
      if (!segment.isMarked || segment.ref === null) continue
      segment.isMarked = false
      commit.marks.push({
        queue: this.#durability.number,
        ref: segment.ref,
        settled: segment.settledBitmap(),
        isComplete: false,
      })
    }
    this.#marked = []
    commit.marks.push(...this.#completed)
    this.#completed = []
    commit.changes.push({ key: this.#durability.ledgerKey, value: this.#record() })
    if (this.#unwritten > 0) {
      this.#durability.schedule.touch(this)
      this.#durability.schedule.buffered()
    }
  }

  committed(): void {
    const written = this.#committing
    this.#committing = []
    for (const segment of written) {
      segment.isCommitted = true
      if (segment.live === 0) this.#retire(segment)
    }
    if (this.#completed.length > 0) {
      this.#durability?.schedule.touch(this)
      this.#durability?.schedule.buffered()
    }
    this.#evict()
  }

  #firstUnwritten(): number {
    let s = this.#segments.length
    while (s > 0 && this.#segments[s - 1]?.ref === null) s--
    return s
  }

  #record(): Buffer {
    const record: QueueRecord = {
      figures: this.ledger.persistent(this.#unwritten),
      bytes: this.#bytes - this.#unwrittenBytes,
      next: this.#nextPosition,
    }
    return Buffer.from(JSON.stringify(record))
  }

  /** Lets go of written segments beyond the window: right behind the gap, or behind the head where a gap may begin. */
  #evict(): void {
    const window = this.#memory.isTight ? TIGHT_WINDOW_BYTES : WINDOW_BYTES
    if (this.#gapLast === null) {
      let held = 0
      let s = 0
      for (; s < this.#segments.length; s++) {
        const segment = this.#segments[s]
        if (segment === undefined) return
        held += segment.heldBytes
        if (held > window && s > this.#cursor + 1) break
      }
      const first = this.#segments[s]
      if (first === undefined || !this.#isEvictable(first) || first.ref === null) return
      this.#head = s
      this.#readAfter = before(first.ref)
      this.#gapLast = first.ref
    }
    for (;;) {
      const segment = this.#segments[this.#head]
      if (segment === undefined || segment.ref === null || !this.#isEvictable(segment)) return
      this.#gapLast = segment.ref
      this.#segments.splice(this.#head, 1)
      segment.release()
    }
  }

  #isEvictable(segment: Segment): boolean {
    return segment.isCommitted && !segment.isMarked && segment.inFlight === 0 && segment.redelivered === 0
  }

  /** Reads the next part of the gap into the head, unless that is being done. */
  #readOn(): void {
    this.#reading ??= this.#readNext()
  }

  /** Never rejects. */
  async #readNext(): Promise<void> {
    const durability = this.#durability
    if (durability === null) return
    let loaded: LoadedSegment[] | null = null
    try {
      loaded = await durability.read(this.#readAfter, READ_BYTES)
    } catch {
      // The store is being reopened after an I/O error, or closed; the next pump asks again.
    }
    this.#reading = null
    if (loaded === null) return
    this.#insert(loaded)
    if (this.limits.onFull === 'drop_oldest') this.#dropOldest()
    this.pump()
  }

  #insert(loaded: readonly LoadedSegment[]): void {
    for (const found of loaded) {
      const last = this.#gapLast
      if (last === null || isAfter(found.ref, last)) break
      this.#readAfter = found.ref
      if (found.damaged > 0) this.#bookDamage(found)
      const segment = Segment.loaded(found, this.#memory)
      if (segment.live > 0) {
        this.#segments.splice(this.#head, 0, segment)
        this.#head++
        if (found.damaged > 0) this.#mark(segment)
      } else {
        this.#completed.push({
          queue: this.#durability?.number ?? 0,
          ref: found.ref,
          settled: segment.settledBitmap(),
          isComplete: true,
        })
        segment.release()
        this.#durability?.schedule.touch(this)
        this.#durability?.schedule.buffered()
      }
    }
    const last = this.#gapLast
    if (last !== null && (loaded.length === 0 || (this.#readAfter !== null && !isAfter(last, this.#readAfter)))) {
      this.#gapLast = null
      this.#readAfter = null
      this.#head = this.#segments.length
      this.#reconcile()
    }
  }

  /**
   * All there is is in memory now: the figures are set right. What they promise beyond it was lost to damage that left no trace to
   * be counted by.
   */
  #reconcile(): void {
    let ready = 0
    let bytes = 0
    for (const segment of this.#segments) {
      ready += segment.live - segment.inFlight
      bytes += segment.liveBytes()
    }
    const gone = this.ledger.queued - ready
    if (gone > 0) {
      this.ledger.queued -= gone
      this.ledger.drop('damage', gone)
    }
    if (gone > 0 || bytes !== this.#bytes) this.#figuresChanged()
    this.#bytes = bytes
  }

  #bookDamage(found: LoadedSegment): void {
    this.ledger.queued -= found.damaged
    this.ledger.drop('damage', found.damaged)
    this.#bytes -= found.damagedBytes
  }

  /** Reads the front if nothing of it is in memory, so that its age can be told before anybody consumes. */
  prefetch(): void {
    if (this.#gapLast !== null && this.#head === 0) this.#readOn()
  }

  /** Ends a queue; what is in it is booked as dropped{reason}. A durable one has been purged, and the purge flushed, before. */
  delete(reason: DropReason): void {
    if (this.#durability !== null && this.depth > 0) throw new TypeError('a durable queue is not deleted with messages')
    if (this.#isDeleted) return
    this.#isDeleted = true
    this.ledger.drop(reason, this.depth)
    this.ledger.queued = 0
    this.ledger.inFlight = 0
    this.#bytes = 0
    for (const segment of this.#segments) segment.release()
    this.#segments = []
    this.#head = 0
    this.#cursor = 0
    this.#entry = 0
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

const before = (ref: SegmentRef): SegmentRef =>
  ref.part > 0 ? { commit: ref.commit, part: ref.part - 1 } : { commit: ref.commit - 1, part: 0xffff }

const isAfter = (a: SegmentRef, b: SegmentRef): boolean =>
  a.commit > b.commit || (a.commit === b.commit && a.part > b.part)
