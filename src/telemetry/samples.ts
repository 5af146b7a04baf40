/** The last few samples of some figures, taken at equal intervals: what rates and trends are told from. */
export class Samples<Figures> {
  readonly #read: () => Figures
  readonly #monotonicMs: () => number
  readonly #intervalMs: number
  readonly #most: number
  #samples: { readonly figures: Figures; readonly atMs: number }[] = []
  #timer: NodeJS.Timeout | null = null

  constructor({
    read,
    monotonicMs,
    intervalMs,
    most,
  }: {
    read: () => Figures
    monotonicMs: () => number
    intervalMs: number
    /** So many are kept. */
    most: number
  }) {
    this.#read = read
    this.#monotonicMs = monotonicMs
    this.#intervalMs = intervalMs
    this.#most = most
  }

  /** Takes a sample now and again until `stop`. */
  start(): void {
    if (this.#timer !== null) return
    this.take()
    this.#timer = setInterval(() => this.take(), this.#intervalMs)
    this.#timer.unref()
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
  }

  take(): void {
    this.#samples.push({ figures: this.#read(), atMs: this.#monotonicMs() })
    if (this.#samples.length > this.#most) this.#samples.shift()
  }

  /** The oldest sample kept, and how long ago it was taken; null: there is none. */
  oldest(): { readonly figures: Figures; readonly elapsedMs: number } | null {
    const oldest = this.#samples[0]
    return oldest === undefined ? null : { figures: oldest.figures, elapsedMs: this.#monotonicMs() - oldest.atMs }
  }
}
