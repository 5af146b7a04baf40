/** What is counted and has a rate. */
export interface Counted {
  readonly received: number
  readonly delivered: number
  readonly forwarded: number
}

interface Sample extends Counted {
  readonly atMs: number
}

const SAMPLE_INTERVAL_MS = 1000
/** Rates are means over so many samples: steady enough to read, quick enough to follow an outage. */
const SAMPLES_MAX = 6

/** Messages per second over the last seconds, from counters that only grow. */
export class Rates {
  readonly #read: () => Counted
  readonly #monotonicMs: () => number
  #samples: Sample[] = []
  #timer: NodeJS.Timeout | null = null

  constructor({ read, monotonicMs }: { read: () => Counted; monotonicMs: () => number }) {
    this.#read = read
    this.#monotonicMs = monotonicMs
  }

  /** Takes a sample each second until `stop`. */
  start(): void {
    if (this.#timer !== null) return
    this.sample()
    this.#timer = setInterval(() => this.sample(), SAMPLE_INTERVAL_MS)
    this.#timer.unref()
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
  }

  sample(): void {
    const { received, delivered, forwarded } = this.#read()
    this.#samples.push({ received, delivered, forwarded, atMs: this.#monotonicMs() })
    if (this.#samples.length > SAMPLES_MAX) this.#samples.shift()
  }

  /** From the oldest sample kept until now. */
  perSecond(): Counted {
    const oldest = this.#samples[0]
    const elapsedMs = oldest === undefined ? 0 : this.#monotonicMs() - oldest.atMs
    if (oldest === undefined || elapsedMs <= 0) return { received: 0, delivered: 0, forwarded: 0 }
    const now = this.#read()
    const rate = (from: number, to: number): number => Math.round(((to - from) * 10_000) / elapsedMs) / 10
    return {
      received: rate(oldest.received, now.received),
      delivered: rate(oldest.delivered, now.delivered),
      forwarded: rate(oldest.forwarded, now.forwarded),
    }
  }
}
