import { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import type { AcceptedSocket, Peer } from './listener.ts'

/** What all streams of a listener share. */
export interface StreamsShare {
  /** Memory for messages that have begun and not ended. */
  unfinishedBytes: number
  readonly unfinishedBytesMax: number
  /** A client broke the framing, or took too much of that memory. */
  onFault(): void
}

/** Memory for unfinished messages of one client that has not been answered yet: CONNECT fits. With more, it is not read on until it is. */
const UNANSWERED_BYTES_MAX = 64 * 1024
/** What a chunk takes besides its bytes: a frame may come in chunks of one byte. */
const CHUNK_BYTES = 256

/** RFC 6455 section 7.4.1. */
const CLOSE_NORMAL = 1000
const CLOSE_UNSUPPORTED_DATA = 1003

const BINARY = { binary: true }
const NOTHING = Buffer.alloc(0)

/**
 * What the messages of a WebSocket hold, as a stream of bytes: where a message ends says nothing [MQTT-6.0.0-2], 3.1.1 [MQTT-6.0.0-2]. Each piece of output is a
 * message of one frame, and what one turn of the event loop has gathered leaves in one write.
 *
 * An error is a fault of the client, which is told in a closing handshake; the end of the output is one too. `destroy` just closes.
 */
export class WebSocketStream extends Duplex {
  readonly remoteAddress: string | undefined
  readonly remotePort: number | undefined
  readonly peer?: Peer
  readonly #webSocket: WebSocket
  readonly #socket: AcceptedSocket
  readonly #share: StreamsShare
  /** What came behind the last whole message: `ws` keeps it, with the chunks it came in. Fragments make it a little too large. */
  #unfinishedBytes = 0
  /** That of it which is part of the last chunk, at most. */
  #unfinishedOfChunk = 0
  /** Memory of the last chunk. */
  #chunkBytes = 0
  /** Memory of all chunks that `ws` keeps: our part of `unfinishedBytes`. */
  #keptBytes = 0
  #isAnswered = false

  constructor(webSocket: WebSocket, socket: AcceptedSocket, share: StreamsShare) {
    // A message that is not taken at once stops the reading.
    super({ readableHighWaterMark: 1 })
    this.remoteAddress = socket.remoteAddress
    this.remotePort = socket.remotePort
    if (socket.peer !== undefined) this.peer = socket.peer
    this.#webSocket = webSocket
    this.#socket = socket
    this.#share = share
    // In front of the listener with which `ws` reads.
    socket.prependListener('data', chunk => this.#begun(chunk))
    webSocket.on('message', (data: Buffer, isBinary) => this.#message(data, isBinary))
    webSocket.on('ping', (data: Buffer) => this.#control(data))
    webSocket.on('pong', (data: Buffer) => this.#control(data))
    // `ws` has sent the close frame that says what is wrong.
    webSocket.on('error', error => this.#fault(error))
    webSocket.on('close', () => {
      this.#keep(0)
      this.push(null)
    })
  }

  #begun({ length }: Buffer): void {
    this.#unfinishedBytes += length
    this.#unfinishedOfChunk = length
    this.#chunkBytes = length + CHUNK_BYTES
    this.#keep(this.#keptBytes + this.#chunkBytes)
    const { unfinishedBytes, unfinishedBytesMax } = this.#share
    if (unfinishedBytes > unfinishedBytesMax) {
      this.#webSocket.terminate()
      this.#fault(new Error('unfinished messages take too much memory'))
    } else if (this.#mustBeAnswered) {
      this.#webSocket.pause()
    }
  }

  get #mustBeAnswered(): boolean {
    return !this.#isAnswered && this.#keptBytes > UNANSWERED_BYTES_MAX
  }

  #message(data: Buffer, isBinary: boolean): void {
    const unfinished = Math.max(0, this.#unfinishedBytes - frameBytes(data))
    this.#unfinishedBytes = Math.min(unfinished, this.#unfinishedOfChunk)
    this.#unfinishedOfChunk = this.#unfinishedBytes
    this.#keep(this.#unfinishedBytes > 0 ? this.#chunkBytes : 0)
    if (this.destroyed) return
    if (!isBinary) {
      // [MQTT-6.0.0-1], 3.1.1 [MQTT-6.0.0-1]
      this.#webSocket.close(CLOSE_UNSUPPORTED_DATA, 'MQTT comes in binary frames')
      this.#fault(new Error('a text frame'))
    } else if (data.length > 0 && !this.push(data)) {
      this.#webSocket.pause()
    }
  }

  /** Ping or pong, which may come between the fragments of a message. */
  #control(data: Buffer): void {
    const bytes = frameBytes(data)
    this.#unfinishedBytes = Math.max(0, this.#unfinishedBytes - bytes)
    this.#unfinishedOfChunk = Math.max(0, this.#unfinishedOfChunk - bytes)
    if (this.#unfinishedBytes === 0) this.#keep(0)
  }

  #keep(bytes: number): void {
    this.#share.unfinishedBytes += bytes - this.#keptBytes
    this.#keptBytes = bytes
  }

  #fault(error: Error): void {
    this.#share.onFault()
    this.destroy(error)
  }

  override _read(): void {
    if (this.#webSocket.isPaused && !this.#mustBeAnswered) this.#webSocket.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#send(chunk)
    this.#whenTaken(done)
  }

  override _writev(pieces: readonly { readonly chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#socket.cork()
    for (const { chunk } of pieces) this.#send(chunk)
    this.#socket.uncork()
    this.#whenTaken(done)
  }

  #send(chunk: Buffer): void {
    if (chunk.length === 0 || this.#webSocket.readyState !== this.#webSocket.OPEN) return
    this.#webSocket.send(chunk, BINARY)
    if (this.#isAnswered) return
    this.#isAnswered = true
    if (this.readableLength === 0) this.#webSocket.resume()
  }

  /** Mostly the kernel takes everything at once; then the writer learns it at once too. */
  #whenTaken(done: (error?: Error | null) => void): void {
    if (this.#socket.writableLength === 0 || this.#webSocket.readyState !== this.#webSocket.OPEN) done()
    else this.#socket.write(NOTHING, done)
  }

  override _final(done: (error?: Error | null) => void): void {
    this.#webSocket.close(CLOSE_NORMAL)
    done()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#webSocket.readyState === this.#webSocket.CLOSED) {
      done(error)
      return
    }
    this.#webSocket.once('close', () => done(error))
    if (error === null) this.#webSocket.terminate()
  }
}

/** Bytes of a frame of a client: header, masking key, payload (RFC 6455 section 5.2). */
function frameBytes({ length }: Buffer): number {
  return length + (length < 126 ? 6 : length < 65_536 ? 8 : 14)
}
