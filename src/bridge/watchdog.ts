import type { Clock } from '../core/clock.ts'

/**
 * Progress of a link. A socket may look open for minutes while nothing gets through (a black hole, a frozen peer), and
 * the heartbeat of our own writes hides it; so what counts is that confirms come in while messages are out.
 */
export class Watchdog {
  readonly #stallMs: number
  readonly #clock: Clock
  #unanswered = 0
  #progressAt = 0
  #isResting = false

  constructor(stallMs: number, clock: Clock) {
    this.#stallMs = stallMs
    this.#clock = clock
  }

  /** A message went out. */
  sent(): void {
    if (this.#unanswered++ === 0) this.#progressAt = this.#clock.monotonicMs()
  }

  /** So many messages were answered, by ack or nack, or given up with their channel. */
  answered(count: number): void {
    this.#unanswered -= count
    this.#progressAt = this.#clock.monotonicMs()
  }

  /** While the upstream has blocked the connection it owes no confirm; heartbeats rule. */
  rest(): void {
    this.#isResting = true
  }

  /** Watches again; the time spent resting doesn't count. */
  wake(): void {
    this.#isResting = false
    this.#progressAt = this.#clock.monotonicMs()
  }

  /** Messages are out and nothing was answered for the stall timeout: the link is to be cut. */
  get isStalled(): boolean {
    return !this.#isResting && this.#unanswered > 0 && this.#clock.monotonicMs() - this.#progressAt >= this.#stallMs
  }
}
