import { createServer, type Server, type Socket } from 'node:net'
import { BrokerError } from '../model/error.ts'
import type { Logger } from '../telemetry/log.ts'
import type { AcceptedSocket, Listener } from './listener.ts'

/** Connections the kernel holds until they are accepted: after a power cut a whole site comes back in one second. */
const BACKLOG = 1024

/** Plain TCP. */
export class TcpListener implements Listener {
  readonly #name: string
  readonly #host: string
  readonly #port: number
  readonly #log: Logger
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** Connections closed at once because there were `maxConnections` already. */
  refused = 0

  constructor({
    name,
    host,
    port,
    log,
    maxConnections = Number.POSITIVE_INFINITY,
  }: {
    /** Key in the configuration, for messages. */
    name: string
    host: string
    /** 0: any free port. */
    port: number
    log: Logger
    /** Open connections at most; further ones are closed at once. Protocols limit their clients themselves, and can tell them why. */
    maxConnections?: number
  }) {
    this.#name = name
    this.#host = host
    this.#port = port
    this.#log = log
    // noDelay: output is gathered before it is written, Nagle would only add latency.
    this.#server = createServer({ noDelay: true })
    if (maxConnections !== Number.POSITIVE_INFINITY) this.#server.maxConnections = maxConnections
    this.#server.on('drop', () => {
      this.refused++
    })
  }

  start(accept: (socket: AcceptedSocket) => void): Promise<void> {
    const server = this.#server
    server.on('connection', socket => {
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

  stop(): Promise<void> {
    const server = this.#server
    for (const socket of this.#sockets) socket.destroy()
    if (!server.listening) return Promise.resolve()
    return new Promise(resolve => server.close(() => resolve()))
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
        `${where} is in use by another process; stop that one or set ${this.#name}.port to a free port`,
        { cause: error, facts },
      )
    }
    const hint =
      error.code === 'EACCES'
        ? 'ports below 1024 need privileges; choose a higher one'
        : `set ${this.#name}.host to an address of this machine`
    return new BrokerError('LISTENER_FAILED', `cannot listen on ${where} (${error.code ?? error.message}): ${hint}`, {
      cause: error,
      facts,
    })
  }
}
