import type { Duplex } from 'node:stream'

/**
 * A byte stream from a client, with its address where there is one. A chunk is valid only during its 'data' event: all sockets may read into one buffer.
 */
export type AcceptedSocket = Duplex & {
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
}

/** A bound port that hands connected streams to a protocol. */
export interface Listener {
  /** Resolves when the port is bound; rejects with BrokerError LISTENER_PORT_IN_USE or LISTENER_FAILED. */
  start(accept: (socket: AcceptedSocket) => void): Promise<void>
  /** Unbinds the port and closes what is still open; resolves when all is closed. */
  stop(): Promise<void>
  /** Where it is bound; only while started. */
  address(): { readonly host: string; readonly port: number }
}
