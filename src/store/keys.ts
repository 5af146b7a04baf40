/*
 * Keys of the two LevelDBs. All fixed width and big-endian, so that order on disk is order in time.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md). A change is a new store format version.
 *
 * log/ (14 bytes: commit u64, queue u32, part u16)
 *   (0, 0, 0)              format version
 *   (commit, 0, 0)         delta of the commit
 *   (commit, 0, 1…65534)   bodies shared by several queues' segments of the commit
 *   (commit, 0, 65535)     boot record, in the first commit of each process start
 *   (commit, queue, part)  segment of a queue; queue numbers begin with 1
 *
 * state/ (one prefix byte, then the rest)
 *   the store's own: f format, c checkpoint, s segment index, r reference counts, b boot records
 *   core's own: see StatePrefix
 */
import type { SegmentRef } from './types.ts'

/** First byte of every key of core's own records in state/. The store knows nothing of what lies behind it. */
export const StatePrefix = {
  /** Queues, exchanges, bindings as declared. */
  definition: 'd'.charCodeAt(0),
  /** One ledger per queue. */
  ledger: 'l'.charCodeAt(0),
  /** Sessions with their subscriptions and packet ids. */
  session: 'n'.charCodeAt(0),
  /** Last value per topic. */
  retained: 't'.charCodeAt(0),
  /** Wills that wait for their delay. */
  will: 'w'.charCodeAt(0),
  /** Messages waiting for a retry: attempts and not_before, by queue and position. */
  retry: 'y'.charCodeAt(0),
  /** Read positions in streams. */
  cursor: 'u'.charCodeAt(0),
} as const

const OWN_PREFIXES = new Set([...'fcsrb'].map(letter => letter.charCodeAt(0)))

/** True for keys that only the store itself may write. */
export const isOwnStateKey = (key: Uint8Array): boolean => OWN_PREFIXES.has(key[0] ?? 0)

const LOG_KEY_BYTES = 14
export const BOOT_PART = 0xffff
/** Shared bodies of one commit: parts 1 to 65534. */
export const MAX_BODY_PART = 0xfffe

const U32 = 0x1_0000_0000
const PREFIX_SEGMENT = 's'.charCodeAt(0)
const PREFIX_REFERENCES = 'r'.charCodeAt(0)
const PREFIX_BOOT = 'b'.charCodeAt(0)

export interface LogKey {
  readonly commit: number
  readonly queue: number
  readonly part: number
}

export const LOG_FORMAT_KEY = logKey(0, 0, 0)
export const STATE_FORMAT_KEY = Buffer.from('f')
export const STATE_CHECKPOINT_KEY = Buffer.from('c')

export function logKey(commit: number, queue: number, part: number): Buffer {
  const key = Buffer.allocUnsafe(LOG_KEY_BYTES)
  writeCommit(key, commit, 0)
  key.writeUInt32BE(queue, 8)
  key.writeUInt16BE(part, 12)
  return key
}

/** null if these bytes are no key of log/. */
export function parseLogKey(key: Buffer): LogKey | null {
  if (key.length !== LOG_KEY_BYTES || key.readUInt32BE(0) > 0x1f_ffff) return null
  return { commit: readCommit(key, 0), queue: key.readUInt32BE(8), part: key.readUInt16BE(12) }
}

export function segmentIndexKey(queue: number, ref: SegmentRef): Buffer {
  const key = Buffer.allocUnsafe(15)
  key[0] = PREFIX_SEGMENT
  key.writeUInt32BE(queue, 1)
  writeCommit(key, ref.commit, 5)
  key.writeUInt16BE(ref.part, 13)
  return key
}

/** null if these bytes are no key of the segment index. */
export function parseSegmentIndexKey(key: Buffer): LogKey | null {
  if (key.length !== 15 || key[0] !== PREFIX_SEGMENT || key.readUInt32BE(5) > 0x1f_ffff) return null
  return { queue: key.readUInt32BE(1), commit: readCommit(key, 5), part: key.readUInt16BE(13) }
}

/** Bounds of all index keys of one queue; of all queues if `queue` is null. */
export function segmentIndexRange(queue: number | null): { gte: Buffer; lt: Buffer } {
  if (queue === null) return prefixRange(Buffer.from([PREFIX_SEGMENT]))
  const prefix = Buffer.allocUnsafe(5)
  prefix[0] = PREFIX_SEGMENT
  prefix.writeUInt32BE(queue, 1)
  return prefixRange(prefix)
}

/** Reference count of the shared bodies at log key (commit, 0, part). */
export function referencesKey(commit: number, part: number): Buffer {
  const key = Buffer.allocUnsafe(11)
  key[0] = PREFIX_REFERENCES
  writeCommit(key, commit, 1)
  key.writeUInt16BE(part, 9)
  return key
}

export function parseReferencesKey(key: Buffer): { commit: number; part: number } | null {
  if (key.length !== 11 || key[0] !== PREFIX_REFERENCES || key.readUInt32BE(1) > 0x1f_ffff) return null
  return { commit: readCommit(key, 1), part: key.readUInt16BE(9) }
}

export const REFERENCES_RANGE = prefixRange(Buffer.from([PREFIX_REFERENCES]))

export function bootKey(boot: number): Buffer {
  const key = Buffer.allocUnsafe(5)
  key[0] = PREFIX_BOOT
  key.writeUInt32BE(boot, 1)
  return key
}

export function parseBootKey(key: Buffer): number | null {
  return key.length === 5 && key[0] === PREFIX_BOOT ? key.readUInt32BE(1) : null
}

export const BOOT_RANGE = prefixRange(Buffer.from([PREFIX_BOOT]))

/** Bounds of all keys that begin with `prefix`. */
export function prefixRange(prefix: Buffer): { gte: Buffer; lt: Buffer } {
  const lt = Buffer.from(prefix)
  let at = lt.length - 1
  while (at >= 0 && lt[at] === 0xff) at--
  if (at < 0) throw new TypeError('a state prefix needs a byte below 255')
  lt[at] = (lt[at] ?? 0) + 1
  return { gte: prefix, lt: lt.subarray(0, at + 1) }
}

function writeCommit(key: Buffer, commit: number, at: number): void {
  key.writeUInt32BE(Math.floor(commit / U32), at)
  key.writeUInt32BE(commit % U32, at + 4)
}
function readCommit(key: Buffer, at: number): number {
  return key.readUInt32BE(at) * U32 + key.readUInt32BE(at + 4)
}
