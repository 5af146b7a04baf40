import { cp, rm } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Clock, systemClock } from '../../src/core/clock.ts'
import type { Stream } from '../../src/core/stream.ts'
import { decodeRecord } from '../../src/model/message.ts'
import { eventuallyPasses } from '../support/eventually.ts'
import { messageTo } from '../support/messages.ts'
import { StreamCollector } from '../support/stream-collector.ts'
import { tempDir } from '../support/temp-dir.ts'
import { CoreUnderTest } from '../support/with-core.ts'

/*
 * A stream against an array of what was acknowledged and when. Whatever the sequence of publishing, reading, forgetting, restarting and dying, this holds:
 *
 * - from any sequence number and any time, a reader gets what is kept from there on, in order, all of it, once;
 * - a reader with a cursor misses nothing that is kept; after dying it may get again what it had settled;
 * - the ledger balances after every step.
 */

type Step =
  | { readonly kind: 'publish'; readonly count: number; readonly size: number }
  | { readonly kind: 'read'; readonly settle: number }
  | { readonly kind: 'later'; readonly hours: number }
  | { readonly kind: 'forget' }
  | { readonly kind: 'look'; readonly at: number }
  | { readonly kind: 'restart' }
  | { readonly kind: 'die' }

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      count: fc.integer({ min: 1, max: 200 }),
      size: fc.constantFrom(1, 40, 3000),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('read' as const), settle: fc.integer({ min: 0, max: 300 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('later' as const), hours: fc.integer({ min: 1, max: 200 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('forget' as const) }) },
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('look' as const), at: fc.double({ min: 0, max: 1, noNaN: true }) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('restart' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('die' as const) }) },
)

const HOUR = 3_600_000
const RETENTION = { ageMs: 500 * HOUR, bytes: 2 * 1024 ** 2 }

interface Kept {
  readonly position: number
  readonly number: number
  /** Wall time of its acknowledgement: it was accepted at that time or a little before. */
  readonly timeMs: number
}

class Run {
  readonly #root: string
  #life = 0
  #core: CoreUnderTest
  #stream: Stream
  #aheadMs = 0
  #number = 0
  #published: Kept[] = []
  /** All before it were settled by the reader with a cursor, and its cursor is written. */
  #settled = 0

  private constructor(root: string, core: CoreUnderTest, stream: Stream) {
    this.#root = root
    this.#core = core
    this.#stream = stream
  }

  static async start(root: string): Promise<Run> {
    const core = await CoreUnderTest.open(join(root, '0'))
    const run = new Run(root, core, await core.stream('history', '#', RETENTION))
    await run.#reopen(false)
    return run
  }

  #wallMs(): number {
    return systemClock.wallMs() + this.#aheadMs
  }

  /** Of a new process: its monotonic side begins at 0. */
  #newClock(): Clock {
    const now = () => systemClock.monotonicMs() + this.#aheadMs
    const bornAt = now()
    return { monotonicMs: () => now() - bornAt, wallMs: () => this.#wallMs() }
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'publish':
        await this.#publish(step.count, step.size)
        break
      case 'read':
        await this.#read(step.settle)
        break
      case 'later':
        // What was published is over before the clock is turned: its time is known to a millisecond or two.
        this.#aheadMs += step.hours * HOUR
        break
      case 'forget':
        this.#stream.retain()
        await this.#core.schedule.flush()
        break
      case 'look':
        await this.#look(step.at)
        break
      case 'restart':
        await this.#reopen(false)
        break
      case 'die':
        await this.#reopen(true)
        break
      default:
        step satisfies never
    }
    expect(this.#stream.ledger.imbalance).toBe(0)
  }

  async #publish(count: number, size: number): Promise<void> {
    const { next } = this.#stream
    const first = this.#number
    const texts = Array.from({ length: count }, (_, i) => `${first + i}:${'.'.repeat(size)}`)
    await Promise.all(texts.map(text => this.#core.router.publish(messageTo('a', text))))
    const timeMs = this.#wallMs()
    for (let i = 0; i < count; i++) this.#published.push({ position: next + i, number: first + i, timeMs })
    this.#number += count
  }

  get #kept(): Kept[] {
    return this.#published.filter(({ position }) => position >= this.#stream.first)
  }

  async #read(settle: number): Promise<void> {
    const reader = new StreamCollector(this.#stream, 'r', 'first', 50)
    const wanted = (): Kept[] => this.#kept.filter(({ position }) => position >= this.#settled)
    await eventuallyPasses(() => expect(reader.positions[0]).toBe(wanted()[0]?.position))
    await eventuallyPasses(() => {
      while (reader.unsettled.length > 0 && reader.positions.length - reader.unsettled.length < settle) reader.settle()
      expect(reader.positions.length).toBeGreaterThanOrEqual(Math.min(wanted().length, settle))
    })
    expect(numbersOf(reader.payloads)).toEqual(
      wanted()
        .slice(0, reader.payloads.length)
        .map(({ number }) => number),
    )
    this.#settled = reader.reader.cursor ?? this.#settled
    reader.reader.close()
    // Its cursor is written with the next commit.
    await this.#core.schedule.flush()
  }

  /** From some sequence number and some time. */
  async #look(at: number): Promise<void> {
    const { first } = this.#stream
    const kept = this.#kept
    const sought = kept[Math.floor(at * kept.length)]
    if (sought === undefined) return
    const timeMs = sought.timeMs - HOUR / 2
    const fromSequence = await this.#numbersFrom(await this.#stream.placeOf({ sequence: sought.position }))
    const fromTime = await this.#numbersFrom(await this.#stream.placeOf({ timeMs }))
    // What is over the limit since the last publish may have been forgotten meanwhile.
    if (this.#stream.first !== first) {
      await this.#look(at)
      return
    }
    expect(fromSequence).toEqual(kept.slice(kept.indexOf(sought)).map(({ number }) => number))
    expect(fromTime).toEqual(kept.filter(message => message.timeMs >= timeMs).map(({ number }) => number))
  }

  async #numbersFrom(place: number): Promise<number[]> {
    const payloads: string[] = []
    await this.#stream.visit(place, (bytes, at) => payloads.push(decodeRecord(bytes, at).payload.toString()) > 0)
    return numbersOf(payloads)
  }

  async #reopen(isDeath: boolean): Promise<void> {
    const before = join(this.#root, String(this.#life))
    const dead = this.#core
    let directory = before
    if (isDeath) {
      await dead.gate.stillness()
      // What kill -9 leaves: the files as they are now, while the store is open. (Death within a commit: test/fault.)
      directory = join(this.#root, String(++this.#life))
      await cp(before, directory, { recursive: true })
    } else {
      await dead.close()
    }
    this.#core = await CoreUnderTest.open(directory, { clock: this.#newClock() })
    const { wallOffsetMs } = this.#core.store.boot
    await this.#core.schedule.change(this.#core.store.correctBoot({ wallOffsetMs, clock: 2 }))
    this.#stream = await this.#core.stream('history', '#', RETENTION)
    if (!isDeath) return
    dead.gate.releaseCommits()
    await dead.close()
    await rm(before, { recursive: true, force: true })
  }

  async finish(): Promise<void> {
    for (const at of [0, 0.3, 0.99]) await this.#look(at)
    const readers = [1, 10, 1000].map(credit => new StreamCollector(this.#stream, null, 'first', credit, true))
    for (const reader of readers) {
      await eventuallyPasses(() => expect(reader.payloads).toHaveLength(this.#kept.length))
      expect(numbersOf(reader.payloads)).toEqual(this.#kept.map(({ number }) => number))
      reader.reader.close()
    }
    await this.#core.close()
  }
}

const numbersOf = (payloads: readonly string[]): number[] =>
  payloads.map(text => Number(text.slice(0, text.indexOf(':'))))

describe('a stream', () => {
  it('gives what it keeps from any place, through any sequence of publishing, forgetting, restarting and dying', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async steps => {
        await using directory = await tempDir()
        const run = await Run.start(directory.path)
        for (const step of steps) await run.take(step)
        await run.finish()
      }),
      { numRuns: Number(process.env.SLUICE_MODEL_RUNS ?? 25), endOnFailure: false },
    )
  }, 300_000)
})
