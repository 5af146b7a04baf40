import { type Acceptance, type RecordPrefix, recordBytes, recordLength, writeRecord } from '../model/message.ts'
import { ABSENT, type LoadedSegment, type SegmentRef, type SegmentWrite } from '../store/types.ts'
import type { MemoryBudget } from './memory.ts'

/** A segment is closed when its records reach this size; a larger record gets a segment of its own. */
const SEGMENT_BYTES = 256 * 1024
const FIRST_BYTES = 2 * 1024
const FIRST_ENTRIES = 8
const MAX_ENTRIES = 4096
/** Parallel arrays per entry: offset, ticket, note, status, owner. */
const ENTRY_BYTES = 4 + 8 + 1 + 1 + 1
const MAX_POOLED = 8

/** Bits of an entry's status. */
export const IN_FLIGHT = 1
/** Needs no delivery any more: settled, dropped, never written, damaged. */
export const DONE = 2
export const REDELIVERED = 4
/** The same message went to other durable queues too: its body is stored once per commit. */
export const SHARED = 8

// Full-size arenas are reused: at full load a queue fills hundreds a second, and each fresh one costs a collection sooner.
const pool: Buffer[] = []

/**
 * A row of entries in memory, contiguous in position: the open end of a queue, or a part that was read back. Records lie one
 * behind the other in `bytes`, in the same form as on disk.
 */
export class Segment {
  first: number
  count = 0
  /** Entries that still need delivery or settlement. */
  live = 0
  bytes: Buffer
  used = 0
  offsets: Uint32Array
  notes: Uint8Array
  status: Uint8Array
  owners: Uint8Array
  /** Youngest ticket at the time of each entry; only while unwritten. */
  tickets: Float64Array
  /** Where it is on disk; null as long as no commit has taken it. */
  ref: SegmentRef | null = null
  /** The commit that writes it has returned. */
  isCommitted = false
  /** Settled marks have changed since they were last written. */
  isMarked = false
  inFlight = 0
  redelivered = 0
  #taken = 0
  readonly #memory: MemoryBudget

  constructor(first: number, memory: MemoryBudget, reserveBytes: number = FIRST_BYTES) {
    this.first = first
    this.#memory = memory
    this.bytes = arena(reserveBytes)
    this.offsets = new Uint32Array(FIRST_ENTRIES)
    this.notes = new Uint8Array(FIRST_ENTRIES)
    this.status = new Uint8Array(FIRST_ENTRIES)
    this.owners = new Uint8Array(FIRST_ENTRIES)
    this.tickets = new Float64Array(FIRST_ENTRIES)
    this.#account()
  }

  static loaded(loaded: LoadedSegment, memory: MemoryBudget): Segment {
    const segment = new Segment(loaded.first, memory, 0)
    segment.bytes = loaded.bytes
    segment.used = loaded.bytes.length
    segment.count = loaded.count
    segment.offsets = loaded.offsets
    segment.notes = loaded.notes
    segment.status = new Uint8Array(loaded.count)
    segment.owners = new Uint8Array(loaded.count)
    segment.tickets = new Float64Array(0)
    segment.ref = loaded.ref
    segment.isCommitted = true
    for (let i = 0; i < loaded.count; i++) {
      if (loaded.offsets[i] === ABSENT) segment.status[i] = DONE
      else segment.live++
    }
    segment.#account()
    return segment
  }

  get end(): number {
    return this.first + this.count
  }

  /** Memory it holds, bytes. */
  get heldBytes(): number {
    return this.#taken
  }

  /** Whether a record of so many bytes still belongs here. */
  fits(bytes: number): boolean {
    return this.count === 0 || (this.used + bytes <= SEGMENT_BYTES && this.count < MAX_ENTRIES)
  }

  /** Appends one message; arguments as in writeRecord. Returns the record's length. */
  append(
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
  ): number {
    const length = recordLength(prefix, expiryMs, propertiesBytes, to - from - propertiesBytes)
    const index = this.#makeEntry(length)
    writeRecord(this.bytes, this.used, prefix, acceptance, expiryMs, source, from, to, propertiesBytes)
    this.#fill(index, length, note, ticket, status)
    return length
  }

  /** Appends a record that already has its stored form (moved from another segment). */
  appendRecord(source: Buffer, at: number, note: number, ticket: number, status: number): void {
    const length = recordBytes(source, at)
    const index = this.#makeEntry(length)
    source.copy(this.bytes, this.used, at, at + length)
    this.#fill(index, length, note, ticket, status)
  }

  #makeEntry(length: number): number {
    if (this.used + length > this.bytes.length) this.#growBytes(this.used + length)
    if (this.count === this.offsets.length) this.#growEntries()
    return this.count
  }

  #fill(index: number, length: number, note: number, ticket: number, status: number): void {
    this.offsets[index] = this.used
    this.notes[index] = note
    this.tickets[index] = ticket
    this.status[index] = status
    this.used += length
    this.count = index + 1
    if ((status & DONE) === 0) this.live++
    if ((status & IN_FLIGHT) !== 0) this.inFlight++
    if ((status & REDELIVERED) !== 0) this.redelivered++
  }

  offsetAt(index: number): number {
    return this.offsets[index] ?? 0
  }

  statusAt(index: number): number {
    return this.status[index] ?? DONE
  }

  recordBytesAt(index: number): number {
    return recordBytes(this.bytes, this.offsetAt(index))
  }

  /** Bytes of the entries that are not done. */
  liveBytes(): number {
    let bytes = 0
    for (let i = 0; i < this.count; i++) if ((this.statusAt(i) & DONE) === 0) bytes += this.recordBytesAt(i)
    return bytes
  }

  /** Index of the first entry whose ticket is above `ticket`; `count` if there is none. Tickets rise within a segment. */
  indexAfterTicket(ticket: number): number {
    let low = 0
    let high = this.count
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.tickets[middle] ?? 0) <= ticket) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Moves entries [from, count) into a new segment; this one keeps the others. */
  splitAt(from: number): Segment {
    const at = this.offsetAt(from)
    const rest = new Segment(this.first + from, this.#memory, this.used - at)
    for (let i = from; i < this.count; i++) {
      const status = this.statusAt(i)
      rest.appendRecord(this.bytes, this.offsetAt(i), this.notes[i] ?? 0, this.tickets[i] ?? 0, status)
      rest.owners[i - from] = this.owners[i] ?? 0
      if ((status & DONE) === 0) this.live--
      if ((status & IN_FLIGHT) !== 0) this.inFlight--
      if ((status & REDELIVERED) !== 0) this.redelivered--
    }
    this.count = from
    this.used = at
    return rest
  }

  /** What a commit writes of it: the entries that are not done. */
  toWrite(queue: number, part: number): SegmentWrite {
    const present = new Uint8Array((this.count + 7) >> 3)
    const shared = new Uint8Array(this.count)
    for (let i = 0; i < this.count; i++) {
      const status = this.statusAt(i)
      if ((status & DONE) === 0) present[i >> 3] = (present[i >> 3] ?? 0) | (1 << (i & 7))
      if ((status & SHARED) !== 0) shared[i] = 1
    }
    return {
      queue,
      part,
      first: this.first,
      count: this.count,
      present,
      bytes: this.bytes,
      offsets: this.offsets,
      notes: this.notes,
      shared,
    }
  }

  /** Bitmap of the entries that need no delivery any more. */
  settledBitmap(): Uint8Array {
    const settled = new Uint8Array((this.count + 7) >> 3)
    for (let i = 0; i < this.count; i++) {
      if ((this.statusAt(i) & DONE) !== 0) settled[i >> 3] = (settled[i >> 3] ?? 0) | (1 << (i & 7))
    }
    return settled
  }

  /** All entries are done and none was written: begins anew behind them, in the same memory. */
  restart(): void {
    this.first = this.end
    this.count = 0
    this.used = 0
  }

  /** Gives its memory back; the segment must not be used afterwards. */
  release(): void {
    if (this.bytes.length === SEGMENT_BYTES && pool.length < MAX_POOLED && !this.isLoaded) pool.push(this.bytes)
    this.bytes = EMPTY
    this.#memory.give(this.#taken)
    this.#taken = 0
  }

  /** Read back from disk: its bytes belong to the store's buffer and must not enter the pool. */
  get isLoaded(): boolean {
    return this.isCommitted && this.tickets.length === 0
  }

  #growBytes(needed: number): void {
    let size = Math.max(FIRST_BYTES, this.bytes.length)
    while (size < needed) size *= 4
    if (size > SEGMENT_BYTES) size = Math.max(SEGMENT_BYTES, needed)
    const bytes = arena(size)
    this.bytes.copy(bytes, 0, 0, this.used)
    this.bytes = bytes
    this.#account()
  }

  #growEntries(): void {
    const size = this.offsets.length * 4
    this.offsets = enlarged(this.offsets, new Uint32Array(size))
    this.notes = enlarged(this.notes, new Uint8Array(size))
    this.status = enlarged(this.status, new Uint8Array(size))
    this.owners = enlarged(this.owners, new Uint8Array(size))
    this.tickets = enlarged(this.tickets, new Float64Array(size))
    this.#account()
  }

  #account(): void {
    const held = this.bytes.length + this.offsets.length * ENTRY_BYTES
    const change = held - this.#taken
    this.#taken = held
    if (change > 0) this.#memory.take(change)
    else if (change < 0) this.#memory.give(-change)
  }
}

const EMPTY = Buffer.alloc(0)

function arena(size: number): Buffer {
  if (size === 0) return EMPTY
  return (size === SEGMENT_BYTES ? pool.pop() : undefined) ?? Buffer.allocUnsafeSlow(size)
}

function enlarged<T extends Uint8Array | Uint32Array | Float64Array>(from: T, to: T): T {
  to.set(from)
  return to
}
