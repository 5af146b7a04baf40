import { connect, type Socket } from 'node:net'
import type { Clock } from './clock.ts'
import type { Random } from './random.ts'

/** How good the radio link of a device is. */
export interface RadioPlan {
  /** Delay of everything, each way, in real milliseconds. */
  readonly latencyMs: number
  /** Mean virtual time between two losses of the connection; 0: none by chance. */
  readonly dropEveryMs: number
  /** Of all losses the share (0 to 1) that nobody is told of: the connection stays half-open, bytes vanish. */
  readonly halfOpenShare: number
  /** No coverage in these windows of virtual time: the connection is lost and no new one comes about. */
  readonly outages: readonly { readonly fromMs: number; readonly toMs: number }[]
  /** The device reads at most so much (real time); 0: as it comes. */
  readonly readBytesPerS: number
}

/** A radio as good as a cable. */
export const PERFECT_RADIO: RadioPlan = {
  latencyMs: 0,
  dropEveryMs: 0,
  halfOpenShare: 0,
  outages: [],
  readBytesPerS: 0,
}

export interface LinkReceiver {
  onOpen(): void
  onBytes(bytes: Buffer): void
  /** Once, unless the link was abandoned or has gone silent. */
  onClosed(): void
}

/** What a radio module buffers towards the network; more than that and it takes no more. */
const SEND_BUFFER_BYTES = 64 * 1024

const ignoreError = () => undefined

/**
 * What lies between a device and its socket. The moments of loss are drawn from the seed along virtual time, independent of what
 * the broker does, so that the same seed has the same weather. Passive: the device asks `nextChangeAt` and calls `advance`.
 */
export class Radio {
  readonly #plan: RadioPlan
  readonly #clock: Clock
  readonly #random: Random
  readonly #broker: { readonly host: string; readonly port: number }
  #link: Link | null = null
  /** The latest connection that went silent: kept open so that the broker sees neither FIN nor RST. */
  #ghost: Socket | null = null
  #nextDropAt: number
  #nextOutage = 0
  #isClear = false

  constructor(options: { plan: RadioPlan; clock: Clock; random: Random; broker: { host: string; port: number } }) {
    this.#plan = options.plan
    this.#clock = options.clock
    this.#random = options.random
    this.#broker = options.broker
    this.#nextDropAt = this.#drawDrop(0)
  }

  /** Virtual time of the next loss. */
  get nextChangeAt(): number {
    if (this.#isClear) return Number.POSITIVE_INFINITY
    return Math.min(this.#nextDropAt, this.#plan.outages[this.#nextOutage]?.fromMs ?? Number.POSITIVE_INFINITY)
  }

  /** Lets the weather happen up to now. */
  advance(): void {
    const now = this.#clock.now()
    while (this.nextChangeAt <= now) {
      if (this.#nextDropAt <= now) this.#nextDropAt = this.#drawDrop(this.#nextDropAt)
      else this.#nextOutage++
      const isSilent = this.#random.next() < this.#plan.halfOpenShare
      const link = this.#link
      if (link === null) continue
      if (isSilent) this.#keepGhost(link.goSilent())
      else link.lose()
    }
  }

  /** From now on full coverage and no more losses. What has gone silent stays so until the device finds out. */
  clear(): void {
    this.#isClear = true
  }

  /** Opens a new connection; a previous one is abandoned. Without coverage it closes at once. */
  open(receiver: LinkReceiver): Link {
    this.#link?.abandon()
    const now = this.#clock.now()
    const isOut = this.#plan.outages.some(outage => outage.fromMs <= now && now < outage.toMs)
    const socket = this.#isClear || !isOut ? connect({ ...this.#broker, noDelay: true }) : null
    this.#link = new Link({ socket, plan: this.#plan, receiver })
    return this.#link
  }

  /** Ends everything, without a farewell. */
  off(): void {
    this.#link?.abandon()
    this.#link = null
    this.#ghost?.destroy()
    this.#ghost = null
  }

  #drawDrop(after: number): number {
    return this.#plan.dropEveryMs === 0
      ? Number.POSITIVE_INFINITY
      : after + this.#random.exponential(this.#plan.dropEveryMs)
  }

  #keepGhost(socket: Socket | null): void {
    if (socket === null) return
    this.#ghost?.destroy()
    this.#ghost = socket
  }
}

/** One connection of a device, as far as the device can tell. */
export class Link {
  readonly #plan: RadioPlan
  readonly #receiver: LinkReceiver
  /** Null: nothing is connected (any more); what is sent vanishes. */
  #socket: Socket | null
  #isOver = false

  constructor({ socket, plan, receiver }: { socket: Socket | null; plan: RadioPlan; receiver: LinkReceiver }) {
    this.#plan = plan
    this.#receiver = receiver
    this.#socket = socket
    if (socket === null) {
      setImmediate(() => this.#close())
      return
    }
    socket.on('error', ignoreError) // 'close' follows and is what counts
    socket.on('connect', () => this.#onward(socket, () => receiver.onOpen()))
    socket.on('data', bytes => this.#receive(socket, bytes))
    socket.on('close', () => this.#onward(socket, () => this.#close()))
  }

  /** Whether the module's send buffer is full. */
  get isCongested(): boolean {
    return this.#socket !== null && this.#socket.writableLength >= SEND_BUFFER_BYTES
  }

  /** Sends bytes; several calls of one event-loop turn leave together. */
  write(bytes: Uint8Array): void {
    this.#later(() => {
      const socket = this.#socket
      if (socket === null || !socket.writable) return
      if (socket.writableCorked === 0) {
        socket.cork()
        process.nextTick(() => socket.uncork())
      }
      socket.write(bytes)
    })
  }

  /** Closes in order, after what has been written. */
  end(): void {
    this.#later(() => this.#socket?.end())
  }

  /** The device gives this connection up: no more events; the broker sees a reset unless it had gone silent. */
  abandon(): void {
    this.#isOver = true
    if (this.#socket !== null) reset(this.#socket)
    this.#socket = null
  }

  /** The connection is lost and both sides are told. */
  lose(): void {
    if (this.#socket !== null) reset(this.#socket)
  }

  /** The connection is lost and neither side is told. Hands over the socket, which must stay open. */
  goSilent(): Socket | null {
    const socket = this.#socket
    this.#socket = null
    socket?.removeAllListeners()
    socket?.on('error', ignoreError)
    socket?.pause()
    return socket
  }

  #receive(socket: Socket, bytes: Buffer): void {
    this.#onward(socket, () => this.#receiver.onBytes(bytes))
    const { readBytesPerS } = this.#plan
    if (readBytesPerS === 0) return
    socket.pause()
    setTimeout(
      () => {
        if (this.#socket === socket) socket.resume()
      },
      (bytes.length * 1000) / readBytesPerS,
    )
  }

  /** Tells the device, unless the connection is over or silent by then. */
  #onward(socket: Socket, tell: () => void): void {
    this.#later(() => {
      if (!this.#isOver && this.#socket === socket) tell()
    })
  }

  #later(act: () => void): void {
    if (this.#plan.latencyMs === 0) act()
    else setTimeout(act, this.#plan.latencyMs)
  }

  #close(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#socket = null
    this.#receiver.onClosed()
  }
}

function reset(socket: Socket): void {
  // Before the handshake is through there is nothing to reset.
  if (socket.connecting) socket.destroy()
  else socket.resetAndDestroy()
}
