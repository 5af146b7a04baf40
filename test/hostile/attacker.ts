/* What an attacker is, and what it has to work with. */
import { once } from 'node:events'
import { connect as openSocket, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { eventually } from '../support/eventually.ts'
import { packet, text } from '../support/packet-bytes.ts'

/** Attackers attack from addresses of their own, so that a ban does not meet the clients that behave. */
const ATTACKER_ADDRESS = '127.0.0.66'
/** Of what a connection hears its beginning is kept. */
const KEPT_BYTES = 64 * 1024
const ANSWER_DEADLINE_MS = 15_000
const POLL_MS = 5

/** One kind of attack. */
export interface Attacker {
  readonly name: string
  /** In a sentence. */
  readonly does: string
  /** What the documentation promises it. */
  readonly answer: string
  /** Attacks until `arena.isOver` or until it is done; rejects if it got another answer than the documented one. */
  readonly attack: (arena: Arena) => Promise<void>
}

export interface Target {
  readonly mqttPort: number
  readonly tlsPort: number
  readonly httpPort: number
  /** How long the attack goes on. */
  readonly attackMs: number
}

/** Where an attack takes place. */
export class Arena {
  readonly #target: Target
  #endsAtMs: number
  readonly #connections = new Set<Foe>()

  constructor(target: Target) {
    this.#target = target
    this.#endsAtMs = performance.now() + target.attackMs
  }

  get isOver(): boolean {
    return performance.now() >= this.#endsAtMs
  }

  /** All is prepared: the attack begins only now. */
  begin(): void {
    this.#endsAtMs = performance.now() + this.#target.attackMs
  }

  /** Opens a connection to the MQTT port; resolves when the kernel has it, whatever becomes of it then. */
  async connect({ address = ATTACKER_ADDRESS, halfOpen = false } = {}): Promise<Foe> {
    return await this.#open({ port: this.#target.mqttPort, address, halfOpen })
  }

  /** Opens a connection to the port for TLS, and nothing more. */
  async connectTls(address = ATTACKER_ADDRESS): Promise<Foe> {
    return await this.#open({ port: this.#target.tlsPort, address, halfOpen: false })
  }

  /** A client that was let in, over TLS. */
  async encryptedClient(clientId: string, address = ATTACKER_ADDRESS): Promise<TLSSocket> {
    const { socket } = await this.connectTls(address)
    socket.removeAllListeners('data')
    const encrypted = connectTls({ socket, rejectUnauthorized: false })
    encrypted.write(connect(clientId))
    const [connack] = await once(encrypted, 'data')
    if (connack[0] !== 0x20 || connack[3] !== 0) throw new Error(`${clientId} heard ${connack.toString('hex')}`)
    return encrypted
  }

  async connectHttp(): Promise<Foe> {
    return await this.#open({ port: this.#target.httpPort, address: '127.0.0.1', halfOpen: false })
  }

  async #open({ port, address, halfOpen }: { port: number; address: string; halfOpen: boolean }): Promise<Foe> {
    const socket = openSocket({
      port,
      host: '127.0.0.1',
      localAddress: address,
      noDelay: true,
      allowHalfOpen: halfOpen,
    })
    const foe = new Foe(socket)
    this.#connections.add(foe)
    socket.once('close', () => this.#connections.delete(foe))
    await eventually(() => foe.isOpen || foe.isClosed, { what: 'a connection', intervalMs: POLL_MS })
    return foe
  }

  /** A client that was let in. */
  async client(clientId: string, options: ConnectOptions = {}): Promise<Foe> {
    const foe = await this.connect()
    foe.says(connect(clientId, options))
    await foe.hears(0x20, 'CONNACK')
    if (foe.heard[3] !== 0) throw new Error(`${clientId} was refused with ${foe.heard[3]}`)
    return foe
  }

  /** A figure of /metrics, the sum over its labels. */
  async metric(name: string): Promise<number> {
    const response = await fetch(`http://127.0.0.1:${this.#target.httpPort}/metrics`)
    const lines = (await response.text()).matchAll(new RegExp(`^${name}(?:\\{.*\\})? (\\S+)$`, 'gm'))
    return [...lines].reduce((sum, [, value]) => sum + Number(value), 0)
  }

  /** Whether the attack has gone on for so long. */
  lasted(ms: number): boolean {
    return this.#target.attackMs >= ms
  }

  /** Goes on with an attack until it has come to what it aims at: on a slow machine that takes longer. */
  async pursue(attack: () => Promise<unknown>, isReached: () => Promise<boolean>, what: string): Promise<void> {
    const deadline = performance.now() + ANSWER_DEADLINE_MS
    await attack()
    while (!(await isReached())) {
      if (performance.now() >= deadline) throw new Error(`${what} did not come within ${ANSWER_DEADLINE_MS} ms`)
      this.begin()
      await attack()
    }
  }

  /** Waits until the attack is over. */
  async pass(): Promise<void> {
    await delay(Math.max(0, this.#endsAtMs - performance.now()))
  }

  /** Calls `act` so often a second, evenly, until the attack is over; returns how often. */
  async atRate(perS: number, act: (n: number) => Promise<unknown>): Promise<number> {
    const startedMs = performance.now()
    let done = 0
    const running = new Set<Promise<unknown>>()
    while (!this.isOver) {
      const due = ((performance.now() - startedMs) / 1000) * perS
      for (; done < due; done++) {
        const acting = act(done)
        running.add(acting)
        void acting.finally(() => running.delete(acting))
      }
      await delay(POLL_MS)
    }
    await Promise.all(running)
    return done
  }

  /** Says the same again and again, as fast as it is taken, until the attack is over or the connection; returns how often. */
  async floods(foe: Foe, next: (n: number) => Buffer): Promise<number> {
    let said = 0
    while (!this.isOver && !foe.isClosed) {
      if (!foe.says(next(said++))) await foe.hasRoom(() => this.isOver)
      // A turn for what is heard.
      else if (said % 16 === 0) await new Promise(setImmediate)
    }
    return said
  }

  /** Ends everything that is still open. */
  close(): void {
    for (const foe of this.#connections) foe.reset()
  }
}

interface ConnectOptions {
  readonly version?: 4 | 5
  readonly isClean?: boolean
  /** Of 5.0, with their length, hexadecimal. */
  readonly properties?: string
  readonly will?: { readonly topic: string; readonly payload: Buffer; readonly isRetained: boolean }
}

/** A CONNECT with keep alive 0. */
export function connect(
  clientId: string,
  { version = 4, isClean = true, properties = '00', will }: ConnectOptions = {},
): Buffer {
  const flags = (isClean ? 2 : 0) | (will === undefined ? 0 : 4 | (will.isRetained ? 0x20 : 0))
  const head = Buffer.from([version, flags, 0, 0])
  const willPart =
    will === undefined
      ? Buffer.alloc(0)
      : Buffer.concat([
          Buffer.alloc(version === 5 ? 1 : 0),
          text(will.topic),
          Buffer.from([will.payload.length >> 8, will.payload.length & 0xff]),
          will.payload,
        ])
  return packet(0x10, text('MQTT'), head, version === 5 ? properties : '', text(clientId), willPart)
}

/** One connection of an attacker. */
export class Foe {
  readonly socket: Socket
  /** The first bytes of what came; `heardBytes` counts all. */
  heard: Buffer = Buffer.alloc(0)
  heardBytes = 0
  isOpen = false
  isClosed = false
  /** The other side has said that it sends no more. */
  isEnded = false

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('connect', () => {
      this.isOpen = true
    })
    socket.on('data', chunk => {
      this.heardBytes += chunk.length
      if (this.heard.length < KEPT_BYTES) this.heard = Buffer.concat([this.heard, chunk]).subarray(0, KEPT_BYTES)
    })
    socket.on('end', () => {
      this.isEnded = true
    })
    // A refused or reset connection is an answer, too.
    socket.on('error', () => undefined)
    socket.on('close', () => {
      this.isClosed = true
    })
  }

  /** False: the kernel takes no more for now. */
  says(...parts: readonly Buffer[]): boolean {
    if (this.isClosed || this.socket.destroyed) return false
    return this.socket.write(parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts))
  }

  /** Resolves when what was said is on its way, or the connection gone, or `isOver`. */
  async hasRoom(isOver: () => boolean): Promise<void> {
    while (!isOver() && !this.isClosed && this.socket.writableNeedDrain) await delay(1)
  }

  /** Waits for a packet whose first byte is this at the place `from` of what was heard, and returns its offset. */
  async hears(first: number, what: string, from = 0): Promise<void> {
    await eventually(() => this.heard.length > from + 1 || this.isClosed, {
      what,
      deadlineMs: ANSWER_DEADLINE_MS,
      intervalMs: POLL_MS,
    })
    if (this.heard[from] !== first) {
      const instead = this.heard.subarray(from, from + 40).toString('hex')
      throw new Error(
        `expected ${what}, heard ${instead || 'nothing'}${this.isClosed ? ', and the connection was closed' : ''}`,
      )
    }
  }

  /** The gateway closes the connection. */
  async isCutOff(what: string, deadlineMs = ANSWER_DEADLINE_MS): Promise<void> {
    await eventually(() => this.isClosed, { what, deadlineMs })
  }

  /** So many bytes have come in all. */
  async hasHeard(bytes: number, what: string): Promise<void> {
    await eventually(() => this.heardBytes >= bytes || this.isClosed, {
      what,
      deadlineMs: ANSWER_DEADLINE_MS,
      intervalMs: 1,
    })
  }

  /** Nothing was ever said to it. */
  heardNothing(): void {
    if (this.heardBytes > 0)
      throw new Error(`heard ${this.heard.toString('hex').slice(0, 80)} where nothing was to come`)
  }

  /** RST instead of FIN. */
  reset(): void {
    this.socket.resetAndDestroy()
  }
}

/** Waits for the end of a connection of 5.0, and that it was told DISCONNECT with this reason last. */
export async function isToldReason(foe: Foe, reason: number): Promise<void> {
  const code = reason.toString(16)
  await foe.isCutOff(`DISCONNECT 0x${code}`)
  const last = foe.heard.subarray(-4).toString('hex')
  if (last !== `e002${code}00`) throw new Error(`heard ${last} at the end, not 0x${code}`)
}
