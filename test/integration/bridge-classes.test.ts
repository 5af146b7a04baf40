/** Live messages and backlog of a route towards a real RabbitMQ: who waits for whom, and how long. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type RabbitPeer, startRabbit } from '../../scripts/peers.ts'
import { TcpProxy } from '../../scripts/tcp-proxy.ts'
import { BridgeUnderTest, bindQueue } from '../support/bridge-kit.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'
import { type TimedArrival, Watcher } from '../support/upstream-watcher.ts'

const BOOT_MS = 90_000
const DEADLINE_MS = 90_000

let directory: TempDir
let rabbit: RabbitPeer
let proxy: TcpProxy
/** Through the proxy. */
let url: string
let exchange: string
let queue: string

beforeAll(async () => {
  directory = await tempDir()
  rabbit = await startRabbit({ directory: directory.path })
  proxy = await TcpProxy.start({ port: rabbit.port })
  url = `amqp://guest:guest@127.0.0.1:${proxy.port}`
}, BOOT_MS)

afterAll(async () => {
  await proxy.stop()
  await rabbit.stop()
  await directory[Symbol.asyncDispose]()
}, BOOT_MS)

beforeEach(async () => {
  proxy.heal()
  exchange = `ex-${randomUUID()}`
  queue = `q-${randomUUID()}`
  await bindQueue(rabbit.url, queue, exchange)
})

const route = () => ({ from: 'sensors/#', exchange: { name: exchange, type: 'topic', declare: true } }) as const

const isReplay = ({ headers }: TimedArrival): boolean => headers['x-sluice-replay'] === true

/** How long live messages took from the gateway to whoever consumes upstream, milliseconds: the 95th percentile. */
function liveP95Ms(found: readonly TimedArrival[]): number {
  const took = found
    .filter(arrival => !isReplay(arrival))
    .map(({ atMs, headers }) => atMs - Number(headers['x-sluice-ts-ms']))
  return took.toSorted((a, b) => a - b)[Math.floor(took.length * 0.95)] ?? Number.POSITIVE_INFINITY
}

function expectOrder(found: readonly TimedArrival[]): void {
  for (const part of [found.filter(isReplay), found.filter(arrival => !isReplay(arrival))]) {
    const numbers = part.map(({ payload }) => Number.parseInt(payload, 10))
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
  }
}

/** An upstream that was paused, with so many messages that had to wait. */
async function withBacklog(
  count: number,
  options: Parameters<typeof BridgeUnderTest.start>[2] = {},
  changes: { readonly order?: 'strict'; readonly bytes?: number } = {},
): Promise<BridgeUnderTest> {
  const { order = 'live_first', bytes = 0 } = changes
  const bridge = await BridgeUnderTest.start(url, { telemetry: { ...route(), order } }, { window: 256, ...options })
  bridge.upstream.pause()
  await bridge.publish(count, 'sensors/dev-1/t', {}, bytes)
  return bridge
}

describe('while a backlog drains', () => {
  test.each([
    ['as quickly as the upstream takes it', 30_000, 0, null],
    ['over a thin link that takes seconds for a window of it', 400, 1000, 150_000],
  ])(
    '%s, live messages arrive within two seconds, and each class in its order',
    { timeout: DEADLINE_MS },
    async (_what, count, bytes, bytesPerS) => {
      await using bridge = await withBacklog(count, {}, { bytes })
      await using watcher = await Watcher.start(rabbit.url, queue)
      if (bytesPerS !== null) proxy.throttle(bytesPerS)
      bridge.upstream.resume()
      await bridge.reaches('forwarding')
      await eventually(
        async () => {
          await bridge.publish(1, 'sensors/dev-1/t')
          return watcher.arrivals.filter(isReplay).length >= count
        },
        { what: 'the end of the backlog', intervalMs: 50, deadlineMs: 60_000 },
      )
      await bridge.settlesAll()
      await eventually(() => watcher.arrivals.length >= bridge.published, { what: 'all of them' })
      const live = watcher.arrivals.filter(arrival => !isReplay(arrival))
      expect(live.length).toBeGreaterThan(20)
      expect(liveP95Ms(watcher.arrivals)).toBeLessThan(2000)
      expect(watcher.arrivals).toHaveLength(bridge.published)
      expectOrder(watcher.arrivals)
    },
  )

  test('drain.messages_per_s holds the backlog back, and nothing else', { timeout: DEADLINE_MS }, async () => {
    await using bridge = await withBacklog(200, { drain: { messagesPerS: 100, bytesPerS: 0 } })
    await using watcher = await Watcher.start(rabbit.url, queue)
    bridge.upstream.resume()
    await bridge.reaches('forwarding')
    const startedMs = performance.now()
    await bridge.publish(500, 'sensors/dev-1/t')
    expect(performance.now() - startedMs).toBeLessThan(1500)
    await bridge.settlesAll()
    // The first tenth of a second's worth goes at once.
    expect(performance.now() - startedMs).toBeGreaterThan(1850)
    expect(liveP95Ms(watcher.arrivals)).toBeLessThan(1000)
  })

  test('drain.bytes_per_s holds it back by size', { timeout: DEADLINE_MS }, async () => {
    await using bridge = await withBacklog(20, { drain: { messagesPerS: 0, bytesPerS: 20_000 } }, { bytes: 2000 })
    bridge.upstream.resume()
    await bridge.reaches('forwarding')
    const startedMs = performance.now()
    await bridge.settlesAll()
    expect(performance.now() - startedMs).toBeGreaterThan(1700)
  })

  test('order: strict lets nothing overtake', { timeout: DEADLINE_MS }, async () => {
    await using bridge = await withBacklog(5000, {}, { order: 'strict' })
    await using watcher = await Watcher.start(rabbit.url, queue)
    bridge.upstream.resume()
    await bridge.reaches('forwarding')
    await bridge.publish(500, 'sensors/dev-1/t')
    await eventually(() => watcher.arrivals.length === 5500, { what: 'all of them' })
    const numbers = watcher.arrivals.map(({ payload }) => Number.parseInt(payload, 10))
    expect(numbers).toEqual(Array.from({ length: 5500 }, (_, i) => i))
    expect(watcher.arrivals.every((arrival, i) => i >= 5000 || isReplay(arrival))).toBe(true)
  })
})

test('a route of higher priority is through with its backlog long before the other, which goes on all the while', {
  timeout: DEADLINE_MS,
}, async () => {
  const to = { exchange: { name: exchange, type: 'topic', declare: true } } as const
  await using bridge = await BridgeUnderTest.start(url, {
    telemetry: { from: 'sensors/#', ...to },
    alarms: { from: 'alarms/#', priority: 9, ...to },
  })
  await using watcher = await Watcher.start(rabbit.url, queue)
  bridge.upstream.pause()
  await bridge.publish(4000, 'sensors/a')
  await bridge.publish(4000, 'alarms/a')
  bridge.upstream.resume()
  await eventually(() => watcher.arrivals.length === 8000, { what: 'all of them' })
  const topics = watcher.arrivals.map(({ headers }) => headers['x-mqtt-topic'])
  const before = topics.slice(0, topics.lastIndexOf('alarms/a')).filter(topic => topic === 'sensors/a').length
  expect(before).toBeGreaterThan(0)
  expect(before).toBeLessThan(1000)
})
