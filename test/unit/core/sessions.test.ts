import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { PacketIdOwner } from '../../../src/core/session-ids.ts'
import type { KeptSubscription, Will } from '../../../src/core/sessions.ts'
import { StatePrefix } from '../../../src/store/keys.ts'
import { createLevel, levelSettings } from '../../../src/store/level.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const MINUTE_MS = 60_000
const ANONYMOUS = { identity: { user: null, groups: [] }, expiryMs: MINUTE_MS, will: null }

const key = (kind: string, ...rest: Buffer[]): Buffer =>
  Buffer.concat([Buffer.from([StatePrefix.session]), Buffer.from(kind), ...rest])

async function keys(core: CoreUnderTest, prefix: Buffer): Promise<string[]> {
  const found: string[] = []
  for await (const [at] of core.store.readState(prefix)) found.push(at.toString('latin1'))
  return found
}

/** A session of client c1 with a queue in which messages `0`, `1`, … wait. */
async function withQueue(core: CoreUnderTest, messages: number) {
  const session = core.keptSessions.begin('c1')
  const queue = session.takeQueue()
  await session.connected(ANONYMOUS)
  core.router.bind('mqtt', { pattern: 'a', destination: { live: null, queue }, maxQos: 1, note: 0 })
  for (let n = 0; n < messages; n++) await core.router.publish(messageTo('a', `${n}`))
  return { session, queue }
}

describe('sessions on disk', () => {
  test('come back with user, expiry, subscriptions and will, whatever their names', async () => {
    await using directory = await tempDir()
    const subscriptions: KeptSubscription[] = [
      { filter: '#', qos: 2, isNoLocal: true, isRetainAsPublished: false, identifier: 0, isOwedRetained: false },
      {
        filter: 'a/+/ü',
        qos: 0,
        isNoLocal: false,
        isRetainAsPublished: true,
        identifier: 268_435_455,
        isOwedRetained: true,
      },
    ]
    const will: Will = {
      delayMs: 5000,
      message: messageTo('w', 'bye', { qos: 2, retain: true, properties: Buffer.from([1, 0]) }),
    }
    const clientIds = ['constructor', '__proto__', 'ü/+/#', 'c', 'c1']
    const core = await CoreUnderTest.open(directory.path)
    for (const clientId of clientIds) {
      const session = core.keptSessions.begin(clientId)
      await session.connected({ identity: { user: `user of ${clientId}`, groups: ['ops'] }, expiryMs: MINUTE_MS, will })
      for (const subscription of subscriptions) await session.subscribed(subscription)
      await session.subscribed({ ...subscriptions[0], filter: 'gone' } as KeptSubscription)
      await session.unsubscribed('gone')
    }
    await core.close()
    await using again = await CoreUnderTest.open(directory.path)
    const restored = await again.keptSessions.restore()
    expect(restored.map(({ session }) => session.clientId).toSorted()).toEqual(clientIds.toSorted())
    for (const { session, ...rest } of restored) {
      const identity = { user: `user of ${session.clientId}`, groups: ['ops'] }
      expect(session).toMatchObject({ identity, expiryMs: MINUTE_MS, queue: null })
      expect(rest).toMatchObject({ will, subscriptions })
      expect(rest.subscriptions).toHaveLength(subscriptions.length)
    }
  })

  test('have a will no longer once it has been published or given up', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    const session = core.keptSessions.begin('c1')
    await session.connected({ ...ANONYMOUS, will: { delayMs: 0, message: messageTo('w', 'bye') } })
    session.endWill()
    await core.close()
    await using again = await CoreUnderTest.open(directory.path)
    expect(await again.keptSessions.restore()).toMatchObject([{ will: null }])
  })

  test('are away from the end of their connection on, or of the process', async () => {
    await using directory = await tempDir()
    let nowMs = 1000
    const clock = { monotonicMs: () => nowMs, wallMs: () => 1_800_000_000_000 + nowMs }
    const core = await CoreUnderTest.open(directory.path, { clock })
    const session = core.keptSessions.begin('c1')
    await session.connected(ANONYMOUS)
    nowMs += 500
    expect(session.awayMs).toBe(0)
    session.disconnected(MINUTE_MS)
    nowMs += 300
    expect(session.awayMs).toBe(300)
    await session.connected(ANONYMOUS)
    await core.close()
    await using again = await CoreUnderTest.open(directory.path, { clock })
    const [found] = await again.keptSessions.restore()
    expect(found?.session.awayMs).toBe(0)
    nowMs += 200
    expect(found?.session.awayMs).toBe(200)
  })

  test('of a later version are refused at the start', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    await core.schedule.change({ key: key('s', Buffer.from('c1')), value: Buffer.from('{"version":2}') })
    await core.close()
    await expect(CoreUnderTest.open(directory.path)).rejects.toMatchObject({ code: 'STORE_FORMAT_UNKNOWN' })
  })
})

describe('the queue of a session', () => {
  test('comes back with its messages, and is nobody else’s', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    await withQueue(core, 3)
    await core.close()
    await using again = await CoreUnderTest.open(directory.path)
    const [found] = await again.keptSessions.restore()
    expect(found?.session.queue).toMatchObject({ name: 'session:c1', depth: 3, isDurable: true })
    expect([...again.topology.queues()]).toEqual([])
    expect(again.topology.newNumber()).toBeGreaterThan(1)
  })

  test('is empty when the end of its session is through, and leaves nothing on disk', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    const { session, queue } = await withQueue(core, 100)
    await session.subscribed({
      filter: 'a',
      qos: 1,
      isNoLocal: false,
      isRetainAsPublished: false,
      identifier: 0,
      isOwedRetained: false,
    })
    await session.end(['a'])
    await eventually(async () => queue.isDeleted && (await keys(core, key('e'))).length === 0)
    expect(await keys(core, Buffer.from([StatePrefix.session]))).toEqual([])
    expect(await core.store.unsettled(1)).toEqual({ messages: 0, bytes: 0 })
    await core.close()
    await using again = await CoreUnderTest.open(directory.path)
    expect(await again.keptSessions.restore()).toEqual([])
    expect([...again.topology.queues()]).toEqual([])
  })

  test('is emptied at the next start if the process ended in between', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    await withQueue(core, 100)
    const number = Buffer.from([0, 0, 0, 1])
    await Promise.all([
      core.schedule.change({ key: key('s', Buffer.from('c1')), value: null }),
      core.schedule.change({ key: key('e', number), value: Buffer.from('session:c1') }),
    ])
    await core.close()
    await using again = await CoreUnderTest.open(directory.path)
    expect(await again.keptSessions.restore()).toEqual([])
    await eventually(async () => (await keys(again, key('e'))).length === 0)
    expect(await again.store.unsettled(1)).toEqual({ messages: 0, bytes: 0 })
    expect([...again.topology.queues()]).toEqual([])
  })

  test('drops its oldest over its limit, on disk too, and never refuses', async () => {
    await using directory = await tempDir()
    const sessionQueue = {
      messages: 10,
      bytes: 1024 ** 2,
      ageMs: Number.POSITIVE_INFINITY,
      onFull: 'drop_oldest',
    } as const
    const core = await CoreUnderTest.open(directory.path, { sessionQueue })
    await withQueue(core, 10)
    await core.close()
    await using again = await CoreUnderTest.open(directory.path, { sessionQueue })
    const [found] = await again.keptSessions.restore()
    const queue = found?.session.queue ?? expect.fail('no queue')
    again.router.bind('mqtt', { pattern: 'a', destination: { live: null, queue }, maxQos: 1, note: 0 })
    for (let n = 10; n < 15; n++) await again.router.publish(messageTo('a', `${n}`))
    await eventually(() => queue.depth === 10)
    expect(queue.ledger.figures().dropped).toEqual({ overflow: 5 })
    expect(queue.ledger.imbalance).toBe(0)
  })
})

/** Flips a bit of one record in state/, behind LevelDB's back: it takes it for sound. */
async function damageRecord(directory: string, at: Buffer): Promise<void> {
  const level = createLevel(join(directory, 'store', 'state'), levelSettings(false, false))
  await level.open()
  const value = await level.get(at)
  if (value === undefined) throw new Error(`no record ${at.toString('latin1')}`)
  value[0] = (value[0] ?? 0) ^ 1
  await level.put(at, value)
  await level.close()
}

describe('a damaged record', () => {
  /** Client, key of the record, and what of the client is missing then. */
  const RECORDS: [string, Buffer, object][] = [
    ['a subscription', key('f', Buffer.from('c1\0a')), { subscriptions: [] }],
    ['packet ids', key('i', Buffer.from('c1')), { packetIds: { held: [] } }],
    ['a will', Buffer.concat([Buffer.from([StatePrefix.will]), Buffer.from('c1')]), { will: null }],
    ['a retained message', Buffer.concat([Buffer.from([StatePrefix.retained]), Buffer.from('state/c1')]), {}],
  ]
  const WHOLE = { subscriptions: [{ filter: 'a' }], packetIds: { held: [7] }, will: { delayMs: 5000 } }

  async function fill(directory: string): Promise<void> {
    await using core = await CoreUnderTest.open(directory)
    await core.queue('jobs', 'jobs/#')
    for (const clientId of ['c1', 'c2']) {
      const session = core.keptSessions.begin(clientId)
      const queue = session.takeQueue()
      await session.connected({ ...ANONYMOUS, will: { delayMs: 5000, message: messageTo('w', 'bye') } })
      const granted = { qos: 1, isNoLocal: false, isRetainAsPublished: false, identifier: 0 } as const
      await session.subscribed({ filter: 'a', ...granted, isOwedRetained: false })
      const owner: PacketIdOwner = {
        idsToKeep: () => ({ held: [7], sent: [], released: [] }),
        idsKept: () => undefined,
      }
      session.keepIds(owner).due()
      core.router.bind('mqtt', { pattern: 'a', destination: { live: null, queue }, maxQos: 1, note: 0 })
      await core.router.publish(messageTo(`state/${clientId}`, 'on', { retain: true }))
    }
    await core.router.publish(messageTo('a', 'x'))
    await core.router.publish(messageTo('jobs/1', 'work'))
  }

  test.each(RECORDS)('of %s costs that and nothing else, and is told', async (_what, at, missing) => {
    await using directory = await tempDir()
    await fill(directory.path)
    await damageRecord(directory.path, at)
    await using core = await CoreUnderTest.open(directory.path)
    const [one, two] = await core.keptSessions.restore()
    expect(one).toMatchObject({ ...WHOLE, ...missing })
    expect(two).toMatchObject(WHOLE)
    expect([one?.session.queue?.depth, two?.session.queue?.depth]).toEqual([1, 1])
    expect(core.retained.messages).toBe(at[0] === StatePrefix.retained ? 1 : 2)
    expect(core.store.isDamaged).toBe(true)
  })

  test('of a session leaves its messages to the operator, and none of them comes up elsewhere', async () => {
    await using directory = await tempDir()
    await fill(directory.path)
    await damageRecord(directory.path, key('s', Buffer.from('c2')))
    {
      await using core = await CoreUnderTest.open(directory.path)
      expect(await core.keptSessions.restore()).toMatchObject([WHOLE])
      expect(core.store.isDamaged).toBe(true)
      expect(core.topology.queue('session:c2').depth).toBe(1)
      expect(core.topology.isOrphan('session:c2')).toBe(true)
      const { queue } = await withQueue(core, 0)
      expect(queue.depth).toBe(0)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const depths = (await core.keptSessions.restore()).map(({ session }) => session.queue?.depth)
    expect(depths).toEqual([0])
    await core.topology.deleteQueue('session:c2')
  })

  test("of a queue's definition costs no message: it has its name from them", async () => {
    await using directory = await tempDir()
    await fill(directory.path)
    const definition = Buffer.concat([
      Buffer.from([StatePrefix.definition]),
      Buffer.from('q'),
      Buffer.from([0, 0, 0, 1]),
    ])
    await damageRecord(directory.path, definition)
    {
      await using core = await CoreUnderTest.open(directory.path)
      expect((await core.queue('jobs', 'jobs/#')).depth).toBe(1)
      expect(core.store.isDamaged).toBe(true)
    }
    await using core = await CoreUnderTest.open(directory.path)
    expect(core.topology.queue('jobs')).toMatchObject({ depth: 1, limits: WIDE_LIMITS })
    expect(core.store.isDamaged).toBe(false)
  })
})
