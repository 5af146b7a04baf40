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

/** Why a listener closes a connection. */
export type ListenerRefusal =
  /** Its address is not admitted. */
  | 'address'
  /** There are too many. */
  | 'connections'
  /** It should have come through a proxy, and did not, or the proxy's header was wrong. */
  | 'proxy'
  /** TLS or the upgrade to WebSocket did not come about. */
  | 'handshake'
  /** It broke the framing of WebSocket. */
  | 'frames'

export interface ListenerCounters {
  /** Connections that were not refused when they came. */
  accepted: number
  readonly refused: Record<ListenerRefusal, number>
}

/** What a protocol makes of an accepted stream, as far as its listener has to know. */
export interface Accepted {
  /** Ends it, telling the client if there is a way: it is not allowed to be here any more, for the reason given. */
  dismiss(why: string): void
}

/** Takes a connected stream over; null: it was refused, and is closed. */
export type Accept = (socket: AcceptedSocket) => Accepted | null

/** A bound port, or socket file, that hands connected streams to a protocol. */
export interface Listener {
  readonly counters: ListenerCounters
  /** Resolves when the port is bound; rejects with BrokerError LISTENER_PORT_IN_USE or LISTENER_FAILED. */
  start(accept: Accept): Promise<void>
  /** Unbinds the port and closes what is still open; resolves when all is closed. */
  stop(): Promise<void>
  /** Takes into use what its files hold now; what is wrong with them is logged, kept for `health`, and leaves everything as it was. */
  reload(): void
  /** What about it needs somebody's attention, a sentence each; empty: nothing. */
  health(nowMs: number): readonly string[]
  /** Where it is bound; only while started. A socket file is the host, with port 0. */
  address(): { readonly host: string; readonly port: number }
}

/** What every listener takes. */
export interface ListenerOptions {
  /** Key below `listeners` in the configuration. */
  readonly name: string
  readonly log: Logger
  /** Asked with the address of each connection before anything is read from it; one that is not admitted is closed at once. */
  readonly admits?: (address: string) => boolean
  /** The proxies that connections come from, each with a PROXY header that tells the address: addresses, or networks as `192.0.2.0/24`; null: none, and no header. */
  readonly trustedProxies?: readonly string[] | null
  /** Open connections at most; further ones are closed at once. Protocols limit their clients themselves, and can tell them why. */
  readonly maxConnections?: number
}

/** Where a listener on a port is to be bound. */
export interface PortOptions {
  readonly host: string
  /** 0: any free port. */
  readonly port: number
}
