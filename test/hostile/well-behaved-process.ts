/*
 * 100 clients that do what clients should, in a process of their own: each publishes to its neighbour, at QoS 0 and 1 in turn, and what they see of the gateway is
 * how long a message takes. Told `begin` and `end` by its parent, it answers with what was seen in between.
 */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { eventually } from '../support/eventually.ts'
import { packet, text } from '../support/packet-bytes.ts'
import { connect as connectPacket } from './attacker.ts'

/** What the clients saw between `begin` and `end`. */
export interface Seen {
  readonly messages: number
  /** Sent and not received by its subscriber, or sent at QoS 1 and not acknowledged. */
  readonly missing: number
  /** Connections the gateway closed. */
  readonly closed: number
  /** From the write of a message to its read by the subscriber, milliseconds. */
  readonly latencyMs: {
    readonly p50: number
    readonly p90: number
    readonly p99: number
    readonly most: number
  }
}

const CLIENTS = 100
/** Of each client. */
const MESSAGES_PER_S = 10
const TICK_MS = 5
/** What was under way at the end has so long to arrive. */
const ARRIVAL_DEADLINE_MS = 10_000
const PAYLOAD_BYTES = 64

const PUBLISH = 3
const PUBACK = 4

interface WellBehaved {
  readonly socket: Socket
  /** PUBLISH to its neighbour, of QoS 0 and 1; time and packet id are written into it. */
  readonly frames: readonly [Buffer, Buffer]
  rest: Buffer
  sent: number
}

const clients: WellBehaved[] = []
let latencies: number[] = []
let sent = 0
let received = 0
let unacknowledged = 0
let closed = 0

const topicOf = (client: number) => `well/${String(client % CLIENTS).padStart(3, '0')}`

async function open(port: number, n: number): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  const payload = Buffer.alloc(PAYLOAD_BYTES)
  const topic = text(topicOf(n + 1))
  const client: WellBehaved = {
    socket,
    frames: [packet(0x30, topic, payload), packet(0x32, topic, Buffer.alloc(2), payload)],
    rest: Buffer.alloc(0),
    sent: 0,
  }
  socket.write(connectPacket(`well-behaved-${n}`))
  socket.write(packet(0x82, '00 01', text(topicOf(n)), '01'))
  // CONNACK and SUBACK.
  let heard = Buffer.alloc(0)
  socket.on('data', chunk => {
    heard = Buffer.concat([heard, chunk])
  })
  await eventually(() => heard.length >= 9, { what: 'SUBACK' })
  socket.removeAllListeners('data')
  socket.on('data', chunk => hear(client, chunk))
  socket.on('error', () => undefined)
  socket.on('close', () => closed++)
  clients.push(client)
}

function hear(client: WellBehaved, chunk: Buffer): void {
  const heard = client.rest.length === 0 ? chunk : Buffer.concat([client.rest, chunk])
  const acknowledgements: Buffer[] = []
  let at = 0
  // All packets of these conversations are shorter than 128 bytes.
  for (let end = 0; heard.length >= at + 2; at = end) {
    end = at + 2 + (heard[at + 1] ?? 0)
    if (end > heard.length) break
    const type = (heard[at] ?? 0) >> 4
    if (type === PUBACK) unacknowledged--
    if (type !== PUBLISH) continue
    latencies.push(performance.now() - heard.readDoubleBE(end - PAYLOAD_BYTES))
    received++
    const isQos1 = ((heard[at] ?? 0) & 0x06) === 0x02
    if (isQos1) acknowledgements.push(packet(0x40, heard.subarray(end - PAYLOAD_BYTES - 2, end - PAYLOAD_BYTES)))
  }
  client.rest = Buffer.from(heard.subarray(at))
  if (acknowledgements.length > 0) client.socket.write(Buffer.concat(acknowledgements))
}

function publish(client: WellBehaved): void {
  const qos = client.sent++ % 2 === 0 ? 0 : 1
  const frame = Buffer.from(client.frames[qos])
  frame.writeDoubleBE(performance.now(), frame.length - PAYLOAD_BYTES)
  if (qos === 1) {
    frame.writeUInt16BE(1 + (client.sent % 60_000), frame.length - PAYLOAD_BYTES - 2)
    unacknowledged++
  }
  sent++
  client.socket.write(frame)
}

let timer: NodeJS.Timeout | undefined

/** From now on messages leave, evenly: a few with each tick. */
function begin(): void {
  latencies = []
  sent = 0
  received = 0
  unacknowledged = 0
  const startedMs = performance.now()
  timer = setInterval(() => {
    const due = ((performance.now() - startedMs) / 1000) * CLIENTS * MESSAGES_PER_S
    while (sent < due) {
      const client = clients[sent % clients.length]
      if (client !== undefined) publish(client)
    }
  }, TICK_MS)
}

async function end(): Promise<Seen> {
  clearInterval(timer)
  await eventually(() => received >= sent && unacknowledged <= 0, {
    what: 'the last message',
    deadlineMs: ARRIVAL_DEADLINE_MS,
  }).catch(() => undefined)
  const sorted = latencies.toSorted((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
  return {
    messages: sent,
    missing: sent - received + unacknowledged,
    closed,
    latencyMs: { p50: at(0.5), p90: at(0.9), p99: at(0.99), most: at(1) },
  }
}

const port = Number(process.argv[2])
for (let n = 0; n < CLIENTS; n++) await open(port, n)
process.on('message', message => {
  if (message === 'begin') begin()
  else void end().then(seen => process.send?.(seen))
})
process.on('disconnect', () => process.exit())
process.send?.('ready')
