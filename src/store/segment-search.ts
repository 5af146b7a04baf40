/*
 * Finding segments of one queue in the index: the next ones, or those at a place, however long the queue is.
 */
import { parseSegmentIndexKey, segmentIndexKey } from './keys.ts'
import { decodeIndexEntry } from './segment-index.ts'
import type { IndexedSegment } from './segment-reader.ts'
import type { Bounds, State } from './state.ts'

/** Index entries per page at most: bounds what one call allocates for very small segments. */
const MAX_SEGMENTS = 1024
/** Read from the index at first; enough for a page of large segments. */
const FIRST_INDEX_ENTRIES = 16

/** Index entries within bounds: one always, then while the sum of their bytes stays within `maxBytes`, at most 1,024. */
export async function readIndex(state: State, bounds: Bounds, maxBytes: number): Promise<IndexedSegment[]> {
  const found: IndexedSegment[] = []
  let bytes = 0
  let lower = bounds
  for (;;) {
    // No more than needed: what an iterator has read stays in native memory until the garbage collector comes by.
    const wanted = found.length === 0 ? FIRST_INDEX_ENTRIES : Math.ceil((maxBytes - bytes) / (bytes / found.length)) + 1
    const { entries, last } = await state.page(lower, Math.min(wanted, MAX_SEGMENTS))
    if (last === null) return found
    for (const entry of entries) {
      const segment = indexed(entry)
      if (segment === null) continue
      bytes += segment.entry.bytes
      if ((found.length > 0 && bytes > maxBytes) || found.length === MAX_SEGMENTS) return found
      found.push(segment)
    }
    lower = { gt: last, lt: bounds.lt }
  }
}

/** Whether a segment begins before the place that is looked for; null: it can't tell. */
export type Probe = (segment: IndexedSegment) => boolean | null | Promise<boolean | null>

/**
 * The last segment of a queue that begins before a place, null: none does. Segments lie in order, so the place is found by doubling steps from the first and
 * halving from there: 2 log2(n) probes for a place n commits behind the first, one index entry each. Where probes can't tell it comes out early,
 * never late.
 */
export async function lastBefore(
  state: State,
  queue: number,
  bounds: { readonly gte: Buffer; readonly lt: Buffer },
  isBefore: Probe,
): Promise<IndexedSegment | null> {
  const newest = await state.last(bounds)
  const last = newest === null ? null : indexed(newest)
  const first = await firstTold(state, bounds, isBefore)
  if (last === null || first === null || !first.isBefore) return null
  let low = first.segment
  /** No commit from here on holds a segment that begins before the place. */
  let end = last.ref.commit + 1
  let step = 1
  while (end - low.ref.commit > 1) {
    const commit = Math.min(low.ref.commit + step, Math.floor((low.ref.commit + end) / 2))
    step *= 2
    const within = { gte: commitKey(queue, commit), lt: commitKey(queue, end) }
    const told = await firstTold(state, within, isBefore)
    if (told?.isBefore === true) low = told.segment
    else end = commit
  }
  return lastInCommit(state, queue, low, isBefore)
}

/** The first segment within bounds of which the probe can tell. */
async function firstTold(
  state: State,
  bounds: Bounds,
  isBefore: Probe,
): Promise<{ segment: IndexedSegment; isBefore: boolean } | null> {
  let lower = bounds
  for (;;) {
    const { entries, last } = await state.page(lower, 1)
    if (last === null) return null
    const [entry] = entries
    const segment = entry === undefined ? null : indexed(entry)
    const told = segment === null ? null : await isBefore(segment)
    if (segment !== null && told !== null) return { segment, isBefore: told }
    lower = { gt: last, lt: bounds.lt }
  }
}

/** A large commit is several segments of a queue: `low`, which begins before the place, or a later one of its commit. */
async function lastInCommit(
  state: State,
  queue: number,
  low: IndexedSegment,
  isBefore: Probe,
): Promise<IndexedSegment> {
  let found = low
  const lt = commitKey(queue, low.ref.commit + 1)
  for (;;) {
    const parts = await readIndex(state, { gt: segmentIndexKey(queue, found.ref), lt }, Number.POSITIVE_INFINITY)
    let from = 0
    let to = parts.length
    while (from < to) {
      const middle = (from + to) >>> 1
      const part = parts[middle]
      if (part !== undefined && (await isBefore(part)) === true) from = middle + 1
      else to = middle
    }
    found = parts[from - 1] ?? found
    if (from < parts.length || parts.length === 0) return found
  }
}

const commitKey = (queue: number, commit: number): Buffer => segmentIndexKey(queue, { commit, part: 0 })

/** null: damaged. */
function indexed([key, value]: readonly [Buffer, Buffer]): IndexedSegment | null {
  const at = parseSegmentIndexKey(key)
  const entry = decodeIndexEntry(value)
  return at === null || entry === null ? null : { ref: { commit: at.commit, part: at.part }, entry }
}
