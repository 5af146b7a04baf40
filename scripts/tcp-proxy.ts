import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/*
 * A link that can be broken on purpose, between a client and a server on this machine.
 *
 * Each connection is a pair of sockets with one pump per direction. A pump reads always, whatever the weather, except while the
 * link is held: so a black hole takes the sender's bytes as a dead radio network would, and neither side learns of it. A pair
 * that lost bytes in a black hole can't be continued after it (the stream would have a gap): `heal` resets it.
 */

export type Direction = 'to-target' | 'to-client'
const DIRECTIONS: readonly Direction[] = ['to-target', 'to-client']

type Weather =
  | { readonly kind: 'fair' }
  | { readonly kind: 'throttled'; readonly bytesPerSecond: number }
  | { readonly kind: 'held' }
  | { readonly kind: 'black-holed'; readonly directions: readonly Direction[] }
  | { readonly kind: 'refusing' }

interface Pair {
  readonly client: Socket
  /** Null where the connection was swallowed before it reached the target. */
  readonly target: Socket | null
  hasGap: boolean
  /** After a cut: what still arrives is thrown away until both sides have closed. */
  isCut: boolean
}

interface Cutter {
  readonly direction: Direction
  remainingBytes: number
}

/** A throttled pump forwards in portions of this much time, so that a slow link trickles and doesn't come in bursts. */
const THROTTLE_PORTION_MS = 20

const ignoreError = () => undefined

export class TcpProxy implements AsyncDisposable {
  readonly host = '127.0.0.1'
  readonly port: number
  /** Connections accepted so far. */
  accepted = 0
  /** Bytes handed on so far. */
  readonly forwardedBytes: Record<Direction, number> = { 'to-target': 0, 'to-client': 0 }
  /** Bytes taken and lost so far in black holes. */
  readonly lostBytes: Record<Direction, number> = { 'to-target': 0, 'to-client': 0 }

  readonly #server: Server
  readonly #target: { readonly host: string; readonly port: number }
  readonly #pairs = new Set<Pair>()
  #weather: Weather = { kind: 'fair' }
  #weatherChange = new AbortController()
  #cutter: Cutter | null = null

  /** Listens on a free port of 127.0.0.1 and forwards to `port` of `host`. */
  static async start({ port, host = '127.0.0.1' }: { port: number; host?: string }): Promise<TcpProxy> {
    const server = createServer({ allowHalfOpen: true, noDelay: true })
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    return new TcpProxy(server, { host, port })
  }

  private constructor(server: Server, target: { host: string; port: number }) {
    this.#server = server
    this.#target = target
    this.port = (server.address() as AddressInfo).port
    server.on('connection', client => this.#accept(client))
  }

  /** Connections open now, swallowed ones included. */
  get connections(): number {
    return this.#pairs.size
  }

  /** Closes every connection with FIN on both sides; new ones pass. */
  cut(): void {
    for (const pair of this.#pairs) cutPair(pair)
  }

  /** Closes every connection with RST on both sides; new ones pass. */
  reset(): void {
    for (const pair of this.#pairs) this.#resetPair(pair)
  }

  /** Resets every connection, and each new one as soon as it is made, until `heal`. */
  refuse(): void {
    this.#setWeather({ kind: 'refusing' })
    this.reset()
  }

  /**
   * From now on bytes of `direction` (default: both) are taken and lost, without FIN or RST; new connections are accepted and
   * answered by silence.
   */
  blackHole(direction?: Direction): void {
    this.#setWeather({ kind: 'black-holed', directions: direction === undefined ? DIRECTIONS : [direction] })
  }

  /** From now on nothing is read: bytes wait in the kernel's buffers, the senders feel backpressure, and `heal` lets all of it through. */
  hold(): void {
    this.#setWeather({ kind: 'held' })
  }

  /** From now on each connection carries at most so many bytes per second in each direction. */
  throttle(bytesPerSecond: number): void {
    this.#setWeather({ kind: 'throttled', bytesPerSecond })
  }

  /** Forwards so many more bytes of `direction` (of all connections together), then cuts that connection there: mid-frame, if the number says so. */
  cutAfter(bytes: number, direction: Direction = 'to-target'): void {
    this.#cutter = { direction, remainingBytes: bytes }
  }

  /** Ends throttling, holding, refusing, a black hole and a cut that has not happened yet. Connections that lost bytes are reset. */
  heal(): void {
    this.#cutter = null
    this.#setWeather({ kind: 'fair' })
    for (const pair of this.#pairs) if (pair.hasGap || pair.target === null) this.#resetPair(pair)
  }

  /** Resets what is open and closes the port. */
  async stop(): Promise<void> {
    if (!this.#server.listening) return
    const closed = once(this.#server, 'close')
    this.#server.close()
    this.#setWeather({ kind: 'refusing' })
    this.reset()
    await closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #setWeather(weather: Weather): void {
    this.#weather = weather
    this.#weatherChange.abort()
    this.#weatherChange = new AbortController()
  }

  #isLosing(direction: Direction): boolean {
    return this.#weather.kind === 'black-holed' && this.#weather.directions.includes(direction)
  }

  #accept(client: Socket): void {
    this.accepted++
    // The pumps see errors as the end of their iteration; without a listener here they would end the process.
    client.on('error', ignoreError)
    if (this.#weather.kind === 'refusing') {
      client.resetAndDestroy()
      return
    }
    if (this.#isLosing('to-target')) {
      const swallowed: Pair = { client, target: null, hasGap: true, isCut: false }
      this.#pairs.add(swallowed)
      client.on('data', bytes => {
        this.lostBytes['to-target'] += bytes.length
      })
      client.once('close', () => this.#pairs.delete(swallowed))
      return
    }
    const target = connect({ ...this.#target, allowHalfOpen: true, noDelay: true })
    target.on('error', ignoreError)
    const pair: Pair = { client, target, hasGap: false, isCut: false }
    this.#pairs.add(pair)
    const pumps = [this.#pump(pair, client, target, 'to-target'), this.#pump(pair, target, client, 'to-client')]
    void Promise.all(pumps).then(() => {
      // With a gap the sockets stay as they are until `heal`: neither side may learn that the other has closed.
      if (!pair.hasGap) this.#pairs.delete(pair)
    })
  }

  /** Carries bytes one way until the source ends; never rejects. */
  async #pump(pair: Pair, source: Socket, sink: Socket, direction: Direction): Promise<void> {
    try {
      for await (const chunk of source.iterator({ destroyOnReturn: false }))
        await this.#carry(pair, chunk, sink, direction)
      await this.#held()
      if (this.#isLosing(direction)) pair.hasGap = true
      else if (sink.writable) sink.end()
    } catch {
      // The source was reset (by its owner or by us), or the target can't be reached: the other side gets a reset too.
      await this.#held()
      if (this.#isLosing(direction)) pair.hasGap = true
      else this.#resetPair(pair)
    }
  }

  async #carry(pair: Pair, chunk: Buffer, sink: Socket, direction: Direction): Promise<void> {
    let rest = chunk
    while (rest.length > 0) {
      await this.#held()
      if (pair.isCut) return
      if (this.#isLosing(direction)) {
        pair.hasGap = true
        this.lostBytes[direction] += rest.length
        return
      }
      let portion = rest
      if (this.#weather.kind === 'throttled') {
        portion = rest.subarray(0, Math.max(1, Math.floor((this.#weather.bytesPerSecond * THROTTLE_PORTION_MS) / 1000)))
        await this.#wait((portion.length * 1000) / this.#weather.bytesPerSecond)
        if (this.#weather.kind !== 'throttled') continue
      }
      const cutter = this.#cutter?.direction === direction ? this.#cutter : null
      if (cutter !== null) {
        portion = portion.subarray(0, cutter.remainingBytes)
        cutter.remainingBytes -= portion.length
      }
      rest = rest.subarray(portion.length)
      this.forwardedBytes[direction] += portion.length
      if (!sink.write(portion)) await drained(sink)
      if (cutter?.remainingBytes === 0) {
        this.#cutter = null
        cutPair(pair)
      }
    }
  }

  async #held(): Promise<void> {
    while (this.#weather.kind === 'held') await this.#wait(60_000)
  }

  /** A pause that a change of weather ends early. */
  async #wait(ms: number): Promise<void> {
    try {
      await delay(ms, undefined, { signal: this.#weatherChange.signal })
    } catch {
      // Aborted by the change of weather, which is what the caller looks at next.
    }
  }

  #resetPair(pair: Pair): void {
    pair.client.resetAndDestroy()
    // A socket still connecting knows no reset.
    if (pair.target?.connecting) pair.target.destroy()
    else pair.target?.resetAndDestroy()
    this.#pairs.delete(pair)
  }
}

function cutPair(pair: Pair): void {
  pair.isCut = true
  pair.client.end()
  pair.target?.end()
}

/** Waits for room in the sink's buffer, or for its end. */
async function drained(sink: Socket): Promise<void> {
  if (sink.destroyed) return
  await new Promise<void>(resolve => {
    const done = () => {
      sink.off('drain', done)
      sink.off('close', done)
      resolve()
    }
    sink.on('drain', done)
    sink.on('close', done)
  })
}
