/*
 * The index of segments: one entry in state/ per segment that still holds something unsettled. It carries the settled marks, so
 * that log/ is never rewritten.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md).
 *
 *   off size   little-endian
 *     0   6  first position
 *     6   4  count
 *    10   4  entries present
 *    14   4  bytes of its records when read back
 *    18   6  record number of the first entry present
 *    24   2  number of parts of shared bodies it refers to; then 2 bytes for each
 *     …   …  bitmap of what is settled (count bits), only if some is
 */
import { bitmapBytes, countBits, readU48, writeU48 } from './bytes.ts'

const FIXED_BYTES = 26

export interface IndexEntry {
  readonly first: number
  readonly count: number
  readonly present: number
  readonly bytes: number
  readonly firstRecord: number
  readonly bodyParts: readonly number[]
  /** null: nothing is settled beyond what was never written. */
  readonly settled: Uint8Array | null
}

export function encodeIndexEntry(entry: IndexEntry): Buffer {
  const partsAt = FIXED_BYTES
  const bitmapAt = partsAt + entry.bodyParts.length * 2
  const value = Buffer.alloc(bitmapAt + (entry.settled === null ? 0 : bitmapBytes(entry.count)))
  writeU48(value, entry.first, 0)
  value.writeUInt32LE(entry.count, 6)
  value.writeUInt32LE(entry.present, 10)
  value.writeUInt32LE(entry.bytes, 14)
  writeU48(value, entry.firstRecord, 18)
  value.writeUInt16LE(entry.bodyParts.length, 24)
  let at = partsAt
  for (const part of entry.bodyParts) at = value.writeUInt16LE(part, at)
  if (entry.settled !== null) value.set(entry.settled.subarray(0, bitmapBytes(entry.count)), bitmapAt)
  return value
}

/** null: damaged. */
export function decodeIndexEntry(value: Buffer): IndexEntry | null {
  if (value.length < FIXED_BYTES) return null
  const count = value.readUInt32LE(6)
  const partCount = value.readUInt16LE(24)
  const bitmapAt = FIXED_BYTES + partCount * 2
  if (value.length !== bitmapAt && value.length !== bitmapAt + bitmapBytes(count)) return null
  const bodyParts: number[] = []
  for (let at = FIXED_BYTES; at < bitmapAt; at += 2) bodyParts.push(value.readUInt16LE(at))
  return {
    first: readU48(value, 0),
    count,
    present: value.readUInt32LE(10),
    bytes: value.readUInt32LE(14),
    firstRecord: readU48(value, 18),
    bodyParts,
    settled: value.length === bitmapAt ? null : value.subarray(bitmapAt),
  }
}

/** Entries that still need delivery. */
export function unsettledOf(entry: IndexEntry): number {
  return entry.settled === null ? entry.present : entry.count - countBits(entry.settled, entry.count)
}
