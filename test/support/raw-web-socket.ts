import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { eventually } from './eventually.ts'

/** RFC 6455 section 5.2. */
export const Opcode = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

export interface FrameOptions {
  readonly opcode?: number
  readonly isFinal?: boolean
  readonly isMasked?: boolean
  /** RSV1 to RSV3. */
  readonly reserved?: number
  /** The length it announces, always in eight bytes; default: that of the payload in as few as possible. */
  readonly announced?: bigint
}

const MASK = Buffer.from([0x37, 0xfa, 0x21, 0x3d])

/** A frame as a client sends it, and some as none should. */
export function frame(
  payload: Buffer,
  { opcode = Opcode.binary, isFinal = true, isMasked = true, reserved = 0, announced }: FrameOptions = {},
): Buffer {
  const first = (isFinal ? 0x80 : 0) | (reserved << 4) | opcode
  const length =
    announced !== undefined ? longLength(announced) : payload.length < 126 ? [payload.length] : shortLength(payload)
  const [second = 0, ...more] = length
  const head = Buffer.from([first, (isMasked ? 0x80 : 0) | second, ...more])
  if (!isMasked) return Buffer.concat([head, payload])
  return Buffer.concat([head, MASK, payload.map((byte, n) => byte ^ (MASK[n % 4] ?? 0))])
}

function shortLength({ length }: Buffer): number[] {
  return length < 65_536 ? [126, length >> 8, length & 0xff] : longLength(BigInt(length))
}

function longLength(length: bigint): number[] {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(length)
  return [127, ...bytes]
}

/** Header lines of a request that is upgraded. */
export const UPGRADE: Readonly<Record<string, string>> = {
  Host: '127.0.0.1',
  Connection: 'Upgrade',
  Upgrade: 'websocket',
  'Sec-WebSocket-Version': '13',
  'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==',
  'Sec-WebSocket-Protocol': 'mqtt',
}

export const request = (headers: Readonly<Record<string, string>>, line = 'GET /mqtt HTTP/1.1'): string =>
  [line, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`), '', ''].join('\r\n')

export interface HeardFrame {
  readonly opcode: number
  readonly payload: Buffer
  /** Of the whole frame. */
  readonly bytes: number
}

/** The frame at the beginning of what a server has sent; null: it is not whole. */
export function readFrame(heard: Buffer): HeardFrame | null {
  const [first, length] = heard
  if (first === undefined || length === undefined) return null
  const head = length < 126 ? 2 : length === 126 ? 4 : 10
  if (heard.length < head) return null
  const payload = length < 126 ? length : length === 126 ? heard.readUInt16BE(2) : Number(heard.readBigUInt64BE(2))
  const bytes = head + payload
  return heard.length < bytes ? null : { opcode: first & 0x0f, payload: heard.subarray(head, bytes), bytes }
}

/** A client of WebSocket that says bytes and hears frames. */
export class RawWebSocket {
  readonly socket: Socket
  #heard: Buffer = Buffer.alloc(0)
  isClosed = false

  private constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', chunk => {
      this.#heard = Buffer.concat([this.#heard, chunk])
    })
    // A reset is one of the ways to be closed.
    socket.on('error', () => undefined)
    socket.on('close', () => {
      this.isClosed = true
    })
  }

  /** Connected, and nothing said. */
  static async connect(port: number): Promise<RawWebSocket> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    await once(socket, 'connect')
    return new RawWebSocket(socket)
  }

  /** Upgraded. */
  static async open(port: number, headers: Readonly<Record<string, string>> = {}): Promise<RawWebSocket> {
    const client = await RawWebSocket.connect(port)
    const answer = await client.says(request({ ...UPGRADE, ...headers })).hearsAnswer()
    if (answer.status !== 101) throw new Error(`not upgraded: ${answer.status} ${answer.text}`)
    return client
  }

  says(...pieces: (Buffer | string)[]): this {
    for (const piece of pieces) this.socket.write(piece)
    return this
  }

  /** An HTTP answer, with its body if it has one. */
  async hearsAnswer(): Promise<{ status: number; headers: ReadonlyMap<string, string>; text: string }> {
    await eventually(() => this.#heard.includes('\r\n\r\n') || this.isClosed, { what: 'an HTTP answer', intervalMs: 1 })
    const [line = '', ...rest] = this.#take(this.#heard.indexOf('\r\n\r\n') + 4)
      .toString('latin1')
      .trimEnd()
      .split('\r\n')
    const headers = new Map(rest.map(header => splitHeader(header)))
    const length = Number(headers.get('content-length') ?? 0)
    await eventually(() => this.#heard.length >= length || this.isClosed, { what: 'its body', intervalMs: 1 })
    return { status: Number(line.split(' ')[1]), headers, text: this.#take(length).toString() }
  }

  /** The next frame. */
  async hearsFrame(): Promise<Pick<HeardFrame, 'opcode' | 'payload'>> {
    await eventually(() => readFrame(this.#heard) !== null || this.isClosed, { what: 'a frame', intervalMs: 1 })
    const heard = readFrame(this.#heard)
    if (heard === null) throw new Error('closed without a frame')
    const { opcode, payload, bytes } = heard
    this.#take(bytes)
    return { opcode, payload }
  }

  /** The status of the close frame that comes next, after which the connection is closed. */
  async hearsClose(): Promise<number> {
    const { opcode, payload } = await this.hearsFrame()
    if (opcode !== Opcode.close) throw new Error(`heard a frame of type ${opcode} before the close`)
    await eventually(() => this.isClosed || this.socket.readableEnded, { what: 'the end of the connection' })
    return payload.length === 0 ? 0 : payload.readUInt16BE(0)
  }

  close(): void {
    this.socket.destroy()
  }

  #take(bytes: number): Buffer {
    const taken = this.#heard.subarray(0, bytes)
    this.#heard = this.#heard.subarray(bytes)
    return taken
  }
}

function splitHeader(line: string): [string, string] {
  const colon = line.indexOf(':')
  return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()]
}
