/*
 * The sessions there are, by client id, attached to a connection or away.
 *
 * A session that ends with its connection is in here while that lasts, and costs nothing more. One that outlives it stays until its expiry
 * interval has passed since the end of its last connection [MQTT-3.1.2-23], a clean start [MQTT-3.1.2-4], or a connection that does not keep it.
 */
import type { Clock } from '../../core/clock.ts'
import type { KeptSession, KeptSessions, RestoredSession } from '../../core/sessions.ts'
import { ProtocolError, Reason } from './protocol-error.ts'
import { Session, type SessionHost } from './session.ts'
import type { Timed, TimerWheel } from './timer-wheel.ts'

/** A session for a connection. */
export interface Opened {
  readonly session: Session
  /** It was there before. */
  readonly isPresent: boolean
  /** Resolves when the disk knows what CONNACK says of it; null: there is nothing to be known. */
  readonly kept: Promise<void> | null
}

/** A session that waits for its client. How long it has waited is asked for anew each time: a clock that is trusted now may have been set since. */
class Absence implements Timed {
  wheelSlot = -1
  readonly #kept: KeptSession
  readonly #wheel: TimerWheel
  readonly #onEnd: () => void

  constructor(kept: KeptSession, { wheel, nowMs, onEnd }: { wheel: TimerWheel; nowMs: number; onEnd: () => void }) {
    this.#kept = kept
    this.#wheel = wheel
    this.#onEnd = onEnd
    wheel.schedule(this, nowMs + kept.leftMs)
  }

  timeReached(nowMs: number): void {
    const { leftMs } = this.#kept
    if (leftMs > 0) this.#wheel.schedule(this, nowMs + leftMs)
    else this.#onEnd()
  }

  cancel(): void {
    this.#wheel.cancel(this)
  }
}

export class Sessions {
  readonly #host: SessionHost
  readonly #keptSessions: KeptSessions
  readonly #wheel: TimerWheel
  readonly #clock: Clock
  readonly #sessions = new Map<string, Session>()
  /** How many of them outlive their connections, attached or not. */
  #keptCount = 0
  readonly #away = new Map<Session, Absence>()

  constructor(
    host: SessionHost,
    { keptSessions, wheel, clock }: { keptSessions: KeptSessions; wheel: TimerWheel; clock: Clock },
  ) {
    this.#host = host
    this.#keptSessions = keptSessions
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
    if (expiryMs === 0 || this.#keptCount < most || known?.kept != null) return
    throw new ProtocolError(
      Reason.quotaExceeded,
      `limits.sessions is reached: ${most} sessions are kept; connect with a clean session or session expiry 0`,
    )
  }

  /** Sessions of before this start, all of them away. */
  restore(restored: readonly RestoredSession[]): void {
    for (const { session: kept, subscriptions } of restored) {
      const { clientId, expiryMs } = kept
      const session = new Session({ clientId, expiryMs, kept }, this.#host)
      session.restore(subscriptions)
      this.#add(session)
      this.#stayAway(session, kept)
    }
  }

  /** The session of a client that connects: the one that is there [MQTT-3.1.2-5], or a new one [MQTT-3.1.2-6]. It is nobody else's at this moment. */
  open(
    clientId: string,
    { isClean, user, expiryMs }: { isClean: boolean; user: string | null; expiryMs: number },
  ): Opened {
    const known = this.#sessions.get(clientId)
    let kept: Promise<void> | null = null
    if (known !== undefined) {
      this.#away.get(known)?.cancel()
      this.#away.delete(known)
      const isOver = known.kept !== null && known.kept.leftMs <= 0
      if (!isClean && !isOver) {
        known.expiryMs = expiryMs
        return { session: known, isPresent: true, kept: known.kept?.connected(user, expiryMs) ?? null }
      }
      kept = this.#end(known) // [MQTT-3.1.2-4], [MQTT-4.1.0-2]
    }
    const session = new Session(
      { clientId, expiryMs, kept: expiryMs > 0 ? this.#keptSessions.begin(clientId) : null },
      this.#host,
    )
    this.#add(session)
    if (session.kept !== null) kept = session.kept.connected(user, expiryMs)
    return { session, isPresent: false, kept }
  }

  #add(session: Session): void {
    this.#sessions.set(session.clientId, session)
    if (session.kept !== null) this.#keptCount++
  }

  /** The connection of a session is over. */
  close(session: Session): void {
    const { kept, expiryMs } = session
    session.detach()
    if (kept === null || expiryMs === 0) {
      void this.#end(session)
      return
    }
    kept.disconnected(expiryMs) // [MQTT-3.1.2-23]
    this.#stayAway(session, kept)
  }

  #stayAway(session: Session, kept: KeptSession): void {
    const nowMs = this.#clock.monotonicMs()
    const absence = new Absence(kept, { wheel: this.#wheel, nowMs, onEnd: () => this.#end(session) })
    this.#away.set(session, absence)
  }

  #end(session: Session): Promise<void> | null {
    this.#sessions.delete(session.clientId)
    if (session.kept !== null) this.#keptCount--
    this.#away.delete(session)
    return session.end()
  }
}
