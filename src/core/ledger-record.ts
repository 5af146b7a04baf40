/*
 * What the disk remembers of a queue or a stream beside its messages: the ledger, and of each lane where it ends. It is written with every commit that touches the
 * queue, and is all that a start reads of it: hence short.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md). In state/ under `l` + number (u32 BE): a version byte, then varints, words behind their length.
 *
 *   version (1 byte, 1)
 *   accepted, settled, queued, expired, owed
 *   how many reasons, and for each: word, dropped for it; the same again: word, dead-lettered for it
 *   how many lanes, and for each, in order of priority: messages, bytes, next, delivered, commit and part of its newest segment (0, 0: none)
 */
import { BrokerError } from '../model/error.ts'
import { readVarint, writeVarint } from '../store/bytes.ts'
import { StatePrefix } from '../store/keys.ts'
import type { SegmentRef } from '../store/types.ts'
import type { PersistentFigures } from './ledger.ts'

export interface LaneRecord {
  /** Not settled, and bytes of their records. */
  readonly messages: number
  readonly bytes: number
  /** The position the next message gets. */
  readonly next: number
  /** Nothing from this position on had been delivered. */
  readonly delivered: number
  /** No segment lies behind it; the segment itself may be gone. Null: there is none. */
  readonly last: SegmentRef | null
}

export interface LedgerRecord {
  readonly figures: PersistentFigures
  /** The most messages that may have been acknowledged and not written since (owed.ts). */
  readonly owed: number
  /** By priority; at least one. */
  readonly lanes: readonly LaneRecord[]
}

export const LEDGERS = Buffer.from([StatePrefix.ledger])

const VERSION = 1
/** The longest record: 16 lanes, all reasons there are, every number at its largest. */
const MOST_BYTES = 4096
const scratch = Buffer.alloc(MOST_BYTES)

export function encodeLedgerRecord({ figures, owed, lanes }: LedgerRecord): Buffer {
  scratch[0] = VERSION
  let at = 1
  for (const figure of [figures.accepted, figures.settled, figures.queued, figures.expired, owed]) {
    at = writeVarint(scratch, at, figure)
  }
  at = writeCounts(at, figures.dropped)
  at = writeCounts(at, figures.dead_lettered)
  at = writeVarint(scratch, at, lanes.length)
  for (const { messages, bytes, next, delivered, last } of lanes) {
    at = writeVarint(scratch, at, messages)
    at = writeVarint(scratch, at, bytes)
    at = writeVarint(scratch, at, next)
    at = writeVarint(scratch, at, delivered)
    at = writeVarint(scratch, at, last?.commit ?? 0)
    at = writeVarint(scratch, at, last?.part ?? 0)
  }
  return Buffer.from(scratch.subarray(0, at))
}

function writeCounts(begin: number, counts: Readonly<Record<string, number>>): number {
  const entries = Object.entries(counts)
  let at = writeVarint(scratch, begin, entries.length)
  for (const [reason, count] of entries) {
    at = writeVarint(scratch, at, reason.length)
    at += scratch.write(reason, at, 'latin1')
    at = writeVarint(scratch, at, count)
  }
  return at
}

/** @throws BrokerError STORE_FORMAT_UNKNOWN if a later version wrote it. */
export function decodeLedgerRecord(value: Buffer): LedgerRecord {
  const version = value[0] ?? 0
  if (version !== VERSION) {
    throw new BrokerError(
      'STORE_FORMAT_UNKNOWN',
      `The store has a ledger of version ${version}, this version of Sluice reads version ${VERSION}: run the version that wrote it, or choose another data_dir`,
      { facts: { version } },
    )
  }
  let at = 1
  const number = (): number => {
    const { value: read, end } = readVarint(value, at)
    at = end
    return read
  }
  const counts = (): Record<string, number> => {
    const found: [string, number][] = []
    for (let left = number(); left > 0; left--) {
      const bytes = number()
      at += bytes
      found.push([value.toString('latin1', at - bytes, at), number()])
    }
    return Object.fromEntries(found)
  }
  const [accepted, settled, queued, expired, owed] = [number(), number(), number(), number(), number()]
  const figures = { accepted, settled, queued, expired, dropped: counts(), dead_lettered: counts() }
  const lanes: LaneRecord[] = []
  for (let left = number(); left > 0; left--) {
    const [messages, bytes, next, delivered] = [number(), number(), number(), number()]
    const ref = { commit: number(), part: number() }
    lanes.push({ messages, bytes, next, delivered, last: ref.commit === 0 ? null : ref })
  }
  return { figures, owed, lanes }
}

/** Of the queue or stream of this number, which is that of its lane of priority 0. */
export function ledgerKey(number: number): Buffer {
  const key = Buffer.allocUnsafe(5)
  key[0] = StatePrefix.ledger
  key.writeUInt32BE(number, 1)
  return key
}

export const ledgerNumber = (key: Buffer): number => key.readUInt32BE(1)
