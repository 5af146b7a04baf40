/** Messages that a real RabbitMQ refuses: which of them is found, what is counted against it, and that the others never wait for it. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type RabbitPeer, startRabbit } from '../../scripts/peers.ts'
import { historyOf } from '../../src/model/death-history.ts'
import { decodeRecord } from '../../src/model/message.ts'
import { PLAIN_POLICY, type QueuePolicy } from '../../src/model/queue-policy.ts'
import { type Arrival, arrivals, BridgeUnderTest, bindQueue, onChannel } from '../support/bridge-kit.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const BOOT_MS = 90_000
const DEADLINE_MS = 60_000
const THREE_ATTEMPTS: Partial<QueuePolicy> = {
  maxAttempts: 3,
  retry: { ...PLAIN_POLICY.retry, firstMs: 50, maxMs: 100 },
}

let directory: TempDir
let rabbit: RabbitPeer
let exchange: string
let queue: string

beforeAll(async () => {
  directory = await tempDir()
  rabbit = await startRabbit({ directory: directory.path })
}, BOOT_MS)

afterAll(async () => {
  await rabbit.stop()
  await directory[Symbol.asyncDispose]()
}, BOOT_MS)

beforeEach(async () => {
  exchange = `ex-${randomUUID()}`
  queue = `q-${randomUUID()}`
})

const start = (policy: Partial<QueuePolicy> = THREE_ATTEMPTS): Promise<BridgeUnderTest> =>
  BridgeUnderTest.start(rabbit.url, {
    telemetry: { from: 'sensors/#', exchange: { name: exchange, type: 'topic', declare: true }, policy },
  })

interface DeadLetter {
  readonly payload: string
  readonly words: string | null
  readonly reason: string
}

async function deadLetters(bridge: BridgeUnderTest): Promise<DeadLetter[]> {
  const found: DeadLetter[] = []
  await bridge.core.topology.queue('telemetry.dead').peek(100, (bytes, at) => {
    const [death] = historyOf(bytes, at)?.entries ?? []
    found.push({
      payload: decodeRecord(bytes, at).payload.toString(),
      words: death?.words ?? null,
      reason: death?.event ?? '',
    })
  })
  return found
}

/** All but these numbers, each once at least. */
function expectAllBut(found: readonly Arrival[], published: number, dead: readonly number[]): void {
  const numbers = new Set(found.map(({ payload }) => Number.parseInt(payload, 10)))
  const expected = Array.from({ length: published }, (_, i) => i).filter(number => !dead.includes(number))
  expect([...numbers].sort((a, b) => a - b)).toEqual(expected)
}

/** Others of the route go on meanwhile: without a confirm nothing counts against anybody. */
const untilDead = (bridge: BridgeUnderTest, count: number, topic: string): Promise<void> =>
  bridge.publishUntil(() => bridge.core.topology.queue('telemetry.dead').depth === count, topic)

const outboxIsEmpty = (bridge: BridgeUnderTest): Promise<unknown> =>
  eventually(() => bridge.queues.get('telemetry')?.depth === 0, { what: 'an empty outbox', deadlineMs: 30_000 })

describe('a message the upstream closes the channel for', () => {
  test('too large: found among the others, tried again, and a dead letter with the words of the upstream', {
    timeout: DEADLINE_MS,
  }, async () => {
    await bindQueue(rabbit.url, queue, exchange)
    await rabbit.ctl([
      'eval',
      'persistent_term:put(max_message_size, 20000), application:set_env(rabbit, max_message_size, 20000).',
    ])
    try {
      await using bridge = await start()
      await bridge.reaches('forwarding')
      await Promise.all([
        bridge.publish(30, 'sensors/a'),
        bridge.publish(1, 'sensors/large', {}, 30_000),
        bridge.publish(30, 'sensors/a'),
      ])
      await untilDead(bridge, 1, 'sensors/a')
      await outboxIsEmpty(bridge)
      expectAllBut(await arrivals(rabbit.url, queue), bridge.published, [30])
      expect(await deadLetters(bridge)).toEqual([
        {
          payload: expect.stringMatching(/^30 +$/),
          reason: 'delivery_limit',
          words: expect.stringMatching(/406.*PRECONDITION.*size/i),
        },
      ])
      expect(bridge.queues.get('telemetry')?.ledger.figures()).toMatchObject({
        accepted: bridge.published,
        settled: bridge.published - 1,
        dead_lettered: { delivery_limit: 1 },
      })
      expect(bridge.route('telemetry').parked).toBeNull()
    } finally {
      await rabbit.ctl([
        'eval',
        'persistent_term:put(max_message_size, 134217728), application:set_env(rabbit, max_message_size, 134217728).',
      ])
    }
  })

  test('to a topic that was forbidden under way (403): the others flow, and live ones are not taken for late', {
    timeout: DEADLINE_MS,
  }, async () => {
    await bindQueue(rabbit.url, queue, exchange)
    await using bridge = await start()
    await bridge.reaches('forwarding')
    await rabbit.ctl(['set_topic_permissions', 'guest', exchange, '^sensors\\.open', '.*'])
    try {
      await Promise.all([bridge.publish(2, 'sensors/secret'), bridge.publish(50, 'sensors/open')])
      await untilDead(bridge, 2, 'sensors/open')
      await outboxIsEmpty(bridge)
      const found = await arrivals(rabbit.url, queue)
      expectAllBut(found, bridge.published, [0, 1])
      expect(found.every(({ headers }) => headers['x-sluice-replay'] === undefined)).toBe(true)
      const dead = await deadLetters(bridge)
      expect(dead.map(({ payload }) => payload)).toEqual(['0', '1'])
      expect(dead.every(({ words }) => /403.*ACCESS_REFUSED/.test(words ?? ''))).toBe(true)
    } finally {
      await rabbit.ctl(['clear_topic_permissions', 'guest', exchange])
    }
  })
})

describe('messages that are refused one by one', () => {
  test('returned: retried with pauses while others pass, marked with how often, and dead letters in the end', {
    timeout: DEADLINE_MS,
  }, async () => {
    await bindQueue(rabbit.url, queue, exchange, { pattern: 'sensors.wanted' })
    await using bridge = await start()
    await bridge.reaches('forwarding')
    await Promise.all([bridge.publish(3, 'sensors/unwanted'), bridge.publish(3, 'sensors/wanted')])
    await untilDead(bridge, 3, 'sensors/wanted')
    await outboxIsEmpty(bridge)
    expectAllBut(await arrivals(rabbit.url, queue), bridge.published, [0, 1, 2])
    const dead = await deadLetters(bridge)
    expect(dead.map(({ payload }) => payload)).toEqual(['0', '1', '2'])
    expect(dead.every(({ words }) => /312 NO_ROUTE.*sensors\.unwanted/.test(words ?? ''))).toBe(true)
    expect(bridge.route('telemetry').returned).toBeGreaterThanOrEqual(9)
  })

  test('one that is wanted at its second attempt arrives and says that it was refused once', {
    timeout: DEADLINE_MS,
  }, async () => {
    await bindQueue(rabbit.url, queue, exchange, { pattern: 'sensors.wanted' })
    await using bridge = await start({ ...THREE_ATTEMPTS, retry: { ...PLAIN_POLICY.retry, firstMs: 1500 } })
    await bridge.reaches('forwarding')
    await bridge.publish(1, 'sensors/late')
    await bridge.publish(5, 'sensors/wanted')
    await eventually(() => bridge.core.topology.queue('telemetry').waitingCount === 1, { what: 'one that waits' })
    await bindQueue(rabbit.url, queue, exchange)
    await outboxIsEmpty(bridge)
    const found = await arrivals(rabbit.url, queue)
    expect(found.find(({ key }) => key === 'sensors.late')?.headers).toMatchObject({ 'x-sluice-attempts': 1 })
    expect(found.filter(({ headers }) => headers['x-sluice-attempts'] !== undefined)).toHaveLength(1)
  })

  test('where all of a route is refused nothing counts against any of them, however long it lasts', {
    timeout: DEADLINE_MS,
  }, async () => {
    await bindQueue(rabbit.url, queue, exchange)
    await using bridge = await start()
    await bridge.reaches('forwarding')
    await onChannel(rabbit.url, channel => channel.deleteQueue(queue))
    await bridge.publish(50, 'sensors/a')
    await eventually(() => bridge.route('telemetry').parked, { what: 'parked' })
    const { returned } = bridge.route('telemetry')
    await eventually(() => bridge.route('telemetry').returned > returned, {
      what: 'a probe',
      deadlineMs: 20_000,
    })
    await bindQueue(rabbit.url, queue, exchange)
    await outboxIsEmpty(bridge)
    expectAllBut(await arrivals(rabbit.url, queue), 50, [])
    expect(await deadLetters(bridge)).toEqual([])
  })
})

test('late data goes to its own exchange, with its own key', { timeout: DEADLINE_MS }, async () => {
  const late = `late-${exchange}`
  await bindQueue(rabbit.url, queue, exchange)
  await bindQueue(rabbit.url, `late-${queue}`, late)
  await using bridge = await BridgeUnderTest.start(rabbit.url, {
    telemetry: {
      from: 'sensors/#',
      exchange: { name: exchange, type: 'topic', declare: true },
      late: { exchange: late, keySuffix: '.late' },
    },
  })
  bridge.upstream.pause()
  await bridge.publish(5, 'sensors/a')
  bridge.upstream.resume()
  await bridge.reaches('forwarding')
  await bridge.publish(5, 'sensors/a')
  await bridge.settlesAll()
  const keys = async (from: string) => (await arrivals(rabbit.url, from)).map(({ key }) => key)
  expect(await keys(queue)).toEqual(Array.from({ length: 5 }, () => 'sensors.a'))
  expect(await keys(`late-${queue}`)).toEqual(Array.from({ length: 5 }, () => 'sensors.a.late'))
})
