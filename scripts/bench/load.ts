import type { Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Answers, type Connection, type Hello, ignore, leave, open, subscribe } from './clients.ts'
import {
  numberAt,
  PUBACK,
  PUBCOMP,
  PUBLISH,
  PUBREC,
  PUBREL,
  type PublishFrames,
  packetIdOf,
  publishFrames,
} from './frames.ts'
import { runIdle } from './idle.ts'
import type { Load } from './scenarios.ts'
import { type Mark, mark, type Usage, usageBetween } from './usage.ts'

/*
 * The load generator, a process of its own. It loads one broker for a given time and prints one line of JSON: every message sent,
 * acknowledged, received, lost.
 *
 * It must be faster than the broker. So frames are built before the start and written many at a time, reads go into one
 * buffer used by all sockets, frames are counted where they lie, answers to one read leave in one write. Nothing is
 * allocated per message (but with a fixed rate, where latency is measured and the rate is low).
 */

export interface LoadResult extends Usage {
  /** In all, warm-up and end included. */
  readonly sent: number
  readonly acked: number
  readonly received: number
  /** Subscribers: acknowledged (QoS 0: sent) and not received after the end. Else: sent and not acknowledged. Negative: came twice. */
  readonly lost: number
  /** PUBACKs and PUBCOMPs that were not for the oldest unfinished message of their publisher [MQTT-4.6.0-2], [MQTT-4.6.0-3]. */
  readonly disordered: number
  /** Length of the measured part. */
  readonly seconds: number
  /** In the measured part: deliveries per second, without a subscriber acknowledgements, of idle connections their CONNACKs. */
  readonly ratePerS: number
  /** From the write of a message to its read by a subscriber, without one to the read of its PUBACK; null unless the rate was fixed. */
  readonly latencyMs: Latency | null
  /** The same while another subscriber reads nothing; null unless there was one. */
  readonly frozenLatencyMs: Latency | null
  /** What a client that came back got, per second from its CONNECT; null unless there was one. */
  readonly replayPerS: number | null
  /** Anonymous memory of the broker per idle connection; null unless there were any. */
  readonly connectionBytes: number | null
}

export interface Latency {
  readonly p50: number
  readonly p99: number
}

export interface LoadOrder {
  readonly port: number
  readonly load: Load
  readonly warmUpS: number
  readonly seconds: number
  readonly brokerPid: number | null
}

/** Topic of the publisher with that number; all have the same length. */
export const topicOf = (publisher: number) => `bench/${String(publisher).padStart(3, '0')}`
export const FILTER = 'bench/#'
/** Name of the durable queue that is consumed. */
export const QUEUE = 'bench'
export const TOPIC_BYTES = topicOf(0).length

/** Bytes of a QoS 0 publisher's single write. */
const CHUNK_BYTES = 64 * 1024
/** Packet ids of a QoS 1 or 2 publisher before they start over; far more than a window, so none is in use twice. */
const PACKET_IDS = 1000
/** Samples kept of latencies. */
const MAX_SAMPLES = 1_000_000
/** In this time a subscriber that reads nothing has been sent all that the broker and the kernel keep for it. */
const FREEZE_MS = 2000
/** With nothing arriving for so long what is missing counts as lost. */
const SILENCE_MS = 1000
const DRAIN_DEADLINE_MS = 20_000
const POLL_MS = 10
/** What passes at a fixed rate before it is measured. */
const PACE_SETTLE_MS = 500
const ABSENT = 'bench-absent'

interface Publisher {
  readonly socket: Socket
  readonly frames: PublishFrames
  /** With a fixed rate: when the frame of that index was sent last. */
  readonly sentAtMs: Float64Array
  /** Index of the next frame to send. */
  next: number
  /** Packet id of the oldest unacknowledged frame. */
  oldestId: number
  unacked: number
  isWriting: boolean
}

type MeasuredPart = Usage & Pick<LoadResult, 'seconds' | 'ratePerS' | 'latencyMs'>

/** One load on one broker, from the first connection to the last. */
class Generator {
  readonly #order: LoadOrder
  readonly #load: Load
  /** Where it connects to, and how. */
  readonly #place: Pick<Hello, 'port' | 'isEncrypted'>
  readonly #publishers: Publisher[] = []
  readonly #connections: Connection[] = []
  #sent = 0
  #acked = 0
  #received = 0
  #disordered = 0
  /** QoS 0: deliveries given up, so that a broker that drops is measured on. */
  #writtenOff = 0
  #isSending = false
  /** The client that was away is back. */
  #isReplaying = false
  #isScheduled = false
  /** The rate is fixed from now on. */
  #isPaced = false
  /** Counts on; whose turn it is to send. */
  #turn = 0
  #fault: Error | null = null
  readonly #latencies = new Float64Array(MAX_SAMPLES)
  #samples = 0

  constructor(order: LoadOrder) {
    this.#order = order
    this.#load = order.load
    this.#place = { port: order.port, isEncrypted: order.load.isEncrypted }
  }

  async run(): Promise<LoadResult> {
    try {
      return await this.#measure()
    } finally {
      this.#isSending = false
      for (const { socket } of this.#connections) socket.destroy()
    }
  }

  async #measure(): Promise<LoadResult> {
    await this.#connectAll()
    this.#isSending = true
    this.#startWindows()
    await this.#watch(this.#order.warmUpS * 1000)
    if (this.#load.ratePerS > 0) await this.#slowDown()

    const measured = await this.#measuredPart()
    let frozen: MeasuredPart | null = null
    if (this.#load.freezes) {
      await this.#freeze()
      frozen = await this.#measuredPart()
    }

    this.#isSending = false
    await this.#drain()
    const replayPerS = this.#load.sink === 'returning-session' ? await this.#replay() : null
    return {
      ...measured,
      sent: this.#sent,
      acked: this.#acked,
      received: this.#received,
      lost: this.#missing,
      disordered: this.#disordered,
      frozenLatencyMs: frozen?.latencyMs ?? null,
      replayPerS,
      connectionBytes: null,
    }
  }

  async #measuredPart(): Promise<MeasuredPart> {
    this.#samples = 0
    const { brokerPid } = this.#order
    const start: Mark = mark(brokerPid)
    const doneBefore = this.#done
    await this.#watch(this.#order.seconds * 1000)
    const end = mark(brokerPid)
    const seconds = (end.atMs - start.atMs) / 1000
    const sampled = this.#latencies.slice(0, this.#samples).sort()
    return {
      ...usageBetween(start, end),
      seconds,
      ratePerS: (this.#done - doneBefore) / seconds,
      latencyMs: sampled.length === 0 ? null : { p50: quantile(sampled, 0.5), p99: quantile(sampled, 0.99) },
    }
  }

  get #done(): number {
    return this.#load.subscribers > 0 ? this.#received : this.#acked
  }

  /** Deliveries each message makes. */
  get #copies(): number {
    return this.#isReplaying || this.#load.reads === 'own' ? 1 : this.#load.subscribers
  }

  get #missing(): number {
    const copies = this.#copies
    if (copies === 0) return this.#sent - this.#acked
    return (this.#load.qos === 0 ? this.#sent : this.#acked) * copies - this.#received
  }

  // ---- connections

  async #connectAll(): Promise<void> {
    const { publishers, subscribers, reads, qos, payloadBytes, sink } = this.#load
    if (sink === 'offline-session' || sink === 'returning-session') {
      const absent = await open({ ...this.#place, clientId: ABSENT, clean: false })
      await subscribe(absent, { filter: FILTER, qos: 1, receive: ignore })
      await leave(absent)
    }
    for (let i = 0; i < subscribers; i++) {
      const connection = await open({ ...this.#place, clientId: `bench-sub-${i}`, clean: true })
      const filter = sink === 'queue' ? `$queue/${QUEUE}` : reads === 'own' ? topicOf(i) : FILTER
      await subscribe(connection, { filter, qos, receive: () => this.#receiveOn(connection) })
      this.#keep(connection)
    }
    for (let i = 0; i < publishers; i++) {
      const connection = await open({ ...this.#place, clientId: `bench-pub-${i}`, clean: true })
      const one = publishFrames({ topic: topicOf(i), qos, payloadBytes, count: 1 })
      const count = qos === 0 ? Math.floor(CHUNK_BYTES / one.frameBytes) : PACKET_IDS
      const publisher: Publisher = {
        socket: connection.socket,
        frames: publishFrames({ topic: topicOf(i), qos, payloadBytes, count }),
        sentAtMs: new Float64Array(count),
        next: 0,
        oldestId: 1,
        unacked: 0,
        isWriting: false,
      }
      if (qos > 0) this.#takeAcksOn(connection, publisher)
      this.#publishers.push(publisher)
      this.#keep(connection)
    }
  }

  /** One more subscriber, which does not even take what the kernel has for it. */
  async #freeze(): Promise<void> {
    const frozen = await open({ ...this.#place, clientId: 'bench-frozen', clean: true })
    this.#connections.push(frozen)
    // The broker may close it.
    frozen.socket.on('error', ignore)
    await subscribe(frozen, { filter: FILTER, qos: this.#load.qos, receive: () => frozen.socket.pause() })
    await this.#watch(FREEZE_MS)
  }

  /** The client that was away comes back and takes everything; returns its rate. */
  async #replay(): Promise<number> {
    const startMs = performance.now()
    let lastMs = startMs
    const receive = (connection: Connection) => {
      this.#keep(connection)
      this.#receiveOn(connection)
      const write = connection.afterRead
      connection.afterRead = () => {
        lastMs = performance.now()
        write()
      }
    }
    this.#isReplaying = true
    await open({ ...this.#place, clientId: ABSENT, clean: false, receive })
    await this.#drain()
    return (1000 * this.#received) / (lastMs - startMs)
  }

  #keep(connection: Connection): void {
    this.#connections.push(connection)
    connection.socket.on('error', error => {
      this.#fault ??= error
    })
    connection.socket.on('close', () => {
      this.#fault ??= new Error('the broker closed a connection')
    })
  }

  #receiveOn(connection: Connection): void {
    const { qos, ratePerS } = this.#load
    if (qos === 0 && ratePerS === 0) {
      connection.onFrame = firstByte => {
        if (firstByte === PUBLISH) this.#received++
      }
      connection.afterRead = () => this.#schedule()
      return
    }
    const answers = new Answers(connection.socket)
    connection.onFrame = (firstByte, bytes, body, end) => {
      if (firstByte === PUBREL) answers.add(PUBCOMP, numberAt(bytes, body))
      if ((firstByte & 0xf0) !== PUBLISH) return
      this.#received++
      if (ratePerS > 0) this.#sample(performance.now() - bytes.readDoubleLE(end - 8))
      if (firstByte !== PUBLISH) answers.add((firstByte & 0x06) === 2 ? PUBACK : PUBREC, packetIdOf(bytes, body))
    }
    connection.afterRead = () => answers.write()
  }

  #sample(ms: number): void {
    if (this.#samples < MAX_SAMPLES) this.#latencies[this.#samples++] = ms
  }

  #takeAcksOn(connection: Connection, publisher: Publisher): void {
    const showsAckTimes = this.#load.ratePerS > 0 && this.#load.subscribers === 0
    const last = this.#load.qos === 2 ? PUBCOMP : PUBACK
    const answers = new Answers(connection.socket)
    connection.onFrame = (firstByte, bytes, body) => {
      if (firstByte === PUBREC) answers.add(PUBREL, numberAt(bytes, body))
      if (firstByte !== last) return
      const id = numberAt(bytes, body)
      if (id !== publisher.oldestId) this.#disordered++
      if (showsAckTimes) this.#sample(performance.now() - (publisher.sentAtMs[id - 1] ?? Number.NaN))
      publisher.oldestId = (id % PACKET_IDS) + 1
      publisher.unacked--
      this.#acked++
    }
    connection.afterRead = () => this.#fillWindow(publisher)
    if (this.#load.qos < 2) return
    const fill = connection.afterRead
    connection.afterRead = () => {
      connection.socket.cork()
      answers.write()
      fill()
      connection.socket.uncork()
    }
  }

  // ---- sending

  #startWindows(): void {
    if (this.#load.qos === 0) this.#schedule()
    else for (const publisher of this.#publishers) this.#fillWindow(publisher)
  }

  /** QoS 1 and 2: as many frames as the window has room for, in one write or at the end of the ring in two. */
  #fillWindow(publisher: Publisher): void {
    if (!this.#isSending || this.#isPaced) return
    let room = this.#load.window - publisher.unacked
    while (room > 0) {
      const count = Math.min(room, PACKET_IDS - publisher.next)
      const { bytes, frameBytes } = publisher.frames
      publisher.socket.write(bytes.subarray(publisher.next * frameBytes, (publisher.next + count) * frameBytes))
      publisher.next = (publisher.next + count) % PACKET_IDS
      publisher.unacked += count
      this.#sent += count
      room -= count
    }
  }

  /** QoS 0: once per turn of the event loop, so that reading and all publishers get their share. */
  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(this.#writeChunks)
  }

  readonly #writeChunks = () => {
    this.#isScheduled = false
    if (!this.#isSending) return
    const copies = this.#copies
    const limit = this.#load.window * copies
    for (let tried = 0; tried < this.#publishers.length; tried++) {
      const publisher = this.#publishers[this.#turn++ % this.#publishers.length]
      if (publisher === undefined || publisher.isWriting) continue
      const { bytes, count } = publisher.frames
      if (this.#missing - this.#writtenOff + count * copies > limit) return
      publisher.isWriting = true
      this.#sent += count
      publisher.socket.write(bytes, () => {
        publisher.isWriting = false
        this.#schedule()
      })
    }
  }

  /**
   * From as fast as it can to the fixed rate. A broker that is compiled as it runs would be measured while that is done: at a low rate
   * it takes a quarter of a minute.
   */
  async #slowDown(): Promise<void> {
    this.#isPaced = true
    await this.#drain()
    this.#startPace()
    await this.#watch(PACE_SETTLE_MS)
  }

  /** A fixed rate: the loop turns without rest (the core is ours) and sends each message at its time, stamped with it. */
  #startPace(): void {
    const periodMs = 1000 / this.#load.ratePerS
    let dueMs = performance.now()
    const beat = () => {
      if (!this.#isSending) return
      const nowMs = performance.now()
      while (dueMs <= nowMs) {
        const publisher = this.#publishers[this.#turn++ % this.#publishers.length]
        if (publisher !== undefined) this.#sendStamped(publisher)
        dueMs += periodMs
      }
      setImmediate(beat)
    }
    beat()
  }

  #sendStamped(publisher: Publisher): void {
    const { bytes, frameBytes, count } = publisher.frames
    const frame = Buffer.from(bytes.subarray(publisher.next * frameBytes, (publisher.next + 1) * frameBytes))
    const nowMs = performance.now()
    frame.writeDoubleLE(nowMs, frameBytes - 8)
    publisher.sentAtMs[publisher.next] = nowMs
    publisher.next = (publisher.next + 1) % count
    publisher.unacked++
    this.#sent++
    publisher.socket.write(frame)
  }

  // ---- time

  async #watch(ms: number): Promise<void> {
    const deadline = performance.now() + ms
    let seen = -1
    let seenAtMs = performance.now()
    for (;;) {
      if (this.#fault !== null) throw this.#fault
      const nowMs = performance.now()
      if (nowMs >= deadline) return
      if (this.#received !== seen) {
        seen = this.#received
        seenAtMs = nowMs
      } else if (this.#load.qos === 0 && nowMs - seenAtMs > SILENCE_MS) {
        this.#writtenOff = this.#missing
        seenAtMs = nowMs
        this.#schedule()
      }
      await delay(Math.min(POLL_MS, deadline - nowMs))
    }
  }

  /** Waits for what is still under way. */
  async #drain(): Promise<void> {
    const deadline = performance.now() + DRAIN_DEADLINE_MS
    let seen = -1
    let seenAtMs = performance.now()
    for (;;) {
      const isAnswered = this.#load.qos === 0 || this.#acked === this.#sent
      if (isAnswered && this.#missing <= 0) return
      const nowMs = performance.now()
      if (this.#received + this.#acked !== seen) {
        seen = this.#received + this.#acked
        seenAtMs = nowMs
      }
      if (this.#fault !== null || nowMs > deadline || nowMs - seenAtMs > SILENCE_MS) return
      await delay(POLL_MS)
    }
  }
}

function quantile(sorted: Float64Array, q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * q))] ?? Number.NaN
}

/** Loads the broker on that port as ordered. Rejects when it closes a connection or refuses one. */
export async function runLoad(order: LoadOrder): Promise<LoadResult> {
  return order.load.idle > 0 ? runIdle(order) : new Generator(order).run()
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { order: { type: 'string' } } })
  try {
    process.stdout.write(`${JSON.stringify(await runLoad(JSON.parse(values.order ?? '')))}\n`)
  } catch (error) {
    process.stderr.write(`load generator: ${error instanceof Error ? error.message : String(error)}\n`)
    process.exitCode = 1
  }
}
