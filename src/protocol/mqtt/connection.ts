/*
 * One client's socket: CONNECT first, then its packets by type, until it ends.
 *
 *     awaiting-connect ──CONNECT──▶ connected ──▶ closing (last packet on its way) ──▶ closed
 *            │    ├──▶ logging-in ──────▲ │                ▲
 *            │    └──▶ authenticating ──▲ │                │
 *            └──────────────┴─────────────┴────────────────┘
 *
 * The session is attached while `connected` lasts, and the tickets end with it, whatever the socket does after that. An error of the client
 * ends its connection and nothing else.
 */
import type { Duplex } from 'node:stream'
import type { Authenticator, Identity, Login } from '../../core/access.ts'
import type { Clock } from '../../core/clock.ts'
import type { MemoryBudget } from '../../core/memory.ts'
import type { Router } from '../../core/router.ts'
import type { LimitedLog } from '../../telemetry/limited-log.ts'
import type { Logger } from '../../telemetry/log.ts'
import type { Attachment } from './attachment.ts'
import type { Authentication, AuthenticationMethods, AuthenticationStep } from './authentication.ts'
import { agreeOn, connackAccepted, connackRefused, expiryMs, LOGIN_REFUSALS, type Terms } from './connect.ts'
import {
  type ConnectPacket,
  connectLevel,
  encode,
  readAcknowledgement,
  readAuth,
  readConnect,
  readDisconnect,
  UnsupportedVersion,
  type Version,
} from './control-packet.ts'
import type { MqttCounters } from './counters.ts'
import { FrameReader, fixedHeaderEnd, PacketType, type UnfinishedPackets } from './frame.ts'
import { HeldBack } from './held-back.ts'
import { CONNECT_PACKET_BYTES, LINGER_BYTES, LINGER_MS, type MqttLimits, RETRY_INTERVAL_MS } from './limits.ts'
import { Output, type OutputOwner } from './output.ts'
import { LimitReached, malformed, ProtocolError, Reason } from './protocol-error.ts'
import { type Gathering, Publishing } from './publish.ts'
import { PublishWriter } from './publish-frame.ts'
import type { Reader, ReadingTurns, Share } from './reading-turns.ts'
import type { Session } from './session.ts'
import type { SessionState } from './session-state.ts'
import type { Opened } from './sessions.ts'
import { subscribe, unsubscribe } from './subscribe.ts'
import type { Timed, TimerWheel } from './timer-wheel.ts'

/** A byte stream from a client, with its address where there is one. A chunk is valid only during its 'data' event. */
export type Socket = Duplex & {
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
  /** What is known of the client before it has said a word; absent: nothing. */
  readonly peer?: {
    /** Name of the listener it came to. */
    readonly listener: string
    /** It is on this machine. */
    readonly isLocal: boolean
    /** The user its TLS certificate names; null: it showed none. */
    readonly certificateUser: string | null
    readonly isEncrypted: boolean
  }
}

/** For lines that clients can cause as often as they like. */
export type ClientLog = Pick<LimitedLog, 'write'>

/** What all connections of a server share. */
export interface ConnectionHost {
  readonly router: Router
  readonly memory: MemoryBudget
  readonly state: SessionState
  readonly limits: MqttLimits
  readonly log: Logger
  readonly clientLog: ClientLog
  readonly clock: Clock
  readonly authenticator: Authenticator
  readonly authenticationMethods: AuthenticationMethods
  readonly counters: MqttCounters
  readonly wheel: TimerWheel
  readonly gathering: Gathering
  readonly unfinished: UnfinishedPackets
  readonly turns: ReadingTurns
  /** Takes the client in, ending an older connection of it, and finds its session; throws ProtocolError if there are too many. */
  enter(client: Arrived, connection: Connection): Opened
  /** The client of this connection is gone; `isWillDue`: not by a normal DISCONNECT. */
  leave(session: Session, connection: Connection, isWillDue: boolean): void
  /** The socket is closed. */
  closed(connection: Connection): void
  /** Calls `connection.retry()` in the next turn. */
  retrySoon(connection: Connection): void
}

/** Who is let in, and how. */
export interface Arrived {
  readonly connect: ConnectPacket
  readonly terms: Terms
  readonly identity: Identity
}

/** Everything that exists only between CONNACK and the end. */
interface Client extends Arrived {
  /** May change while it lasts: see `review`. */
  identity: Identity
  readonly session: Session
  readonly publishing: Publishing
  readonly connectedAtMs: number
}

/** A client that waits to be let in. */
interface Applicant {
  readonly connect: ConnectPacket
  readonly terms: Terms
}

/** A client that is let in. */
interface Admission extends Applicant {
  readonly identity: Identity
  /** Data its authentication ended with; null: none. */
  readonly proof: Buffer | null
}

/** A client that has to prove who it is, in several steps. */
interface Examinee extends Applicant {
  readonly authentication: Authentication
}

type State =
  | { readonly kind: 'awaiting-connect'; readonly sinceMs: number }
  /** Its name and password are being checked; nothing is read meanwhile. */
  | ({ readonly kind: 'logging-in' } & Applicant)
  /** The client has to answer with AUTH before CONNACK comes. */
  | ({ readonly kind: 'authenticating' } & Examinee)
  | { readonly kind: 'connected'; readonly client: Client }
  | { readonly kind: 'closing' }
  | { readonly kind: 'closed' }

const PINGRESP = Buffer.from([PacketType.pingresp << 4, 0])
/** Lower half of the first byte of PUBREL, SUBSCRIBE and UNSUBSCRIBE [MQTT-2.1.3-1]. */
const REQUEST_FLAGS = 2
/** 3.1 lets clients set it on requests they send again. */
const DUP_FLAG = 8
/** A chunk that is not longer costs less than to look how long it took. */
const SHORT_CHUNK_BYTES = 1024
/** So many messages or acknowledgements are read, or so many other packets, between two looks at the clock. */
const LIGHT_PACKETS = 64
const HEAVY_PACKETS = 4

/** How a connection ends. */
interface Ending {
  /** What a 5.0 client is told; null: nothing, it left by itself. */
  readonly reason: Reason | null
  /** For the log. */
  readonly why: string
  readonly isWillDue: boolean
}

export class Connection implements Timed, OutputOwner, Reader {
  wheelSlot = -1

  readonly #host: ConnectionHost
  /** Those of the moment it came: what CONNACK announces holds as long as it lasts. */
  readonly #limits: MqttLimits
  readonly #socket: Socket
  readonly #address: string
  readonly #frames: FrameReader
  readonly #output: Output
  #state: State
  #isFirstChunk = true
  /** An answer waits for the disk. */
  #awaitsDisk = false
  /** It has had its share of this turn of the event loop. */
  #awaitsTurn = false
  readonly #share: Share = { ms: 0, bytes: 0 }
  /** Received since it is closing. */
  #lateBytes = 0
  /** CONNACK has been sent: nothing may leave before it [MQTT-3.2.0-1]. */
  #isWelcome = false
  readonly #openedAtMs: number
  #lastReceivedMs: number

  constructor(socket: Socket, host: ConnectionHost) {
    this.#socket = socket
    this.#host = host
    const { limits } = host
    this.#limits = limits
    this.#address = `${socket.remoteAddress ?? 'unknown'}:${socket.remotePort ?? 0}`
    const packetBytes = Math.min(CONNECT_PACKET_BYTES, limits.packetBytes)
    this.#frames = new FrameReader(packetBytes, host.unfinished, error => this.#fail(error))
    this.#output = new Output(socket, {
      memory: host.memory,
      counters: host.counters,
      limitBytes: limits.outputPerClientBytes,
      owner: this,
    })
    const nowMs = host.clock.monotonicMs()
    this.#openedAtMs = nowMs
    this.#lastReceivedMs = nowMs
    this.#state = { kind: 'awaiting-connect', sinceMs: nowMs }
    host.wheel.schedule(this, nowMs + limits.connectTimeoutMs)
    socket.on('data', chunk => this.#received(chunk))
    socket.on('end', () => this.#end({ reason: null, why: 'closed by the client', isWillDue: true }))
    socket.on('error', error => this.#end({ reason: null, why: error.message, isWillDue: true }))
    socket.on('close', () => this.#closed())
  }

  get address(): string {
    return this.#address
  }

  /** The client, once it is connected and until it is gone. */
  get client(): Client | null {
    return this.#state.kind === 'connected' ? this.#state.client : null
  }

  get outputBytes(): number {
    return this.#output.pendingBytes
  }

  /** Memory held for what the client has not taken, or not acknowledged, bytes. */
  get heldBytes(): number {
    return this.#output.heldBytes + (this.client?.session.heldBytes ?? 0)
  }

  // ---- input

  #received(chunk: Buffer): void {
    const { counters, clock } = this.#host
    counters.bytesIn += chunk.length
    // Behind DISCONNECT nothing counts [MQTT-3.14.4-1].
    if (this.#state.kind === 'closing' || this.#state.kind === 'closed') {
      this.#lateBytes += chunk.length
      if (this.#lateBytes > LINGER_BYTES) this.#socket.destroy()
      return
    }
    this.#lastReceivedMs = clock.monotonicMs()
    if (this.#isFirstChunk) {
      this.#isFirstChunk = false
      if (chunk[0] !== PacketType.connect << 4) {
        // [MQTT-3.1.0-1]
        this.#end({ reason: null, why: 'the first packet is not CONNECT', isWillDue: false })
        return
      }
    }
    this.#read(chunk)
  }

  /** Reads the next chunk, or what of the last one was held back. What the client is at fault for ends this connection, with the reason. */
  #read(chunk: Buffer | null): void {
    try {
      if (chunk !== null) this.#frames.push(chunk)
      this.#readFrames()
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      // What came before the fault was published.
      this.client?.publishing.flush()
      this.#fail(error)
      return
    }
    if (chunk !== null) this.#share.bytes += chunk.length
    const isShort = chunk !== null && chunk.length <= SHORT_CHUNK_BYTES
    if (!isShort && this.client !== null && !this.#awaitsTurn && this.#isTurnOver()) this.#waitForTurn()
  }

  /** The client is at fault. */
  #fail(error: ProtocolError): void {
    this.#host.counters.protocolErrors++
    if (error instanceof LimitReached) this.#host.counters.reached(error.limit)
    if (this.#state.kind === 'awaiting-connect' && error.reason === Reason.packetTooLarge) {
      // Nothing more of it is read than who could understand the answer.
      const { begun } = this.#frames
      const level = connectLevel(begun, fixedHeaderEnd(begun), begun.length)
      this.#refuse(error.reason, { level, why: error.message, most: Number.POSITIVE_INFINITY })
      return
    }
    this.#end({ reason: error.reason, why: error.message, isWillDue: true }) // [MQTT-4.13.1-1], [MQTT-3.1.2-8]
  }

  /** To be asked when it has read something; what is counted then is counted from here on. */
  #isTurnOver(): boolean {
    const nowMs = this.#host.clock.monotonicMs()
    const spentMs = nowMs - this.#lastReceivedMs
    this.#lastReceivedMs = nowMs
    return this.#host.turns.isOver(this.#share, spentMs)
  }

  /** Lets others be read before it goes on. */
  #waitForTurn(): void {
    this.#awaitsTurn = true
    this.#socket.pause()
    this.#share.ms = 0
    this.#share.bytes = 0
    this.#host.turns.wait(this)
  }

  turnCame(): void {
    this.#awaitsTurn = false
    if (this.client !== null && !this.#isHeld) this.#readOn()
  }

  /** Reads frames until there are none, the input is held, or the connection ends. */
  #readFrames(): void {
    const frames = this.#frames
    let untilLook = LIGHT_PACKETS
    do {
      while (frames.next()) {
        const state = this.#state
        if (state.kind === 'connected') {
          const { publishing } = state.client
          const type = frames.first >> 4
          if (type === PacketType.publish) {
            publishing.frame()
          } else if (type >= PacketType.puback && type <= PacketType.pubcomp) {
            this.#acknowledgement(state.client)
          } else {
            publishing.flush()
            if (!publishing.isHeld) this.#control(state.client)
            untilLook -= LIGHT_PACKETS / HEAVY_PACKETS
          }
          if (publishing.isHeld || this.#awaitsDisk) break
          if (--untilLook <= 0) {
            if (this.#isTurnOver()) {
              this.#waitForTurn()
              break
            }
            untilLook = LIGHT_PACKETS
          }
        } else if (state.kind === 'awaiting-connect') {
          this.#connect()
          if (this.#isHeld) break
        } else if (state.kind === 'authenticating') {
          this.#authenticate(state)
          if (this.#awaitsDisk) break
        } else {
          return
        }
      }
      this.client?.publishing.flush()
      if (this.#isHeld) {
        this.#pause()
        break
      }
    } while (frames.nextSource())
    // Messages of a new subscription leave behind its SUBACK.
    if (!this.#awaitsDisk) this.client?.session.pump()
  }

  get #isHeld(): boolean {
    const { kind } = this.#state
    return this.#awaitsDisk || this.#awaitsTurn || kind === 'logging-in' || this.client?.publishing.isHeld === true
  }

  #pause(): void {
    const { unreadBytes } = this.#frames
    if (this.client === null && unreadBytes > CONNECT_PACKET_BYTES) {
      // 5.0 section 3.1.4: a server may close where a client sends too much before it is known.
      throw new ProtocolError(Reason.quotaExceeded, `${unreadBytes} bytes behind CONNECT before its answer`)
    }
    this.#socket.pause()
    this.#frames.keep()
    // Before CONNACK the deadline for CONNECT goes on.
    if (this.client !== null) this.#host.wheel.schedule(this, this.#host.clock.monotonicMs() + RETRY_INTERVAL_MS)
  }

  /** Tries again what was held back. */
  retry(): void {
    const { client } = this
    if (client === null || this.#awaitsDisk || !client.publishing.isHeld || !client.publishing.release()) return
    this.#readOn()
  }

  #readOn(): void {
    if (this.#awaitsTurn) return
    // The silence was ours.
    this.#lastReceivedMs = this.#host.clock.monotonicMs()
    this.#read(null)
    if (this.client !== null && !this.#isHeld) this.#socket.resume()
  }

  /** Gives an answer when the disk knows what it says. Nothing is read until then, so answers stay in the order of what they answer. */
  #answerWhen(kept: Promise<void>, answer: () => void): void {
    const { client } = this
    this.#awaitsDisk = true
    kept.then(
      () => {
        if (client === null || this.client !== client) return
        this.#awaitsDisk = false
        answer()
        if (client.publishing.isHeld) this.retry()
        else this.#readOn()
      },
      () => this.#end({ reason: Reason.serverShuttingDown, why: 'the gateway is stopping', isWillDue: true }),
    )
  }

  /** The answer to a request that may have changed what the disk must know of the session. Throws as #answer. */
  #answerKept({ connect, session }: Client, packet: Buffer): void {
    const kept = session.takeUnkept()
    checkSize(connect, packet)
    if (kept === null) this.#send(packet)
    else this.#answerWhen(kept, () => this.#send(packet))
  }

  #connect(): void {
    this.#host.counters.controlIn++
    const { bytes, first, body, end } = this.#frames
    let level = connectLevel(bytes, body, end)
    let most = Number.POSITIVE_INFINITY
    try {
      if (first !== PacketType.connect << 4) throw malformed('reserved flags of CONNECT are set') // [MQTT-2.1.3-1]
      const connect = readConnect(bytes, body, end)
      level = connect.version
      most = connect.maximumPacketSize
      const terms = agreeOn(connect, {
        limits: this.#limits,
        authenticationMethods: this.#host.authenticationMethods,
      })
      const { authentication } = terms
      if (authentication === null) this.#login({ connect, terms })
      else this.#judge({ connect, terms, authentication }, authentication.begin(connect.authenticationData))
    } catch (error) {
      if (error instanceof UnsupportedVersion) {
        // [MQTT-3.1.2-2], 3.1.1 [MQTT-3.1.2-2]; a level above 5 is a later version, whose CONNACK most likely still looks like that of 5.0.
        level = error.level > 5 && error.level < 0x80 ? 5 : 4
        this.#refuse(Reason.unsupportedProtocolVersion, { level, why: error.message, most })
      } else if (error instanceof ProtocolError) {
        if (error instanceof LimitReached) this.#host.counters.reached(error.limit)
        this.#refuse(error.reason, { level, why: error.message, most })
      } else {
        throw error
      }
    }
  }

  /** Checks name and password. Throws ProtocolError if the answer comes at once and the client is not let in. */
  #login(applicant: Applicant): void {
    const { connect, terms } = applicant
    const { peer, remoteAddress } = this.#socket
    const login = this.#host.authenticator.login({
      clientId: terms.clientId,
      user: connect.user,
      password: connect.password,
      certificateUser: peer?.certificateUser ?? null,
      address: remoteAddress ?? '',
      isLocal: peer?.isLocal ?? false,
    })
    if (login instanceof Promise) void this.#awaitLogin(applicant, login)
    else this.#finishLogin(applicant, login)
  }

  async #awaitLogin(applicant: Applicant, login: Promise<Login>): Promise<void> {
    const waiting = { kind: 'logging-in', ...applicant } as const
    this.#state = waiting
    const found = await login
    // It may have ended meanwhile.
    if (this.#state !== waiting) return
    try {
      this.#finishLogin(applicant, found)
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      const { version: level, maximumPacketSize: most } = applicant.connect
      this.#refuse(error.reason, { level, why: error.message, most })
    }
    // What came behind CONNECT counts only now, and not at all if the client was refused: [MQTT-3.1.4-6], 3.1.1 [MQTT-3.1.4-5].
    if (this.client !== null && !this.#isHeld) this.#readOn()
  }

  #finishLogin({ connect, terms }: Applicant, login: Login): void {
    if (login.kind === 'refused') throw new ProtocolError(LOGIN_REFUSALS[login.reason], login.why) // [MQTT-3.1.4-2]
    this.#accept({ connect, terms, identity: login.identity, proof: null })
  }

  /** A packet of a client that has not proved yet who it is. */
  #authenticate(applicant: Examinee): void {
    this.#host.counters.controlIn++
    const { connect, authentication } = applicant
    const { bytes, first, body, end } = this.#frames
    try {
      if (first >> 4 === PacketType.disconnect) {
        this.#end({ reason: null, why: 'the client gave up its authentication', isWillDue: false })
      } else if (first >> 4 === PacketType.auth) {
        expectFlags(first, 0, connect.version) // [MQTT-3.15.1-1]
        this.#judge(applicant, authentication.proceed(readAuth(bytes, body, end)))
      } else {
        throw new ProtocolError(Reason.protocolError, `a packet of type ${first >> 4} before CONNACK`) // [MQTT-3.1.2-30]
      }
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error
      this.#refuse(error.reason, { level: 5, why: error.message, most: connect.maximumPacketSize })
    }
  }

  /** Goes on as the authentication says. Throws ProtocolError if the client is not let in. */
  #judge({ connect, terms, authentication }: Examinee, step: AuthenticationStep): void {
    switch (step.kind) {
      case 'continue':
        this.#state = { kind: 'authenticating', connect, terms, authentication }
        this.#answer(connect, authentication.packet(Reason.continueAuthentication, step.data))
        return
      case 'accepted':
        this.#accept({ connect, terms, identity: { user: connect.user, groups: [] }, proof: step.data })
        return
      case 'refused':
        throw new ProtocolError(Reason.notAuthorized, step.why) // [MQTT-4.12.0-4]
      default:
        step satisfies never
    }
  }

  /** Lets the client in. Throws ProtocolError if that can't be. */
  #accept({ connect: said, terms, identity, proof }: Admission): void {
    // The name that counts is the proved one, and a password is not kept.
    const connect = { ...said, user: identity.user ?? said.user, password: null }
    const { router, state, counters, clock, clientLog, gathering } = this.#host
    const limits = this.#limits
    if (connect.maximumPacketSize < Number.POSITIVE_INFINITY) {
      // Before it has a session: whoever cannot be told that it is let in is not.
      checkSize(connect, connackAccepted(connect, { terms, limits, proof, sessionPresent: false }))
    }
    const { session, isPresent, kept } = this.#host.enter({ connect, terms, identity }, this)
    const { clientId } = terms
    const output = this.#output
    const publishing = new Publishing({
      router,
      connect,
      clientId,
      frames: this.#frames,
      output,
      received: session.receivedIds,
      permissions: session.permissions,
      limits,
      state,
      counters,
      clock,
      gathering,
      onRelief: () => this.#host.retrySoon(this),
      onUnanswerable: () =>
        // 3.1.1 [MQTT-4.8.0-2]
        this.#end({ reason: null, why: 'a publish was not confirmed upstream in time', isWillDue: true }),
    })
    this.#frames.packetBytes = limits.packetBytes
    this.#frames.isMinimal = connect.version === 5
    const client = { connect, terms, identity, session, publishing, connectedAtMs: clock.wallMs() }
    this.#state = { kind: 'connected', client }
    counters.connected++
    const facts = { client: clientId, address: this.#address, version: versionName(connect.version) }
    clientLog.write('info', facts, 'client connected')
    if (kept === null) this.#welcome(client, { proof, sessionPresent: isPresent })
    else this.#answerWhen(kept, () => this.#welcome(client, { proof, sessionPresent: isPresent }))
  }

  #welcome(
    { connect, terms, session }: Client,
    { proof, sessionPresent }: { proof: Buffer | null; sessionPresent: boolean },
  ): void {
    const { clock } = this.#host
    const limits = this.#limits
    const output = this.#output
    this.#isWelcome = true
    this.#send(connackAccepted(connect, { terms, limits, proof, sessionPresent })) // [MQTT-3.2.0-1], [MQTT-3.2.0-2]
    session.attach({
      output,
      writer: new PublishWriter(output, connect, limits.topicAliases),
      isV5: connect.version === 5,
      heldBack: session.keepsIds ? this.#heldBack(connect) : null,
      window: Math.min(limits.inflight, connect.receiveMaximum), // [MQTT-3.3.4-9]
    })
    this.#scheduleNext(clock.monotonicMs())
  }

  #heldBack(connect: ConnectPacket): Attachment['heldBack'] {
    const packets = new HeldBack(this.#host.memory, this.#limits.outputPerClientBytes)
    return { packets, writer: new PublishWriter(packets, connect, 0) }
  }

  /** Answers a CONNECT that is not let in, and looks at nothing more [MQTT-3.1.4-6]. */
  #refuse(reason: Reason, { level, why, most }: { level: number; why: string; most: number }): void {
    const packet = connackRefused(reason, { level, why, most })
    if (packet !== null) this.#send(packet) // 3.1.1 [MQTT-3.1.3-9]
    this.#end({ reason: null, why, isWillDue: false }) // [MQTT-3.2.2-7], [MQTT-3.14.0-1]
  }

  /** AUTH while connected: the client proves again who it is; meanwhile everything goes on. */
  #reauthenticate({ connect, terms: { authentication } }: Client): void {
    const { bytes, body, end } = this.#frames
    if (authentication === null) {
      throw new ProtocolError(Reason.protocolError, 'AUTH from a client that chose no method') // [MQTT-4.12.0-7]
    }
    const step = authentication.proceed(readAuth(bytes, body, end))
    switch (step.kind) {
      case 'continue':
        this.#answer(connect, authentication.packet(Reason.continueAuthentication, step.data))
        return
      case 'accepted':
        this.#answer(connect, authentication.packet(Reason.success, step.data))
        return
      case 'refused':
        throw new ProtocolError(Reason.notAuthorized, step.why) // [MQTT-4.12.1-2]
      default:
        step satisfies never
    }
  }

  #control(client: Client): void {
    this.#host.counters.controlIn++
    const { bytes, first, body, end } = this.#frames
    const { connect, session } = client
    const { version } = connect
    switch (first >> 4) {
      case PacketType.subscribe:
        expectFlags(first, REQUEST_FLAGS, version) // [MQTT-3.8.1-1]
        this.#answerKept(client, subscribe(session, this.#frames, { connect, counters: this.#host.counters }))
        return
      case PacketType.unsubscribe:
        expectFlags(first, REQUEST_FLAGS, version) // [MQTT-3.10.1-1]
        this.#answerKept(client, unsubscribe(session, this.#frames, version))
        return
      case PacketType.pingreq:
        expectFlags(first, 0, version)
        if (end !== body) throw malformed('PINGREQ with a body')
        this.#send(PINGRESP) // [MQTT-3.12.4-1]
        return
      case PacketType.disconnect: {
        expectFlags(first, 0, version) // [MQTT-3.14.1-1]
        const { reason, sessionExpiryS } = readDisconnect(bytes, body, end, connect)
        if (sessionExpiryS !== null) session.expiryMs = expiryMs(sessionExpiryS, this.#limits) // section 3.14.2.2.2
        // [MQTT-3.14.4-3]: only a normal DISCONNECT discards the will.
        this.#end({ reason: null, why: 'disconnected', isWillDue: reason !== Reason.success })
        return
      }
      case PacketType.auth:
        expectFlags(first, 0, version) // [MQTT-3.15.1-1]
        this.#reauthenticate(client)
        return
      default:
        // A second CONNECT [MQTT-3.1.0-2], packets only a server sends.
        throw new ProtocolError(Reason.protocolError, `a packet of type ${first >> 4} has no place here`)
    }
  }

  /** PUBACK, PUBREC, PUBREL, PUBCOMP. Nothing of the run being gathered waits for it. */
  #acknowledgement({ connect, session, publishing }: Client): void {
    const { bytes, first, body, end } = this.#frames
    const type = first >> 4
    expectFlags(first, type === PacketType.pubrel ? REQUEST_FLAGS : 0, connect.version) // [MQTT-3.6.1-1]
    let packetId = ((bytes[body] ?? 0) << 8) | (bytes[body + 1] ?? 0)
    let reason: number = Reason.success
    if (end - body !== 2) {
      if (connect.version !== 5) throw malformed('an acknowledgement with a wrong length')
      ;({ packetId, reason } = readAcknowledgement(type, bytes, body, end))
    }
    if (packetId === 0) throw malformed('packet identifier 0') // [MQTT-2.2.1-5], 3.1.1 [MQTT-2.3.1-6]: no PUBLISH has it
    switch (type) {
      case PacketType.puback:
        session.acknowledged(packetId, reason)
        return
      case PacketType.pubrec:
        session.received(packetId, reason)
        return
      case PacketType.pubrel:
        publishing.pubrel(packetId)
        return
      default:
        session.completed(packetId)
    }
  }

  // ---- output

  /** Throws ProtocolError if the client takes no packet of that size. */
  #answer(connect: ConnectPacket, packet: Buffer): void {
    checkSize(connect, packet)
    this.#send(packet)
  }

  #send(packet: Buffer): void {
    this.#output.append(packet, 0, packet.length)
    this.#output.control(packet.length)
  }

  outputDrained(): void {
    this.client?.session.outputDrained()
  }

  outputOverrun(): void {
    this.#host.counters.slowClients++
    this.#host.counters.reached('output_per_client')
    this.#end({ reason: null, why: 'the client does not read its acknowledgements', isWillDue: true })
  }

  // ---- time

  timeReached(nowMs: number): void {
    const state = this.#state
    switch (state.kind) {
      case 'awaiting-connect':
      case 'authenticating':
        this.#host.counters.reached('connect_timeout')
        this.#end({ reason: null, why: 'no CONNECT or no proof in time', isWillDue: false })
        return
      case 'logging-in': {
        const { version: level, maximumPacketSize: most } = state.connect
        this.#refuse(Reason.serverBusy, { level, why: 'too many clients are logging in; try again', most })
        return
      }
      case 'connected':
        this.#checkDeadlines(state.client, nowMs)
        return
      case 'closing':
        this.#socket.destroy()
        return
      case 'closed':
        return
      default:
        state satisfies never
    }
  }

  #checkDeadlines({ publishing, terms }: Client, nowMs: number): void {
    const { counters } = this.#host
    const { hold } = publishing
    if (hold.kind === 'refused' || hold.kind === 'memory') {
      if (nowMs - hold.sinceMs >= this.#limits.refuseDisconnectAfterMs) {
        const cause = hold.kind === 'refused' ? hold.code : 'MEMORY_FULL'
        this.#host.counters.reached('refuse_disconnect_after')
        this.#end({ reason: Reason.quotaExceeded, why: `held back for too long: ${cause}`, isWillDue: true })
        return
      }
      this.retry()
    } else if (!this.#isHeld && terms.silenceMs > 0 && nowMs - this.#lastReceivedMs >= terms.silenceMs) {
      counters.keepAliveTimeouts++
      this.#end({ reason: Reason.keepAliveTimeout, why: 'keep alive timeout', isWillDue: true }) // [MQTT-3.1.2-22]
      return
    }
    this.#scheduleNext(nowMs)
  }

  #scheduleNext(nowMs: number): void {
    const { client } = this
    if (client === null) return
    let dueMs = Number.POSITIVE_INFINITY
    if (client.publishing.isHeld) dueMs = nowMs + RETRY_INTERVAL_MS
    else if (client.terms.silenceMs > 0) dueMs = this.#lastReceivedMs + client.terms.silenceMs
    if (dueMs < Number.POSITIVE_INFINITY) this.#host.wheel.schedule(this, dueMs)
    else this.#host.wheel.cancel(this)
  }

  // ---- the end

  /** Another connection has come with the same client id [MQTT-3.1.4-3]. */
  takenOver(): void {
    this.#host.counters.takenOver++
    this.#end({ reason: Reason.sessionTakenOver, why: 'taken over by a new connection', isWillDue: true })
  }

  /** The users have changed: ends if this one is none of them any more; `review` says who it is by now, null: nobody. */
  review(review: (identity: Identity) => Identity | null): void {
    const { client } = this
    if (client === null) return
    const identity = review(client.identity)
    if (identity === null) {
      this.#end({ reason: Reason.notAuthorized, why: 'the user is gone or has another password', isWillDue: true })
      return
    }
    client.identity = identity
    client.session.permissions.become(identity)
  }

  /** It holds more memory than most, and there is none left. */
  giveWay(): void {
    this.#host.counters.slowClients++
    this.#host.counters.reached('memory')
    const why = 'limits.memory is reached, and this client holds most of it: it takes less than it is sent'
    this.#end({ reason: Reason.quotaExceeded, why, isWillDue: true })
  }

  /** Another connection needs its place. False: it was opened after `sinceMs`, and stays. */
  yields(sinceMs: number): boolean {
    if (this.#openedAtMs > sinceMs) return false
    this.#end({ reason: null, why: 'another connection took its place: it was not let in in time', isWillDue: false })
    this.#socket.destroy()
    return true
  }

  /** An operator wants it gone. */
  kick(): void {
    this.#end({ reason: Reason.administrativeAction, why: 'disconnected by an operator', isWillDue: true })
  }

  /** It is not allowed to be here any more. */
  dismiss(why: string): void {
    this.#end({ reason: Reason.notAuthorized, why, isWillDue: true })
  }

  /** The gateway stops. */
  stop(): void {
    this.#end({ reason: Reason.serverShuttingDown, why: 'the gateway is stopping', isWillDue: true })
  }

  #end({ reason, why, isWillDue }: Ending): void {
    const state = this.#state
    if (state.kind === 'closing' || state.kind === 'closed') return
    this.#state = { kind: 'closing' }
    const { counters, log, clientLog, wheel, clock } = this.#host
    if (state.kind === 'connected') {
      state.client.publishing.close()
      this.#host.leave(state.client.session, this, isWillDue)
      const facts = { client: state.client.terms.clientId, address: this.#address, reason: why }
      clientLog.write('info', facts, 'client disconnected')
      if (reason !== null) this.#sayFarewell(state.client.connect, reason, why)
    } else {
      counters.refusedConnections++
      log.debug({ address: this.#address, reason: why }, 'connection refused')
    }
    this.#frames.close()
    if (this.#output.isFull) {
      this.#socket.destroy()
      return
    }
    this.#output.end()
    // What is still unread would make the kernel reset the connection, and the last packet with it: read on and throw away [MQTT-3.14.4-2], [MQTT-4.13.2-1].
    this.#socket.resume()
    wheel.schedule(this, clock.monotonicMs() + LINGER_MS)
  }

  /** Tells a client why its connection ends, if it would read it and its version has a word for it. Before CONNACK nothing else may be said [MQTT-3.2.0-1]. */
  #sayFarewell({ version, maximumPacketSize: most }: ConnectPacket, reason: Reason, why: string): void {
    if (this.#output.isFull) return
    if (!this.#isWelcome) {
      const packet = connackRefused(Reason.serverUnavailable, { level: version, why, most })
      if (packet !== null) this.#output.append(packet, 0, packet.length)
      return
    }
    if (version < 5) return
    const packet = encode({ cmd: 'disconnect', reasonCode: reason }, 5) // [MQTT-3.14.2-1], [MQTT-3.14.2-2]
    if (packet.length <= most) this.#output.append(packet, 0, packet.length) // [MQTT-3.1.2-24]
  }

  #closed(): void {
    this.#end({ reason: null, why: 'connection lost', isWillDue: true })
    this.#state = { kind: 'closed' }
    this.#output.close()
    this.#frames.close()
    this.#host.wheel.cancel(this)
    this.#host.turns.forget(this)
    this.#host.closed(this)
  }
}

/** Throws ProtocolError if the client takes no packet of that size [MQTT-3.1.2-24]. */
function checkSize({ maximumPacketSize }: ConnectPacket, packet: Buffer): void {
  if (packet.length <= maximumPacketSize) return
  throw new ProtocolError(Reason.packetTooLarge, `an answer of ${packet.length} bytes is more than the client takes`)
}

/** Checks the lower half of a first byte. */
function expectFlags(first: number, flags: number, version: Version): void {
  const reserved = version === 3 && flags === REQUEST_FLAGS ? ~DUP_FLAG & 15 : 15
  if ((first & reserved) !== flags) throw malformed('reserved flags of a packet are wrong') // [MQTT-2.1.3-1]
}

/** As operators say it. */
export function versionName(version: number): string {
  return version === 5 ? '5.0' : version === 4 ? '3.1.1' : '3.1'
}
