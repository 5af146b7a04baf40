import pino from 'pino'
import { encodeRecord, type Message, recordSeq } from '../../src/model/message.ts'
import type { CreateLevel } from '../../src/store/level.ts'
import { Store, type StoreOptions } from '../../src/store/store.ts'
import { ABSENT, type Commit, type LoadedSegment, type SegmentRef, type SegmentWrite } from '../../src/store/types.ts'

const silentLog = pino({ level: 'silent' })

function storeOptions(directory: string, changes: Partial<StoreOptions> = {}): StoreOptions {
  return {
    directory,
    gateway: 'gw-test',
    diskBytes: 8 * 1024 ** 3,
    diskFreeMinBytes: 0,
    log: silentLog,
    wallMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    ...changes,
  }
}

export const openStore = (
  directory: string,
  changes: Partial<StoreOptions> = {},
  create?: CreateLevel,
): Promise<Store> =>
  create === undefined
    ? Store.open(storeOptions(directory, changes))
    : Store.open(storeOptions(directory, changes), create)

export const MESSAGE: Message = {
  exchange: 'mqtt',
  key: 'sensors/7/temperature',
  qos: 1,
  retain: false,
  dup: false,
  priority: 0,
  clientId: 'device-7',
  user: '',
  expiryMs: null,
  propertiesTag: 0,
  properties: Buffer.alloc(0),
  payload: Buffer.alloc(0),
}

/** A record whose payload begins with its seq, so that what comes back can be told. */
export function recordOf(seq: number, boot: number, payloadBytes = 100): Buffer {
  const payload = Buffer.alloc(Math.max(payloadBytes, 8), seq & 255)
  payload.writeDoubleLE(seq)
  return encodeRecord({ ...MESSAGE, payload }, { seq, boot, acceptedAt: 1000 + seq, clock: 0 })
}

export interface Piece {
  readonly queue: number
  readonly part?: number
  readonly first: number
  /** Records of the entries; null: settled before it was written. */
  readonly records: (Buffer | null)[]
  readonly isShared?: boolean
  readonly note?: number
}

export function segmentOf({ queue, part = 1, first, records, isShared = false, note = 0 }: Piece): SegmentWrite {
  const count = records.length
  const present = new Uint8Array((count + 7) >> 3)
  const offsets = new Uint32Array(count)
  let at = 0
  for (const [entry, record] of records.entries()) {
    if (record === null) continue
    present[entry >> 3] = (present[entry >> 3] ?? 0) | (1 << (entry & 7))
    offsets[entry] = at
    at += record.length
  }
  const bytes = Buffer.concat(records.filter(record => record !== null))
  return {
    queue,
    part,
    first,
    count,
    present,
    bytes,
    offsets,
    notes: new Uint8Array(count).fill(note),
    shared: new Uint8Array(count).fill(isShared ? 1 : 0),
  }
}

export function commitOf(changes: Partial<Commit>): Commit {
  const segments = changes.segments ?? []
  return {
    segments,
    marks: [],
    changes: [],
    acceptedBytes: segments.reduce((sum, segment) => sum + segment.bytes.length, 0),
    ...changes,
  }
}

export interface ReadBack {
  readonly position: number
  readonly seq: number
  readonly note: number
  readonly ref: SegmentRef
}

/** Everything unsettled in a queue, in order, and what was found damaged. */
export async function readQueue(
  store: Store,
  queue: number,
  maxBytes = 1024 * 1024,
): Promise<{ entries: ReadBack[]; seqs: number[]; damaged: number; segments: LoadedSegment[] }> {
  const entries: ReadBack[] = []
  const segments: LoadedSegment[] = []
  let damaged = 0
  let after: SegmentRef | null = null
  for (;;) {
    const page: LoadedSegment[] = await store.segments(queue, after, maxBytes)
    const last = page.at(-1)
    if (last === undefined) return { entries, seqs: entries.map(({ seq }) => seq), damaged, segments }
    after = last.ref
    for (const segment of page) {
      segments.push(segment)
      damaged += segment.damaged
      for (const [entry, offset] of segment.offsets.entries()) {
        if (offset === ABSENT) continue
        const seq = recordSeq(segment.bytes, offset)
        entries.push({ position: segment.first + entry, seq, note: segment.notes[entry] ?? 0, ref: segment.ref })
      }
    }
  }
}

/** The numbers from `from` to `to`, both included. */
export const numbers = (from: number, to: number): number[] =>
  Array.from({ length: to - from + 1 }, (_, at) => from + at)

/** A bitmap of `count` bits with those set that are listed. */
export function bitmapOf(count: number, set: readonly number[]): Uint8Array {
  const bitmap = new Uint8Array((count + 7) >> 3)
  for (const at of set) bitmap[at >> 3] = (bitmap[at >> 3] ?? 0) | (1 << (at & 7))
  return bitmap
}
