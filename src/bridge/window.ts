/** One of those who send through a window: the messages of one class of one route. */
export interface Sharer {
  /** Its part is to the parts of others as this is to theirs. */
  readonly weight: number
  /** Its messages sent and not yet answered. */
  readonly unconfirmed: number
  /** It could send now if it had room. */
  readonly isWaiting: boolean
}

/** Unconfirmed bytes of one upstream at most; one message always passes. What the AMQP client has not yet written to the socket lies in memory. */
export const WINDOW_BYTES = 4 * 1024 * 1024

/**
 * The messages an upstream may owe a confirm for (`upstreams.<name>.window`), shared by the classes of its routes: each gets a part by its weight while several have
 * something to send, and all of it while it is alone. Whoever is above its part takes nothing more until the others have theirs. A part is at least one message: however
 * small its weight, nobody starves.
 */
export class Window {
  readonly #limit: number
  readonly #sharers: Sharer[] = []
  #messages = 0
  #bytes = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  get messages(): number {
    return this.#messages
  }

  /** One more message passes, whosoever it is. */
  get hasRoom(): boolean {
    return this.#messages < this.#limit && this.#bytes < WINDOW_BYTES
  }

  join(sharer: Sharer): void {
    this.#sharers.push(sharer)
  }

  /** How many more messages `sharer` may send now. */
  creditOf(sharer: Sharer): number {
    if (!this.hasRoom) return 0
    const free = this.#limit - this.#messages
    let weights = sharer.weight
    for (const other of this.#sharers) {
      if (other !== sharer && (other.unconfirmed > 0 || other.isWaiting)) weights += other.weight
    }
    if (weights === sharer.weight) return free
    const part = this.#partOf(sharer, weights)
    if (sharer.unconfirmed < part) return Math.min(free, part - sharer.unconfirmed)
    for (const other of this.#sharers) {
      if (other !== sharer && other.isWaiting && other.unconfirmed < this.#partOf(other, weights)) return 0
    }
    return free
  }

  #partOf(sharer: Sharer, weights: number): number {
    return Math.max(1, Math.floor((this.#limit * sharer.weight) / weights))
  }

  take(bytes: number): void {
    this.#messages++
    this.#bytes += bytes
  }

  give(bytes: number): void {
    this.#messages--
    this.#bytes -= bytes
  }
}
