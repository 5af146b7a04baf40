import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Queue } from '../../src/core/queue.ts'
import { MQTT_EXCHANGE } from '../../src/model/message.ts'
import { Collector } from '../support/collector.ts'
import { eventually } from '../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../support/messages.ts'
import { tempDir } from '../support/temp-dir.ts'
import { CoreUnderTest } from '../support/with-core.ts'

/*
 * A durable queue against an array. The array knows what was acknowledged and what was settled; whatever the sequence of
 * publishing, consuming, settling, requeueing, failing, losing the consumer, restarting and dying, this holds:
 *
 * - every acknowledged message that has not been settled is delivered, none twice within one consumer's life;
 * - those of one priority come in order, but for the failed ones, which lose their place;
 * - after dying, settled messages may come again, acknowledged ones never stay away;
 * - the ledger balances after every step.
 */

type Step =
  | { readonly kind: 'publish'; readonly count: number; readonly size: number; readonly priority: number }
  | { readonly kind: 'attach'; readonly credit: number }
  | { readonly kind: 'settle'; readonly count: number; readonly from: 'front' | 'back' }
  | { readonly kind: 'requeue' }
  | { readonly kind: 'fail'; readonly every: number }
  | { readonly kind: 'detach' }
  | { readonly kind: 'wait' }
  | { readonly kind: 'restart' }
  | { readonly kind: 'die' }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      count: fc.integer({ min: 1, max: 300 }),
      size: fc.constantFrom(1, 40, 3000),
      priority: fc.constantFrom(0, 0, 0, 1, 2),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('attach' as const), credit: fc.constantFrom(1, 7, 100, 1000) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('settle' as const),
      count: fc.integer({ min: 1, max: 400 }),
      from: fc.constantFrom('front' as const, 'back' as const),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('requeue' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('fail' as const), every: fc.constantFrom(1, 3, 50) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('detach' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('die' as const) }) },
)

class Run {
  readonly #root: string
  #life = 0
  #core: CoreUnderTest
  #queue: Queue
  #consumer: Collector | null = null
  #next = 0
  /** By number of the message. */
  readonly #priorities: number[] = []
  readonly #failed = new Set<number>()
  /** Acknowledged and not settled. */
  readonly #owed = new Set<number>()
  /** Published, the acknowledgement has not come. */
  readonly #open = new Set<number>()
  readonly #pending: Promise<void>[] = []

  private constructor(root: string, core: CoreUnderTest, queue: Queue) {
    this.#root = root
    this.#core = core
    this.#queue = queue
  }

  static async start(root: string): Promise<Run> {
    const core = await CoreUnderTest.open(join(root, '0'))
    return new Run(root, core, await declare(core))
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'publish':
        for (let i = 0; i < step.count; i++) this.#publish(step)
        break
      case 'attach':
        if (this.#consumer === null) {
          this.#consumer = new Collector(this.#queue, step.credit)
          this.#queue.attach(this.#consumer)
        }
        break
      case 'settle':
        this.#settle(step.count, step.from)
        break
      case 'requeue':
        this.#consumer?.requeue(0)
        break
      case 'fail':
        this.#fail(step.every)
        break
      case 'detach':
        this.#detach()
        break
      case 'wait':
        await Promise.all(this.#pending.splice(0))
        break
      case 'restart':
        await Promise.all(this.#pending.splice(0))
        this.#detach()
        await this.#core.close()
        await this.#reopen(false)
        break
      case 'die':
        await this.#reopen(true)
        break
      default:
        step satisfies never
    }
    expect(this.#queue.ledger.imbalance).toBe(0)
  }

  #publish({ size, priority }: { readonly size: number; readonly priority: number }): void {
    const number = this.#next++
    this.#priorities.push(priority)
    this.#open.add(number)
    const { router } = this.#core
    this.#pending.push(
      router.publish(messageTo('jobs/a', `${number}:${'.'.repeat(size)}`, { priority })).then(
        () => {
          // Settled before it was written counts as acknowledged too.
          if (this.#open.delete(number)) this.#owed.add(number)
        },
        () => undefined,
      ),
    )
  }

  #settle(count: number, from: 'front' | 'back'): void {
    for (let i = 0; i < count; i++) {
      const unsettled = this.#consumer?.unsettled ?? []
      if (unsettled.length === 0) return
      const index = from === 'front' ? 0 : unsettled.length - 1
      const number = numberOf(unsettled[index]?.payload ?? '')
      this.#owed.delete(number)
      this.#open.delete(number)
      this.#consumer?.settle(index)
    }
  }

  /** Each of so many of those it holds now; what it is given instead is not looked at. */
  #fail(every: number): void {
    const held = this.#consumer?.unsettled.map(({ payload }) => numberOf(payload)) ?? []
    for (let i = 0; i < held.length; i += every) {
      const number = held[i] ?? 0
      const index = this.#consumer?.unsettled.findIndex(({ payload }) => numberOf(payload) === number) ?? -1
      if (index < 0) continue
      this.#failed.add(number)
      this.#consumer?.fail(index)
    }
  }

  #detach(): void {
    if (this.#consumer === null) return
    this.#queue.detach(this.#consumer)
    this.#consumer = null
  }

  async #reopen(isDeath: boolean): Promise<void> {
    const before = join(this.#root, String(this.#life))
    const after = join(this.#root, String(++this.#life))
    const dead = this.#core
    if (isDeath) {
      // What it acknowledges from here on, nobody hears.
      this.#open.clear()
      await dead.gate.stillness()
      // What kill -9 leaves: the files as they are now, while the store is open. (Death within a commit: test/fault.)
      await cp(before, after, { recursive: true })
    }
    this.#consumer = null
    this.#core = await CoreUnderTest.open(isDeath ? after : before)
    if (!isDeath) this.#life--
    this.#queue = await declare(this.#core)
    // Whether an unacknowledged message survived is open; from here on nobody is owed it.
    this.#open.clear()
    if (isDeath) {
      this.#pending.length = 0
      dead.gate.releaseCommits()
      await dead.close()
      await rm(before, { recursive: true, force: true })
    }
  }

  /** Everything owed arrives, in order; then the queue is empty. */
  async finish(): Promise<void> {
    await Promise.all(this.#pending.splice(0))
    this.#detach()
    const consumer = new Collector(this.#queue, 100)
    this.#queue.attach(consumer)
    await eventually(
      () => {
        consumer.settleAll()
        return this.#queue.depth === 0
      },
      { what: 'an empty queue' },
    )
    const arrived = consumer.deliveries.map(({ payload }) => numberOf(payload))
    expect(new Set(arrived).size).toBe(arrived.length)
    for (const priority of [0, 1, 2]) {
      const inOrder = arrived.filter(number => this.#priorities[number] === priority && !this.#failed.has(number))
      expect(inOrder).toEqual(inOrder.toSorted((a, b) => a - b))
    }
    const missing = [...this.#owed].filter(number => !arrived.includes(number))
    expect(missing).toEqual([])
    expect(this.#queue.ledger.imbalance).toBe(0)
    expect(this.#queue.bytes).toBe(0)
    await this.#core.close()
  }
}

/** Failed messages wait long enough to be passed, and not so long that the run would wait for them. */
async function declare(core: CoreUnderTest): Promise<Queue> {
  const policy = { maxPriority: 2, retry: { firstMs: 2, maxMs: 20, waiting: 50 } }
  const limits = WIDE_LIMITS
  await core.topology.declareQueue({ name: 'jobs', origin: 'config', limits, qos0: 'buffer', policy })
  await core.declarations.bind(
    { source: MQTT_EXCHANGE, destination: { kind: 'queue', name: 'jobs' }, key: 'jobs/#', headers: null },
    'config',
  )
  return core.topology.queue('jobs')
}

const numberOf = (payload: string): number => Number(payload.slice(0, payload.indexOf(':')))

describe('a durable queue', () => {
  it('keeps what it acknowledged through any sequence of publishing, settling, restarting and dying', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 30 }), async steps => {
        await using directory = await tempDir()
        const run = await Run.start(directory.path)
        for (const step of steps) await run.take(step)
        await run.finish()
      }),
      { numRuns: Number(process.env.SLUICE_MODEL_RUNS ?? 40), endOnFailure: false },
    )
  }, 300_000)

  it('takes a backlog far beyond its window, gives it out in order, and holds little of it in memory', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', 'jobs/#')
    const count = 40_000
    let pending: Promise<unknown>[] = []
    for (let n = 0; n < count; n++) {
      pending.push(core.router.publish(messageTo('jobs/a', `${n}:${'x'.repeat(500)}`)))
      if (pending.length === 2000) {
        await Promise.all(pending)
        pending = []
      }
    }
    await Promise.all(pending)
    expect(queue.depth).toBe(count)
    expect(queue.heldBytes).toBeLessThan(3 * 1024 ** 2)
    const consumer = new Collector(queue, 500)
    queue.attach(consumer)
    await eventually(
      () => {
        consumer.settleAll()
        return queue.depth === 0
      },
      { what: 'a drained queue', deadlineMs: 60_000, intervalMs: 0 },
    )
    expect(consumer.deliveries.map(({ payload }) => numberOf(payload))).toEqual(
      Array.from({ length: count }, (_, n) => n),
    )
    await core.close()
    const again = await CoreUnderTest.open(directory.path)
    const emptied = again.topology.queue('jobs')
    expect(emptied.depth).toBe(0)
    expect(emptied.ledger.figures()).toMatchObject({ accepted: count, settled: count, queued: 0 })
    await again.close()
  }, 120_000)

  it('is in none of its queues twice: a message for two queues is one body on disk', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    await core.queue('one', 'jobs/#')
    await core.queue('two', 'jobs/+')
    await Promise.all(Array.from({ length: 100 }, (_, n) => core.router.publish(messageTo('jobs/a', `${n}:`))))
    await core.close()
    const again = await CoreUnderTest.open(directory.path)
    for (const name of ['one', 'two']) {
      const queue = again.topology.queue(name)
      const consumer = new Collector(queue)
      queue.attach(consumer)
      await eventually(() => consumer.deliveries.length === 100, { what: `100 messages in ${name}` })
      expect(consumer.payloads()).toEqual(Array.from({ length: 100 }, (_, n) => `${n}:`))
      consumer.settleAll()
    }
    await again.close()
  })
})

describe('an acknowledgement', () => {
  it('waits while the commit is held back, and comes when it returns', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    await core.queue('jobs', 'jobs/#')
    core.gate.holdCommits()
    let isAcknowledged = false
    const publishing = core.router.publish(messageTo('jobs/a', 'x')).then(() => {
      isAcknowledged = true
    })
    await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    expect(isAcknowledged).toBe(false)
    core.gate.releaseCommits()
    await publishing
  })

  it('needs no disk when the consumer has settled the message first, and nothing is written', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', 'jobs/#')
    const consumer = new Collector(queue)
    queue.attach(consumer)
    core.gate.holdCommits()
    const publishing = core.router.publish(messageTo('jobs/a', 'x'))
    consumer.settleAll()
    await publishing
    core.gate.releaseCommits()
    expect(core.store.counters.acceptedBytes).toBe(0)
  })

  it('waits for every durable queue of the message', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const one = await core.queue('one', 'jobs/#')
    await core.queue('two', 'jobs/#')
    const consumer = new Collector(one)
    one.attach(consumer)
    core.gate.holdCommits()
    let isAcknowledged = false
    const publishing = core.router.publish(messageTo('jobs/a', 'x')).then(() => {
      isAcknowledged = true
    })
    consumer.settleAll()
    await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    expect(isAcknowledged).toBe(false)
    core.gate.releaseCommits()
    await publishing
  })

  it('is refused by one full queue for all, and none has taken the message', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const wide = await core.queue('wide', 'jobs/#')
    const narrow = await core.queue('narrow', 'jobs/#', { ...WIDE_LIMITS, messages: 2 })
    for (const n of [1, 2]) await core.router.publish(messageTo('jobs/a', String(n)))
    await expect(core.router.publish(messageTo('jobs/a', '3'))).rejects.toMatchObject({ code: 'QUEUE_FULL' })
    expect([wide.depth, narrow.depth]).toEqual([2, 2])
    expect(core.router.counters).toMatchObject({ accepted: 2, refused: 1 })
  })
})
