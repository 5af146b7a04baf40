import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server } from 'node:net'
import { Aedes } from 'aedes'
import { afterEach, beforeEach, expect, test } from 'vitest'
import type { Firmware } from '../../firmware-sim/firmware.ts'
import { meter } from '../../firmware-sim/firmwares/meter.ts'
import { thermostatV1 } from '../../firmware-sim/firmwares/thermostat-v1.ts'
import { type Fleet, type FleetPlan, startFleet, withDevices } from '../../firmware-sim/fleet.ts'
import { fleet as factory } from '../../firmware-sim/fleets/factory.ts'
import { NumberSet } from '../../firmware-sim/number-set.ts'
import { PERFECT_RADIO, type RadioPlan } from '../../firmware-sim/radio.ts'
import { TcpProxy } from '../../scripts/tcp-proxy.ts'
import { eventually } from '../support/eventually.ts'

/** One PUBLISH as the neutral broker saw it. */
interface Received {
  readonly client: string
  readonly topic: string
  readonly qos: number
  readonly dup: boolean
  readonly device: string
  readonly seq: number
  readonly text: string
}

/** An impatient meter: gives a silent connection up after half a second. */
const impatientMeter: Firmware = {
  ...meter,
  answerTimeoutMs: 500,
  keepAliveS: 1,
  reconnect: { firstMs: 20, maxMs: 100 },
}

let broker: Aedes
let server: Server
let proxy: TcpProxy
let fleet: Fleet | null
let received: Received[]

beforeEach(async () => {
  received = []
  fleet = null
  broker = await Aedes.createBroker({
    // Called for every PUBLISH before it is acknowledged.
    authorizePublish: (client, packet, done) => {
      const text = packet.payload.toString()
      const { device, seq } = JSON.parse(text)
      const { topic, qos, dup } = packet
      received.push({ client: client?.id ?? '', topic, qos, dup, device, seq, text })
      done(null)
    },
  })
  server = createServer(broker.handle).listen(0, '127.0.0.1')
  await once(server, 'listening')
  proxy = await TcpProxy.start({ port: (server.address() as AddressInfo).port })
})

afterEach(async () => {
  await fleet?.stop({ drainMs: 0 })
  await proxy.stop()
  broker.close()
  server.close()
})

function start(plan: FleetPlan, { seed = 7, speed = 1000 }: { seed?: number; speed?: number } = {}): Fleet {
  fleet = startFleet(plan, { broker: `mqtt://127.0.0.1:${proxy.port}`, seed, speed })
  return fleet
}

function planOf(firmware: Firmware, count: number, radio: RadioPlan = PERFECT_RADIO): FleetPlan {
  return { name: 'test', groups: [{ name: firmware.model, firmware, count, radio }] }
}

function receivedSequences(device: string): NumberSet {
  const sequences = new NumberSet()
  for (const message of received) if (message.device === device) sequences.add(message.seq)
  return sequences
}

/** Everything a meter has measured arrived: no gap, and the ledger says so too. */
async function expectNothingLost(running: Fleet): Promise<void> {
  const ledgers = await running.stop()
  for (const [index, device] of running.devices.entries()) {
    const everything = [[1, device.sampled]]
    expect(ledgers[index]).toMatchObject({ device: device.id, acknowledged: everything, unacknowledged: [] })
    expect(receivedSequences(device.id).ranges()).toEqual(everything)
  }
  expect(running.stats()).toMatchObject({ unacknowledged: 0, stored: 0, overwritten: 0 })
}

/** First transmissions come in the order of measuring; what was sent before says so. */
function expectFifo(device: string): void {
  let highest = 0
  const seen = new Set<number>()
  for (const { seq, dup } of received.filter(message => message.device === device)) {
    if (!dup) {
      expect(seq).toBeGreaterThan(highest)
      expect(seen.has(seq)).toBe(false)
      highest = seq
    }
    seen.add(seq)
  }
}

test('the factory publishes what its data sheets say', async () => {
  const running = start(withDevices(factory, 10), { speed: 300 })
  await eventually(() => running.stats().acknowledged > 200 && running.stats().publishedAtQos0 > 100)
  const ledgers = await running.stop()
  expect(ledgers).toHaveLength(10)
  for (const message of received) {
    expect(message.client).toBe(message.device)
    const isMeter = !message.device.startsWith('office-')
    expect(message).toMatchObject(
      isMeter
        ? { topic: `sensors/${message.device}/energy`, qos: 1 }
        : { topic: `sensors/${message.device}/temperature`, qos: 0, dup: false },
    )
    expect(JSON.parse(message.text).at).toBeGreaterThan(Date.UTC(2026, 0, 1))
  }
  const stats = running.stats()
  expect(stats.published).toBe(stats.publishedAtQos0 + stats.acknowledged + stats.unacknowledged)
})

test('the same seed measures the same readings at the same device times', async () => {
  const byReading = () => new Map(received.map(message => [`${message.device} ${message.seq}`, message.text]))
  const runs: Map<string, string>[] = []
  for (const seed of [7, 7, 8]) {
    const running = start(planOf(meter, 3), { seed })
    await eventually(() => running.devices.every(device => device.ledger.acknowledged >= 20))
    await running.stop()
    runs.push(byReading())
    received = []
  }
  const [first, again, other] = runs
  const readingOf = (run: Map<string, string> | undefined, key: string) => {
    const { at, ...reading } = JSON.parse(run?.get(key) ?? 'null')
    return reading
  }
  for (const device of ['meter-001', 'meter-002', 'meter-003']) {
    for (let seq = 1; seq <= 20; seq++) {
      const key = `${device} ${seq}`
      expect(first?.get(key)).toBeDefined()
      expect(first?.get(key)).toBe(again?.get(key))
      expect(readingOf(first, key)).not.toEqual(readingOf(other, key))
    }
  }
})

test.each<[string, (link: TcpProxy) => void]>([
  ['cut', link => link.cut()],
  ['reset', link => link.reset()],
  ['cut in the middle of a frame', link => link.cutAfter(1000)],
  ['cut in the middle of an acknowledgement', link => link.cutAfter(7, 'to-client')],
])('meters lose nothing when their connections are %s again and again', async (_, disturb) => {
  const running = start(planOf(impatientMeter, 5))
  for (let round = 1; round <= 6; round++) {
    const goal = running.stats().acknowledged + 200
    await eventually(() => running.stats().acknowledged > goal)
    disturb(proxy)
    await eventually(() => running.stats().reconnects >= round)
  }
  await expectNothingLost(running)
  for (const device of running.devices) expectFifo(device.id)
})

test('meters lose nothing in a black hole: they give the silent connection up and send again with DUP', async () => {
  const running = start(planOf(impatientMeter, 5))
  await eventually(() => running.stats().acknowledged > 300)
  // Their messages arrive and the acknowledgements don't.
  proxy.blackHole('to-client')
  const before = running.stats().acknowledged
  await eventually(() => running.stats().online === 0)
  expect(running.stats().unacknowledged).toBeGreaterThan(0)
  expect(running.stats().acknowledged - before).toBeLessThanOrEqual(5 * meter.window)
  proxy.heal()
  await eventually(() => running.stats().online === 5)
  await expectNothingLost(running)
  expect(received.some(message => message.dup)).toBe(true)
  for (const device of running.devices) expectFifo(device.id)
})

test('a meter sends at most its window ahead of the acknowledgements, and exactly that again after reconnecting', async () => {
  const running = start(planOf(impatientMeter, 1))
  await eventually(() => running.stats().acknowledged > 50)
  proxy.blackHole('to-client')
  await eventually(() => running.stats().online === 0)
  const { acknowledged, sampled } = running.stats()
  expect(sampled).toBeGreaterThan(acknowledged + meter.window)
  const window = Array.from({ length: meter.window }, (_, i) => acknowledged + i + 1)
  expect(received.slice(acknowledged).map(message => message.seq)).toEqual(window)
  const before = received.length
  proxy.heal()
  await eventually(() => received.length >= before + 2 * meter.window)
  const resent = received.slice(before, before + meter.window)
  expect(resent.map(message => message.seq)).toEqual(window)
  expect(resent.every(message => message.dup)).toBe(true)
  expect(received.slice(before + meter.window).some(message => message.dup)).toBe(false)
  await expectNothingLost(running)
})

test('without connection a meter stores and a thermostat discards', async () => {
  proxy.refuse()
  const plan: FleetPlan = {
    name: 'both',
    groups: [
      { name: 'meter', firmware: impatientMeter, count: 1, radio: PERFECT_RADIO },
      { name: 'thermostat', firmware: { ...thermostatV1, reconnect: meter.reconnect }, count: 1, radio: PERFECT_RADIO },
    ],
  }
  const running = start(plan)
  await eventually(() => running.stats().stored >= 50 && running.stats().discarded >= 50)
  expect(running.stats()).toMatchObject({ online: 0, published: 0 })
  proxy.heal()
  await eventually(() => running.stats().online === 2 && running.stats().publishedAtQos0 > 10)
  const [meterLedger, thermostatLedger] = await running.stop()
  const [meterDevice] = running.devices
  expect(meterLedger?.acknowledged).toEqual([[1, meterDevice?.sampled]])
  expect(thermostatLedger?.acknowledged).toEqual([])
  expect(thermostatLedger?.unacknowledged).toEqual(receivedSequences('thermostat-001').ranges())
  expect(receivedSequences('thermostat-001').has(1)).toBe(false)
})

test('a full flash overwrites its oldest readings, counts them, and never calls them acknowledged', async () => {
  proxy.refuse()
  const running = start(planOf({ ...impatientMeter, flashReadings: 50 }, 1))
  await eventually(() => running.stats().overwritten >= 30)
  proxy.heal()
  const [ledger] = await running.stop()
  const { overwritten, sampled } = running.stats()
  expect(ledger?.acknowledged).toEqual([[overwritten + 1, sampled]])
})

test('radio losses, half-open ones too, cost no meter a reading', async () => {
  // Virtual time runs 1000 times faster: a loss every 0.6 s on average, and an outage of half a second.
  const radio: RadioPlan = {
    ...PERFECT_RADIO,
    latencyMs: 1,
    dropEveryMs: 600_000,
    halfOpenShare: 0.5,
    outages: [{ fromMs: 800_000, toMs: 1_300_000 }],
  }
  const running = start(planOf(impatientMeter, 5, radio))
  await eventually(() => running.stats().reconnects >= 10 && running.stats().sampled > 1000)
  await expectNothingLost(running)
  for (const device of running.devices) expectFifo(device.id)
})

test('a thermostat finds out by PINGREQ that it talks to nobody', async () => {
  const chatty: Firmware = {
    ...thermostatV1,
    keepAliveS: 1,
    answerTimeoutMs: 200,
    reconnect: { firstMs: 20, maxMs: 100 },
  }
  const running = start(planOf(chatty, 1))
  await eventually(() => running.stats().publishedAtQos0 > 10)
  proxy.blackHole()
  await eventually(() => running.stats().online === 0)
  proxy.heal()
  await eventually(() => running.stats().online === 1 && running.stats().reconnects === 1)
})

test('a slow reader gets its acknowledgements late, and all of them', async () => {
  // 4 bytes per PUBACK.
  const running = start(planOf({ ...meter, samplePeriodMs: 20_000 }, 1, { ...PERFECT_RADIO, readBytesPerS: 400 }))
  await eventually(() => running.stats().acknowledged > 50)
  await expectNothingLost(running)
})

test('a fleet can be stopped twice and says the same', async () => {
  const running = start(planOf(meter, 2))
  await eventually(() => running.stats().acknowledged > 20)
  const ledgers = await running.stop()
  expect(await running.stop()).toEqual(ledgers)
  expect(running.stats().online).toBe(0)
  await eventually(() => proxy.connections === 0)
})

test('progress is told once a second in plain numbers', async () => {
  const told: number[] = []
  const options = { broker: `mqtt://127.0.0.1:${proxy.port}`, seed: 1, speed: 1000 }
  fleet = startFleet(planOf(meter, 1), { ...options, onProgress: stats => told.push(stats.acknowledged) })
  await eventually(() => told.length === 2)
  expect(told[1]).toBeGreaterThan(told[0] ?? 0)
})

test('a fleet is scaled in its proportions, and to no fewer devices than it has groups', () => {
  for (const devices of [3, 7, 50, 500]) {
    const { groups } = withDevices(factory, devices)
    expect(groups.reduce((sum, group) => sum + group.count, 0)).toBe(devices)
    for (const group of groups) expect(group.count).toBeGreaterThanOrEqual(1)
  }
  expect(withDevices(factory, 500).groups.map(group => group.count)).toEqual([200, 240, 60])
  expect(() => withDevices(factory, 2)).toThrow(RangeError)
})

test('a broker that is not mqtt://host:port is refused in words', () => {
  expect(() => startFleet(factory, { broker: 'localhost:1883', seed: 1, speed: 1 })).toThrow('mqtt://host:port')
})

async function runSimulator(args: readonly string[]): Promise<{ status: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, ['firmware-sim/run.ts', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', text => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', text => {
    err += text
  })
  const [status] = await once(child, 'close')
  return { status, out, err }
}

test('the command line runs a fleet file and prints its balance and ledgers', async () => {
  const broker = ['--broker', `mqtt://127.0.0.1:${proxy.port}`]
  const run = ['--seed', '3', '--speed', '600', '--devices', '5', '--seconds', '2', '--ledger']
  const { status, out } = await runSimulator(['firmware-sim/fleets/factory.ts', ...broker, ...run])
  const [balance = '', ...ledgers] = out.trim().split('\n')
  expect(balance).toMatch(/^online 0\/5, published \d+ .* acknowledged \d+, unacknowledged 0, /)
  expect(ledgers.map(line => JSON.parse(line).device).sort()).toEqual(
    [...new Set(received.map(one => one.device))].sort(),
  )
  expect(status).toBe(0)
})

test.each([
  [[], 'which fleet?'],
  [['firmware-sim/clock.ts'], 'exports no `fleet`'],
  [['firmware-sim/fleets/factory.ts', '--speed', 'fast'], '--speed must be a number, not fast'],
  [['firmware-sim/fleets/factory.ts', '--sped', '2'], "Unknown option '--sped'"],
])('wrong usage %j ends with status 2 and says what is wrong', async (args, message) => {
  const { status, err } = await runSimulator(args)
  expect(err).toContain(message)
  expect(status).toBe(2)
})
