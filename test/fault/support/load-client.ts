import { randomBytes, randomInt } from 'node:crypto'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { generate } from 'mqtt-packet'
import { Ledger } from '../../../firmware-sim/ledger.ts'

const CONNACK = 0x20
const PUBLISH_QOS_1 = 0x32
const PUBACK = 0x40
const FIRST_REFUSAL = 0x80
const HIGHEST_PACKET_ID = 65_535
/** Source of payloads nobody can compress. */
const NOISE = randomBytes(256 * 1024).toString('base64')
const CONNECT_DEADLINE_MS = 10_000

export interface LoadOptions {
  /** Client id, and the device in the readings. */
  readonly id: string
  readonly port: number
  readonly version?: 4 | 5
  readonly window?: number
  readonly payloadBytes?: number
}

/**
 * A QoS 1 publisher as fast as its window allows, whose readings firmware-sim's verifier can account for. It holds the gateway to
 * acknowledging in order: a PUBACK out of turn is an error.
 */
export class LoadClient {
  readonly ledger: Ledger
  /** PUBACKs that said no (MQTT 5). */
  readonly refusals: number[] = []
  readonly #id: string
  readonly #version: 4 | 5
  readonly #window: number
  readonly #payloadBytes: number
  /** Where its payloads begin in the noise: elsewhere than those of others. */
  readonly #noiseAt = randomInt(NOISE.length)
  readonly #topic: string
  #socket: Socket | null = null
  #heard: Buffer = Buffer.alloc(0)
  #sent = 0
  #answered = 0
  #target = 0
  #waiting: { readonly resolve: () => void; readonly reject: (error: Error) => void } | null = null

  constructor({ id, version = 4, window = 20, payloadBytes = 256 }: Omit<LoadOptions, 'port'>) {
    this.#id = id
    this.#version = version
    this.#window = window
    this.#payloadBytes = payloadBytes
    this.#topic = `sensors/${id}/load`
    this.ledger = new Ledger({ device: id, topic: this.#topic, qos: 1 })
  }

  static async connect({ port, ...options }: LoadOptions): Promise<LoadClient> {
    const client = new LoadClient(options)
    await client.connect(port)
    return client
  }

  /** Messages sent and not answered. */
  get unanswered(): number {
    return this.#sent - this.#answered
  }

  get isConnected(): boolean {
    return this.#socket !== null
  }

  /** Resolves with CONNACK. What an earlier connection left unanswered is not sent again. */
  async connect(port: number): Promise<void> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    this.#answered = this.#sent
    this.#heard = Buffer.alloc(0)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiting = { resolve, reject }
    socket.on('data', chunk => this.#hear(chunk))
    socket.on('error', error => this.#lost(error))
    socket.on('close', () => this.#lost(new Error('the gateway closed the connection')))
    socket.setTimeout(CONNECT_DEADLINE_MS, () => socket.destroy(new Error('no CONNACK')))
    socket.write(
      generate(
        {
          cmd: 'connect',
          protocolId: 'MQTT',
          protocolVersion: this.#version,
          clean: true,
          clientId: this.#id,
          keepalive: 0,
        },
        { protocolVersion: this.#version },
      ),
    )
    this.#socket = socket
    await promise
    socket.setTimeout(0)
  }

  /** Publishes `count` more readings and resolves when each is answered; rejects when the connection is lost. */
  async publish(count: number): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#waiting = { resolve, reject }
    this.#target = this.#sent + count
    this.#fill()
    if (this.unanswered === 0) resolve()
    await promise
  }

  async close(): Promise<void> {
    const socket = this.#socket
    this.#waiting = null
    if (socket === null) return
    const closed = once(socket, 'close')
    socket.end(Buffer.from([0xe0, 0]))
    await closed
  }

  #fill(): void {
    const room = Math.min(this.#target - this.#sent, this.#window - this.unanswered)
    if (room <= 0 || this.#socket === null) return
    const frames: Buffer[] = []
    for (let n = 0; n < room; n++) frames.push(this.#frame(++this.#sent))
    this.#socket.write(Buffer.concat(frames))
  }

  #frame(sequence: number): Buffer {
    this.ledger.noteSent(sequence)
    const start = `{"device":"${this.#id}","seq":${sequence},"noise":"`
    const noiseBytes = Math.max(0, this.#payloadBytes - start.length - 2)
    // Steps that share no factor with the length: two payloads nearly never hold the same bytes.
    const at = (this.#noiseAt + sequence * 1009) % (NOISE.length - noiseBytes)
    const payload = `${start}${NOISE.slice(at, at + noiseBytes)}"}`
    const topicBytes = this.#topic.length
    const bodyBytes = 2 + topicBytes + 2 + (this.#version === 5 ? 1 : 0) + payload.length
    const lengthBytes = bodyBytes < 128 ? 1 : bodyBytes < 16_384 ? 2 : 3
    const frame = Buffer.allocUnsafe(1 + lengthBytes + bodyBytes)
    frame[0] = PUBLISH_QOS_1
    let rest = bodyBytes
    for (let n = 1; n <= lengthBytes; n++) {
      frame[n] = (rest & 0x7f) | (n < lengthBytes ? 0x80 : 0)
      rest >>>= 7
    }
    let offset = frame.writeUInt16BE(topicBytes, 1 + lengthBytes)
    offset += frame.write(this.#topic, offset, 'latin1')
    offset = frame.writeUInt16BE(packetIdOf(sequence), offset)
    if (this.#version === 5) frame[offset++] = 0
    frame.write(payload, offset, 'latin1')
    return frame
  }

  #hear(chunk: Buffer): void {
    let bytes = this.#heard.length === 0 ? chunk : Buffer.concat([this.#heard, chunk])
    for (;;) {
      const end = packetEnd(bytes)
      if (end === 0) break
      this.#packet(bytes.subarray(0, end))
      bytes = bytes.subarray(end)
    }
    this.#heard = Buffer.from(bytes)
    this.#fill()
    if (this.#sent >= this.#target && this.unanswered === 0) this.#waiting?.resolve()
  }

  #packet(packet: Buffer): void {
    if (packet[0] === CONNACK) {
      if (packet[3] === 0) this.#waiting?.resolve()
      else this.#lost(new Error(`the gateway refused the connection with ${packet[3]}`))
      return
    }
    if (packet[0] !== PUBACK) {
      this.#lost(new Error(`unexpected packet ${packet.toString('hex')}`))
      return
    }
    const sequence = ++this.#answered
    const id = packet.readUInt16BE(2)
    if (id !== packetIdOf(sequence)) {
      this.#lost(new Error(`${this.#id}: PUBACK ${id} came when ${packetIdOf(sequence)} was next`))
      return
    }
    const reason = packet.length > 4 ? (packet[4] ?? 0) : 0
    if (reason >= FIRST_REFUSAL) this.refusals.push(reason)
    else this.ledger.noteAcknowledged(sequence)
  }

  #lost(error: Error): void {
    this.#socket?.destroy()
    this.#socket = null
    this.#waiting?.reject(error)
    this.#waiting = null
  }
}

function packetIdOf(sequence: number): number {
  return ((sequence - 1) % HIGHEST_PACKET_ID) + 1
}

/** End of the first packet; 0 while it is not whole. */
function packetEnd(bytes: Buffer): number {
  let length = 0
  for (let n = 1; n < 5; n++) {
    const byte = bytes[n]
    if (byte === undefined) return 0
    length |= (byte & 0x7f) << (7 * (n - 1))
    if (byte < 0x80) return bytes.length >= n + 1 + length ? n + 1 + length : 0
  }
  return 0
}
