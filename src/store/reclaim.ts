import { LOG_FORMAT_KEY, logKey, parseLogKey, parseSegmentIndexKey, segmentIndexRange } from './keys.ts'
import type { Db } from './level.ts'
import type { State } from './state.ts'

/** So much must be dead, at least, before compacting is worth the reading. */
const MIN_BYTES = 16 * 1024 * 1024

/** So many ranges are told apart. */
const MAX_RANGES = 4

/** Of keys of log/, both ends included, in which `bytes` are dead. */
interface DeadRange {
  readonly first: Buffer
  readonly last: Buffer
  readonly bytes: number
}

/**
 * Gives disk space back. LevelDB removes deleted values only when it compacts the tables they lie in, which for keys that only grow may be
 * never. So a range in which segments were deleted is compacted once most of it is dead: that costs reading, and writing only what lives. Where much lives
 * between two ranges, as between what a stream forgets and where a queue ends, it is not touched.
 */
export class Reclaim {
  /** In order, apart from each other. */
  #ranges: DeadRange[] = []
  #hasLookedBelow = false

  /** These keys of log/ were deleted; `bytes` lay there. */
  note(keys: readonly Buffer[], bytes: number): void {
    const each = bytes / keys.length
    const pieces = [...this.#ranges, ...keys.map(key => ({ first: key, last: key, bytes: each }))]
    this.#ranges = apart(pieces.sort((a, b) => a.first.compare(b.first)))
  }

  /** Compacts what pays. The first time also everything before the oldest segment: what earlier runs of the process left. */
  async run(log: Db, state: State): Promise<void> {
    if (!this.#hasLookedBelow) {
      this.#hasLookedBelow = true
      const oldest = await oldestCommit(state)
      const below = logKey(oldest, 0, 0)
      if ((await log.approximateSize(LOG_FORMAT_KEY, below)) >= MIN_BYTES) await log.compactRange(LOG_FORMAT_KEY, below)
    }
    const ranges = await this.#joined(log)
    this.#ranges = []
    for (const range of ranges) {
      const { first, last, bytes } = range
      if (bytes >= MIN_BYTES && (await log.approximateSize(first, last)) <= 2 * bytes)
        await log.compactRange(first, last)
      else this.#ranges.push(range)
    }
  }

  /** Ranges with so little between them that rewriting it costs less than telling them apart. */
  async #joined(log: Db): Promise<DeadRange[]> {
    const joined: DeadRange[] = []
    for (const range of this.#ranges) {
      const before = joined.at(-1)
      if (before !== undefined && (await log.approximateSize(before.last, range.first)) < MIN_BYTES) {
        joined[joined.length - 1] = join(before, range)
      } else {
        joined.push(range)
      }
    }
    return joined
  }
}

/** Joined to MAX_RANGES at most: what is furthest apart, by number of commits, stays apart. `pieces` are in order of their beginning. */
function apart(pieces: readonly DeadRange[]): DeadRange[] {
  const gaps = pieces.map(({ first }, at) => {
    const before = pieces[at - 1]
    return { at, commits: before === undefined ? 0 : commitOf(first) - commitOf(before.last) }
  })
  const widest = gaps.sort((a, b) => b.commits - a.commits).slice(0, MAX_RANGES - 1)
  const splits = new Set(widest.filter(({ commits }) => commits > 0).map(({ at }) => at))
  const ranges: DeadRange[] = []
  for (const [at, piece] of pieces.entries()) {
    const before = ranges.at(-1)
    if (before === undefined || (splits.has(at) && piece.first.compare(before.last) > 0)) ranges.push(piece)
    else ranges[ranges.length - 1] = join(before, piece)
  }
  return ranges
}

const join = (a: DeadRange, b: DeadRange): DeadRange => ({
  first: a.first,
  last: a.last.compare(b.last) > 0 ? a.last : b.last,
  bytes: a.bytes + b.bytes,
})

const commitOf = (key: Buffer): number => parseLogKey(key)?.commit ?? 0

/** The commit of the oldest segment of any queue; if there is none, a number behind all. */
async function oldestCommit(state: State): Promise<number> {
  let oldest = Number.MAX_SAFE_INTEGER
  let { gte, lt } = segmentIndexRange(null)
  for (;;) {
    const { last } = await state.page({ gte, lt }, 1)
    const key = last === null ? null : parseSegmentIndexKey(last)
    if (key === null) return oldest
    oldest = Math.min(oldest, key.commit)
    gte = segmentIndexRange(key.queue).lt
  }
}
