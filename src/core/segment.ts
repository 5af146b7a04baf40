import { type Acceptance, type RecordPrefix, recordBytes, recordLength, writeRecord } from '../model/message.ts'
import { giveMemory } from '../store/read-memory.ts'
import { ABSENT, type LoadedSegment, type SegmentRef, type SegmentWrite } from '../store/types.ts'
import type { MemoryBudget } from './memory.ts'

/** A segment is closed when its records reach this size; a larger record gets a segment of its own. */
export const SEGMENT_BYTES = 256 * 1024
/** Memory for the records of an open segment: it begins with one of these and grows to the next. */
const SIZES = [512, 2 * 1024, 8 * 1024, 32 * 1024, 128 * 1024, SEGMENT_BYTES]
/** Room for one entry per so many bytes of records; the largest size has room for MAX_ENTRIES. */
const BYTES_PER_ENTRY = 64
const MAX_ENTRIES = SEGMENT_BYTES / BYTES_PER_ENTRY
/** Parallel arrays per entry: offset, ticket, note, status, owner. */
const ENTRY_BYTES = 4 + 8 + 1 + 1 + 1
/** Given back and kept for the next segments of that size, of each size. */
const MAX_POOLED = 8

/** Bits of an entry's status. */
export const IN_FLIGHT = 1
/** Needs no delivery any more: settled, dropped, never written, damaged. */
export const DONE = 2
/** Delivered before, or passed over: its lane may know more. */
export const REDELIVERED = 4
/** The same message went to other durable queues too: its body is stored once per commit. */
export const SHARED = 8
/** Its settlement counts for the ticket beside it. Without this bit the ticket is some other message's and only says when the entry came. */
export const TICKETED = 16
/** Nobody gets it before its time. */
export const WAITING = 32
/** An entry with one of these is not ready to be delivered. */
export const NOT_READY = IN_FLIGHT | DONE | WAITING
/** Never written: nothing but its consumer's settlement makes it safe (ack policy `upstream`). All entries of a segment have this bit or none. */
export const PASSING = 64

/** The memory of a segment. */
interface Parts {
  readonly bytes: Buffer
  readonly offsets: Uint32Array
  readonly notes: Uint8Array
  readonly status: Uint8Array
  readonly owners: Uint8Array
  readonly tickets: Float64Array
}

// A busy queue fills or empties thousands of segments a second. Fresh memory for each would keep the collector busy, which counts
// what lies outside its heap and goes through all of the heap to find out what may go: a quarter of the time at full load.
const pools: Parts[][] = SIZES.map(() => [])

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
  waiting = 0
  /** Its entries are PASSING: no commit takes it. */
  isPassing = false
  /** All entries before this one are done. */
  #front = 0
  #taken = 0
  readonly #memory: MemoryBudget

  /** `expectedBytes` of records spare it growing step by step. */
  static open(first: number, memory: MemoryBudget, expectedBytes: number): Segment {
    return new Segment(first, memory, takeParts(expectedBytes))
  }

  static loaded(loaded: LoadedSegment, memory: MemoryBudget): Segment {
    const { bytes, offsets, notes, count } = loaded
    const status = new Uint8Array(count)
    const owners = new Uint8Array(count)
    const tickets = new Float64Array(0)
    const segment = new Segment(loaded.first, memory, { bytes, offsets, notes, status, owners, tickets })
    segment.used = loaded.used
    segment.count = count
    segment.ref = loaded.ref
    segment.isCommitted = true
    for (let i = 0; i < loaded.count; i++) {
      if (loaded.offsets[i] === ABSENT) segment.status[i] = DONE
      else segment.live++
    }
    return segment
  }

  private constructor(first: number, memory: MemoryBudget, parts: Parts) {
    this.first = first
    this.#memory = memory
    this.bytes = parts.bytes
    this.offsets = parts.offsets
    this.notes = parts.notes
    this.status = parts.status
    this.owners = parts.owners
    this.tickets = parts.tickets
    this.#account()
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

  /** Memory it would take beyond what it holds for a record, or records, of so many bytes. */
  growthFor(bytes: number): number {
    const wanted = this.used + bytes
    return wanted <= this.bytes.length ? 0 : Segment.memoryFor(wanted) - this.#taken
  }

  /** Memory that records of so many bytes take in a new segment. */
  static memoryFor(bytes: number): number {
    const size = sizeFor(bytes)
    return size + entriesIn(size) * ENTRY_BYTES
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
    if (this.used + length > this.bytes.length || this.count === this.offsets.length) this.#grow(length)
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
    if ((status & WAITING) !== 0) this.waiting++
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

  /** Index of the first entry that is not done; `count` if all are. */
  firstLive(): number {
    while (this.#front < this.count && (this.statusAt(this.#front) & DONE) !== 0) this.#front++
    return this.#front
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

  /** Nobody waits for its entries to be written, and any commit may take them. */
  forgetTickets(): void {
    this.tickets.fill(0, 0, this.count)
    for (let i = 0; i < this.count; i++) this.status[i] = this.statusAt(i) & ~TICKETED
  }

  /** Moves entries [from, count) into a new segment; this one keeps the others. */
  splitAt(from: number): Segment {
    const at = this.offsetAt(from)
    const rest = Segment.open(this.first + from, this.#memory, this.used - at)
    for (let i = from; i < this.count; i++) {
      const status = this.statusAt(i)
      rest.appendRecord(this.bytes, this.offsetAt(i), this.notes[i] ?? 0, this.tickets[i] ?? 0, status)
      rest.owners[i - from] = this.owners[i] ?? 0
      if ((status & DONE) === 0) this.live--
      if ((status & IN_FLIGHT) !== 0) this.inFlight--
      if ((status & WAITING) !== 0) this.waiting--
    }
    this.count = from
    this.used = at
    this.#front = Math.min(this.#front, from)
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
    this.#front = 0
  }

  /** Gives its memory back; the segment must not be used afterwards. */
  release(): void {
    const { bytes, offsets, notes, status, owners, tickets } = this
    if (this.isLoaded) {
      giveMemory(bytes)
    } else {
      const pool = pools[SIZES.indexOf(bytes.length)]
      if (pool !== undefined && pool.length < MAX_POOLED) pool.push({ bytes, offsets, notes, status, owners, tickets })
    }
    this.bytes = EMPTY
    this.#memory.give(this.#taken)
    this.#taken = 0
  }

  /** Read back from disk: its memory has one entry for each of its own, and is the store's. */
  get isLoaded(): boolean {
    return this.isCommitted && this.tickets.length === 0
  }

  /** Moves to the next size with room for a record of so many bytes. The old memory is not pooled: somebody may be reading a record in it. */
  #grow(length: number): void {
    const { bytes, offsets, notes, status, owners, tickets, count, used } = this
    const larger = takeParts(Math.max(used + length, Math.min(bytes.length + 1, SEGMENT_BYTES)))
    bytes.copy(larger.bytes, 0, 0, used)
    larger.offsets.set(offsets.subarray(0, count))
    larger.notes.set(notes.subarray(0, count))
    larger.status.set(status.subarray(0, count))
    larger.owners.set(owners.subarray(0, count))
    larger.tickets.set(tickets.subarray(0, count))
    this.bytes = larger.bytes
    this.offsets = larger.offsets
    this.notes = larger.notes
    this.status = larger.status
    this.owners = larger.owners
    this.tickets = larger.tickets
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

/** Memory for so many bytes of records; for a single larger one, exactly so much. */
function takeParts(bytes: number): Parts {
  const size = sizeFor(bytes)
  return pools[SIZES.indexOf(size)]?.pop() ?? newParts(size)
}

const sizeFor = (bytes: number): number => SIZES.find(size => size >= bytes) ?? bytes

const entriesIn = (size: number): number => Math.min(MAX_ENTRIES, size / BYTES_PER_ENTRY)

function newParts(size: number): Parts {
  const entries = entriesIn(size)
  return {
    bytes: Buffer.allocUnsafeSlow(size),
    offsets: new Uint32Array(entries),
    notes: new Uint8Array(entries),
    status: new Uint8Array(entries),
    owners: new Uint8Array(entries),
    tickets: new Float64Array(entries),
  }
}
