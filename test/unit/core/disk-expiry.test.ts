import { describe, expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import type { Queue } from '../../../src/core/queue.ts'
import { decodeRecord } from '../../../src/model/message.ts'
import { eventuallyPasses } from '../../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const FILLING = '.'.repeat(2000)
/** Of every three messages one expires in ten minutes and one in an hour. */
const EXPIRIES = [null, 600_000, 3_600_000]
const TEN_MINUTES = 600_000
const numbers = (from: number, to: number, third: number): number[] =>
  Array.from({ length: to - from }, (_, i) => from + i).filter(n => n % 3 === third)

/** A clock that a test turns forward. */
class TurnedClock implements Clock {
  #aheadMs = 0
  readonly monotonicMs = (): number => performance.now() + this.#aheadMs
  readonly wallMs = (): number => Date.now() + this.#aheadMs

  forward(ms: number): void {
    this.#aheadMs += ms
  }
}

/** Messages numbered from `from` on, in commits of a hundred: two thousand of them are four times the window a queue keeps in memory. */
async function publish({ router }: CoreUnderTest, from: number, to: number): Promise<void> {
  for (let begin = from; begin < to; begin += 100) {
    await Promise.all(
      Array.from({ length: Math.min(100, to - begin) }, (_, i) =>
        router.publish(messageTo('a', `${begin + i}:${FILLING}`, { expiryMs: EXPIRIES[(begin + i) % 3] ?? null })),
      ),
    )
  }
}

async function contents(queue: Queue): Promise<number[]> {
  const found: number[] = []
  await queue.peek(10_000, (bytes, at) => {
    found.push(Number.parseInt(decodeRecord(bytes, at).payload.toString(), 10))
  })
  return found
}

/** What a gateway does each second, until the queue has come down to so many messages. */
const comesDownTo = ({ topology }: CoreUnderTest, queue: Queue, depth: number): Promise<void> =>
  eventuallyPasses(() => {
    topology.expire()
    expect(queue.depth).toBe(depth)
  })

describe('messages on disk that nobody takes', () => {
  it('leave when they expire, and nothing else does; after a restart too', async () => {
    await using directory = await tempDir()
    const clock = new TurnedClock()
    {
      await using core = await CoreUnderTest.open(directory.path, { clock })
      const queue = await core.queue('jobs', '#')
      await publish(core, 0, 2100)
      clock.forward(TEN_MINUTES)
      await comesDownTo(core, queue, 1400)
      expect(await contents(queue)).toEqual([...numbers(0, 2100, 0), ...numbers(0, 2100, 2)].toSorted((a, b) => a - b))
      expect(queue.ledger.figures()).toMatchObject({ accepted: 2100, queued: 1400, expired: 700 })
      expect(queue.ledger.imbalance).toBe(0)
    }
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const queue = core.topology.queue('jobs')
    expect(queue.depth).toBe(1400)
    // Time counts from the start on, as far as the clock is not known to be right.
    clock.forward(3_600_000)
    await comesDownTo(core, queue, 700)
    expect(await contents(queue)).toEqual(numbers(0, 2100, 0))
    expect(queue.ledger.figures()).toMatchObject({ accepted: 2100, queued: 700, expired: 1400 })
    expect(queue.ledger.imbalance).toBe(0)
  })

  it('become dead letters: each is in one of the two queues, whenever the process ends', async () => {
    await using directory = await tempDir()
    const clock = new TurnedClock()
    const core = await CoreUnderTest.open(directory.path, { clock })
    const dead = await core.queue('dead', 'no/topic')
    await core.queue('jobs', '#', WIDE_LIMITS, { exchange: '', key: 'dead' })
    await publish(core, 0, 2100)
    clock.forward(TEN_MINUTES)
    await eventuallyPasses(() => {
      core.topology.expire()
      expect(dead.depth).toBeGreaterThan(300)
    })
    await core.gate.stillness()
    await core.store.close()
    await using again = await CoreUnderTest.open(directory.path, { clock })
    const [jobs, letters] = [again.topology.queue('jobs'), again.topology.queue('dead')]
    const found = [...(await contents(jobs)), ...(await contents(letters))]
    expect(found.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 2100 }, (_, i) => i))
    clock.forward(TEN_MINUTES)
    await comesDownTo(again, jobs, 1400)
    expect((await contents(letters)).toSorted((a, b) => a - b)).toEqual(numbers(0, 2100, 1))
    expect([jobs.ledger.imbalance, letters.ledger.imbalance]).toEqual([0, 0])
  })

  it('stay while the dead letters have no room', async () => {
    await using directory = await tempDir()
    const clock = new TurnedClock()
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const dead = await core.queue('dead', 'no/topic', { ...WIDE_LIMITS, messages: 10 })
    const queue = await core.queue('jobs', '#', WIDE_LIMITS, { exchange: '', key: 'dead' })
    await publish(core, 0, 2100)
    clock.forward(TEN_MINUTES)
    await comesDownTo(core, queue, 2090)
    dead.limits = WIDE_LIMITS
    clock.forward(61_000)
    await comesDownTo(core, queue, 1400)
    expect(dead.depth).toBe(700)
  })

  it('of a session that is away leave, too, but not what it was sent once [MQTT-4.3.3-7]', async () => {
    await using directory = await tempDir()
    const clock = new TurnedClock()
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const { queue } = core.topology.newClaimed('session', WIDE_LIMITS)
    queue.keepsSent = true
    core.router.bind('mqtt', { pattern: '#', destination: { live: null, queue }, maxQos: 2, note: 0 })
    await publish(core, 0, 900)
    const sent: number[] = []
    const consumer = {
      credit: 10,
      deliver: (_bytes: Buffer, _at: number, position: number) => {
        sent.push(position)
        consumer.credit--
      },
    }
    queue.attach(consumer)
    await eventuallyPasses(() => expect(sent).toHaveLength(10))
    queue.detach(consumer)
    await core.schedule.flush()
    await publish(core, 900, 2100)
    clock.forward(TEN_MINUTES)
    // 1, 4 and 7 were sent.
    await comesDownTo(core, queue, 1403)
    expect((await contents(queue)).slice(0, 10)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  })

  it('are looked for a bounded part at a time, and not before the next of them expires', async () => {
    await using directory = await tempDir()
    const clock = new TurnedClock()
    {
      await using core = await CoreUnderTest.open(directory.path, { clock })
      await core.queue('jobs', '#')
      await publish(core, 0, 2100)
    }
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const queue = core.topology.queue('jobs')
    clock.forward(TEN_MINUTES)
    core.topology.expire()
    // Four parts of 512 KiB hold a thousand messages at most, a third of which expires.
    await eventuallyPasses(() => expect(queue.depth).toBeLessThan(1900))
    for (let commits = 0; commits < 10; commits++) await core.schedule.flush()
    expect(queue.depth).toBeGreaterThan(1750)
    await comesDownTo(core, queue, 1400)
    await eventuallyPasses(() => {
      core.topology.expire()
      expect(queue.isDiskSweepDue).toBe(false)
    })
    clock.forward(TEN_MINUTES)
    expect(queue.isDiskSweepDue).toBe(false)
    clock.forward(3_600_000)
    expect(queue.isDiskSweepDue).toBe(true)
  })
})
