import type { Forecast } from './api/contract.ts'
import { Samples } from './telemetry/samples.ts'

/** How much of something there is, and how much has come in all. */
export interface Stock {
  readonly messages: number
  readonly bytes: number
  /** Messages that ever entered; only grows. */
  readonly accepted: number
}

export interface StockLimits {
  readonly messages: number
  readonly bytes: number
}

/** What is in the queues by name, and on the disk. */
export interface Stocks {
  readonly queues: ReadonlyMap<string, Stock>
  readonly disk: { readonly usedBytes: number; readonly freeBytes: number }
}

const SAMPLE_INTERVAL_MS = 5000
/** A trend is that of half a minute: long enough for the noise of commits and confirms, short enough to see an outage begin and end. */
const SAMPLES_MAX = 7
/** What would take longer is no forecast. */
const FARTHEST_MS = 30 * 86_400_000

/** When queues and disk will be full, or empty, if all goes on as in the last half minute. */
export class Forecasts {
  readonly samples: Samples<Stocks>
  readonly #read: () => Stocks

  constructor({ read, monotonicMs }: { read: () => Stocks; monotonicMs: () => number }) {
    this.#read = read
    this.samples = new Samples({ read, monotonicMs, intervalMs: SAMPLE_INTERVAL_MS, most: SAMPLES_MAX })
  }

  /** Of a queue as it is now. */
  queue(name: string, now: Stock, limits: StockLimits): Forecast {
    const { before, seconds } = this.#since()
    const then = before?.queues.get(name)
    if (then === undefined) return { in_per_s: 0, out_per_s: 0, full_in_ms: null, drained_in_ms: null }
    const growth = (now.messages - then.messages) / seconds
    const inPerS = Math.max(0, now.accepted - then.accepted) / seconds
    return {
      in_per_s: tenths(inPerS),
      out_per_s: tenths(Math.max(0, inPerS - growth)),
      full_in_ms: soonest(
        timeTo(limits.messages - now.messages, growth),
        timeTo(limits.bytes - now.bytes, (now.bytes - then.bytes) / seconds),
      ),
      drained_in_ms: now.messages === 0 ? null : timeTo(now.messages, -growth),
    }
  }

  /** Until the disk refuses new messages, milliseconds; null: it does not look as if it will. */
  diskFullInMs(limits: { readonly diskBytes: number; readonly diskFreeMinBytes: number }): number | null {
    const { before, seconds } = this.#since()
    if (before === undefined) return null
    const { usedBytes, freeBytes } = this.#read().disk
    return soonest(
      timeTo(limits.diskBytes - usedBytes, (usedBytes - before.disk.usedBytes) / seconds),
      timeTo(freeBytes - limits.diskFreeMinBytes, (before.disk.freeBytes - freeBytes) / seconds),
    )
  }

  /** The oldest sample kept, if it is old enough to tell anything. */
  #since(): { before: Stocks | undefined; seconds: number } {
    const { figures, elapsedMs } = this.samples.oldest() ?? { figures: undefined, elapsedMs: 0 }
    return { before: elapsedMs < SAMPLE_INTERVAL_MS ? undefined : figures, seconds: elapsedMs / 1000 }
  }
}

/** How long `left` lasts if so much goes each second, milliseconds; null: not in the foreseeable future. */
function timeTo(left: number, perS: number): number | null {
  if (perS <= 0) return null
  const ms = Math.round((Math.max(0, left) / perS) * 1000)
  return ms > FARTHEST_MS ? null : ms
}

function soonest(a: number | null, b: number | null): number | null {
  return a === null || b === null ? (a ?? b) : Math.min(a, b)
}

const tenths = (value: number): number => Math.round(value * 10) / 10
