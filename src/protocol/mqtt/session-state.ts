/*
 * `limits.session_state`: what the gateway remembers of clients beside messages, in bytes: subscriptions, wills, topics that have an alias. It lies in the heap of JavaScript, which ends the process
 * when it is full, so it is charged by what it takes there at most (measured, rounded up) and not by what was sent.
 *
 * How many sessions there are is limited by `limits.sessions` and `limits.clients`. The first ALLOWANCE_BYTES of each are its own, so that nobody can keep others from their first few
 * subscriptions by taking all there is.
 */

/** Of each session, and of each connection for its topic aliases, whatever others have taken. */
const ALLOWANCE_BYTES = 1024

/** A subscription by itself, and each level of its filter: a node of the topic tree. */
const SUBSCRIPTION_BYTES = 512
const LEVEL_BYTES = 256
/** What a letter of a filter takes: in the subscription, in the tree, in records on their way to the disk. */
const LETTER_BYTES = 3
/** A group that shares a subscription has a queue. */
const GROUP_BYTES = 4096

const SLASH = 0x2f

export class SessionState {
  limitBytes: number
  used = 0
  /** How often there was no room. */
  refused = 0

  constructor(limitBytes: number) {
    this.limitBytes = limitBytes
  }

  /** There is room for so many bytes of a session that has nothing yet. */
  hasRoomFor(bytes: number): boolean {
    const hasRoom = charged(bytes) === 0 || this.used + charged(bytes) <= this.limitBytes
    if (!hasRoom) this.refused++
    return hasRoom
  }
}

/** What one session, or one connection, has taken of it. */
export class StateShare {
  readonly #state: SessionState
  #bytes = 0

  constructor(state: SessionState) {
    this.#state = state
  }

  /** False, and nothing is taken: there is no room. */
  take(bytes: number): boolean {
    const more = charged(this.#bytes + bytes) - charged(this.#bytes)
    if (this.#state.used + more > this.#state.limitBytes && more > 0) {
      this.#state.refused++
      return false
    }
    this.change(bytes)
    return true
  }

  /** Takes, or gives back if `bytes` is negative, whether or not there is room: for what was there before the limit. */
  change(bytes: number): void {
    this.#state.used += charged(this.#bytes + bytes) - charged(this.#bytes)
    this.#bytes += bytes
  }

  /** Gives all back. */
  close(): void {
    this.change(-this.#bytes)
  }
}

const charged = (bytes: number): number => Math.max(0, bytes - ALLOWANCE_BYTES)

/** Of a subscription to this filter. */
export function subscriptionBytes(filter: string): number {
  let levels = 1
  for (let at = 0; at < filter.length; at++) if (filter.charCodeAt(at) === SLASH) levels++
  const group = filter.startsWith('$share/') ? GROUP_BYTES : 0
  return SUBSCRIPTION_BYTES + levels * LEVEL_BYTES + filter.length * LETTER_BYTES + group
}
