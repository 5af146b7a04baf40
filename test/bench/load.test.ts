import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { FrameReader, packetIdOf } from '../../scripts/bench/frames.ts'
import { type LoadResult, runLoad } from '../../scripts/bench/load.ts'
import { type Load, scenarioNamed } from '../../scripts/bench/scenarios.ts'

/* The generator is believed in everything it reports, so it is tried on brokers whose faults are known. */

const CONNECT = 0x10
const PUBLISH_QOS0 = 0x30
const PUBLISH_QOS1 = 0x32
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
    const acknowledge = (id: number) => {
      const ack = Buffer.from([0x40, 2, id >> 8, id & 0xff])
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
      if (firstByte !== PUBLISH_QOS0 && firstByte !== PUBLISH_QOS1) return
      messages++
      if (messages > closesAfter) socket.destroy()
      const remaining = end - body
      const length = remaining < 128 ? [remaining] : [(remaining & 0x7f) | 0x80, remaining >> 7]
      const frame = Buffer.concat([Buffer.from([firstByte, ...length]), bytes.subarray(body, end)])
      const copies = messages % dropsEach === 0 ? 0 : messages % repeatsEach === 0 ? 2 : 1
      for (let copy = 0; copy < copies; copy++) subscriber?.write(frame)
      if (firstByte === PUBLISH_QOS1) acknowledge(packetIdOf(bytes, body))
    })
    socket.on('data', chunk => reader.read(chunk, chunk.length))
    socket.on('error', () => undefined)
  })
  return listening(server)
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

async function load(faults: Faults, wanted: Load): Promise<LoadResult> {
  const port = await faultyBroker(faults)
  return runLoad({ port, load: wanted, warmUpS: 0.05, seconds: 0.2, brokerPid: process.pid })
}

it('finds nothing lost where nothing is lost', async () => {
  for (const wanted of [QOS0, QOS1, scenarioNamed('window-1').load]) {
    const result = await load({}, wanted)
    expect(result).toMatchObject({ lost: 0, disordered: 0, received: result.sent })
    expect(result.ratePerS).toBeGreaterThan(0)
    expect(result.brokerBusy).toBeGreaterThan(0)
  }
})

it('counts as lost what was acknowledged and not delivered', async () => {
  const result = await load({ dropsEach: 10 }, QOS1)
  expect(result.acked).toBe(result.sent)
  expect(result.lost).toBe(Math.floor(result.sent / 10))
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

it('counts PUBACKs that come out of order', async () => {
  const result = await load({ swapsAcks: true }, QOS1)
  expect(result.disordered).toBeGreaterThan(0)
})

it('counts as lost what nobody acknowledged where nobody subscribes', async () => {
  const result = await load({ isMute: true }, { ...QOS1, subscribers: 0, sink: 'nobody' })
  expect(result).toMatchObject({ sent: 200, acked: 0, lost: 200, ratePerS: 0 })
})

it('measures latency at the rate asked for', async () => {
  const result = await load({}, scenarioNamed('latency').load)
  expect(result.lost).toBe(0)
  expect(result.sent).toBeGreaterThan(300)
  expect(result.sent).toBeLessThan(1000)
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
