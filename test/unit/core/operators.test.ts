import { describe, expect, it } from 'vitest'
import type { Queue } from '../../../src/core/queue.ts'
import { decodeRecord } from '../../../src/model/message.ts'
import { afterRead } from '../../support/after-read.ts'
import { Collector } from '../../support/collector.ts'
import { messageTo } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const PAYLOAD = 'x'.repeat(2000)

/** Messages numbered from `from` on; three thousand of them are six times the window a queue keeps in memory. */
async function publish({ router }: CoreUnderTest, from: number, to: number): Promise<void> {
  await Promise.all(
    Array.from({ length: to - from }, (_, i) => router.publish(messageTo('a', `${from + i}:${PAYLOAD}`))),
  )
}

const numberOf = (payload: string): number => Number(payload.slice(0, payload.indexOf(':')))
const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

async function peeked(queue: Queue, limit: number): Promise<number[]> {
  const found: number[] = []
  await queue.peek(limit, (bytes, at) => found.push(numberOf(decodeRecord(bytes, at).payload.toString())))
  return found
}

async function got(
  { topology }: CoreUnderTest,
  name: string,
  count: number,
  ackMode: 'ack' | 'requeue',
): Promise<{ number: number; redelivered: boolean }[]> {
  const found: { number: number; redelivered: boolean }[] = []
  await topology.getMessages(name, { count, maxBytes: 64 * 1024 ** 2, ackMode }, (bytes, at, attempts) =>
    found.push({ number: numberOf(decodeRecord(bytes, at).payload.toString()), redelivered: attempts > 0 }),
  )
  return found
}

describe('a look into a queue', () => {
  it('shows memory, disk and memory again in order, and changes nothing', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const queue = await core.queue('jobs', '#')
      for (let from = 0; from < 3000; from += 500) await publish(core, from, from + 500)
      expect(queue.heldBytes).toBeLessThan(3 * 1024 ** 2)
      expect(await peeked(queue, 10)).toEqual(numbers(0, 10))
      expect(await peeked(queue, 5000)).toEqual(numbers(0, 3000))
      expect(queue.heldBytes).toBeLessThan(3 * 1024 ** 2)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    // What came before the restart is on disk only, what came since is in memory behind it.
    await publish(core, 3000, 3005)
    expect(await peeked(queue, 5000)).toEqual(numbers(0, 3005))
    expect(await peeked(queue, 3002)).toEqual(numbers(0, 3002))
    expect(queue.ledger.figures()).toMatchObject({ queued: 3005, in_flight: 0 })
  })

  it('goes on with what is not written yet', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.queue('jobs', '#')
      for (let from = 0; from < 400; from += 100) await publish(core, from, from + 100)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    core.gate.holdCommits()
    const published = publish(core, 400, 405)
    expect(await peeked(queue, 1000)).toEqual(numbers(0, 405))
    core.gate.releaseCommits()
    await published
  })

  it('shows what is written, and leaves memory, while it reads', async () => {
    for (const nth of [1, 2, 3]) {
      await using directory = await tempDir()
      {
        await using core = await CoreUnderTest.open(directory.path)
        await core.queue('jobs', '#')
        await publish(core, 0, 400)
      }
      await using core = await CoreUnderTest.open(directory.path)
      const queue = await core.queue('jobs', '#')
      core.gate.holdCommits()
      const published = publish(core, 400, 405)
      // What lies behind messages on disk leaves memory as soon as it is written.
      afterRead(core.store, nth, () => {
        core.gate.releaseCommits()
        return published
      })
      expect(await peeked(queue, 1000)).toEqual(numbers(0, 405))
      core.gate.releaseCommits()
      await published
    }
  })

  it('shows each message once although they are written while it looks', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.queue('jobs', '#')
      for (let from = 0; from < 1500; from += 500) await publish(core, from, from + 500)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    const published = publish(core, 1500, 1600)
    expect((await peeked(queue, 10_000)).slice(0, 1600)).toEqual(numbers(0, 1600))
    await published
  })

  it('says what is in flight and what was delivered before', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    await publish(core, 0, 3)
    const lost = new Collector(queue, 1)
    queue.attach(lost)
    queue.detach(lost)
    const other = new Collector(queue, 2)
    queue.attach(other)
    other.settle()
    const seen: [number, boolean, boolean][] = []
    await queue.peek(10, (_bytes, _at, { position, isInFlight, attempts }) =>
      seen.push([position, isInFlight, attempts > 0]),
    )
    expect(seen).toEqual([
      [1, true, false],
      [2, true, false],
    ])
    other.requeue(0)
    queue.detach(other)
    await queue.peek(1, (_bytes, _at, { isInFlight, attempts }) => expect([isInFlight, attempts]).toEqual([false, 2]))
  })
})

describe('a purge', () => {
  it('drops a backlog on disk and tells how many; after a restart nothing is there', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const queue = await core.queue('jobs', '#')
      for (let from = 0; from < 3000; from += 500) await publish(core, from, from + 500)
      expect(await core.topology.purgeQueue('jobs')).toBe(3000)
      expect(queue.depth).toBe(0)
      expect(queue.bytes).toBe(0)
      expect(queue.ledger.figures()).toMatchObject({ accepted: 3000, queued: 0, dropped: { purged: 3000 } })
      await publish(core, 3000, 3002)
    }
    await using core = await CoreUnderTest.open(directory.path)
    expect(await peeked(core.topology.queue('jobs'), 10)).toEqual([3000, 3001])
    expect(core.topology.queue('jobs').ledger.imbalance).toBe(0)
  })

  it('leaves what is in flight to its consumer', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    await publish(core, 0, 5)
    const collector = new Collector(queue, 2)
    queue.attach(collector)
    expect(await core.topology.purgeQueue('jobs')).toBe(3)
    expect(queue.ledger.figures()).toMatchObject({ queued: 0, in_flight: 2 })
    collector.settleAll()
    expect(queue.ledger.figures()).toMatchObject({ settled: 2, dropped: { purged: 3 } })
  })

  it('is durable when it answers', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    await core.queue('jobs', '#')
    await publish(core, 0, 5)
    core.gate.holdCommits()
    let isAnswered = false
    const purging = core.topology.purgeQueue('jobs').then(() => {
      isAnswered = true
    })
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
    expect(isAnswered).toBe(false)
    core.gate.releaseCommits()
    await purging
  })
})

describe('a get', () => {
  it('with ack takes messages out, durably before it answers', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    await publish(core, 0, 5)
    core.gate.holdCommits()
    let isAnswered = false
    const getting = got(core, 'jobs', 2, 'ack').then(messages => {
      isAnswered = true
      return messages
    })
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
    expect(isAnswered).toBe(false)
    core.gate.releaseCommits()
    expect(await getting).toEqual([
      { number: 0, redelivered: false },
      { number: 1, redelivered: false },
    ])
    expect(queue.ledger.figures()).toMatchObject({ settled: 2, queued: 3, in_flight: 0 })
    // A power cut now: the store as it is, opened without a stop of the core.
    await core.gate.stillness()
    await core.store.close()
    await using again = await CoreUnderTest.open(directory.path)
    expect(await peeked(again.topology.queue('jobs'), 10)).toEqual([2, 3, 4])
  })

  it('with requeue gives them back to their places, marked', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    await publish(core, 0, 3)
    expect((await got(core, 'jobs', 2, 'requeue')).map(({ redelivered }) => redelivered)).toEqual([false, false])
    expect(await got(core, 'jobs', 3, 'requeue')).toEqual([
      { number: 0, redelivered: true },
      { number: 1, redelivered: true },
      { number: 2, redelivered: false },
    ])
    expect(queue.ledger.figures()).toMatchObject({ settled: 0, queued: 3, in_flight: 0 })
  })

  it('reads on from disk until it has what was asked for, and takes what there is of less', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.queue('jobs', '#')
      for (let from = 0; from < 1000; from += 500) await publish(core, from, from + 500)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await core.queue('jobs', '#')
    await publish(core, 1000, 1003)
    expect((await got(core, 'jobs', 900, 'ack')).map(({ number }) => number)).toEqual(numbers(0, 900))
    expect((await got(core, 'jobs', 900, 'ack')).map(({ number }) => number)).toEqual(numbers(900, 1003))
    expect(await got(core, 'jobs', 900, 'ack')).toEqual([])
    expect(queue.ledger.figures()).toMatchObject({ queued: 0, in_flight: 0 })
    expect(queue.ledger.imbalance).toBe(0)
  })

  it('stops when it has enough bytes, with one message at least', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    await core.queue('jobs', '#')
    await publish(core, 0, 10)
    for (const [maxBytes, count] of [
      [1, 1],
      [5000, 3],
    ] as const) {
      let found = 0
      await core.topology.getMessages('jobs', { count: 10, maxBytes, ackMode: 'requeue' }, () => found++)
      expect(found).toBe(count)
    }
  })
})
