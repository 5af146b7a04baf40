import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Authenticator, Identity } from '../../core/access.ts'
import type { AccessRules } from '../../core/acl.ts'
import type { Clock } from '../../core/clock.ts'
import type { Identities } from '../../core/identity.ts'
import type { MemoryBudget } from '../../core/memory.ts'
import type { Queue } from '../../core/queue.ts'
import type { Router } from '../../core/router.ts'
import type { KeptSessions, RestoredSession } from '../../core/sessions.ts'
import type { Streams } from '../../core/streams.ts'
import type { Topology } from '../../core/topology.ts'
import type { Logger } from '../../telemetry/log.ts'
import type { AuthenticationMethods } from './authentication.ts'
import {
  type Arrived,
  type ClientLog,
  Connection,
  type ConnectionHost,
  type Socket,
  versionName,
} from './connection.ts'
import { MqttCounters } from './counters.ts'
import { UnfinishedPackets } from './frame.ts'
import {
  INCOMPLETE_PACKETS,
  INCOMPLETE_PACKETS_BYTES,
  type MqttLimits,
  SMALL_HOLDING_BYTES,
  UNIDENTIFIED_CONNECTIONS,
  UNIDENTIFIED_GRACE_MS,
} from './limits.ts'
import { LimitReached, ProtocolError, Reason } from './protocol-error.ts'
import { createGathering } from './publish.ts'
import { ReadingTurns } from './reading-turns.ts'
import { FeedTurns, type RetainedMessages } from './retained-feed.ts'
import type { Session, SessionHost, Subscription } from './session.ts'
import { SessionState } from './session-state.ts'
import { type Opened, Sessions } from './sessions.ts'
import { SharedGroups } from './shared-groups.ts'
import { TimerWheel } from './timer-wheel.ts'
import { willOf } from './will.ts'

/** A session at the moment of asking. */
export interface SessionInfo {
  /** That of its client. */
  readonly id: string
  readonly isConnected: boolean
  /** How long it outlives a connection, milliseconds; 0: not at all; Infinity: it stays. */
  readonly expiryMs: number
  /** Until it ends unless its client comes back, milliseconds; null: that is connected. */
  readonly endsInMs: number | null
  /** As they were asked for, but with the QoS granted. */
  readonly filters: readonly Subscription[]
  /** Where its messages of QoS 1 wait; null: it has not needed one. */
  readonly queue: Queue | null
  /** Messages waiting there, without those in flight. */
  readonly queued: number
  readonly inFlight: number
  /** Messages handed to the outputs of its connections, and of QoS 0 withheld. */
  readonly sent: number
  readonly dropped: number
}

/** A connected client at the moment of asking. */
export interface ClientInfo extends SessionInfo {
  /** Who it has proved to be; where there is nothing to prove it with, as it calls itself. Null: it gave no name. */
  readonly user: string | null
  /** `3.1`, `3.1.1`, `5.0`. */
  readonly version: string
  readonly address: string
  /** Wall clock, milliseconds since 1970. */
  readonly connectedAtMs: number
  /** Seconds in force; 0: none. */
  readonly keepAliveS: number
  readonly outputBytes: number
  /** Messages taken from it. */
  readonly received: number
}

/** Subscriptions looked at in one turn of the event loop when rules have changed: a millisecond or so. */
const TURN_SUBSCRIPTIONS = 256

/**
 * All MQTT clients of the gateway, over whatever transport they come: sockets are handed in by `accept`.
 */
export class MqttServer {
  readonly counters = new MqttCounters()
  /** `limits.session_state` */
  readonly state: SessionState

  readonly #host: ConnectionHost & { limits: MqttLimits }
  readonly #sessionHost: SessionHost & { limits: MqttLimits }
  readonly #rules: AccessRules
  readonly #wheel: TimerWheel
  readonly #connections = new Set<Connection>()
  /** Those that have not been let in yet, oldest first. */
  readonly #unidentified = new Set<Connection>()
  readonly #clients = new Map<string, Connection>()
  readonly #sessions: Sessions
  readonly #groups: SharedGroups
  #toRetry = new Set<Connection>()
  #stopped: Promise<void> | null = null
  #onLastClosed: (() => void) | null = null

  constructor({
    router,
    topology,
    streams,
    keptSessions,
    retained,
    memory,
    limits,
    log,
    clientLog,
    clock,
    identities,
    authenticator,
    rules,
    authenticationMethods = new Map(),
  }: {
    router: Router
    topology: Topology
    streams: Streams
    keptSessions: KeptSessions
    retained: RetainedMessages
    memory: MemoryBudget
    limits: MqttLimits
    log: Logger
    clientLog: ClientLog
    clock: Clock
    identities: Identities
    authenticator: Authenticator
    rules: AccessRules
    /** Of enhanced authentication. */
    authenticationMethods?: AuthenticationMethods
  }) {
    this.#wheel = new TimerWheel(clock)
    this.#rules = rules
    memory.onJam = bytes => this.#relieve(bytes)
    this.state = new SessionState(limits.sessionStateBytes)
    const { counters, state } = this
    const groups = new SharedGroups({ router, topology, kept: keptSessions, limits, counters })
    this.#groups = groups
    this.#sessionHost = {
      router,
      topology,
      streams,
      retained,
      feedTurns: new FeedTurns(),
      groups,
      limits,
      state,
      counters,
      identities,
      clientLog,
    }
    this.#sessions = new Sessions(this.#sessionHost, { rules, keptSessions, wheel: this.#wheel, clock })
    this.#host = {
      router,
      memory,
      state,
      limits,
      log,
      clientLog,
      clock,
      authenticator,
      authenticationMethods,
      counters,
      wheel: this.#wheel,
      gathering: createGathering(),
      unfinished: new UnfinishedPackets(Math.max(INCOMPLETE_PACKETS_BYTES, INCOMPLETE_PACKETS * limits.packetBytes)),
      turns: new ReadingTurns(),
      enter: (client, connection) => this.#enter(client, connection),
      leave: (session, connection, isWillDue) => this.#leave(session, connection, isWillDue),
      closed: connection => this.#closed(connection),
      retrySoon: connection => this.#retrySoon(connection),
    }
  }

  get clientCount(): number {
    return this.#clients.size
  }

  /** For connections, sessions and subscriptions that come from now on; queues that are there keep theirs. */
  set limits(limits: MqttLimits) {
    this.#host.limits = limits
    this.#sessionHost.limits = limits
    this.state.limitBytes = limits.sessionStateBytes
  }

  get limits(): MqttLimits {
    return this.#host.limits
  }

  /** The users have changed: every client is looked at again, and those that are nobody any more (null) are disconnected. */
  review(review: (identity: Identity) => Identity | null): void {
    for (const connection of this.#connections) connection.review(review)
    // They may be in other groups.
    if (!this.#rules.isEmpty) void this.rulesChanged()
  }

  /** Sessions of clients that are connected, and of those that may come back. */
  get sessionCount(): number {
    return this.#sessions.count
  }

  get subscriptionCount(): number {
    return this.#sessions.subscriptionCount
  }

  /** Sessions of before this start; to be called before the first client is accepted, so that nothing published from then on misses them. */
  restore(sessions: readonly RestoredSession[]): void {
    this.#sessions.restore(sessions)
    this.#groups.restored()
  }

  get awaySessionCount(): number {
    return this.#sessions.awayCount
  }

  /** Groups that share a subscription. */
  get groupCount(): number {
    return this.#groups.count
  }

  /** The queues of those groups. */
  groupQueues(): Iterable<Queue> {
    return this.#groups.queues()
  }

  *sessions(): Iterable<SessionInfo> {
    for (const session of this.#sessions.all()) yield this.#describe(session)
  }

  session(clientId: string): SessionInfo | undefined {
    const session = this.#sessions.find(clientId)
    return session === undefined ? undefined : this.#describe(session)
  }

  /**
   * The rules have changed: what clients publish is judged anew at once, and subscriptions that are not allowed any more end, connected or away, some sessions in
   * each turn of the event loop. Resolves with how many did.
   */
  async rulesChanged(): Promise<number> {
    this.#host.router.forgetRoutes()
    let revoked = 0
    let looked = 0
    for (const session of this.#sessions.all()) {
      looked += session.subscriptionCount
      revoked += this.#sessions.enforce(session)
      if (looked < TURN_SUBSCRIPTIONS) continue
      looked = 0
      await nextTurn()
      if (this.#stopped !== null) break
    }
    return revoked
  }

  /** Ends a session and drops what waits for it, disconnecting its client if that is connected. Resolves when the disk knows; to false: there is none. */
  async endSession(clientId: string): Promise<boolean> {
    const session = this.#sessions.find(clientId)
    if (session === undefined) return false
    session.expiryMs = 0
    if (!this.kick(clientId)) this.#sessions.endAway(session)
    await session.ended
    return true
  }

  #describe(session: Session): SessionInfo {
    return {
      id: session.clientId,
      isConnected: !session.isAway,
      expiryMs: session.expiryMs,
      endsInMs: session.isAway ? Math.max(0, session.expiryMs - (session.kept?.awayMs ?? 0)) : null,
      filters: session.subscriptions,
      queue: session.queue,
      queued: session.queue?.ledger.queued ?? 0,
      inFlight: session.inFlight,
      sent: session.sent,
      dropped: session.dropped,
    }
  }

  /** Takes a connected byte stream over; it is the server's from now on. One too many is destroyed at once: null. */
  accept(socket: Socket): Connection | null {
    if (this.#stopped !== null || !this.#hasRoom()) {
      this.counters.refusedConnections++
      if (this.#stopped === null) this.counters.reached('clients')
      socket.destroy()
      return null
    }
    const connection = new Connection(socket, this.#host)
    this.#connections.add(connection)
    this.#unidentified.add(connection)
    return connection
  }

  /** Room for one more connection; made, where there is none, by ending the one that has been silent longest. */
  #hasRoom(): boolean {
    const { limits, clock } = this.#host
    if (this.#connections.size < limits.clients + UNIDENTIFIED_CONNECTIONS) return true
    const [oldest] = this.#unidentified
    if (oldest === undefined || !oldest.yields(clock.monotonicMs() - UNIDENTIFIED_GRACE_MS)) return false
    this.#unidentified.delete(oldest)
    return true
  }

  *clients(): Iterable<ClientInfo> {
    for (const connection of this.#clients.values()) {
      const info = this.#describeClient(connection)
      if (info !== undefined) yield info
    }
  }

  /** How many clients are connected that have proved to be a user, by user. */
  clientsByUser(): ReadonlyMap<string, number> {
    const counts = new Map<string, number>()
    for (const { client } of this.#clients.values()) {
      const user = client?.identity.user ?? null
      if (user !== null) counts.set(user, (counts.get(user) ?? 0) + 1)
    }
    return counts
  }

  client(clientId: string): ClientInfo | undefined {
    const connection = this.#clients.get(clientId)
    return connection === undefined ? undefined : this.#describeClient(connection)
  }

  #describeClient(connection: Connection): ClientInfo | undefined {
    const { client } = connection
    if (client === null) return undefined
    const { connect, terms, session, publishing, connectedAtMs } = client
    return {
      ...this.#describe(session),
      user: connect.user,
      version: versionName(connect.version),
      address: connection.address,
      connectedAtMs,
      keepAliveS: terms.keepAliveS,
      outputBytes: connection.outputBytes,
      received: publishing.received,
    }
  }

  /** Disconnects a client; false if there is none of that id. */
  kick(clientId: string): boolean {
    const connection = this.#clients.get(clientId)
    connection?.kick()
    return connection !== undefined
  }

  /** Tells every client that the gateway stops and closes it; resolves when all are closed. New ones are refused from now on. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop()
    return this.#stopped
  }

  async #stop(): Promise<void> {
    const lastClosed = new Promise<void>(resolve => {
      this.#onLastClosed = resolve
    })
    for (const connection of this.#connections) connection.stop()
    if (this.#connections.size > 0) await lastClosed
    this.#wheel.stop()
  }

  #enter({ connect, terms, identity }: Arrived, connection: Connection): Opened {
    const { isClean } = connect
    const { clientId, sessionExpiryMs: expiryMs } = terms
    const permissions = this.#rules.for(identity, clientId)
    const will = willOf(connect, clientId)
    if (will !== null && !permissions.mayPublish(will.message.key)) {
      throw new ProtocolError(Reason.notAuthorized, 'this client may not publish where its will is to go')
    }
    const existing = this.#clients.get(clientId)
    const owner = existing?.client?.identity.user ?? null
    if (owner !== null && owner !== identity.user) {
      // Whoever knows how a device is called must not be able to throw it out [MQTT-3.1.3-8], 3.1.1 [MQTT-3.1.3-9].
      throw new ProtocolError(Reason.clientIdentifierNotValid, 'another user is connected with this client identifier')
    }
    if (existing === undefined && this.#clients.size >= this.#host.limits.clients) {
      const why = `limits.clients is reached: ${this.#clients.size} are connected`
      throw new LimitReached('clients', Reason.quotaExceeded, why)
    }
    this.#sessions.checkRoom(clientId, { expiryMs, will })
    existing?.takenOver()
    this.#unidentified.delete(connection)
    this.#clients.set(clientId, connection)
    this.counters.mostClients = Math.max(this.counters.mostClients, this.#clients.size)
    return this.#sessions.open(clientId, { isClean, identity, permissions, expiryMs, will })
  }

  #leave(session: Session, connection: Connection, isWillDue: boolean): void {
    if (this.#clients.get(session.clientId) === connection) this.#clients.delete(session.clientId)
    this.#sessions.close(session, isWillDue)
  }

  /** Closes the clients that hold most memory until so many bytes are free, or will be. */
  #relieve(bytes: number): void {
    const held = [...this.#clients.values()].map(connection => ({ connection, bytes: connection.heldBytes }))
    let left = bytes
    for (const { connection, bytes } of held.sort((a, b) => b.bytes - a.bytes)) {
      if (left <= 0 || bytes < SMALL_HOLDING_BYTES) return
      connection.giveWay()
      left -= bytes
    }
  }

  #closed(connection: Connection): void {
    this.#connections.delete(connection)
    this.#unidentified.delete(connection)
    if (this.#connections.size === 0) this.#onLastClosed?.()
  }

  #retrySoon(connection: Connection): void {
    if (this.#toRetry.size === 0) {
      setImmediate(() => {
        const toRetry = this.#toRetry
        this.#toRetry = new Set()
        for (const waiting of toRetry) waiting.retry()
      })
    }
    this.#toRetry.add(connection)
  }
}
