/*
 * The sending side of a route: takes from the route's queue while the link forwards, and settles what the upstream confirmed.
 *
 * Invariants
 * - A message is settled only by a confirm without a return. Whatever else happens it stays in the queue, in its place, and goes out
 *   again with the same message_id.
 * - Each route has a confirm channel of its own: AMQP answers a missing exchange or permission by closing the channel, and
 *   that must not touch other routes.
 * - A failure (return, nack, closed channel) is the message's own only if another message of the route has been confirmed since. Until then it is suspect: in
 *   flight to the queue, at most SUSPECTS of them. With that confirm it becomes a failed attempt (Queue.fail): it waits while others pass it, and is a dead letter after the last one.
 *   Where everything fails alike the route parks: nothing counts, and every PROBE_MS one message tries.
 * - A channel that is closed with several messages out does not say which of them it was. So many are sent one at a time then: whichever closes it again is it.
 * - Probes try messages that have not been tried before suspects, and suspects in turn, so that messages nobody wants can't keep a route parked.
 */
import type { RouteConfig } from '../config/schema.ts'
import type { Clock } from '../core/clock.ts'
import { type Classes, type Consumer, NOTE_LIVE } from '../core/consumer.ts'
import type { Identities } from '../core/identity.ts'
import type { Queue } from '../core/queue.ts'
import { BrokerError } from '../model/error.ts'
import { recordBytes, recordPayloadAt } from '../model/message.ts'
import type { Logger } from '../telemetry/log.ts'
import type { AmqpChannel, AmqpLink, ChannelHandlers, ExchangeOptions } from './amqp-link.ts'
import { Backoff } from './backoff.ts'
import { Mapping } from './mapping.ts'
import type { Scheduler, Share } from './scheduler.ts'
import { type Answered, Unconfirmed } from './unconfirmed.ts'
import type { Watchdog } from './watchdog.ts'

/** A live message that has waited longer is backlog for good (design.md section 2, "Order"). */
const LIVE_MS = 5000
/** Messages that failed and of which it is not known yet whose fault that was, at most. Each keeps its segment in memory (256 KiB at most). */
const SUSPECTS = 32
/** A parked route tries one message so often. */
const PROBE_MS = 5000
/** Suspects that nothing else was confirmed beside are tried again so often before the route parks. */
const RETRIES_TO_PARK = 2
const RETRY_FIRST_MS = 1000
const RETRY_MAX_MS = 300_000

type RouteState =
  /** The link is not up. */
  | { readonly kind: 'idle' }
  | { readonly kind: 'flowing' }
  /** The channel was closed: so many messages go out one at a time, to find out whose fault it was. */
  | { readonly kind: 'seeking'; readonly left: number }
  /** Takes nothing more and waits for the confirms of what is out. */
  | { readonly kind: 'ending' }
  | { readonly kind: 'parked'; readonly since: number; readonly reason: string }

export interface OutboxStatus {
  readonly name: string
  /** Name of its outbox. */
  readonly queue: string
  readonly state: RouteState['kind']
  readonly parked: { readonly reason: string; readonly since: number } | null
  readonly unconfirmed: number
  /** Failed, and nothing confirmed since. */
  readonly suspects: number
  readonly confirmed: number
  readonly returned: number
  readonly nacked: number
  /** Times the upstream closed its channel alone. */
  readonly channelCloses: number
  /** The upstream's last words about a failure; null: none so far. */
  readonly lastFailure: { readonly reason: string; readonly at: number } | null
}

export interface OutboxOptions {
  readonly route: Pick<RouteConfig, 'name' | 'exchange' | 'routingKey' | 'codec' | 'late' | 'order' | 'priority'>
  readonly queue: Queue
  readonly identities: Identities
  readonly scheduler: Scheduler
  readonly windowMessages: number
  readonly watchdog: Watchdog
  readonly log: Logger
  readonly clock: Clock
  readonly random: () => number
  /** Room for so many messages became free in the window: every route may look again, soon. */
  readonly roomFreed: (messages: number) => void
}

export class Outbox implements Consumer, Classes {
  readonly queue: Queue
  readonly priority: number
  readonly liveMs = LIVE_MS
  readonly isStrict: boolean
  readonly #name: string
  readonly #exchanges: readonly ExchangeOptions[]
  readonly #mapping: Mapping
  readonly #scheduler: Scheduler
  readonly #live: Share
  readonly #backlog: Share
  readonly #windowMessages: number
  readonly #watchdog: Watchdog
  readonly #log: Logger
  readonly #clock: Clock
  readonly #roomFreed: (messages: number) => void
  readonly #retryPause: Backoff

  #state: RouteState = { kind: 'idle' }
  #link: AmqpLink | null = null
  #channel: AmqpChannel | null = null
  /** Those of the youngest channel; what an earlier one still says is told apart by them. */
  #handlers: ChannelHandlers | null = null
  #unconfirmed: Unconfirmed
  /** The client's buffer is full until it says drained. */
  #isBufferFull = false
  #headersBytes = 0

  /** What the upstream said of each suspect, by position; all are in flight to the queue still. */
  readonly #suspects = new Map<number, string>()
  #retryTimer: NodeJS.Timeout | null = null
  /** Since a message was confirmed. */
  #retries = 0

  #probeTimer: NodeJS.Timeout | null = null
  #probeCredit = 0
  /** While seeking, the classes take turns: no class waits for the other to run dry. */
  #isBacklogTurn = false

  #confirmed = 0
  #returned = 0
  #nacked = 0
  #channelCloses = 0
  #returnWords = ''
  #lastFailure: { reason: string; at: number } | null = null

  constructor(options: OutboxOptions) {
    const { route, queue, identities, scheduler, windowMessages, watchdog, log, clock, random, roomFreed } = options
    this.queue = queue
    this.priority = route.priority
    this.isStrict = route.order === 'strict'
    this.#name = route.name
    const { exchange, late } = route
    this.#exchanges = late.exchange === null ? [exchange] : [exchange, { ...exchange, name: late.exchange }]
    this.#mapping = new Mapping({ route, identities })
    this.#scheduler = scheduler
    this.#windowMessages = windowMessages
    this.#watchdog = watchdog
    this.#log = log.child({ route: route.name })
    this.#clock = clock
    this.#roomFreed = roomFreed
    this.#retryPause = new Backoff({ firstMs: RETRY_FIRST_MS, maxMs: RETRY_MAX_MS, random })
    this.#unconfirmed = new Unconfirmed(windowMessages)
    const { priority } = route
    this.#live = scheduler.join({ isLive: true, priority, canSend: () => this.#canSend && queue.hasLive })
    this.#backlog = scheduler.join({ isLive: false, priority, canSend: () => this.#canSend && queue.hasBacklog })
    queue.classes = this
    this.#tellQueue()
  }

  // ---- what the queue asks

  get #canSend(): boolean {
    const { kind } = this.#state
    const isSending =
      kind === 'flowing' || (kind === 'seeking' && this.#channel !== null && this.#unconfirmed.count === 0)
    return (
      isSending &&
      this.#link?.isBlocked === false &&
      !this.#isBufferFull &&
      this.#suspects.size < SUSPECTS &&
      this.#unconfirmed.hasRoom
    )
  }

  get credit(): number {
    if (this.#state.kind === 'parked') return this.#probeCredit
    return this.#canSend && this.#scheduler.hasRoom ? 1 : 0
  }

  get liveCredit(): number {
    const isOthersTurn = this.#state.kind === 'seeking' && this.#isBacklogTurn && this.queue.hasBacklog
    return isOthersTurn ? 0 : this.#creditOf(this.#live)
  }

  get backlogCredit(): number {
    return this.#creditOf(this.#backlog)
  }

  #creditOf(share: Share): number {
    if (this.#state.kind === 'parked') return this.#probeCredit
    return this.#canSend ? this.#scheduler.creditOf(share) : 0
  }

  #shareOf(isLive: boolean): Share {
    return isLive ? this.#live : this.#backlog
  }

  deliver(bytes: Buffer, at: number, position: number, note: number, attempts: number): void {
    this.#probeCredit = 0
    this.#isBacklogTurn = !this.#isBacklogTurn
    const failures = attempts === 0 ? 0 : this.queue.failuresOf(position)
    const publication = this.#mapping.publicationOf(bytes, at, note, failures, this.#headersBytes)
    const length = recordBytes(bytes, at)
    try {
      const body = bytes.subarray(recordPayloadAt(bytes, at), at + length)
      const sent = this.#channel?.publish(publication, body) ?? 'closed'
      if (sent === 'closed') {
        // The end of the link is on its way.
        this.#channel = null
        this.#isBufferFull = true
        this.queue.requeue(position)
        return
      }
      if (sent === 'sent-buffer-full') this.#isBufferFull = true
    } catch (error) {
      this.#failed(
        position,
        `the message can't be expressed in AMQP: ${error instanceof Error ? error.message : error}`,
      )
      return
    }
    const isLive = (note & NOTE_LIVE) !== 0
    this.#unconfirmed.add(position, publication.messageId, length, isLive)
    this.#scheduler.sent(this.#shareOf(isLive), position, length)
    this.#watchdog.sent()
  }

  // ---- the link comes and goes

  /**
   * The link is up: opens the route's channel and begins to send, or parks if the upstream refuses channel or exchange. Never rejects: if
   * the link ends meanwhile, `unplug` is called by whoever called this.
   */
  async plug(link: AmqpLink): Promise<void> {
    this.#link = link
    this.#headersBytes = link.headersBytes
    this.queue.attach(this)
    const refusal = await this.#openChannel(link)
    if (this.#link !== link || this.#state.kind !== 'idle') return
    this.#retries = 0
    if (refusal === null) this.#flow()
    else this.#park(refusal)
  }

  /** Takes nothing more; what is out may still be confirmed. */
  end(): void {
    this.#stopTimers()
    this.#setState({ kind: 'ending' })
  }

  /** The link is gone: everything unsettled goes back to its place, and it was no attempt. */
  unplug(): void {
    this.#stopTimers()
    this.#link = null
    this.#channel = null
    this.#requeueSuspects()
    this.#forgetUnconfirmed(position => this.queue.requeue(position))
    this.#setState({ kind: 'idle' })
    this.queue.detach(this)
  }

  /** The upstream blocked or unblocked the connection. */
  blockedChanged(): void {
    this.#tellQueue()
  }

  status(): OutboxStatus {
    const state = this.#state
    return {
      name: this.#name,
      queue: this.queue.name,
      state: state.kind,
      parked: state.kind === 'parked' ? { reason: state.reason, since: state.since } : null,
      unconfirmed: this.#unconfirmed.count,
      suspects: this.#suspects.size,
      confirmed: this.#confirmed,
      returned: this.#returned,
      nacked: this.#nacked,
      channelCloses: this.#channelCloses,
      lastFailure: this.#lastFailure,
    }
  }

  /** Null, or why the upstream refuses channel or exchange. */
  async #openChannel(link: AmqpLink): Promise<string | null> {
    const handlers: ChannelHandlers = {
      acked: (tag, isMultiple) => this.#answered(handlers, tag, isMultiple, this.#onAck),
      nacked: (tag, isMultiple) => this.#answered(handlers, tag, isMultiple, this.#onNack),
      returned: (messageId, words) => {
        if (this.#handlers !== handlers) return
        this.#returnWords = words
        this.#unconfirmed.markReturned(messageId)
      },
      drained: () => {
        if (this.#handlers !== handlers) return
        this.#isBufferFull = false
        this.queue.pump()
      },
      closed: words => {
        if (this.#handlers === handlers) this.#channelClosed(words)
      },
    }
    this.#handlers = handlers
    this.#unconfirmed = new Unconfirmed(this.#windowMessages)
    try {
      const channel = await link.openChannel(this.#exchanges, handlers)
      if (this.#link !== link) return null
      if (!channel.isOpen) return this.#lastFailure?.reason ?? 'channel closed'
      this.#channel = channel
      this.#isBufferFull = false
      return null
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      return error.message
    }
  }

  // ---- answers

  #answered(from: ChannelHandlers, tag: number, isMultiple: boolean, each: Answered): void {
    if (this.#handlers !== from) return
    const count = this.#unconfirmed.answer(tag, isMultiple, each)
    if (count === 0) return
    this.#watchdog.answered(count)
    this.#roomFreed(count)
  }

  readonly #onAck = (position: number, bytes: number, isLive: boolean, isReturned: boolean): void => {
    this.#scheduler.answered(this.#shareOf(isLive), position, bytes)
    if (isReturned) {
      this.#returned++
      this.#failed(position, this.#returnWords)
      return
    }
    this.#confirmed++
    this.#retries = 0
    this.queue.settle(position)
    if (this.#state.kind === 'parked') this.#unpark()
    if (this.#suspects.size > 0) this.#blame()
    this.#sought()
  }

  readonly #onNack = (position: number, bytes: number, isLive: boolean): void => {
    this.#scheduler.answered(this.#shareOf(isLive), position, bytes)
    this.#nacked++
    this.#failed(position, 'the upstream could not take the message (basic.nack): a queue is full, or failing')
  }

  #failed(position: number, reason: string): void {
    this.#lastFailure = { reason, at: this.#clock.monotonicMs() }
    if (this.#suspects.size < SUSPECTS) this.#suspects.set(position, reason)
    else this.queue.requeue(position)
    if (this.#state.kind === 'parked') {
      this.#setState({ ...this.#state, reason })
      return
    }
    if (this.#state.kind === 'ending') return
    const isAlone = this.#unconfirmed.count === 0 && !this.queue.hasReady
    if ((isAlone && this.#retries >= RETRIES_TO_PARK) || this.#suspects.size >= SUSPECTS) {
      this.#park(reason)
      return
    }
    this.#retryTimer ??= setTimeout(() => this.#retry(), this.#retryPause.nextMs())
    this.#sought()
  }

  /** Another message was confirmed since: each suspect failed by its own fault. */
  #blame(): void {
    for (const [position, words] of this.#suspects) this.queue.fail(position, words)
    this.#suspects.clear()
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer)
    this.#retryTimer = null
    this.#retryPause.reset()
  }

  /** There was nothing else to confirm: the suspects try again. */
  #retry(): void {
    this.#retryTimer = null
    this.#retries++
    this.#requeueSuspects()
    this.queue.pump()
  }

  #requeueSuspects(): void {
    for (const position of this.#suspects.keys()) this.queue.requeue(position)
    this.#suspects.clear()
  }

  #channelClosed(words: string): void {
    const link = this.#link
    this.#channelCloses++
    this.#channel = null
    this.#lastFailure = { reason: words, at: this.#clock.monotonicMs() }
    const out: number[] = []
    this.#forgetUnconfirmed(position => out.push(position))
    const [first] = out
    const isKnown = first !== undefined && out.length === 1
    if (isKnown) this.#failed(first, words)
    else for (const position of out) this.queue.requeue(position)
    if (link === null || (this.#state.kind !== 'flowing' && this.#state.kind !== 'seeking')) return
    if (out.length === 0) {
      this.#park(words)
      return
    }
    if (!isKnown)
      this.#log.warn(
        { reason: words, messages: out.length },
        'channel closed: sending one at a time to find out which message it was',
      )
    const before = this.#state.kind === 'seeking' ? this.#state.left : 0
    this.#setState({ kind: 'seeking', left: Math.max(before, isKnown ? 1 : out.length) })
    void this.#reopen(link)
  }

  /** Never rejects: of a link that ends meanwhile, `unplug` tells. */
  async #reopen(link: AmqpLink): Promise<void> {
    const refusal = await this.#openChannel(link)
    if (this.#link !== link || this.#state.kind !== 'seeking') return
    if (refusal !== null) this.#park(refusal)
    else this.queue.pump()
  }

  /** While seeking: one more was answered. */
  #sought(): void {
    if (this.#state.kind !== 'seeking') return
    const left = this.#state.left - 1
    if (left > 0) this.#state = { kind: 'seeking', left }
    else this.#flow()
  }

  #forgetUnconfirmed(each: (position: number) => void): void {
    const count = this.#unconfirmed.clear((position, bytes, isLive) => {
      this.#scheduler.abandoned(this.#shareOf(isLive), position, bytes)
      each(position)
    })
    if (count === 0) return
    this.#watchdog.abandoned(count)
    this.#roomFreed(count)
  }

  // ---- flowing and parked

  #flow(): void {
    this.#setState({ kind: 'flowing' })
    this.#roomFreed(this.#windowMessages)
  }

  #park(reason: string): void {
    this.#log.warn({ reason }, 'route parked: the upstream takes none of its messages; it keeps them and probes')
    this.#stopTimers()
    this.#setState({ kind: 'parked', since: this.#clock.monotonicMs(), reason })
    this.#probeAgain()
  }

  #unpark(): void {
    this.#log.info('route flows again')
    this.#stopTimers()
    // What made messages fail before is probably over.
    this.queue.wakeAll()
    this.#flow()
  }

  #probeAgain(): void {
    const link = this.#link
    this.#probeTimer = setTimeout(() => {
      // #probe doesn't reject. The next pause begins when it is through, unless the route is elsewhere by then.
      void this.#probe(link).then(() => {
        if (this.#state.kind === 'parked' && this.#link === link) this.#probeAgain()
      })
    }, PROBE_MS)
  }

  async #probe(link: AmqpLink | null): Promise<void> {
    if (link === null || link.isBlocked || this.#unconfirmed.count > 0) return
    if (this.#channel === null) {
      const refusal = await this.#openChannel(link)
      if (this.#link !== link || this.#state.kind !== 'parked') return
      if (refusal !== null) {
        this.#setState({ ...this.#state, reason: refusal })
        return
      }
    }
    if (this.queue.depth === 0) {
      this.#unpark()
      return
    }
    if (this.#suspects.size >= SUSPECTS || !this.queue.hasReady) this.#requeueSuspect()
    this.#probeCredit = 1
    this.queue.pump()
  }

  /** The one that failed first: should it fail again, it is the last in turn. */
  #requeueSuspect(): void {
    const [first] = this.#suspects.keys()
    if (first === undefined) return
    this.#suspects.delete(first)
    this.queue.requeue(first)
  }

  #stopTimers(): void {
    if (this.#retryTimer !== null) clearTimeout(this.#retryTimer)
    if (this.#probeTimer !== null) clearTimeout(this.#probeTimer)
    this.#retryTimer = null
    this.#probeTimer = null
    this.#probeCredit = 0
  }

  #setState(state: RouteState): void {
    this.#state = state
    this.#tellQueue()
  }

  /** Messages accepted while the route forwards are live, the others backlog. */
  #tellQueue(): void {
    const { kind } = this.#state
    const isForwarding = kind === 'flowing' || kind === 'seeking'
    this.queue.setForwarding(isForwarding && this.#link?.isBlocked === false)
  }
}
