/*
 * One upstream: its link, with reconnects, and the routes that send through it.
 *
 * The state is `BridgeState`; `#apply` moves it and `#enter` does what the new state asks for. What an earlier connection still
 * reports is told apart by a generation number, raised whenever a link is begun or given up.
 *
 * Of several URLs the first is home. A round of attempts begins there and goes on to the next at once; between rounds there is a pause. While a further one is in use the first is looked at from
 * time to time, and when it answers the link goes back to it, as in a pause: what is out may still be confirmed.
 */
import type { UpstreamConfig } from '../config/schema.ts'
import type { Clock } from '../core/clock.ts'
import type { Identities } from '../core/identity.ts'
import type { Queue } from '../core/queue.ts'
import { BrokerError } from '../model/error.ts'
import type { Logger } from '../telemetry/log.ts'
import { AmqpLink, type LinkHandlers, type LinkTls, redactUrl } from './amqp-link.ts'
import { Backoff } from './backoff.ts'
import { Outbox, type OutboxOptions, type OutboxStatus } from './outbox.ts'
import { Scheduler } from './scheduler.ts'
import { type BridgeEvent, type BridgeState, next } from './state.ts'
import { Watchdog } from './watchdog.ts'

/** Pausing and stopping wait so long for confirms of what is out: a message confirmed now isn't sent twice. */
const DRAIN_MS = 2000
/** And so long for the upstream's farewell. */
const FAREWELL_MS = 1000
/** Room in a full window is gathered for so long at most before it is used. */
const GATHER_MS = 1

/** For a link that is only to show that it can be opened. */
const IGNORED: LinkHandlers = { blocked: () => undefined, unblocked: () => undefined, lost: () => undefined }

/** How to get in: read anew for every attempt, so that a changed password or certificate needs no restart. */
export interface Login {
  /** At least one; the first is preferred. */
  readonly urls: readonly string[]
  readonly tls: LinkTls
}

export interface UpstreamOptions {
  readonly name: string
  /** @throws BrokerError if a file it is kept in can't be read. */
  readonly login: () => Login
  readonly options: Pick<UpstreamConfig, 'window' | 'share' | 'drain' | 'heartbeatMs' | 'stallTimeoutMs' | 'reconnect'>
  /** Each with its outbox, a queue nobody else consumes from. */
  readonly routes: readonly { readonly route: OutboxOptions['route']; readonly queue: Queue }[]
  readonly identities: Identities
  readonly log: Logger
  readonly clock: Clock
  /** Gives numbers in [0, 1). */
  readonly random: () => number
}

/** Times are ISO 8601 by the wall clock of now. */
export interface UpstreamStatus {
  readonly name: string
  readonly state: BridgeState['kind']
  readonly since: string
  /** In use, or tried last; without the password. */
  readonly url: string
  /** Attempts to connect since the link was last up. */
  readonly attempts: number
  /** When it connects again; null unless waiting. */
  readonly retryAt: string | null
  readonly blockedReason: string | null
  readonly window: number
  readonly unconfirmed: number
  readonly confirmed: number
  readonly returned: number
  readonly nacked: number
  /** Times the link came up since this start. */
  readonly connects: number
  readonly lastError: { readonly code: string; readonly message: string; readonly at: string } | null
  readonly routes: readonly RouteStatus[]
}

export interface RouteStatus extends Omit<OutboxStatus, 'parked' | 'lastFailure'> {
  readonly parked: { readonly reason: string; readonly since: string } | null
  readonly lastFailure: { readonly reason: string; readonly at: string } | null
}

export class Upstream {
  readonly name: string
  readonly #options: UpstreamOptions['options']
  readonly #login: () => Login
  /** In use, or tried last. */
  #url = ''
  /** Which one of the URLs that is; and which one is tried next. */
  #urlAt = 0
  #homeTimer: NodeJS.Timeout | null = null
  #urls = 1
  #lookingHome: Promise<void> = Promise.resolve()
  readonly #connectionName: string
  readonly #log: Logger
  readonly #clock: Clock
  readonly #backoff: Backoff
  readonly #watchdog: Watchdog
  readonly #scheduler: Scheduler
  readonly #outboxes: readonly Outbox[]
  /** The same, those of one priority together, the highest first. */
  readonly #ranks: readonly (readonly Outbox[])[]

  #state: BridgeState = { kind: 'paused' }
  #stateSince: number
  #generation = 0
  #link: AmqpLink | null = null
  #timer: NodeJS.Timeout | null = null
  /** Gives up the attempt to connect under way. */
  #attempt = new AbortController()
  /** That attempt, and the farewells under way: settled when they are through. */
  #connecting: Promise<void> = Promise.resolve()
  #closing: Promise<void> = Promise.resolve()
  #attemptStartedAt = 0
  #confirmedAtOpen = 0
  #connects = 0
  #lastError: { code: string; message: string; at: number } | null = null
  #lastLogged = ''
  #turn = 0
  #isPumpDue = false
  /** Messages answered since the last pump. */
  #freed = 0
  #gatherTimer: NodeJS.Timeout | null = null

  constructor({ name, login, options, routes, identities, log, clock, random }: UpstreamOptions) {
    this.name = name
    this.#login = login
    this.#options = options
    this.#connectionName = `sluice ${identities.gateway} ${name}`
    this.#log = log.child({ upstream: name })
    this.#clock = clock
    this.#backoff = new Backoff({ firstMs: options.reconnect.firstMs, maxMs: options.reconnect.maxMs, random })
    this.#watchdog = new Watchdog(options.stallTimeoutMs, clock)
    this.#scheduler = new Scheduler({ options, monotonicMs: clock.monotonicMs, wake: () => this.#pumpSoon() })
    this.#stateSince = clock.monotonicMs()
    this.#outboxes = routes.map(
      ({ route, queue }) =>
        new Outbox({
          route,
          queue,
          identities,
          scheduler: this.#scheduler,
          windowMessages: options.window,
          watchdog: this.#watchdog,
          log: this.#log,
          clock,
          random,
          roomFreed: messages => this.#roomFreed(messages),
        }),
    )
    const ranks = Map.groupBy(this.#outboxes, ({ priority }) => priority)
    this.#ranks = [...ranks].sort(([a], [b]) => b - a).map(([, outboxes]) => outboxes)
  }

  /** Connects and forwards, and does so again whenever the link breaks. Once started it does nothing. */
  start(): void {
    this.resume()
  }

  resume(): void {
    this.#apply({ kind: 'resumed' })
  }

  /** Takes no more messages, waits a moment for the confirms of what is out, and closes the link. Queues keep filling. */
  pause(): void {
    this.#apply({ kind: 'paused' })
  }

  /** As pause; resolves when the link is closed, three seconds later at most. */
  async stop(): Promise<void> {
    this.pause()
    await this.#connecting
    await this.#lookingHome
    await this.#closing
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  status(): UpstreamStatus {
    const state = this.#state
    const routes = this.#outboxes.map(outbox => this.#routeStatus(outbox.status()))
    const sum = (figure: (route: RouteStatus) => number) => routes.reduce((total, route) => total + figure(route), 0)
    return {
      name: this.name,
      state: state.kind,
      since: this.#wallTime(this.#stateSince),
      url: this.#url,
      attempts: state.kind === 'connecting' || state.kind === 'waiting' ? state.attempt : 0,
      retryAt: state.kind === 'waiting' ? this.#wallTime(state.until) : null,
      blockedReason: state.kind === 'blocked' ? state.reason : null,
      window: this.#options.window,
      unconfirmed: this.#scheduler.unconfirmed,
      confirmed: sum(route => route.confirmed),
      returned: sum(route => route.returned),
      nacked: sum(route => route.nacked),
      connects: this.#connects,
      lastError: this.#lastError === null ? null : { ...this.#lastError, at: this.#wallTime(this.#lastError.at) },
      routes,
    }
  }

  #routeStatus(status: OutboxStatus): RouteStatus {
    const { parked, lastFailure } = status
    return {
      ...status,
      parked: parked === null ? null : { ...parked, since: this.#wallTime(parked.since) },
      lastFailure: lastFailure === null ? null : { ...lastFailure, at: this.#wallTime(lastFailure.at) },
    }
  }

  #wallTime(monotonicMs: number): string {
    return new Date(this.#clock.wallMs() + monotonicMs - this.#clock.monotonicMs()).toISOString()
  }

  // ---- state

  #apply(event: BridgeEvent): void {
    const before = this.#state
    const after = next(before, event)
    if (after === before) return
    this.#state = after
    this.#stateSince = this.#clock.monotonicMs()
    this.#logChange(after)
    this.#enter(after, before)
  }

  #enter(state: BridgeState, before: BridgeState): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (state.kind !== 'forwarding' && state.kind !== 'blocked') this.#stayAway()
    switch (state.kind) {
      case 'paused':
        this.#generation++
        this.#scheduler.stop()
        this.#attempt.abort()
        this.#giveUpLink()
        break
      case 'connecting':
        this.#giveUpLink()
        this.#connecting = this.#connect(++this.#generation)
        break
      case 'forwarding':
        if (before.kind === 'blocked') this.#blockedChanged()
        this.#watchdog.wake()
        this.#watch()
        this.#pumpSoon()
        break
      case 'blocked':
        this.#watchdog.rest()
        this.#blockedChanged()
        break
      case 'waiting':
        this.#timer = setTimeout(() => this.#apply({ kind: 'retryDue' }), state.until - this.#clock.monotonicMs())
        break
      default:
        state satisfies never
    }
  }

  /** Ends a link in order, if there is one. */
  #giveUpLink(): void {
    const link = this.#link
    if (link === null) return
    this.#link = null
    this.#closing = Promise.all([this.#closing, this.#close(link)]).then(() => undefined)
  }

  /** Never rejects. */
  async #connect(generation: number): Promise<void> {
    await this.#closing
    if (generation !== this.#generation) return
    this.#attemptStartedAt = this.#clock.monotonicMs()
    this.#attempt = new AbortController()
    const isMine = () => generation === this.#generation
    try {
      const link = await this.#open(this.#urlAt, {
        blocked: reason => isMine() && this.#apply({ kind: 'blocked', at: this.#clock.monotonicMs(), reason }),
        unblocked: () => isMine() && this.#apply({ kind: 'unblocked', at: this.#clock.monotonicMs() }),
        lost: cause => isMine() && this.#lost(cause),
      })
      if (!isMine()) {
        await link.close(FAREWELL_MS)
        return
      }
      this.#link = link
      await Promise.all(this.#outboxes.map(outbox => outbox.plug(link)))
      if (!isMine() || !link.isOpen) return
      this.#connects++
      this.#confirmedAtOpen = this.status().confirmed
      this.#apply({ kind: 'opened', at: this.#clock.monotonicMs() })
      if (this.#urlAt > 0) this.#lookHomeLater(generation)
      const reason = link.blockedReason
      if (reason !== null) this.#apply({ kind: 'blocked', at: this.#clock.monotonicMs(), reason })
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      if (isMine()) this.#lost(error)
    }
  }

  /** Rejects as AmqpLink.open, or if the login can't be read. */
  async #open(urlAt: number, handlers: LinkHandlers): Promise<AmqpLink> {
    const { heartbeatMs, reconnect } = this.#options
    const { urls, tls } = this.#login()
    this.#urls = urls.length
    const url = urls[urlAt % urls.length]
    if (url === undefined) throw new TypeError(`upstream ${this.name} has no URL`)
    if (urlAt === this.#urlAt) this.#url = redactUrl(url)
    return AmqpLink.open(
      {
        url,
        tls,
        connectionName: this.#connectionName,
        heartbeatMs,
        connectTimeoutMs: reconnect.connectTimeoutMs,
        handshakeTimeoutMs: reconnect.handshakeTimeoutMs,
        signal: this.#attempt.signal,
      },
      handlers,
    )
  }

  #lookHomeLater(generation: number): void {
    this.#homeTimer = setTimeout(() => {
      this.#lookingHome = this.#lookHome(generation)
    }, this.#options.reconnect.returnMs)
  }

  #stayAway(): void {
    if (this.#homeTimer !== null) clearTimeout(this.#homeTimer)
    this.#homeTimer = null
  }

  /** Goes back to the first URL if it answers. Never rejects. */
  async #lookHome(generation: number): Promise<void> {
    let isBack = false
    try {
      const link = await this.#open(0, IGNORED)
      await link.close(FAREWELL_MS)
      isBack = true
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
    }
    if (generation !== this.#generation) return
    if (isBack) {
      this.#urlAt = 0
      this.#apply({ kind: 'firstIsBack' })
    } else {
      this.#lookHomeLater(generation)
    }
  }

  #lost(cause: BrokerError): void {
    this.#generation++
    this.#link = null
    for (const outbox of this.#outboxes) outbox.unplug()
    const now = this.#clock.monotonicMs()
    this.#lastError = { code: cause.code, message: cause.message, at: now }
    const isNextAtOnce = this.#nextUrl()
    const pauseMs = isNextAtOnce ? this.#options.reconnect.firstMs : this.#pauseMs(cause, now)
    this.#apply({ kind: 'lost', retryAt: now + pauseMs, cause })
  }

  /** After a link that stood a round begins at the first URL; after an attempt that failed the next one's turn is at once, unless the round is over. */
  #nextUrl(): boolean {
    this.#urlAt = this.#state.kind === 'connecting' ? (this.#urlAt + 1) % this.#urls : 0
    return this.#urlAt > 0
  }

  #pauseMs(cause: BrokerError, now: number): number {
    const { firstMs, maxMs } = this.#options.reconnect
    if (cause.code === 'UPSTREAM_REFUSED') return maxMs
    // A link that carried something, or stood for a while, was a good one; a peer that accepts and hangs up was not.
    const wasGood =
      this.#state.kind !== 'connecting' &&
      (this.status().confirmed > this.#confirmedAtOpen || now - this.#attemptStartedAt > maxMs)
    if (wasGood) this.#backoff.reset()
    const pauseMs = this.#backoff.nextMs()
    // The time an attempt took (5 s into a black hole) is part of the pause, so that the cure of any outage is found within max + an attempt.
    return this.#state.kind === 'connecting' ? Math.max(firstMs, pauseMs - (now - this.#attemptStartedAt)) : pauseMs
  }

  #watch(): void {
    this.#timer = setInterval(
      () => {
        if (!this.#watchdog.isStalled) return
        const { allowedMs } = this.#watchdog
        this.#watchdog.cut()
        this.#link?.cut(new Error(`unconfirmed messages and no confirm for ${allowedMs} ms`))
      },
      Math.min(1000, this.#options.stallTimeoutMs / 4),
    )
  }

  #blockedChanged(): void {
    for (const outbox of this.#outboxes) outbox.blockedChanged()
  }

  /** Never rejects. */
  async #close(link: AmqpLink | null): Promise<void> {
    if (link === null) return
    for (const outbox of this.#outboxes) outbox.end()
    const deadline = this.#clock.monotonicMs() + DRAIN_MS
    while (link.isOpen && !link.isBlocked && this.#scheduler.unconfirmed > 0 && this.#clock.monotonicMs() < deadline) {
      await new Promise(resolve => setTimeout(resolve, 5))
    }
    await link.close(FAREWELL_MS)
    for (const outbox of this.#outboxes) outbox.unplug()
  }

  /**
   * Room became free in the window. While it is full, confirms come by ones and twos; gathering an eighth of the window before it is filled again
   * spares a system call per message. New messages don't wait for this: their queue pumps when it takes them.
   */
  #roomFreed(messages: number): void {
    this.#freed += messages
    if (this.#freed * 8 >= this.#options.window) this.#pumpSoon()
    else this.#gatherTimer ??= setTimeout(this.#pump, GATHER_MS)
  }

  /** Once per turn, after everything else this turn brings. */
  #pumpSoon(): void {
    if (this.#isPumpDue) return
    this.#isPumpDue = true
    process.nextTick(this.#pump)
  }

  /** Routes of a higher priority come first; those of the same take turns in it. */
  readonly #pump = (): void => {
    this.#isPumpDue = false
    this.#freed = 0
    if (this.#gatherTimer !== null) clearTimeout(this.#gatherTimer)
    this.#gatherTimer = null
    this.#turn++
    for (const rank of this.#ranks) {
      for (let i = 0; i < rank.length; i++) rank[(this.#turn + i) % rank.length]?.queue.pump()
    }
  }

  /** One line per change that an operator would notice; a retry that ends as the last one did is not. */
  #logChange(state: BridgeState): void {
    if (state.kind === 'connecting') return
    const { kind } = state
    const line = kind === 'waiting' ? `${kind} ${state.cause.code} ${state.cause.message}` : kind
    if (line === this.#lastLogged) return
    this.#lastLogged = line
    if (state.kind === 'waiting') {
      this.#log.warn(
        { state: kind, code: state.cause.code, reason: state.cause.message },
        'upstream is away; messages are kept',
      )
    } else if (state.kind === 'blocked') {
      this.#log.warn({ state: kind, reason: state.reason }, 'upstream takes no messages for now; they are kept')
    } else {
      this.#log.info({ state: kind, url: this.#url }, `upstream ${kind}`)
    }
  }
}
