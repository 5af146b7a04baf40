import { Clock as Trust } from '../model/message.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Clock } from './clock.ts'

/** Whether the machine's clock is right is asked so often until it is, and then so often. */
const ASK_MS = 30_000
const ASK_AGAIN_MS = 900_000
/** Once the clock was right, a step of it is followed if it is not larger than this: a time service makes small ones. */
const FOLLOWED_STEP_MS = 60_000
/** And if it is not smaller than this: below, it isn't worth a write. */
const LEAST_STEP_MS = 1000

/** What the store keeps of this process start: wall time = monotonic time + offset. */
export interface BootOffset {
  readonly wallOffsetMs: number
  readonly clock: Trust
}

/**
 * Sets this start's one offset right as soon as the machine's clock can be trusted (design.md section 5), and with it the wall time of every record
 * of this start. From then on a clock that jumps changes nothing: only small steps are followed.
 */
export class BootClock {
  readonly #offset: () => BootOffset
  readonly #clock: Clock
  readonly #isTrusted: () => Promise<boolean>
  readonly #correct: (offset: BootOffset) => Promise<void>
  readonly #log: Logger
  #timer: NodeJS.Timeout | null = null
  #isStopped = false
  #hasWarned = false

  constructor({
    offset,
    clock,
    isTrusted,
    correct,
    log,
  }: {
    /** As the store has it now. */
    offset: () => BootOffset
    /** The machine's own. */
    clock: Clock
    /** Whether something has set the machine's clock; never rejects. */
    isTrusted: () => Promise<boolean>
    /** Resolves when the new offset is durable; rejects only when the gateway stops. */
    correct: (offset: BootOffset) => Promise<void>
    log: Logger
  }) {
    this.#offset = offset
    this.#clock = clock
    this.#isTrusted = isTrusted
    this.#correct = correct
    this.#log = log
  }

  /** Looks now and again until `stop`. */
  start(): void {
    // Rejects only with the store that would keep the offset, at the end of the process.
    this.look().then(this.#scheduleNext, () => undefined)
  }

  stop(): void {
    this.#isStopped = true
    if (this.#timer !== null) clearTimeout(this.#timer)
  }

  readonly #scheduleNext = (): void => {
    if (this.#isStopped) return
    const isSynced = this.#offset().clock === Trust.synced
    this.#timer = setTimeout(() => this.start(), isSynced ? ASK_AGAIN_MS : ASK_MS)
    this.#timer.unref()
  }

  /** Compares the offset with the machine's clock, if that is trusted. */
  async look(): Promise<void> {
    if (!(await this.#isTrusted()) || this.#isStopped) return
    const { wallOffsetMs: before, clock: trust } = this.#offset()
    const wallOffsetMs = this.#clock.wallMs() - this.#clock.monotonicMs()
    const stepMs = Math.round(wallOffsetMs - before)
    if (trust === Trust.synced) {
      if (Math.abs(stepMs) < LEAST_STEP_MS) return
      if (Math.abs(stepMs) > FOLLOWED_STEP_MS) {
        this.#warn(stepMs)
        return
      }
    }
    await this.#correct({ wallOffsetMs, clock: Trust.synced })
    this.#log.info({ step_ms: stepMs }, 'the clock is synchronised; messages of this start are dated by it')
  }

  #warn(stepMs: number): void {
    if (this.#hasWarned) return
    this.#hasWarned = true
    this.#log.warn(
      { step_ms: stepMs },
      'the clock has jumped; messages are dated as before. Restart if it is right now',
    )
  }
}
