/*
 * The delta of a commit: everything the commit changes in state/, one value in log/ under (commit, 0, 0). state/ is a materialized view:
 * applying the deltas in order, once or ten times, gives the same state, because every operation carries absolute values.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md).
 *
 *   off size   little-endian
 *     0   1  version (1)
 *     1   3  zero
 *     4   4  CRC32C of the key in log/, bytes 0..4 and 8..end
 *     8   6  record number of the first record of this commit
 *    14   4  records of this commit
 *    18   6  unsettled entries in the whole store after this commit
 *    24   4  boot that wrote it
 *    28   4  operations
 *    32   …  per operation: varints key length, value length + 1 or 0 to delete; key, value
 */
import { readU48, readVarint, writeU48, writeVarint } from './bytes.ts'
import { crc32c } from './crc32c.ts'
import type { StateChange } from './types.ts'

const VERSION = 1
const FIXED_BYTES = 32
/** The longest two varints of 32 bits. */
const MAX_LENGTHS_BYTES = 10

export interface Delta {
  readonly firstRecord: number
  readonly records: number
  readonly unsettled: number
  readonly boot: number
  readonly changes: readonly StateChange[]
}

export function encodeDelta(key: Buffer, delta: Delta): Buffer {
  let mostBytes = FIXED_BYTES
  for (const { key, value } of delta.changes) mostBytes += MAX_LENGTHS_BYTES + key.length + (value?.length ?? 0)
  const memory = Buffer.allocUnsafe(mostBytes)
  let at = FIXED_BYTES
  for (const { key, value } of delta.changes) {
    at = writeVarint(memory, at, key.length)
    at = writeVarint(memory, at, value === null ? 0 : value.length + 1)
    at += key.copy(memory, at)
    if (value !== null) at += value.copy(memory, at)
  }
  const bytes = memory.subarray(0, at)
  bytes.writeUInt32LE(VERSION, 0)
  writeU48(bytes, delta.firstRecord, 8)
  bytes.writeUInt32LE(delta.records, 14)
  writeU48(bytes, delta.unsettled, 18)
  bytes.writeUInt32LE(delta.boot, 24)
  bytes.writeUInt32LE(delta.changes.length, 28)
  bytes.writeUInt32LE(deltaCrc(key, bytes), 4)
  return bytes
}

/** null: damaged. Keys and values are slices of `bytes`. */
export function decodeDelta(key: Buffer, bytes: Buffer): Delta | null {
  if (bytes.length < FIXED_BYTES || bytes[0] !== VERSION || bytes.readUInt32LE(4) !== deltaCrc(key, bytes)) return null
  const changes: StateChange[] = []
  let at = FIXED_BYTES
  for (let left = bytes.readUInt32LE(28); left > 0; left--) {
    const keyBytes = readVarint(bytes, at)
    const { value: valueCode, end: keyAt } = readVarint(bytes, keyBytes.end)
    const keyEnd = keyAt + keyBytes.value
    const valueEnd = keyEnd + (valueCode === 0 ? 0 : valueCode - 1)
    changes.push({
      key: bytes.subarray(keyAt, keyEnd),
      value: valueCode === 0 ? null : bytes.subarray(keyEnd, valueEnd),
    })
    at = valueEnd
  }
  return {
    firstRecord: readU48(bytes, 8),
    records: bytes.readUInt32LE(14),
    unsettled: readU48(bytes, 18),
    boot: bytes.readUInt32LE(24),
    changes,
  }
}

function deltaCrc(key: Buffer, bytes: Buffer): number {
  return crc32c(bytes, 8, bytes.length, crc32c(bytes, 0, 4, crc32c(key, 0, key.length)))
}
