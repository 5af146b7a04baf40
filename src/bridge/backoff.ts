/**
 * Pauses between attempts by decorrelated jitter: each is drawn evenly between `firstMs` and three times the last one, never above
 * `maxMs`. So a site whose gateways lost the upstream in the same second doesn't come back in the same second.
 */
export class Backoff {
  readonly #firstMs: number
  readonly #maxMs: number
  readonly #random: () => number
  #lastMs: number

  /** `random` gives numbers in [0, 1). */
  constructor({ firstMs, maxMs, random }: { firstMs: number; maxMs: number; random: () => number }) {
    this.#firstMs = firstMs
    this.#maxMs = maxMs
    this.#random = random
    this.#lastMs = firstMs
  }

  /** The next pause, milliseconds. */
  nextMs(): number {
    const spread = this.#lastMs * 3 - this.#firstMs
    this.#lastMs = Math.min(this.#maxMs, this.#firstMs + spread * this.#random())
    return this.#lastMs
  }

  /** After a success: the next pause is a short one again. */
  reset(): void {
    this.#lastMs = this.#firstMs
  }
}
