import type { Publisher } from './consumer.ts'
import type { SessionIds } from './session-ids.ts'

/** A publisher as the router knows it. */
export interface PublisherHandle {
  readonly id: number
  readonly publisher: Publisher
  /** Of a session that keeps the packet ids of what it publishes at QoS 2: a ticket is safe once these are on disk, too. */
  readonly ids: SessionIds | null
  /** Youngest ticket it was given; at or below `committedThrough` nothing of it is open. */
  lastTicket: number
  isWaiting: boolean
  isToldSoon: boolean
}

const FIRST_CAPACITY = 1024

/**
 * Tickets: one number for each message that must be safe before its publisher is acknowledged. A ticket is safe when a commit covered it, or when every durable
 * queue that took the message has settled it already (design.md section 2). Open tickets are a ring of counters, no objects; their
 * number is bounded by clients × limits.receive_max.
 *
 * Where a queue's policy is `upstream`, a commit does not help: such tickets are in a map beside the ring until each of these queues has settled the message, or one
 * of them refused it. They may be open for seconds, and the ring would have to span all that comes meanwhile.
 */
export class Tickets {
  #capacity = FIRST_CAPACITY
  /** Durable queues that have not settled the message yet, by ticket modulo capacity. */
  #pending = new Uint32Array(FIRST_CAPACITY)
  #owner = new Uint32Array(FIRST_CAPACITY)
  /** Tickets that wait for upstreams, by whose they are. */
  readonly #unconfirmed = new Map<number, PublisherHandle>()
  /** Of those, how many upstreams are missing beside one. */
  readonly #unconfirmedMore = new Map<number, number>()
  #refused = new Set<number>()
  /** Oldest ticket that may still be open. */
  #oldest = 1
  #last = 0
  #committedThrough = 0
  readonly #handles = new Map<number, PublisherHandle>()
  #nextHandle = 1
  /** Publishers with a ticket above committedThrough. */
  #waiting: PublisherHandle[] = []
  #toTell: PublisherHandle[] = []
  #isTelling = false

  register(publisher: Publisher, ids: SessionIds | null = null): PublisherHandle {
    const handle: PublisherHandle = {
      id: this.#nextHandle++,
      publisher,
      ids,
      lastTicket: 0,
      isWaiting: false,
      isToldSoon: false,
    }
    this.#handles.set(handle.id, handle)
    return handle
  }

  unregister(handle: PublisherHandle): void {
    this.#handles.delete(handle.id)
  }

  handles(): Iterable<PublisherHandle> {
    return this.#handles.values()
  }

  get last(): number {
    return this.#last
  }

  get committedThrough(): number {
    return this.#committedThrough
  }

  /** Oldest ticket that is not safe yet; `last + 1` when all are. */
  get oldestOpen(): number {
    const mask = this.#capacity - 1
    if (this.#oldest <= this.#committedThrough) this.#oldest = this.#committedThrough + 1
    while (this.#oldest <= this.#last && this.#pending[this.#oldest & mask] === 0) this.#oldest++
    return this.#oldest
  }

  /**
   * Opens `count` tickets for messages that each went to `queues` durable queues that make them safe by settling or a commit, and to `upstreams` that do so by settling
   * only; returns the first.
   */
  open(handle: PublisherHandle, count: number, queues: number, upstreams = 0): number {
    const first = this.#last + 1
    this.#makeRoom(count)
    const mask = this.#capacity - 1
    for (let ticket = first; ticket < first + count; ticket++) {
      this.#pending[ticket & mask] = queues
      this.#owner[ticket & mask] = handle.id
      if (upstreams > 0) this.#unconfirmed.set(ticket, handle)
      if (upstreams > 1) this.#unconfirmedMore.set(ticket, upstreams - 1)
    }
    this.#last += count
    handle.lastTicket = this.#last
    if (!handle.isWaiting) {
      handle.isWaiting = true
      this.#waiting.push(handle)
    }
    return first
  }

  /** Divides what came so far from what comes: returns the youngest ticket of the past, and is below all those of the future, those of QoS 0 included. */
  divide(): number {
    const youngest = this.#last
    this.#makeRoom(1)
    this.#last++
    this.#pending[this.#last & (this.#capacity - 1)] = 0
    return youngest
  }

  isSafe(ticket: number): boolean {
    if (this.#unconfirmed.size > 0 && this.#unconfirmed.has(ticket)) return false
    return (
      ticket <= this.#committedThrough || ticket < this.#oldest || this.#pending[ticket & (this.#capacity - 1)] === 0
    )
  }

  /** It waits for an upstream, or has just been refused by one. */
  isUnconfirmed(ticket: number): boolean {
    return this.#unconfirmed.has(ticket)
  }

  /** One durable queue has settled the message of this ticket before it was written. */
  settle(ticket: number): void {
    if (ticket <= this.#committedThrough || ticket < this.#oldest) return
    const slot = ticket & (this.#capacity - 1)
    const pending = this.#pending[slot] ?? 0
    if (pending === 0) return
    this.#pending[slot] = pending - 1
    if (pending > 1) return
    const handle = this.#handles.get(this.#owner[slot] ?? 0)
    if (handle !== undefined) this.#tellSoon(handle)
  }

  /** One upstream has the message of this ticket. */
  confirm(ticket: number): void {
    const handle = this.#unconfirmed.get(ticket)
    if (handle === undefined || this.#refused.has(ticket)) return
    const more = this.#unconfirmedMore.get(ticket) ?? 0
    if (more > 1) this.#unconfirmedMore.set(ticket, more - 1)
    else this.#unconfirmedMore.delete(ticket)
    if (more > 0) return
    this.#unconfirmed.delete(ticket)
    this.#tellSoon(handle)
  }

  /** An upstream will not have the message of this ticket: its publisher is refused, soon, and the ticket is over. It is never safe before that. */
  refuse(ticket: number): void {
    const handle = this.#unconfirmed.get(ticket)
    if (handle === undefined) return
    this.#refused.add(ticket)
    this.#tellSoon(handle)
  }

  #tellSoon(handle: PublisherHandle): void {
    if (handle.isToldSoon) return
    handle.isToldSoon = true
    this.#toTell.push(handle)
    if (!this.#isTelling) {
      this.#isTelling = true
      queueMicrotask(() => this.#tell())
    }
  }

  /** A commit has made everything up to and including `ticket` safe. */
  commit(ticket: number): void {
    if (ticket <= this.#committedThrough) return
    this.#committedThrough = ticket
    const waiting = this.#waiting
    this.#waiting = []
    for (const handle of waiting) {
      handle.isWaiting = handle.lastTicket > ticket
      if (handle.isWaiting) this.#waiting.push(handle)
    }
    for (const handle of waiting) if (this.#handles.has(handle.id)) handle.publisher.ticketsSafe()
  }

  #tell(): void {
    this.#isTelling = false
    const refused = this.#refused
    this.#refused = new Set()
    for (const ticket of refused) {
      const handle = this.#unconfirmed.get(ticket)
      this.#unconfirmed.delete(ticket)
      this.#unconfirmedMore.delete(ticket)
      if (handle !== undefined && this.#handles.has(handle.id)) handle.publisher.ticketRefused(ticket)
    }
    const toTell = this.#toTell
    this.#toTell = []
    for (const handle of toTell) {
      handle.isToldSoon = false
      if (this.#handles.has(handle.id)) handle.publisher.ticketsSafe()
    }
  }

  #makeRoom(count: number): void {
    if (this.#last + count - this.#oldest >= this.#capacity && this.#last + count - this.oldestOpen >= this.#capacity) {
      this.#grow(this.#last + count - this.#oldest + 1)
    }
  }

  #grow(needed: number): void {
    let capacity = this.#capacity
    while (capacity < needed) capacity *= 2
    const pending = new Uint32Array(capacity)
    const owner = new Uint32Array(capacity)
    for (let ticket = this.#oldest; ticket <= this.#last; ticket++) {
      pending[ticket & (capacity - 1)] = this.#pending[ticket & (this.#capacity - 1)] ?? 0
      owner[ticket & (capacity - 1)] = this.#owner[ticket & (this.#capacity - 1)] ?? 0
    }
    this.#pending = pending
    this.#owner = owner
    this.#capacity = capacity
  }
}
