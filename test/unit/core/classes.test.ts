/** Two classes of one queue: what comes in while the link forwards overtakes what had to wait for it (design.md section 2, "Order"). */
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Clock, systemClock } from '../../../src/core/clock.ts'
import type { Queue } from '../../../src/core/queue.ts'
import { ClassCollector } from '../../support/class-collector.ts'
import { Collector } from '../../support/collector.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

/** More than a lane keeps of a backlog in memory. */
const BEYOND_MEMORY = 200
const LARGE_BYTES = 16 * 1024

class Bench {
  readonly core: CoreUnderTest
  readonly queue: Queue
  readonly time: { aheadMs: number }
  #next = 0

  constructor(core: CoreUnderTest, queue: Queue, time: { aheadMs: number }) {
    this.core = core
    this.queue = queue
    this.time = time
  }

  /** Publishes messages 0, 1, … each padded to a size, without waiting for their receipts. */
  send(count: number, bytes = 0): void {
    for (let i = 0; i < count; i++) {
      const payload = `${this.#next++} ${'.'.repeat(bytes)}`
      this.core.router.publish(messageTo('a', payload)).catch(() => undefined)
    }
  }

  get sent(): number {
    return this.#next
  }
}

async function withBench(test: (bench: Bench, directory: string) => Promise<void>): Promise<void> {
  await using directory = await tempDir()
  const live = join(directory.path, 'live')
  const time = { aheadMs: 0 }
  const clock: Clock = { wallMs: systemClock.wallMs, monotonicMs: () => systemClock.monotonicMs() + time.aheadMs }
  await using core = await CoreUnderTest.open(live, { clock })
  await test(new Bench(core, await core.queue('outbox', '#'), time), directory.path)
}

const numbersOf = (payloads: readonly string[]): number[] => payloads.map(payload => Number.parseInt(payload, 10))
const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

describe('a queue with two classes', () => {
  it('sends what comes in ahead of the backlog, each class in its own order and marked as what it is', () =>
    withBench(async bench => {
      bench.send(10)
      const link = ClassCollector.on(bench.queue)
      expect(numbersOf(link.backlog)).toEqual(range(0, 10))
      link.backlogCredit = 0
      bench.queue.setForwarding(false)
      bench.send(10)
      bench.queue.setForwarding(true)
      bench.send(5)
      expect(numbersOf(link.live)).toEqual(range(20, 25))
      link.backlogCredit = 4
      bench.queue.pump()
      bench.send(1)
      link.backlogCredit = Number.POSITIVE_INFINITY
      bench.queue.pump()
      expect(numbersOf(link.backlog)).toEqual(range(0, 20))
      expect(numbersOf(link.live)).toEqual(range(20, 26))
      link.settleAll()
      expect(bench.queue.ledger.figures()).toMatchObject({ accepted: 26, settled: 26, queued: 0, in_flight: 0 })
    }))

  it('goes on with the backlog while live messages have no credit, and does not take these for backlog', () =>
    withBench(async bench => {
      bench.send(5)
      const link = ClassCollector.on(bench.queue)
      link.liveCredit = 0
      bench.send(5)
      expect(numbersOf(link.payloads())).toEqual(range(0, 5))
      link.liveCredit = 5
      bench.queue.pump()
      expect(numbersOf(link.live)).toEqual(range(5, 10))
    }))

  it('sends a live message that has waited more than five seconds as backlog, for good and in its place', () =>
    withBench(async bench => {
      const link = ClassCollector.on(bench.queue)
      link.liveCredit = 0
      link.backlogCredit = 0
      bench.send(2)
      bench.time.aheadMs += 5001
      bench.send(2)
      link.liveCredit = 1
      bench.queue.pump()
      link.backlogCredit = 1
      bench.queue.pump()
      expect(numbersOf(link.live)).toEqual([2])
      expect(numbersOf(link.backlog)).toEqual([0])
      link.liveCredit = 9
      link.backlogCredit = 9
      bench.queue.pump()
      expect(numbersOf(link.live)).toEqual([2, 3])
      expect(numbersOf(link.backlog)).toEqual([0, 1])
    }))

  it.each([
    ['within five seconds live messages that came back are live again, in front of those that came later', 0, 'live'],
    ['after five seconds they are backlog', 5001, 'backlog'],
  ] as const)('after a lost link: %s', (_what, awayMs, whose) =>
    withBench(async bench => {
      const first = ClassCollector.on(bench.queue)
      bench.send(3)
      expect(numbersOf(first.live)).toEqual([0, 1, 2])
      bench.queue.setForwarding(false)
      bench.queue.detach(first)
      bench.send(3)
      bench.time.aheadMs += awayMs
      const second = ClassCollector.on(bench.queue)
      bench.send(2)
      expect(numbersOf(second[whose])).toEqual(whose === 'live' ? [0, 1, 2, 6, 7] : [0, 1, 2, 3, 4, 5])
      expect(second.deliveries.find(({ payload }) => payload.startsWith('0 '))?.attempts).toBe(1)
    }),
  )

  it('with order: strict lets nothing overtake, and says of each message which class it is', () =>
    withBench(async bench => {
      bench.send(5)
      const link = ClassCollector.on(bench.queue, { isStrict: true })
      link.backlogCredit = 0
      bench.send(2)
      bench.queue.setForwarding(false)
      bench.send(2)
      bench.queue.setForwarding(true)
      bench.send(2)
      link.backlogCredit = 0
      bench.queue.pump()
      expect(numbersOf(link.payloads())).toEqual(range(0, 7))
      link.backlogCredit = 9
      bench.queue.pump()
      expect(numbersOf(link.payloads())).toEqual(range(0, 11))
      expect(numbersOf(link.live)).toEqual([5, 6, 9, 10])
    }))

  it('acknowledges a live message when its upstream has it: it is not written because there is a backlog', () =>
    withBench(async bench => {
      bench.send(100)
      await bench.core.schedule.flush()
      const link = ClassCollector.on(bench.queue)
      link.backlogCredit = 0
      const written = bench.core.store.counters.acceptedBytes
      for (let i = 0; i < 20; i++) {
        bench.send(1)
        link.unsettled = link.unsettled.filter(({ payload, position }) => {
          if (numbersOf([payload])[0] !== bench.sent - 1) return true
          bench.queue.settle(position)
          return false
        })
      }
      await bench.core.schedule.flush()
      expect(bench.core.store.counters.acceptedBytes).toBe(written)
      expect(bench.queue.ledger.settled).toBe(20)
    }))

  it('writes a live message at once while it can not be sent', () =>
    withBench(async bench => {
      const link = ClassCollector.on(bench.queue)
      link.liveCredit = 0
      await bench.core.router.publish(messageTo('a', 'x'))
      expect(bench.queue.ledger.queued).toBe(1)
      expect(bench.core.store.counters.acceptedBytes).toBeGreaterThan(0)
    }))

  it('keeps live messages in memory to be sent when they can, though they are on disk, behind a backlog that is not in memory', () =>
    withBench(async bench => {
      bench.send(BEYOND_MEMORY, LARGE_BYTES)
      await bench.core.schedule.flush()
      const link = ClassCollector.on(bench.queue)
      link.backlogCredit = 0
      link.liveCredit = 0
      bench.send(10, LARGE_BYTES)
      await bench.core.schedule.flush()
      link.liveCredit = 10
      bench.queue.pump()
      expect(numbersOf(link.live)).toEqual(range(BEYOND_MEMORY, BEYOND_MEMORY + 10))
    }))

  it('sends as backlog, in its place, what of many waiting live messages memory did not hold', () =>
    withBench(async bench => {
      const link = ClassCollector.on(bench.queue)
      link.liveCredit = 0
      for (let i = 0; i < BEYOND_MEMORY / 10; i++) {
        bench.send(10, LARGE_BYTES)
        await bench.core.schedule.flush()
      }
      expect(bench.queue.heldBytes).toBeLessThan(3 * 1024 ** 2)
      link.liveCredit = Number.POSITIVE_INFINITY
      link.backlogCredit = Number.POSITIVE_INFINITY
      bench.queue.pump()
      await eventually(() => link.deliveries.length === BEYOND_MEMORY, { what: 'all of them' })
      expect(link.live.length).toBeGreaterThan(10)
      expect(link.backlog.length).toBeGreaterThan(10)
      for (const part of [numbersOf(link.live), numbersOf(link.backlog)]) {
        expect(part).toEqual(part.toSorted((a, b) => a - b))
      }
    }))

  it('does not take for delivered, after a restart, what live messages had overtaken', () =>
    withBench(async (bench, directory) => {
      bench.send(50)
      await bench.core.schedule.flush()
      const link = ClassCollector.on(bench.queue, { backlogCredit: 3 })
      link.liveCredit = 4
      bench.send(5)
      await bench.core.schedule.flush()
      await bench.core.close()
      await using after = await CoreUnderTest.open(join(directory, 'live'))
      const queue = await after.queue('outbox', '#')
      const found = new Collector(queue)
      queue.attach(found)
      await eventually(() => found.deliveries.length === 55, { what: 'all of them' })
      const before = found.deliveries.filter(({ redelivered }) => redelivered).map(({ payload }) => payload)
      expect(numbersOf(before)).toEqual([0, 1, 2])
    }))
})

/** What the queue is put through, step by step. */
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('send' as const), count: fc.integer({ min: 1, max: 12 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(10, 2000, 6000) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('settle' as const), count: fc.integer({ min: 1, max: 30 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('credit' as const), live: fc.nat(9), backlog: fc.nat(9) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cut' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('link' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('flush' as const) }) },
)

describe('whatever the link does', () => {
  it.each([
    ['live_first', false],
    ['strict', true],
  ])(
    'with order: %s every message is delivered, each class in order, and nothing becomes live again that was backlog',
    async (_order, isStrict) => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 60 }), async steps => {
          await withBench(async bench => {
            const { queue } = bench
            const first = { live: [] as number[], backlog: [] as number[] }
            const seen = new Map<number, 'live' | 'backlog'>()
            const at: { link: ClassCollector | null } = { link: null }
            const note = (): void => {
              for (const { payload, note: bits } of at.link?.deliveries.splice(0) ?? []) {
                const number = Number.parseInt(payload, 10)
                const is = (bits & 1) === 0 ? 'backlog' : 'live'
                const was = seen.get(number)
                if (was === undefined) first[is].push(number)
                expect(was === 'backlog' && is === 'live').toBe(false)
                seen.set(number, is)
              }
            }
            const connect = (): void => {
              at.link ??= ClassCollector.on(queue, { isStrict })
            }
            for (const act of steps) {
              const { link } = at
              if (act.kind === 'send') bench.send(act.count, LARGE_BYTES)
              else if (act.kind === 'wait') bench.time.aheadMs += act.ms
              else if (act.kind === 'flush') await bench.core.schedule.flush()
              else if (act.kind === 'link') connect()
              else if (link === null) continue
              else if (act.kind === 'settle') {
                for (const { position } of link.unsettled.splice(0, act.count)) queue.settle(position)
                queue.pump()
              } else if (act.kind === 'credit') {
                link.liveCredit = act.live
                link.backlogCredit = act.backlog
                queue.pump()
              } else {
                note()
                queue.setForwarding(false)
                queue.detach(link)
                at.link = null
              }
              note()
              expect(queue.ledger.imbalance).toBe(0)
            }
            connect()
            await eventually(
              () => {
                const { link } = at
                if (link === null) return false
                link.liveCredit = Number.POSITIVE_INFINITY
                link.backlogCredit = Number.POSITIVE_INFINITY
                queue.pump()
                note()
                link.settleAll()
                note()
                return queue.depth === 0
              },
              { what: 'an empty queue' },
            )
            expect(seen.size).toBe(bench.sent)
            for (const part of [first.live, first.backlog]) expect(part).toEqual(part.toSorted((a, b) => a - b))
          })
        }),
        { numRuns: 40, interruptAfterTimeLimit: 6000 },
      )
    },
  )
})
