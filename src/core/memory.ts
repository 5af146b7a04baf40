/**
 * `limits.memory`: queues' windows, memory queues and outputs together, in bytes. Whoever holds message bytes takes them here and
 * gives them back. Above the limit publishers pause; below nine tenths of it they go on.
 */
export class MemoryBudget {
  readonly limitBytes: number
  #used = 0
  #isPressed = false
  /** Called once when the budget falls below nine tenths after having been above the limit. */
  onRelief: (() => void) | null = null

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  get usedBytes(): number {
    return this.#used
  }

  /** True from reaching the limit until nine tenths are undershot: stop reading publishers. */
  get isPressed(): boolean {
    return this.#isPressed
  }

  /** More than half is in use: windows of idle queues shrink. */
  get isTight(): boolean {
    return this.#used * 2 > this.limitBytes
  }

  take(bytes: number): void {
    this.#used += bytes
    if (this.#used >= this.limitBytes) this.#isPressed = true
  }

  give(bytes: number): void {
    this.#used -= bytes
    if (this.#isPressed && this.#used * 10 < this.limitBytes * 9) {
      this.#isPressed = false
      this.onRelief?.()
    }
  }
}
