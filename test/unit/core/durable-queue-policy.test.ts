import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import type { DeadLetterTarget } from '../../../src/core/dead-letter.ts'
import type { Queue } from '../../../src/core/queue.ts'
import { decodeRecord } from '../../../src/model/message.ts'
import { PLAIN_POLICY, type QueuePolicy } from '../../../src/model/queue-policy.ts'
import { Collector } from '../../support/collector.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const LONG_PAUSE = { firstMs: 3_600_000, maxMs: 3_600_000, waiting: 10_000 }
const SHORT_PAUSE = { firstMs: 1, maxMs: 1, waiting: 10_000 }

function declare(core: CoreUnderTest, policy: Partial<QueuePolicy>, limits = WIDE_LIMITS): Promise<Queue> {
  return core.topology.declareQueue({ name: 'jobs', origin: 'config', limits, qos0: 'buffer', policy })
}

const put = (core: CoreUnderTest, payload: string, priority = 0): Promise<unknown> =>
  core.router.publish({ ...messageTo('jobs', payload, { priority }), exchange: '' })

/** Stops in order and starts again on the same directory. */
async function restarted(core: CoreUnderTest, { path }: TempDir): Promise<CoreUnderTest> {
  await core.close()
  return CoreUnderTest.open(path)
}

/** What kill -9 leaves: another core on a copy of the files as they are now. */
async function killed(core: CoreUnderTest, directory: TempDir): Promise<CoreUnderTest> {
  await core.gate.stillness()
  const copy = join(directory.path, 'after')
  await cp(join(directory.path, 'store'), join(copy, 'store'), { recursive: true })
  core.gate.releaseCommits()
  await core.close()
  return CoreUnderTest.open(copy)
}

describe('after a restart', () => {
  it('a message that was rejected while its dead-letter target was full is not delivered again', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    const full = { ...WIDE_LIMITS, messages: 1 }
    await core.topology.declareQueue({ name: 'dead', origin: 'config', limits: full, qos0: 'buffer' })
    await core.router.publish({ ...messageTo('dead', 'in the way'), exchange: '' })
    await core.queue('jobs', 'jobs/#', WIDE_LIMITS, { exchange: '', key: 'dead' })
    await core.router.publish(messageTo('jobs/1', 'unwanted'))
    const before = new Collector(core.topology.queue('jobs'))
    core.topology.queue('jobs').attach(before)
    await eventually(() => before.unsettled.length === 1, { what: 'the delivery' })
    before.reject()
    await core.schedule.flush()
    core = await killed(core, directory)
    const queue = core.topology.queue('jobs')
    expect([queue.depth, queue.waitingCount]).toEqual([1, 1])
    const after = new Collector(queue)
    queue.attach(after)
    await core.topology.purgeQueue('dead')
    await eventually(() => core.topology.queue('dead').depth === 1, { deadlineMs: 10_000, what: 'the dead letter' })
    expect([after.deliveries, queue.depth, queue.ledger.imbalance]).toEqual([[], 0, 0])
    await core.close()
  })

  it('a message knows how often it failed, waits again, and is given up after the last attempt of its life', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    let queue = await declare(core, { maxAttempts: 3, retry: LONG_PAUSE })
    await put(core, 'poison')
    await put(core, 'sound')
    const consumer = new Collector(queue, 1)
    queue.attach(consumer)
    consumer.fail()
    expect(consumer.payloads()).toEqual(['poison', 'sound'])
    consumer.settle()
    queue.detach(consumer)
    core = await restarted(core, directory)
    queue = core.topology.queue('jobs')
    const next = new Collector(queue, 1)
    queue.attach(next)
    expect([queue.depth, queue.waitingCount, next.deliveries.length]).toEqual([1, 1, 0])
    queue.detach(next)
    // A shorter pause holds from the next failure on; the one that was begun goes with the process.
    await declare(core, { maxAttempts: 3, retry: SHORT_PAUSE })
    await core.topology.purgeQueue('jobs')
    await put(core, 'worse')
    queue.attach(next)
    for (const attempts of [0, 1]) {
      await eventually(() => next.unsettled.length === 1, { what: 'the next attempt' })
      expect(next.unsettled).toMatchObject([{ payload: 'worse', attempts }])
      next.fail()
    }
    await eventually(() => next.unsettled.length === 1, { what: 'the third attempt' })
    core = await restarted(core, directory)
    queue = core.topology.queue('jobs')
    const last = new Collector(queue, 1)
    queue.attach(last)
    await eventually(() => last.unsettled.length === 1, { what: 'the attempt after the restart' })
    expect(last.unsettled).toMatchObject([{ payload: 'worse', attempts: 2 }])
    last.fail()
    expect(queue.ledger.figures()).toMatchObject({
      accepted: 3,
      settled: 1,
      queued: 0,
      dropped: { purged: 1, delivery_limit: 1 },
    })
    expect(queue.ledger.imbalance).toBe(0)
    await core.close()
  })

  it('a message that has failed as often as it may is given up, and not delivered once more', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    let queue = await declare(core, { maxAttempts: 2, retry: SHORT_PAUSE })
    await put(core, 'poison')
    const consumer = new Collector(queue, 1)
    queue.attach(consumer)
    consumer.fail()
    queue.detach(consumer)
    core = await restarted(core, directory)
    queue = await declare(core, { maxAttempts: 1, retry: SHORT_PAUSE })
    const next = new Collector(queue, 1)
    queue.attach(next)
    await eventually(() => queue.depth === 0 || next.deliveries.length > 0, { what: 'what becomes of it' })
    expect(next.payloads()).toEqual([])
    expect(queue.ledger.figures()).toMatchObject({ accepted: 1, dropped: { delivery_limit: 1 } })
    await core.close()
  })

  it('after a kill, a message that was delivered from disk is redelivered, those behind it are not', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    const queue = await declare(core, {})
    for (const n of ['0', '1', '2', '3']) await put(core, n)
    const consumer = new Collector(queue, 2)
    queue.attach(consumer)
    // Written with the marks, within store.buffered_interval.
    const written = core.store.nextCommit
    await eventually(() => core.store.nextCommit > written, { what: 'the commit that knows of the deliveries' })
    core = await killed(core, directory)
    const again = new Collector(core.topology.queue('jobs'))
    core.topology.queue('jobs').attach(again)
    await eventually(() => again.deliveries.length === 4, { what: 'all messages' })
    expect(again.deliveries.map(({ redelivered }) => redelivered)).toEqual([true, true, false, false])
    await core.close()
  })

  it('priorities are as before, each in its order, and the ledger balances', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    let queue = await declare(core, { maxPriority: 2 })
    for (const n of ['0', '1', '2', '3', '4', '5']) await put(core, n, Number(n) % 3)
    const consumer = new Collector(queue, 1)
    queue.attach(consumer)
    consumer.settle()
    queue.detach(consumer)
    core = await restarted(core, directory)
    queue = core.topology.queue('jobs')
    const again = new Collector(queue)
    queue.attach(again)
    await eventually(() => again.deliveries.length === 5, { what: 'what was not settled' })
    expect(again.payloads()).toEqual(['5', '1', '4', '0', '3'])
    again.settleAll()
    core = await restarted(core, directory)
    expect(core.topology.queue('jobs').ledger.figures()).toMatchObject({ accepted: 6, settled: 6, queued: 0 })
    await core.close()
  })

  it('a queue that is declared with more priorities keeps what it has, and takes the new ones', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    await declare(core, {})
    await put(core, 'old')
    core = await restarted(core, directory)
    await declare(core, { maxPriority: 1 })
    await put(core, 'new', 1)
    core = await restarted(core, directory)
    const queue = await declare(core, { maxPriority: 1 })
    const consumer = new Collector(queue)
    queue.attach(consumer)
    await eventually(() => consumer.deliveries.length === 2, { what: 'both messages' })
    expect(consumer.payloads().toSorted()).toEqual(['new', 'old'])
    await core.declarations.bind(
      { source: 'amq.fanout', destination: { kind: 'queue', name: 'jobs' }, key: '', headers: null },
      'api',
    )
    await core.close()
  })
})

describe('a get', () => {
  it('beside the one active consumer gets nothing, and does not read the backlog for it', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await declare(core, { hasSingleActiveConsumer: true })
    const publishing: Promise<unknown>[] = []
    for (let n = 0; n < 3000; n++) publishing.push(put(core, 'x'.repeat(3000)))
    await Promise.all(publishing)
    const active = new Collector(queue, 0)
    queue.attach(active)
    let got = 0
    await core.topology.getMessages('jobs', { count: 10, maxBytes: 1024 ** 2, ackMode: 'ack' }, () => got++)
    expect([got, queue.depth]).toEqual([0, 3000])
    expect(queue.heldBytes).toBeLessThan(3 * 1024 ** 2)
    queue.detach(active)
    await core.topology.getMessages('jobs', { count: 10, maxBytes: 1024 ** 2, ackMode: 'ack' }, () => got++)
    expect([got, queue.depth]).toEqual([10, 2990])
  })
})

describe('a definition of an earlier version', () => {
  it('has neither policy nor lanes: the queue is a plain one, with all its messages', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    await core.declarations.declareQueue({ name: 'jobs', origin: 'api', limits: WIDE_LIMITS, qos0: 'buffer' })
    await put(core, 'a')
    await core.schedule.flush()
    const definition = { number: 1, name: 'jobs', origin: 'api', limits: WIDE_LIMITS, qos0: 'buffer' }
    const key = Buffer.concat([Buffer.from('dq'), Buffer.from([0, 0, 0, 1])])
    await core.schedule.change({ key, value: Buffer.from(JSON.stringify(definition)) })
    core = await restarted(core, directory)
    const queue = core.topology.queue('jobs')
    expect([queue.policy, queue.limits, queue.depth]).toEqual([PLAIN_POLICY, WIDE_LIMITS, 1])
    const consumer = new Collector(queue)
    queue.attach(consumer)
    await eventually(() => consumer.deliveries.length === 1, { what: 'the message' })
    expect(consumer.deliveries).toMatchObject([{ payload: 'a', attempts: 0 }])
    await core.close()
  })
})

describe('messages that wait', () => {
  it('take no memory with their segments, and all come again', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await declare(core, { retry: { ...LONG_PAUSE, firstMs: 300, maxMs: 300 } })
    const count = 4000
    const publishing: Promise<unknown>[] = []
    for (let n = 0; n < count; n++) publishing.push(put(core, `${n}:${'x'.repeat(3000)}`))
    await Promise.all(publishing)
    const failing = new Collector(queue, 100)
    queue.attach(failing)
    let passed = 0
    let most = 0
    await eventually(
      () => {
        while (failing.unsettled.length > 0) {
          if (passed++ % 60 === 0 && passed < count) failing.fail()
          else failing.settle()
        }
        most = Math.max(most, queue.waitingCount)
        return queue.depth === 0
      },
      { what: 'an empty queue', deadlineMs: 8000, intervalMs: 1 },
    )
    expect(most).toBeGreaterThan(10)
    expect(queue.heldBytes).toBeLessThan(3 * 1024 ** 2)
    const first = failing.deliveries.filter(({ attempts }) => attempts === 0)
    expect(first.map(({ payload }) => Number.parseInt(payload, 10))).toEqual(Array.from({ length: count }, (_, n) => n))
    expect(queue.ledger.figures()).toMatchObject({ accepted: count, settled: count, queued: 0, in_flight: 0 })
  })

  it('let go of their segments while they wait', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await declare(core, { retry: LONG_PAUSE })
    const count = 2000
    const publishing: Promise<unknown>[] = []
    for (let n = 0; n < count; n++) publishing.push(put(core, `${n}:${'x'.repeat(3000)}`))
    await Promise.all(publishing)
    const consumer = new Collector(queue, 50)
    queue.attach(consumer)
    let passed = 0
    await eventually(
      () => {
        while (consumer.unsettled.length > 0) {
          if (passed++ % 50 === 0) consumer.fail()
          else consumer.settle()
        }
        return queue.depth === 40 && queue.heldBytes < 2 * 1024 ** 2
      },
      { what: '40 messages waiting, their segments on disk only', deadlineMs: 8000 },
    )
    const seen: number[] = []
    await queue.peek(100, (bytes, at) => seen.push(Number.parseInt(decodeRecord(bytes, at).payload.toString(), 10)))
    expect(seen).toEqual(Array.from({ length: 40 }, (_, n) => n * 50))
    expect(await core.topology.purgeQueue('jobs')).toBe(40)
    expect(queue.ledger.figures()).toMatchObject({ accepted: count, queued: 0, dropped: { purged: 40 } })
    expect([queue.bytes, queue.ledger.imbalance]).toEqual([0, 0])
  })
})

describe('a dead letter that was never written', () => {
  it('is acknowledged to its publisher only by a commit, which is due at once', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await declare(core, {})
    const taken: string[] = []
    const target: DeadLetterTarget = {
      address: { exchange: '', key: 'dead' },
      take: (bytes, at, reason) => {
        taken.push(`${decodeRecord(bytes, at).payload.toString()} ${reason}`)
        return 'moved'
      },
    }
    queue.deadLetter = target
    const consumer = new Collector(queue)
    queue.attach(consumer)
    await core.gate.stillness()
    let isAcknowledged = false
    const publishing = put(core, 'a').then(() => {
      isAcknowledged = true
    })
    consumer.reject()
    await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    expect([taken, isAcknowledged]).toEqual([['a rejected'], false])
    core.gate.releaseCommits()
    await publishing
    expect(queue.ledger.figures()).toMatchObject({ accepted: 1, dead_lettered: { rejected: 1 }, queued: 0 })
  })
})

describe('a backlog on disk', () => {
  it('expires without a consumer, all of it', async () => {
    await using directory = await tempDir()
    const time = { monotonicMs: 0 }
    const clock: Clock = { monotonicMs: () => time.monotonicMs, wallMs: () => 1_700_000_000_000 + time.monotonicMs }
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const queue = await declare(core, { ttlMs: 1000 })
    const publishing: Promise<unknown>[] = []
    for (let n = 0; n < 1500; n++) publishing.push(put(core, `${n}:${'x'.repeat(3000)}`))
    await Promise.all(publishing)
    time.monotonicMs = 2000
    await put(core, 'young')
    core.topology.expire()
    await eventually(() => queue.depth === 1, { what: 'the young message alone' })
    expect(queue.ledger.figures()).toMatchObject({ accepted: 1501, expired: 1500, queued: 1 })
  })
})

describe('a message with an expiry, behind others', () => {
  it('is gone after a restart without being asked for, if its time was over [MQTT-3.3.2-5]', async () => {
    await using directory = await tempDir()
    const time = { monotonicMs: 0 }
    const clock: Clock = { monotonicMs: () => time.monotonicMs, wallMs: () => 1_700_000_000_000 + time.monotonicMs }
    {
      await using core = await CoreUnderTest.open(directory.path, { clock })
      await declare(core, {})
      await put(core, 'kept')
      for (const expiryMs of [10_000, 60_000]) {
        await core.router.publish({ ...messageTo('jobs', 'short-lived', { expiryMs }), exchange: '' })
      }
    }
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const queue = core.topology.queue('jobs')
    time.monotonicMs += 20_000
    await eventually(
      () => {
        core.topology.expire()
        return queue.depth === 2
      },
      { what: 'the one that expires first gone' },
    )
    expect(queue.ledger.figures()).toMatchObject({ accepted: 3, expired: 1, queued: 2 })
  })
})

describe('many queues with a backlog', () => {
  it('take no more than limits.memory and a quarter, though each grows in steps: together they took twice as much', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path, { memoryBytes: 4 * 1024 ** 2 })
    for (let n = 0; n < 100; n++) await core.queue(`q${n}`, '#')
    core.gate.holdCommits()
    const refused: unknown[] = []
    for (let n = 0; n < 100; n++) {
      core.router.publish(messageTo('all', 'x'.repeat(3000))).catch((error: unknown) => refused.push(error))
      expect(core.memory.usedBytes).toBeLessThanOrEqual(5 * 1024 ** 2)
    }
    core.gate.releaseCommits()
    await core.schedule.flush()
    expect(refused.length).toBeGreaterThan(50)
    expect(core.topology.queue('q0').depth).toBe(100 - refused.length)
    await core.close()
  })

  it('leave limits.memory to publishers: fronts are read only while there is room', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    const names = Array.from({ length: 16 }, (_, n) => `q${n}`)
    for (const name of names) await core.queue(name, name)
    const body = 'x'.repeat(3000)
    await Promise.all(
      names.flatMap(name => Array.from({ length: 180 }, () => core.router.publish(messageTo(name, body)))),
    )
    await core.close()
    core = await CoreUnderTest.open(directory.path, { memoryBytes: 4 * 1024 ** 2 })
    await eventually(
      () => {
        core.topology.expire()
        return core.memory.isTight
      },
      { what: 'the first fronts in memory' },
    )
    for (let n = 0; n < 10; n++) {
      core.topology.expire()
      await core.schedule.flush()
    }
    expect(core.memory.isPressed).toBe(false)
    const last = core.topology.queue('q15')
    const consumer = new Collector(last, 10)
    last.attach(consumer)
    await eventually(
      () => {
        consumer.settleAll()
        return last.depth === 0
      },
      { what: 'the last queue drained' },
    )
    expect(last.ledger.figures()).toMatchObject({ accepted: 180, settled: 180 })
    await core.close()
  })
})

describe('a queue with an expiry', () => {
  it('is deleted, with its backlog and its bindings, when nobody has consumed from it for so long', async () => {
    await using directory = await tempDir()
    const time = { monotonicMs: 0 }
    const clock: Clock = { monotonicMs: () => time.monotonicMs, wallMs: () => 1_700_000_000_000 + time.monotonicMs }
    const core = await CoreUnderTest.open(directory.path, { clock })
    const { declarations, topology } = core
    const spec = {
      name: 'jobs',
      origin: 'api',
      limits: WIDE_LIMITS,
      qos0: 'buffer',
      policy: { expiresMs: 1000 },
    } as const
    await declarations.declareQueue(spec)
    await declarations.bind(
      { source: 'amq.fanout', destination: { kind: 'queue', name: 'jobs' }, key: '', headers: null },
      'api',
    )
    await put(core, 'a')
    time.monotonicMs = 900
    const consumer = new Collector(topology.queue('jobs'))
    topology.queue('jobs').attach(consumer)
    time.monotonicMs = 2500
    declarations.expire()
    await core.schedule.flush()
    expect(topology.has('jobs')).toBe(true)
    topology.queue('jobs').detach(consumer)
    time.monotonicMs = 3400
    expect(await declarations.declareQueue(spec)).toBe('exists')
    time.monotonicMs = 4300
    declarations.expire()
    await core.schedule.flush()
    expect(topology.has('jobs')).toBe(true)
    time.monotonicMs = 4401
    declarations.expire()
    await eventually(() => !topology.has('jobs') && [...declarations.bindings()].length === 0, { what: 'it is gone' })
    await core.close()
    await using again = await CoreUnderTest.open(directory.path)
    expect([again.topology.has('jobs'), [...again.declarations.bindings()].length]).toEqual([false, 0])
  })
})

describe('a queue that is not durable', () => {
  it('is gone after a restart, with its bindings; by its name it may be declared anew, durable this time', async () => {
    await using directory = await tempDir()
    let core = await CoreUnderTest.open(directory.path)
    const spec = { name: 'jobs', origin: 'api', limits: WIDE_LIMITS, qos0: 'buffer' } as const
    const transient = { ...spec, isDurable: false }
    expect(await core.declarations.declareQueue(transient)).toBe('created')
    expect(await core.declarations.declareQueue(transient)).toBe('exists')
    await expect(core.declarations.declareQueue(spec)).rejects.toMatchObject({ code: 'DECLARATION_MISMATCH' })
    await core.declarations.bind(
      { source: 'amq.fanout', destination: { kind: 'queue', name: 'jobs' }, key: '', headers: null },
      'api',
    )
    await put(core, 'a')
    expect(core.topology.queue('jobs').depth).toBe(1)
    core = await restarted(core, directory)
    expect([core.topology.has('jobs'), [...core.declarations.bindings()].length]).toEqual([false, 0])
    await core.declarations.declareQueue(spec)
    await put(core, 'b')
    core = await restarted(core, directory)
    expect(core.topology.queue('jobs').policy).toEqual(PLAIN_POLICY)
    expect(core.topology.queue('jobs').depth).toBe(1)
    await core.declarations.deleteQueue('jobs')
    await core.close()
  })
})
