import { setTimeout as delay } from 'node:timers/promises'
import { Clock } from './clock.ts'
import { Device } from './device.ts'
import type { Firmware } from './firmware.ts'
import type { LedgerSnapshot } from './ledger.ts'
import { Radio, type RadioPlan } from './radio.ts'
import { Random } from './random.ts'

export interface FleetGroup {
  /** Device ids are `<name>-<number>`. */
  readonly name: string
  readonly firmware: Firmware
  readonly count: number
  readonly radio: RadioPlan
}

export interface FleetPlan {
  readonly name: string
  readonly groups: readonly FleetGroup[]
}

export interface FleetOptions {
  /** `mqtt://host:port` */
  readonly broker: string
  readonly seed: number
  /** Virtual milliseconds per real one. */
  readonly speed: number
  /** Told once a second. */
  readonly onProgress?: (stats: FleetStats) => void
}

/** Plain numbers over all devices since the start; `online` and `stored` are of now. */
export interface FleetStats {
  readonly devices: number
  readonly online: number
  /** Readings taken. */
  readonly sampled: number
  /** Messages sent at least once. */
  readonly published: number
  /** Of those the ones at QoS 0, which nobody acknowledges. */
  readonly publishedAtQos0: number
  readonly acknowledged: number
  /** Sent at QoS 1 and not acknowledged yet: published - publishedAtQos0 - acknowledged. */
  readonly unacknowledged: number
  /** Readings in the devices' flash: not sent yet, or not acknowledged. */
  readonly stored: number
  /** Readings of devices without flash that could not be sent. */
  readonly discarded: number
  /** Readings a full flash has overwritten. */
  readonly overwritten: number
  readonly reconnects: number
}

export interface Fleet {
  readonly devices: readonly Device[]
  stats(): FleetStats
  /** The devices take no more readings but go on sending. */
  stopSampling(): void
  /**
   * Stops sampling, lets the weather clear, gives the devices up to `drainMs` (default 15,000) to have everything acknowledged,
   * switches them off and hands over what they know. Idempotent.
   */
  stop(options?: { drainMs?: number }): Promise<LedgerSnapshot[]>
}

/** Unix time at virtual time 0. Fixed, so that the same seed has the same bytes: 2026-01-01T00:00:00Z. */
const EPOCH_MS = 1_767_225_600_000
const PROGRESS_PERIOD_MS = 1000
const DRAIN_LOOK_MS = 20
/** Devices connect one after another, not as a storm. */
const CONNECT_SPACING_MS = 2

/** Switches a whole fleet on. */
export function startFleet(plan: FleetPlan, { broker, seed, speed, onProgress }: FleetOptions): Fleet {
  const address = brokerAddress(broker)
  const clock = new Clock({ speed, epochMs: EPOCH_MS })
  const seeds = new Random(seed)
  const devices: Device[] = []
  for (const { name, firmware, count, radio: radioPlan } of plan.groups) {
    for (let number = 1; number <= count; number++) {
      const id = `${name}-${String(number).padStart(3, '0')}`
      const random = seeds.fork(id)
      const radio = new Radio({ plan: radioPlan, clock, random: random.fork('radio'), broker: address })
      devices.push(new Device({ id, firmware, clock, radio, random }))
    }
  }
  for (const [index, device] of devices.entries()) device.powerOn(index * CONNECT_SPACING_MS)

  const stats = () => sum(devices)
  const progress = onProgress === undefined ? null : setInterval(() => onProgress(stats()), PROGRESS_PERIOD_MS)
  const stopSampling = () => {
    for (const device of devices) device.stopSampling()
  }
  return {
    devices,
    stats,
    stopSampling,
    stop: async ({ drainMs = 15_000 } = {}) => {
      stopSampling()
      for (const device of devices) device.clearWeather()
      const deadline = performance.now() + drainMs
      while (devices.some(device => device.stored > 0) && performance.now() < deadline) await delay(DRAIN_LOOK_MS)
      if (progress !== null) clearInterval(progress)
      await Promise.all(devices.map(device => device.powerOff()))
      return devices.map(device => device.ledger.snapshot())
    },
  }
}

/** The same fleet with another number of devices, in the same proportions (each group keeps at least one). */
export function withDevices(plan: FleetPlan, devices: number): FleetPlan {
  const total = plan.groups.reduce((count, group) => count + group.count, 0)
  if (devices < plan.groups.length) throw new RangeError(`${plan.name} needs at least ${plan.groups.length} devices`)
  let plannedSoFar = 0
  let madeSoFar = 0
  const groups = plan.groups.map((group, index) => {
    plannedSoFar += group.count
    const groupsLeft = plan.groups.length - index - 1
    // Rounding the running total keeps the sum exact.
    const target = Math.min(Math.round((plannedSoFar * devices) / total), devices - groupsLeft)
    const count = Math.max(1, target - madeSoFar)
    madeSoFar += count
    return { ...group, count }
  })
  return { ...plan, groups }
}

function brokerAddress(broker: string): { host: string; port: number } {
  const url = URL.parse(broker)
  if (url === null || url.protocol !== 'mqtt:' || url.hostname === '') {
    throw new TypeError(`the broker must be given as mqtt://host:port, not ${broker}`)
  }
  return { host: url.hostname, port: url.port === '' ? 1883 : Number(url.port) }
}

function sum(devices: readonly Device[]): FleetStats {
  let online = 0
  let sampled = 0
  let published = 0
  let publishedAtQos0 = 0
  let acknowledged = 0
  let stored = 0
  let discarded = 0
  let overwritten = 0
  let reconnects = 0
  for (const device of devices) {
    if (device.isOnline) online++
    sampled += device.sampled
    published += device.ledger.sent
    if (device.ledger.qos === 0) publishedAtQos0 += device.ledger.sent
    acknowledged += device.ledger.acknowledged
    stored += device.stored
    discarded += device.discarded
    overwritten += device.overwritten
    reconnects += device.reconnects
  }
  const unacknowledged = published - publishedAtQos0 - acknowledged
  return {
    devices: devices.length,
    online,
    sampled,
    published,
    publishedAtQos0,
    acknowledged,
    unacknowledged,
    stored,
    discarded,
    overwritten,
    reconnects,
  }
}
