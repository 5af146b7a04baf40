/*
 * The sessions there are, by client id, attached to a connection or away.
 *
 * A session that ends with its connection is in here while that lasts, and costs nothing more. One that outlives it stays until its expiry
 * interval has passed since the end of its last connection [MQTT-3.1.2-23], a clean start [MQTT-3.1.2-4], or a connection that does not keep it.
 */
import type { Clock } from '../../core/clock.ts'
import { ProtocolError, Reason } from './protocol-error.ts'
import { Session, type SessionHost } from './session.ts'
import type { Timed, TimerWheel } from './timer-wheel.ts'

/** A session for a connection, and whether it was there before. */
export interface Opened {
  readonly session: Session
  readonly isPresent: boolean
}

/** A session that waits for its client. */
class Absence implements Timed {
  wheelSlot = -1
  readonly #endsAtMs: number
  readonly #wheel: TimerWheel
  readonly #onEnd: () => void

  constructor(endsAtMs: number, wheel: TimerWheel, onEnd: () => void) {
    this.#endsAtMs = endsAtMs
    this.#wheel = wheel
    this.#onEnd = onEnd
    wheel.schedule(this, endsAtMs)
  }

  timeReached(nowMs: number): void {
    if (nowMs < this.#endsAtMs) this.#wheel.schedule(this, this.#endsAtMs)
    else this.#onEnd()
  }

  cancel(): void {
    this.#wheel.cancel(this)
  }
}

export class Sessions {
  readonly #host: SessionHost
  readonly #wheel: TimerWheel
  readonly #clock: Clock
  readonly #sessions = new Map<string, Session>()
  /** Those that outlive their connections, attached or not. */
  readonly #kept = new Set<Session>()
  readonly #away = new Map<Session, Absence>()

  constructor(host: SessionHost, { wheel, clock }: { wheel: TimerWheel; clock: Clock }) {
    this.#host = host
    this.#wheel = wheel
    this.#clock = clock
  }

  get count(): number {
    return this.#sessions.size
  }

  get subscriptionCount(): number {
    let count = 0
    for (const session of this.#sessions.values()) count += session.subscriptionCount
    return count
  }

  /** @throws ProtocolError if `limits.sessions` leaves no room for one more that outlives its connection. */
  checkRoom(clientId: string, expiryMs: number): void {
    const most = this.#host.limits.sessions
    const known = this.#sessions.get(clientId)
    if (expiryMs === 0 || this.#kept.size < most || (known !== undefined && this.#kept.has(known))) return
    throw new ProtocolError(
      Reason.quotaExceeded,
      `limits.sessions is reached: ${most} sessions are kept; connect with a clean session or session expiry 0`,
    )
  }

  /** The session of a client that connects: the one that is there [MQTT-3.1.2-5], or a new one [MQTT-3.1.2-6]. It is nobody else's at this moment. */
  open(clientId: string, { isClean, expiryMs }: { isClean: boolean; expiryMs: number }): Opened {
    const known = this.#sessions.get(clientId)
    if (known !== undefined) {
      this.#away.get(known)?.cancel()
      this.#away.delete(known)
      if (!isClean) {
        known.expiryMs = expiryMs
        return { session: known, isPresent: true }
      }
      this.#end(known) // [MQTT-3.1.2-4]
    }
    const session = new Session(clientId, expiryMs, this.#host)
    this.#sessions.set(clientId, session)
    if (expiryMs > 0) this.#kept.add(session)
    return { session, isPresent: false }
  }

  /** The connection of a session is over. */
  close(session: Session): void {
    session.detach()
    if (session.expiryMs === 0) {
      this.#end(session)
      return
    }
    const endsAtMs = this.#clock.monotonicMs() + session.expiryMs
    this.#away.set(session, new Absence(endsAtMs, this.#wheel, () => this.#end(session)))
  }

  #end(session: Session): void {
    this.#sessions.delete(session.clientId)
    this.#kept.delete(session)
    this.#away.delete(session)
    session.end()
  }
}
