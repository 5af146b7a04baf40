import { recordAcceptedAt, recordBoot, recordSeq, Clock as Trust } from '../model/message.ts'
import type { Clock } from './clock.ts'

/** What is known of one process start: the store keeps one for each (docs/storage-format.md). */
export interface Boot {
  readonly boot: number
  readonly epoch: string
  readonly gateway: string
  /** Wall time of a record of this boot = its monotonic time + this. */
  readonly wallOffsetMs: number
  /** How far that wall time is trusted. */
  readonly clock: Trust
}

/** Names and dates messages: id, wall time and age of a record, through the boot that accepted it. */
export class Identities {
  readonly gateway: string
  readonly #current: () => Boot
  readonly #bootOf: (boot: number) => Boot | undefined
  readonly #clock: Clock

  /** `bootOf` knows the current boot too; its offset may be set right at any time. */
  constructor(current: () => Boot, bootOf: (boot: number) => Boot | undefined, clock: Clock) {
    this.gateway = current().gateway
    this.#current = current
    this.#bootOf = bootOf
    this.#clock = clock
  }

  #boot(bytes: Buffer, at: number): Boot | undefined {
    const boot = recordBoot(bytes, at)
    const current = this.#current()
    return boot === current.boot ? current : this.#bootOf(boot)
  }

  /** `<gateway>/<epoch>/<seq>` of the acceptance: the same on every resend and across restarts (design.md section 2, Ids). */
  messageId(bytes: Buffer, at: number): string {
    const boot = this.#boot(bytes, at)
    if (boot === undefined) return `${this.gateway}/boot-${recordBoot(bytes, at)}/${recordSeq(bytes, at)}`
    return `${boot.gateway}/${boot.epoch}/${recordSeq(bytes, at)}`
  }

  /** Wall time of acceptance, milliseconds since 1970, by what is known of that boot's clock today. */
  wallTimeMs(bytes: Buffer, at: number): number {
    return Math.round((this.#boot(bytes, at)?.wallOffsetMs ?? 0) + recordAcceptedAt(bytes, at))
  }

  /** How far that wall time is trusted today. */
  trustOf(bytes: Buffer, at: number): Trust {
    return this.#boot(bytes, at)?.clock ?? Trust.unknown
  }

  /**
   * The age of a record, milliseconds since acceptance: what TTL, expiry and age limits go by. Time since this start counts always; time before it,
   * the time switched off above all, only if the wall clock was trusted both then and now, else as zero (design.md section 5). A clock that jumps changes nothing.
   */
  ageMs(bytes: Buffer, at: number): number {
    const sinceStart = this.#clock.monotonicMs()
    const acceptedAt = recordAcceptedAt(bytes, at)
    const current = this.#current()
    const boot = recordBoot(bytes, at)
    if (boot === current.boot) return Math.max(0, sinceStart - acceptedAt)
    const then = this.#bootOf(boot)
    if (current.clock !== Trust.synced || then?.clock !== Trust.synced) return sinceStart
    return sinceStart + Math.max(0, current.wallOffsetMs - then.wallOffsetMs - acceptedAt)
  }
}
