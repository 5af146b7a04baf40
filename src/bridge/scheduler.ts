import type { UpstreamConfig } from '../config/schema.ts'
import { Pace } from './pace.ts'
import { TokenBucket } from './token-bucket.ts'
import { type Sharer, Window } from './window.ts'

/** One priority more weighs so many times as much. */
const PRIORITY_FACTOR = 2

/** The messages of one class of one route, as the scheduler sees them. */
export class Share implements Sharer {
  readonly isLive: boolean
  readonly weight: number
  unconfirmed = 0
  readonly #scheduler: Scheduler
  readonly #canSend: () => boolean

  constructor(scheduler: Scheduler, isLive: boolean, weight: number, canSend: () => boolean) {
    this.#scheduler = scheduler
    this.isLive = isLive
    this.weight = weight
    this.#canSend = canSend
  }

  get isWaiting(): boolean {
    return (this.isLive || !this.#scheduler.holdsBacklog) && this.#canSend()
  }
}

/**
 * Who of an upstream's routes may send how much of which class now. Live messages and backlog, by route, share the window by weight (`share`, and twice as much for each priority more); the backlog
 * keeps beside that to its rates (`drain`) and to what a live message behind it can bear (Pace).
 */
export class Scheduler {
  readonly #window: Window
  readonly #pace: Pace
  readonly #weights: UpstreamConfig['share']
  readonly #messages: TokenBucket
  readonly #bytes: TokenBucket
  readonly #wake: () => void
  #backlogOut = 0
  /** The message the pace is measured by. */
  #measuredShare: Share | null = null
  #measuredPosition = 0
  #timer: NodeJS.Timeout | null = null

  /** `wake` is called when the backlog may go on after its rates had held it. */
  constructor({
    options,
    monotonicMs,
    wake,
  }: {
    options: Pick<UpstreamConfig, 'window' | 'share' | 'drain'>
    monotonicMs: () => number
    wake: () => void
  }) {
    this.#window = new Window(options.window)
    this.#pace = new Pace(options.window, monotonicMs)
    this.#weights = options.share
    this.#messages = new TokenBucket(options.drain.messagesPerS, monotonicMs)
    this.#bytes = new TokenBucket(options.drain.bytesPerS, monotonicMs)
    this.#wake = wake
  }

  /** A class of a route takes part; `canSend`: it has something to send, and could if it had room. */
  join({ isLive, priority, canSend }: { isLive: boolean; priority: number; canSend: () => boolean }): Share {
    const weight = (isLive ? this.#weights.live : this.#weights.backlog) * PRIORITY_FACTOR ** priority
    const share = new Share(this, isLive, weight, canSend)
    this.#window.join(share)
    return share
  }

  /** Messages out and not answered. */
  get unconfirmed(): number {
    return this.#window.messages
  }

  /** Somebody may send. */
  get hasRoom(): boolean {
    return this.#window.hasRoom
  }

  get holdsBacklog(): boolean {
    return this.#backlogOut >= this.#pace.bound || this.#drainWaitMs > 0
  }

  get #drainWaitMs(): number {
    return Math.max(this.#messages.waitMs, this.#bytes.waitMs)
  }

  /** How many more messages `share` may send now. */
  creditOf(share: Share): number {
    const credit = this.#window.creditOf(share)
    if (share.isLive || credit === 0) return credit
    const waitMs = this.#drainWaitMs
    if (waitMs > 0) {
      this.#timer ??= setTimeout(() => this.#woken(), Math.ceil(waitMs))
      return 0
    }
    return Math.min(credit, Math.max(0, this.#pace.bound - this.#backlogOut))
  }

  #woken(): void {
    this.#timer = null
    this.#wake()
  }

  sent(share: Share, position: number, bytes: number): void {
    share.unconfirmed++
    this.#window.take(bytes)
    if (!share.isLive) {
      this.#backlogOut++
      this.#messages.take(1)
      this.#bytes.take(bytes)
    }
    if (!this.#pace.sent(this.#window.messages)) return
    this.#measuredShare = share
    this.#measuredPosition = position
  }

  /** The upstream has said what became of it. */
  answered(share: Share, position: number, bytes: number): void {
    this.#give(share, bytes)
    if (this.#isMeasured(share, position)) this.#pace.answered()
  }

  /** It will not: its channel or link is gone. */
  abandoned(share: Share, position: number, bytes: number): void {
    this.#give(share, bytes)
    if (this.#isMeasured(share, position)) this.#pace.abandoned()
  }

  /** No message of the backlog is waited for any more. */
  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  #isMeasured(share: Share, position: number): boolean {
    if (share !== this.#measuredShare || position !== this.#measuredPosition) return false
    this.#measuredShare = null
    return true
  }

  #give(share: Share, bytes: number): void {
    share.unconfirmed--
    this.#window.give(bytes)
    if (!share.isLive) this.#backlogOut--
  }
}
