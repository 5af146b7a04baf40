/*
 * A stream: messages in order that are read by cursor and forgotten by retention, not by settling.
 *
 * Invariants
 * - Taking, committing and letting go of memory are the lane's, as for a queue; it keeps its back, where the stream grows, so that readers who keep up
 *   never touch the disk. What lies before that is read by page, for all readers together.
 * - Positions are the sequence numbers users see. They rise by one; those a crash took before they were written are not used again.
 * - Retention forgets whole segments from the front, by the index alone. What is forgotten is `expired` in the ledger, what is kept is `queued`.
 * - A cursor is written with the next commit. It may lag behind what was settled, never run ahead: after a crash messages come again, none is left out.
 *
 * Operations: take → pump (readers at the end) → settle moves a cursor; prepareCommit/committed by the commit schedule; retain from time to time.
 */

import { historyOf, type Moment } from '../model/death-history.ts'
import { BrokerError } from '../model/error.ts'
import { type Acceptance, type RecordPrefix, recordAcceptedAt, recordBoot, recordLength } from '../model/message.ts'
import type { QueuePolicy } from '../model/queue-policy.ts'
import type { ReadFrom } from '../model/read-from.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import {
  ABSENT,
  type Commit,
  type LoadedSegment,
  type SegmentInfo,
  type SegmentMarks,
  type SegmentRef,
} from '../store/types.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import type { Consumer } from './consumer.ts'
import type { Keeper } from './keeper.ts'
import { isAfter, Lane, type LaneOwner } from './lane.ts'
import { type DropReason, Ledger, type PersistentFigures } from './ledger.ts'
import { encodeLedgerRecord } from './ledger-record.ts'
import type { MemoryBudget } from './memory.ts'
import { momentOf } from './moment.ts'
import { Owed } from './owed.ts'
import { DONE, type Segment, SHARED } from './segment.ts'
import { PAGE_BYTES, StreamPages } from './stream-pages.ts'
import { StreamReader, type StreamSource } from './stream-reader.ts'
import type { Tickets } from './tickets.ts'

/** What is kept: while it is younger than `ageMs` (Infinity: whatever its age), and the newest `bytes`. */
export interface Retention {
  readonly ageMs: number
  readonly bytes: number
}

export interface StreamOptions {
  readonly name: string
  readonly retention: Retention
  readonly ack: StreamAck
}

export type StreamAck = Exclude<QueuePolicy['ack'], 'upstream'>

/** What a stream needs of the rest of the core. */
export interface StreamParts {
  /** Its number in the store. */
  readonly number: number
  readonly store: Pick<Store, 'segments' | 'segmentInfos' | 'seekPosition' | 'seekRecord' | 'boots'>
  readonly schedule: CommitSchedule
  readonly tickets: Tickets
  readonly memory: MemoryBudget
  readonly monotonicMs: () => number
  /** How long ago a record entered the stream. */
  readonly ageMs: (bytes: Buffer, at: number) => number
  /** Key of its ledger record in the store's state. */
  readonly ledgerKey: Buffer
}

/** As the disk remembers it. */
export interface StoredStream {
  readonly figures: PersistentFigures
  readonly bytes: number
  readonly first: number
  readonly nextPosition: number
  /** Its newest segment; null: none. */
  readonly last: SegmentRef | null
  readonly owed: number
  readonly cursors: ReadonlyMap<string, number>
}

/** One record in stored form beginning at `at`, valid during the call; false ends the visit. */
export type StreamVisitor = (bytes: Buffer, at: number, position: number) => boolean

/** Cursors kept of one stream. A reader of a further name is refused until one is forgotten. */
const MAX_CURSORS = 10_000
/** Age is looked at again after this share of what is kept: half an hour of three weeks. */
const AGE_CHECK_SHARE = 1 / 1000
/** Segments are forgotten as a whole, so their marks say nothing more. */
const ALL = new Uint8Array(0)

export class Stream implements Keeper, LaneOwner, StreamSource {
  readonly name: string
  readonly ledger: Ledger
  /** Sequence numbers readers asked for after they had been forgotten, since this start. */
  missed = 0
  readonly isDurable = true
  readonly qos0 = 'buffer'
  /** buffered: publishers are acknowledged before the message is written, within what may be owed (owed.ts). May be changed while running. */
  ack: StreamAck
  /** How many messages acknowledged before they were written the last end of the process may have cost. */
  readonly lostAtMost: number
  readonly isAttended = true
  readonly noteNow = 0
  /** Retention makes room, so it never refuses. */
  readonly limits = { onFull: 'drop_oldest' } as const
  /** Nobody settles before the disk has it: every message is due at once. */
  readonly isCaughtUp = false
  readonly settleTimeP95Ms = Number.POSITIVE_INFINITY

  #retention: Retention
  readonly #parts: StreamParts
  readonly #lane: Lane
  readonly #pages: StreamPages
  readonly #owed: Owed
  /** Messages in the commit under way. */
  #beingWritten = 0
  readonly #cursors: Map<string, number>
  readonly #readers = new Set<StreamReader>()
  /** Readers whose cursor is to be written. */
  readonly #moved = new Set<StreamReader>()
  /** Marks to be written, by segment. */
  #marks = new Map<string, SegmentMarks>()
  #isCommittingMarks = false
  /** Segments whose damage is booked and perhaps not yet marked. */
  readonly #damaged = new Set<string>()
  #first: number
  /** One page is brought after the other, so that any number of readers takes no more memory than one. */
  #turn: Promise<unknown> = Promise.resolve()
  #isRetaining = false
  /** More may have come, perhaps while it retains. */
  #isRetainDue = false
  /** Nothing of it is written any more. */
  #isEmptied = false
  /** Nothing is over age before then, monotonic milliseconds. */
  #nextAgeCheckMs = 0
  #visits = 0

  constructor({ name, retention, ack }: StreamOptions, parts: StreamParts, stored: StoredStream) {
    this.name = name
    this.ack = ack
    this.#retention = retention
    this.#parts = parts
    this.ledger = Ledger.from(stored.figures)
    this.#pages = new StreamPages(parts.memory)
    this.#owed = new Owed(parts.monotonicMs)
    this.lostAtMost = stored.owed
    this.#cursors = new Map(stored.cursors)
    this.#first = stored.first
    const { number, tickets, memory, store } = parts
    const { bytes, nextPosition, last } = stored
    const lane = { messages: this.ledger.queued, bytes, nextPosition, last, delivered: 0, tried: new Map() }
    this.#lane = new Lane({
      base: 0,
      owner: this,
      memory,
      durability: { number, tickets, store },
      stored: lane,
      keeps: 'back',
    })
  }

  get retention(): Retention {
    return this.#retention
  }

  /** May be changed while running. */
  set retention(retention: Retention) {
    this.#retention = retention
    this.#nextAgeCheckMs = 0
  }

  /** Messages kept. */
  get depth(): number {
    return this.ledger.queued
  }

  /** Bytes of their records. */
  get bytes(): number {
    return this.#lane.bytes
  }

  /** Sequence number of the oldest message kept; `next` if there is none. */
  get first(): number {
    return Math.min(this.#first, this.next)
  }

  /** Sequence number the next message will get. */
  get next(): number {
    return this.#lane.nextPosition
  }

  /** Stored cursors by reader. */
  get cursors(): ReadonlyMap<string, number> {
    return this.#cursors
  }

  /** Readers at work now. */
  get readerCount(): number {
    return this.#readers.size
  }

  // ---- taking messages

  growthFor(bytes: number): number {
    return this.#lane.growthFor(bytes)
  }

  admit(): 'take' {
    return 'take'
  }

  mayOwe(count: number): boolean {
    return this.#owed.mayOwe(this.#lane.unwritten + this.#beingWritten + count)
  }

  /** For an orderly stop: nothing is acknowledged unwritten any more, and the last commit says so. */
  settleUp(): void {
    this.#owed.end()
    if (this.#owed.isOpen) this.#parts.schedule.touch(this)
  }

  bookDropped(count: number, reason: DropReason): void {
    this.ledger.accepted += count
    this.ledger.drop(reason, count)
    this.figuresChanged()
  }

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
    const length = recordLength(prefix, expiryMs, propertiesBytes, to - from - propertiesBytes)
    this.#lane.append(length, prefix, acceptance, expiryMs, source, from, to, propertiesBytes, note, ticket, status)
    this.ledger.accepted++
    this.ledger.queued++
  }

  takeMoved(record: Buffer, note: number, isShared: boolean): void {
    const { schedule, tickets } = this.#parts
    this.#lane.appendRecord(record, note, tickets.last, isShared ? SHARED : 0)
    this.ledger.accepted++
    this.ledger.queued++
    schedule.touch(this)
    schedule.due(tickets.last)
  }

  pump(): void {
    for (const reader of this.#readers) reader.pump()
  }

  // ---- reading

  /**
   * Begins to deliver to a consumer: from where the reader of this name had settled all before, or `from` if there is no cursor of that name. `name` null: no
   * cursor is kept. A name has one reader at a time. The reader is ended with `close`; its cursor stays until `forget`.
   * @throws BrokerError STREAM_READERS_FULL
   */
  read(name: string | null, from: ReadFrom, consumer: Consumer): StreamReader {
    const stored = name === null ? undefined : this.#cursors.get(name)
    if (name !== null && stored === undefined && this.#cursors.size >= MAX_CURSORS) {
      throw new BrokerError(
        'STREAM_READERS_FULL',
        `stream ${this.name} keeps the cursors of ${MAX_CURSORS} readers already; end a session that reads it`,
        { facts: { stream: this.name, readers: MAX_CURSORS } },
      )
    }
    for (const reader of this.#readers) {
      if (name !== null && reader.name === name) throw new TypeError(`reader ${name} reads ${this.name} already`)
    }
    const begin = stored === undefined ? this.placeOf(from) : Math.min(stored, this.next)
    const reader = new StreamReader({ name, source: this, consumer, from: begin })
    this.#readers.add(reader)
    return reader
  }

  /** Forgets a reader's cursor; resolves when that is durable. @throws BrokerError STOPPING */
  async forget(name: string): Promise<void> {
    for (const reader of this.#moved) if (reader.name === name) this.#moved.delete(reader)
    if (!this.#cursors.delete(name)) return
    await this.#parts.schedule.change({ key: cursorKey(this.#parts.number, name), value: null })
  }

  /**
   * The position at which reading begins. A sequence number that is not there yet counts as next.
   * @throws BrokerError STOPPING
   */
  placeOf(from: ReadFrom): number | Promise<number> {
    if (from === 'first') return this.first
    if (from === 'last') return Math.max(this.first, this.next - 1)
    if (from === 'next') return this.next
    if ('sequence' in from) return Math.max(this.first, Math.min(from.sequence, this.next))
    return this.#placeOfTime(from.timeMs)
  }

  async #placeOfTime(timeMs: number): Promise<number> {
    const { number, store } = this.#parts
    const moment = momentOf(timeMs, store.boots())
    const isBefore = (bytes: Buffer, at: number): boolean => {
      const { boot, ms } = enteredAt(bytes, at)
      return boot < moment.boot || (boot === moment.boot && ms < moment.ms)
    }
    const after = await store.seekRecord(number, isBefore)
    const begin = after === null ? this.first : await this.#placeAfter(after, isBefore)
    if (begin < this.#lane.heldFrom) return begin
    // What is not written yet is not in the index.
    let place = this.next
    await this.visit(begin, (bytes, at, position) => {
      if (isBefore(bytes, at)) return true
      place = position
      return false
    })
    return place
  }

  /** The first record of the segment behind `after` that is not before the place; behind the segment if there is none. */
  async #placeAfter(after: SegmentRef, isBefore: (bytes: Buffer, at: number) => boolean): Promise<number> {
    const [found] = await this.#parts.store.segments(this.#parts.number, after, 1)
    if (found === undefined) return this.first
    const index = found.offsets.findIndex(offset => offset !== ABSENT && !isBefore(found.bytes, offset))
    return found.first + (index < 0 ? found.count : index)
  }

  /**
   * Shows messages in order from a position on, until `visitor` returns false, `end` is reached or there are no more; resolves with the position to go on from.
   * @throws BrokerError STOPPING
   */
  async visit(from: number, visitor: StreamVisitor, end = Number.POSITIVE_INFINITY): Promise<number> {
    let position = from
    this.#visits++
    try {
      while (position < Math.min(end, this.next)) {
        position = Math.max(position, this.first)
        const segment = this.find(position)
        if (segment !== null && segment.first >= end) return end
        if (segment === null) {
          position = await this.bring(position)
          continue
        }
        const last = Math.min(segment.count, end - segment.first)
        for (let index = Math.max(0, position - segment.first); index < last; index++) {
          position = segment.first + index + 1
          if ((segment.statusAt(index) & DONE) !== 0) continue
          if (!visitor(segment.bytes, segment.offsetAt(index), position - 1)) return position
        }
      }
      return position
    } finally {
      this.#visits--
      this.#releasePages()
    }
  }

  find(position: number): Segment | null {
    return position >= this.#lane.heldFrom ? this.#lane.segmentOf(position) : this.#pages.find(position)
  }

  bring(position: number): Promise<number> {
    const brought = this.#turn.then(() => this.#bring(position))
    // Whoever asked is told of a failure; the next one is served all the same.
    this.#turn = brought.catch(() => undefined)
    return brought
  }

  async #bring(position: number): Promise<number> {
    if (this.find(position) !== null) return position
    const { number, store } = this.#parts
    let after = this.#pages.endingAt(position) ?? (await store.seekPosition(number, position))
    for (;;) {
      const { heldFrom } = this.#lane
      const loaded = await store.segments(number, after, PAGE_BYTES)
      const last = loaded.at(-1)
      // All from here up to what was in memory has been forgotten, or lost. What has left memory meanwhile is on disk now.
      if (last === undefined) return Math.max(position, heldFrom)
      this.#bookDamage(loaded)
      if (last.first + last.count > position) {
        this.#pages.add(position, loaded)
        return position
      }
      after = last.ref
    }
  }

  moved(reader: StreamReader): void {
    this.#moved.add(reader)
    this.marksChanged()
  }

  closed(reader: StreamReader): void {
    this.#readers.delete(reader)
    this.missed += reader.missed
    if (reader.name !== null && reader.cursor !== null) this.#cursors.set(reader.name, reader.cursor)
    this.#releasePages()
  }

  #releasePages(): void {
    if (this.#readers.size === 0 && this.#visits === 0) this.#pages.clear()
  }

  /** What cannot be read is lost: counted once, and marked so that it is not counted again after a restart. */
  #bookDamage(loaded: readonly LoadedSegment[]): void {
    for (const found of loaded) {
      const id = idOf(found.ref)
      if (found.damaged === 0 || this.#damaged.has(id) || found.first + found.count <= this.#first) continue
      this.#damaged.add(id)
      this.ledger.queued -= found.damaged
      this.ledger.drop('damage', found.damaged)
      this.#marks.set(id, {
        queue: this.#parts.number,
        ref: found.ref,
        settled: absentBitmap(found),
        isComplete: false,
      })
      this.marksChanged()
    }
  }

  // ---- forgetting

  /** Forgets what is over age or bytes, part by part, each with a commit. Called from time to time, and after each commit that may leave more to do. */
  retain(): void {
    this.#isRetainDue = true
    if (this.#isRetaining) return
    // It rejects when the store is closed.
    this.#retain().catch(() => undefined)
  }

  async #retain(): Promise<void> {
    this.#isRetaining = true
    while (this.#isRetainDue) {
      this.#isRetainDue = false
      await this.#retainBytes()
      if (this.#parts.monotonicMs() >= this.#nextAgeCheckMs) await this.#retainAge()
    }
    this.#isRetaining = false
  }

  async #retainBytes(): Promise<void> {
    if (this.bytes <= this.#retention.bytes) return
    for (const info of await this.#oldestSegments()) {
      if (this.bytes <= this.#retention.bytes || !this.#forgetSegment(info)) return
    }
  }

  async #retainAge(): Promise<void> {
    const { number, store, monotonicMs, ageMs } = this.#parts
    const keptMs = this.#retention.ageMs
    const isOver = (bytes: Buffer, at: number): boolean => ageMs(bytes, at) > keptMs
    const boundary = await store.seekRecord(number, isOver)
    if (boundary !== null) {
      // They lie before one whose first record is over age.
      for (const info of await this.#oldestSegments()) {
        if (isAfter(info.ref, boundary)) break
        if (!this.#forgetSegment(info)) return
      }
    }
    if (this.#areMarksPending) return
    const [[oldest], [info]] = await Promise.all([store.segments(number, null, 1), this.#oldestSegments()])
    this.#nextAgeCheckMs = monotonicMs() + keptMs * AGE_CHECK_SHARE
    if (oldest === undefined || info === undefined) return
    this.#bookDamage([oldest])
    const newestAt = oldest.offsets.findLast(offset => offset !== ABSENT)
    if (newestAt === undefined || isOver(oldest.bytes, newestAt)) this.#forgetSegment(info)
    else this.#nextAgeCheckMs += Math.max(0, keptMs - ageMs(oldest.bytes, newestAt))
  }

  /** By the index; none while marks are on their way, which the index does not know of yet. */
  async #oldestSegments(): Promise<readonly SegmentInfo[]> {
    if (this.#areMarksPending) return []
    return this.#parts.store.segmentInfos(this.#parts.number, null, Number.POSITIVE_INFINITY)
  }

  /** False: its damage was found meanwhile and is not in `info`. */
  #forgetSegment({ ref, end, unsettled, bytes }: SegmentInfo): boolean {
    const id = idOf(ref)
    if (this.#marks.has(id) || this.#isCommittingMarks) return false
    this.#marks.set(id, { queue: this.#parts.number, ref, settled: ALL, isComplete: true })
    this.#damaged.delete(id)
    this.#first = Math.max(this.#first, end)
    this.ledger.queued -= unsettled
    this.ledger.expire(unsettled)
    this.#lane.forget(unsettled, bytes)
    this.marksChanged()
    return true
  }

  /** Forgets everything, cursors too; resolves when that is durable. Nobody may publish to it or read it any more. @throws BrokerError STOPPING */
  async empty(): Promise<void> {
    const { schedule, tickets } = this.#parts
    for (;;) {
      // A message that is not written yet would be, behind what is forgotten here, by a commit under way.
      schedule.touch(this)
      schedule.due(tickets.last)
      await schedule.flush()
      if (this.#areMarksPending) continue
      const infos = await this.#oldestSegments()
      for (const info of infos) this.#forgetSegment(info)
      if (infos.length === 0) break
    }
    this.#lane.clear()
    this.#isEmptied = true
    await Promise.all([...this.#cursors.keys()].map(name => this.forget(name)))
  }

  get #areMarksPending(): boolean {
    return this.#marks.size > 0 || this.#isCommittingMarks
  }

  // ---- disk

  isDueThrough(ticket: number, withMarks: boolean): boolean {
    if (this.#isEmptied) return false
    return (withMarks && (this.#marks.size > 0 || this.#moved.size > 0)) || this.#lane.isDueThrough(ticket, withMarks)
  }

  prepareCommit(throughTicket: number, commit: Commit, commitNumber: number): void {
    if (this.#isEmptied) return
    const { number, ledgerKey } = this.#parts
    const before = this.#lane.unwritten
    this.#lane.prepareCommit(throughTicket, commit, commitNumber)
    this.#beingWritten = before - this.#lane.unwritten
    commit.marks.push(...this.#marks.values())
    this.#isCommittingMarks = this.#marks.size > 0
    this.#marks = new Map()
    for (const reader of this.#moved) {
      const cursor = reader.takeCursor()
      if (reader.name === null || cursor === null) continue
      this.#cursors.set(reader.name, cursor)
      const value = Buffer.alloc(CURSOR_BYTES)
      value.writeUIntBE(cursor, 0, CURSOR_BYTES)
      commit.changes.push({ key: cursorKey(number, reader.name), value })
    }
    this.#moved.clear()
    commit.changes.push({ key: ledgerKey, value: this.#record() })
    if (this.#lane.unwritten > 0) this.marksChanged()
  }

  #record(): Buffer {
    const { unwritten, record } = this.#lane
    return encodeLedgerRecord({
      figures: this.ledger.persistent(unwritten),
      owed: this.#owed.prepare(unwritten),
      lanes: [record],
    })
  }

  committed(): void {
    const mayGoOn = this.#isCommittingMarks || this.bytes > this.#retention.bytes
    this.#isCommittingMarks = false
    this.#beingWritten = 0
    this.#owed.committed()
    this.#lane.committed()
    // Nothing more came: a commit within a minute says that nothing is owed.
    if (this.#owed.isOpen && this.#lane.unwritten === 0) this.figuresChanged()
    if (mayGoOn) this.retain()
  }

  // ---- what its lane and its readers tell

  marksChanged(): void {
    this.#parts.schedule.touch(this)
    this.#parts.schedule.buffered()
  }

  figuresChanged(): void {
    this.#parts.schedule.touch(this)
    this.#parts.schedule.figuresChanged()
  }

  loaded(): void {
    this.pump()
  }

  lost(count: number): void {
    this.ledger.queued -= count
    this.ledger.drop('damage', count)
  }
}

const CURSOR_BYTES = 6

/** Begins all cursor keys of one stream; the reader's name follows. */
export function cursorPrefix(stream: number): Buffer {
  const key = Buffer.alloc(5)
  key[0] = StatePrefix.cursor
  key.writeUInt32BE(stream, 1)
  return key
}

const cursorKey = (stream: number, reader: string): Buffer => Buffer.concat([cursorPrefix(stream), Buffer.from(reader)])

/** Reader and position of a cursor record; null: damaged. */
export function decodeCursor(key: Buffer, value: Buffer): readonly [reader: string, position: number] | null {
  return value.length === CURSOR_BYTES ? [key.toString('utf8', 5), value.readUIntBE(0, CURSOR_BYTES)] : null
}

/** When a record entered the stream: accepted, or moved from another queue. Never earlier than the one before it. */
function enteredAt(bytes: Buffer, at: number): Moment {
  return historyOf(bytes, at)?.movedAt ?? { boot: recordBoot(bytes, at), ms: recordAcceptedAt(bytes, at) }
}

const idOf = ({ commit, part }: SegmentRef): string => `${commit}/${part}`

function absentBitmap({ count, offsets }: LoadedSegment): Uint8Array {
  const bitmap = new Uint8Array((count + 7) >> 3)
  for (let i = 0; i < count; i++) if (offsets[i] === ABSENT) bitmap[i >> 3] = (bitmap[i >> 3] ?? 0) | (1 << (i & 7))
  return bitmap
}
