import { historyOf, type Moment } from '../model/death-history.ts'
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

  #boot(boot: number): Boot | undefined {
    const current = this.#current()
    return boot === current.boot ? current : this.#bootOf(boot)
  }

  /** `<gateway>/<epoch>/<seq>` of the acceptance: the same on every resend and across restarts (design.md section 2, Ids). */
  messageId(bytes: Buffer, at: number): string {
    const boot = this.#boot(recordBoot(bytes, at))
    if (boot === undefined) return `${this.gateway}/boot-${recordBoot(bytes, at)}/${recordSeq(bytes, at)}`
    return `${boot.gateway}/${boot.epoch}/${recordSeq(bytes, at)}`
  }

  /** Wall time of acceptance, milliseconds since 1970, by what is known of that boot's clock today. */
  wallTimeMs(bytes: Buffer, at: number): number {
    return this.#wallTimeMs(recordBoot(bytes, at), recordAcceptedAt(bytes, at))
  }

  /** The same of a moment. */
  wallTimeOf({ boot, ms }: Moment): number {
    return this.#wallTimeMs(boot, ms)
  }

  #wallTimeMs(boot: number, ms: number): number {
    return Math.round((this.#boot(boot)?.wallOffsetMs ?? 0) + ms)
  }

  /** How far that wall time is trusted today. */
  trustOf(bytes: Buffer, at: number): Trust {
    return this.#boot(recordBoot(bytes, at))?.clock ?? Trust.unknown
  }

  /**
   * The age of a record, milliseconds since acceptance: what message expiry goes by. Time since this start counts always; time before it,
   * the time switched off above all, only if the wall clock was trusted both then and now, else as zero (design.md section 5). A clock that jumps changes nothing.
   */
  ageMs(bytes: Buffer, at: number): number {
    return this.#sinceMs(recordBoot(bytes, at), recordAcceptedAt(bytes, at))
  }

  /** The same since it entered the queue it is in: what TTL and age limits go by. */
  waitedMs(bytes: Buffer, at: number): number {
    const movedAt = historyOf(bytes, at)?.movedAt
    return movedAt === undefined ? this.ageMs(bytes, at) : this.#sinceMs(movedAt.boot, movedAt.ms)
  }

  /** The same since a moment. */
  sinceMs({ boot, ms }: Moment): number {
    return this.#sinceMs(boot, ms)
  }

  #sinceMs(boot: number, ms: number): number {
    const sinceStart = this.#clock.monotonicMs()
    const current = this.#current()
    if (boot === current.boot) return Math.max(0, sinceStart - ms)
    const then = this.#bootOf(boot)
    if (current.clock !== Trust.synced || then?.clock !== Trust.synced) return sinceStart
    return sinceStart + Math.max(0, current.wallOffsetMs - then.wallOffsetMs - ms)
  }
}
