/*
 * The one door in. Every message of every protocol enters here, is admitted by every queue it goes to or by none, and its publisher is
 * acknowledged when its ticket is safe: ack after durable (design.md section 2).
 *
 * Hot side: publishRun takes a run of messages that share one route; nothing is allocated per message. Cold side: publish(message).
 */
import { BrokerError, type ErrorCode } from '../model/error.ts'
import {
  type Acceptance,
  type Message,
  MQTT_EXCHANGE,
  type RecordPrefix,
  recordPrefix,
  type Clock as Trust,
} from '../model/message.ts'
import type { Binding } from './binding.ts'
import type { Clock } from './clock.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { NOTE_LIVE, type Publisher } from './consumer.ts'
import type { Keeper } from './keeper.ts'
import type { MemoryBudget } from './memory.ts'
import { messageHeaders } from './message-headers.ts'
import type { Retained } from './retained.ts'
import type { QueueTarget, Route, RoutingTable } from './routing-table.ts'
import { copyPart, createRun, type Run } from './run.ts'
import { PASSING, SHARED, TICKETED } from './segment.ts'
import type { SessionIds } from './session-ids.ts'
import type { PublisherHandle, Tickets } from './tickets.ts'

export interface Receipt {
  readonly isRouted: boolean
}

/** A deferred message is given at least so long to be settled before it is written: below that a busy machine alone makes settling late. */
const MIN_DEFER_MS = 10

const EMPTY_PREFIX: RecordPrefix = { bytes: Buffer.alloc(0), qos: 0 }

export interface RouterCounters {
  /** QoS >= 1 or QoS 0 messages taken in, matched or not. */
  accepted: number
  /** Matched no binding. */
  unrouted: number
  /** QoS >= 1 messages refused before the acknowledgement. */
  refused: number
  /** Payload and property bytes of accepted messages. */
  acceptedBytes: number
}

export class Router {
  readonly #table: RoutingTable
  readonly #tickets: Tickets
  readonly #schedule: CommitSchedule
  readonly #memory: MemoryBudget
  readonly #retained: Retained
  readonly #clock: Clock
  readonly #commitIntervalMs: number
  readonly #refusal: () => ErrorCode | null
  readonly counters: RouterCounters = { accepted: 0, unrouted: 0, refused: 0, acceptedBytes: 0 }

  /** Reused for every accepted message: only seq and acceptedAt change. */
  readonly #acceptance: { seq: number; readonly boot: number; acceptedAt: number; clock: Trust }
  readonly #trust: () => Trust
  /** A message of a run by itself, where headers decide. */
  readonly #single = createRun(0, EMPTY_PREFIX)
  readonly #coldWaiters = new Map<number, { readonly safe: () => void; readonly refused: () => void }>()
  readonly #cold: PublisherHandle

  constructor({
    table,
    tickets,
    schedule,
    memory,
    retained,
    clock,
    boot,
    trust,
    commitIntervalMs,
    refusal,
  }: {
    table: RoutingTable
    tickets: Tickets
    schedule: CommitSchedule
    memory: MemoryBudget
    retained: Retained
    clock: Clock
    /** Number of this process start. */
    boot: number
    /** How far its wall clock is trusted now. */
    trust: () => Trust
    /** `store.commit_interval`: the longest a message waits for its consumer before it is written. */
    commitIntervalMs: number
    /** Why the store takes nothing new now; null: it does. */
    refusal: () => ErrorCode | null
  }) {
    this.#table = table
    this.#tickets = tickets
    this.#schedule = schedule
    this.#memory = memory
    this.#retained = retained
    this.#clock = clock
    this.#commitIntervalMs = commitIntervalMs
    this.#refusal = refusal
    this.#trust = trust
    this.#acceptance = { seq: 0, boot, acceptedAt: 0, clock: trust() }
    this.#cold = tickets.register({
      ticketsSafe: () => this.#settleReceipts(),
      ticketRefused: ticket => this.#refuseReceipt(ticket),
      resume: () => undefined,
    })
    memory.onRelief = () => this.resumePublishers()
  }

  /** Rises with every change of bindings; a cached route is valid while its version is this. */
  get version(): number {
    return this.#table.version
  }

  /** `limits.memory` is reached: publishers stop reading until Publisher.resume(). */
  get mustPause(): boolean {
    return this.#memory.isPressed
  }

  /** `ids`: what it publishes at QoS 2 is safe when these are on disk, too. */
  register(publisher: Publisher, ids: SessionIds | null = null): PublisherHandle {
    return this.#tickets.register(publisher, ids)
  }

  unregister(handle: PublisherHandle): void {
    this.#tickets.unregister(handle)
  }

  isSafe(ticket: number): boolean {
    return this.#tickets.isSafe(ticket)
  }

  isUnconfirmed(ticket: number): boolean {
    return this.#tickets.isUnconfirmed(ticket)
  }

  /** A ticket that is safe when the packet ids of this publisher, as they are now, are on disk. */
  keepIds(handle: PublisherHandle): number {
    const ticket = this.#tickets.open(handle, 1, 1)
    handle.ids?.due()
    return ticket
  }

  /** Memory or disk was relieved: held-back runs may be tried again. */
  resumePublishers(): void {
    for (const handle of this.#tickets.handles()) handle.publisher.resume()
  }

  /** Binds in memory only; the same object is used to unbind. */
  bind(exchange: string, binding: Binding): void {
    this.#table.bind(exchange, binding)
  }

  unbind(exchange: string, binding: Binding): void {
    this.#table.unbind(exchange, binding)
  }

  /** Routes that are kept anywhere are asked for again. */
  forgetRoutes(): void {
    this.#table.forgetRoutes()
  }

  /** Cached; @throws BrokerError EXCHANGE_NOT_FOUND */
  route(exchange: string, key: string): Route {
    return this.#table.route(exchange, key)
  }

  /**
   * Takes a run in. QoS 0: all of it, what a queue cannot keep is dropped and counted. QoS 1 and 2: returns how many messages were
   * accepted; if fewer than `run.count`, `run.refusal` says why the next one was not. `run.firstTicket` is the ticket of the first accepted message, the
   * others follow by one; 0: all are safe already.
   */
  publishRun(handle: PublisherHandle, route: Route, run: Run): number {
    run.refusal = null
    run.firstTicket = 0
    if (route.isForbidden) {
      this.counters.refused += run.count
      run.refusal = 'NOT_AUTHORIZED'
      return 0
    }
    if (route.readsHeaders) return this.#publishByHeaders(handle, route, run)
    return this.#publishAlike(handle, route, run)
  }

  /** Messages whose way depends on their headers go one by one. Each gets a ticket, so that tickets still follow by one. */
  #publishByHeaders(handle: PublisherHandle, route: Route, run: Run): number {
    const single = this.#single
    for (let i = 0; i < run.count; i++) {
      copyPart(run, i, i + 1, single)
      const accepted = this.#publishAlike(handle, this.#resolve(route, run, i), single)
      if (accepted === 0) {
        run.refusal = single.refusal
        return i
      }
      if (run.qos === 0) continue
      const ticket = single.firstTicket === 0 ? this.#tickets.open(handle, 1, 0) : single.firstTicket
      if (i === 0) run.firstTicket = ticket
    }
    return run.count
  }

  #resolve({ exchange, key }: Route, run: Run, i: number): Route {
    const headers = messageHeaders(run.propertiesTag, run.bytes, run.properties[i] ?? 0, run.payloads[i] ?? 0)
    return this.#table.resolve(exchange, key, headers)
  }

  #publishAlike(handle: PublisherHandle, route: Route, run: Run): number {
    if (run.qos === 0) {
      this.#book(route, run, run.count)
      this.#distribute(route, run)
      if (isRetained(route, run)) this.#retain(route, run, run.count - 1, 0)
      return run.count
    }
    const queues = route.queues1
    let accepted = queues.length === 0 ? run.count : this.#admit(route, run)
    const retains = accepted > 0 && isRetained(route, run)
    if (retains) accepted = this.#admitRetained(route, run, accepted)
    if (accepted < run.count) this.counters.refused += run.count - accepted
    if (accepted === 0) return 0
    this.#book(route, run, accepted)
    const ids = run.qos === 2 ? handle.ids : null
    const keepers = route.durable1 + (retains ? 1 : 0) + (ids === null ? 0 : 1)
    if (keepers > 0) {
      let passing = 0
      for (const { queue } of queues) if (passes(queue)) passing++
      run.firstTicket = this.#tickets.open(handle, accepted, keepers - passing, passing)
    }
    if (queues.length > 0) this.#append(queues, run, 0, accepted, run.firstTicket, route.durable1)
    // Nobody but the commit that keeps them settles these more: what is retained, and packet ids, are due at once.
    if (retains) this.#retain(route, run, accepted - 1, run.firstTicket + accepted - 1)
    ids?.due()
    if (route.live1.length > 0) {
      const count = run.count
      run.count = accepted
      for (const { receiver, note } of route.live1) receiver.deliverRun(run, route.topic, note)
      run.count = count
    }
    return accepted
  }

  /** QoS 0 to all who want it. */
  #distribute(route: Route, run: Run): void {
    for (const { receiver, note } of route.live0) receiver.deliverRun(run, route.topic, note)
    if (route.queues0.length > 0) this.#buffer(route, run)
  }

  #book(route: Route, run: Run, count: number): void {
    this.counters.accepted += count
    if (!route.isRouted) this.counters.unrouted += count
    this.counters.acceptedBytes += (run.ends[count - 1] ?? 0) - (run.properties[0] ?? 0)
  }

  /** How many messages of the run every queue takes. A refusal sets run.refusal. */
  #admit(route: Route, run: Run): number {
    for (const { queue } of route.queues1) {
      if (!queue.isDurable) continue
      // What passes is never written.
      const refusal = !passes(queue) ? this.#refusal() : queue.isAttended ? null : 'UPSTREAM_UNREACHABLE'
      if (refusal !== null) {
        run.refusal = refusal
        return 0
      }
    }
    const recordBytes = run.prefix.bytes.length
    const bytes = (run.ends[run.count - 1] ?? 0) - (run.properties[0] ?? 0) + run.count * recordBytes
    let isRefused = !this.#hasMemoryFor(route, bytes)
    for (const { queue } of route.queues1) {
      if (refuses(queue, run.count, bytes)) isRefused = true
    }
    if (!isRefused) return run.count
    let total = 0
    for (let i = 0; i < run.count; i++) {
      total += (run.ends[i] ?? 0) - (run.properties[i] ?? 0) + recordBytes
      if (!this.#hasMemoryFor(route, total)) {
        run.refusal = 'MEMORY_FULL'
        return i
      }
      for (const { queue } of route.queues1) {
        if (refuses(queue, i + 1, total)) {
          run.refusal = 'QUEUE_FULL'
          return i
        }
      }
    }
    return run.count
  }

  /** Every queue has a copy of its own, and grows in steps: a little for one of them, a lot for a thousand. */
  #hasMemoryFor({ queues1 }: Route, bytes: number): boolean {
    if (queues1.length <= 1) return this.#memory.hasRoomFor(bytes)
    let growth = 0
    for (const { queue } of queues1) growth += queue.growthFor(bytes)
    return this.#memory.hasRoomFor(growth)
  }

  /** How many of the first `count` messages can be retained, one after the other. A refusal sets run.refusal. */
  #admitRetained(route: Route, run: Run, count: number): number {
    const refusal = this.#refusal()
    const admitted = refusal === null ? this.#retained.admit(route.key, run, count) : 0
    if (admitted < count) run.refusal = refusal ?? 'RETAINED_FULL'
    return admitted
  }

  /** Only the last message of a run is retained: those before it were never to be seen. */
  #retain(route: Route, run: Run, last: number, ticket: number): void {
    // In a queue it has its number already.
    if (ticket === 0 || route.queues1.length === 0) {
      this.#date()
      this.#acceptance.seq++
    }
    this.#retained.take(route.key, run, last, this.#acceptance as Acceptance, ticket)
  }

  #date(): void {
    this.#acceptance.acceptedAt = Math.floor(this.#clock.monotonicMs())
    this.#acceptance.clock = this.#trust()
  }

  /** Appends messages [from, to) to the queues, delivers what can be delivered, and says when the rest is due. */
  #append(
    targets: readonly QueueTarget[],
    run: Run,
    from: number,
    to: number,
    firstTicket: number,
    durable: number,
  ): void {
    const acceptance = this.#acceptance
    this.#date()
    const firstSeq = acceptance.seq + 1
    const { bytes, properties, payloads, ends, expiries, expires, prefix } = run
    for (const { queue, note } of targets) {
      const isPassing = firstTicket !== 0 && passes(queue)
      const isOwed = firstTicket !== 0 && queue.isDurable && queue.ack === 'buffered' && queue.mayOwe(to - from)
      const status =
        (firstTicket === 0 || isOwed ? 0 : TICKETED) |
        (isPassing ? PASSING : durable > 1 && queue.isDurable ? SHARED : 0)
      // drop_newest takes what fits; the rest enters its ledger as dropped.
      let fitting = to - from
      if (queue.limits.onFull === 'drop_newest') fitting = this.#fitting(queue, run, from, to)
      for (let i = from; i < from + fitting; i++) {
        acceptance.seq = firstSeq + i - from
        const at = properties[i] ?? 0
        queue.take(
          prefix,
          acceptance as Acceptance,
          expires ? (expiries[i] ?? 0) : 0,
          bytes,
          at,
          ends[i] ?? 0,
          (payloads[i] ?? 0) - at,
          note,
          firstTicket === 0 ? this.#tickets.last : firstTicket + i - from,
          status,
        )
      }
      if (from + fitting < to) queue.bookDropped(to - from - fitting, 'overflow')
      if (queue.isDurable && firstTicket !== 0) {
        // As far as this queue is concerned these may be acknowledged: all, or what it dropped.
        for (let i = from + (isOwed ? 0 : fitting); i < to; i++) this.#tickets.settle(firstTicket + i - from)
      }
      queue.pump()
      if (queue.isDurable && !isPassing) {
        this.#scheduleCommit(queue, firstTicket === 0 || isOwed ? 0 : firstTicket + to - from - 1)
      }
    }
    acceptance.seq = firstSeq + to - from - 1
  }

  #fitting(queue: Keeper, run: Run, from: number, to: number): number {
    const all = (run.ends[to - 1] ?? 0) - (run.properties[from] ?? 0) + (to - from) * run.prefix.bytes.length
    if (queue.admit(to - from, all) === 'take') return to - from
    let total = 0
    for (let i = from; i < to; i++) {
      total += (run.ends[i] ?? 0) - (run.properties[i] ?? 0) + run.prefix.bytes.length
      if (queue.admit(i - from + 1, total) !== 'take') return i - from
    }
    return to - from
  }

  /** When is a commit due? design.md section 2. `ticket` 0: QoS 0, or acknowledged already: written within store.buffered_interval. */
  #scheduleCommit(queue: Keeper, ticket: number): void {
    this.#schedule.touch(queue)
    if (ticket === 0) {
      this.#schedule.buffered()
    } else if (!queue.isCaughtUp || queue.ack === 'buffered') {
      this.#schedule.due(ticket)
    } else {
      const patienceMs = Math.max(MIN_DEFER_MS, Math.min(this.#commitIntervalMs, 2 * queue.settleTimeP95Ms))
      this.#schedule.deferred(ticket, patienceMs)
    }
  }

  /** QoS 0 into queues that buffer it: never refused, dropped and counted where it cannot be kept. */
  #buffer(route: Route, run: Run): void {
    const refusal = this.#refusal()
    for (const target of route.queues0) {
      const { queue } = target
      if (queue.qos0 === 'pass' && (queue.noteNow & NOTE_LIVE) === 0) {
        queue.bookDropped(run.count, 'not_connected')
      } else if (refusal !== null && queue.isDurable) {
        queue.bookDropped(run.count, refusal === 'DISK_FULL' ? 'disk_full' : 'store_unavailable')
      } else if (!this.#memory.hasRoomFor((run.ends[run.count - 1] ?? 0) - (run.properties[0] ?? 0))) {
        queue.bookDropped(run.count, 'memory_full')
      } else {
        const fitting = this.#fitting(queue, run, 0, run.count)
        if (fitting > 0) this.#append([target], run, 0, fitting, 0, 0)
        if (fitting < run.count) queue.bookDropped(run.count - fitting, 'overflow')
      }
    }
  }

  /**
   * The cold edge: HTTP, wills, feeds. Resolves when the message is safe. Rejects with BrokerError UPSTREAM_UNCONFIRMED when an upstream that had to
   * confirm it did not; QUEUE_FULL, DISK_FULL, STORE_UNAVAILABLE, UPSTREAM_UNREACHABLE or MEMORY_FULL when it was refused, EXCHANGE_NOT_FOUND, or NOT_AUTHORIZED for an internal exchange or a topic below `$SYS/`; then no queue has taken it.
   */
  async publish(message: Message): Promise<Receipt> {
    if (this.#table.exchange(message.exchange).spec.isInternal) {
      throw new BrokerError(
        'NOT_AUTHORIZED',
        `exchange ${message.exchange} is internal; publish to an exchange that is bound to it`,
        { facts: { exchange: message.exchange } },
      )
    }
    if (this.mustPause) throw refused('MEMORY_FULL', message.key)
    const run = runOf(message)
    const route = this.route(message.exchange, message.key)
    const { isRouted } = route.readsHeaders ? this.#resolve(route, run, 0) : route
    if (this.publishRun(this.#cold, route, run) === 0) throw refused(run.refusal ?? 'QUEUE_FULL', message.key)
    const ticket = run.firstTicket
    if (ticket !== 0 && !this.isSafe(ticket)) {
      await new Promise<void>((safe, fail) => {
        this.#coldWaiters.set(ticket, { safe, refused: () => fail(refused('UPSTREAM_UNCONFIRMED', message.key)) })
      })
    }
    return { isRouted }
  }

  /** What the gateway itself says below `$SYS/`, at QoS 0, to whoever listens. Nobody published it, so it counts as nobody's. */
  announce(message: Message): void {
    this.#distribute(this.route(message.exchange, message.key), runOf(message))
  }

  #refuseReceipt(ticket: number): void {
    this.#coldWaiters.get(ticket)?.refused()
    this.#coldWaiters.delete(ticket)
  }

  #settleReceipts(): void {
    for (const [ticket, { safe }] of this.#coldWaiters) {
      if (!this.isSafe(ticket)) continue
      this.#coldWaiters.delete(ticket)
      safe()
    }
  }
}

/** A run of one message, without a frame. */
function runOf(message: Message): Run {
  const run = createRun(0, recordPrefix(message))
  run.bytes = Buffer.concat([message.properties, message.payload])
  run.count = 1
  run.payloads[0] = message.properties.length
  run.ends[0] = run.bytes.length
  run.expires = message.expiryMs !== null
  run.expiries[0] = message.expiryMs ?? 0
  run.qos = message.qos
  run.retain = message.retain
  run.dup = message.dup
  run.propertiesTag = message.propertiesTag
  return run
}

/** Retained is what was published to a topic with the flag, and nothing else [MQTT-3.3.1-8], 3.1.1 [MQTT-3.3.1-12]; on messages of other exchanges the flag only travels. */
const isRetained = ({ exchange }: Route, { retain }: Run): boolean => retain && exchange === MQTT_EXCHANGE

/** Nothing but its consumer's settlement makes a message safe in this queue. */
const passes = (queue: Keeper): boolean => queue.isDurable && queue.ack === 'upstream'

/** A dropped message would be acknowledged, which one that passes cannot be. */
function refuses(queue: Keeper, count: number, bytes: number): boolean {
  const admission = queue.admit(count, bytes)
  return admission === 'refuse' || (admission === 'drop' && passes(queue))
}

const WHY: Partial<Record<ErrorCode, string>> = {
  QUEUE_FULL: 'a queue it would enter is full; drain or purge the queue, or raise its limits',
  NOT_AUTHORIZED: 'below $SYS/ the gateway itself speaks; choose another topic',
  RETAINED_FULL: 'it is to be retained and limits.retained is reached; clear retained messages, or raise that limit',
  DISK_FULL: 'the disk is nearly full; free space or raise store.disk',
  STORE_UNAVAILABLE: 'the store is being reopened after an I/O error; publish it again in a moment',
  UPSTREAM_UNREACHABLE:
    'it must be confirmed upstream before it is acknowledged, and nobody takes it now; publish it again when the upstream is back',
  UPSTREAM_UNCONFIRMED:
    'no upstream confirmed it within ack_timeout; it may have arrived all the same, and will not be sent again: publish it again',
  MEMORY_FULL: 'limits.memory is reached; publish it again when receivers have caught up',
}

function refused(code: ErrorCode, key: string): BrokerError {
  return new BrokerError(code, `message to ${key} refused: ${WHY[code] ?? code}`, { facts: { key } })
}
