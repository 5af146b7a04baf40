import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Clock } from '../../src/core/clock.ts'
import type { Queue } from '../../src/core/queue.ts'
import { decodeRecord, MQTT_EXCHANGE } from '../../src/model/message.ts'
import { Collector } from '../support/collector.ts'
import { messageTo, WIDE_LIMITS } from '../support/messages.ts'
import { tempDir } from '../support/temp-dir.ts'
import { CoreUnderTest } from '../support/with-core.ts'

/*
 * A work queue with its dead letters, and a second queue that has the same bodies, through any sequence of publishing, settling, failing, rejecting, expiring, overflowing,
 * replaying, restarting and dying at any moment of a commit:
 *
 * - what was acknowledged and not settled is either in the work queue or among its dead letters, and in the other queue unless it may have expired there;
 * - no message is in both, or twice in one;
 * - the ledgers balance after every step.
 */

const WORK_LIMIT = 400
const DEAD_LIMIT = 900
const EXPIRY_MS = 60_000

type Step =
  | {
      readonly kind: 'publish'
      readonly count: number
      readonly size: number
      readonly priority: number
      readonly expires: boolean
    }
  | { readonly kind: 'attach'; readonly at: 0 | 1; readonly credit: number }
  | { readonly kind: 'settle'; readonly at: 0 | 1; readonly count: number }
  | { readonly kind: 'fail' | 'reject'; readonly count: number }
  | { readonly kind: 'detach'; readonly at: 0 | 1 }
  | { readonly kind: 'later' }
  | { readonly kind: 'replay'; readonly limit: number }
  | { readonly kind: 'turns'; readonly count: number }
  | { readonly kind: 'wait' }
  | { readonly kind: 'restart' }
  | { readonly kind: 'die' }

const at = fc.constantFrom(0 as const, 1 as const)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      count: fc.integer({ min: 1, max: 120 }),
      size: fc.constantFrom(1, 100, 3000),
      priority: fc.constantFrom(0, 0, 1),
      expires: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('attach' as const), at, credit: fc.constantFrom(1, 50, 500) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('settle' as const), at, count: fc.integer({ min: 1, max: 100 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('fail' as const, 'reject' as const),
      count: fc.integer({ min: 1, max: 60 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('detach' as const), at }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('later' as const) }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('replay' as const), limit: fc.integer({ min: 1, max: 300 }) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('turns' as const), count: fc.integer({ min: 1, max: 20 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('wait' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('die' as const) }) },
)

const numberOf = (payload: string): number => Number.parseInt(payload, 10)

class Run {
  readonly #root: string
  readonly #overflow: 'reject' | 'drop_oldest' | 'drop_newest'
  #aheadMs = 0
  readonly #clock: Clock = {
    monotonicMs: () => performance.now() + this.#aheadMs,
    wallMs: () => Date.now(),
  }
  #life = 0
  #next = 0
  #opened: CoreUnderTest | null = null
  #queues: readonly Queue[] = []
  #consumers: (Collector | null)[] = [null, null]
  /** By queue: acknowledged and not settled. */
  readonly #owed = [new Set<number>(), new Set<number>()] as const
  readonly #open = new Set<number>()
  readonly #settled = [new Set<number>(), new Set<number>()] as const
  readonly #expiring = new Set<number>()
  #pending: Promise<void>[] = []

  constructor(root: string, overflow: 'reject' | 'drop_oldest' | 'drop_newest') {
    this.#root = root
    this.#overflow = overflow
  }

  get #core(): CoreUnderTest {
    if (this.#opened === null) throw new TypeError('it has been opened')
    return this.#opened
  }

  get #directory(): string {
    return join(this.#root, String(this.#life))
  }

  async open(): Promise<void> {
    // The monotonic clock begins with the process: what came before this start is not older than it.
    this.#aheadMs = -performance.now()
    const core = await CoreUnderTest.open(this.#directory, { clock: this.#clock })
    this.#opened = core
    const policy = { maxPriority: 1, maxAttempts: 2, retry: { firstMs: 1, maxMs: 4, waiting: 50 } }
    const common = { origin: 'config', qos0: 'buffer' } as const
    const dead = { name: 'dead', ...common, limits: { ...WIDE_LIMITS, messages: DEAD_LIMIT } }
    const limits = { ...WIDE_LIMITS, messages: WORK_LIMIT, onFull: this.#overflow }
    const work = { name: 'work', ...common, limits, policy, deadLetter: { exchange: '', key: 'dead' } }
    const copy = { name: 'copy', ...common, limits: WIDE_LIMITS }
    this.#queues = await Promise.all([work, copy, dead].map(spec => core.topology.declareQueue(spec)))
    for (const queue of this.#queues.slice(0, 2)) {
      core.router.bind(MQTT_EXCHANGE, { pattern: '#', destination: { live: null, queue }, maxQos: 2, note: 0 })
    }
    this.#consumers = [null, null]
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'publish':
        for (let i = 0; i < step.count; i++) this.#publish(step)
        break
      case 'attach': {
        const queue = this.#queues[step.at]
        if (queue === undefined || this.#consumers[step.at] !== null) break
        const consumer = new Collector(queue, step.credit)
        this.#consumers[step.at] = consumer
        queue.attach(consumer)
        break
      }
      case 'settle':
        for (let i = 0; i < step.count; i++) this.#settle(step.at)
        break
      case 'fail':
      case 'reject':
        for (let i = 0; i < step.count; i++) this.#consumers[0]?.[step.kind](0)
        break
      case 'detach':
        this.#detach(step.at)
        break
      case 'later':
        this.#aheadMs += EXPIRY_MS
        for (const number of this.#expiring) this.#owed[1].delete(number)
        for (const number of this.#expiring) this.#settled[1].add(number)
        this.#core.topology.expire()
        break
      case 'replay':
        await this.#core.topology.replay('dead', {
          ...{ to: { exchange: '', key: 'work' }, limit: step.limit, isWanted: () => true },
          ...{ isDryRun: false, budgetMs: 1000, cursor: null },
        })
        break
      case 'turns':
        for (let i = 0; i < step.count; i++) await new Promise(setImmediate)
        break
      case 'wait':
        await Promise.all(this.#pending.splice(0))
        break
      case 'restart':
        await Promise.all(this.#pending.splice(0))
        for (const at of [0, 1]) this.#detach(at)
        await this.#core.close()
        await this.open()
        break
      case 'die':
        await this.#die()
        break
      default:
        step satisfies never
    }
    for (const queue of this.#queues) expect([queue.name, queue.ledger.imbalance]).toEqual([queue.name, 0])
  }

  #publish({ size, priority, expires }: Extract<Step, { kind: 'publish' }>): void {
    const number = this.#next++
    if (expires) this.#expiring.add(number)
    this.#open.add(number)
    const published = messageTo('a', `${number}:${'.'.repeat(size)}`, {
      priority,
      expiryMs: expires ? EXPIRY_MS : null,
    })
    this.#pending.push(
      this.#core.router.publish(published).then(
        () => {
          if (!this.#open.delete(number)) return
          for (const at of [0, 1] as const) if (!this.#settled[at].has(number)) this.#owed[at].add(number)
        },
        () => undefined,
      ),
    )
  }

  #settle(at: 0 | 1): void {
    const consumer = this.#consumers[at]
    const [first] = consumer?.unsettled ?? []
    if (first === undefined) return
    const number = numberOf(first.payload)
    this.#owed[at].delete(number)
    this.#settled[at].add(number)
    consumer?.settle(0)
  }

  #detach(at: number): void {
    const consumer = this.#consumers[at]
    if (consumer != null) this.#queues[at]?.detach(consumer)
    this.#consumers[at] = null
  }

  async #die(): Promise<void> {
    const [dead, before] = [this.#core, this.#directory]
    // What it acknowledges from here on, nobody hears.
    this.#open.clear()
    await dead.gate.stillness()
    this.#life++
    await cp(before, this.#directory, { recursive: true })
    this.#pending = []
    await this.open()
    dead.gate.releaseCommits()
    await dead.close()
    await rm(before, { recursive: true })
  }

  async #contents(queue: Queue | undefined): Promise<number[]> {
    const found: number[] = []
    await queue?.peek(1e6, (bytes, offset) => {
      found.push(numberOf(decodeRecord(bytes, offset).payload.toString()))
    })
    expect(new Set(found).size).toBe(found.length)
    return found
  }

  /** After a last death. */
  async finish(): Promise<void> {
    await Promise.all(this.#pending.splice(0))
    await this.#die()
    // Nothing moves any more but by the clock, which stands.
    for (;;) {
      const [work, copy, dead] = this.#queues
      const depth = work?.depth
      const [inWork, inCopy, inDead] = [
        await this.#contents(work),
        await this.#contents(copy),
        await this.#contents(dead),
      ]
      if (work?.depth !== depth) continue
      const places = [...inWork, ...inDead]
      expect(new Set(places).size).toBe(places.length)
      expect([...this.#owed[0]].filter(number => !places.includes(number))).toEqual([])
      expect([...this.#owed[1]].filter(number => !inCopy.includes(number))).toEqual([])
      break
    }
    await this.#core.close()
  }
}

test('messages that die are in one place, whatever kills them and whenever the process ends', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('reject' as const, 'drop_oldest' as const, 'drop_newest' as const),
      fc.array(step, { minLength: 5, maxLength: 40 }),
      async (overflow, steps) => {
        await using directory = await tempDir()
        const run = new Run(directory.path, overflow)
        await run.open()
        for (const step of steps) await run.take(step)
        await run.finish()
      },
    ),
    { numRuns: Number(process.env.SLUICE_MODEL_RUNS ?? 25), endOnFailure: true },
  )
}, 300_000)
