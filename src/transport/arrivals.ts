import { createServer, type ListenOptions, type Server, type Socket } from 'node:net'
import { LimitedLog } from '../telemetry/limited-log.ts'
import type { ListenerCounters, ListenerOptions } from './listener.ts'
import { type Origin, originOf, Proxies } from './proxies.ts'

/** Connections the kernel holds until they are accepted: after a power cut a whole site comes back in one second. */
const BACKLOG = 1024

/** Connections taken in one turn of the event loop; the next ones wait. 500 that come at once take 80 ms, in which nobody else would be served. */
const ARRIVALS_A_TURN = 16
/** So many wait at most; further ones are closed. */
const WAITING_MAX = 4096

/** What comes to a bound port or socket file: who may come in, how many, and their end when the listener stops. */
export class Arrivals {
  readonly counters: ListenerCounters = {
    accepted: 0,
    refused: { address: 0, connections: 0, proxy: 0, handshake: 0, frames: 0 },
  }
  readonly #name: string
  readonly #log: LimitedLog
  readonly #admits: (address: string) => boolean
  readonly #maxConnections: number
  readonly #proxies: Proxies | null
  readonly #server: Server
  readonly #open = new Set<Socket>()
  /** Accepted, and not looked at yet. */
  #waiting: Socket[] = []
  #takenThisTurn = 0
  #hasAddresses = true

  constructor({
    name,
    log,
    admits = () => true,
    trustedProxies = null,
    maxConnections = Number.POSITIVE_INFINITY,
  }: ListenerOptions) {
    this.#name = name
    this.#log = new LimitedLog(log, () => performance.now())
    this.#admits = admits
    this.#maxConnections = maxConnections
    const onRefused = (): void => {
      this.counters.refused.proxy++
    }
    this.#proxies =
      trustedProxies === null ? null : new Proxies({ trusted: trustedProxies, listener: name, log, onRefused })
    // noDelay: output is gathered before it is written, Nagle would only add latency. pauseOnConnect: nothing is read before somebody wants it.
    this.#server = createServer({ noDelay: true, pauseOnConnect: true })
  }

  /**
   * Resolves when it is bound; rejects with the system's error. `take` gets each connection, paused, and gives back the socket it goes on with, which
   * may be another one over the same connection.
   */
  listen(where: ListenOptions, take: (accepted: Socket, origin: Origin) => Socket): Promise<void> {
    const server = this.#server
    this.#hasAddresses = where.path === undefined
    const receive = (accepted: Socket): void => {
      if (this.#proxies === null) this.#arrived(accepted, originOf(accepted), take)
      else this.#proxies.receive(accepted, origin => this.#arrived(accepted, origin, take))
    }
    const next = (): void => {
      this.#takenThisTurn = 0
      for (const accepted of this.#waiting.splice(0, ARRIVALS_A_TURN)) {
        this.#takenThisTurn++
        receive(accepted)
      }
      if (this.#takenThisTurn > 0) setImmediate(next)
    }
    server.on('connection', accepted => {
      if (this.#takenThisTurn === 0) setImmediate(next)
      if (this.#takenThisTurn++ < ARRIVALS_A_TURN) {
        receive(accepted)
      } else if (this.#waiting.length < WAITING_MAX) {
        this.#waiting.push(accepted)
      } else {
        this.counters.refused.connections++
        accepted.destroy()
      }
    })
    return new Promise((resolve, reject) => {
      server.once('error', reject)
      server.listen({ ...where, backlog: BACKLOG }, () => {
        server.off('error', reject)
        // Out of file descriptors, most likely: accepting goes on when some are free again.
        server.on('error', error =>
          this.#log.write('error', { listener: this.#name, err: error }, 'cannot accept a connection'),
        )
        resolve()
      })
    })
  }

  /** Unbinds it and closes what is open; resolves when all is closed. */
  async stop(): Promise<void> {
    this.#proxies?.close()
    for (const accepted of this.#waiting.splice(0)) accepted.destroy()
    const closed = [...this.#open].map(
      socket => new Promise<void>(resolve => socket.once('close', () => resolve()).destroy()),
    )
    if (this.#server.listening) closed.push(new Promise(resolve => this.#server.close(() => resolve())))
    await Promise.all(closed)
  }

  /** Where it is bound; only while it is. */
  address(): { readonly host: string; readonly port: number } {
    const address = this.#server.address()
    if (address === null) throw new TypeError('the listener is not started')
    return typeof address === 'string' ? { host: address, port: 0 } : { host: address.address, port: address.port }
  }

  #arrived(accepted: Socket, origin: Origin, take: (accepted: Socket, origin: Origin) => Socket): void {
    const { counters } = this
    if (origin.address === undefined && this.#hasAddresses) {
      // It is gone already.
      accepted.destroy()
    } else if (origin.address !== undefined && !this.#admits(origin.address)) {
      counters.refused.address++
      accepted.destroy()
    } else if (this.#open.size >= this.#maxConnections) {
      counters.refused.connections++
      accepted.destroy()
    } else {
      counters.accepted++
      const socket = take(accepted, origin)
      this.#open.add(socket)
      socket.on('close', () => this.#open.delete(socket))
    }
  }
}
