import { logKey } from './keys.ts'
import { type Db, levelErrorCode } from './level.ts'
import type { Quarantine } from './quarantine.ts'
import { decodeSegment, readSegmentHeader } from './segment.ts'
import { type IndexEntry, unsettledOf } from './segment-index.ts'
import { ABSENT, type LoadedSegment, type SegmentRef } from './types.ts'

export interface IndexedSegment {
  readonly ref: SegmentRef
  readonly entry: IndexEntry
}

/** Below this mean size several segments lie in one block of LevelDB: it pays to read through its cache. */
const SMALL_BYTES = 4096

/** Reads segments from log/, checks every record that is not settled, resolves references to shared bodies. Same order, one for one. */
export async function loadSegments(
  log: Db,
  queue: number,
  found: readonly IndexedSegment[],
  quarantine: Quarantine,
): Promise<LoadedSegment[]> {
  const bytes = found.reduce((sum, { entry }) => sum + entry.bytes, 0)
  const fillCache = bytes / found.length < SMALL_BYTES
  const keys = found.map(({ ref }) => logKey(ref.commit, queue, ref.part))
  const values = await getAll(log, keys, fillCache)
  const bodyKeys: Buffer[] = []
  const bodyIndex = new Map<string, number>()
  for (const { ref, entry } of found) {
    for (const part of entry.bodyParts) {
      const id = `${ref.commit}/${part}`
      if (bodyIndex.has(id)) continue
      bodyIndex.set(id, bodyKeys.length)
      bodyKeys.push(logKey(ref.commit, 0, part))
    }
  }
  const bodies = bodyKeys.length === 0 ? [] : await getAll(log, bodyKeys, fillCache)
  const loaded: LoadedSegment[] = []
  for (const [at, { ref, entry }] of found.entries()) {
    const bodyOf = (part: number) => bodies[bodyIndex.get(`${ref.commit}/${part}`) ?? -1]
    const segment = decode(keys[at] ?? Buffer.alloc(0), values[at], ref, entry, bodyOf)
    if (segment.damaged > 0) {
      const name = `${queue}-${ref.commit}-${ref.part}`
      const value = values[at]
      if (value !== undefined) await quarantine.keepValue(name, value)
      for (const part of entry.bodyParts) {
        const body = bodyOf(part)
        if (body !== undefined) await quarantine.keepValue(`0-${ref.commit}-${part}`, body)
      }
    }
    loaded.push(segment)
  }
  for (const value of values) free(value)
  for (const body of bodies) free(body)
  return loaded
}

/**
 * Gives the memory of a value back at once. The collector counts it as its own until it comes by, and would come, and go through all of the heap, for values that were
 * decoded long ago.
 */
function free(value: Buffer | undefined): void {
  const memory = value?.buffer
  if (memory instanceof ArrayBuffer && memory.byteLength === value?.length) memory.transfer(0)
}

function decode(
  key: Buffer,
  value: Buffer | undefined,
  ref: SegmentRef,
  entry: IndexEntry,
  bodyOf: (part: number) => Buffer | undefined,
): LoadedSegment {
  const header = value === undefined ? null : readSegmentHeader(key, value)
  if (value === undefined || header === null || header.count !== entry.count) {
    return {
      ref,
      first: entry.first,
      count: entry.count,
      bytes: Buffer.alloc(0),
      used: 0,
      offsets: new Uint32Array(entry.count).fill(ABSENT),
      notes: new Uint8Array(entry.count),
      damaged: unsettledOf(entry),
      damagedBytes: entry.bytes,
    }
  }
  return { ref, first: header.first, count: header.count, ...decodeSegment(value, header, entry.settled, bodyOf) }
}

/** getMany; if LevelDB can't read one of them, each alone: what can't be read is undefined. */
async function getAll(log: Db, keys: Buffer[], fillCache: boolean): Promise<(Buffer | undefined)[]> {
  try {
    return await log.getMany(keys, { fillCache })
  } catch (error) {
    if (!isUnreadable(error)) throw error
  }
  const values: (Buffer | undefined)[] = []
  for (const key of keys) {
    try {
      values.push(await log.get(key, { fillCache }))
    } catch (error) {
      if (!isUnreadable(error)) throw error
      values.push(undefined) // counted by the caller as damaged
    }
  }
  return values
}

function isUnreadable(error: unknown): boolean {
  const code = levelErrorCode(error)
  return code === 'LEVEL_CORRUPTION' || code === 'LEVEL_IO_ERROR'
}
