/** Most of what setTimeout takes, milliseconds (2^31 - 1). */
const MAX_TIMEOUT_MS = 2_147_483_647

/** Messages of a queue that wait for a moment to come: a heap by time, and one timer for the first of them. */
export class Waiting {
  readonly #monotonicMs: () => number
  readonly #onDue: () => void
  #dueMs: number[] = []
  #positions: number[] = []
  #timer: NodeJS.Timeout | null = null

  /** `onDue` is called when the first one is due; it takes all that are with `takeDue`. */
  constructor(monotonicMs: () => number, onDue: () => void) {
    this.#monotonicMs = monotonicMs
    this.#onDue = onDue
  }

  get size(): number {
    return this.#positions.length
  }

  add(position: number, dueMs: number): void {
    let at = this.#positions.length
    this.#positions.push(position)
    this.#dueMs.push(dueMs)
    for (let above = (at - 1) >> 1; at > 0 && this.#dueAt(at) < this.#dueAt(above); above = (at - 1) >> 1) {
      this.#swap(at, above)
      at = above
    }
    if (at === 0) this.#arm()
  }

  /** Takes one that is due; -1: none is, and the timer is set for the next. */
  takeDue(): number {
    const first = this.#positions[0]
    if (first === undefined || this.#dueAt(0) > this.#monotonicMs()) {
      this.#arm()
      return -1
    }
    this.#swap(0, this.#positions.length - 1)
    this.#positions.pop()
    this.#dueMs.pop()
    this.#sink()
    return first
  }

  /** Forgets all. */
  clear(): void {
    this.#positions = []
    this.#dueMs = []
    this.#arm()
  }

  #sink(): void {
    let at = 0
    for (;;) {
      const left = 2 * at + 1
      const least = this.#dueAt(left + 1) < this.#dueAt(left) ? left + 1 : left
      if (this.#dueAt(least) >= this.#dueAt(at)) return
      this.#swap(at, least)
      at = least
    }
  }

  #dueAt(index: number): number {
    return this.#dueMs[index] ?? Number.POSITIVE_INFINITY
  }

  #swap(a: number, b: number): void {
    const position = this.#positions[a] ?? 0
    const dueMs = this.#dueAt(a)
    this.#positions[a] = this.#positions[b] ?? 0
    this.#dueMs[a] = this.#dueAt(b)
    this.#positions[b] = position
    this.#dueMs[b] = dueMs
  }

  #arm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#positions.length === 0) return
    const inMs = Math.ceil(this.#dueAt(0) - this.#monotonicMs())
    this.#timer = setTimeout(() => this.#onDue(), Math.min(Math.max(1, inMs), MAX_TIMEOUT_MS))
    // Whatever waits is on disk or may go with the process: no reason to keep it alive.
    this.#timer.unref()
  }
}
