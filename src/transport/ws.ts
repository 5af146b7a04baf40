/*
 * MQTT over WebSocket (section 6 of the standard): a small HTTP server that knows one thing, the upgrade of one path. Loaded only where it is configured.
 */
import { createServer, type IncomingMessage, type Server, STATUS_CODES } from 'node:http'
import { isIP } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocketServer } from 'ws'
import type { Accept, Accepted, AcceptedSocket, Listener, ListenerCounters, Peer } from './listener.ts'
import { type StreamsShare, WebSocketStream } from './ws-stream.ts'

/** Connections that have not upgraded yet; further ones are closed. */
const UPGRADES_MAX = 256
const HEADER_BYTES_MAX = 8 * 1024
/** How long a client may take to answer a close frame. */
const CLOSE_DEADLINE_MS = 1_000
/** Pings to which the answer has not left; a client with more does not read, and its connection is closed. */
const PENDING_PONGS_MAX = 60

/** A message may hold a packet of `limits.packet` with its fixed header; small packets may come together. */
const FIXED_HEADER_BYTES = 5
const MESSAGE_BYTES_MIN = 64 * 1024
/** A message may come in fragments of this size on average. */
const FRAGMENT_BYTES = 4 * 1024
const FRAGMENTS_MIN = 256
/** Memory for unfinished messages of all connections; more if four of the largest take more. */
const UNFINISHED_BYTES_MIN = 16 * 1024 * 1024
const UNFINISHED_MESSAGES = 4

const SUBPROTOCOL = 'mqtt'
/** The name that clients of MQTT 3.1 know. */
const SUBPROTOCOL_31 = 'mqttv3.1'

export interface WebSocketOptions {
  readonly path: string
  /** Whose pages may connect, as browsers write it: `https://panel.example`; `*`: any. Empty: those of the host they connect to. */
  readonly origins: readonly string[]
  /** Largest MQTT packet. */
  readonly packetBytes: number
  /** From the connection to the end of the upgrade. */
  readonly deadlineMs: number
}

/** The HTTP answer to what is not upgraded. */
interface Refusal {
  readonly status: 400 | 403 | 404 | 426
  readonly text: string
}

const NO_UPGRADE: Refusal = {
  status: 426,
  text: `This is MQTT over WebSocket: connect with ws:// or wss:// and the subprotocol ${SUBPROTOCOL}.\n`,
}
const NO_SUBPROTOCOL: Refusal = { status: 400, text: `The WebSocket subprotocol must be ${SUBPROTOCOL}.\n` }
const FOREIGN_PAGE: Refusal = {
  status: 403,
  text: 'Pages of this origin may not connect; the option origins of this listener names those that may.\n',
}
const ANSWER_HEADERS = { 'Content-Type': 'text/plain', Upgrade: 'websocket', Connection: 'close, Upgrade' }

/** A connection on its way to the protocol. */
interface Upgrading {
  readonly socket: AcceptedSocket
  readonly deadline: NodeJS.Timeout
  readonly onClose: () => void
  /** What the protocol has made of it; null: nothing yet. */
  accepted: Accepted | null
}

export class WebSocketListener implements Listener {
  readonly #inner: Listener
  readonly #path: string
  readonly #origins: readonly string[]
  readonly #deadlineMs: number
  readonly #http: Server
  readonly #webSockets: WebSocketServer
  readonly #share: StreamsShare
  readonly #upgrading = new Map<Duplex, Upgrading>()
  readonly #notFound: Refusal

  /** `inner` takes the connections. `ws` keeps chunks of theirs, so each must be memory of its own. */
  constructor(inner: Listener, { path, origins, packetBytes, deadlineMs }: WebSocketOptions) {
    this.#inner = inner
    this.#path = path
    this.#origins = origins
    this.#deadlineMs = deadlineMs
    this.#notFound = { status: 404, text: `There is nothing here; MQTT over WebSocket is at ${path}.\n` }
    this.#http = createServer({ maxHeaderSize: HEADER_BYTES_MAX })
    const maxPayload = Math.max(MESSAGE_BYTES_MIN, packetBytes + FIXED_HEADER_BYTES)
    const options = {
      noServer: true,
      clientTracking: false,
      // It would hold a window of memory for each connection.
      perMessageDeflate: false,
      maxPayload,
      maxFragments: Math.max(FRAGMENTS_MIN, Math.floor(maxPayload / FRAGMENT_BYTES)),
      maxPendingAutoPongs: PENDING_PONGS_MAX,
      // Text is refused, whatever it says.
      skipUTF8Validation: true,
      closeTimeout: CLOSE_DEADLINE_MS,
      // [MQTT-6.0.0-4], 3.1.1 [MQTT-6.0.0-4]
      handleProtocols: (offered: ReadonlySet<string>) => (offered.has(SUBPROTOCOL) ? SUBPROTOCOL : SUBPROTOCOL_31),
    }
    this.#webSockets = new WebSocketServer(options)
    this.#share = {
      unfinishedBytes: 0,
      unfinishedBytesMax: Math.max(UNFINISHED_BYTES_MIN, UNFINISHED_MESSAGES * maxPayload),
      onFault: () => this.counters.refused.frames++,
    }
  }

  get counters(): ListenerCounters {
    return this.#inner.counters
  }

  start(accept: Accept): Promise<void> {
    this.#http.on('request', (request, response) => {
      const { status, text } = this.#isElsewhere(request) ? this.#notFound : NO_UPGRADE
      response.writeHead(status, { ...ANSWER_HEADERS, 'Content-Length': text.length }).end(text)
    })
    this.#http.on('upgrade', (request, socket, head) => this.#upgrade(request, socket, { head, accept }))
    return this.#inner.start(socket => this.#arrived(socket))
  }

  async stop(): Promise<void> {
    await this.#inner.stop()
    this.#http.close()
  }

  reload(): void {
    this.#inner.reload()
  }

  health(nowMs: number): readonly string[] {
    return this.#inner.health(nowMs)
  }

  address(): { readonly host: string; readonly port: number } {
    return this.#inner.address()
  }

  #arrived(socket: AcceptedSocket): Accepted | null {
    if (this.#upgrading.size >= UPGRADES_MAX) {
      this.counters.refused.handshake++
      socket.destroy()
      return null
    }
    const deadline = setTimeout(() => socket.destroy(), this.#deadlineMs)
    const onClose = (): void => {
      this.counters.refused.handshake++
      this.#forget(upgrading)
    }
    const upgrading: Upgrading = { socket, deadline, onClose, accepted: null }
    this.#upgrading.set(socket, upgrading)
    // Errors are followed by 'close'.
    socket.on('error', () => undefined).on('close', onClose)
    this.#http.emit('connection', socket)
    return {
      dismiss: why => {
        if (upgrading.accepted === null) socket.destroy()
        else upgrading.accepted.dismiss(why)
      },
    }
  }

  #forget({ socket, deadline, onClose }: Upgrading): void {
    this.#upgrading.delete(socket)
    clearTimeout(deadline)
    socket.off('close', onClose)
  }

  #upgrade(request: IncomingMessage, socket: Duplex, { head, accept }: { head: Buffer; accept: Accept }): void {
    const upgrading = this.#upgrading.get(socket)
    // Its time is over.
    if (upgrading === undefined) return
    const refusal = this.#refusal(request, upgrading.socket)
    if (refusal !== null) {
      answer(socket, refusal)
      return
    }
    // What is wrong with the WebSocket part of the request `ws` answers, with 400 or 405.
    this.#webSockets.handleUpgrade(request, socket, head, webSocket => {
      this.#forget(upgrading)
      upgrading.accepted = accept(new WebSocketStream(webSocket, upgrading.socket, this.#share))
    })
  }

  #refusal(request: IncomingMessage, { peer }: AcceptedSocket): Refusal | null {
    if (this.#isElsewhere(request)) return this.#notFound
    if (!this.#mayConnect(request, peer)) return FOREIGN_PAGE
    const offered = request.headers['sec-websocket-protocol']?.split(',').map(name => name.trim()) ?? []
    // [MQTT-6.0.0-3], 3.1.1 [MQTT-6.0.0-3]
    return offered.includes(SUBPROTOCOL) || offered.includes(SUBPROTOCOL_31) ? null : NO_SUBPROTOCOL
  }

  #isElsewhere({ url = '' }: IncomingMessage): boolean {
    return url.split('?', 1)[0] !== this.#path
  }

  /** Browsers let the pages of any site connect to whatever their visitor reaches, and say in Origin whose page it is. Who sends no Origin is no browser. */
  #mayConnect({ headers: { origin, host = '' } }: IncomingMessage, peer: Peer | undefined): boolean {
    if (origin === undefined) return true
    if (this.#origins.length > 0) return this.#origins.includes('*') || this.#origins.includes(origin)
    const page = URL.parse(origin)?.hostname
    if (page === undefined || page !== URL.parse(`http://${host}`)?.hostname) return false
    // The owner of a name can make it lead here after his page was loaded (DNS rebinding); only TLS would notice.
    return peer?.isEncrypted === true || page === 'localhost' || isIP(page.replace(/^\[(.*)\]$/, '$1')) !== 0
  }
}

/** Answers a request to upgrade; there is no response object for it. */
function answer(socket: Duplex, { status, text }: Refusal): void {
  const headers = Object.entries({ ...ANSWER_HEADERS, 'Content-Length': text.length })
  const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status]}`, ...headers.map(([name, value]) => `${name}: ${value}`)]
  // Whatever else the client says is thrown away, so that its end is seen.
  socket.resume().end(`${lines.join('\r\n')}\r\n\r\n${text}`)
}
