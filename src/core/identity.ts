import { Clock as ClockTrust, recordAcceptedAt, recordBoot, recordClock, recordSeq } from '../model/message.ts'
import type { Clock } from './clock.ts'

/** What is known of one process start: the store keeps one for each (docs/storage-format.md). */
export interface Boot {
  readonly boot: number
  readonly epoch: string
  readonly gateway: string
  /** Wall time of a record of this boot = its monotonic time + this. */
  readonly wallOffsetMs: number
}

/** Names and dates messages: id and wall time of a record, through the boot that accepted it. */
export class Identities {
  readonly gateway: string
  readonly #current: Boot
  readonly #bootOf: (boot: number) => Boot | undefined
  readonly #clock: Clock

  constructor(current: Boot, bootOf: (boot: number) => Boot | undefined, clock: Clock) {
    this.gateway = current.gateway
    this.#current = current
    this.#bootOf = bootOf
    this.#clock = clock
  }

  /** `<gateway>/<epoch>/<seq>` of the acceptance: the same on every resend and across restarts (design.md section 2, Ids). */
  messageId(bytes: Buffer, at: number): string {
    const boot = recordBoot(bytes, at)
    const of = boot === this.#current.boot ? this.#current : this.#bootOf(boot)
    if (of === undefined) return `${this.gateway}/boot-${boot}/${recordSeq(bytes, at)}`
    return `${of.gateway}/${of.epoch}/${recordSeq(bytes, at)}`
  }

  /** Wall time of acceptance, milliseconds since 1970, by what is known of that boot's clock today. */
  wallTimeMs(bytes: Buffer, at: number): number {
    const boot = recordBoot(bytes, at)
    const of = boot === this.#current.boot ? this.#current : this.#bootOf(boot)
    return Math.round((of?.wallOffsetMs ?? 0) + recordAcceptedAt(bytes, at))
  }

  /**
   * Milliseconds since acceptance. Time of an earlier process start counts by the wall clock, and only if the clock was trusted when
   * the message came; else what lies before this start counts as zero (design.md section 5).
   */
  ageMs(bytes: Buffer, at: number): number {
    const sinceStart = this.#clock.monotonicMs()
    if (recordBoot(bytes, at) === this.#current.boot) return Math.max(0, sinceStart - recordAcceptedAt(bytes, at))
    if (recordClock(bytes, at) === ClockTrust.unknown) return sinceStart
    return Math.max(sinceStart, this.#clock.wallMs() - this.wallTimeMs(bytes, at))
  }
}
