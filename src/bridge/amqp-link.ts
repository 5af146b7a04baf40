/*
 * One connection to an AMQP broker and its channels: the only file that knows the AMQP client (docs/decisions/0004-amqplib.md).
 *
 * - A link lives once: `open`, then `lost` is called exactly once with the reason, unless it was closed on purpose. Reconnecting is upstream.ts'.
 * - It never waits for a peer that may be frozen: `cut` destroys the socket; opening, and opening a channel, have deadlines that do the same.
 * - Nothing here rejects unless somebody awaits it.
 * - Delivery tags are counted here and there alike (confirm mode): the n-th message published on a channel has tag n. So acks are
 *   taken from the channel's events and no callback is made per message.
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { connect as connectSocket, Socket } from 'node:net'
import {
  type Message as AmqpMessage,
  type ChannelModel,
  type ConfirmChannel,
  connect,
  credentials,
  IllegalOperationError,
} from 'amqplib'
import { BrokerError } from '../model/error.ts'
import { HEADERS_BYTES, type Publication } from './mapping.ts'

/** What an `amqps` URL needs beside itself, in PEM. */
export interface LinkTls {
  /** Authorities the upstream's certificate is checked against; null: those Node brings along. */
  readonly ca: Buffer | null
  /** Our certificate and its key, for an upstream that asks for one; null: none. */
  readonly client: { readonly cert: Buffer; readonly key: Buffer } | null
}

export interface LinkOptions {
  /** `amqp` or `amqps`. Without a user in it, a client certificate is who we are (SASL EXTERNAL). */
  readonly url: string
  readonly tls: LinkTls
  /** Shown by the upstream's management tools. */
  readonly connectionName: string
  /** Whole seconds are asked for. */
  readonly heartbeatMs: number
  /** For the TCP connection. */
  readonly connectTimeoutMs: number
  /** For the AMQP handshake behind it, and for opening a channel. */
  readonly handshakeTimeoutMs: number
  /** Gives up opening. */
  readonly signal: AbortSignal
}

export interface LinkHandlers {
  blocked(reason: string): void
  unblocked(): void
  lost(cause: BrokerError): void
}

/** An exchange a channel publishes to, and what is done about it when the channel opens. */
export interface ExchangeOptions {
  readonly name: string
  readonly type: 'topic' | 'direct' | 'fanout' | 'headers'
  /** true: declare it durable; passive: check that it exists; false: neither. */
  readonly declare: boolean | 'passive'
}

export interface ChannelHandlers {
  acked(tag: number, isMultiple: boolean): void
  nacked(tag: number, isMultiple: boolean): void
  /** Comes before the ack of the same message. */
  returned(messageId: string, words: string): void
  /** The client's buffer has room again. */
  drained(): void
  /** The upstream closed this channel alone; the link stands. Not called when the link ends. */
  closed(words: string): void
}

/** What became of a message handed to `publish`. `closed`: it was not sent, and took no tag. */
export type Sent = 'sent' | 'sent-buffer-full' | 'closed'

/** Our own words when the peer didn't get to say anything. */
const SILENCE = { connect: 'no TCP connection', handshake: 'no AMQP handshake', channel: 'no channel' } as const

const AMQPS_PORT = 5671

/** AMQP's smallest frame is 4096 bytes; with a frame that small this much is left for headers. */
const FRAME_RESERVE_BYTES = 2048

/** Refusals in the middle of a handshake that the operator has to cure: access, virtual host, not allowed. */
const REFUSAL = /ACCESS[-_]REFUSED|NOT[-_]ALLOWED|\b403\b|\b530\b|ConnectionClose|SASL mechanism/
/** Codes of TLS errors that the operator has to cure, on either side. */
const CERTIFICATE_REFUSAL = /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS|ERR_SSL|EPROTO/

export class AmqpLink {
  readonly #model: ChannelModel
  readonly #socket: Socket
  readonly #options: LinkOptions
  readonly #handlers: LinkHandlers
  #isOpen = true
  #blockedReason: string | null = null
  #isCorked = false

  /** Rejects with UPSTREAM_REFUSED (credentials, certificates, virtual host) or UPSTREAM_UNREACHABLE, in words, never with the password. */
  static async open(options: LinkOptions, handlers: LinkHandlers): Promise<AmqpLink> {
    const { url, connectTimeoutMs, handshakeTimeoutMs, signal } = options
    const { promise: end, reject: giveUp } = Promise.withResolvers<never>()
    // Without a listener of its own it would be unhandled when the link is up already.
    end.catch(() => undefined)
    const aborted = () => giveUp(new Error('given up'))
    let timer: NodeJS.Timeout | undefined
    const limit = (what: keyof typeof SILENCE, ms: number) => {
      clearTimeout(timer)
      timer = setTimeout(() => giveUp(new Error(`${SILENCE[what]} within ${ms} ms`)), ms)
    }
    let dialled: Socket | undefined
    try {
      signal.throwIfAborted()
      signal.addEventListener('abort', aborted)
      limit('connect', connectTimeoutMs)
      const { opening, socket } = dial(options)
      dialled = socket
      socket.once('connect', () => limit('handshake', handshakeTimeoutMs))
      // The client doesn't notice the end of a socket whose handshake is under way.
      socket.once('close', () => setImmediate(giveUp, new Error('connection closed')))
      const model = await Promise.race([opening, end])
      return new AmqpLink(model, streamOf(model), options, handlers)
    } catch (error) {
      dialled?.destroy()
      const words = wordsOf(error)
      const isCertificate = error instanceof Error && 'code' in error && CERTIFICATE_REFUSAL.test(String(error.code))
      const check = isCertificate ? 'tls.ca, tls.cert and the name in the URL' : 'user, password and virtual host'
      const refused = isCertificate || REFUSAL.test(words)
      throw new BrokerError(
        refused ? 'UPSTREAM_REFUSED' : 'UPSTREAM_UNREACHABLE',
        refused
          ? `the upstream ${redactUrl(url)} refused the connection: ${words}. Check ${check}`
          : `the upstream ${redactUrl(url)} can't be reached: ${words}`,
        { cause: error },
      )
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', aborted)
    }
  }

  private constructor(model: ChannelModel, socket: Socket, options: LinkOptions, handlers: LinkHandlers) {
    this.#model = model
    this.#socket = socket
    this.#options = options
    this.#handlers = handlers
    let reason: Error | null = null
    model.on('error', error => {
      reason = error
    })
    // 'error' is missing where the upstream closes with 320 CONNECTION_FORCED; 'close' comes always, except when our own farewell stays unanswered.
    model.on('close', error => this.#end(reason ?? error ?? new Error('connection closed')))
    model.on('blocked', words => {
      this.#blockedReason = words
      if (this.#isOpen) handlers.blocked(words)
    })
    model.on('unblocked', () => {
      this.#blockedReason = null
      if (this.#isOpen) handlers.unblocked()
    })
    // Behind a full socket buffer the client waits, and goes on message by message when it drains: that is gathered too.
    socket.prependListener('drain', () => this.cork())
    // The client leaves a socket that ended without its farewell to the heartbeat.
    socket.once('close', () => this.#end(reason ?? new Error('connection closed')))
  }

  get isOpen(): boolean {
    return this.#isOpen
  }

  /** Why the upstream takes no messages at present; null: it does. */
  get blockedReason(): string | null {
    return this.#blockedReason
  }

  get isBlocked(): boolean {
    return this.#blockedReason !== null
  }

  /** Largest header table of a message, bytes: it must fit one frame of the negotiated size. */
  get headersBytes(): number {
    const { connection } = this.#model
    if (!('frameMax' in connection) || typeof connection.frameMax !== 'number') return FRAME_RESERVE_BYTES
    return Math.min(HEADERS_BYTES, connection.frameMax - FRAME_RESERVE_BYTES)
  }

  /**
   * A confirm channel for one route, its exchanges declared or checked. Rejects with UPSTREAM_REFUSED and the upstream's words if it refuses
   * that; if the link ends meanwhile (or the upstream doesn't answer within the handshake timeout, which ends it) with UPSTREAM_UNREACHABLE.
   */
  async openChannel(exchanges: readonly ExchangeOptions[], handlers: ChannelHandlers): Promise<AmqpChannel> {
    const ms = this.#options.handshakeTimeoutMs
    const timer = setTimeout(() => this.cut(new Error(`${SILENCE.channel} within ${ms} ms`)), ms)
    try {
      const model = await this.#model.createConfirmChannel()
      const channel = new AmqpChannel(this, model, handlers)
      for (const { name, type, declare } of exchanges) {
        if (declare === 'passive') await model.checkExchange(name)
        else if (declare) await model.assertExchange(name, type, { durable: true })
      }
      return channel
    } catch (error) {
      throw this.#isOpen
        ? new BrokerError('UPSTREAM_REFUSED', wordsOf(error), { cause: error })
        : new BrokerError('UPSTREAM_UNREACHABLE', 'the link ended while a channel was being opened', { cause: error })
    } finally {
      clearTimeout(timer)
    }
  }

  /** One write for what is published in this turn: the client passes each message on separately, in the turn after. */
  cork(): void {
    if (this.#isCorked) return
    this.#isCorked = true
    this.#socket.cork()
    setImmediate(() =>
      setImmediate(() => {
        this.#isCorked = false
        this.#socket.uncork()
      }),
    )
  }

  /** Ends the link at once, whatever the peer does. */
  cut(reason: Error): void {
    this.#end(reason)
  }

  /** Says farewell and ends; after `deadlineMs` without an answer it is cut. Never rejects; `lost` is not called. */
  async close(deadlineMs: number): Promise<void> {
    if (!this.#isOpen) return
    this.#isOpen = false
    const { promise: late, resolve } = Promise.withResolvers<void>()
    const timer = setTimeout(resolve, deadlineMs)
    // A failing farewell means the connection is gone already, which is what was asked for.
    await Promise.race([this.#model.close().catch(() => undefined), late])
    clearTimeout(timer)
    this.#destroy('closed')
  }

  #end(reason: Error): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#destroy(reason.message)
    const words = wordsOf(reason)
    this.#handlers.lost(
      new BrokerError('UPSTREAM_UNREACHABLE', `the link to ${redactUrl(this.#options.url)} broke: ${words}`, {
        cause: reason,
      }),
    )
  }

  /** With an error, because the client stops its heartbeat timers only on 'error' or 'end'. */
  #destroy(why: string): void {
    if (!this.#socket.destroyed) this.#socket.destroy(new Error(why))
  }
}

/** A confirm channel, of which every message is `mandatory`. */
export class AmqpChannel {
  readonly #link: AmqpLink
  readonly #model: ConfirmChannel
  #isOpen = true

  constructor(link: AmqpLink, model: ConfirmChannel, handlers: ChannelHandlers) {
    this.#link = link
    this.#model = model
    model.on('ack', ({ deliveryTag, multiple }) => handlers.acked(deliveryTag, multiple))
    model.on('nack', ({ deliveryTag, multiple }) => handlers.nacked(deliveryTag, multiple))
    model.on('return', message => handlers.returned(String(message.properties.messageId), wordsOfReturn(message)))
    model.on('drain', () => handlers.drained())
    model.on('error', error => {
      this.#isOpen = false
      if (link.isOpen) handlers.closed(wordsOf(error))
    })
    // The client catches what a handler throws and would take a mistake of ours for one of the peer's.
    model.on('handler-error', error => {
      throw error
    })
  }

  get isOpen(): boolean {
    return this.#isOpen
  }

  /** Everything in `publication` and the body is copied before this returns. Throws if AMQP can't express the message. */
  publish(publication: Publication, body: Buffer): Sent {
    if (!this.#isOpen || !this.#link.isOpen) return 'closed'
    this.#link.cork()
    try {
      const { exchange, routingKey, messageId, appId, timestamp, deliveryMode, headers } = publication
      const { contentType, correlationId, expiration } = publication
      const hasRoom = this.#model.publish(exchange, routingKey, body, {
        mandatory: true,
        messageId,
        appId,
        timestamp,
        deliveryMode,
        headers,
        ...(contentType === undefined ? {} : { contentType }),
        ...(correlationId === undefined ? {} : { correlationId }),
        ...(expiration === undefined ? {} : { expiration }),
      })
      return hasRoom ? 'sent' : 'sent-buffer-full'
    } catch (error) {
      if (!(error instanceof IllegalOperationError)) throw error
      // The client closes the channel or the connection on its own (the peer broke the protocol) and waits for an answer that may never come.
      this.#isOpen = false
      setImmediate(() => this.#link.cut(error))
      return 'closed'
    }
  }
}

/** The URL as it may be shown: without the password. */
export function redactUrl(url: string): string {
  const shown = new URL(url)
  if (shown.password !== '') shown.password = '***'
  return shown.href
}

/** Begins to connect. The socket is there at once: the AMQP client keeps it to itself until the handshake is through, too late to set deadlines. */
function dial({ url, tls, connectionName, heartbeatMs }: LinkOptions): {
  opening: Promise<ChannelModel>
  socket: Socket
} {
  const target = new URL(url)
  const hostname = target.hostname.replace(/^\[|\]$/g, '')
  const hasUser = target.username !== '' || target.password !== ''
  const to = {
    hostname,
    ...(target.port === '' ? {} : { port: Number(target.port) }),
    ...(hasUser
      ? { username: decodeURIComponent(target.username), password: decodeURIComponent(target.password) }
      : {}),
    vhost: target.pathname.slice(1),
    heartbeat: Math.max(1, Math.round(heartbeatMs / 1000)),
  }
  const clientProperties = { product: 'sluice', connection_name: connectionName }
  if (target.protocol === 'amqp:') {
    return withSocket(() => connect({ ...to, protocol: 'amqp' }, { noDelay: true, clientProperties }))
  }
  const socket = connectSocket({ host: hostname, port: Number(target.port || AMQPS_PORT), noDelay: true })
  // What goes wrong later shows at the TLS socket above it.
  socket.on('error', () => undefined)
  const { ca, client } = tls
  const opening = once(socket, 'connect').then(() =>
    connect(
      { ...to, protocol: 'amqps' },
      {
        socket,
        noDelay: true,
        clientProperties,
        ...(ca === null ? {} : { ca }),
        ...(client === null ? {} : client),
        ...(client === null || hasUser ? {} : { credentials: credentials.external() }),
      },
    ),
  )
  // Whoever gave up waiting does not hear of it.
  opening.catch(() => undefined)
  return { opening, socket }
}

/** Runs `open`, which opens one client socket, and gives that socket too. */
function withSocket(open: () => Promise<ChannelModel>): { opening: Promise<ChannelModel>; socket: Socket } {
  const found: Socket[] = []
  const take = (message: unknown) => {
    if (message instanceof Object && 'socket' in message && message.socket instanceof Socket) found.push(message.socket)
  }
  subscribe('net.client.socket', take)
  try {
    const opening = open()
    opening.catch(() => undefined)
    const [socket] = found
    if (socket === undefined) throw new TypeError('the AMQP client opened no socket')
    return { opening, socket }
  } finally {
    unsubscribe('net.client.socket', take)
  }
}

/** The socket the client writes to: with TLS not the one that was dialled. */
function streamOf({ connection }: ChannelModel): Socket {
  if (!('stream' in connection) || !(connection.stream instanceof Socket)) throw new TypeError('no socket')
  return connection.stream
}

function wordsOfReturn({ fields }: AmqpMessage): string {
  const code = 'replyCode' in fields ? `${fields.replyCode} ` : ''
  const text = 'replyText' in fields ? String(fields.replyText) : 'returned'
  return `${code}${text}: exchange ${JSON.stringify(fields.exchange)} has no queue for routing key ${JSON.stringify(fields.routingKey)}`
}

function wordsOf(error: unknown): string {
  // A name with several addresses fails with one error per address and no message of its own.
  if (error instanceof AggregateError) return error.errors.map(wordsOf).join('; ')
  return error instanceof Error ? error.message : String(error)
}
