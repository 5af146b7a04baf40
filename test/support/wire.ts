import { once } from 'node:events'
import { cp } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import pino from 'pino'
import type { Authenticator } from '../../src/core/access.ts'
import { AccessRules } from '../../src/core/acl.ts'
import type { Clock } from '../../src/core/clock.ts'
import type { RetainedLimits } from '../../src/core/retained.ts'
import type { AuthenticationMethods } from '../../src/protocol/mqtt/authentication.ts'
import type { MqttLimits } from '../../src/protocol/mqtt/limits.ts'
import { MqttServer } from '../../src/protocol/mqtt/server.ts'
import type { Logger } from '../../src/telemetry/log.ts'
import type { Listener } from '../../src/transport/listener.ts'
import { TcpListener } from '../../src/transport/tcp.ts'
import { WebSocketListener } from '../../src/transport/ws.ts'
import { eventually } from './eventually.ts'
import { bytes } from './packet-bytes.ts'
import { frame, Opcode, readFrame, request, UPGRADE } from './raw-web-socket.ts'
import { type TempDir, tempDir } from './temp-dir.ts'
import { accessWith } from './users.ts'
import { CoreUnderTest } from './with-core.ts'

export { bytes, packet, text } from './packet-bytes.ts'

/** The defaults of `limits` in the configuration. */
const DEFAULT_LIMITS: MqttLimits = {
  clients: 2000,
  outputPerClientBytes: 1024 ** 2,
  packetBytes: 1024 ** 2,
  receiveMax: 64,
  inflight: 64,
  topicAliases: 16,
  topicBytes: 1024,
  topicLevels: 128,
  subscriptionsPerSession: 100,
  keepAliveMaxMs: 0,
  sessionExpiryMaxMs: 30 * 86_400_000,
  sessions: 5000,
  sessionStateBytes: 8 * 1024 ** 2,
  sessionQueue: { messages: 10_000, bytes: 16 * 1024 ** 2, onFull: 'drop_oldest' },
  sessionQueueQos0: false,
  connectTimeoutMs: 10_000,
  refuseDisconnectAfterMs: 10_000,
  declared: { queues: 5000, exchanges: 1000, bindings: 20_000 },
}

/** Lets everybody in. */
const EVERYBODY = accessWith({ anonymous: 'everybody' })

/** What MQTT runs over in the tests of a file. */
export type Transport = 'tcp' | 'ws'

let transport: Transport = 'tcp'

/** Lets all gateways and clients of this file that begin from now on use it. */
export function runOver(chosen: Transport): void {
  transport = chosen
}

const PATIENCE_MS = 10_000
export const PINGREQ = bytes('c0 00')
export const PINGRESP = bytes('d0 00')

/** A client that knows nothing of MQTT: it says bytes and hears bytes. Over WebSocket each `says` is a message; what is written to `socket` is not wrapped. */
export class WireClient {
  readonly socket: Socket
  /** Heard and not yet expected. */
  #heard: Buffer = Buffer.alloc(0)
  heardBytes = 0
  isClosed = false
  /** Over WebSocket: the frame that is not whole yet; null: there are no frames. */
  #unframed: Buffer | null

  private constructor(socket: Socket, isWebSocket: boolean) {
    this.socket = socket
    this.#unframed = isWebSocket ? Buffer.alloc(0) : null
    socket.on('data', chunk => this.#hear(chunk))
    // A reset is one of the ways to be closed.
    socket.on('error', () => undefined)
    socket.on('close', () => {
      this.isClosed = true
    })
  }

  static async connect(port: number): Promise<WireClient> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    await once(socket, 'connect')
    if (transport === 'tcp') return new WireClient(socket, false)
    socket.write(request(UPGRADE))
    const [answer] = await once(socket, 'data')
    if (!String(answer).startsWith('HTTP/1.1 101 ')) throw new Error(`not upgraded: ${answer}`)
    return new WireClient(socket, true)
  }

  says(...packets: Buffer[]): this {
    const said = Buffer.concat(packets)
    this.socket.write(this.#unframed === null ? said : frame(said))
    return this
  }

  #hear(chunk: Buffer): void {
    if (this.#unframed === null) {
      this.heardBytes += chunk.length
      this.#heard = Buffer.concat([this.#heard, chunk])
      return
    }
    this.#unframed = Buffer.concat([this.#unframed, chunk])
    for (let heard = readFrame(this.#unframed); heard !== null; heard = readFrame(this.#unframed)) {
      this.#unframed = this.#unframed.subarray(heard.bytes)
      if (heard.opcode === Opcode.binary) {
        this.heardBytes += heard.payload.length
        this.#heard = Buffer.concat([this.#heard, heard.payload])
      } else if (heard.opcode === Opcode.close) {
        this.socket.end(frame(heard.payload, { opcode: Opcode.close }))
      }
    }
  }

  /** Waits for exactly these bytes, in this order, next. */
  async hears(...packets: Buffer[]): Promise<this> {
    const expected = Buffer.concat(packets)
    await this.#wait(() => this.#heard.length >= expected.length || this.isClosed || this.socket.readableEnded)
    const heard = this.#heard.subarray(0, expected.length)
    if (!heard.equals(expected)) {
      throw new Error(`expected ${expected.toString('hex')}, heard ${this.#heard.toString('hex') || 'nothing'}`)
    }
    this.#heard = this.#heard.subarray(expected.length)
    return this
  }

  /** Whatever comes next, one whole packet. */
  async hearsPacket(): Promise<Buffer> {
    await this.#wait(() => wholePacket(this.#heard) > 0 || this.isClosed)
    const length = wholePacket(this.#heard)
    const heard = this.#heard.subarray(0, length)
    this.#heard = this.#heard.subarray(length)
    return heard
  }

  /** Nothing has been sent that isn't expected: a ping is answered next. */
  async hearsNothing(): Promise<this> {
    return this.says(PINGREQ).hears(PINGRESP)
  }

  /** The broker closes the connection, and says nothing more before. */
  async hearsClose(): Promise<void> {
    await this.#wait(() => this.isClosed || this.socket.readableEnded)
    if (this.#heard.length > 0) throw new Error(`heard ${this.#heard.toString('hex')} before the close`)
  }

  close(): void {
    this.socket.destroy()
  }

  async #wait(condition: () => boolean): Promise<void> {
    try {
      await eventually(condition, { deadlineMs: PATIENCE_MS, intervalMs: 1 })
    } catch (error) {
      throw new Error(`heard ${this.#heard.toString('hex') || 'nothing'} within ${PATIENCE_MS} ms`, { cause: error })
    }
  }
}

function wholePacket(heard: Buffer): number {
  let length = 0
  for (let n = 1; n < 5; n++) {
    const byte = heard[n]
    if (byte === undefined) return 0
    length += (byte & 0x7f) << (7 * (n - 1))
    if (byte < 0x80) return heard.length >= n + 1 + length ? n + 1 + length : 0
  }
  return 0
}

/** Store, core, MQTT server and a port: a gateway without bridge and API. */
export class MqttUnderTest {
  readonly core: CoreUnderTest
  readonly server: MqttServer
  readonly rules: AccessRules
  readonly port: number
  readonly #directory: TempDir
  readonly #listener: Listener
  readonly #clients: WireClient[] = []
  #isStopped = false

  private constructor(
    directory: TempDir,
    {
      core,
      server,
      rules,
      listener,
    }: { core: CoreUnderTest; server: MqttServer; rules: AccessRules; listener: Listener },
  ) {
    this.#directory = directory
    this.rules = rules
    this.core = core
    this.server = server
    this.#listener = listener
    this.port = listener.address().port
  }

  static async start({
    directory,
    limits = {},
    memoryBytes = 64 * 1024 ** 2,
    retained,
    authenticator = EVERYBODY,
    rules = new AccessRules([]),
    authenticationMethods = new Map(),
    clock,
    log = pino({ level: 'silent' }),
  }: {
    /** Removed at the end; absent: a new one. */
    directory?: TempDir
    limits?: Partial<MqttLimits>
    memoryBytes?: number
    retained?: RetainedLimits
    authenticator?: Authenticator
    rules?: AccessRules
    authenticationMethods?: AuthenticationMethods
    clock?: Clock
    log?: Logger
  } = {}): Promise<MqttUnderTest> {
    const place = directory ?? (await tempDir())
    const allLimits = { ...DEFAULT_LIMITS, ...limits }
    const core = await CoreUnderTest.open(place.path, {
      memoryBytes,
      ...(retained !== undefined && { retained }),
      ...(clock !== undefined && { clock }),
      sessionQueue: { ...allLimits.sessionQueue, ageMs: Number.POSITIVE_INFINITY },
    })
    const { router, topology, streams, memory, identities } = core
    const server = new MqttServer({
      router,
      topology,
      streams,
      retained: core.retained,
      memory,
      identities,
      log,
      // All of it: tests look for lines.
      clientLog: { write: (level, facts, message) => log[level](facts, message) },
      authenticator,
      rules,
      authenticationMethods,
      limits: allLimits,
      keptSessions: core.keptSessions,
      clock: clock ?? { monotonicMs: () => performance.now(), wallMs: () => Date.now() },
    })
    server.restore(await core.keptSessions.restore())
    const bound = { name: 'mqtt', host: '127.0.0.1', port: 0, log }
    const listener: Listener =
      transport === 'tcp'
        ? new TcpListener(bound)
        : new WebSocketListener(new TcpListener({ ...bound, reads: 'own' }), {
            ...{ path: '/mqtt', origins: [] },
            packetBytes: allLimits.packetBytes,
            deadlineMs: allLimits.connectTimeoutMs,
          })
    await listener.start(socket => server.accept(socket))
    return new MqttUnderTest(place, { core, server, rules, listener })
  }

  /** Stops in order, and leaves the directory for the next one. */
  async stop(): Promise<TempDir> {
    for (const client of this.#clients) client.close()
    await this.#listener.stop()
    await this.server.stop()
    await this.core.close()
    this.#isStopped = true
    return this.#directory
  }

  /** A copy of the directory as a power cut at this moment would leave it. */
  async powerCut(): Promise<TempDir> {
    await this.core.gate.stillness()
    const copy = await tempDir()
    await cp(this.#directory.path, copy.path, { recursive: true, filter: path => !path.endsWith('LOCK') })
    this.core.gate.releaseCommits()
    return copy
  }

  async client(): Promise<WireClient> {
    const client = await WireClient.connect(this.port)
    this.#clients.push(client)
    return client
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isStopped) return
    await this.stop()
    await this.#directory.remove()
  }
}
