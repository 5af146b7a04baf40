import { Samples } from '../telemetry/samples.ts'

/** What is counted and has a rate. */
export interface Counted {
  readonly received: number
  readonly delivered: number
  readonly forwarded: number
}

const SAMPLE_INTERVAL_MS = 1000
/** Rates are means over so many samples: steady enough to read, quick enough to follow an outage. */
const SAMPLES_MAX = 6

/** Messages per second over the last seconds, from counters that only grow. */
export class Rates {
  readonly samples: Samples<Counted>
  readonly #read: () => Counted

  constructor({ read, monotonicMs }: { read: () => Counted; monotonicMs: () => number }) {
    this.#read = read
    // A copy: the counters may be counted on in place.
    this.samples = new Samples({
      read: () => ({ ...read() }),
      monotonicMs,
      intervalMs: SAMPLE_INTERVAL_MS,
      most: SAMPLES_MAX,
    })
  }

  /** From the oldest sample kept until now. */
  perSecond(): Counted {
    const oldest = this.samples.oldest()
    if (oldest === null || oldest.elapsedMs <= 0) return { received: 0, delivered: 0, forwarded: 0 }
    const { figures, elapsedMs } = oldest
    const now = this.#read()
    const rate = (from: number, to: number): number => Math.round(((to - from) * 10_000) / elapsedMs) / 10
    return {
      received: rate(figures.received, now.received),
      delivered: rate(figures.delivered, now.delivered),
      forwarded: rate(figures.forwarded, now.forwarded),
    }
  }
}
