import type { Logger } from './log.ts'

/** So many lines at once: a site that comes back after a power cut. */
const LINES_AT_ONCE = 100
/** And so many a second from then on: 30 MB a day, whoever calls how often. */
const LINES_PER_S = 2

/**
 * For lines that anybody who reaches a port can cause as often as they like: the log may lie on an SD card, and each line is a write. What is beyond the rate is left
 * out; the next line that is written says how many were (`left_out`). All of them are counted on `/metrics`.
 */
export class LimitedLog {
  readonly #log: Logger
  readonly #monotonicMs: () => number
  #lines = LINES_AT_ONCE
  #countedAtMs: number
  #leftOut = 0

  constructor(log: Logger, monotonicMs: () => number) {
    this.#log = log
    this.#monotonicMs = monotonicMs
    this.#countedAtMs = monotonicMs()
  }

  write(level: 'info' | 'warn' | 'error', facts: Readonly<Record<string, unknown>>, message: string): void {
    if (!this.#log.isLevelEnabled(level)) return
    const nowMs = this.#monotonicMs()
    this.#lines = Math.min(LINES_AT_ONCE, this.#lines + ((nowMs - this.#countedAtMs) / 1000) * LINES_PER_S)
    this.#countedAtMs = nowMs
    if (this.#lines < 1) {
      this.#leftOut++
      return
    }
    this.#lines--
    this.#log[level](this.#leftOut === 0 ? facts : { ...facts, left_out: this.#leftOut }, message)
    this.#leftOut = 0
  }
}
