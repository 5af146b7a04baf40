import type { Clock } from '../core/clock.ts'

/** Longest stall borne, as a multiple of the stall timeout. */
const MAX_PATIENCE = 8

/**
 * Progress of a link. A socket may look open for minutes while nothing gets through (a black hole, a frozen peer), and
 * the heartbeat of our own writes hides it; so what counts is that confirms come in while messages are out.
 *
 * A link that was cut for that and stalls again before any confirm is given twice the time, up to MAX_PATIENCE times: an upstream that needs longer
 * than the timeout (overloaded, a slow disk) would otherwise store the same window over and over and never get to confirm it.
 */
export class Watchdog {
  readonly #stallMs: number
  readonly #clock: Clock
  #unanswered = 0
  #progressAt = 0
  #isResting = false
  #patience = 1

  constructor(stallMs: number, clock: Clock) {
    this.#stallMs = stallMs
    this.#clock = clock
  }

  /** A message went out. */
  sent(): void {
    if (this.#unanswered++ === 0) this.#progressAt = this.#clock.monotonicMs()
  }

  /** So many messages were answered, by ack or nack. */
  answered(count: number): void {
    this.#unanswered -= count
    this.#progressAt = this.#clock.monotonicMs()
    this.#patience = 1
  }

  /** So many messages will not be answered: their channel is gone. */
  abandoned(count: number): void {
    this.#unanswered -= count
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

  /** How long messages may be out now without any answer, milliseconds. */
  get allowedMs(): number {
    return this.#stallMs * this.#patience
  }

  /** Messages are out and nothing was answered for that long: the link is to be cut. */
  get isStalled(): boolean {
    return !this.#isResting && this.#unanswered > 0 && this.#clock.monotonicMs() - this.#progressAt >= this.allowedMs
  }

  /** The link was cut for it. */
  cut(): void {
    this.#patience = Math.min(MAX_PATIENCE, this.#patience * 2)
  }
}
