/** So much of a second's worth may go at once. */
const BURST_S = 0.1

/**
 * A rate that must not be exceeded: tokens come in evenly, and are saved up for a tenth of a second at most. Whoever finds one may take more than there are, and the next waits
 * until the debt is paid: so something larger than the bucket passes, too.
 */
export class TokenBucket {
  readonly #perMs: number
  readonly #capacity: number
  readonly #monotonicMs: () => number
  #tokens: number
  #filledAtMs: number

  /** `perS`: tokens per second; 0: there is no limit. */
  constructor(perS: number, monotonicMs: () => number) {
    this.#perMs = perS / 1000
    this.#capacity = Math.max(1, perS * BURST_S)
    this.#monotonicMs = monotonicMs
    this.#tokens = this.#capacity
    this.#filledAtMs = monotonicMs()
  }

  take(tokens: number): void {
    if (this.#perMs === 0) return
    this.#fill()
    this.#tokens -= tokens
  }

  /** Milliseconds until a token is there; 0: it is. */
  get waitMs(): number {
    if (this.#perMs === 0) return 0
    this.#fill()
    return this.#tokens >= 1 ? 0 : (1 - this.#tokens) / this.#perMs
  }

  #fill(): void {
    const now = this.#monotonicMs()
    this.#tokens = Math.min(this.#capacity, this.#tokens + (now - this.#filledAtMs) * this.#perMs)
    this.#filledAtMs = now
  }
}
