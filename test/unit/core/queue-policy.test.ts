import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import type { DeadLetterReason, DeadLetterTarget } from '../../../src/core/dead-letter.ts'
import { getMessages } from '../../../src/core/get.ts'
import type { MoveOutcome } from '../../../src/core/mover.ts'
import { decodeRecord } from '../../../src/model/message.ts'
import { PLAIN_POLICY } from '../../../src/model/queue-policy.ts'
import { Collector } from '../../support/collector.ts'
import { eventually } from '../../support/eventually.ts'
import { type MemoryQueue, memoryQueue } from '../../support/memory-queue.ts'

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => String(from + i))

/** Writes down what it takes over, as long as it has room. */
class DeadLetters implements DeadLetterTarget {
  readonly address = { exchange: '', key: 'dead' }
  hasRoom = true
  readonly taken: [payload: string, reason: DeadLetterReason][] = []

  take(bytes: Buffer, at: number, reason: DeadLetterReason): MoveOutcome {
    if (this.hasRoom) this.taken.push([decodeRecord(bytes, at).payload.toString(), reason])
    return this.hasRoom ? 'moved' : 'held'
  }
}

function filled({ put }: MemoryQueue, count: number): void {
  for (const n of numbers(0, count)) put(n)
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})

afterEach(() => {
  vi.useRealTimers()
})

describe('a failed delivery', () => {
  it('waits while others pass it, longer each time, and says how often it was tried', () => {
    const q = memoryQueue()
    const consumer = new Collector(q.queue, 1)
    filled(q, 3)
    q.queue.attach(consumer)
    consumer.fail()
    expect(consumer.payloads()).toEqual(['0', '1'])
    expect(q.queue.ledger.figures()).toMatchObject({ queued: 2, in_flight: 1 })
    consumer.settle()
    consumer.settle()
    vi.advanceTimersByTime(999)
    expect(consumer.payloads()).toEqual(['0', '1', '2'])
    vi.advanceTimersByTime(1)
    consumer.fail()
    vi.advanceTimersByTime(1999)
    expect(consumer.deliveries.length).toBe(4)
    vi.advanceTimersByTime(1)
    expect(consumer.deliveries.map(({ payload, attempts }) => [payload, attempts])).toEqual([
      ['0', 0],
      ['1', 0],
      ['2', 0],
      ['0', 1],
      ['0', 2],
    ])
    consumer.settle()
    expect(q.queue.ledger.figures()).toMatchObject({ accepted: 3, settled: 3, queued: 0, in_flight: 0 })
  })

  it('never waits longer than the longest pause', () => {
    const q = memoryQueue({}, { retry: { ...PLAIN_POLICY.retry, firstMs: 1000, maxMs: 3000 } })
    const consumer = new Collector(q.queue)
    q.queue.attach(consumer)
    q.put('a')
    for (const pauseMs of [1000, 2000, 3000, 3000]) {
      const before = consumer.deliveries.length
      consumer.fail()
      vi.advanceTimersByTime(pauseMs - 1)
      expect(consumer.deliveries.length).toBe(before)
      vi.advanceTimersByTime(1)
      expect(consumer.deliveries.length).toBe(before + 1)
    }
  })

  it('is a dead letter after the last permitted attempt, or dropped where there is no target', () => {
    for (const deadLetters of [new DeadLetters(), null]) {
      const q = memoryQueue({}, { maxAttempts: 3 })
      q.queue.deadLetter = deadLetters
      const consumer = new Collector(q.queue)
      q.queue.attach(consumer)
      q.put('poison')
      for (let attempt = 1; attempt <= 3; attempt++) {
        consumer.fail()
        vi.advanceTimersByTime(10_000)
      }
      expect(consumer.deliveries.map(({ attempts }) => attempts)).toEqual([0, 1, 2])
      expect(deadLetters?.taken ?? [['poison', 'delivery_limit']]).toEqual([['poison', 'delivery_limit']])
      const { dropped, dead_lettered } = q.queue.ledger.figures()
      expect([dropped, dead_lettered]).toEqual(
        deadLetters === null ? [{ delivery_limit: 1 }, {}] : [{}, { delivery_limit: 1 }],
      )
      expect(q.queue.ledger.imbalance).toBe(0)
    }
  })

  it('is what a lost consumer leaves behind where attempts count, and goes back to its place at once', () => {
    const deadLetters = new DeadLetters()
    const q = memoryQueue({}, { maxAttempts: 2 })
    q.queue.deadLetter = deadLetters
    filled(q, 2)
    for (let lost = 0; lost < 2; lost++) {
      const consumer = new Collector(q.queue, 1)
      q.queue.attach(consumer)
      expect(consumer.deliveries).toMatchObject([{ payload: '0', attempts: lost }])
      q.queue.detach(consumer)
    }
    expect(deadLetters.taken).toEqual([['0', 'delivery_limit']])
    expect(q.queue.depth).toBe(1)
  })

  it('does not count for a requeue, a lost consumer without a limit, or a get', async () => {
    const q = memoryQueue({}, { maxAttempts: 1 })
    const consumer = new Collector(q.queue, 1)
    q.queue.attach(consumer)
    q.put('a')
    for (let n = 0; n < 3; n++) consumer.requeue()
    expect(consumer.deliveries.map(({ attempts }) => attempts)).toEqual([0, 1, 2, 3])
    consumer.settle()
    q.queue.detach(consumer)
    q.put('b')
    const got: string[] = []
    for (let n = 0; n < 3; n++) {
      await getMessages(q.queue, { count: 1, maxBytes: 1024, ackMode: 'requeue' }, (bytes, at) =>
        got.push(decodeRecord(bytes, at).payload.toString()),
      )
    }
    expect(got).toEqual(['b', 'b', 'b'])
    q.queue.policy = PLAIN_POLICY
    for (let n = 0; n < 3; n++) {
      const lost = new Collector(q.queue)
      q.queue.attach(lost)
      q.queue.detach(lost)
    }
    expect(q.queue.ledger.figures()).toMatchObject({ queued: 1, dropped: {} })
  })

  it('parks the queue when as many wait as may, until one of them is due', () => {
    const q = memoryQueue({}, { retry: { firstMs: 1000, maxMs: 1000, waiting: 2 } })
    const consumer = new Collector(q.queue, 1)
    filled(q, 4)
    q.queue.attach(consumer)
    consumer.fail()
    vi.advanceTimersByTime(400)
    consumer.fail()
    expect(q.queue.isParked).toBe(true)
    expect(consumer.payloads()).toEqual(['0', '1'])
    vi.advanceTimersByTime(600)
    expect(consumer.payloads()).toEqual(['0', '1', '0'])
    consumer.settle()
    expect(consumer.payloads()).toEqual(['0', '1', '0', '2'])
  })
})

describe('a message that has waited too long', () => {
  it('is not delivered: its own expiry and the time to live of the queue are looked at when it comes to the front', () => {
    const q = memoryQueue({}, { ttlMs: 100 })
    q.put('short', { expiryMs: 10 })
    q.put('long', { expiryMs: 1000 })
    q.put('plain')
    q.time.nowMs = 50
    const consumer = new Collector(q.queue, 1)
    q.queue.attach(consumer)
    expect(consumer.payloads()).toEqual(['long'])
    q.time.nowMs = 104
    consumer.settle()
    expect(consumer.payloads()).toEqual(['long'])
    expect(q.queue.ledger.figures()).toMatchObject({ accepted: 3, settled: 1, expired: 2 })
  })

  it('leaves from behind others when its own time is over, with nobody to deliver it to [MQTT-3.3.2-5]', async () => {
    const q = memoryQueue()
    q.put('kept')
    for (const n of numbers(0, 3000)) q.put(n, { expiryMs: 1000 })
    q.put('long', { expiryMs: 60_000 })
    const pass = (ms: number): void => {
      q.time.nowMs += ms
      vi.advanceTimersByTime(ms)
      for (const queue of q.expiring) queue.sweep()
    }
    pass(500)
    expect(q.queue.ledger.figures()).toMatchObject({ queued: 3002, expired: 0 })
    pass(3600)
    await eventually(() => q.queue.depth === 2, { what: 'those that expire gone' })
    expect(q.queue.ledger.figures()).toMatchObject({ queued: 2, expired: 3000 })
    expect(q.expiring.size).toBe(1)
    pass(60_000)
    await eventually(() => q.expiring.size === 0, { what: 'nothing left that expires' })
    const consumer = new Collector(q.queue, 10)
    q.queue.attach(consumer)
    expect(consumer.payloads()).toEqual(['kept'])
    expect(q.queue.ledger.imbalance).toBe(0)
  })

  it('stays from behind others while it would be a dead letter without room', async () => {
    const deadLetters = new DeadLetters()
    deadLetters.hasRoom = false
    const q = memoryQueue()
    q.queue.deadLetter = deadLetters
    q.put('kept')
    q.put('short', { expiryMs: 1000 })
    q.time.nowMs = 2000
    vi.advanceTimersByTime(2000)
    q.queue.sweep()
    await eventually(() => q.queue.isHoldingDeadLetters, { what: 'the dead letter refused' })
    expect(q.queue.depth).toBe(2)
    deadLetters.hasRoom = true
    await eventually(
      () => {
        q.queue.sweep()
        return q.queue.depth === 1
      },
      { what: 'the dead letter taken' },
    )
    expect(deadLetters.taken).toEqual([['short', 'expired']])
  })

  it('leaves without a consumer, however many there are, and becomes a dead letter if there is a target', async () => {
    const deadLetters = new DeadLetters()
    const q = memoryQueue({}, { ttlMs: 10_000 })
    q.queue.deadLetter = deadLetters
    filled(q, 5000)
    q.time.nowMs = 14_500
    q.queue.expire()
    await eventually(() => q.queue.depth === 501, { what: '501 messages left' })
    expect(deadLetters.taken.length).toBe(4499)
    expect(deadLetters.taken.at(-1)).toEqual(['4498', 'expired'])
    expect(q.queue.ledger.figures()).toMatchObject({ queued: 501, dead_lettered: { expired: 4499 }, expired: 0 })
    expect(q.queue.ledger.imbalance).toBe(0)
  })
})

describe('a dead letter without room', () => {
  it('stays, is offered again, and holds up nobody', () => {
    const deadLetters = new DeadLetters()
    deadLetters.hasRoom = false
    const q = memoryQueue()
    q.queue.deadLetter = deadLetters
    const consumer = new Collector(q.queue, 1)
    filled(q, 2)
    q.queue.attach(consumer)
    consumer.reject()
    expect(consumer.payloads()).toEqual(['0', '1'])
    expect(q.queue.isHoldingDeadLetters).toBe(true)
    consumer.settle()
    vi.advanceTimersByTime(5000)
    expect(q.queue.depth).toBe(1)
    deadLetters.hasRoom = true
    vi.advanceTimersByTime(5000)
    expect(deadLetters.taken).toEqual([['0', 'rejected']])
    expect(consumer.payloads()).toEqual(['0', '1'])
    expect(q.queue.isHoldingDeadLetters).toBe(false)
    expect(q.queue.ledger.figures()).toMatchObject({
      accepted: 2,
      settled: 1,
      dead_lettered: { rejected: 1 },
      queued: 0,
    })
  })

  it('parks the queue when too many wait for it', () => {
    const deadLetters = new DeadLetters()
    deadLetters.hasRoom = false
    const q = memoryQueue({}, { ttlMs: 10, retry: { ...PLAIN_POLICY.retry, waiting: 2 } })
    q.queue.deadLetter = deadLetters
    filled(q, 4)
    q.time.nowMs = 100
    const consumer = new Collector(q.queue)
    q.queue.attach(consumer)
    q.queue.expire()
    expect([consumer.deliveries.length, q.queue.waitingCount, q.queue.depth]).toEqual([0, 2, 4])
    deadLetters.hasRoom = true
    vi.advanceTimersByTime(5000)
    expect(deadLetters.taken.length).toBe(4)
  })
})

describe('a full queue with a dead-letter target', () => {
  it('hands over its oldest, or its newest, by its policy', () => {
    for (const [onFull, kept] of [
      ['drop_oldest', ['2', '3']],
      ['drop_newest', ['0', '1']],
    ] as const) {
      const deadLetters = new DeadLetters()
      const q = memoryQueue({ messages: 2, onFull })
      q.queue.deadLetter = deadLetters
      filled(q, 4)
      const consumer = new Collector(q.queue)
      q.queue.attach(consumer)
      expect(consumer.payloads()).toEqual(kept)
      expect(deadLetters.taken.map(([payload]) => payload)).toEqual(
        numbers(0, 4).filter(n => !consumer.payloads().includes(n)),
      )
      expect(q.queue.ledger.figures()).toMatchObject({ accepted: 4, dead_lettered: { maxlen: 2 } })
      expect(q.queue.ledger.imbalance).toBe(0)
    }
  })

  it('refuses when the target has no room, and takes again when it has', () => {
    const deadLetters = new DeadLetters()
    const q = memoryQueue({ messages: 2, onFull: 'drop_oldest' })
    q.queue.deadLetter = deadLetters
    deadLetters.hasRoom = false
    filled(q, 3)
    expect(q.queue.admit(1, 1)).toBe('refuse')
    deadLetters.hasRoom = true
    q.queue.expire()
    expect(q.queue.admit(1, 1)).toBe('take')
    expect(deadLetters.taken).toEqual([['0', 'maxlen']])
  })
})

describe('priorities', () => {
  it('come before age; those above the highest of the queue count as the highest', () => {
    const q = memoryQueue({}, { maxPriority: 3 })
    q.put('low')
    q.put('high', { priority: 3 })
    q.put('higher', { priority: 9 })
    q.put('middle', { priority: 1 })
    const consumer = new Collector(q.queue, 2)
    q.queue.attach(consumer)
    expect(consumer.payloads()).toEqual(['high', 'higher'])
    consumer.requeue(1)
    expect(consumer.deliveries.at(-1)).toMatchObject({ payload: 'higher', attempts: 1 })
    consumer.settleAll()
    consumer.settleAll()
    expect(consumer.payloads()).toEqual(['high', 'higher', 'higher', 'middle', 'low'])
    expect(q.queue.ledger.figures()).toMatchObject({ accepted: 4, settled: 4 })
    expect(q.queue.bytes).toBe(0)
  })

  it('decide what gives way: the oldest of the lowest', () => {
    const q = memoryQueue({ messages: 2, onFull: 'drop_oldest' }, { maxPriority: 1 })
    q.put('important', { priority: 1 })
    for (const n of ['0', '1', '2']) q.put(n)
    const consumer = new Collector(q.queue)
    q.queue.attach(consumer)
    expect(consumer.payloads()).toEqual(['important', '2'])
  })

  it('are shown in the order in which they would be delivered, and change nothing about what waits or is emptied', async () => {
    const q = memoryQueue({}, { maxPriority: 9 })
    q.put('low')
    q.put('high', { priority: 9 })
    const seen: string[] = []
    await q.queue.peek(10, (bytes, at) => seen.push(decodeRecord(bytes, at).payload.toString()))
    expect(seen).toEqual(['high', 'low'])
    const consumer = new Collector(q.queue)
    q.queue.attach(consumer)
    consumer.fail(0)
    consumer.requeue(0)
    q.queue.detach(consumer)
    expect(await q.queue.purge()).toBe(2)
    expect(q.queue.ledger.figures()).toMatchObject({ accepted: 2, dropped: { purged: 2 }, queued: 0 })
    expect(q.queue.waitingCount).toBe(0)
  })
})

describe('consumers of one queue', () => {
  it('do not wait for a slow one', () => {
    const q = memoryQueue()
    const slow = new Collector(q.queue, 1)
    const quick = new Collector(q.queue, 1)
    q.queue.attach(slow)
    q.queue.attach(quick)
    for (const n of numbers(0, 10)) {
      q.put(n)
      quick.settle()
    }
    expect(slow.deliveries.length).toBe(1)
    expect(quick.deliveries.length).toBe(9)
  })

  it('get everything in turn where only one is active: the first, and the next when it goes', () => {
    const q = memoryQueue({}, { hasSingleActiveConsumer: true })
    const [first, second, third] = [new Collector(q.queue), new Collector(q.queue), new Collector(q.queue)]
    for (const consumer of [first, second, third]) q.queue.attach(consumer)
    filled(q, 2)
    expect([first, second, third].map(({ deliveries }) => deliveries.length)).toEqual([2, 0, 0])
    q.queue.detach(second)
    q.queue.detach(first)
    expect(third.payloads()).toEqual(['0', '1'])
  })

  it('are refused beyond the first where the queue is exclusive, until it is free again', () => {
    const q = memoryQueue({}, { isExclusive: true })
    const [first, second] = [new Collector(q.queue), new Collector(q.queue)]
    q.queue.attach(first)
    expect(() => q.queue.attach(second)).toThrow(expect.objectContaining({ code: 'QUEUE_IN_USE' }))
    q.put('a')
    q.queue.detach(first)
    q.queue.attach(second)
    expect(second.payloads()).toEqual(['a'])
  })

  it('are refused beyond 255, with a reason', () => {
    const { queue } = memoryQueue()
    for (let n = 0; n < 255; n++) queue.attach(new Collector(queue))
    expect(() => queue.attach(new Collector(queue))).toThrow(/255 consumers.*end one first/)
  })
})
