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
import { Socket } from 'node:net'
import {
  type Message as AmqpMessage,
  type ChannelModel,
  type ConfirmChannel,
  connect,
  IllegalOperationError,
} from 'amqplib'
import { BrokerError } from '../model/error.ts'
import { HEADERS_BYTES, type Publication } from './mapping.ts'

export interface LinkOptions {
  readonly url: string
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

/** AMQP's smallest frame is 4096 bytes; with a frame that small this much is left for headers. */
const FRAME_RESERVE_BYTES = 2048

/** Refusals in the middle of a handshake that the operator has to cure: access, virtual host, not allowed. */
const REFUSAL = /ACCESS[-_]REFUSED|NOT[-_]ALLOWED|\b403\b|\b530\b|ConnectionClose|SASL mechanism/

export class AmqpLink {
  readonly #model: ChannelModel
  readonly #socket: Socket
  readonly #options: LinkOptions
  readonly #handlers: LinkHandlers
  #isOpen = true
  #blockedReason: string | null = null
  #isCorked = false

  /** Rejects with UPSTREAM_REFUSED (credentials, virtual host) or UPSTREAM_UNREACHABLE, in words, never with the password. */
  static async open(options: LinkOptions, handlers: LinkHandlers): Promise<AmqpLink> {
    const { url, connectionName, heartbeatMs, connectTimeoutMs, handshakeTimeoutMs, signal } = options
    const target = new URL(url)
    let timer: NodeJS.Timeout | undefined
    let dialled: Socket | undefined
    const giveUp = () => dialled?.destroy(new Error('given up'))
    try {
      signal.throwIfAborted()
      const { result: opening, socket } = withSocket(() =>
        connect(
          {
            protocol: target.protocol.slice(0, -1),
            hostname: target.hostname.replace(/^\[|\]$/g, ''),
            ...(target.port === '' ? {} : { port: Number(target.port) }),
            ...(target.username === '' && target.password === ''
              ? {}
              : { username: decodeURIComponent(target.username), password: decodeURIComponent(target.password) }),
            vhost: target.pathname.slice(1),
            heartbeat: Math.max(1, Math.round(heartbeatMs / 1000)),
          },
          { noDelay: true, clientProperties: { product: 'sluice', connection_name: connectionName } },
        ),
      )
      const limit = (what: keyof typeof SILENCE, ms: number) => {
        clearTimeout(timer)
        timer = setTimeout(() => socket.destroy(new Error(`${SILENCE[what]} within ${ms} ms`)), ms)
      }
      dialled = socket
      signal.addEventListener('abort', giveUp)
      limit('connect', connectTimeoutMs)
      socket.once('connect', () => limit('handshake', handshakeTimeoutMs))
      return new AmqpLink(await opening, socket, options, handlers)
    } catch (error) {
      const words = wordsOf(error)
      const refused = REFUSAL.test(words)
      throw new BrokerError(
        refused ? 'UPSTREAM_REFUSED' : 'UPSTREAM_UNREACHABLE',
        refused
          ? `the upstream ${redactUrl(url)} refused the connection: ${words}. Check user, password and virtual host`
          : `the upstream ${redactUrl(url)} can't be reached: ${words}`,
        { cause: error },
      )
    } finally {
      clearTimeout(timer)
      signal.removeEventListener('abort', giveUp)
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

/** Runs `dial`, which opens one client socket, and gives that socket too: the AMQP client keeps it to itself until the handshake is through, too late to set deadlines. */
function withSocket<T>(dial: () => T): { result: T; socket: Socket } {
  const found: Socket[] = []
  const take = (message: unknown) => {
    if (message instanceof Object && 'socket' in message && message.socket instanceof Socket) found.push(message.socket)
  }
  subscribe('net.client.socket', take)
  try {
    const result = dial()
    const [socket] = found
    if (socket === undefined) throw new TypeError('the AMQP client opened no socket')
    return { result, socket }
  } finally {
    unsubscribe('net.client.socket', take)
  }
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
