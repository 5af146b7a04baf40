/*
 * Reads write-ahead files and MANIFESTs of LevelDB without LevelDB: both are log files.
 *
 * Log file: blocks of 32 KiB with records of masked CRC32C (4), length (2), type (1: whole; 2, 3, 4: first, middle, last part), data.
 * MANIFEST: each record is an edit, a row of tagged fields. What all edits add up to is what LevelDB relies on: which tables, and the oldest
 * write-ahead file it needs. Any other table is what a crash left of a flush or a compaction; LevelDB deletes it when it opens.
 */
import { crc32c } from './crc32c.ts'
import { unmaskCrc } from './level-table.ts'

export const BLOCK_BYTES = 32 * 1024
export const HEADER_BYTES = 7
export const WHOLE = 1
export const FIRST = 2
export const MIDDLE = 3
export const LAST = 4

export interface LogFileScan {
  /** Sound records, put together from their parts. */
  readonly records: readonly Buffer[]
  /** A sound record lies behind a damaged one. */
  readonly isBroken: boolean
  /** It ends in something that is no record. */
  readonly isTorn: boolean
}

export function scanLogFile(bytes: Buffer): LogFileScan {
  const records: Buffer[] = []
  let parts: Buffer[] = []
  let isTorn = false
  let isBroken = false
  for (let block = 0; block < bytes.length; block += BLOCK_BYTES) {
    const end = Math.min(block + BLOCK_BYTES, bytes.length)
    let at = block
    while (at + HEADER_BYTES <= end) {
      const type = bytes[at + 6] ?? 0
      const next = at + HEADER_BYTES + bytes.readUInt16LE(at + 4)
      const isSound =
        type >= WHOLE &&
        type <= LAST &&
        next <= end &&
        unmaskCrc(bytes.readUInt32LE(at)) === crc32c(bytes, at + 6, next)
      if (!isSound) {
        isTorn = true
        break
      }
      if (isTorn) isBroken = true
      if (type === WHOLE || type === FIRST) parts = []
      parts.push(bytes.subarray(at + HEADER_BYTES, next))
      if (type === WHOLE || type === LAST) {
        records.push(Buffer.concat(parts))
        parts = []
      }
      at = next
    }
    if (at < end && end - at < HEADER_BYTES && end < block + BLOCK_BYTES) isTorn = true
  }
  return { records, isBroken, isTorn: isTorn || parts.length > 0 }
}

export interface Version {
  /** Number of each table LevelDB relies on → its size. */
  readonly tables: ReadonlyMap<number, number>
  /** The oldest write-ahead file it needs; 0: none. */
  readonly logNumber: number
}

const Tag = {
  comparator: 1,
  logNumber: 2,
  nextFile: 3,
  lastSequence: 4,
  compactPointer: 5,
  deletedFile: 6,
  newFile: 7,
  previousLog: 9,
} as const

/** What the edits add up to; null: they make no sense. */
export function readVersion(edits: readonly Buffer[]): Version | null {
  const tables = new Map<number, number>()
  let logNumber = 0
  for (const edit of edits) {
    let at = 0
    const number = (): number => {
      let value = 0
      for (let scale = 1; ; scale *= 0x80) {
        const byte = edit[at++]
        if (byte === undefined || scale > 2 ** 63) return Number.NaN
        value += (byte & 0x7f) * scale
        if (byte < 0x80) return value
      }
    }
    const skipBytes = () => {
      const length = number()
      at += length
    }
    while (at < edit.length) {
      switch (number()) {
        case Tag.comparator:
          skipBytes()
          break
        case Tag.logNumber:
          logNumber = number()
          break
        case Tag.nextFile:
        case Tag.lastSequence:
        case Tag.previousLog:
          number()
          break
        case Tag.compactPointer:
          number()
          skipBytes()
          break
        case Tag.deletedFile:
          number()
          tables.delete(number())
          break
        case Tag.newFile:
          number()
          tables.set(number(), number())
          skipBytes()
          skipBytes()
          break
        default:
          return null
      }
      if (!(at <= edit.length)) return null
    }
  }
  return { tables, logNumber }
}
