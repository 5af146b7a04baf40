import { BlockList, isIPv6, type Socket } from 'node:net'
import { isLoopback } from '../model/address.ts'
import type { Logger } from '../telemetry/log.ts'
import { type ProxyHeader, readProxyHeader, type Told } from './proxy-protocol.ts'

/** How long a proxy may take for its header; section 2 of the PROXY protocol asks for three seconds at least. */
const HEADER_DEADLINE_MS = 5_000

/** Connections that wait for their header at once; further ones are closed. */
const WAITING_MAX = 256

/** Where a connection comes from. */
export interface Origin {
  /** undefined: it is gone already. */
  readonly address: string | undefined
  readonly port: number | undefined
  /** From this machine. */
  readonly isLocal: boolean
}

export function originOf({ remoteAddress, remotePort }: Socket): Origin {
  return {
    address: remoteAddress,
    port: remotePort,
    isLocal: remoteAddress !== undefined && isLoopback(remoteAddress),
  }
}

/** The proxies in front of one listener: every connection comes from one of them, and begins with a PROXY header. */
export class Proxies {
  readonly #trusted = new BlockList()
  readonly #listener: string
  readonly #log: Logger
  readonly #waiting = new Set<Socket>()
  readonly #onRefused: () => void

  constructor({
    trusted,
    listener,
    log,
    onRefused,
  }: {
    /** Addresses, or networks as `192.0.2.0/24`; nobody else is believed. */
    trusted: readonly string[]
    /** Its name. */
    listener: string
    log: Logger
    /** A connection was closed: it came from somebody else, or its header was wrong or late. */
    onRefused: () => void
  }) {
    for (const text of trusted) {
      const [address = '', bits] = text.split('/')
      const family = isIPv6(address) ? 'ipv6' : 'ipv4'
      if (bits === undefined) this.#trusted.addAddress(address, family)
      else this.#trusted.addSubnet(address, Number(bits), family)
    }
    this.#listener = listener
    this.#log = log
    this.#onRefused = onRefused
  }

  /** Takes the header off an accepted connection that has not been read from. `onOrigin` is called in the turn in which the header is whole; what is behind it is unread then. */
  receive(socket: Socket, onOrigin: (origin: Origin) => void): void {
    const own = originOf(socket)
    if (own.address === undefined) {
      socket.destroy()
      return
    }
    if (!this.#trusted.check(own.address, isIPv6(own.address) ? 'ipv6' : 'ipv4')) {
      this.#refused(own, 'it does not come from one of trusted_proxies')
      socket.destroy()
      return
    }
    if (this.#waiting.size >= WAITING_MAX) {
      this.#refused(own, `${WAITING_MAX} connections wait for a PROXY header already`)
      socket.destroy()
      return
    }
    let why = 'it was closed before its PROXY header was whole'
    const refuse = (reason: string): void => {
      why = reason
      socket.destroy()
    }
    const deadline = setTimeout(() => refuse('no PROXY header in time'), HEADER_DEADLINE_MS)
    const end = (): void => {
      clearTimeout(deadline)
      this.#waiting.delete(socket)
      socket.off('data', read).off('close', onClose)
    }
    const onClose = (): void => {
      end()
      this.#refused(own, why)
    }
    let sent: Buffer = Buffer.alloc(0)
    const read = (chunk: Buffer): void => {
      sent = Buffer.concat([sent, chunk])
      const header = readOrRefuse(sent, refuse)
      if (header === null) return
      end()
      socket.pause()
      if (sent.length > header.bytes) socket.unshift(sent.subarray(header.bytes))
      onOrigin(tellOrigin(header.told, own))
    }
    this.#waiting.add(socket)
    // Errors are followed by 'close'.
    socket.on('error', () => undefined)
    socket.on('close', onClose).on('data', read).resume()
  }

  #refused({ address }: Origin, why: string): void {
    this.#onRefused()
    this.#log.debug({ listener: this.#listener, address, reason: why }, 'connection refused')
  }

  /** Closes what waits. */
  close(): void {
    for (const socket of this.#waiting) socket.destroy()
  }
}

/** The header once it is whole; null: not yet, or never, of which `refuse` is told. */
function readOrRefuse(sent: Buffer, refuse: (why: string) => void): ProxyHeader | null {
  try {
    return readProxyHeader(sent)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    refuse(`no PROXY header: ${error.message}`)
    return null
  }
}

function tellOrigin(told: Told, own: Origin): Origin {
  switch (told.kind) {
    case 'client':
      // The loopback address of another machine is not this one.
      return { address: told.address, port: told.port, isLocal: own.isLocal && isLoopback(told.address) }
    case 'proxy':
      return own
    case 'unknown':
      // It may come from anywhere.
      return { ...own, isLocal: false }
    default:
      return told satisfies never
  }
}
