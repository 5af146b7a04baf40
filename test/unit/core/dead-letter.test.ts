import { describe, expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import type { MessageAddress } from '../../../src/core/mover.ts'
import type { Queue, QueueLimits } from '../../../src/core/queue.ts'
import { type DeathHistory, historyOf } from '../../../src/model/death-history.ts'
import { decodeRecord, type Message } from '../../../src/model/message.ts'
import { Collector } from '../../support/collector.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { mqtt5PropertyBytes } from '../../support/mqtt5-publish.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const NOWHERE = 'no/topic'
const toQueue = (name: string): MessageAddress => ({ exchange: '', key: name })

let passedMs = 0
const clock: Clock = { monotonicMs: () => performance.now() + passedMs, wallMs: () => Date.now() + passedMs }
const open = (directory: string): Promise<CoreUnderTest> => CoreUnderTest.open(directory, { clock })

interface Seen {
  readonly id: string
  readonly message: Message
  readonly history: DeathHistory | null
}

async function contents({ identities }: CoreUnderTest, queue: Queue): Promise<Seen[]> {
  const seen: Seen[] = []
  await queue.peek(10_000, (bytes, at) => {
    const { properties, payload, ...message } = decodeRecord(bytes, at)
    // Copied: the bytes are the queue's.
    const copies = { properties: Buffer.from(properties), payload: Buffer.from(payload) }
    seen.push({
      id: identities.messageId(bytes, at),
      message: { ...message, ...copies },
      history: historyOf(bytes, at),
    })
  })
  return seen
}

const payloads = (seen: readonly Seen[]): string[] => seen.map(({ message }) => message.payload.toString())
const deaths = ({ history }: Seen): string[] =>
  (history?.entries ?? []).map(({ event, queue, count }) => `${event} in ${queue} x${count}`)

/** Rejects all that waits in a queue. */
function rejectAll(queue: Queue): void {
  const consumer = new Collector(queue)
  queue.attach(consumer)
  for (const { position } of consumer.unsettled.splice(0)) queue.reject(position, 'rejected')
  queue.detach(consumer)
}

/** Longer than the age limit of aged() passes. */
function expireAll(queue: Queue): void {
  passedMs += 2000
  queue.expire()
}

/** What is in both, looked at while nothing moves from one to the other: a message may expire between two looks. */
async function contentsOfBoth(core: CoreUnderTest, from: Queue, to: Queue) {
  for (;;) {
    const { depth } = from
    const found = [...(await contents(core, from)), ...(await contents(core, to))]
    if (from.depth === depth) return found
  }
}

const aged = (changes: Partial<QueueLimits> = {}): QueueLimits => ({ ...WIDE_LIMITS, ageMs: 1000, ...changes })

describe('a dead letter', () => {
  it('goes to the named queue with its id, its contents and why it died; after a restart too', async () => {
    await using directory = await tempDir()
    let id = ''
    {
      await using core = await open(directory.path)
      const dead = await core.queue('jobs.dead', NOWHERE)
      const jobs = await core.queue('jobs', 'jobs/#', aged(), toQueue('jobs.dead'))
      const properties = mqtt5PropertyBytes({ messageExpiryInterval: 60, userProperties: { a: 'b' } })
      await core.router.publish(
        messageTo('jobs/7', 'work', { expiryMs: 60_000, propertiesTag: 1, properties, user: 'peter' }),
      )
      const before = await contents(core, jobs)
      id = before[0]?.id ?? 'none'
      rejectAll(jobs)
      const after = await contents(core, dead)
      expect(after.map(seen => seen.id)).toEqual([id])
      expect(after[0]?.message).toMatchObject({ exchange: '', key: 'jobs.dead', user: 'peter', expiryMs: null })
      expect(after[0]?.message.properties).toEqual(mqtt5PropertyBytes({ userProperties: { a: 'b' } }))
      expect(after[0]?.history?.entries).toMatchObject([
        { event: 'rejected', queue: 'jobs', exchange: 'mqtt', key: 'jobs/7', count: 1, originalExpirationMs: 60_000 },
      ])
      expect(jobs.ledger.figures()).toMatchObject({ accepted: 1, settled: 0, dead_lettered: { rejected: 1 } })
      expect(dead.ledger.figures()).toMatchObject({ accepted: 1, queued: 1 })
    }
    await using core = await open(directory.path)
    const [jobs, dead] = [core.topology.queue('jobs'), core.topology.queue('jobs.dead')]
    expect((await contents(core, dead)).map(seen => [seen.id, ...deaths(seen)])).toEqual([[id, 'rejected in jobs x1']])
    expect(jobs.ledger.figures()).toMatchObject({ accepted: 1, queued: 0, dead_lettered: { rejected: 1 } })
    expect(jobs.ledger.imbalance + dead.ledger.imbalance).toBe(0)
    // The definition has kept where dead letters go.
    await core.queue('jobs', 'jobs/#', aged(), toQueue('jobs.dead'))
    await core.router.publish(messageTo('jobs/8', 'more'))
    expireAll(jobs)
    expect(payloads(await contents(core, dead))).toEqual(['work', 'more'])
  })

  it('of an age limit, of an overflow: each says its reason', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const dead = await core.queue('dead', NOWHERE)
    const few = await core.queue(
      'few',
      'few/#',
      { ...WIDE_LIMITS, messages: 2, onFull: 'drop_oldest' },
      toQueue('dead'),
    )
    const old = await core.queue('old', 'old/#', aged(), toQueue('dead'))
    for (const payload of ['a', 'b', 'c']) await core.router.publish(messageTo('few/1', payload))
    await core.router.publish(messageTo('old/1', 'd'))
    expireAll(old)
    const seen = await contents(core, dead)
    expect(payloads(seen)).toEqual(['a', 'd'])
    expect(seen.map(deaths)).toEqual([['maxlen in few x1'], ['expired in old x1']])
    expect(few.ledger.figures()).toMatchObject({ accepted: 3, queued: 2, dropped: {}, dead_lettered: { maxlen: 1 } })
    expect(old.ledger.figures()).toMatchObject({ expired: 0, dead_lettered: { expired: 1 } })
  })

  it('does not count its time in the queue before, where it is now', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const dead = await core.queue('dead', NOWHERE, aged())
    const jobs = await core.queue('jobs', 'jobs/#', aged(), toQueue('dead'))
    await core.router.publish(messageTo('jobs/1', 'a'))
    expireAll(jobs)
    await dead.peek(1, (bytes, at) => {
      expect(core.identities.waitedMs(bytes, at)).toBeLessThanOrEqual(core.identities.ageMs(bytes, at))
    })
    dead.expire()
    expect(dead.depth).toBe(1)
    expireAll(dead)
    expect(dead.depth).toBe(0)
  })

  it('keeps its key unless another is given, in the words of the exchange it goes to', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const spec = { name: 'dlx', kind: 'topic', isDurable: true, isInternal: false, alternate: null } as const
    await core.declarations.declareExchange(spec, 'api')
    const dead = await core.queue('dead', NOWHERE)
    const destination = { kind: 'queue', name: 'dead' } as const
    await core.declarations.bind({ source: 'dlx', destination, key: 'jobs.*', headers: null }, 'api')
    const jobs = await core.queue('jobs', 'jobs/#', aged(), { exchange: 'dlx', key: null })
    const back = await core.queue('back', 'a/b', aged())
    await core.router.publish(messageTo('jobs/7', 'a'))
    rejectAll(jobs)
    expect((await contents(core, dead))[0]?.message).toMatchObject({ exchange: 'dlx', key: 'jobs.7' })
    const other = await core.queue('other', 'other/#', aged(), { exchange: 'mqtt', key: 'a/b' })
    await core.router.publish(messageTo('other/7', 'b'))
    rejectAll(other)
    expect((await contents(core, back))[0]?.message).toMatchObject({ exchange: 'mqtt', key: 'a/b' })
  })

  it('stays where it is while its target has no room, or is not there', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const dead = await core.queue('dead', NOWHERE, { ...WIDE_LIMITS, messages: 1 })
    const jobs = await core.queue('jobs', 'jobs/#', aged(), toQueue('dead'))
    for (const payload of ['a', 'b']) await core.router.publish(messageTo('jobs/7', payload))
    expireAll(jobs)
    expect(payloads(await contents(core, dead))).toEqual(['a'])
    expect(payloads(await contents(core, jobs))).toEqual(['b'])
    expect(jobs.isHoldingDeadLetters).toBe(true)
    const lost = await core.queue('lost', 'lost/#', aged(), { exchange: 'no such exchange', key: null })
    const gone = await core.queue('gone', 'gone/#', aged(), toQueue('no such queue'))
    for (const queue of [lost, gone]) {
      await core.router.publish(messageTo(`${queue.name}/1`, 'c'))
      expireAll(queue)
      expect(queue.depth).toBe(1)
    }
  })

  it('to an exchange that has no queue for it is dropped and counted', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const jobs = await core.queue('jobs', 'jobs/#', aged(), { exchange: 'amq.direct', key: null })
    await core.router.publish(messageTo('jobs/1', 'a'))
    expireAll(jobs)
    expect(jobs.ledger.figures()).toMatchObject({ queued: 0, dropped: { unrouted: 1 }, dead_lettered: {} })
    expect(jobs.ledger.imbalance).toBe(0)
  })

  it('that runs in a circle by itself is dropped and counted; a rejection lets it go round (RabbitMQ)', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const work = await core.queue('work', 'work/#', aged(), toQueue('retry'))
    const retry = await core.queue('retry', NOWHERE, aged(), toQueue('work'))
    await core.router.publish(messageTo('work/1', 'a'))
    for (let round = 1; round <= 3; round++) {
      rejectAll(work)
      expireAll(retry)
      expect((await contents(core, work)).flatMap(deaths)).toEqual([
        `expired in retry x${round}`,
        `rejected in work x${round}`,
      ])
    }
    expireAll(work)
    expect((await contents(core, retry)).flatMap(deaths)).toEqual([])
    expect(work.ledger.figures()).toMatchObject({ queued: 0, dropped: { cycle: 1 }, dead_lettered: { rejected: 3 } })
  })

  it('of an outbox and what is in the outbox share one byte limit', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    for (const onFull of ['reject', 'drop_oldest'] as const) {
      const limits = { ...aged(), bytes: 64 * 1024, onFull }
      const dead = await core.queue(`${onFull}.dead`, NOWHERE, { ...limits, ageMs: 1e9 })
      const outbox = await core.queue(onFull, `${onFull}/#`, limits, toQueue(dead.name))
      outbox.sharesBytesWith = dead
      dead.sharesBytesWith = outbox
      const fill = async (count: number): Promise<number> => {
        let refused = 0
        for (let i = 0; i < count; i++) {
          await core.router.publish(messageTo(`${onFull}/1`, 'x'.repeat(1000))).catch(() => refused++)
        }
        return refused
      }
      await fill(30)
      expireAll(outbox)
      expect(dead.depth).toBe(30)
      const refused = await fill(60)
      expect(outbox.bytes + dead.bytes).toBeLessThanOrEqual(64 * 1024)
      if (onFull === 'reject') {
        expect([dead.depth, refused]).toEqual([30, 60 - outbox.depth])
      } else {
        // The publisher is never refused: the oldest dead letters go first.
        expect(refused).toBe(0)
        expect(dead.ledger.dropped.get('overflow') ?? 0).toBeGreaterThan(0)
      }
      expect([outbox.ledger.imbalance, dead.ledger.imbalance]).toEqual([0, 0])
    }
  })

  it('of two full queues that overflow into each other does not go round for ever', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const limits: QueueLimits = { ...WIDE_LIMITS, messages: 3, onFull: 'drop_oldest' }
    const one = await core.queue('one', 'one/#', limits, toQueue('two'))
    const two = await core.queue('two', 'two/#', limits, toQueue('one'))
    for (let i = 0; i < 20; i++) await core.router.publish(messageTo('one/1', String(i)))
    expect(payloads(await contents(core, one))).toEqual(['17', '18', '19'])
    expect(payloads(await contents(core, two))).toEqual(['14', '15', '16'])
    expect(one.ledger.imbalance + two.ledger.imbalance).toBe(0)
    expect(two.ledger.figures()).toMatchObject({ dropped: { cycle: 14 } })
  })

  it('is not acknowledged before its new place is on disk', async () => {
    await using directory = await tempDir()
    await using core = await open(directory.path)
    const dead = await core.queue('dead', NOWHERE)
    const jobs = await core.queue('jobs', 'jobs/#', aged(), toQueue('dead'))
    core.gate.holdCommits()
    let isAcknowledged = false
    const published = core.router.publish(messageTo('jobs/1', 'a')).then(() => {
      isAcknowledged = true
    })
    rejectAll(jobs)
    expect(dead.depth).toBe(1)
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
    expect(isAcknowledged).toBe(false)
    core.gate.releaseCommits()
    await published
  })
})

describe('a power cut while dead letters move', () => {
  it('finds each of them in one of the two queues, never in none, never in both', async () => {
    await using directory = await tempDir()
    let published = 0
    for (let round = 0; round < 25; round++) {
      const core = await open(directory.path)
      const dead = await core.queue('dead', NOWHERE)
      const jobs = await core.queue('jobs', 'jobs/#', aged(), toQueue('dead'))
      const found = await contentsOfBoth(core, jobs, dead)
      expect(payloads(found).toSorted((a, b) => Number(a) - Number(b))).toEqual(
        Array.from({ length: published }, (_, i) => String(i)),
      )
      expect([jobs.ledger.imbalance, dead.ledger.imbalance]).toEqual([0, 0])
      expect(jobs.depth + dead.depth).toBe(published)
      await Promise.all(
        Array.from({ length: 8 }, (_, i) => core.router.publish(messageTo('jobs/1', String(published + i)))),
      )
      published += 8
      // A younger message that may wait for its consumer: what moves now is younger still, and yet goes with the next commit.
      const other = await core.queue('other', 'other/#')
      other.attach(new Collector(other))
      const waiting = core.router.publish(messageTo('other/1', 'x'))
      // Some of them move before the cut, by reject or by expiry; how many turns the disk has for it changes from round to round.
      const consumer = new Collector(jobs, 5)
      jobs.attach(consumer)
      for (const { position } of consumer.unsettled.splice(0, 3)) jobs.reject(position, 'rejected')
      for (let turn = 0; turn < round % 5; turn++) await new Promise(setImmediate)
      jobs.detach(consumer)
      if (round % 3 === 0) expireAll(jobs)
      const flushed = core.schedule.flush()
      // Where the cut comes first each is refused, or never answered.
      void Promise.allSettled([waiting, flushed])
      for (let turn = 0; turn < round % 4; turn++) await new Promise(setImmediate)
      await core.gate.stillness()
      await core.store.close()
    }
  })
})
