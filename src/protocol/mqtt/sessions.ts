/*
 * The sessions there are, by client id, attached to a connection or away.
 *
 * A session that ends with its connection is in here while that lasts, and costs nothing more. One that outlives it stays until its expiry
 * interval has passed since the end of its last connection [MQTT-3.1.2-23], a clean start [MQTT-3.1.2-4], or a connection that does not keep it.
 */
import type { Identity } from '../../core/access.ts'
import type { AccessRules, Permissions } from '../../core/acl.ts'
import type { Clock } from '../../core/clock.ts'
import type { KeptSession, KeptSessions, RestoredSession, Will } from '../../core/sessions.ts'
import { LimitReached, Reason } from './protocol-error.ts'
import { Session, type SessionHost } from './session.ts'
import type { Timed, TimerWheel } from './timer-wheel.ts'
import { publishWill, willBytes } from './will.ts'

/** A session for a connection. */
export interface Opened {
  readonly session: Session
  /** It was there before. */
  readonly isPresent: boolean
  /** Resolves when the disk knows what CONNACK says of it; null: there is nothing to be known. */
  readonly kept: Promise<void> | null
}

/** A client that connects, and what it has agreed on. */
interface Arrival {
  readonly isClean: boolean
  readonly identity: Identity
  readonly permissions: Permissions
  readonly expiryMs: number
  readonly will: Will | null
}

/** A session that waits for its client. How long it has waited is asked for anew each time: the clock may be known better since. */
class Absence implements Timed {
  wheelSlot = -1
  readonly #session: Session
  readonly #kept: KeptSession
  readonly #wheel: TimerWheel
  readonly #onDue: () => void

  /** `onDue`: its session's time is over, or its will's. */
  constructor(
    { session, kept }: { session: Session; kept: KeptSession },
    { wheel, nowMs, onDue }: { wheel: TimerWheel; nowMs: number; onDue: () => void },
  ) {
    this.#session = session
    this.#kept = kept
    this.#wheel = wheel
    this.#onDue = onDue
    this.schedule(nowMs)
  }

  schedule(nowMs: number): void {
    this.#wheel.schedule(this, nowMs + Math.max(0, this.#leftMs))
  }

  timeReached(nowMs: number): void {
    if (this.#leftMs > 0) this.schedule(nowMs)
    else this.#onDue()
  }

  /** The earlier of the two decides [MQTT-3.1.3-9]. */
  get #leftMs(): number {
    const { expiryMs, will } = this.#session
    return Math.min(expiryMs, will?.delayMs ?? expiryMs) - this.#kept.awayMs
  }

  cancel(): void {
    this.#wheel.cancel(this)
  }
}

export class Sessions {
  readonly #host: SessionHost
  readonly #rules: AccessRules
  readonly #keptSessions: KeptSessions
  readonly #wheel: TimerWheel
  readonly #clock: Clock
  readonly #sessions = new Map<string, Session>()
  /** How many of them outlive their connections, attached or not. */
  #keptCount = 0
  readonly #away = new Map<Session, Absence>()

  constructor(
    host: SessionHost,
    {
      rules,
      keptSessions,
      wheel,
      clock,
    }: { rules: AccessRules; keptSessions: KeptSessions; wheel: TimerWheel; clock: Clock },
  ) {
    this.#host = host
    this.#rules = rules
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

  get awayCount(): number {
    return this.#away.size
  }

  all(): Iterable<Session> {
    return this.#sessions.values()
  }

  find(clientId: string): Session | undefined {
    return this.#sessions.get(clientId)
  }

  /** Ends a session that is away before its time. */
  endAway(session: Session): void {
    this.#away.get(session)?.cancel()
    void this.#end(session)
  }

  /** @throws ProtocolError if `limits.sessions` leaves no room for one more that outlives its connection, or `limits.session_state` for its will. */
  checkRoom(clientId: string, { expiryMs, will }: Pick<Arrival, 'expiryMs' | 'will'>): void {
    if (!this.#host.state.hasRoomFor(willBytes(will))) {
      const why = 'limits.session_state is reached: it leaves no room for the will'
      throw new LimitReached('session_state', Reason.quotaExceeded, why)
    }
    const most = this.#host.limits.sessions
    const known = this.#sessions.get(clientId)
    if (expiryMs === 0 || this.#keptCount < most || known?.kept != null) return
    throw new LimitReached(
      'sessions',
      Reason.quotaExceeded,
      `limits.sessions is reached: ${most} sessions are kept; connect with a clean session or session expiry 0`,
    )
  }

  /** Sessions of before this start, all of them away. */
  restore(restored: readonly RestoredSession[]): void {
    for (const { session: kept, will, subscriptions, packetIds } of restored) {
      const { clientId, expiryMs, identity } = kept
      const permissions = this.#rules.for(identity, clientId)
      const session = new Session({ clientId, expiryMs, kept, permissions }, this.#host)
      session.will = will
      session.restore(subscriptions, packetIds)
      this.enforce(session)
      this.#add(session)
      this.#stayAway(session, kept)
    }
  }

  /**
   * The session of a client that connects, by its identifier [MQTT-3.1.3-2], [MQTT-3.1.4-4]: the one that is there [MQTT-3.1.2-5], or a new one [MQTT-3.1.2-6]. It is
   * nobody else's at this moment, and stays while it is attached [MQTT-4.1.0-1].
   */
  open(clientId: string, { isClean, permissions, ...terms }: Arrival): Opened {
    const { expiryMs, will } = terms
    const known = this.#sessions.get(clientId)
    let kept: Promise<void> | null = null
    if (known !== undefined) {
      this.#away.get(known)?.cancel()
      this.#away.delete(known)
      const isOver = known.kept !== null && known.kept.awayMs >= known.expiryMs
      if (!isClean && !isOver) {
        known.expiryMs = expiryMs
        // It may be somebody else, and rules may be other ones than at the last start.
        known.permissions = permissions
        this.enforce(known)
        known.will = will // that of an earlier connection is not published any more [MQTT-3.1.3-9]
        return { session: known, isPresent: true, kept: known.kept?.connected(terms) ?? null }
      }
      kept = this.#end(known) // [MQTT-3.1.2-4], [MQTT-4.1.0-2]
    }
    const session = new Session(
      { clientId, expiryMs, kept: expiryMs > 0 ? this.#keptSessions.begin(clientId) : null, permissions },
      this.#host,
    )
    session.will = will
    this.#add(session)
    if (session.kept !== null) kept = session.kept.connected(terms)
    return { session, isPresent: false, kept }
  }

  /** Holds a session to the rules there are; returns how many subscriptions it lost. */
  enforce(session: Session): number {
    if (this.#rules.isEmpty) return 0
    const filters = session.revoke()
    if (filters.length > 0) {
      this.#host.counters.revokedSubscriptions += filters.length
      this.#host.clientLog.write(
        'warn',
        { client: session.clientId, filters },
        'subscriptions ended: auth.acl does not allow them',
      )
    }
    return filters.length
  }

  #add(session: Session): void {
    this.#sessions.set(session.clientId, session)
    if (session.kept !== null) this.#keptCount++
  }

  /** The connection of a session is over; `isWillDue`: not by a normal DISCONNECT. */
  close(session: Session, isWillDue: boolean): void {
    const { kept, expiryMs } = session
    session.detach()
    if (!isWillDue) {
      session.will = null // [MQTT-3.14.4-3], [MQTT-3.1.2-10], 3.1.1 [MQTT-3.1.2-10]
      kept?.endWill()
    }
    if (kept === null || expiryMs === 0) {
      void this.#end(session)
      return
    }
    kept.disconnected(expiryMs) // [MQTT-3.1.2-23]
    if (session.will?.delayMs === 0) this.#publishWill(session)
    this.#stayAway(session, kept)
  }

  #stayAway(session: Session, kept: KeptSession): void {
    const nowMs = this.#clock.monotonicMs()
    const absence = new Absence({ session, kept }, { wheel: this.#wheel, nowMs, onDue: () => this.#due(session, kept) })
    this.#away.set(session, absence)
  }

  #due(session: Session, kept: KeptSession): void {
    if (kept.awayMs >= session.expiryMs) {
      void this.#end(session) // [MQTT-4.1.0-2]
    } else {
      this.#publishWill(session)
      this.#away.get(session)?.schedule(this.#clock.monotonicMs())
    }
  }

  #end(session: Session): Promise<void> | null {
    this.#sessions.delete(session.clientId)
    if (session.kept !== null) this.#keptCount--
    this.#away.delete(session)
    this.#publishWill(session)
    return session.end()
  }

  /** Once [MQTT-3.1.2-10]. */
  #publishWill(session: Session): void {
    const { clientId, will, kept, permissions } = session
    if (will === null) return
    session.will = null
    const { router, counters, clientLog } = this.#host
    if (!permissions.mayPublish(will.message.key)) {
      // It might when it connected.
      counters.willsRefused++
      clientLog.write('warn', { client: clientId, code: 'NOT_AUTHORIZED' }, 'a will could not be published')
      kept?.endWill()
      return
    }
    // Settles within the router's own time and rejects only on a fault of the program, which is to end the process.
    void publishWill(router, will).then(refusal => {
      if (refusal === null) return
      counters.willsRefused++
      clientLog.write('warn', { client: clientId, code: refusal.code }, 'a will could not be published')
    })
    kept?.endWill()
  }
}
