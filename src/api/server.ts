import { createServer, type RequestListener, type Server } from 'node:http'
import type { Access } from '../core/access.ts'
import { isLoopback } from '../model/address.ts'
import { BrokerError } from '../model/error.ts'
import { LimitedLog } from '../telemetry/limited-log.ts'
import type { Logger } from '../telemetry/log.ts'
import type { Metrics } from '../telemetry/metrics.ts'
import type { Gateway } from './gateway.ts'
import { Rates } from './rates.ts'

/** HTTP connections at once; further ones are closed at once. */
const CONNECTIONS_MAX = 64
const HEADERS_TIMEOUT_MS = 10_000
const REQUEST_TIMEOUT_MS = 30_000
/** How often Node looks for connections over these times; by itself twice a minute. */
const TIMEOUT_CHECK_MS = 5_000

export interface ApiServerParts {
  readonly gateway: Gateway
  readonly metrics: Metrics
  readonly log: Logger
  readonly access: Access
  /** Asked with the address of each connection before anything is read from it; one that is not admitted is closed at once. */
  readonly admits: (address: string) => boolean
  readonly host: string
  readonly port: number
  readonly monotonicMs: () => number
}

/**
 * The HTTP listener. Framework and routes are loaded at the first request: Request and Response alone, which Node loads on first use, cost 7 MB
 * that a gateway nobody asks does not pay.
 */
export class ApiServer {
  readonly #parts: ApiServerParts
  readonly #rates: Rates
  readonly #server: Server

  constructor(parts: ApiServerParts) {
    this.#parts = parts
    this.#rates = new Rates({ read: () => parts.gateway.messages(), monotonicMs: parts.monotonicMs })
    const options = {
      headersTimeout: HEADERS_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
    }
    this.#server = createServer(options, this.#enqueue)
    this.#server.maxConnections = CONNECTIONS_MAX
    this.#server.prependListener('connection', socket => {
      const { remoteAddress } = socket
      // Without an address it is gone already. The operator of the machine gets in whatever clients on it do.
      if (remoteAddress === undefined || !(isLoopback(remoteAddress) || parts.admits(remoteAddress))) socket.destroy()
    })
  }

  /** Resolves when the port is open; rejects with LISTENER_PORT_IN_USE or LISTENER_FAILED. */
  start(): Promise<void> {
    const { host, port, log, monotonicMs } = this.#parts
    const limitedLog = new LimitedLog(log, monotonicMs)
    return new Promise((resolve, reject) => {
      const refuse = (cause: Error): void => reject(listenError(cause, host, port))
      this.#server.once('error', refuse)
      this.#server.listen(port, host, () => {
        this.#server.off('error', refuse)
        // Such as too many open files: this connection is lost, the next may succeed.
        this.#server.on('error', error =>
          limitedLog.write('warn', { err: error }, 'an HTTP connection could not be accepted'),
        )
        this.#rates.samples.start()
        resolve()
      })
    })
  }

  /** Closes the port and every connection; may be called again. */
  async stop(): Promise<void> {
    this.#rates.samples.stop()
    if (!this.#server.listening) return
    const closed = new Promise<void>(resolve => this.#server.close(() => resolve()))
    this.#server.closeAllConnections()
    await closed
  }

  address(): { host: string; port: number } {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new TypeError('the HTTP listener is not started')
    return { host: address.address, port: address.port }
  }

  #listener: Promise<RequestListener> | null = null
  /** One request is begun in each turn of the event loop: 20 that come together, a millisecond each, would keep the devices waiting for 20. */
  readonly #waiting: Parameters<RequestListener>[] = []

  readonly #enqueue: RequestListener = (...exchange) => {
    if (this.#waiting.push(exchange) === 1) setImmediate(this.#next)
  }

  readonly #next = (): void => {
    const [exchange] = this.#waiting
    if (exchange !== undefined) this.#answer(...exchange)
    this.#waiting.shift()
    if (this.#waiting.length > 0) setImmediate(this.#next)
  }

  readonly #answer: RequestListener = (request, response) => {
    this.#listener ??= this.#load()
    this.#listener.then(
      listener => listener(request, response),
      (error: unknown) => {
        // Parts of the program itself are missing: nothing a request could change.
        this.#parts.log.error({ err: error }, 'the HTTP API could not be loaded')
        response.writeHead(500).end()
      },
    )
  }

  async #load(): Promise<RequestListener> {
    const [{ createApp }, { getRequestListener }] = await Promise.all([import('./app.ts'), import('@hono/node-server')])
    const { gateway, metrics, log, access } = this.#parts
    const app = createApp({ gateway, metrics, rates: this.#rates, log, access })
    return getRequestListener(app.fetch)
  }
}

function listenError(cause: Error, host: string, port: number): BrokerError {
  const code = 'code' in cause ? cause.code : undefined
  if (code === 'EADDRINUSE') {
    return new BrokerError(
      'LISTENER_PORT_IN_USE',
      `Port ${port} on ${host} is in use by another process; stop it or set http.port to another (0 takes any free one).`,
      { cause, facts: { host, port } },
    )
  }
  return new BrokerError(
    'LISTENER_FAILED',
    `HTTP can't listen on ${host}:${port}: ${cause.message}. Check http.host and http.port.`,
    {
      cause,
      facts: { host, port },
    },
  )
}
