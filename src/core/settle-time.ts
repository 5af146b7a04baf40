const SAMPLES = 64

/** The 95th percentile of how long a queue's consumer takes to settle, from every so many deliveries; milliseconds. */
export class SettleTime {
  /** Made for the first: most queues of many have no consumer. */
  #samples: Float64Array | null = null
  #count = 0
  #p95 = Number.POSITIVE_INFINITY
  /** Position of the delivery being timed; -1: none. */
  #position = -1
  #startedMs = 0

  /** Infinity until a first delivery has been settled. */
  get p95Ms(): number {
    return this.#p95
  }

  delivered(position: number, monotonicMs: () => number): void {
    if (this.#position >= 0) return
    this.#position = position
    this.#startedMs = monotonicMs()
  }

  settled(position: number, monotonicMs: () => number): void {
    if (position !== this.#position) return
    this.#position = -1
    this.#samples ??= new Float64Array(SAMPLES)
    this.#samples[this.#count % SAMPLES] = monotonicMs() - this.#startedMs
    this.#count++
    if (this.#count < 8 || this.#count % 8 === 0) this.#compute(this.#samples)
  }

  /** The timed delivery came back: its time says nothing. */
  abandoned(): void {
    this.#position = -1
  }

  #compute(samples: Float64Array): void {
    const sorted = samples.slice(0, Math.min(this.#count, SAMPLES)).sort()
    this.#p95 = sorted[Math.floor((sorted.length - 1) * 0.95)] ?? Number.POSITIVE_INFINITY
  }
}
