/** So many may be owed at first; the number doubles as more are needed. */
const FIRST = 64
/** Nothing is owed any more after so long without a message: less than a queue's figures may stay unwritten (CommitSchedule.figuresChanged). */
const QUIET_MS = 30_000

/**
 * What a queue with ack: buffered owes: messages that were acknowledged and are not on disk. A crash costs them, and how many they can have been must be known after it.
 * So they are bounded by a number on disk. Whoever would go beyond it is acknowledged by a commit like others, and that commit raises the number.
 */
export class Owed {
  readonly #monotonicMs: () => number
  /** What the disk is known to say. */
  #limit = 0
  /** It shall say so much. */
  #wanted = 0
  /** What the commit under way says. */
  #written = 0
  #usedAtMs = Number.NEGATIVE_INFINITY
  #isEnding = false

  constructor(monotonicMs: () => number) {
    this.#monotonicMs = monotonicMs
  }

  /** Something may be owed: a commit should say some time that nothing is. */
  get isOpen(): boolean {
    return this.#limit > 0
  }

  /** Whether what comes now may be acknowledged at once; `unsafe` messages, these included, are not on disk then. */
  mayOwe(unsafe: number): boolean {
    if (this.#isEnding) return false
    this.#usedAtMs = this.#monotonicMs()
    if (unsafe <= this.#limit) return true
    this.#wanted = Math.max(FIRST, 2 ** Math.ceil(Math.log2(unsafe * 2)))
    return false
  }

  /** For an orderly stop: nothing more is owed. */
  end(): void {
    this.#isEnding = true
  }

  /** What the commit being prepared shall say; `unwritten` messages are not in it. Lowered at once and raised when it has returned: the disk never says too little. */
  prepare(unwritten: number): number {
    const isQuiet = this.#isEnding || this.#monotonicMs() - this.#usedAtMs >= QUIET_MS
    this.#written = isQuiet && unwritten === 0 ? 0 : Math.max(this.#limit, this.#wanted)
    this.#wanted = 0
    this.#limit = Math.min(this.#limit, this.#written)
    return this.#written
  }

  /** That commit has returned. */
  committed(): void {
    this.#limit = this.#written
  }
}
