/*
 * The head of a record: what messages of one publisher to one topic have in common. On disk a head is kept once per segment, so that a message
 * costs little more than its properties and payload.
 *
 * A head is bytes 8..10, 16..20 and 26 to the end of the names of the record (message.ts): all before history and properties but length, CRC, seq and
 * accepted-at, which every message has for itself.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md).
 */
import { writeU32, writeU48 } from './bytes.ts'
import { recordNamesEnd } from './message.ts'

const FLAGS_AT = 8
const BOOT_AT = 16
const NAMES_AT = 26
/** Length, CRC, seq, accepted-at. */
export const OWN_BYTES = 20
const HEAD_FIXED_BYTES = 6

/** Bytes of the record's head. */
export const headBytes = (bytes: Buffer, at: number): number => recordNamesEnd(bytes, at) - at - OWN_BYTES

/** Writes the head of the record at `at`, `length` bytes long; returns the offset behind it. */
export function packHead(bytes: Buffer, at: number, length: number, target: Buffer, to: number): number {
  bytes.copy(target, to, at + FLAGS_AT, at + FLAGS_AT + 2)
  bytes.copy(target, to + 2, at + BOOT_AT, at + BOOT_AT + 4)
  bytes.copy(target, to + HEAD_FIXED_BYTES, at + NAMES_AT, at + OWN_BYTES + length)
  return to + length
}

/** Whether the record at `at` has the head of `length` bytes that stands at `headAt`. */
export function hasHead(bytes: Buffer, at: number, heads: Buffer, headAt: number, length: number): boolean {
  if (
    bytes[at + 8] !== heads[headAt] ||
    bytes[at + 9] !== heads[headAt + 1] ||
    bytes[at + 16] !== heads[headAt + 2] ||
    bytes[at + 17] !== heads[headAt + 3] ||
    bytes[at + 18] !== heads[headAt + 4] ||
    bytes[at + 19] !== heads[headAt + 5]
  ) {
    return false
  }
  const shift = at + OWN_BYTES - headAt
  const end = headAt + length
  for (let i = headAt + HEAD_FIXED_BYTES; i < end; i++) if (heads[i] !== bytes[i + shift]) return false
  return true
}

/** A hash of the record's head of `length` bytes: equal for equal heads. FNV-1a, 32 bits. */
export function hashHead(bytes: Buffer, at: number, length: number): number {
  let hash = (bytes[at + 8] ?? 0) | ((bytes[at + 9] ?? 0) << 8) | ((bytes[at + 16] ?? 0) << 16)
  const end = at + OWN_BYTES + length
  for (let i = at + NAMES_AT; i < end; i++) hash = Math.imul(hash ^ (bytes[i] ?? 0), 0x0100_0193)
  return hash
}

/** What every message has for itself beside history, properties and payload. */
export interface OwnFields {
  /** Of the whole record. */
  readonly length: number
  readonly crc: number
  readonly seq: number
  readonly acceptedAt: number
}

/** Writes all of a record before history and properties; the caller adds these and the payload. Returns the offset behind it. */
export function unpackHead(
  target: Buffer,
  at: number,
  heads: Buffer,
  headAt: number,
  length: number,
  own: OwnFields,
): number {
  writeU32(target, at, own.length)
  writeU32(target, at + 4, own.crc)
  heads.copy(target, at + FLAGS_AT, headAt, headAt + 2)
  writeU48(target, at + 10, own.seq)
  heads.copy(target, at + BOOT_AT, headAt + 2, headAt + HEAD_FIXED_BYTES)
  writeU48(target, at + 20, own.acceptedAt)
  heads.copy(target, at + NAMES_AT, headAt + HEAD_FIXED_BYTES, headAt + length)
  return at + OWN_BYTES + length
}
