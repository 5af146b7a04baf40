import { LOG_FORMAT_KEY, logKey, parseSegmentIndexKey, segmentIndexRange } from './keys.ts'
import type { Db } from './level.ts'
import type { State } from './state.ts'

/** So much must be dead, at least, before compacting is worth the reading. */
const MIN_BYTES = 16 * 1024 * 1024

/**
 * Gives disk space back. LevelDB removes deleted values only when it compacts the tables they lie in, which for keys that only grow may be
 * never. So the range in which segments were deleted is compacted once most of it is dead: that costs reading, and writing only what lives.
 */
export class Reclaim {
  #first: Buffer | null = null
  #last: Buffer | null = null
  #bytes = 0
  #hasLookedBelow = false

  /** These keys of log/ were deleted; `bytes` lay there. */
  note(keys: readonly Buffer[], bytes: number): void {
    for (const key of keys) {
      if (this.#first === null || key.compare(this.#first) < 0) this.#first = key
      if (this.#last === null || key.compare(this.#last) > 0) this.#last = key
    }
    this.#bytes += bytes
  }

  /** Compacts what pays. The first time also everything before the oldest segment: what earlier runs of the process left. */
  async run(log: Db, state: State): Promise<void> {
    if (!this.#hasLookedBelow) {
      this.#hasLookedBelow = true
      const oldest = await oldestCommit(state)
      const below = logKey(oldest, 0, 0)
      if ((await log.approximateSize(LOG_FORMAT_KEY, below)) >= MIN_BYTES) await log.compactRange(LOG_FORMAT_KEY, below)
    }
    if (this.#first === null || this.#last === null || this.#bytes < MIN_BYTES) return
    if ((await log.approximateSize(this.#first, this.#last)) > 2 * this.#bytes) return
    const [first, last] = [this.#first, this.#last]
    this.#first = null
    this.#last = null
    this.#bytes = 0
    await log.compactRange(first, last)
  }
}

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
