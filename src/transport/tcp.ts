import { createServer, type Server, Socket } from 'node:net'
import { isLoopback } from '../model/address.ts'
import { BrokerError } from '../model/error.ts'
import type { Logger } from '../telemetry/log.ts'
import type { AcceptedSocket, Listener, ListenerOptions, Peer } from './listener.ts'

/** Connections the kernel holds until they are accepted: after a power cut a whole site comes back in one second. */
const BACKLOG = 1024

/**
 * Every socket reads into this one buffer: what a read brought is dealt with before the next. A buffer for each read, as Node makes by
 * default, costs a third of a small message's way through the gateway, most of it in the collector.
 */
const readBuffer = Buffer.allocUnsafeSlow(64 * 1024)
/** By length, what a short read brings: where devices send one message at a time, reads are alike. */
const shortReads: (Buffer | undefined)[] = new Array(1024)

function readChunk(bytes: number): Buffer {
  if (bytes >= shortReads.length) return readBuffer.subarray(0, bytes)
  let chunk = shortReads[bytes]
  if (chunk === undefined) {
    chunk = readBuffer.subarray(0, bytes)
    shortReads[bytes] = chunk
  }
  return chunk
}

/** Plain TCP [MQTT-4.2-1]. */
export class TcpListener implements Listener {
  readonly #name: string
  readonly #host: string
  readonly #port: number
  readonly #log: Logger
  readonly #admits: (address: string) => boolean
  readonly #maxConnections: number
  /** Two for all connections: nothing else is known of any of them. */
  readonly #localPeer: Peer
  readonly #remotePeer: Peer
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** Connections closed at once because there were `maxConnections` already. */
  refused = 0

  constructor({
    name,
    host,
    port,
    log,
    admits = () => true,
    maxConnections = Number.POSITIVE_INFINITY,
  }: ListenerOptions & {
    /** Open connections at most; further ones are closed at once. Protocols limit their clients themselves, and can tell them why. */
    readonly maxConnections?: number
  }) {
    this.#name = name
    this.#host = host
    this.#port = port
    this.#log = log
    this.#admits = admits
    this.#maxConnections = maxConnections
    const peer = { listener: name, certificateUser: null, isEncrypted: false }
    this.#localPeer = { ...peer, isLocal: true }
    this.#remotePeer = { ...peer, isLocal: false }
    // noDelay: output is gathered before it is written, Nagle would only add latency. pauseOnConnect: nothing is read before `withSharedBuffer`.
    this.#server = createServer({ noDelay: true, pauseOnConnect: true })
  }

  start(accept: (socket: AcceptedSocket) => void): Promise<void> {
    const server = this.#server
    server.on('connection', accepted => {
      const { remoteAddress } = accepted
      // Without an address it is gone already.
      if (remoteAddress === undefined || !this.#admits(remoteAddress)) {
        accepted.destroy()
        return
      }
      if (this.#sockets.size >= this.#maxConnections) {
        this.refused++
        accepted.destroy()
        return
      }
      const peer = isLoopback(remoteAddress) ? this.#localPeer : this.#remotePeer
      const socket = Object.assign(withSharedBuffer(accepted), { peer })
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
      accept(socket)
    })
    return new Promise((resolve, reject) => {
      const onError = (error: NodeJS.ErrnoException) => reject(this.#failure(error))
      server.once('error', onError)
      server.listen({ host: this.#host, port: this.#port, backlog: BACKLOG }, () => {
        server.off('error', onError)
        // Out of file descriptors, most likely: accepting goes on when some are free again.
        server.on('error', error => this.#log.error({ listener: this.#name, err: error }, 'cannot accept a connection'))
        resolve()
      })
    })
  }

  async stop(): Promise<void> {
    const server = this.#server
    const closed = [...this.#sockets].map(
      socket => new Promise<void>(resolve => socket.once('close', () => resolve()).destroy()),
    )
    if (server.listening) closed.push(new Promise(resolve => server.close(() => resolve())))
    await Promise.all(closed)
  }

  address(): { readonly host: string; readonly port: number } {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new TypeError('the listener is not started')
    return { host: address.address, port: address.port }
  }

  #failure(error: NodeJS.ErrnoException): BrokerError {
    const where = `${this.#host}:${this.#port}`
    const facts = { listener: this.#name, host: this.#host, port: this.#port }
    if (error.code === 'EADDRINUSE') {
      return new BrokerError(
        'LISTENER_PORT_IN_USE',
        `${where} is in use by another process; stop that one or set listeners.${this.#name}.port to a free port`,
        { cause: error, facts },
      )
    }
    const hint =
      error.code === 'EACCES'
        ? 'ports below 1024 need privileges; choose a higher one'
        : `set listeners.${this.#name}.host to an address of this machine`
    return new BrokerError('LISTENER_FAILED', `cannot listen on ${where} (${error.code ?? error.message}): ${hint}`, {
      cause: error,
      facts,
    })
  }
}

/**
 * The accepted connection as a socket that reads into `readBuffer`. Node has that (`onread`) for connections one opens oneself; for accepted
 * ones the handle moves into a new socket by the option `handle`, which Node uses the same way and does not document. Without it
 * the accepted socket does: slower, and otherwise the same.
 */
function withSharedBuffer(accepted: Socket): Socket {
  const handle: unknown = Reflect.get(accepted, '_handle')
  if (typeof handle !== 'object' || handle === null || !('useUserBuffer' in handle)) return accepted.resume()
  Reflect.set(accepted, '_handle', null)
  accepted.destroy()
  const options = {
    handle,
    onread: {
      buffer: readBuffer,
      callback: (bytes: number) => {
        socket.emit('data', readChunk(bytes))
        return true
      },
    },
  }
  const socket: Socket = Reflect.construct(Socket, [options])
  return socket
}
