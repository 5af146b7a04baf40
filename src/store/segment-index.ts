/*
 * The index of segments: one entry in state/ per segment that still holds something unsettled. It carries the settled marks, so
 * that log/ is never rewritten.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md).
 *
 *   varints: first position, count, entries present, bytes of its records when read back, record number of the first entry present, number of parts of shared bodies it
 *   refers to, and these; then a bitmap of what is settled (count bits), only if some is
 */
import { bitmapBytes, countBits, readVarints, writeVarint } from './bytes.ts'

const NUMBERS = 6
/** The longest varint of 49 bits. */
const MAX_VARINT_BYTES = 7

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
  const { first, count, present, bytes, firstRecord, bodyParts } = entry
  const settled = entry.settled?.subarray(0, bitmapBytes(count)) ?? NONE_SETTLED
  const value = Buffer.allocUnsafe((NUMBERS + bodyParts.length) * MAX_VARINT_BYTES + settled.length)
  let at = 0
  for (const number of [first, count, present, bytes, firstRecord, bodyParts.length])
    at = writeVarint(value, at, number)
  for (const part of bodyParts) at = writeVarint(value, at, part)
  value.set(settled, at)
  return value.subarray(0, at + settled.length)
}

/** null: damaged. */
export function decodeIndexEntry(value: Buffer): IndexEntry | null {
  const { values, end: partsAt } = readVarints(value, 0, NUMBERS)
  const [first = 0, count = 0, present = 0, bytes = 0, firstRecord = 0, partCount = 0] = values
  // Each takes a byte at least.
  if (partCount > value.length - partsAt) return null
  const { values: bodyParts, end } = readVarints(value, partsAt, partCount)
  if (value.length !== end && value.length !== end + bitmapBytes(count)) return null
  const settled = value.length === end ? null : value.subarray(end)
  return { first, count, present, bytes, firstRecord, bodyParts, settled }
}

const NONE_SETTLED = new Uint8Array(0)

/** Entries that still need delivery. */
export function unsettledOf(entry: IndexEntry): number {
  return entry.settled === null ? entry.present : entry.count - countBits(entry.settled, entry.count)
}
