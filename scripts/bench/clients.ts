import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { CONNACK, connectFrame, DISCONNECT_FRAME, FrameReader, type OnFrame, SUBACK, subscribeFrame } from './frames.ts'
import type { QoS } from './scenarios.ts'

/* Connections of the load generator: all read into one buffer, and answer the packets of one read with one write. */

export interface Connection {
  readonly socket: Socket
  /** Takes the frames from now on. */
  onFrame: OnFrame
  /** After the last frame of each read. */
  afterRead: () => void
}

const READ_BYTES = 256 * 1024
/** The packets of one read are answered with fewer bytes than it has. */
const ANSWER_BLOCK_BYTES = 2 * READ_BYTES
/** A packet of nothing but its packet id. */
const ANSWER_BYTES = 4
const HANDSHAKE_DEADLINE_MS = 10_000

/** All sockets read into this one: a read is finished with before the next begins. */
const readBuffer = Buffer.allocUnsafeSlow(READ_BYTES)

export const ignore = () => undefined

export interface Hello {
  readonly port: number
  readonly isEncrypted: boolean
  readonly clientId: string
  readonly clean: boolean
  /** Called on CONNACK: what follows it in the same read may be messages of a session that goes on. */
  readonly receive?: (connection: Connection) => void
}

/** Connects and waits for CONNACK. Of a session that was to go on, the broker must know. */
export async function open({ port, isEncrypted, clientId, clean, receive = ignore }: Hello): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const reader = new FrameReader((firstByte, bytes, body, end) => connection.onFrame(firstByte, bytes, body, end))
    const options = {
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer: readBuffer,
        callback: (length: number) => {
          reader.read(readBuffer, length)
          connection.afterRead()
          return true
        },
      },
    }
    // The certificate of a broker that is measured is its own.
    const socket = isEncrypted ? connectTls({ ...options, rejectUnauthorized: false }) : connect(options)
    const timer = setTimeout(() => {
      socket.destroy(new Error(`no CONNACK within ${HANDSHAKE_DEADLINE_MS} ms`))
    }, HANDSHAKE_DEADLINE_MS)
    const connection: Connection = {
      socket,
      onFrame: (firstByte, bytes, body) => {
        clearTimeout(timer)
        if (firstByte !== CONNACK || bytes[body + 1] !== 0) {
          reject(new Error(`the broker refused client ${clientId}`))
          return
        }
        if (receive !== ignore && bytes[body] !== 1) {
          reject(new Error(`the broker has no session for client ${clientId}`))
          return
        }
        socket.off('error', reject)
        connection.onFrame = ignore
        receive(connection)
        resolve(connection)
      },
      afterRead: ignore,
    }
    socket.once('error', reject)
    socket.write(connectFrame({ clientId, clean }))
  })
}

export interface Subscription {
  readonly filter: string
  readonly qos: QoS
  /** Called on SUBACK: what follows it in the same read may be messages. */
  readonly receive: () => void
}

export async function subscribe(connection: Connection, { filter, qos, receive }: Subscription): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no SUBACK')), HANDSHAKE_DEADLINE_MS)
    connection.onFrame = (firstByte, bytes, _body, end) => {
      clearTimeout(timer)
      if (firstByte !== SUBACK || bytes[end - 1] !== qos) {
        reject(new Error(`the broker refused the subscription to ${filter} at QoS ${qos}`))
        return
      }
      receive()
      resolve()
    }
    connection.socket.write(subscribeFrame({ filter, qos }))
  })
}

/** DISCONNECT, and its end. */
export async function leave({ socket }: Connection): Promise<void> {
  await new Promise<void>(closed => socket.once('close', () => closed()).end(DISCONNECT_FRAME))
}

/** Answers to the packets of one read, written in one piece after it. */
export class Answers {
  readonly #socket: Socket
  #block = Buffer.allocUnsafe(ANSWER_BLOCK_BYTES)
  /** What lies before it was written, and belongs to the socket until it is out. */
  #from = 0
  #to = 0

  constructor(socket: Socket) {
    this.#socket = socket
  }

  add(firstByte: number, packetId: number): void {
    const [block, to] = [this.#block, this.#to]
    block[to] = firstByte
    block[to + 1] = 2
    block[to + 2] = packetId >> 8
    block[to + 3] = packetId & 0xff
    this.#to = to + ANSWER_BYTES
  }

  write(): void {
    if (this.#to === this.#from) return
    this.#socket.write(this.#block.subarray(this.#from, this.#to))
    this.#from = this.#to
    if (ANSWER_BLOCK_BYTES - this.#to >= READ_BYTES) return
    this.#block = Buffer.allocUnsafe(ANSWER_BLOCK_BYTES)
    this.#from = 0
    this.#to = 0
  }
}
