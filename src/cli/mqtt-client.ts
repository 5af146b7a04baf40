/*
 * The MQTT client of `pub` and `sub`: one connection, no reconnect. Simple rather than fast; it talks to any broker.
 */
import { connect as connectSocket } from 'node:net'
import type { Duplex } from 'node:stream'
import mqttPacket, { type IConnackPacket, type IPublishPacket, type Packet } from 'mqtt-packet'
import { Failure } from './failure.ts'
import type { TlsTrust } from './mqtt-tls.ts'

export type MqttVersion = 3 | 4 | 5

export interface MqttAddress {
  readonly host: string
  readonly port: number
  readonly user: string | null
  readonly password: string | null
  readonly version: MqttVersion
  /** Empty: the broker chooses (MQTT 3.1 needs one). */
  readonly clientId: string
  /** Without it: in the clear. */
  readonly tls?: TlsTrust
  /** Without it: not over WebSocket. */
  readonly webSocketPath?: string
  /** 5.0: unanswered messages the broker may send at once; without it as many as it likes. */
  readonly receiveMaximum?: number
}

/**
 * What is said to the broker of a message at QoS 1 or 2: taken; not taken, so that a queue takes it back at the end of the connection; or, in 5.0, refused
 * with this reason code.
 */
export type Answer = 'taken' | 'unanswered' | number

export interface OutgoingMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
}

export interface IncomingMessage {
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
}

const CONNECT_TIMEOUT_MS = 10_000
const KEEP_ALIVE_S = 60
/** Unacknowledged messages at once, unless the broker's receive maximum is smaller. */
const WINDOW = 20
const PACKET_ID_MAX = 65_535

/** Return codes of CONNACK in MQTT 3, section 3.2.2.3. */
const REFUSALS: readonly string[] = [
  'accepted',
  'it does not speak this version of MQTT',
  'the client id is not accepted',
  'the server is unavailable',
  'user name or password is wrong',
  'not authorized',
]

interface Waiter {
  readonly resolve: (packet: Packet) => void
  readonly reject: (failure: Failure) => void
}

export class MqttClient {
  /** Resolves with why the connection ended, null if `end` was called. */
  readonly closed: Promise<Failure | null>
  readonly #socket: Duplex
  readonly #version: MqttVersion
  readonly #onMessage: (message: IncomingMessage) => Answer
  readonly #waiting = new Map<number, Waiter>()
  /** QoS 2 ids received and not released yet: their resends are no new messages [MQTT-4.3.3-10]. */
  readonly #received = new Set<number>()
  #window = WINDOW
  #roomWaiters: (() => void)[] = []
  #nextId = 1
  #isEnding = false
  #awaitsPong = false
  #failure: Failure | null = null

  private constructor(socket: Duplex, version: MqttVersion, onMessage: (message: IncomingMessage) => Answer) {
    this.#socket = socket
    this.#version = version
    this.#onMessage = onMessage
    this.closed = new Promise(resolve => {
      socket.once('close', () => {
        const failure = this.#failure ?? new Failure('The broker closed the connection; its log says why.')
        for (const { reject } of this.#waiting.values()) reject(failure)
        this.#waiting.clear()
        this.#releaseRoom()
        resolve(this.#isEnding ? null : failure)
      })
    })
  }

  /** Resolves once the broker accepted the session; rejects with a Failure that names the address. */
  static async connect(address: MqttAddress, onMessage: (message: IncomingMessage) => Answer): Promise<MqttClient> {
    const { host, port, version, clientId, user, password } = address
    const socket = await openStream(address)
    const client = new MqttClient(socket, version, onMessage)
    const where = `${host}:${port}`
    return new Promise((resolve, reject) => {
      const refuse = (reason: string): void => {
        clearTimeout(deadline)
        socket.destroy()
        reject(
          new Failure(`No MQTT session at ${where}: ${reason}. Check --host and --port, and that the broker runs.`),
        )
      }
      const deadline = setTimeout(
        () => refuse(`nothing came within ${CONNECT_TIMEOUT_MS / 1000} s`),
        CONNECT_TIMEOUT_MS,
      )
      socket.on('error', error => {
        client.#failure ??= new Failure(`The connection to ${where} broke: ${error.message}.`, { cause: error })
        refuse(reasonOf(error))
      })
      socket.once('close', () => refuse('the broker closed the connection'))
      const parser = mqttPacket.parser({ protocolVersion: version })
      parser.on('error', error => {
        client.#failure ??= new Failure(`${where} does not speak MQTT: ${error.message}.`, { cause: error })
        refuse(`what came back is not MQTT (${error.message})`)
      })
      let isAccepted = false
      parser.on('packet', packet => {
        if (isAccepted) return client.#take(packet)
        if (packet.cmd !== 'connack') return refuse(`it answered ${packet.cmd} instead of CONNACK`)
        const refusal = connackRefusal(packet, version)
        if (refusal !== null) return refuse(refusal)
        isAccepted = true
        clearTimeout(deadline)
        client.#begin(packet)
        resolve(client)
      })
      socket.on('data', chunk => parser.parse(chunk))
      client.#send({
        cmd: 'connect',
        protocolId: version === 3 ? 'MQIsdp' : 'MQTT',
        protocolVersion: version,
        clean: true,
        clientId,
        keepalive: KEEP_ALIVE_S,
        ...(address.receiveMaximum !== undefined &&
          version === 5 && { properties: { receiveMaximum: address.receiveMaximum } }),
        ...(user === null ? {} : { username: user }),
        ...(password === null ? {} : { password: Buffer.from(password) }),
      })
    })
  }

  /** Resolves when the message is acknowledged (QoS 0: when it is written); rejects when the broker refuses it or goes away. */
  async publish({ topic, payload, qos, retain }: OutgoingMessage): Promise<void> {
    if (qos === 0) {
      const isFree = this.#send({ cmd: 'publish', topic, payload, qos, retain, dup: false })
      if (!isFree) await this.#drained()
      if (this.#failure !== null) throw this.#failure
      return
    }
    const messageId = this.#takeId()
    const first = await this.#request(messageId, { cmd: 'publish', topic, payload, qos, retain, dup: false, messageId })
    refuseIfNegative(first, topic)
    if (qos === 2) await this.#request(messageId, { cmd: 'pubrel', messageId })
    this.#releaseRoom()
  }

  /** Resolves when fewer messages are unacknowledged than the window allows. */
  async room(): Promise<void> {
    while (this.#waiting.size >= this.#window) await new Promise<void>(resolve => this.#roomWaiters.push(resolve))
  }

  /** Rejects if the broker refuses one of the filters. */
  async subscribe(filters: readonly string[], qos: 0 | 1 | 2): Promise<void> {
    const messageId = this.#takeId()
    const answer = await this.#request(messageId, {
      cmd: 'subscribe',
      messageId,
      subscriptions: filters.map(topic => ({ topic, qos })),
    })
    if (answer.cmd !== 'suback') throw new Failure(`The broker answered SUBSCRIBE with ${answer.cmd}.`)
    for (const [index, granted] of answer.granted.entries()) {
      const code = Number(granted)
      if (code < 0x80) continue
      const why = answer.properties?.reasonString
      const refusal = `The broker refused the subscription to ${filters[index] ?? '?'} (0x${code.toString(16)})`
      throw new Failure(why === undefined ? `${refusal}.` : `${refusal}: ${why}.`)
    }
  }

  /** Says goodbye and resolves when the connection is closed. */
  async end(): Promise<void> {
    this.#isEnding = true
    if (!this.#socket.destroyed) {
      this.#send({ cmd: 'disconnect' })
      this.#socket.end()
    }
    await this.closed
  }

  #begin(connack: IConnackPacket): void {
    this.#window = Math.min(WINDOW, connack.properties?.receiveMaximum ?? WINDOW)
    const keepAliveMs = (connack.properties?.serverKeepAlive ?? KEEP_ALIVE_S) * 1000
    if (keepAliveMs === 0) return
    const timer = setInterval(() => {
      if (this.#awaitsPong) {
        this.#failure = new Failure('The broker does not answer any more.')
        this.#socket.destroy()
        return
      }
      this.#awaitsPong = true
      this.#send({ cmd: 'pingreq' })
    }, keepAliveMs / 2)
    timer.unref()
    this.#socket.once('close', () => clearInterval(timer))
  }

  #take(packet: Packet): void {
    switch (packet.cmd) {
      case 'publish':
        this.#takePublish(packet)
        return
      case 'pubrel':
        this.#received.delete(packet.messageId ?? 0)
        this.#send({ cmd: 'pubcomp', messageId: packet.messageId ?? 0 })
        return
      case 'puback':
      case 'pubrec':
      case 'pubcomp':
      case 'suback': {
        const waiter = this.#waiting.get(packet.messageId ?? 0)
        this.#waiting.delete(packet.messageId ?? 0)
        waiter?.resolve(packet)
        this.#releaseRoom()
        return
      }
      case 'pingresp':
        this.#awaitsPong = false
        return
      case 'disconnect': {
        const reason = packet.properties?.reasonString ?? `reason 0x${(packet.reasonCode ?? 0).toString(16)}`
        this.#failure = new Failure(`The broker ended the session: ${reason}.`)
        this.#socket.end()
        return
      }
      default:
        this.#failure = new Failure(`The broker sent ${packet.cmd}, which a client must not get.`)
        this.#socket.destroy()
    }
  }

  #takePublish({ topic, payload, qos, retain, messageId = 0 }: IPublishPacket): void {
    const isRepeated = qos === 2 && this.#received.has(messageId)
    const answer = isRepeated ? 'taken' : this.#onMessage({ topic, payload: Buffer.from(payload), qos, retain })
    if (qos === 0 || answer === 'unanswered') return
    const reason = answer === 'taken' ? {} : { reasonCode: answer }
    if (qos === 1) {
      this.#send({ cmd: 'puback', messageId, ...reason })
      return
    }
    // A refusal ends it here [MQTT-4.3.3-9].
    if (answer === 'taken') this.#received.add(messageId)
    this.#send({ cmd: 'pubrec', messageId, ...reason })
  }

  #request(messageId: number, packet: Packet): Promise<Packet> {
    return new Promise((resolve, reject) => {
      if (this.#socket.destroyed) {
        reject(this.#failure ?? new Failure('The broker closed the connection; its log says why.'))
        return
      }
      this.#waiting.set(messageId, { resolve, reject })
      this.#send(packet)
    })
  }

  #send(packet: Packet): boolean {
    return this.#socket.write(mqttPacket.generate(packet, { protocolVersion: this.#version }))
  }

  #drained(): Promise<void> {
    return new Promise(resolve => {
      this.#socket.once('drain', resolve)
      void this.closed.then(() => resolve())
    })
  }

  #takeId(): number {
    while (this.#waiting.has(this.#nextId)) this.#nextId = (this.#nextId % PACKET_ID_MAX) + 1
    const id = this.#nextId
    this.#nextId = (id % PACKET_ID_MAX) + 1
    return id
  }

  #releaseRoom(): void {
    const waiters = this.#roomWaiters
    this.#roomWaiters = []
    for (const resolve of waiters) resolve()
  }
}

/** TLS and WebSocket are loaded here and only here: most connections have neither. */
async function openStream({ host, port, version, tls, webSocketPath: path }: MqttAddress): Promise<Duplex> {
  const webSocket = path === undefined ? null : { path, ...(await import('./mqtt-ws.ts')) }
  const alpn = webSocket === null ? 'mqtt' : 'http/1.1'
  const socket =
    tls === undefined
      ? connectSocket({ host, port, noDelay: true })
      : (await import('./mqtt-tls.ts')).connectTls({ host, port, alpn }, tls)
  if (webSocket === null) return socket
  const subprotocol = version === 3 ? 'mqttv3.1' : 'mqtt'
  return webSocket.overWebSocket(socket, { host, port, path: webSocket.path, subprotocol })
}

const UNKNOWN_AUTHORITY = new Set([
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])

/** Why a connection did not come about, in words that say what to do. */
function reasonOf(error: Error): string {
  const code = 'code' in error ? String(error.code) : ''
  if (code === 'ECONNREFUSED') return 'connection refused'
  if (UNKNOWN_AUTHORITY.has(code)) return 'nobody known has signed its certificate; --cafile names the authority'
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    return 'its certificate is for other hosts; --insecure takes it all the same'
  }
  // `…:SSL routines:ssl3_read_bytes:tlsv13 alert certificate required:../deps/…`
  const alert = /SSL routines:[^:]*:([^:]+)/.exec(error.message)
  return alert?.[1] === undefined ? error.message : `TLS failed: ${alert[1]}`
}

function connackRefusal(
  { returnCode = 0, reasonCode = 0, properties }: IConnackPacket,
  version: MqttVersion,
): string | null {
  if (version < 5) return returnCode === 0 ? null : (REFUSALS[returnCode] ?? `return code ${returnCode}`)
  return reasonCode < 0x80 ? null : (properties?.reasonString ?? `reason 0x${reasonCode.toString(16)}`)
}

function refuseIfNegative(packet: Packet, topic: string): void {
  if ((packet.cmd !== 'puback' && packet.cmd !== 'pubrec') || (packet.reasonCode ?? 0) < 0x80) return
  const reason = packet.properties?.reasonString ?? `reason 0x${(packet.reasonCode ?? 0).toString(16)}`
  throw new Failure(`The broker refused the message to ${topic}: ${reason}.`)
}
