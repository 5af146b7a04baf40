import { describe, expect, it } from 'vitest'
import { Collector } from '../../support/collector.ts'
import { memoryQueue } from '../../support/memory-queue.ts'

const numbers = (from: number, to: number): string[] => Array.from({ length: to - from }, (_, i) => String(from + i))

describe('Queue in memory', () => {
  it('delivers in order, up to the credit, and goes on as deliveries are settled', () => {
    const { queue, put } = memoryQueue()
    for (const n of numbers(0, 10)) put(n)
    const consumer = new Collector(queue, 3)
    queue.attach(consumer)
    expect(consumer.payloads()).toEqual(numbers(0, 3))
    consumer.settle(1)
    expect(consumer.payloads()).toEqual(numbers(0, 4))
    while (consumer.unsettled.length > 0) consumer.settle()
    expect(consumer.payloads()).toEqual(numbers(0, 10))
    expect(queue.depth).toBe(0)
    expect(queue.bytes).toBe(0)
    expect(queue.ledger.figures()).toMatchObject({ accepted: 10, settled: 10, queued: 0, in_flight: 0 })
  })

  it('puts a requeued message back to its place and says that it comes again', () => {
    const { queue, put } = memoryQueue()
    for (const n of numbers(0, 4)) put(n)
    const consumer = new Collector(queue, 2)
    queue.attach(consumer)
    consumer.requeue(0)
    expect(consumer.payloads()).toEqual(['0', '1', '0'])
    expect(consumer.deliveries.map(({ redelivered }) => redelivered)).toEqual([false, false, true])
  })

  it('gives a lost consumer’s deliveries to the others, in order', () => {
    const { queue, put } = memoryQueue()
    for (const n of numbers(0, 6)) put(n)
    const lost = new Collector(queue, 4)
    queue.attach(lost)
    const other = new Collector(queue, 10)
    queue.detach(lost)
    queue.attach(other)
    expect(other.payloads()).toEqual(numbers(0, 6))
    expect(other.deliveries.map(({ redelivered }) => redelivered)).toEqual([true, true, true, true, false, false])
    lost.settleAll()
    expect(queue.ledger.figures()).toMatchObject({ settled: 4 })
  })

  it('shares fairly among competing consumers', () => {
    const { queue, put } = memoryQueue()
    const consumers = [new Collector(queue), new Collector(queue), new Collector(queue)]
    for (const consumer of consumers) queue.attach(consumer)
    for (const n of numbers(0, 9)) put(n)
    expect(consumers.map(({ deliveries }) => deliveries.length)).toEqual([3, 3, 3])
  })

  it('settles each delivery once: a second settlement and an unknown position change nothing', () => {
    const { queue, put } = memoryQueue()
    put('a')
    const consumer = new Collector(queue)
    queue.attach(consumer)
    queue.settle(0)
    queue.settle(0)
    queue.requeue(0)
    queue.reject(0, 'rejected')
    queue.settle(4711)
    expect(queue.ledger.figures()).toMatchObject({ accepted: 1, settled: 1, queued: 0, in_flight: 0, dropped: {} })
    expect(queue.ledger.imbalance).toBe(0)
  })

  it('drops its oldest over the limit and books the reason, never what is in flight', () => {
    const { queue, put } = memoryQueue({ messages: 5, onFull: 'drop_oldest' })
    const consumer = new Collector(queue, 2)
    queue.attach(consumer)
    for (const n of numbers(0, 12)) put(n)
    expect(queue.depth).toBe(5)
    expect(queue.ledger.figures()).toMatchObject({ accepted: 12, in_flight: 2, queued: 3, dropped: { overflow: 7 } })
    consumer.settleAll()
    consumer.settleAll()
    consumer.settleAll()
    expect(consumer.payloads()).toEqual(['0', '1', '9', '10', '11'])
    expect(queue.ledger.imbalance).toBe(0)
  })

  it('expires what has waited too long, from the front', () => {
    const { queue, put, time } = memoryQueue({ ageMs: 5 })
    for (const n of numbers(0, 8)) put(n)
    time.nowMs = 11
    queue.expire()
    expect(queue.ledger.figures()).toMatchObject({ accepted: 8, expired: 5, queued: 3 })
  })

  it('gives its memory back when it is emptied and when it is deleted', () => {
    const { queue, put, memory } = memoryQueue()
    const payload = 'x'.repeat(1000)
    for (let i = 0; i < 5000; i++) put(payload)
    expect(memory.usedBytes).toBeGreaterThan(5_000_000)
    const consumer = new Collector(queue, 100)
    queue.attach(consumer)
    while (queue.depth > 0) consumer.settleAll()
    expect(memory.usedBytes).toBeLessThan(300_000)
    for (let i = 0; i < 100; i++) put(payload)
    queue.delete('session_ended')
    expect(memory.usedBytes).toBe(0)
    expect(queue.ledger.imbalance).toBe(0)
  })

  it('takes a record larger than a segment', () => {
    const { queue, put } = memoryQueue()
    const huge = 'y'.repeat(1024 * 1024)
    put('before')
    put(huge)
    put('after')
    const consumer = new Collector(queue)
    queue.attach(consumer)
    expect(consumer.payloads()).toEqual(['before', huge, 'after'])
  })

  it('goes on delivering after a consumer has thrown: what it threw at is in flight', () => {
    const { queue, put } = memoryQueue()
    put('bad')
    put('good')
    const seen: number[] = []
    queue.attach({ credit: 0, deliver: () => undefined })
    const consumer = {
      credit: 1,
      deliver: (_bytes: Buffer, _at: number, position: number) => {
        seen.push(position)
        if (position === 0) throw new TypeError('a mistake in a consumer')
        consumer.credit = 0
      },
    }
    expect(() => queue.attach(consumer)).toThrow('a mistake in a consumer')
    queue.pump()
    expect([seen, queue.inFlight, queue.depth]).toEqual([[0, 1], 2, 2])
  })

  it('survives a consumer that settles within its delivery', () => {
    const { queue, put } = memoryQueue()
    const seen: number[] = []
    queue.attach({
      credit: 1,
      deliver: (_bytes, _at, position) => {
        seen.push(position)
        queue.settle(position)
        queue.pump()
      },
    })
    for (const n of numbers(0, 1000)) put(n)
    expect(seen).toEqual(Array.from({ length: 1000 }, (_, i) => i))
    expect(queue.depth).toBe(0)
  })
})
