/*
 * A segment: what one commit keeps for one queue, one value in log/ under (commit, queue, part).
 *
 * Invariants: it can be understood without state/; a flipped bit anywhere in it is noticed; a flipped bit in one record costs that record
 * only. Never changed after it was written; what is settled is marked in the index (segment-index.ts).
 *
 * WARNING: this is an on-disk format (docs/storage-format.md). A change of any offset is a new store format version.
 *
 *   off size   little-endian
 *     0   1  version (1)
 *     1   1  bit 0: a bitmap of the entries present follows the name; else all are
 *     2   2  queue name, bytes
 *     4   4  CRC32C of the key in log/, bytes 0..4 and 8..header bytes
 *     8   4  header bytes: all before the first record
 *    12   4  queue number
 *    16   6  first position
 *    22   4  count: positions covered
 *    26   4  entries present
 *    30   6  record number of the first entry present; the others follow by one
 *    36   4  record bytes behind the header
 *    40   …  queue name (UTF-8), bitmap (count bits), table: per entry present a note (1 byte) and a varint length * 2 + shared; if shared
 *            two more varints: part of the shared bodies, offset therein
 *     …   …  the records that are not shared, in order, without gaps; each with its own CRC32C (model/message.ts)
 */
import { recordBytes } from '../model/message.ts'
import { bitmapBytes, countBits, hasBit, readU48, writeU48 } from './bytes.ts'
import { crc32c } from './crc32c.ts'
import { copyRecord, offsetOf, partOf, type SharedBodies } from './shared-bodies.ts'
import { ABSENT, type SegmentWrite } from './types.ts'

const VERSION = 1
const FIXED_BYTES = 40
const FLAG_BITMAP = 1
/** Note, length of a record (32 bits and the shared bit), part, offset: the longest entry in the table. */
const MAX_ENTRY_BYTES = 1 + 5 + 3 + 5

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

  /** The values handed out so far are not needed any more. */
  reset(): void {
    this.#memory = this.#kept
    this.#used = 0
  }

  encode(key: Buffer, write: SegmentWrite, name: Buffer, firstRecord: number, bodies: SharedBodies): EncodedSegment {
    const present = countBits(write.present, write.count)
    const hasBitmap = present < write.count
    const tableAt = FIXED_BYTES + name.length + (hasBitmap ? bitmapBytes(write.count) : 0)
    let scratch = this.#reserve(tableAt + present * MAX_ENTRY_BYTES, null)
    const bodyParts: number[] = []
    let at = tableAt
    let inlineBytes = 0
    let sharedBytes = 0
    const inline = new Uint8Array(bitmapBytes(write.count))
    for (let entry = 0; entry < write.count; entry++) {
      if (!hasBit(write.present, entry)) continue
      const recordAt = write.offsets[entry] ?? 0
      const length = recordBytes(write.bytes, recordAt)
      const place = write.shared[entry] === 1 ? bodies.place(write.bytes, recordAt) : null
      scratch[at++] = write.notes[entry] ?? 0
      if (place === null) {
        at = writeVarint(scratch, at, length * 2)
        inlineBytes += length
        inline[entry >> 3] = (inline[entry >> 3] ?? 0) | (1 << (entry & 7))
      } else {
        at = writeVarint(scratch, at, length * 2 + 1)
        at = writeVarint(scratch, at, partOf(place))
        at = writeVarint(scratch, at, offsetOf(place))
        sharedBytes += length
        if (!bodyParts.includes(partOf(place))) bodyParts.push(partOf(place))
      }
    }
    const headerBytes = at
    scratch = this.#reserve(headerBytes + inlineBytes, scratch.subarray(0, headerBytes))
    for (let entry = 0; entry < write.count; entry++) {
      if (!hasBit(inline, entry)) continue
      const recordAt = write.offsets[entry] ?? 0
      const length = recordBytes(write.bytes, recordAt)
      copyRecord(write.bytes, recordAt, length, scratch, at)
      at += length
    }
    scratch[0] = VERSION
    scratch[1] = hasBitmap ? FLAG_BITMAP : 0
    scratch.writeUInt16LE(name.length, 2)
    scratch.writeUInt32LE(headerBytes, 8)
    scratch.writeUInt32LE(write.queue, 12)
    writeU48(scratch, write.first, 16)
    scratch.writeUInt32LE(write.count, 22)
    scratch.writeUInt32LE(present, 26)
    writeU48(scratch, firstRecord, 30)
    scratch.writeUInt32LE(inlineBytes, 36)
    name.copy(scratch, FIXED_BYTES)
    if (hasBitmap) scratch.set(write.present.subarray(0, bitmapBytes(write.count)), FIXED_BYTES + name.length)
    scratch.writeUInt32LE(headerCrc(key, scratch, headerBytes), 4)
    this.#used += at
    return { value: scratch.subarray(0, at), present, recordBytes: inlineBytes + sharedBytes, bodyParts }
  }

  /** Room for one value behind those handed out; `begun`: its beginning, which must be there. */
  #reserve(bytes: number, begun: Buffer | null): Buffer {
    if (this.#used + bytes > this.#memory.length) {
      this.#memory = Buffer.allocUnsafeSlow(Math.max(bytes, KEPT_BYTES))
      this.#used = 0
      if (begun !== null) begun.copy(this.#memory)
    }
    return this.#memory.subarray(this.#used)
  }
}

export interface SegmentHeader {
  readonly queue: number
  readonly name: string
  readonly first: number
  readonly count: number
  readonly present: number
  readonly firstRecord: number
  readonly headerBytes: number
  readonly inlineBytes: number
  readonly presentBitmap: Buffer | null
  readonly tableAt: number
}

/** null: damaged. */
export function readSegmentHeader(key: Buffer, value: Buffer): SegmentHeader | null {
  if (value.length < FIXED_BYTES || value[0] !== VERSION) return null
  const headerBytes = value.readUInt32LE(8)
  if (headerBytes < FIXED_BYTES || headerBytes > value.length) return null
  if (value.readUInt32LE(4) !== headerCrc(key, value, headerBytes)) return null
  const nameBytes = value.readUInt16LE(2)
  const count = value.readUInt32LE(22)
  const bitmapAt = FIXED_BYTES + nameBytes
  const hasBitmap = ((value[1] ?? 0) & FLAG_BITMAP) !== 0
  const tableAt = bitmapAt + (hasBitmap ? bitmapBytes(count) : 0)
  return {
    queue: value.readUInt32LE(12),
    name: value.toString('utf8', FIXED_BYTES, bitmapAt),
    first: readU48(value, 16),
    count,
    present: value.readUInt32LE(26),
    firstRecord: readU48(value, 30),
    headerBytes,
    inlineBytes: value.readUInt32LE(36),
    presentBitmap: hasBitmap ? value.subarray(bitmapAt, tableAt) : null,
    tableAt,
  }
}

export interface SegmentEntries {
  /** Offset of the record in the value, or in its part of the shared bodies; ABSENT: none. */
  readonly offsets: Uint32Array
  readonly lengths: Uint32Array
  readonly notes: Uint8Array
  /** Part of the shared bodies of each entry, 0: in the value itself; null: none is shared. */
  readonly parts: Uint16Array | null
}

/** Where the entries of a segment are; what is settled is left out. Checks no record. */
export function readSegmentEntries(value: Buffer, header: SegmentHeader, settled: Uint8Array | null): SegmentEntries {
  const { count, presentBitmap } = header
  const offsets = new Uint32Array(count).fill(ABSENT)
  const lengths = new Uint32Array(count)
  const notes = new Uint8Array(count)
  let parts: Uint16Array | null = null
  let at = header.tableAt
  let recordAt = header.headerBytes
  for (let entry = 0; entry < count; entry++) {
    if (presentBitmap !== null && !hasBit(presentBitmap, entry)) continue
    const note = value[at++] ?? 0
    let code = value[at++] ?? 0
    if (code >= 0x80) {
      code &= 0x7f
      let scale = 0x80
      let byte: number
      do {
        byte = value[at++] ?? 0
        code += (byte & 0x7f) * scale
        scale *= 0x80
      } while (byte >= 0x80)
    }
    const isShared = (code & 1) !== 0
    const length = (code - (code & 1)) / 2
    let part = 0
    let offset = recordAt
    if (isShared) {
      const partEnd = varintEnd(value, at)
      part = readVarint(value, at, partEnd)
      const offsetEnd = varintEnd(value, partEnd)
      offset = readVarint(value, partEnd, offsetEnd)
      at = offsetEnd
    } else {
      recordAt += length
    }
    if (settled !== null && hasBit(settled, entry)) continue
    offsets[entry] = offset
    lengths[entry] = length
    notes[entry] = note
    if (isShared) {
      parts ??= new Uint16Array(count)
      parts[entry] = part
    }
  }
  return { offsets, lengths, notes, parts }
}

/** Parts of the shared bodies a segment refers to. */
export function readBodyParts(value: Buffer, header: SegmentHeader): number[] {
  const { parts } = readSegmentEntries(value, header, null)
  return parts === null ? [] : [...new Set(parts)].filter(part => part !== 0)
}

/**
 * True if the record at `at` is as it was written. Its length comes from the segment's table, which has its own CRC; a damaged length field in
 * the record itself is put right.
 */
export function checkRecord(bytes: Buffer, at: number, length: number): boolean {
  if (length < 8 || at + length > bytes.length) return false
  const crc =
    ((bytes[at + 4] ?? 0) |
      ((bytes[at + 5] ?? 0) << 8) |
      ((bytes[at + 6] ?? 0) << 16) |
      ((bytes[at + 7] ?? 0) << 24)) >>>
    0
  if (crc32c(bytes, at + 8, at + length) !== crc) return false
  bytes[at] = length
  bytes[at + 1] = length >>> 8
  bytes[at + 2] = length >>> 16
  bytes[at + 3] = length >>> 24
  return true
}

function headerCrc(key: Buffer, value: Buffer, headerBytes: number): number {
  return crc32c(value, 8, headerBytes, crc32c(value, 0, 4, crc32c(key, 0, key.length)))
}

function writeVarint(target: Buffer, at: number, value: number): number {
  let rest = value
  let to = at
  while (rest >= 0x80) {
    target[to++] = (rest % 0x80) | 0x80
    rest = Math.floor(rest / 0x80)
  }
  target[to++] = rest
  return to
}
function varintEnd(bytes: Buffer, at: number): number {
  let end = at
  while ((bytes[end] ?? 0) >= 0x80) end++
  return end + 1
}
function readVarint(bytes: Buffer, at: number, end: number): number {
  let value = 0
  for (let from = end - 1; from >= at; from--) value = value * 0x80 + ((bytes[from] ?? 0) & 0x7f)
  return value
}
