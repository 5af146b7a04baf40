import type { Duplex } from 'node:stream'
import type { Logger } from '../telemetry/log.ts'

/** What is known of a client before it has said a word. */
export interface Peer {
  /** Name of the listener it came to: `mqtt`, `mqtts`, … */
  readonly listener: string
  /** It is on this machine: its address is a loopback address, or it has none (unix socket). */
  readonly isLocal: boolean
  /** The user its certificate names; null: it showed none. */
  readonly certificateUser: string | null
  readonly isEncrypted: boolean
}

/**
 * A byte stream from a client, with its address where there is one. A chunk is valid only during its 'data' event: all sockets may read into one buffer.
 */
export type AcceptedSocket = Duplex & {
  readonly remoteAddress?: string | undefined
  readonly remotePort?: number | undefined
  readonly peer?: Peer
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

/** What every listener on a port of this machine takes. */
export interface ListenerOptions {
  /** Key below `listeners` in the configuration. */
  readonly name: string
  readonly host: string
  /** 0: any free port. */
  readonly port: number
  readonly log: Logger
  /** Asked with the address of each connection before anything is read from it; one that is not admitted is closed at once. */
  readonly admits?: (address: string) => boolean
}
