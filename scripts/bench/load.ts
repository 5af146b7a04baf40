import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import {
  CONNACK,
  connectFrame,
  DISCONNECT_FRAME,
  FrameReader,
  PUBACK,
  PUBACK_BYTES,
  PUBLISH,
  type PublishFrames,
  packetIdOf,
  publishFrames,
  SUBACK,
  subscribeFrame,
} from './frames.ts'
import type { Load } from './scenarios.ts'

/*
 * The load generator, a process of its own. It loads one broker for a given time and prints one line of JSON: every message sent,
 * acknowledged, received, lost.
 *
 * It must be faster than the broker. So frames are built before the start and written many at a time, reads go into one
 * buffer used by all sockets, frames are counted where they lie, PUBACKs of one read leave in one write. Nothing is
 * allocated per message (but with a fixed rate, where latency is measured and the rate is low).
 */

export interface LoadResult {
  /** In all, warm-up and end included. */
  readonly sent: number
  readonly acked: number
  readonly received: number
  /** Subscribers: acknowledged (QoS 0: sent) and not received after the end. Else: sent and not acknowledged. Negative: came twice. */
  readonly lost: number
  /** PUBACKs that were not for the oldest unacknowledged message of their publisher [MQTT-4.6.0-2]. */
  readonly disordered: number
  /** Length of the measured part. */
  readonly seconds: number
  /** Deliveries per second in the measured part; without a subscriber acknowledgements per second. */
  readonly ratePerS: number
  /** From the write of a message to its read by a subscriber, without one to the read of its PUBACK; null unless the rate was fixed. */
  readonly latencyMs: { readonly p50: number; readonly p99: number } | null
  /** Share of one core that each process used in the measured part; the broker's is null where its pid was not given. */
  readonly brokerBusy: number | null
  readonly generatorBusy: number
  /** Cores that everything else on the machine used meanwhile: above 0.1 the other figures are noise. Null where there is no /proc. */
  readonly othersBusy: number | null
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

const READ_BYTES = 256 * 1024
/** Bytes of a QoS 0 publisher's single write. */
const CHUNK_BYTES = 64 * 1024
/** Packet ids of a QoS 1 publisher before they start over; far more than a window, so none is in use twice. */
const PACKET_IDS = 1000
/** A read brings fewer bytes of PUBACKs than it has. */
const ACK_BLOCK_BYTES = 2 * READ_BYTES
/** Samples kept of latencies. */
const MAX_SAMPLES = 1_000_000
const HANDSHAKE_DEADLINE_MS = 10_000
/** With nothing arriving for so long what is missing counts as lost. */
const SILENCE_MS = 1000
const DRAIN_DEADLINE_MS = 20_000
const POLL_MS = 10
/** Unit of the times in /proc/PID/stat. */
const TICKS_PER_S = 100

/** All sockets read into this one: a read is finished with before the next begins. */
const readBuffer = Buffer.allocUnsafeSlow(READ_BYTES)

interface Connection {
  readonly socket: Socket
  /** Takes the frames from now on. */
  onFrame: (firstByte: number, bytes: Buffer, body: number, end: number) => void
  /** After the last frame of each read. */
  afterRead: () => void
}

const ignore = () => undefined

/** Connects and waits for CONNACK. */
async function open(port: number, hello: { clientId: string; clean: boolean }): Promise<Connection> {
  return new Promise((resolve, reject) => {
    const reader = new FrameReader((firstByte, bytes, body, end) => connection.onFrame(firstByte, bytes, body, end))
    const socket = connect({
      port,
      host: '127.0.0.1',
      noDelay: true,
      onread: {
        buffer: readBuffer,
        callback: length => {
          reader.read(readBuffer, length)
          connection.afterRead()
          return true
        },
      },
    })
    const timer = setTimeout(() => {
      socket.destroy(new Error(`no CONNACK within ${HANDSHAKE_DEADLINE_MS} ms`))
    }, HANDSHAKE_DEADLINE_MS)
    const connection: Connection = {
      socket,
      onFrame: (firstByte, bytes, body) => {
        clearTimeout(timer)
        if (firstByte !== CONNACK || bytes[body + 1] !== 0) {
          reject(new Error(`the broker refused client ${hello.clientId}`))
          return
        }
        socket.off('error', reject)
        connection.onFrame = ignore
        resolve(connection)
      },
      afterRead: ignore,
    }
    socket.once('error', reject)
    socket.write(connectFrame(hello))
  })
}

interface Subscription {
  readonly filter: string
  readonly qos: 0 | 1
  /** Called on SUBACK: what follows it in the same read may be messages. */
  readonly receive: () => void
}

async function subscribe(connection: Connection, { filter, qos, receive }: Subscription): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('no SUBACK')), HANDSHAKE_DEADLINE_MS)
    connection.onFrame = (firstByte, bytes, _body, end) => {
      clearTimeout(timer)
      if (firstByte !== SUBACK || bytes[end - 1] !== qos) {
        reject(new Error(`the broker refused the subscription to ${filter} at QoS ${qos}`))
        return
      }
      receive()
      resolve()
    }
    connection.socket.write(subscribeFrame({ filter, qos }))
  })
}

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

/** One load on one broker, from the first connection to the last. */
class Generator {
  readonly #order: LoadOrder
  readonly #load: Load
  readonly #publishers: Publisher[] = []
  readonly #connections: Connection[] = []
  #sent = 0
  #acked = 0
  #received = 0
  #disordered = 0
  /** QoS 0: deliveries given up, so that a broker that drops is measured on. */
  #writtenOff = 0
  #isSending = false
  #isScheduled = false
  /** Counts on; whose turn it is to send. */
  #turn = 0
  #fault: Error | null = null
  readonly #latencies = new Float64Array(MAX_SAMPLES)
  #samples = 0

  constructor(order: LoadOrder) {
    this.#order = order
    this.#load = order.load
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
    if (this.#load.ratePerS > 0) this.#startPace()
    else this.#startWindows()
    await this.#watch(this.#order.warmUpS * 1000)

    this.#samples = 0
    const start = this.#mark()
    await this.#watch(this.#order.seconds * 1000)
    const end = this.#mark()

    this.#isSending = false
    const sampled = this.#latencies.slice(0, this.#samples).sort()
    await this.#drain()
    const seconds = (end.atMs - start.atMs) / 1000
    const busy = (from: number, to: number) => (to - from) / seconds
    return {
      sent: this.#sent,
      acked: this.#acked,
      received: this.#received,
      lost: this.#missing,
      disordered: this.#disordered,
      seconds,
      ratePerS: (end.done - start.done) / seconds,
      latencyMs: sampled.length === 0 ? null : { p50: quantile(sampled, 0.5), p99: quantile(sampled, 0.99) },
      brokerBusy: start.brokerCpuS === null || end.brokerCpuS === null ? null : busy(start.brokerCpuS, end.brokerCpuS),
      generatorBusy: busy(start.generatorCpuS, end.generatorCpuS),
      othersBusy:
        start.othersCpuS === null || end.othersCpuS === null
          ? null
          : Math.max(0, busy(start.othersCpuS, end.othersCpuS)),
    }
  }

  #mark() {
    const { user, system } = process.cpuUsage()
    const generatorCpuS = (user + system) / 1e6
    const brokerCpuS = this.#order.brokerPid === null ? null : cpuSeconds(this.#order.brokerPid)
    const machineCpuS = machineCpuSeconds()
    return {
      atMs: performance.now(),
      done: this.#load.subscribers > 0 ? this.#received : this.#acked,
      brokerCpuS,
      generatorCpuS,
      othersCpuS: brokerCpuS === null || machineCpuS === null ? null : machineCpuS - brokerCpuS - generatorCpuS,
    }
  }

  get #missing(): number {
    const { qos, subscribers } = this.#load
    if (subscribers === 0) return this.#sent - this.#acked
    return (qos === 0 ? this.#sent : this.#acked) * subscribers - this.#received
  }

  // ---- connections

  async #connectAll(): Promise<void> {
    const { port } = this.#order
    const { publishers, subscribers, qos, payloadBytes, sink } = this.#load
    if (sink === 'offline-session') {
      const absent = await open(port, { clientId: 'bench-absent', clean: false })
      await subscribe(absent, { filter: FILTER, qos: 1, receive: ignore })
      await new Promise<void>(closed => absent.socket.once('close', () => closed()).end(DISCONNECT_FRAME))
    }
    for (let i = 0; i < subscribers; i++) {
      const connection = await open(port, { clientId: `bench-sub-${i}`, clean: true })
      const filter = sink === 'queue' ? `$queue/${QUEUE}` : FILTER
      await subscribe(connection, { filter, qos, receive: () => this.#receiveOn(connection) })
      this.#keep(connection)
    }
    for (let i = 0; i < publishers; i++) {
      const connection = await open(port, { clientId: `bench-pub-${i}`, clean: true })
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
    // PUBACKs are gathered here and leave after each read; a part that was written belongs to the socket until it is out.
    let acks = Buffer.allocUnsafe(ACK_BLOCK_BYTES)
    let from = 0
    let to = 0
    connection.onFrame = (firstByte, bytes, body, end) => {
      if ((firstByte & 0xf0) !== PUBLISH) return
      this.#received++
      if (ratePerS > 0) this.#sample(performance.now() - bytes.readDoubleLE(end - 8))
      if (firstByte === PUBLISH) return
      const id = packetIdOf(bytes, body)
      acks[to] = PUBACK
      acks[to + 1] = 2
      acks[to + 2] = id >> 8
      acks[to + 3] = id & 0xff
      to += PUBACK_BYTES
    }
    connection.afterRead = () => {
      if (to === from) return
      connection.socket.write(acks.subarray(from, to))
      from = to
      if (ACK_BLOCK_BYTES - to >= READ_BYTES) return
      acks = Buffer.allocUnsafe(ACK_BLOCK_BYTES)
      from = 0
      to = 0
    }
  }

  #sample(ms: number): void {
    if (this.#samples < MAX_SAMPLES) this.#latencies[this.#samples++] = ms
  }

  #takeAcksOn(connection: Connection, publisher: Publisher): void {
    const showsAckTimes = this.#load.ratePerS > 0 && this.#load.subscribers === 0
    connection.onFrame = (firstByte, bytes, body) => {
      if (firstByte !== PUBACK) return
      const id = ((bytes[body] ?? 0) << 8) | (bytes[body + 1] ?? 0)
      if (id !== publisher.oldestId) this.#disordered++
      if (showsAckTimes) this.#sample(performance.now() - (publisher.sentAtMs[id - 1] ?? Number.NaN))
      publisher.oldestId = (id % PACKET_IDS) + 1
      publisher.unacked--
      this.#acked++
    }
    if (this.#load.ratePerS === 0) connection.afterRead = () => this.#fillWindow(publisher)
  }

  // ---- sending

  #startWindows(): void {
    if (this.#load.qos === 0) this.#schedule()
    else for (const publisher of this.#publishers) this.#fillWindow(publisher)
  }

  /** QoS 1: as many frames as the window has room for, in one write or at the end of the ring in two. */
  #fillWindow(publisher: Publisher): void {
    if (!this.#isSending) return
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
    const { subscribers } = this.#load
    const limit = this.#load.window * subscribers
    for (let tried = 0; tried < this.#publishers.length; tried++) {
      const publisher = this.#publishers[this.#turn++ % this.#publishers.length]
      if (publisher === undefined || publisher.isWriting) continue
      const { bytes, count } = publisher.frames
      if (this.#missing - this.#writtenOff + count * subscribers > limit) return
      publisher.isWriting = true
      this.#sent += count
      publisher.socket.write(bytes, () => {
        publisher.isWriting = false
        this.#schedule()
      })
    }
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

/** Processor time a process has used; null where there is no /proc or the process is gone. */
function cpuSeconds(pid: number): number | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // Fields after the command's closing bracket: state is the first, utime the 12th, stime the 13th.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S
  } catch {
    return null
  }
}

/** Processor time used on all cores, by whomever, and taken by the host; null where there is no /proc. */
function machineCpuSeconds(): number | null {
  try {
    const [line = ''] = readFileSync('/proc/stat', 'latin1').split('\n')
    const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0, steal = 0] = line.split(/\s+/).slice(1).map(Number)
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S
  } catch {
    return null
  }
}

/** Loads the broker on that port as ordered. Rejects when it closes a connection or refuses one. */
export async function runLoad(order: LoadOrder): Promise<LoadResult> {
  return new Generator(order).run()
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
