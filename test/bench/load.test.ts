import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { Aedes } from 'aedes'
import { afterEach, expect, it } from 'vitest'
import { FrameReader, numberAt, PUBACK, PUBCOMP, PUBREC, PUBREL, packetIdOf } from '../../scripts/bench/frames.ts'
import { type LoadResult, runLoad } from '../../scripts/bench/load.ts'
import { type Load, scenarioNamed } from '../../scripts/bench/scenarios.ts'

/* The generator is believed in everything it reports, so it is tried on brokers whose faults are known. */

const CONNECT = 0x10
const PUBLISH_QOS0 = 0x30
const PUBLISH_QOS1 = 0x32
const PUBLISH_QOS2 = 0x34
const SUBSCRIBE = 0x82

interface Faults {
  /** Every such message is not delivered. */
  readonly dropsEach?: number
  /** Every such message is delivered a second time. */
  readonly repeatsEach?: number
  /** Acknowledges each second message before the first. */
  readonly swapsAcks?: boolean
  /** Never acknowledges. */
  readonly isMute?: boolean
  /** Closes the connection that brings the message after so many. */
  readonly closesAfter?: number
}

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

/** A broker for one subscriber that forwards every frame as it is, with the faults asked for. */
async function faultyBroker(faults: Faults) {
  const { dropsEach = 0, repeatsEach = 0, swapsAcks = false, isMute = false, closesAfter = Infinity } = faults
  let subscriber: Socket | null = null
  let messages = 0
  const server = createServer(socket => {
    let heldAck: Buffer | null = null
    const acknowledge = (type: number, id: number) => {
      const ack = Buffer.from([type, 2, id >> 8, id & 0xff])
      if (isMute) return
      if (!swapsAcks) socket.write(ack)
      else if (heldAck === null) heldAck = ack
      else {
        socket.write(Buffer.concat([ack, heldAck]))
        heldAck = null
      }
    }
    const reader = new FrameReader((firstByte, bytes, body, end) => {
      if (firstByte === CONNECT) socket.write(Buffer.from([0x20, 2, 0, 0]))
      if (firstByte === SUBSCRIBE) {
        subscriber = socket
        socket.write(Buffer.from([0x90, 3, 0, 1, bytes[end - 1] ?? 0]))
      }
      if (firstByte === PUBREL) acknowledge(PUBCOMP, numberAt(bytes, body))
      if (firstByte !== PUBLISH_QOS0 && firstByte !== PUBLISH_QOS1 && firstByte !== PUBLISH_QOS2) return
      messages++
      if (messages > closesAfter) socket.destroy()
      const remaining = end - body
      const length = remaining < 128 ? [remaining] : [(remaining & 0x7f) | 0x80, remaining >> 7]
      const frame = Buffer.concat([Buffer.from([firstByte, ...length]), bytes.subarray(body, end)])
      const copies = messages % dropsEach === 0 ? 0 : messages % repeatsEach === 0 ? 2 : 1
      for (let copy = 0; copy < copies; copy++) subscriber?.write(frame)
      if (firstByte === PUBLISH_QOS1) acknowledge(PUBACK, packetIdOf(bytes, body))
      if (firstByte === PUBLISH_QOS2) socket.write(Buffer.from([PUBREC, 2, ...packetIdBytes(bytes, body)]))
    })
    socket.on('data', chunk => reader.read(chunk, chunk.length))
    socket.on('error', () => undefined)
  })
  return listening(server)
}

function packetIdBytes(bytes: Buffer, body: number): [number, number] {
  const id = packetIdOf(bytes, body)
  return [id >> 8, id & 0xff]
}

/** A whole broker, for what a faulty one need not know. */
async function aedes(): Promise<number> {
  const broker = await Aedes.createBroker()
  closers.push(() => broker.close())
  return listening(createServer(broker.handle))
}

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  closers.push(() => server.close())
  const address = server.address()
  if (address === null || typeof address === 'string') throw new TypeError('a TCP server has a port')
  return address.port
}

const QOS1 = scenarioNamed('qos1-fan-in').load
const QOS0 = scenarioNamed('qos0-fan-in').load
const QOS2 = scenarioNamed('qos2-fan-in').load

async function load(faults: Faults, wanted: Load): Promise<LoadResult> {
  const port = await faultyBroker(faults)
  return runLoad({ port, load: wanted, warmUpS: 0.05, seconds: 0.2, brokerPid: process.pid })
}

it('finds nothing lost where nothing is lost', async () => {
  for (const wanted of [QOS0, QOS1, QOS2, scenarioNamed('window-1').load]) {
    const result = await load({}, wanted)
    expect(result).toMatchObject({ lost: 0, disordered: 0, received: result.sent })
    expect(result.ratePerS).toBeGreaterThan(0)
    expect(result.brokerBusy).toBeGreaterThan(0)
  }
})

it('counts as lost what was acknowledged and not delivered', async () => {
  for (const wanted of [QOS1, QOS2]) {
    const result = await load({ dropsEach: 10 }, wanted)
    expect(result.acked).toBe(result.sent)
    expect(result.lost).toBe(Math.floor(result.sent / 10))
  }
})

it('goes on after QoS 0 messages were dropped, and counts them', async () => {
  const port = await faultyBroker({ dropsEach: 2 })
  const wanted = { ...QOS0, window: 2000 }
  const result = await runLoad({ port, load: wanted, warmUpS: 1.2, seconds: 0.2, brokerPid: null })
  expect(result.sent).toBeGreaterThan(2000)
  expect(result.lost).toBe(Math.floor(result.sent / 2))
})

it('shows messages that came twice as a negative loss', async () => {
  const result = await load({ repeatsEach: 5 }, QOS1)
  expect(result.lost).toBe(-Math.floor(result.sent / 5))
})

it('counts PUBACKs and PUBCOMPs that come out of order', async () => {
  for (const wanted of [QOS1, QOS2]) {
    const result = await load({ swapsAcks: true }, wanted)
    expect(result.disordered).toBeGreaterThan(0)
  }
})

it('gives each subscriber what one publisher sends', async () => {
  const wanted: Load = { ...QOS1, publishers: 3, subscribers: 3, reads: 'own' }
  const result = await runLoad({ port: await aedes(), load: wanted, warmUpS: 0, seconds: 0.2, brokerPid: null })
  expect(result).toMatchObject({ lost: 0, received: result.sent })
  expect(result.received).toBeGreaterThan(0)
})

it('gets as a client that comes back what was kept for it', async () => {
  const wanted: Load = { ...QOS1, subscribers: 0, sink: 'returning-session' }
  const result = await runLoad({ port: await aedes(), load: wanted, warmUpS: 0, seconds: 0.2, brokerPid: null })
  expect(result).toMatchObject({ lost: 0, received: result.sent })
  expect(result.replayPerS).toBeGreaterThan(0)
})

it('fails when the broker has forgotten the client that comes back', async () => {
  const wanted: Load = { ...QOS1, subscribers: 0, sink: 'returning-session' }
  await expect(load({}, wanted)).rejects.toThrow('has no session for client bench-absent')
})

it('measures latency again beside a subscriber that reads nothing', async () => {
  const wanted: Load = { ...scenarioNamed('latency').load, freezes: true }
  const result = await runLoad({ port: await aedes(), load: wanted, warmUpS: 0, seconds: 0.2, brokerPid: null })
  expect(result).toMatchObject({ lost: 0, received: result.sent })
  expect(result.latencyMs?.p99).toBeGreaterThan(0)
  expect(result.frozenLatencyMs?.p99).toBeGreaterThan(0)
})

it('opens connections that say nothing, and fails when one is refused', async () => {
  const wanted: Load = { ...scenarioNamed('connecting').load, idle: 200 }
  const order = { load: wanted, warmUpS: 0, seconds: 0, brokerPid: process.pid }
  const result = await runLoad({ ...order, port: await aedes() })
  expect(result.ratePerS).toBeGreaterThan(0)
  expect(result.connectionBytes).not.toBeNull()
  const refusing = createServer(socket => socket.once('data', () => socket.write(Buffer.from([0x20, 2, 0, 3]))))
  await expect(runLoad({ ...order, port: await listening(refusing) })).rejects.toThrow('refused client')
})

it('counts as lost what nobody acknowledged where nobody subscribes', async () => {
  const result = await load({ isMute: true }, { ...QOS1, subscribers: 0, sink: 'nobody' })
  expect(result).toMatchObject({ sent: 200, acked: 0, lost: 200, ratePerS: 0 })
})

it('measures latency at the rate asked for', async () => {
  const result = await load({}, scenarioNamed('latency').load)
  expect(result.lost).toBe(0)
  expect(result.ratePerS).toBeGreaterThan(1000)
  expect(result.ratePerS).toBeLessThan(3000)
  expect(result.latencyMs?.p50).toBeGreaterThan(0)
  expect(result.latencyMs?.p99).toBeGreaterThanOrEqual(result.latencyMs?.p50 ?? Number.NaN)
})

it('without a subscriber measures the time to the PUBACK', async () => {
  const result = await load({}, { ...scenarioNamed('latency').load, subscribers: 0, sink: 'nobody' })
  expect(result).toMatchObject({ lost: 0, acked: result.sent })
  expect(result.latencyMs?.p50).toBeGreaterThan(0)
  expect(result.latencyMs?.p99).toBeLessThan(1000)
})

it('fails when the broker refuses the connection', async () => {
  const port = await listening(
    createServer(socket => socket.once('data', () => socket.write(Buffer.from([0x20, 2, 0, 5])))),
  )
  await expect(runLoad({ port, load: QOS1, warmUpS: 0, seconds: 1, brokerPid: null })).rejects.toThrow('refused client')
})

it('fails when the broker closes a connection under load', async () => {
  await expect(load({ closesAfter: 500 }, QOS1)).rejects.toThrow(/closed a connection|ECONNRESET|EPIPE/)
})
