import type { Publisher } from './consumer.ts'

/** A publisher as the router knows it. */
export interface PublisherHandle {
  readonly id: number
  readonly publisher: Publisher
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
 */
export class Tickets {
  #capacity = FIRST_CAPACITY
  /** Durable queues that have not settled the message yet, by ticket modulo capacity. */
  #pending = new Uint32Array(FIRST_CAPACITY)
  #owner = new Uint32Array(FIRST_CAPACITY)
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

  register(publisher: Publisher): PublisherHandle {
    const handle: PublisherHandle = {
      id: this.#nextHandle++,
      publisher,
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

  /** Opens `count` tickets for messages that each went to `queues` durable queues; returns the first. */
  open(handle: PublisherHandle, count: number, queues: number): number {
    const first = this.#last + 1
    this.#makeRoom(count)
    const mask = this.#capacity - 1
    for (let ticket = first; ticket < first + count; ticket++) {
      this.#pending[ticket & mask] = queues
      this.#owner[ticket & mask] = handle.id
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
    return (
      ticket <= this.#committedThrough || ticket < this.#oldest || this.#pending[ticket & (this.#capacity - 1)] === 0
    )
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
    if (handle === undefined || handle.isToldSoon) return
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
