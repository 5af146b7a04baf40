/*
 * Makes a damaged write-ahead file of LevelDB fit for its repair, which takes records without looking at their CRC: a batch whose header is zero or
 * garbage may claim a sequence number another one has, and then an assertion of LevelDB ends the process, at every start anew.
 *
 * A record (level-manifest.ts has the layout of the file) is a batch: sequence number of its first operation (8), number of operations (4), operations,
 * each with the next sequence number: kind (1: put, 0: deletion), key, and for a put the value, both behind their length (varint).
 */
import { crc32c } from './crc32c.ts'
import { BLOCK_BYTES, FIRST, HEADER_BYTES, LAST, MIDDLE, WHOLE } from './level-manifest.ts'
import { maskCrc, unmaskCrc } from './level-table.ts'

const BATCH_HEADER_BYTES = 12
const KIND_DELETION = 0
const KIND_PUT = 1
/** LevelDB has 56 bits for sequence numbers; nobody gets that far. */
const MAX_SEQUENCE = Number.MAX_SAFE_INTEGER

interface Batch {
  readonly bytes: Buffer
  readonly isSound: boolean
  /** Of its first operation. */
  readonly sequence: number
  /** Behind its last operation. */
  readonly end: number
}

/**
 * The same file with the batches that fit together: sound ones in ascending order, and of damaged ones those that are whole and in their place between
 * the sound ones. So a flipped bit in a value costs that value only.
 */
export function withoutGarbage(bytes: Buffer): Buffer {
  const batches = readBatches(bytes)
  const kept: Buffer[] = []
  let end = 0
  for (const [n, batch] of batches.entries()) {
    if (batch.sequence < end) continue
    if (!batch.isSound) {
      const next = batches.slice(n + 1).find(({ isSound, sequence }) => isSound && sequence >= end)
      // Nothing behind it says how far it may reach, so it must follow on what is before it.
      if (next === undefined ? end > 0 && batch.sequence !== end : batch.end > next.sequence) continue
    }
    kept.push(batch.bytes)
    end = batch.end
  }
  return logFileOf(kept)
}

/** Every record that is a batch from its first byte to its last, sound or not. */
function readBatches(bytes: Buffer): Batch[] {
  const batches: Batch[] = []
  let parts: Buffer[] = []
  let isSound = true
  for (let block = 0; block < bytes.length; block += BLOCK_BYTES) {
    const blockEnd = Math.min(block + BLOCK_BYTES, bytes.length)
    for (let at = block; at + HEADER_BYTES <= blockEnd; ) {
      const type = bytes[at + 6] ?? 0
      const next = at + HEADER_BYTES + bytes.readUInt16LE(at + 4)
      if (type < WHOLE || type > LAST || next > blockEnd) {
        parts = []
        break
      }
      const isPartSound = unmaskCrc(bytes.readUInt32LE(at)) === crc32c(bytes, at + 6, next)
      const isBeginning = type === WHOLE || type === FIRST
      if (isBeginning) parts = []
      isSound = isPartSound && (isBeginning || isSound)
      // The rest of a record whose beginning is lost is none.
      if (isBeginning || parts.length > 0) parts.push(bytes.subarray(at + HEADER_BYTES, next))
      if ((type === WHOLE || type === LAST) && parts.length > 0) {
        const batch = readBatch(Buffer.concat(parts), isSound)
        if (batch !== null) batches.push(batch)
        parts = []
      }
      at = next
    }
  }
  return batches
}

/** null: its operations are not as many as it says. */
function readBatch(bytes: Buffer, isSound: boolean): Batch | null {
  if (bytes.length < BATCH_HEADER_BYTES) return null
  const sequence = Number(bytes.readBigUInt64LE(0))
  const count = bytes.readUInt32LE(8)
  if (sequence + count > MAX_SEQUENCE) return null
  let at = BATCH_HEADER_BYTES
  const skip = () => {
    let length = 0
    for (let scale = 1; ; scale *= 0x80) {
      const byte = bytes[at++]
      if (byte === undefined) return
      length += (byte & 0x7f) * scale
      if (byte < 0x80) break
    }
    at += length
  }
  let operations = 0
  for (; at < bytes.length; operations++) {
    const kind = bytes[at++]
    if (kind !== KIND_PUT && kind !== KIND_DELETION) return null
    skip()
    if (kind === KIND_PUT) skip()
  }
  return at === bytes.length && operations === count ? { bytes, isSound, sequence, end: sequence + count } : null
}

/** A file with these records. */
function logFileOf(records: readonly Buffer[]): Buffer {
  const pieces: Buffer[] = []
  let room = BLOCK_BYTES
  for (const record of records) {
    for (let from = 0, isFirst = true; isFirst || from < record.length; isFirst = false) {
      if (room < HEADER_BYTES) {
        pieces.push(Buffer.alloc(room))
        room = BLOCK_BYTES
      }
      const to = Math.min(record.length, from + room - HEADER_BYTES)
      const isLast = to === record.length
      const piece = Buffer.alloc(HEADER_BYTES + to - from)
      piece.writeUInt16LE(to - from, 4)
      piece[6] = isFirst ? (isLast ? WHOLE : FIRST) : isLast ? LAST : MIDDLE
      record.copy(piece, HEADER_BYTES, from, to)
      piece.writeUInt32LE(maskCrc(crc32c(piece, 6, piece.length)), 0)
      pieces.push(piece)
      room -= piece.length
      from = to
    }
  }
  return Buffer.concat(pieces)
}
