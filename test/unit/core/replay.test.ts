import { describe, expect, it } from 'vitest'
import type { Queue } from '../../../src/core/queue.ts'
import type { Replayed, ReplayOptions } from '../../../src/core/replay.ts'
import { historyOf } from '../../../src/model/death-history.ts'
import { decodeRecord, recordKey } from '../../../src/model/message.ts'
import { Collector } from '../../support/collector.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const NOWHERE = 'no/topic'
/** Three thousand of these are six times the window a queue keeps in memory. */
const PAYLOAD = 'x'.repeat(2000)
const MANY = 3000

const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
const numberOf = (bytes: Buffer, at: number): number =>
  Number.parseInt(decodeRecord(bytes, at).payload.toString('latin1', 0, 8), 10)

async function contents(queue: Queue): Promise<number[]> {
  const found: number[] = []
  await queue.peek(100_000, (bytes, at) => found.push(numberOf(bytes, at)))
  return found
}

/** Jobs that were all rejected: they wait in `dead`, numbered from 0 on. */
async function openRejected(core: CoreUnderTest, count: number): Promise<{ jobs: Queue; dead: Queue }> {
  const dead = await core.queue('dead', NOWHERE)
  const jobs = await core.queue('jobs', 'jobs/#', WIDE_LIMITS, { exchange: '', key: 'dead' })
  for (let from = 0; from < count; from += 500) {
    await Promise.all(
      numbers(from, Math.min(count, from + 500)).map(n =>
        core.router.publish(messageTo('jobs/1', `${n} ${count > 500 ? PAYLOAD : ''}`)),
      ),
    )
    const consumer = new Collector(jobs)
    jobs.attach(consumer)
    while (jobs.depth > 0) {
      for (const { position } of consumer.unsettled.splice(0)) jobs.reject(position, 'rejected')
      await new Promise(setImmediate)
    }
    jobs.detach(consumer)
    await core.schedule.flush()
  }
  return { jobs, dead }
}

/** Calls until all was looked at, or somebody has no room. */
async function replay(
  core: CoreUnderTest,
  queue: string,
  options: Partial<ReplayOptions>,
): Promise<Replayed & { calls: number }> {
  let calls = 0
  let total = 0
  for (let cursor: ReplayOptions['cursor'] = null; ; calls++) {
    const result = await core.topology.replay(queue, {
      isWanted: () => true,
      to: null,
      isDryRun: false,
      limit: 1000,
      budgetMs: 1000,
      cursor,
      ...options,
    })
    total += result.replayed
    cursor = result.next
    if (cursor === null || result.isHeld) return { ...result, replayed: total, calls: calls + 1 }
  }
}

describe('a replay', () => {
  it('sends a message to where it was published, with its id and its history', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const { jobs, dead } = await openRejected(core, 3)
    const ids: string[] = []
    await dead.peek(10, (bytes, at) => ids.push(core.identities.messageId(bytes, at)))
    const { replayed, destinations } = await replay(core, 'dead', {
      isWanted: (bytes, at) => numberOf(bytes, at) === 1,
    })
    expect(replayed).toBe(1)
    expect([...destinations.values()]).toEqual([{ exchange: 'mqtt', key: 'jobs/1', count: 1 }])
    expect(await contents(dead)).toEqual([0, 2])
    await jobs.peek(10, (bytes, at) => {
      expect(core.identities.messageId(bytes, at)).toBe(ids[1])
      expect(decodeRecord(bytes, at)).toMatchObject({ exchange: 'mqtt', key: 'jobs/1' })
      expect(historyOf(bytes, at)?.entries).toMatchObject([
        { event: 'replayed', queue: 'dead', exchange: 'mqtt', key: 'jobs/1', count: 1 },
        { event: 'rejected', queue: 'jobs', exchange: 'mqtt', key: 'jobs/1', count: 1 },
      ])
    })
    expect(dead.ledger.figures()).toMatchObject({ accepted: 3, settled: 1, queued: 2 })
    expect(jobs.ledger.figures()).toMatchObject({ accepted: 4, queued: 1, dead_lettered: { rejected: 3 } })
  })

  it('goes elsewhere when told, with its own key or another', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const { jobs, dead } = await openRejected(core, 2)
    const other = await core.queue('other', 'other/#')
    await replay(core, 'dead', { limit: 1, cursor: null, to: { exchange: 'mqtt', key: 'other/9' } })
    expect([await contents(other), jobs.depth, dead.depth]).toEqual([[0, 1], 0, 0])
    const destination = { kind: 'queue', name: 'jobs' } as const
    await core.declarations.bind({ source: 'amq.direct', destination, key: 'jobs.1', headers: null }, 'api')
    await openRejected(core, 1)
    await replay(core, 'dead', { to: { exchange: 'amq.direct', key: null } })
    await jobs.peek(1, (bytes, at) => expect(recordKey(bytes, at)).toBe('jobs.1'))
    expect(jobs.depth).toBe(1)
  })

  it('takes one from the middle of a backlog on disk, which stays on disk', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await openRejected(core, MANY)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const { jobs, dead } = await openRejected(core, 0)
    const result = await replay(core, 'dead', { isWanted: (bytes, at) => [1500, 2999].includes(numberOf(bytes, at)) })
    expect(result.replayed).toBe(2)
    expect(dead.heldBytes).toBeLessThan(2 * 1024 ** 2)
    expect(await contents(dead)).toEqual(numbers(0, 2999).filter(n => n !== 1500))
    expect(await contents(jobs)).toEqual([1500, 2999])
    // What was taken out is not delivered to whoever consumes now, from what was read before or after.
    const consumer = new Collector(dead, 100)
    dead.attach(consumer)
    while (consumer.unsettled.length > 0 || dead.depth > 0) {
      consumer.settleAll()
      await new Promise(setImmediate)
    }
    expect(consumer.deliveries.length).toBe(MANY - 2)
    expect([dead.ledger.imbalance, jobs.ledger.imbalance]).toEqual([0, 0])
  })

  it('of all goes on from call to call, and does not run after what comes back', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await openRejected(core, MANY)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const { jobs, dead } = await openRejected(core, 0)
    const refusing = new Collector(jobs)
    jobs.attach(refusing)
    const rejecting = setInterval(() => {
      for (const { position } of refusing.unsettled.splice(0)) jobs.reject(position, 'rejected')
    }, 1)
    const result = await replay(core, 'dead', {})
    clearInterval(rejecting)
    for (const { position } of refusing.unsettled.splice(0)) jobs.reject(position, 'rejected')
    expect(result.replayed).toBe(MANY)
    expect(result.calls).toBeGreaterThan(1)
    expect(dead.depth).toBe(MANY)
    await dead.peek(1, (bytes, at) =>
      expect(historyOf(bytes, at)?.entries.map(({ event, count }) => [event, count])).toEqual([
        ['rejected', 2],
        ['replayed', 1],
      ]),
    )
  })

  it('stops where a target has no room, and loses nothing', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const { dead } = await openRejected(core, 10)
    await core.queue('small', NOWHERE, { ...WIDE_LIMITS, messages: 4 })
    const result = await replay(core, 'dead', { to: { exchange: '', key: 'small' } })
    expect(result).toMatchObject({ replayed: 4, isHeld: true })
    expect(await contents(core.topology.queue('small'))).toEqual(numbers(0, 4))
    expect(await contents(dead)).toEqual(numbers(4, 10))
    expect(await replay(core, 'dead', { to: { exchange: 'no such exchange', key: null } })).toMatchObject({
      replayed: 0,
      isHeld: true,
    })
  })

  it('leaves where they are those nobody is bound for, and those of which nobody knows where they came from', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const { dead } = await openRejected(core, 2)
    await core.router.publish(messageTo('dead', '7', { exchange: '' }))
    expect(await replay(core, 'dead', { to: { exchange: 'amq.direct', key: 'nobody' } })).toMatchObject({
      replayed: 0,
      unrouted: 3,
    })
    expect(await replay(core, 'dead', {})).toMatchObject({ replayed: 2, unaddressed: 1 })
    expect(await contents(dead)).toEqual([7])
  })

  it('as a dry run tells where messages would go, and changes nothing', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await openRejected(core, MANY)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const { jobs, dead } = await openRejected(core, 0)
    const before = dead.ledger.figures()
    const result = await replay(core, 'dead', { isDryRun: true, limit: 100_000, budgetMs: 60_000 })
    expect(result.replayed).toBe(MANY)
    expect([...result.destinations.values()]).toEqual([{ exchange: 'mqtt', key: 'jobs/1', count: MANY }])
    expect(dead.ledger.figures()).toEqual(before)
    expect(jobs.depth).toBe(0)
    expect(dead.heldBytes).toBeLessThan(2 * 1024 ** 2)
  })

  it('and consumers of the same queue share its messages: each goes to one of them', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await openRejected(core, MANY)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const { jobs, dead } = await openRejected(core, 0)
    const consumer = new Collector(dead, 20)
    dead.attach(consumer)
    const consuming = setInterval(() => consumer.settleAll(), 1)
    await replay(core, 'dead', { isWanted: (bytes, at) => numberOf(bytes, at) % 3 === 0 })
    while (dead.depth > 0) await new Promise(setImmediate)
    clearInterval(consuming)
    const consumed = consumer.payloads().map(payload => Number.parseInt(payload, 10))
    const replayed = await contents(jobs)
    expect([...consumed, ...replayed].toSorted((a, b) => a - b)).toEqual(numbers(0, MANY))
    expect(replayed.length).toBeGreaterThan(0)
  })

  it('that a power cut ends is found done in part: each message in one place', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await openRejected(core, MANY)
    }
    for (let round = 0; round < 6; round++) {
      const core = await CoreUnderTest.open(directory.path)
      const { jobs, dead } = await openRejected(core, 0)
      const found = [...(await contents(jobs)), ...(await contents(dead))]
      expect(found.toSorted((a, b) => a - b)).toEqual(numbers(0, MANY))
      expect([jobs.depth + dead.depth, jobs.ledger.imbalance, dead.ledger.imbalance]).toEqual([MANY, 0, 0])
      const isOdd = round % 2 === 1
      const running = replay(core, 'dead', {
        isWanted: (bytes, at) => isOdd || numberOf(bytes, at) % 5 === 0,
        limit: 600,
      })
      // Where the cut comes first it is refused, or never answered.
      running.catch(() => undefined)
      for (let turn = 0; turn < 5 + round * 4; turn++) await new Promise(setImmediate)
      await core.gate.stillness()
      await core.store.close()
    }
  })
})
