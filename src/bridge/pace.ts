/** A message that goes out behind the backlog is to be confirmed within so long, milliseconds. */
const TARGET_MS = 500
/** What the upstream needs at best is never held against the backlog: a confirm may take so many times that. */
const BEST_TIMES = 2
/** So much to begin with, on a link of which nothing is known. */
const FIRST_BOUND = 32
/** While confirms are quick, the bound grows by this factor with each measurement. */
const GROWTH = 1.5

/**
 * How much backlog may be out, so that a live message, which goes out behind it, is confirmed in time. On a quick link that is the whole window. On a thin one a window
 * of backlog takes seconds, in which every live message would wait however high its share: there the bound follows what one message in flight at a time is measured to take.
 */
export class Pace {
  readonly #window: number
  readonly #monotonicMs: () => number
  #bound: number
  /** The quickest confirm of this link. */
  #bestMs = Number.POSITIVE_INFINITY
  /** Of the message being measured; no message: 0 out. */
  #startedMs = 0
  #outAtStart = 0

  constructor(window: number, monotonicMs: () => number) {
    this.#window = window
    this.#monotonicMs = monotonicMs
    this.#bound = Math.min(window, FIRST_BOUND)
  }

  /** Messages of the backlog that may be out, at least 1. */
  get bound(): number {
    return this.#bound
  }

  /** A message went out, the last of `out`. True: it is the one to measure; its answer is told to `answered`. */
  sent(out: number): boolean {
    if (this.#outAtStart > 0) return false
    this.#outAtStart = out
    this.#startedMs = this.#monotonicMs()
    return true
  }

  /** The measured message was answered. */
  answered(): void {
    const tookMs = this.#monotonicMs() - this.#startedMs
    this.#bestMs = Math.min(this.#bestMs, tookMs)
    const targetMs = Math.max(TARGET_MS, this.#bestMs * BEST_TIMES)
    // What is out takes the longer the more it is: this much would have taken as long as it may.
    const fitting = (this.#outAtStart * targetMs) / Math.max(1, tookMs)
    const most = Math.min(this.#window, Math.ceil(this.#bound * GROWTH))
    this.#bound = tookMs > targetMs ? Math.max(1, Math.floor(fitting)) : most
    this.#outAtStart = 0
  }

  /** The measured message will not be answered: its link or channel is gone, and the next one may be another. */
  abandoned(): void {
    this.#outAtStart = 0
    this.#bestMs = Number.POSITIVE_INFINITY
    this.#bound = Math.min(this.#bound, FIRST_BOUND)
  }
}
