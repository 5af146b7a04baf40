/*
 * A lane: one row of messages in order, part of a queue. A queue has one for each priority; each is a log of its own, with its own number in the store, its own
 * positions and segments. A lane knows where messages are; who gets them and what the ledger says about it is the queue's.
 *
 * Invariants
 * - Entries have contiguous positions, never reused. An entry is ready, in flight, waiting or done. No entry before the cursor is ready.
 * - Where live messages overtake the backlog there is a second cursor: of what is ready, the backlog is what lies before it. It takes live messages from memory only, and
 *   memory keeps what lies behind it as far as the window goes; what has to leave is backlog.
 * - In memory there is a row of segments in order of position. A durable lane may have one gap in that row, right behind the `#head`
 *   first segments: what lies in it is on disk only. Unwritten entries are always in memory, behind the gap.
 * - Segments before the cursor of which all that is left waits may be aside: on disk only too, until the first of it is due.
 * - Entries in flight or with unwritten marks are in memory. So memory is bounded by the window, the consumers' credit and what one commit
 *   interval brings, not by the backlog. What is known of deliveries that came back is kept by position, wherever the message is.
 *
 * Operations: append → nextReady → handOut → end | giveBack | wait → wake; prepareCommit/committed by the queue; read on, set aside and evict.
 */
import { type Acceptance, type RecordPrefix, recordAcceptedAt } from '../model/message.ts'
import type { Store } from '../store/store.ts'
import { ABSENT, type Commit, type LoadedSegment, type SegmentMarks, type SegmentRef } from '../store/types.ts'
import { type Aside, AsideSegments } from './aside.ts'
import { NOTE_LIVE } from './consumer.ts'
import type { LaneRecord } from './ledger-record.ts'
import { MemoryBudget } from './memory.ts'
import {
  DONE,
  IN_FLIGHT,
  NOT_READY,
  PASSING,
  REDELIVERED,
  SEGMENT_BYTES,
  Segment,
  SHARED,
  TICKETED,
  WAITING,
} from './segment.ts'
import type { Tickets } from './tickets.ts'
import { type Tried, TriedMessages } from './tried.ts'

/** What a durable lane needs beside memory. */
export interface LaneDurability {
  /** Its number in the store. */
  readonly number: number
  readonly tickets: Tickets
  readonly store: Pick<Store, 'segments' | 'seekPosition'>
}

/** A durable lane as the disk remembers it. */
export interface StoredLane {
  /** Messages not settled, and bytes of their records. */
  readonly messages: number
  readonly bytes: number
  readonly nextPosition: number
  /** Nothing from this position on had been delivered. */
  readonly delivered: number
  /** No segment lies behind it; null: there is none. */
  readonly last: SegmentRef | null
  /** By position; the lane goes on with it. */
  readonly tried: Map<number, Tried>
}

/** What a lane tells its queue. */
export interface LaneOwner {
  /** Marks of what is on disk have changed. */
  marksChanged(): void
  /** Only figures have changed: the disk never knew the message. */
  figuresChanged(): void
  /** What was on disk only is in memory now, as far as was asked for. */
  loaded(): void
  /** So many messages that should be there, ready, are not: damage. */
  lost(count: number): void
}

/** Which end of a durable lane stays in memory when it is longer than the window: where a queue delivers, or where a stream grows. */
export type KeptEnd = 'front' | 'back'

/** moved: somebody else has it now. ended: nobody shall. stop: nothing more is wanted, this one included. */
export type Verdict = 'keep' | 'moved' | 'ended' | 'stop'

/** Says of a message that is ready what becomes of it. */
export type Judge = (bytes: Buffer, at: number, position: number) => Verdict

/** A segment in the gap, or where one may come to be, of which something was taken out: kept until its marks are on disk. */
interface Sifted {
  readonly segment: Segment
  /** Its marks have changed since the last commit took them. */
  isChanged: boolean
}

/** What a look into a queue tells beside the record. */
export interface Peeked {
  readonly position: number
  readonly isInFlight: boolean
  /** It waits for another attempt, or for room among the dead letters. */
  readonly isWaiting: boolean
  /** How often it was delivered before. */
  readonly attempts: number
}

/** Memory a durable lane keeps at one end, bytes; the rest of a backlog is on disk only. */
const WINDOW_BYTES = 1024 * 1024
/** The same when limits.memory is half used. */
const TIGHT_WINDOW_BYTES = 128 * 1024
const READ_BYTES = 512 * 1024
/** Below so many bytes ahead of the consumer the next part is read. */
const READ_AHEAD_BYTES = 256 * 1024
/** An empty open segment of at most this size is used again instead of being given back. */
const KEPT_BYTES = 16 * 1024

export class Lane {
  /** Messages that are not done. */
  live: number
  /** Of them, those that could be delivered now, on disk or in memory. */
  ready: number
  /** Bytes of the records that are not done. */
  bytes: number
  /** Entries that are not done and that no commit has taken yet. */
  unwritten = 0
  unwrittenBytes = 0
  /** Entries that are not done and that no commit will take. */
  passing = 0
  passingBytes = 0
  /** Live messages overtake, and are delivered now: they stay in memory for that. */
  keepsLive = false

  /** Part of its queue's positions that stands for this lane: position in the queue = base + position in the lane. */
  readonly base: number
  readonly #owner: LaneOwner
  readonly #memory: MemoryBudget
  #durability: LaneDurability | null
  readonly #keeps: KeptEnd

  #segments: Segment[] = []
  /** Segments before the gap; all of them if there is none. */
  #head = 0
  /** Reading goes on after this; meaningful while there is a gap. */
  #readAfter: SegmentRef | null = null
  /** Last segment in the gap; null: no gap. */
  #gapLast: SegmentRef | null
  /** Resolves with whether it could read. */
  #reading: Promise<boolean> | null = null
  /** It is a sift that reads, and nothing of it comes into the head. */
  #isSifting = false
  readonly #sifted = new Map<string, Sifted>()
  /** Looks at it under way. */
  #peeks = 0
  /** Bytes the last open segment came to: the next one begins with room for as many. */
  #expectedBytes = 0
  #nextPosition: number

  /** Where delivery goes on: index into #segments and entry in it. */
  #cursor = 0
  #entry = 0
  /** Where delivery of live messages goes on: a position. No ready entry before it is live. */
  #live: number
  /** Everything from this position on was accepted since this start. */
  readonly #started: number
  /** The entry that was found last, in its segment, and whether as a live one. */
  #found = 0
  #isFoundLive = false

  /** The newest segment a commit has taken. */
  #last: SegmentRef | null
  #completed: SegmentMarks[] = []
  #marked: Segment[] = []
  #committing: Segment[] = []
  /** A commit has taken what there was, and has not returned. */
  #isCommitting = false

  /** Nothing from this position on has been delivered. */
  #delivered: number
  /** What was delivered since the last commit is on disk: that it was delivered is worth writing. */
  #isDeliveredDue = false
  readonly #tried: TriedMessages
  readonly #aside = new AsideSegments()
  /** Resolves with whether it could read. */
  #bringing: Promise<boolean> | null = null

  constructor({
    base,
    owner,
    memory,
    durability,
    stored,
    keeps,
  }: {
    base: number
    owner: LaneOwner
    memory: MemoryBudget
    durability: LaneDurability | null
    stored: StoredLane | null
    keeps: KeptEnd
  }) {
    this.base = base
    this.#owner = owner
    this.#keeps = keeps
    this.#memory = memory
    this.#durability = durability
    this.#tried = new TriedMessages(stored?.tried ?? new Map(), durability !== null)
    this.#delivered = stored?.delivered ?? 0
    this.live = stored?.messages ?? 0
    this.ready = this.live - this.waiting().length
    this.bytes = stored?.bytes ?? 0
    this.#nextPosition = stored?.nextPosition ?? 0
    this.#started = this.#nextPosition
    this.#live = this.#nextPosition
    this.#last = stored?.last ?? null
    this.#gapLast = this.#last
    if (this.#gapLast === null && this.live > 0) this.#reconcile()
  }

  get nextPosition(): number {
    return this.#nextPosition
  }

  /** A lane that keeps its back holds everything from this position on in memory. */
  get heldFrom(): number {
    return this.#segments[0]?.first ?? this.#nextPosition
  }

  /** What a commit says of it that takes all but what is unwritten now. */
  get record(): LaneRecord {
    const messages = this.live - this.unwritten - this.passing
    return {
      messages,
      bytes: this.bytes - this.unwrittenBytes - this.passingBytes,
      next: this.#nextPosition,
      delivered: this.#delivered,
      last: messages === 0 ? null : this.#last,
    }
  }

  /** Positions of the messages that wait, with the pause of each. */
  waiting(): [position: number, tried: Tried][] {
    return this.#tried.waiting()
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
      const index = segment.firstLive()
      if (index < segment.count) return { bytes: segment.bytes, at: segment.offsetAt(index) }
    }
    return null
  }

  // ---- messages come and go

  /** Appends one message of `length` bytes; arguments as in Queue.take. */
  append(
    length: number,
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
    const isPassing = (status & PASSING) !== 0
    this.#openSegment(length, isPassing).append(
      prefix,
      acceptance,
      expiryMs,
      source,
      from,
      to,
      propertiesBytes,
      note,
      ticket,
      status,
    )
    this.#appended(length, isPassing)
  }

  /** Appends a record that has its stored form already. */
  appendRecord(record: Buffer, note: number, ticket: number, status: number): void {
    this.#openSegment(record.length, false).appendRecord(record, 0, note, ticket, status)
    this.#appended(record.length, false)
  }

  #appended(length: number, isPassing: boolean): void {
    this.#nextPosition++
    this.live++
    this.ready++
    this.bytes += length
    if (isPassing) {
      this.passing++
      this.passingBytes += length
    } else if (this.#durability !== null) {
      this.unwritten++
      this.unwrittenBytes += length
    }
  }

  /** Memory that messages of so many bytes take at least beyond what is held. */
  growthFor(bytes: number): number {
    const last = this.#segments.at(-1)
    return last !== undefined && last.ref === null && last.fits(bytes)
      ? last.growthFor(bytes)
      : Segment.memoryFor(bytes)
  }

  #openSegment(length: number, isPassing: boolean): Segment {
    const last = this.#segments.at(-1)
    if (last !== undefined && last.ref === null) {
      if (last.count === 0) last.isPassing = isPassing
      if (last.isPassing === isPassing) {
        if (last.fits(length)) return last
        this.#expectedBytes = SEGMENT_BYTES
      }
      if (last.live === 0 && last.inFlight === 0) this.#remove(this.#segments.length - 1)
    }
    const expectedBytes = this.#memory.isTight ? 0 : this.#expectedBytes
    const segment = Segment.open(this.#nextPosition, this.#memory, expectedBytes)
    segment.isPassing = isPassing
    this.#segments.push(segment)
    if (this.#gapLast === null) this.#head = this.#segments.length
    return segment
  }

  /** Index of the entry found by `nextReady`, `nextLive` or `nextBacklog`, whichever was asked last, in its segment. */
  get entry(): number {
    return this.#found
  }

  /** The first ready entry, which is the oldest. Null: there is none, or it is on disk only and now being read. */
  nextReady(): Segment | null {
    const segment = this.#seekReady()
    this.#found = this.#entry
    this.#isFoundLive = false
    return segment
  }

  /** The first live entry that is ready; `since` as in `isLive`. Null: there is none in memory. */
  nextLive(since: number): Segment | null {
    if (this.#live === this.#nextPosition) return null
    for (let s = this.#indexFrom(this.#live); s < this.#segments.length; s++) {
      const segment = this.#segments[s]
      if (segment === undefined) break
      for (let i = Math.max(0, this.#live - segment.first); i < segment.count; i++) {
        if ((segment.statusAt(i) & NOT_READY) !== 0 || !this.isLive(segment, i, since)) continue
        this.#live = segment.first + i
        this.#found = i
        this.#isFoundLive = true
        return segment
      }
    }
    this.#live = this.#nextPosition
    return null
  }

  /** Accepted since this start with NOTE_LIVE, at `since` (monotonic milliseconds) or later. */
  isLive(segment: Segment, index: number, since: number): boolean {
    return this.#mayBeLive(segment, index) && recordAcceptedAt(segment.bytes, segment.offsetAt(index)) >= since
  }

  #mayBeLive(segment: Segment, index: number): boolean {
    return segment.first + index >= this.#started && ((segment.notes[index] ?? 0) & NOTE_LIVE) !== 0
  }

  /** The first entry of the backlog: as `nextReady`, as far as the live cursor has passed. */
  nextBacklog(): Segment | null {
    const segment = this.nextReady()
    if (segment === null || this.hasBacklog) return segment
    // All before it has been delivered.
    this.#delivered = Math.max(this.#delivered, segment.first + this.#entry)
    return null
  }

  /** Something of the backlog is ready, and in memory. */
  get hasBacklog(): boolean {
    const segment = this.#seekReady()
    return segment !== null && segment.first + this.#entry < this.#live
  }

  /** All live messages have been handed out. */
  get isLiveOut(): boolean {
    return this.#live === this.#nextPosition
  }

  /** Moves the cursor to the first ready entry, which is the oldest. Null: there is none, or it is on disk only and now being read. */
  #seekReady(): Segment | null {
    if (this.ready === 0) return null
    if (this.#aside.ready > 0) this.#bringBack()
    while (this.#cursor < this.#head) {
      const segment = this.#segments[this.#cursor]
      if (segment === undefined) break
      while (this.#entry < segment.count) {
        if ((segment.statusAt(this.#entry) & NOT_READY) === 0) {
          if (this.#gapLast !== null) this.#readAheadOf(segment)
          return segment
        }
        this.#entry++
      }
      if (this.#cursor === this.#segments.length - 1 && this.#gapLast === null) return null
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

  /** Whether a message that is ready, on disk or in memory, was delivered before. */
  wasDelivered(position: number): boolean {
    return position < this.#delivered || this.#tried.get(position) !== undefined
  }

  /** Where the lane goes on, from a position on, with what is on disk only; null: nowhere. */
  placeOnDisk(from: number): number | null {
    if (this.#gapLast === null) return null
    const place = Math.max(from, this.#segments[this.#head - 1]?.end ?? 0)
    return place < (this.#segments[this.#head]?.first ?? this.#nextPosition) ? place : null
  }

  /** Puts the entry that was found last in flight to the consumer in `slot`; returns its index. */
  handOut(segment: Segment, slot: number): number {
    const index = this.#found
    segment.status[index] = segment.statusAt(index) | IN_FLIGHT
    segment.owners[index] = slot
    segment.inFlight++
    this.ready--
    const end = segment.first + index + 1
    if (this.#isFoundLive) this.#live = end
    const isOvertaking = this.#isFoundLive && this.ready > 0 && end > this.#delivered + 1
    // What it overtakes has not been delivered.
    if (end > this.#delivered && !isOvertaking) {
      this.#delivered = end
      if (segment.ref !== null && !this.#isDeliveredDue) {
        this.#isDeliveredDue = true
        this.#owner.marksChanged()
      }
    }
    return index
  }

  /** How often the message was delivered before. */
  attemptsAt(segment: Segment, index: number): number {
    if ((segment.statusAt(index) & REDELIVERED) === 0) return 0
    return this.#tried.get(segment.first + index)?.deliveries ?? 1
  }

  /** What is known of earlier deliveries of a message; undefined: nothing. */
  triedAt(segment: Segment, index: number): Tried | undefined {
    return (segment.statusAt(index) & REDELIVERED) === 0 ? undefined : this.#tried.get(segment.first + index)
  }

  /** The same, to be written to; it is kept on disk once `failures` is above 0. */
  trying(segment: Segment, index: number): Tried {
    const position = segment.first + index
    const known = this.#tried.get(position)
    if (known !== undefined) return known
    const tried = this.#tried.add(position, this.attemptsAt(segment, index))
    segment.status[index] = segment.statusAt(index) | REDELIVERED
    return tried
  }

  /** The segment of a delivery that is neither ended nor given back; null: there is none. */
  inFlightAt(position: number): Segment | null {
    const segment = this.segmentOf(position)
    return segment !== null && (segment.statusAt(position - segment.first) & IN_FLIGHT) !== 0 ? segment : null
  }

  isInFlight(segment: Segment, index: number): boolean {
    return (segment.statusAt(index) & IN_FLIGHT) !== 0
  }

  /** Ends a message, in flight or the one `nextReady` found: whoever published it need not wait any more. */
  end(segment: Segment, index: number): void {
    this.#finish(segment, index)
  }

  /** Ends a message that another queue has taken over: whoever published it is told when that one has written it. */
  move(segment: Segment, index: number): void {
    if (segment.isPassing) this.#refuse(segment, index)
    segment.status[index] = segment.statusAt(index) & ~TICKETED
    this.#finish(segment, index)
  }

  /** Puts a delivery back to its place. */
  giveBack(segment: Segment, index: number): void {
    this.trying(segment, index).deliveries++
    this.#returned(segment, index)
    this.ready++
    this.#lookAgainAt(segment, index)
    if (this.#mayBeLive(segment, index)) this.#live = Math.min(this.#live, segment.first + index)
  }

  /** Nobody gets a message, in flight or the one `nextReady` found, before it is woken. */
  wait(segment: Segment, index: number, pauseMs: number): void {
    this.trying(segment, index).pauseMs = pauseMs
    if ((segment.statusAt(index) & IN_FLIGHT) === 0) this.ready--
    else this.#returned(segment, index)
    segment.status[index] = segment.statusAt(index) | WAITING
    segment.waiting++
  }

  #returned(segment: Segment, index: number): void {
    segment.status[index] = segment.statusAt(index) & ~IN_FLIGHT
    segment.owners[index] = 0
    segment.inFlight--
    if (!segment.isPassing && this.#tried.note(segment.first + index)) this.#owner.marksChanged()
  }

  /** A message that waited is ready. One that is gone is ignored. */
  wake(position: number): void {
    const tried = this.#tried.get(position)
    if (tried === undefined || tried.pauseMs === 0) return
    tried.pauseMs = 0
    this.ready++
    const segment = this.segmentOf(position)
    if (segment !== null) {
      const index = position - segment.first
      segment.status[index] = segment.statusAt(index) & ~WAITING
      segment.waiting--
      this.#lookAgainAt(segment, index)
      return
    }
    const aside = this.#aside.of(position)
    if (aside === undefined) return
    this.#aside.wake(aside)
    this.#bringBack()
  }

  #lookAgainAt(segment: Segment, index: number): void {
    const at = this.#segments.indexOf(segment)
    if (at < this.#cursor || (at === this.#cursor && index < this.#entry)) {
      this.#cursor = at
      this.#entry = index
    }
  }

  /** Calls `each` with all that is in flight to the consumer in `slot`, in order; it ends it, gives it back or lets it wait. */
  eachOf(slot: number, each: (segment: Segment, index: number) => void): void {
    // What is ended may take its segment out of the row.
    for (const segment of this.#segments.filter(({ inFlight }) => inFlight > 0)) {
      for (let i = 0; i < segment.count && segment.inFlight > 0; i++) {
        if ((segment.statusAt(i) & IN_FLIGHT) !== 0 && segment.owners[i] === slot) each(segment, i)
      }
    }
  }

  /** Calls `each` with what is ready and in memory, in order from a position on, until it returns false; it may end it. */
  eachReady(from: number, each: (segment: Segment, index: number) => boolean): void {
    // What is ended may take its segment out of the row.
    for (const segment of this.#segments.filter(({ end, live }) => end > from && live > 0)) {
      const first = Math.max(segment.firstLive(), from - segment.first)
      for (let i = first; i < segment.count && segment.live > 0; i++) {
        if ((segment.statusAt(i) & NOT_READY) === 0 && !each(segment, i)) return
      }
    }
  }

  /** The segment of the youngest message, at its end; null: it is done already, or on disk only. */
  get newest(): Segment | null {
    const last = this.#segments.at(-1)
    return last !== undefined && last.end === this.#nextPosition && (last.statusAt(last.count - 1) & NOT_READY) === 0
      ? last
      : null
  }

  /** Ends all ready messages in memory before `through`; returns how many. */
  dropReady(through: number): number {
    const before = this.ready
    for (let segment = this.nextReady(); segment !== null; segment = this.nextReady()) {
      if (segment.first + this.#entry >= through) break
      this.end(segment, this.#entry)
    }
    return before - this.ready
  }

  /** Whether all messages before `through` are in memory. */
  isReadThrough(through: number): boolean {
    if (this.#aside.ready > 0) return false
    return this.#gapLast === null || (this.#segments[this.#head - 1]?.end ?? 0) >= through
  }

  /** The consumer has made the message safe: its publisher may be told. Called before `end`. */
  confirm(segment: Segment, index: number): void {
    const status = segment.statusAt(index)
    if (!segment.isPassing || (status & TICKETED) === 0) return
    segment.status[index] = status & ~TICKETED
    this.#durability?.tickets.confirm(segment.tickets[index] ?? 0)
  }

  /** Its publisher was refused after `ack_timeout`: it must not be delivered (again). */
  isWithdrawn(segment: Segment, index: number): boolean {
    return segment.isPassing && (segment.statusAt(index) & TICKETED) === 0
  }

  /**
   * Refuses the publishers of passing messages accepted at or before `acceptedAt` and ends those messages, but not what is in flight: that can't be taken back, and
   * is ended when it is settled or comes back. Returns how many were ended.
   */
  withdraw(acceptedAt: number): number {
    let ended = 0
    // What is ended may take its segment out of the row.
    for (const segment of this.#segments.filter(({ isPassing }) => isPassing)) {
      for (let i = segment.firstLive(); i < segment.count && segment.live > 0; i++) {
        const status = segment.statusAt(i)
        if ((status & DONE) !== 0) continue
        if (recordAcceptedAt(segment.bytes, segment.offsetAt(i)) > acceptedAt) return ended
        this.#refuse(segment, i)
        if ((status & IN_FLIGHT) !== 0) continue
        if ((status & WAITING) !== 0) this.wake(segment.first + i)
        ended++
        this.#finish(segment, i)
      }
    }
    return ended
  }

  #refuse(segment: Segment, index: number): void {
    const status = segment.statusAt(index)
    if ((status & TICKETED) === 0) return
    segment.status[index] = status & ~TICKETED
    this.#durability?.tickets.refuse(segment.tickets[index] ?? 0)
  }

  /** Monotonic milliseconds at which the oldest passing message was accepted whose publisher still waits; Infinity: there is none. */
  get oldestPassing(): number {
    for (const segment of this.#segments) {
      if (!segment.isPassing) continue
      for (let i = segment.firstLive(); i < segment.count; i++) {
        if ((segment.statusAt(i) & TICKETED) !== 0) return recordAcceptedAt(segment.bytes, segment.offsetAt(i))
      }
    }
    return Number.POSITIVE_INFINITY
  }

  /** An entry needs no delivery any more, for whatever reason. */
  #finish(segment: Segment, index: number): void {
    const status = segment.statusAt(index)
    if (segment.isPassing) this.#refuse(segment, index)
    segment.status[index] = (status & SHARED) | DONE
    segment.live--
    this.live--
    if ((status & IN_FLIGHT) === 0) this.ready--
    else segment.inFlight--
    if ((status & REDELIVERED) !== 0) this.#tried.forget(segment.first + index)
    const length = segment.recordBytesAt(index)
    this.bytes -= length
    if (segment.isPassing) {
      this.passing--
      this.passingBytes -= length
      this.#owner.figuresChanged()
    } else if (this.#durability !== null) {
      if (segment.ref === null) {
        this.unwritten--
        this.unwrittenBytes -= length
        if ((status & TICKETED) !== 0) this.#durability.tickets.settle(segment.tickets[index] ?? 0)
        this.#owner.figuresChanged()
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
    this.#owner.marksChanged()
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
      this.#complete(segment, segment.ref)
      segment.isMarked = false
      // What lies before and behind it may leave memory, and be read again before these marks are on disk.
      if (index > this.#cursor) this.#sifted.set(refKey(segment.ref), { segment, isChanged: true })
    }
    this.#remove(index)
  }

  #complete(segment: Segment, ref: SegmentRef): void {
    const queue = this.#durability?.number ?? 0
    this.#completed.push({ queue, ref, settled: segment.settledBitmap(), isComplete: true })
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

  /** The segment in memory that has this position; null: none. */
  segmentOf(position: number): Segment | null {
    const segment = this.#segments[this.#indexFrom(position)]
    return segment !== undefined && segment.first <= position ? segment : null
  }

  /** Index of the first segment in memory that does not end before a position. */
  #indexFrom(position: number): number {
    let low = 0
    let high = this.#segments.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.#segments[middle]?.end ?? 0) > position) high = middle
      else low = middle + 1
    }
    return low
  }

  /** Shows messages in order until `visit` returns false. Nothing changes. @throws BrokerError STOPPING */
  async peek(visit: (bytes: Buffer, at: number, seen: Peeked) => boolean): Promise<void> {
    this.#peeks++
    try {
      await this.#peek(visit)
    } finally {
      this.#peeks--
      this.#forgetSifted()
    }
  }

  async #peek(visit: (bytes: Buffer, at: number, seen: Peeked) => boolean): Promise<void> {
    let isWanted = true
    /** Position behind what was shown: the lane goes on while the disk is read, and its segments may move between memory and disk. */
    let next = 0
    const show = (segment: Segment): void => {
      for (let i = Math.max(0, next - segment.first); i < segment.count && isWanted; i++) {
        const status = segment.statusAt(i)
        if ((status & DONE) !== 0) continue
        isWanted = visit(segment.bytes, segment.offsetAt(i), {
          position: segment.first + i,
          isInFlight: (status & IN_FLIGHT) !== 0,
          isWaiting: (status & WAITING) !== 0,
          attempts: this.attemptsAt(segment, i),
        })
      }
      next = Math.max(next, segment.end)
    }
    // Of a budget of its own: a look must not press on limits.memory.
    const showLoaded = (found: LoadedSegment): void => {
      const sifted = this.#sifted.get(refKey(found.ref))
      const segment = sifted?.segment ?? Segment.loaded(found, new MemoryBudget(Number.POSITIVE_INFINITY))
      this.#recall(segment)
      show(segment)
    }
    for (;;) {
      const aside = this.#aside.from(next)
      if (aside === undefined || !isWanted) break
      for (const segment of this.#segments.slice(0, this.#head)) if (segment.first < aside.first) show(segment)
      const [found] = await this.#read(before(aside.ref), 1)
      if (found !== undefined && found.first === aside.first) showLoaded(found)
      next = Math.max(next, aside.end)
    }
    for (const segment of this.#segments.slice(0, this.#head)) show(segment)
    let after = this.#readAfter
    for (;;) {
      const last = this.#gapLast
      if (!isWanted || last === null || (after !== null && !isAfter(last, after))) break
      const loaded = await this.#read(after, READ_BYTES)
      // What left memory while this was read lies behind `last`, and is perhaps not in it: its turn comes next.
      const inGap = loaded.filter(({ ref }) => !isAfter(ref, last))
      for (const found of inGap) showLoaded(found)
      after = inGap.at(-1)?.ref ?? last
    }
    // What is unwritten is in memory only.
    for (const segment of this.#segments) show(segment)
  }

  /** So many ready messages left the front on disk, in whole segments whose marks the owner commits. */
  forget(messages: number, bytes: number): void {
    this.live -= messages
    this.ready -= messages
    this.bytes -= bytes
  }

  /**
   * Goes on from `from` through messages that are ready, about READ_BYTES of them. What is on disk only is read apart and leaves memory again, so that a row of any
   * length can be gone through. Resolves with where to go on; null: there is no more.
   * @throws BrokerError if what is on disk cannot be read now.
   */
  async sift(from: number, judge: Judge): Promise<number | null> {
    for (;;) {
      const s = this.#segments.findIndex(({ end }) => end > from)
      const segment = this.#segments[s]
      if (this.#gapLast === null || (segment !== undefined && (s < this.#head || segment.first <= from))) {
        return segment === undefined ? null : this.#siftSegment(segment, from, judge)
      }
      if (this.#reading === null) return this.#siftGap(from, judge)
      await this.#reading
    }
  }

  /** Nothing else reads meanwhile. */
  async #siftGap(from: number, judge: Judge): Promise<number | null> {
    const { promise, resolve } = Promise.withResolvers<boolean>()
    this.#reading = promise
    this.#isSifting = true
    const last = this.#gapLast
    try {
      const place = (await this.#durability?.store.seekPosition(this.#durability.number, from)) ?? null
      const isInGap = place !== null && (this.#readAfter === null || isAfter(place, this.#readAfter))
      const loaded = await this.#readBehind(isInGap ? place : this.#readAfter, from)
      const next = this.#siftLoaded(loaded, last, from, judge)
      if (next !== null) return next
      // What has left memory meanwhile is in the gap now.
      return this.#gapLast === last ? (this.#segments[this.#head]?.first ?? null) : from
    } finally {
      this.#isSifting = false
      this.#reading = null
      resolve(true)
      this.#owner.loaded()
    }
  }

  /** The first part behind `after` in which something is not before `from`; [] at the end. */
  async #readBehind(after: SegmentRef | null, from: number): Promise<LoadedSegment[]> {
    for (let behind = after; ; ) {
      const loaded = await this.#read(behind, READ_BYTES)
      const last = loaded.at(-1)
      if (last === undefined || last.first + last.count > from) return loaded
      behind = last.ref
    }
  }

  /** Only what was in the gap, up to `last`, when it was read (#insert). Null: nothing of it lies behind `from`. */
  #siftLoaded(loaded: readonly LoadedSegment[], last: SegmentRef | null, from: number, judge: Judge): number | null {
    let next: number | null = null
    for (const found of loaded) {
      const end = found.first + found.count
      if (last === null || isAfter(found.ref, last)) break
      if (end <= from) continue
      next = this.#siftApart(found, Math.max(from, found.first), judge)
      if (next < end) break
    }
    return next
  }

  #siftApart(found: LoadedSegment, from: number, judge: Judge): number {
    const key = refKey(found.ref)
    const known = this.#sifted.get(key)?.segment
    const segment = known ?? Segment.loaded(found, this.#memory)
    this.#recall(segment)
    const { live } = segment
    const next = this.#siftSegment(segment, from, judge)
    if (segment.live < live) {
      this.#sifted.set(key, { segment, isChanged: true })
      if (segment.live === 0) {
        this.#complete(segment, found.ref)
        segment.isMarked = false
      }
    } else if (known === undefined) {
      segment.release()
    }
    return next
  }

  #siftSegment(segment: Segment, from: number, judge: Judge): number {
    const { first, end } = segment
    for (let position = Math.max(from, first); position < end; position++) {
      const index = position - first
      if ((segment.statusAt(index) & NOT_READY) !== 0) continue
      const verdict = judge(segment.bytes, segment.offsetAt(index), position)
      if (verdict === 'stop') return position
      if (verdict === 'keep') continue
      const isLast = segment.live === 1
      if (verdict === 'moved') this.move(segment, index)
      else this.end(segment, index)
      // The last one takes the segment with it.
      if (isLast) break
    }
    return end
  }

  /** What the sifts took out is known on disk: from there it may be read again, but for what is being read as it was before. */
  #forgetSifted(): void {
    if (this.#reading !== null || this.#peeks > 0 || this.#isCommitting) return
    for (const [key, { segment, isChanged }] of this.#sifted) {
      if (isChanged) continue
      this.#sifted.delete(key)
      segment.release()
    }
  }

  /** Forgets everything and gives its memory back. */
  clear(): void {
    for (const segment of this.#segments) segment.release()
    for (const { segment } of this.#sifted.values()) segment.release()
    this.#sifted.clear()
    this.#segments = []
    this.#tried.clear()
    this.#aside.clear()
    this.#head = 0
    this.#cursor = 0
    this.#entry = 0
    this.live = 0
    this.ready = 0
    this.bytes = 0
    this.unwritten = 0
    this.unwrittenBytes = 0
  }

  // ---- disk

  /** One that was in memory only is kept on disk from now on; the next commit writes what is in it. */
  keep(durability: LaneDurability): void {
    this.#durability = durability
    this.#tried.keep()
    // Publishers were told long ago.
    for (const segment of this.#segments) segment.forgetTickets()
    this.unwritten = this.live
    this.unwrittenBytes = this.bytes
  }

  isDueThrough(ticket: number, withMarks: boolean): boolean {
    if (withMarks && this.#hasMarks) return true
    if (this.unwritten === 0) return false
    for (let s = this.#firstUnwritten(); s < this.#segments.length; s++) {
      const segment = this.#segments[s]
      if (segment === undefined) break
      const end = segment.live === 0 || segment.isPassing ? 0 : segment.indexAfterTicket(ticket)
      for (let i = 0; i < end; i++) if ((segment.statusAt(i) & DONE) === 0) return true
    }
    return false
  }

  get #hasMarks(): boolean {
    if (this.#completed.length > 0 || this.#isDeliveredDue || this.#tried.hasChanged) return true
    return this.#marked.some(({ isMarked, ref }) => isMarked && ref !== null)
  }

  /** Adds what is unwritten up to `throughTicket`, and changed marks, to the commit. */
  prepareCommit(throughTicket: number, commit: Commit, commitNumber: number): void {
    if (this.#durability === null) return
    const { number } = this.#durability
    this.#isCommitting = true
    let part = 0
    for (let s = this.#firstUnwritten(); s < this.#segments.length; s++) {
      let segment = this.#segments[s]
      if (segment === undefined) break
      if (segment.isPassing) continue
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
      const write = segment.toWrite(number, part)
      segment.ref = { commit: commitNumber, part }
      this.#last = segment.ref
      this.#expectedBytes = segment.used
      part++
      this.#committing.push(segment)
      commit.segments.push(write)
      for (let i = 0; i < segment.count; i++) {
        if ((segment.statusAt(i) & DONE) !== 0) continue
        const length = segment.recordBytesAt(i)
        this.unwritten--
        this.unwrittenBytes -= length
        commit.acceptedBytes += length
      }
      if (cut < segment.count) break
    }
    for (const segment of this.#marked) {
      if (!segment.isMarked || segment.ref === null) continue
      segment.isMarked = false
      commit.marks.push({ queue: number, ref: segment.ref, settled: segment.settledBitmap(), isComplete: false })
    }
    this.#marked = []
    commit.marks.push(...this.#completed)
    this.#completed = []
    for (const sifted of this.#sifted.values()) sifted.isChanged = false
    this.#isDeliveredDue = false
    this.#tried.prepareCommit(number, commit.changes, position => this.segmentOf(position)?.ref === null)
  }

  /** The commit it was part of has returned. */
  committed(): void {
    const written = this.#committing
    this.#committing = []
    this.#isCommitting = false
    for (const segment of written) {
      segment.isCommitted = true
      if (segment.live === 0) this.#retire(segment)
    }
    if (this.#completed.length > 0) this.#owner.marksChanged()
    this.#forgetSifted()
    this.#evict()
  }

  #firstUnwritten(): number {
    let s = this.#segments.length
    while (s > 0 && this.#segments[s - 1]?.ref === null) s--
    return s
  }

  /** Lets go of what the disk has, but for what is about to be delivered. */
  evict(): void {
    if (!this.#isCommitting) this.#evictTo(0)
  }

  #evict(): void {
    this.#evictTo(this.#memory.isTight ? TIGHT_WINDOW_BYTES : WINDOW_BYTES)
  }

  #evictTo(window: number): void {
    if (this.#durability === null) return
    if (this.#tried.size > 0) this.#setAside(window)
    if (this.#keeps === 'back') this.#evictFront(window)
    else this.#evictBack(window)
  }

  #evictFront(window: number): void {
    let held = this.heldBytes
    for (;;) {
      const segment = this.#segments[0]
      if (held <= window || segment === undefined || segment.ref === null || !this.#isEvictable(segment)) return
      held -= segment.heldBytes
      this.#gapLast = segment.ref
      this.#head = 0
      this.#segments.shift()
      segment.release()
    }
  }

  /** Lets go of written segments beyond the window: right behind the gap, or behind the head where a gap may begin. */
  #evictBack(window: number): void {
    const keptFrom = this.#keptFrom(window)
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
      if (first === undefined || first.first >= keptFrom || !this.#isEvictable(first) || first.ref === null) return
      this.#head = s
      this.#readAfter = before(first.ref)
      this.#gapLast = first.ref
    }
    for (;;) {
      const segment = this.#segments[this.#head]
      if (segment === undefined || segment.first >= keptFrom || segment.ref === null) return
      if (!this.#isEvictable(segment)) return
      this.#gapLast = segment.ref
      this.#segments.splice(this.#head, 1)
      segment.release()
    }
  }

  /** Where the segments begin that are kept because live messages are delivered from them, as far as the window goes: a position; Infinity: there is none. */
  #keptFrom(window: number): number {
    let from = Number.POSITIVE_INFINITY
    let held = 0
    for (let s = this.#segments.length - 1; this.keepsLive && s >= 0; s--) {
      const segment = this.#segments[s]
      if (segment === undefined || segment.end <= this.#live) break
      held += segment.heldBytes
      if (held > window) break
      from = segment.first
    }
    return from
  }

  #isEvictable(segment: Segment): boolean {
    return segment.isCommitted && !segment.isMarked && segment.inFlight === 0
  }

  /** Lets go of what only waits, as far as the head is beyond the window. */
  #setAside(window: number): void {
    let held = 0
    for (let s = 0; s < this.#head; s++) held += this.#segments[s]?.heldBytes ?? 0
    for (let s = 0; s < this.#cursor && held > window; s++) {
      const segment = this.#segments[s]
      if (segment === undefined) return
      const { ref, first, end, live } = segment
      if (ref === null || segment.waiting < live || !this.#isEvictable(segment)) continue
      held -= segment.heldBytes
      this.#aside.add({ ref, first, end, live, bytes: segment.liveBytes(), ready: 0 })
      this.#remove(s)
      s--
    }
  }

  /** Reads back the first segment aside of which something was woken, unless that is being done. */
  #bringBack(): void {
    this.#bringing ??= this.#readAside()
  }

  /** False: it cannot be read now. Never rejects. */
  async #readAside(): Promise<boolean> {
    const aside = this.#aside.woken()
    const loaded = await this.#tryToRead(aside === undefined ? null : before(aside.ref), 1)
    this.#bringing = null
    if (loaded === null) return false
    if (aside === undefined || !this.#aside.remove(aside)) return true
    const [found] = loaded
    if (found === undefined || found.first !== aside.first) this.#loseAside(aside)
    else this.#putBack(found)
    this.#owner.loaded()
    return true
  }

  #putBack(found: LoadedSegment): void {
    if (found.damaged > 0) this.#bookDamage(found)
    const segment = Segment.loaded(found, this.#memory)
    this.#recall(segment)
    if (segment.live === 0) {
      this.#complete(segment, found.ref)
      segment.release()
      this.#owner.marksChanged()
      return
    }
    let at = this.#segments.findIndex(({ first }) => first > segment.first)
    if (at < 0 || at > this.#head) at = this.#head
    this.#segments.splice(at, 0, segment)
    this.#head++
    if (at <= this.#cursor) {
      this.#cursor = at
      this.#entry = 0
    }
    if (found.damaged > 0) this.#mark(segment)
  }

  /** It is not on disk any more. */
  #loseAside({ first, end, live, bytes }: Aside): void {
    for (let position = first; position < end; position++) {
      const tried = this.#tried.get(position)
      if (tried === undefined) continue
      if (tried.pauseMs === 0) this.ready--
      this.#tried.forget(position)
    }
    this.#lost(live)
    this.bytes -= bytes
  }

  /** Marks in a segment that was read, now or for a sift, what is known of its messages' deliveries. */
  #recall(segment: Segment): void {
    if (this.#tried.size === 0 && segment.first >= this.#delivered) return
    for (let i = 0; i < segment.count; i++) {
      const position = segment.first + i
      const tried = this.#tried.get(position)
      if ((segment.statusAt(i) & DONE) !== 0) continue
      if (tried === undefined && position >= this.#delivered) continue
      const isWaiting = tried !== undefined && tried.pauseMs > 0
      const status = segment.statusAt(i)
      if (isWaiting !== ((status & WAITING) !== 0)) segment.waiting += isWaiting ? 1 : -1
      segment.status[i] = (status & ~WAITING) | REDELIVERED | (isWaiting ? WAITING : 0)
    }
  }

  /** Reads the next part of what is on disk only. 'none': all is in memory; 'unreadable': it cannot be read now. */
  async readMore(): Promise<'read' | 'none' | 'unreadable'> {
    if (this.#aside.ready > 0) {
      this.#bringBack()
      return (await this.#bringing) === false ? 'unreadable' : 'read'
    }
    while (this.#isSifting) await this.#reading
    if (this.#gapLast === null) return 'none'
    this.#readOn()
    return (await this.#reading) === false ? 'unreadable' : 'read'
  }

  /** Nothing of the front is in memory. */
  get isFrontAway(): boolean {
    return this.#gapLast !== null && this.#head === 0
  }

  /** Reads the first segment if nothing of the front is in memory, so that its age can be told before anybody consumes. False: there is none to read. */
  lookAtFront(): boolean {
    if (!this.isFrontAway) return false
    this.#readOn(1)
    return true
  }

  /** Lets go of what is in memory of the front, if the disk knows all about it. */
  letGoOfFront(): void {
    const front = this.#segments.slice(0, this.#gapLast === null ? this.#firstUnwritten() : this.#head)
    const [first] = front
    const isBusy = this.#isCommitting || this.#completed.length > 0 || this.#aside.count > 0 || this.#reading !== null
    if (isBusy || !first?.ref || !front.every(segment => this.#isEvictable(segment))) return
    this.#readAfter = before(first.ref)
    this.#gapLast ??= front.at(-1)?.ref ?? null
    this.#segments.splice(0, front.length)
    this.#head = 0
    this.#cursor = 0
    this.#entry = 0
    for (const segment of front) segment.release()
  }

  /** Reads the next part of the gap into the head, unless that is being done. */
  #readOn(maxBytes = READ_BYTES): void {
    this.#reading ??= this.#readNext(maxBytes)
  }

  /** False: it cannot be read now. Never rejects. */
  async #readNext(maxBytes: number): Promise<boolean> {
    let last: SegmentRef | null = null
    const loaded = await this.#memory.read(() => {
      last = this.#gapLast
      return this.#tryToRead(this.#readAfter, maxBytes)
    })
    this.#reading = null
    if (loaded === null) return false
    if (last !== null) this.#insert(loaded, last)
    this.#owner.loaded()
    return true
  }

  /** @throws BrokerError STOPPING */
  async #read(after: SegmentRef | null, maxBytes: number): Promise<LoadedSegment[]> {
    return (await this.#durability?.store.segments(this.#durability.number, after, maxBytes)) ?? []
  }

  /** Null: the store is being reopened after an I/O error, or closed; the next pump asks again. */
  async #tryToRead(after: SegmentRef | null, maxBytes: number): Promise<LoadedSegment[] | null> {
    try {
      return await this.#read(after, maxBytes)
    } catch {
      return null
    }
  }

  /**
   * `last` was the last segment in the gap when they were read. What has left memory since lies behind it, and was perhaps read as it was before its marks were
   * written: it is read again.
   */
  #insert(loaded: readonly LoadedSegment[], last: SegmentRef): void {
    for (const found of loaded) {
      if (isAfter(found.ref, last)) break
      this.#readAfter = found.ref
      if (found.damaged > 0) this.#bookDamage(found)
      const sifted = this.#sifted.get(refKey(found.ref))
      this.#sifted.delete(refKey(found.ref))
      if (sifted?.segment.live === 0) {
        sifted.segment.release()
        continue
      }
      const segment = sifted?.segment ?? Segment.loaded(found, this.#memory)
      this.#recall(segment)
      if (segment.live > 0) {
        this.#segments.splice(this.#head, 0, segment)
        this.#head++
        if (found.damaged > 0) this.#mark(segment)
      } else {
        this.#complete(segment, found.ref)
        segment.release()
        this.#owner.marksChanged()
      }
    }
    if (this.#gapLast !== last) return
    if (loaded.length === 0 || (this.#readAfter !== null && !isAfter(last, this.#readAfter))) {
      this.#gapLast = null
      this.#readAfter = null
      this.#head = this.#segments.length
      this.#reconcile()
    }
  }

  #bookDamage(found: LoadedSegment): void {
    this.ready -= found.damaged
    for (let i = 0; i < found.count && this.#tried.size > 0; i++) {
      const tried = found.offsets[i] === ABSENT ? this.#tried.get(found.first + i) : undefined
      if (tried === undefined) continue
      // What waits is not counted as ready.
      if (tried.pauseMs > 0) this.ready++
      this.#tried.forget(found.first + i)
    }
    this.bytes -= found.damagedBytes
    this.#lost(found.damaged)
  }

  #lost(count: number): void {
    this.live -= count
    this.#owner.lost(count)
  }

  /**
   * All there is is in memory now: the figures are set right. What they promise beyond it was lost to damage that left no trace to
   * be counted by.
   */
  #reconcile(): void {
    let ready = 0
    let bytes = 0
    for (const segment of this.#segments) {
      ready += segment.live - segment.inFlight - segment.waiting
      bytes += segment.liveBytes()
    }
    for (const aside of this.#aside) {
      ready += aside.ready
      bytes += aside.bytes
    }
    let gone = Math.max(0, this.ready - ready)
    this.ready -= gone
    for (const [position] of this.#tried.waiting()) {
      if (this.segmentOf(position) !== null || this.#aside.of(position) !== undefined) continue
      this.#tried.forget(position)
      gone++
    }
    if (gone > 0) this.#lost(gone)
    if (gone > 0 || bytes !== this.bytes) this.#owner.figuresChanged()
    this.bytes = bytes
  }
}

const refKey = ({ commit, part }: SegmentRef): string => `${commit}/${part}`

const before = (ref: SegmentRef): SegmentRef =>
  ref.part > 0 ? { commit: ref.commit, part: ref.part - 1 } : { commit: ref.commit - 1, part: 0xffff }

export const isAfter = (a: SegmentRef, b: SegmentRef): boolean =>
  a.commit > b.commit || (a.commit === b.commit && a.part > b.part)
