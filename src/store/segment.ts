/*
 * A segment: what one commit keeps for one queue, one value in log/ under (commit, queue, part).
 *
 * Invariants: it can be understood without state/; a flipped bit anywhere in it is noticed; a flipped bit in the body of one record costs that
 * record only. Never changed after it was written; what is settled is marked in the index (segment-index.ts).
 *
 * WARNING: this is an on-disk format (docs/storage-format.md). A change of any offset is a new store format version.
 *
 *   off size   little-endian
 *     0   1  version (1)
 *     1   1  bit 0: a bitmap of the entries present follows the name; else all are
 *     2   4  CRC32C of the key in log/, bytes 0..2 and 6..header bytes
 *     6   4  header bytes: all before the first body
 *    10   …  varints: first position; count: positions covered; entries present; record number of the first of them, the others follow by one; bytes of all its
 *            records when read back; bytes of the queue name
 *     …   …  queue name (UTF-8), bitmap (count bits), table: per entry present
 *              note (1 byte), varint record length * 4 + kind, then
 *              kind 3: the record is shared: varint part of the shared bodies, varint offset in it
 *              kind 2: a new head: varint its bytes, the head (model/record-head.ts)
 *              kind 1: varint number of a head that came before in this table, from 0
 *              kind 0: the head of the entry before
 *              kinds 0-2: seq and accepted-at as zigzag varints of their difference to the last such entry's, at first to 0
 *     …   …  bodies of kinds 0-2, in order, without gaps: CRC32C of the record's bytes 8..length (4), history, properties, payload
 */

import { recordAcceptedAt, recordBytes, recordSeq } from '../model/message.ts'
import { hasHead, hashHead, headBytes, OWN_BYTES, packHead, unpackHead } from '../model/record-head.ts'
import { bitmapBytes, countBits, hasBit, readVarints, writeVarint } from './bytes.ts'
import { crc32c } from './crc32c.ts'
import { takeMemory } from './read-memory.ts'
import { offsetOf, partOf, type SharedBodies } from './shared-bodies.ts'
import { ABSENT, type SegmentWrite } from './types.ts'

const VERSION = 1
const FIXED_BYTES = 10
/** The longest row of varints behind it: four of 49 bits, two of 32. */
const MAX_VARINTS_BYTES = 4 * 7 + 2 * 5
const FLAG_BITMAP = 1
const Kind = { lastHead: 0, knownHead: 1, newHead: 2, shared: 3 } as const
const CRC_BYTES = 4
/** The longest entry in the table, its head aside: note, length and kind (34 bits), head number, head bytes, seq, accepted-at (49 bits each). */
const MAX_ENTRY_BYTES = 1 + 5 + 3 + 3 + 7 + 7

export interface EncodedSegment {
  /** In the encoder's memory: valid until `reset`. */
  readonly value: Buffer
  readonly present: number
  /** Bytes of all its records, shared ones included: what reading it back takes. */
  readonly recordBytes: number
  /** Parts of the shared bodies it refers to. */
  readonly bodyParts: readonly number[]
}

/** Memory kept between commits; what a larger commit needs beyond it is given back. */
const KEPT_BYTES = 512 * 1024

/** Encodes the segments of one commit after the other into memory that the next commit uses again. */
export class SegmentEncoder {
  readonly #kept = Buffer.allocUnsafeSlow(KEPT_BYTES)
  #memory = this.#kept
  #used = 0
  readonly #heads = new Heads()

  /** The values handed out so far are not needed any more. */
  reset(): void {
    this.#memory = this.#kept
    this.#used = 0
  }

  encode(key: Buffer, write: SegmentWrite, name: Buffer, firstRecord: number, bodies: SharedBodies): EncodedSegment {
    const { count, bytes: source, offsets } = write
    const present = countBits(write.present, count)
    const hasBitmap = present < count
    let allBytes = 0
    for (let entry = 0; entry < count; entry++) {
      if (hasBit(write.present, entry)) allBytes += recordBytes(source, offsets[entry] ?? 0)
    }
    // A head and a body are together not longer than their record.
    const mostBytes = FIXED_BYTES + MAX_VARINTS_BYTES + name.length + bitmapBytes(count) + present * MAX_ENTRY_BYTES
    const value = this.#reserve(mostBytes + allBytes)
    const bodyParts: number[] = []
    const heads = this.#heads
    heads.clear()
    const inline = new Uint8Array(bitmapBytes(count))
    let at = FIXED_BYTES
    for (const number of [write.first, count, present, firstRecord, allBytes, name.length]) {
      at = writeVarint(value, at, number)
    }
    at += name.copy(value, at)
    if (hasBitmap) {
      value.set(write.present.subarray(0, bitmapBytes(count)), at)
      at += bitmapBytes(count)
    }
    let seq = 0
    let acceptedAt = 0
    for (let entry = 0; entry < count; entry++) {
      if (!hasBit(write.present, entry)) continue
      const recordAt = offsets[entry] ?? 0
      const length = recordBytes(source, recordAt)
      value[at++] = write.notes[entry] ?? 0
      const place = write.shared[entry] === 1 ? bodies.place(source, recordAt) : null
      if (place !== null) {
        at = writeVarint(value, at, length * 4 + Kind.shared)
        at = writeVarint(value, at, partOf(place))
        at = writeVarint(value, at, offsetOf(place))
        if (!bodyParts.includes(partOf(place))) bodyParts.push(partOf(place))
        continue
      }
      inline[entry >> 3] = (inline[entry >> 3] ?? 0) | (1 << (entry & 7))
      at = heads.write(value, at, source, recordAt, length)
      at = writeZigzag(value, at, recordSeq(source, recordAt) - seq)
      at = writeZigzag(value, at, recordAcceptedAt(source, recordAt) - acceptedAt)
      seq = recordSeq(source, recordAt)
      acceptedAt = recordAcceptedAt(source, recordAt)
    }
    const headerBytes = at
    for (let entry = 0; entry < count; entry++) {
      if (hasBit(inline, entry)) at = writeBody(value, at, source, offsets[entry] ?? 0)
    }
    value[0] = VERSION
    value[1] = hasBitmap ? FLAG_BITMAP : 0
    value.writeUInt32LE(headerBytes, 6)
    value.writeUInt32LE(headerCrc(key, value, headerBytes), 2)
    this.#used += at
    return { value: value.subarray(0, at), present, recordBytes: allBytes, bodyParts }
  }

  /** Room for one value behind those handed out. */
  #reserve(bytes: number): Buffer {
    if (this.#used + bytes > this.#memory.length) {
      this.#memory = Buffer.allocUnsafeSlow(Math.max(bytes, KEPT_BYTES))
      this.#used = 0
    }
    return this.#memory.subarray(this.#used)
  }
}

/** The heads in the table being written. */
class Heads {
  /** Where each head begins in the value, and its bytes. */
  readonly #at: number[] = []
  readonly #bytes: number[] = []
  /** Numbers of the heads by hash, the youngest where hashes collide. */
  readonly #byHash = new Map<number, number>()
  #last = -1

  clear(): void {
    this.#at.length = 0
    this.#bytes.length = 0
    this.#byHash.clear()
    this.#last = -1
  }

  /** Writes length, kind and head of the record at `recordAt` into the table; returns the offset behind it. */
  write(value: Buffer, at: number, source: Buffer, recordAt: number, length: number): number {
    const bytes = headBytes(source, recordAt)
    if (this.#isAt(this.#last, value, source, recordAt, bytes))
      return writeVarint(value, at, length * 4 + Kind.lastHead)
    const hash = hashHead(source, recordAt, bytes)
    const known = this.#byHash.get(hash) ?? -1
    if (this.#isAt(known, value, source, recordAt, bytes)) {
      this.#last = known
      return writeVarint(value, writeVarint(value, at, length * 4 + Kind.knownHead), known)
    }
    const headAt = writeVarint(value, writeVarint(value, at, length * 4 + Kind.newHead), bytes)
    this.#last = this.#at.length
    this.#byHash.set(hash, this.#last)
    this.#at.push(headAt)
    this.#bytes.push(bytes)
    return packHead(source, recordAt, bytes, value, headAt)
  }

  #isAt(head: number, value: Buffer, source: Buffer, recordAt: number, bytes: number): boolean {
    return head >= 0 && this.#bytes[head] === bytes && hasHead(source, recordAt, value, this.#at[head] ?? 0, bytes)
  }
}

/** CRC, properties and payload of the record at `recordAt`; returns the offset behind them. */
function writeBody(value: Buffer, at: number, source: Buffer, recordAt: number): number {
  const end = recordAt + recordBytes(source, recordAt)
  value.writeUInt32LE(crc32c(source, recordAt + 8, end), at)
  return at + CRC_BYTES + source.copy(value, at + CRC_BYTES, recordAt + OWN_BYTES + headBytes(source, recordAt), end)
}

export interface SegmentHeader {
  readonly name: string
  readonly first: number
  readonly count: number
  readonly present: number
  readonly firstRecord: number
  readonly headerBytes: number
  /** Bytes of all its records when read back, shared ones included. */
  readonly recordBytes: number
  readonly presentBitmap: Buffer | null
  readonly tableAt: number
}

/** null: damaged. */
export function readSegmentHeader(key: Buffer, value: Buffer): SegmentHeader | null {
  if (value.length < FIXED_BYTES || value[0] !== VERSION) return null
  const headerBytes = value.readUInt32LE(6)
  if (headerBytes < FIXED_BYTES || headerBytes > value.length) return null
  if (value.readUInt32LE(2) !== headerCrc(key, value, headerBytes)) return null
  const { values, end: nameAt } = readVarints(value, FIXED_BYTES, 6)
  const [first = 0, count = 0, present = 0, firstRecord = 0, recordBytes = 0, nameBytes = 0] = values
  const bitmapAt = nameAt + nameBytes
  const hasBitmap = ((value[1] ?? 0) & FLAG_BITMAP) !== 0
  const tableAt = bitmapAt + (hasBitmap ? bitmapBytes(count) : 0)
  return {
    name: value.toString('utf8', nameAt, bitmapAt),
    first,
    count,
    present,
    firstRecord,
    headerBytes,
    recordBytes,
    presentBitmap: hasBitmap ? value.subarray(bitmapAt, tableAt) : null,
    tableAt,
  }
}

/** Goes through a segment's table entry by entry; after `next` the fields are those of that entry. */
class Table {
  /** Of the entry, from 0 to count - 1. */
  entry = -1
  note = 0
  /** Of the whole record. */
  length = 0
  /** Part of the shared bodies; 0: the body is in the value itself. */
  part = 0
  /** Where the record begins in its part, or the body in the value. */
  offset = 0
  headAt = 0
  headBytes = 0
  seq = 0
  acceptedAt = 0
  /** Of the record, as stored with its body. */
  crc = 0
  readonly #value: Buffer
  readonly #header: SegmentHeader
  readonly #headsAt: number[] = []
  readonly #headsBytes: number[] = []
  #at: number
  #bodyAt: number

  constructor(value: Buffer, header: SegmentHeader) {
    this.#value = value
    this.#header = header
    this.#at = header.tableAt
    this.#bodyAt = header.headerBytes
  }

  /** False at the end. */
  next(): boolean {
    const { count, presentBitmap } = this.#header
    do {
      if (++this.entry >= count) return false
    } while (presentBitmap !== null && !hasBit(presentBitmap, this.entry))
    this.note = this.#value[this.#at++] ?? 0
    const code = this.#varint()
    const kind = code % 4
    this.length = (code - kind) / 4
    if (kind === Kind.shared) {
      this.part = this.#varint()
      this.offset = this.#varint()
      return true
    }
    if (kind === Kind.newHead) {
      this.headBytes = this.#varint()
      this.headAt = this.#at
      this.#headsAt.push(this.#at)
      this.#headsBytes.push(this.headBytes)
      this.#at += this.headBytes
    } else if (kind === Kind.knownHead) {
      const head = this.#varint()
      this.headAt = this.#headsAt[head] ?? 0
      this.headBytes = this.#headsBytes[head] ?? 0
    }
    this.seq += this.#zigzag()
    this.acceptedAt += this.#zigzag()
    this.part = 0
    this.offset = this.#bodyAt
    this.#bodyAt += CRC_BYTES + this.length - OWN_BYTES - this.headBytes
    return true
  }

  /** Writes the record whose body is in the value to `target`; false: damaged. */
  restore(target: Buffer, at: number): boolean {
    const { offset, length } = this
    const bodyBytes = length - OWN_BYTES - this.headBytes
    const value = this.#value
    if (bodyBytes < 0 || offset + CRC_BYTES + bodyBytes > value.length) return false
    this.crc = value.readUInt32LE(offset)
    const bodyAt = unpackHead(target, at, value, this.headAt, this.headBytes, this)
    value.copy(target, bodyAt, offset + CRC_BYTES, offset + CRC_BYTES + bodyBytes)
    return crc32c(target, at + 8, at + length) === this.crc
  }

  #varint(): number {
    const value = this.#value
    let byte = value[this.#at++] ?? 0
    if (byte < 0x80) return byte
    let read = byte & 0x7f
    let scale = 0x80
    do {
      byte = value[this.#at++] ?? 0
      read += (byte & 0x7f) * scale
      scale *= 0x80
    } while (byte >= 0x80)
    return read
  }

  #zigzag(): number {
    const code = this.#varint()
    return code % 2 === 0 ? code / 2 : -(code + 1) / 2
  }
}

export interface DecodedSegment {
  /** The records, one behind the other, as they were in memory: in the first `used` bytes of memory that `giveMemory` takes back. */
  readonly bytes: Buffer
  readonly used: number
  /** Offset of each entry's record; ABSENT: not present, settled, or damaged. */
  readonly offsets: Uint32Array
  readonly notes: Uint8Array
  readonly damaged: number
  readonly damagedBytes: number
}

/** Reads the records that are not settled back, checking each; `bodyOf` has the parts of the shared bodies. */
export function decodeSegment(
  value: Buffer,
  header: SegmentHeader,
  settled: Uint8Array | null,
  bodyOf: (part: number) => Buffer | undefined,
): DecodedSegment {
  const offsets = new Uint32Array(header.count).fill(ABSENT)
  const notes = new Uint8Array(header.count)
  const used = settled === null ? header.recordBytes : unsettledBytes(value, header, settled)
  const bytes = takeMemory(used)
  const table = new Table(value, header)
  let at = 0
  let damaged = 0
  let damagedBytes = 0
  while (table.next()) {
    const { entry, length, part } = table
    if (settled !== null && hasBit(settled, entry)) continue
    if (part === 0 ? table.restore(bytes, at) : copyShared(bodyOf(part), table.offset, length, bytes, at)) {
      offsets[entry] = at
      notes[entry] = table.note
    } else {
      damaged++
      damagedBytes += length
    }
    at += length
  }
  return { bytes, used, offsets, notes, damaged, damagedBytes }
}

function unsettledBytes(value: Buffer, header: SegmentHeader, settled: Uint8Array): number {
  const table = new Table(value, header)
  let bytes = 0
  while (table.next()) if (!hasBit(settled, table.entry)) bytes += table.length
  return bytes
}

/** False: damaged. A damaged length field is put right from the segment's table, which has its own CRC. */
function copyShared(part: Buffer | undefined, from: number, length: number, target: Buffer, at: number): boolean {
  if (part === undefined || length < 8 || from + length > part.length) return false
  part.copy(target, at, from, from + length)
  target.writeUInt32LE(length, at)
  return crc32c(target, at + 8, at + length) === target.readUInt32LE(at + 4)
}

/** Parts of the shared bodies a segment refers to. */
export function readBodyParts(value: Buffer, header: SegmentHeader): number[] {
  const parts = new Set<number>()
  const table = new Table(value, header)
  while (table.next()) if (table.part !== 0) parts.add(table.part)
  return [...parts]
}

function headerCrc(key: Buffer, value: Buffer, headerBytes: number): number {
  return crc32c(value, 6, headerBytes, crc32c(value, 0, 2, crc32c(key, 0, key.length)))
}

/** Small differences of either sign in few bytes: 0, -1, 1, -2, … as 0, 1, 2, 3, … */
function writeZigzag(target: Buffer, at: number, value: number): number {
  return writeVarint(target, at, value < 0 ? -2 * value - 1 : 2 * value)
}
