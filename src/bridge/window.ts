/** One of those who send through a window. */
export interface Sharer {
  /** Its messages sent and not yet answered. */
  readonly unconfirmed: number
  /** It could send now if it had room. */
  readonly isWaiting: boolean
}

/** Unconfirmed bytes of one upstream at most; one message always passes. What the AMQP client has not yet written to the socket lies in memory. */
export const WINDOW_BYTES = 4 * 1024 * 1024

/**
 * The messages an upstream may owe a confirm for (`upstreams.<name>.window`), shared by its routes: each gets an equal part while
 * several have something to send, and all of it while it is alone. A route above its part takes nothing more until the others have theirs.
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

  join(sharer: Sharer): void {
    this.#sharers.push(sharer)
  }

  /** How many more messages `sharer` may send now. */
  creditOf(sharer: Sharer): number {
    const free = this.#limit - this.#messages
    if (free <= 0 || this.#bytes >= WINDOW_BYTES) return 0
    if (this.#sharers.length === 1) return free
    let active = 1
    for (const other of this.#sharers) if (other !== sharer && (other.unconfirmed > 0 || other.isWaiting)) active++
    if (active === 1) return free
    const part = Math.max(1, Math.floor(this.#limit / active))
    if (sharer.unconfirmed < part) return Math.min(free, part - sharer.unconfirmed)
    for (const other of this.#sharers) if (other !== sharer && other.isWaiting && other.unconfirmed < part) return 0
    return free
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
