import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { LedgerFigures } from '../../src/core/ledger.ts'
import type { Queue, QueueLimits } from '../../src/core/queue.ts'
import { decodeRecord } from '../../src/model/message.ts'
import { Collector } from '../support/collector.ts'
import { eventually } from '../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../support/messages.ts'
import { tempDir } from '../support/temp-dir.ts'
import { CoreUnderTest } from '../support/with-core.ts'

/*
 * Two durable queues of few messages, each with a policy of its own, against two arrays. Messages go to one of them or both. After every step, whatever the
 * sequence of publishing, consuming, settling, requeueing, rejecting, purging, restarting and dying: the queues hold what the arrays hold, in order, and their
 * ledgers say so to the last figure. (durable-queue.test.ts has long queues, and deaths before anything was flushed.)
 */

const NAMES = ['left', 'right'] as const
/** Topics are 1/1, 1/0, 0/1: for both, for the left, for the right one. */
const PATTERNS = ['1/+', '+/1'] as const
const LIMIT = 12

type OnFull = QueueLimits['onFull']

/** At one of the queues. */
type Operation =
  | { readonly kind: 'attach'; readonly at: number; readonly credit: number }
  | { readonly kind: 'settle' | 'requeue' | 'reject'; readonly at: number; readonly index: number }
  | { readonly kind: 'detach' | 'purge'; readonly at: number }

type Step =
  | { readonly kind: 'publish'; readonly to: '1/1' | '1/0' | '0/1'; readonly count: number }
  | Operation
  | { readonly kind: 'restart' }
  | { readonly kind: 'die' }

const at = fc.constantFrom(0, 1)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      to: fc.constantFrom('1/1' as const, '1/1' as const, '1/0' as const, '0/1' as const),
      count: fc.integer({ min: 1, max: 9 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('attach' as const), at, credit: fc.constantFrom(1, 3, 30) }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom('settle' as const, 'settle' as const, 'requeue' as const, 'reject' as const),
      at,
      index: fc.nat(5),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('detach' as const, 'purge' as const), at }) },
  { weight: 1, arbitrary: fc.constantFrom({ kind: 'restart' as const }, { kind: 'die' as const }) },
)

/** What a queue should be. */
class QueueModel {
  /** Numbers of its messages, in flight or not. */
  held: number[] = []
  readonly inFlight = new Set<number>()
  credit = 0
  readonly #onFull: OnFull
  #accepted = 0
  #settled = 0
  readonly #dropped: Record<string, number> = {}

  constructor(onFull: OnFull) {
    this.#onFull = onFull
  }

  get isRefusing(): boolean {
    return this.#onFull === 'reject' && this.held.length >= LIMIT
  }

  publish(message: number): void {
    this.#accepted++
    if (this.#onFull === 'drop_newest' && this.held.length >= LIMIT) {
      this.#drop('overflow')
      return
    }
    this.held.push(message)
    const oldest = this.held.find(held => !this.inFlight.has(held))
    if (this.held.length > LIMIT && oldest !== undefined) this.#remove(oldest, 'overflow')
    this.deliver()
  }

  deliver(): void {
    for (const message of this.held) if (this.inFlight.size < this.credit) this.inFlight.add(message)
  }

  end(message: number, how: 'settle' | 'requeue' | 'reject'): void {
    this.inFlight.delete(message)
    if (how === 'settle') this.#settled++
    if (how === 'settle') this.held = this.held.filter(held => held !== message)
    if (how === 'reject') this.#remove(message, 'rejected')
    this.deliver()
  }

  detach(): void {
    this.credit = 0
    this.inFlight.clear()
  }

  purge(): void {
    for (const message of this.held.filter(held => !this.inFlight.has(held))) this.#remove(message, 'purged')
  }

  get figures(): LedgerFigures {
    return {
      accepted: this.#accepted,
      settled: this.#settled,
      queued: this.held.length - this.inFlight.size,
      in_flight: this.inFlight.size,
      dropped: this.#dropped,
      expired: 0,
      dead_lettered: {},
    }
  }

  #remove(message: number, reason: string): void {
    this.held = this.held.filter(held => held !== message)
    this.#drop(reason)
  }

  #drop(reason: string): void {
    this.#dropped[reason] = (this.#dropped[reason] ?? 0) + 1
  }
}

class Run {
  readonly #root: string
  readonly #policies: readonly [OnFull, OnFull]
  readonly #models: readonly QueueModel[]
  #core: CoreUnderTest | null = null
  #queues: Queue[] = []
  #consumers: (Collector | null)[] = []
  #life = 0
  #next = 0

  constructor(root: string, policies: readonly [OnFull, OnFull]) {
    this.#root = root
    this.#policies = policies
    this.#models = policies.map(onFull => new QueueModel(onFull))
  }

  async open(): Promise<void> {
    this.#core = await CoreUnderTest.open(this.#directory)
    this.#consumers = [null, null]
    this.#queues = []
    for (const [n, onFull] of this.#policies.entries()) {
      const limits = { ...WIDE_LIMITS, messages: LIMIT, onFull }
      this.#queues.push(await this.#core.queue(NAMES[n] ?? '', PATTERNS[n] ?? '', limits))
    }
    for (const model of this.#models) model.detach()
  }

  get #directory(): string {
    return join(this.#root, String(this.#life))
  }

  async take(step: Step): Promise<void> {
    if (step.kind === 'publish') await this.#publish(step.to, step.count)
    else if (step.kind === 'restart' || step.kind === 'die') await this.#reopen(step.kind === 'die')
    else await this.#operate(step, this.#queues[step.at], this.#models[step.at])
    await this.#agrees()
  }

  async #operate(step: Operation, queue: Queue | undefined, model: QueueModel | undefined): Promise<void> {
    if (queue === undefined || model === undefined) throw new TypeError('there are two queues')
    const consumer = this.#consumers[step.at] ?? null
    switch (step.kind) {
      case 'attach': {
        if (consumer !== null) return
        const attached = new Collector(queue, step.credit)
        this.#consumers[step.at] = attached
        queue.attach(attached)
        model.credit = step.credit
        model.deliver()
        return
      }
      case 'detach':
        if (consumer === null) return
        queue.detach(consumer)
        this.#consumers[step.at] = null
        model.detach()
        return
      case 'purge':
        await queue.purge()
        model.purge()
        return
      case 'settle':
      case 'requeue':
      case 'reject': {
        const delivery = consumer?.unsettled[step.index]
        if (delivery === undefined) return
        consumer?.[step.kind](step.index)
        model.end(Number(delivery.payload), step.kind)
        return
      }
      default:
        step satisfies never
    }
  }

  async #publish(to: string, count: number): Promise<void> {
    const publishing: Promise<boolean>[] = []
    const expected: boolean[] = []
    const wanted = this.#models.filter((_, n) => to[2 * n] === '1')
    for (let n = 0; n < count; n++) {
      const number = this.#next++
      const published = this.#core?.router.publish(messageTo(to, String(number)))
      publishing.push(
        Promise.resolve(published).then(
          () => true,
          () => false,
        ),
      )
      const isRefused = wanted.some(({ isRefusing }) => isRefusing)
      expected.push(!isRefused)
      if (!isRefused) for (const model of wanted) model.publish(number)
    }
    expect(await Promise.all(publishing)).toEqual(expected)
  }

  async #reopen(isDeath: boolean): Promise<void> {
    const [core, before] = [this.#core, this.#directory]
    if (core === null) throw new TypeError('it has been opened')
    if (isDeath) {
      await core.schedule.flush()
      await core.gate.stillness()
      this.#life++
      // What kill -9 leaves: the files as they are now, while the store is open.
      await cp(before, this.#directory, { recursive: true })
      core.gate.releaseCommits()
    }
    await core.close()
    if (isDeath) await rm(before, { recursive: true })
    await this.open()
  }

  /** The queues are what the models are, once what is read from the disk has come. */
  async #agrees(): Promise<void> {
    for (const [n, queue] of this.#queues.entries()) {
      const model = this.#models[n]
      await eventually(() => queue.depth === model?.held.length && queue.inFlight === model.inFlight.size, {
        what: `${queue.name}: ${JSON.stringify(model?.figures)}, not ${JSON.stringify(queue.ledger.figures())}`,
        intervalMs: 0,
        deadlineMs: 2_000,
      })
      expect(queue.ledger.figures()).toEqual(model?.figures)
      expect(queue.ledger.imbalance).toBe(0)
      const held: number[] = []
      const inFlight: number[] = []
      await queue.peek(2 * LIMIT, (bytes, offset, seen) => {
        const number = Number(decodeRecord(bytes, offset).payload.toString())
        held.push(number)
        if (seen.isInFlight) inFlight.push(number)
      })
      expect(held).toEqual(model?.held)
      expect(new Set(inFlight)).toEqual(model?.inFlight)
    }
  }

  async close(): Promise<void> {
    await this.#core?.close()
  }
}

const onFull = fc.constantFrom<OnFull>('reject', 'drop_oldest', 'drop_newest')

test('two queues of any policies hold what was accepted, in order, and their ledgers balance after every step', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.tuple(onFull, onFull),
      fc.array(step, { minLength: 5, maxLength: 40 }),
      async (policies, steps) => {
        await using directory = await tempDir()
        const run = new Run(directory.path, policies)
        await run.open()
        try {
          for (const step of steps) await run.take(step)
        } finally {
          await run.close()
        }
      },
    ),
    { numRuns: Number(process.env.SLUICE_MODEL_RUNS ?? 25) },
  )
}, 300_000)
