/*
 * TLS handshakes of all listeners. One costs a millisecond of a fast processor and ten of a small one, in which nothing else happens; so few go on at once, and
 * after a power cut a whole site waits in order. Who holds a place without getting on loses it: soon while others wait, and no address holds more than half of the places.
 */

/** What a handshake has while others wait for its place, if that is less: three round trips of a bad link. */
const PRESSED_DEADLINE_MS = 3_000
/** Longest wait for a place: even slow boards are through with 500 connections by then. */
const WAITING_DEADLINE_MS = 20_000
const CHECK_INTERVAL_MS = 250

/** A connection on its way to be a TLS connection. */
export interface Handshake {
  readonly address: string
  /** Its turn has come. */
  begin(): void
  /** It has waited or held its place for too long. */
  expire(): void
}

export class Handshakes {
  readonly #atOnce: number
  readonly #perAddress: number
  readonly #clientsMax: number
  readonly #deadlineMs: number
  readonly #monotonicMs: () => number
  /** When each began. */
  readonly #running = new Map<Handshake, number>()
  readonly #runningByAddress = new Map<string, number>()
  /** When each came, in that order. */
  readonly #waiting = new Map<Handshake, number>()
  #clients = 0
  #timer: NodeJS.Timeout | null = null

  /** Handshakes that led to a connection. */
  completed = 0
  /** Those that did not, by reason. */
  readonly failed = new Map<string, number>()
  /** Connections closed before their handshake because there were `clientsMax` already. */
  refused = 0

  constructor({
    atOnce,
    clientsMax,
    deadlineMs,
    monotonicMs,
  }: {
    atOnce: number
    /** Connections at once: established, in their handshake, and waiting for it. */
    clientsMax: number
    /** For a handshake, from its begin. */
    deadlineMs: number
    monotonicMs: () => number
  }) {
    this.#atOnce = atOnce
    this.#perAddress = Math.ceil(atOnce / 2)
    this.#clientsMax = clientsMax
    this.#deadlineMs = deadlineMs
    this.#monotonicMs = monotonicMs
  }

  /** Connections at present: established, in their handshake, and waiting for it. */
  get clients(): number {
    return this.#clients
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** Takes a connection in, which begins now or when its turn comes; false: there are too many already. */
  enter(handshake: Handshake): boolean {
    if (this.#clients >= this.#clientsMax) {
      this.refused++
      return false
    }
    this.#clients++
    this.#waiting.set(handshake, this.#monotonicMs())
    this.#beginNext()
    return true
  }

  /** Its handshake is done. */
  complete(handshake: Handshake): void {
    this.completed++
    this.#release(handshake)
  }

  /** Its handshake has failed; the connection still counts until it is closed. */
  fail(handshake: Handshake, reason: string): void {
    this.failed.set(reason, (this.failed.get(reason) ?? 0) + 1)
    this.#release(handshake)
  }

  /** The connection is closed, whatever became of its handshake; to be called once. */
  leave(handshake: Handshake): void {
    this.#clients--
    this.#release(handshake)
  }

  #release(handshake: Handshake): void {
    this.#waiting.delete(handshake)
    if (this.#running.delete(handshake)) {
      const { address } = handshake
      const left = (this.#runningByAddress.get(address) ?? 0) - 1
      if (left > 0) this.#runningByAddress.set(address, left)
      else this.#runningByAddress.delete(address)
    }
    this.#beginNext()
    if (this.#running.size === 0 && this.#timer !== null) {
      clearInterval(this.#timer)
      this.#timer = null
    }
  }

  #beginNext(): void {
    if (this.#running.size >= this.#atOnce) return
    for (const handshake of this.#waiting.keys()) {
      const { address } = handshake
      const held = this.#runningByAddress.get(address) ?? 0
      if (held >= this.#perAddress) continue
      this.#waiting.delete(handshake)
      this.#running.set(handshake, this.#monotonicMs())
      this.#runningByAddress.set(address, held + 1)
      // The listeners keep the process alive, not a deadline.
      this.#timer ??= setInterval(() => this.#expire(), CHECK_INTERVAL_MS).unref()
      handshake.begin()
      if (this.#running.size >= this.#atOnce) return
    }
  }

  #expire(): void {
    const nowMs = this.#monotonicMs()
    for (const [handshake, sinceMs] of this.#running) {
      const mostMs = this.#waiting.size > 0 ? Math.min(PRESSED_DEADLINE_MS, this.#deadlineMs) : this.#deadlineMs
      if (nowMs - sinceMs >= mostMs) handshake.expire()
    }
    for (const [handshake, sinceMs] of this.#waiting) {
      if (nowMs - sinceMs < WAITING_DEADLINE_MS) return
      handshake.expire()
    }
  }
}
