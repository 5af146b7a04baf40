import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/*
 * An AMQP 0-9-1 broker that keeps nothing and confirms as the test says: for what a RabbitMQ can't be brought to do on demand (small frames, confirms out of order,
 * storms of nacks, few channels, a slow handshake). It speaks just as much of the protocol as a publisher with confirms needs.
 */

export interface PeerOptions {
  /** Largest frame, bytes, its eight of overhead included; 0: no limit. */
  readonly frameMax?: number
  /** Channels of one connection; 0: no limit. */
  readonly channelMax?: number
  /** Before each answer of the handshake. */
  readonly handshakeDelayMs?: number
}

export interface PeerMessage {
  readonly exchange: string
  readonly routingKey: string
  readonly messageId: string
  readonly body: Buffer
  /** Its place among the messages of its channel, from 1. */
  readonly tag: number
}

/** What becomes of a message that has arrived. */
export type OnMessage = (message: PeerMessage, channel: PeerChannel) => void

const FRAME_END = 0xce
const METHOD = 1
const HEADER = 2
const BODY = 3

export class AmqpPeer implements AsyncDisposable {
  readonly port: number
  readonly messages: PeerMessage[] = []
  /** Connections taken so far. */
  accepted = 0
  /** Of all frames that came in, bytes. */
  largestFrame = 0
  /** Default: confirmed at once. */
  onMessage: OnMessage = ({ tag }, channel) => channel.ack(tag)
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  static async start(options: PeerOptions = {}): Promise<AmqpPeer> {
    const server = createServer({ noDelay: true })
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    return new AmqpPeer(server, { frameMax: 131_072, channelMax: 2047, handshakeDelayMs: 0, ...options })
  }

  private constructor(server: Server, options: Required<PeerOptions>) {
    this.#server = server
    this.port = (server.address() as AddressInfo).port
    server.on('connection', socket => {
      this.accepted++
      this.#sockets.add(socket)
      socket.once('close', () => this.#sockets.delete(socket))
      // Whoever cuts the link shows it to the test in its own way.
      socket.on('error', () => undefined)
      const connection = new PeerConnection(socket, options, (message, channel) => {
        this.messages.push(message)
        this.onMessage(message, channel)
      })
      socket.on('data', bytes => {
        connection.read(bytes)
        this.largestFrame = Math.max(this.largestFrame, connection.largestFrame)
      })
    })
  }

  get url(): string {
    return `amqp://guest:guest@127.0.0.1:${this.port}`
  }

  /** Says something to every connection that is no AMQP. */
  babble(): void {
    for (const socket of this.#sockets) socket.write(Buffer.alloc(64, 0x41))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const closed = once(this.#server, 'close')
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
    await closed
  }
}

class PeerConnection {
  largestFrame = 0
  readonly #socket: Socket
  readonly #options: Required<PeerOptions>
  readonly #onMessage: OnMessage
  readonly #channels = new Map<number, PeerChannel>()
  #unread = Buffer.alloc(0)
  #isGreeted = false

  constructor(socket: Socket, options: Required<PeerOptions>, onMessage: OnMessage) {
    this.#socket = socket
    this.#options = options
    this.#onMessage = onMessage
  }

  read(bytes: Buffer): void {
    this.#unread = Buffer.concat([this.#unread, bytes])
    if (!this.#isGreeted) {
      if (this.#unread.length < 8) return
      this.#isGreeted = true
      this.#unread = this.#unread.subarray(8)
      const mechanisms = Buffer.from('PLAIN')
      const locales = Buffer.from('en_US')
      this.#answerLater(10, 10, Buffer.from([0, 9]), uint32(0), longText(mechanisms), longText(locales))
    }
    while (this.#unread.length >= 7) {
      const end = 7 + this.#unread.readUInt32BE(3)
      if (this.#unread.length <= end) return
      this.largestFrame = Math.max(this.largestFrame, end + 1)
      this.#frame(this.#unread.readUInt8(0), this.#unread.readUInt16BE(1), this.#unread.subarray(7, end))
      this.#unread = this.#unread.subarray(end + 1)
    }
  }

  #frame(type: number, number: number, payload: Buffer): void {
    if (type !== METHOD) {
      this.#channels.get(number)?.content(type, payload)
      return
    }
    const { frameMax, channelMax } = this.#options
    const method = `${payload.readUInt16BE(0)}.${payload.readUInt16BE(2)}`
    switch (method) {
      case '10.11':
        this.#answerLater(10, 30, uint16(channelMax), uint32(frameMax), uint16(0))
        break
      case '10.40':
        this.#answerLater(10, 41, Buffer.from([0]))
        break
      case '10.50':
        this.#send(0, 10, 51)
        this.#socket.end()
        break
      case '20.10':
        this.#channels.set(number, new PeerChannel(number, (...parts) => this.#send(number, ...parts), this.#onMessage))
        this.#send(number, 20, 11, uint32(0))
        break
      case '20.40':
        this.#channels.delete(number)
        this.#send(number, 20, 41)
        break
      case '40.10':
        this.#send(number, 40, 11)
        break
      case '85.10':
        this.#send(number, 85, 11)
        break
      case '60.40':
        this.#channels.get(number)?.publish(payload)
        break
      default:
      // tune-ok, channel.close-ok, connection.close-ok: nothing to answer.
    }
  }

  #answerLater(classId: number, methodId: number, ...parts: Buffer[]): void {
    void delay(this.#options.handshakeDelayMs).then(() => this.#send(0, classId, methodId, ...parts))
  }

  #send(channel: number, classId: number, methodId: number, ...parts: Buffer[]): void {
    const payload = Buffer.concat([uint16(classId), uint16(methodId), ...parts])
    const head = Buffer.concat([Buffer.from([METHOD]), uint16(channel), uint32(payload.length)])
    if (this.#socket.writable) this.#socket.write(Buffer.concat([head, payload, Buffer.from([FRAME_END])]))
  }
}

/** One channel, as the test has a hand in it. */
export class PeerChannel {
  readonly number: number
  readonly #send: (classId: number, methodId: number, ...parts: Buffer[]) => void
  readonly #onMessage: OnMessage
  #tag = 0
  #address = { exchange: '', routingKey: '' }
  #messageId = ''
  #body: Buffer[] = []
  #missing = 0
  #isClosed = false

  constructor(
    number: number,
    send: (classId: number, methodId: number, ...parts: Buffer[]) => void,
    onMessage: OnMessage,
  ) {
    this.number = number
    this.#send = send
    this.#onMessage = onMessage
  }

  ack(tag: number, isMultiple = false): void {
    this.#send(60, 80, uint64(tag), Buffer.from([isMultiple ? 1 : 0]))
  }

  nack(tag: number, isMultiple = false): void {
    this.#send(60, 120, uint64(tag), Buffer.from([isMultiple ? 1 : 0]))
  }

  /** Closes this channel alone; what still comes on it is thrown away. */
  close(code: number, text: string): void {
    this.#isClosed = true
    this.#send(20, 40, uint16(code), shortText(text), uint16(60), uint16(40))
  }

  publish(payload: Buffer): void {
    const [exchange, next] = readShortText(payload, 6)
    const [routingKey] = readShortText(payload, next)
    this.#address = { exchange, routingKey }
  }

  content(type: number, payload: Buffer): void {
    if (type === HEADER) {
      this.#missing = Number(payload.readBigUInt64BE(4))
      this.#messageId = messageIdOf(payload)
      this.#body = []
    } else if (type === BODY) {
      this.#body.push(Buffer.from(payload))
      this.#missing -= payload.length
    }
    if (this.#missing > 0 || this.#isClosed) return
    const body = Buffer.concat(this.#body)
    this.#onMessage({ ...this.#address, messageId: this.#messageId, body, tag: ++this.#tag }, this)
  }
}

/** Bits of the property flags, the first one in front. */
const SHORT_TEXTS_BEFORE_HEADERS = [15, 14]
const HEADERS_BIT = 13
const OCTETS = [12, 11]
const SHORT_TEXTS_BEHIND = [10, 9, 8, 7]

function messageIdOf(header: Buffer): string {
  const flags = header.readUInt16BE(12)
  const has = (bit: number): boolean => (flags & (1 << bit)) !== 0
  let at = 14
  let text = ''
  for (const bit of SHORT_TEXTS_BEFORE_HEADERS) if (has(bit)) [text, at] = readShortText(header, at)
  if (has(HEADERS_BIT)) at += 4 + header.readUInt32BE(at)
  for (const bit of OCTETS) if (has(bit)) at += 1
  for (const bit of SHORT_TEXTS_BEHIND) if (has(bit)) [text, at] = readShortText(header, at)
  return text
}

function readShortText(bytes: Buffer, at: number): [text: string, next: number] {
  const end = at + 1 + bytes.readUInt8(at)
  return [bytes.toString('utf8', at + 1, end), end]
}

const shortText = (text: string): Buffer => Buffer.concat([Buffer.from([Buffer.byteLength(text)]), Buffer.from(text)])
const longText = (text: Buffer): Buffer => Buffer.concat([uint32(text.length), text])

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}
