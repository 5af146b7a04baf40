import type { LoadedSegment, SegmentRef } from '../store/types.ts'
import type { MemoryBudget } from './memory.ts'
import { Segment } from './segment.ts'

/** What one read takes from disk at most, bytes; a single larger segment comes whole. */
export const PAGE_BYTES = 256 * 1024
/** Pages kept of one stream; one when limits.memory is half used. */
const MAX_PAGES = 4

/** Segments that follow each other, covering positions [start, end). */
interface Page {
  readonly start: number
  readonly end: number
  readonly last: SegmentRef
  readonly segments: readonly Segment[]
}

/**
 * What was read of a stream last, for all of its readers: they hold a position each and no messages, so that any number of them, however slow, takes no more
 * memory than this.
 */
export class StreamPages {
  readonly #memory: MemoryBudget
  /** The one used last is the last. */
  #pages: Page[] = []

  constructor(memory: MemoryBudget) {
    this.#memory = memory
  }

  /** The segment with that position, or the next one behind a gap that the disk has there; null: not here. */
  find(position: number): Segment | null {
    const index = this.#pages.findLastIndex(({ start, end }) => start <= position && position < end)
    const page = this.#pages[index]
    if (page === undefined) return null
    if (index < this.#pages.length - 1) {
      this.#pages.splice(index, 1)
      this.#pages.push(page)
    }
    return page.segments[firstEndingBehind(page.segments, position)] ?? null
  }

  /** Where to read on for the page that begins at `position`; null: not known here. */
  endingAt(position: number): SegmentRef | null {
    return this.#pages.findLast(({ end }) => end === position)?.last ?? null
  }

  /** Keeps what was read for somebody at `position`, at least one segment. Returns the position behind it. */
  add(position: number, loaded: readonly LoadedSegment[]): number {
    const segments = loaded.map(found => Segment.loaded(found, this.#memory))
    const first = segments[0]
    const last = loaded.at(-1)
    if (first === undefined || last === undefined) throw new TypeError('a page holds something')
    const end = last.first + last.count
    this.#pages.push({ start: Math.min(position, first.first), end, last: last.ref, segments })
    while (this.#pages.length > (this.#memory.isTight ? 1 : MAX_PAGES)) release(this.#pages.shift())
    return end
  }

  clear(): void {
    for (const page of this.#pages.splice(0)) release(page)
  }
}

function release(page: Page | undefined): void {
  for (const segment of page?.segments ?? []) segment.release()
}

function firstEndingBehind(segments: readonly Segment[], position: number): number {
  let low = 0
  let high = segments.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((segments[middle]?.end ?? 0) > position) high = middle
    else low = middle + 1
  }
  return low
}
