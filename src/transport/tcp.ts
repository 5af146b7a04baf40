import type { Socket } from 'node:net'
import { BrokerError } from '../model/error.ts'
import { Arrivals } from './arrivals.ts'
import type { Listener, ListenerCounters, ListenerOptions, Peer, PortOptions } from './listener.ts'
import type { Origin } from './proxies.ts'
import { withSharedBuffer } from './shared-buffer.ts'

export type TcpSocket = Socket & { readonly peer: Peer }

/**
 * How its sockets are read: into one buffer that all share; each chunk into memory of its own, for those who keep them beyond their event; or not at all: they are handed
 * over paused, for somebody who reads them in his own way.
 */
export type Reads = 'shared' | 'own' | 'nothing'

/** Plain TCP [MQTT-4.2-1]. */
export class TcpListener implements Listener {
  readonly #name: string
  readonly #host: string
  readonly #port: number
  readonly #arrivals: Arrivals
  readonly #reads: Reads
  /** Two for all connections: nothing else is known of any of them. */
  readonly #localPeer: Peer
  readonly #remotePeer: Peer

  constructor({
    host,
    port,
    reads = 'shared',
    ...options
  }: ListenerOptions &
    PortOptions & {
      readonly reads?: Reads
    }) {
    this.#name = options.name
    this.#host = host
    this.#port = port
    this.#reads = reads
    const peer = { listener: options.name, certificateUser: null, isEncrypted: false }
    this.#localPeer = { ...peer, isLocal: true }
    this.#remotePeer = { ...peer, isLocal: false }
    this.#arrivals = new Arrivals(options)
  }

  get counters(): ListenerCounters {
    return this.#arrivals.counters
  }

  async start(accept: (socket: TcpSocket) => void): Promise<void> {
    const where = { host: this.#host, port: this.#port }
    try {
      await this.#arrivals.listen(where, (accepted, origin) => {
        const socket = this.#open(accepted, origin)
        accept(socket)
        return socket
      })
    } catch (error) {
      throw portFailure(error, { name: this.#name, ...where })
    }
  }

  stop(): Promise<void> {
    return this.#arrivals.stop()
  }

  address(): { readonly host: string; readonly port: number } {
    return this.#arrivals.address()
  }

  reload(): void {
    // It has no files.
  }

  health(): readonly string[] {
    return []
  }

  #open(accepted: Socket, origin: Origin): TcpSocket {
    const socket = this.#reads === 'shared' ? withSharedBuffer(accepted) : accepted
    if (this.#reads === 'own') socket.resume()
    return Object.assign(tell(socket, origin), { peer: origin.isLocal ? this.#localPeer : this.#remotePeer })
  }
}

/** A socket that shows the address of its origin, where a proxy has told that. */
export function tell<S extends Socket>(socket: S, { address, port }: Pick<Origin, 'address' | 'port'>): S {
  if (socket.remoteAddress === address && socket.remotePort === port) return socket
  return Object.defineProperties(socket, { remoteAddress: { value: address }, remotePort: { value: port } })
}

/** Why a port could not be bound, and what to do. */
function portFailure(cause: unknown, { name, host, port }: PortOptions & { name: string }): BrokerError {
  const where = `${host}:${port}`
  const facts = { listener: name, host, port }
  const code = cause instanceof Error && 'code' in cause ? cause.code : undefined
  if (code === 'EADDRINUSE') {
    return new BrokerError(
      'LISTENER_PORT_IN_USE',
      `${where} is in use by another process; stop that one or set listeners.${name}.port to a free port`,
      { cause, facts },
    )
  }
  const hint =
    code === 'EACCES'
      ? 'ports below 1024 need privileges; choose a higher one'
      : `set listeners.${name}.host to an address of this machine`
  return new BrokerError('LISTENER_FAILED', `cannot listen on ${where} (${code ?? cause}): ${hint}`, { cause, facts })
}
