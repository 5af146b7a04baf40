import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { PacketIdOwner } from '../../src/core/session-ids.ts'
import { decodeRecord } from '../../src/model/message.ts'
import { HARMS, harmOne, STORE_FILES } from '../support/harm.ts'
import { messageTo } from '../support/messages.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'
import { CoreUnderTest } from '../support/with-core.ts'

/*
 * What a gateway keeps of its clients, under the harms of store-damage.test.ts: it starts, says that something is missing where something is, and does
 * not lose what lay elsewhere.
 */

const CLIENTS = 30
const WAITING = 3
const JOBS = 100
const FILLING = 'x'.repeat(200)
const identity = { user: null, groups: [] }
const clientIds = Array.from({ length: CLIENTS }, (_, n) => `client-${n}`)

const templates = new Map<'closed' | 'crashed', TempDir>()

beforeAll(async () => {
  templates.set('closed', await build(true))
  templates.set('crashed', await build(false))
})
afterAll(async () => {
  for (const directory of templates.values()) await directory.remove()
})

/** Sessions that are away, each with a subscription, a will, packet ids, messages that wait, and a message retained; a work queue beside. */
async function build(isClosed: boolean): Promise<TempDir> {
  await using source = await tempDir()
  for (const half of [clientIds.slice(0, CLIENTS / 2), clientIds.slice(CLIENTS / 2)]) {
    const core = await CoreUnderTest.open(source.path)
    await core.keptSessions.restore()
    await core.queue('jobs', 'jobs/#')
    for (const clientId of half) await away(core, clientId)
    await Promise.all(
      Array.from({ length: JOBS / 2 }, () => core.router.publish(messageTo('jobs/1', `job ${FILLING}`))),
    )
    await core.schedule.flush()
    if (isClosed || half[0] === clientIds[0]) {
      await core.close()
      continue
    }
    await core.gate.stillness()
    const copy = await copyOf(source)
    core.gate.releaseCommits()
    await core.close()
    return copy
  }
  return await copyOf(source)
}

async function away({ keptSessions, router }: CoreUnderTest, clientId: string): Promise<void> {
  const session = keptSessions.begin(clientId)
  const queue = session.takeQueue()
  await session.connected({ identity, expiryMs: 1e9, will: { delayMs: 1e9, message: messageTo('will', clientId) } })
  const granted = {
    qos: 1,
    isNoLocal: false,
    isRetainAsPublished: false,
    identifier: 0,
    isOwedRetained: false,
  } as const
  await session.subscribed({ filter: `to/${clientId}`, ...granted })
  const owner: PacketIdOwner = { idsToKeep: () => ({ held: [7], sent: [], released: [9] }), idsKept: () => undefined }
  session.keepIds(owner).due()
  router.bind('mqtt', { pattern: `to/${clientId}`, destination: { live: null, queue }, maxQos: 1, note: 0 })
  for (let n = 0; n < WAITING; n++) await router.publish(messageTo(`to/${clientId}`, `for ${clientId}`))
  await router.publish(messageTo(`state/${clientId}`, FILLING, { retain: true }))
}

async function copyOf({ path }: { readonly path: string }): Promise<TempDir> {
  const copy = await tempDir()
  await cp(path, copy.path, { recursive: true })
  return copy
}

/** What a start finds. */
async function found(directory: string) {
  await using core = await CoreUnderTest.open(directory)
  const sessions = await core.keptSessions.restore()
  const listed = [...core.topology.queues()]
  const queues = [...listed, ...sessions.flatMap(({ session }) => session.queue ?? [])]
  let jobs = 0
  let forClients = 0
  for (const queue of queues) {
    await queue.peek(10_000, (bytes, at) => {
      const { payload } = decodeRecord(bytes, at)
      if (payload.toString().startsWith('job ')) jobs++
      else forClients++
    })
  }
  for (const { session, subscriptions, will, packetIds } of sessions) {
    expect(clientIds).toContain(session.clientId)
    for (const { filter } of subscriptions) expect(filter).toBe(`to/${session.clientId}`)
    if (will !== null) expect(will.message.payload.toString()).toBe(session.clientId)
    expect([[], [7]]).toContainEqual(packetIds.held)
  }
  return {
    sessions: sessions.length,
    subscriptions: sessions.flatMap(({ subscriptions }) => subscriptions).length,
    wills: sessions.filter(({ will }) => will !== null).length,
    packetIds: sessions.filter(({ packetIds }) => packetIds.held.length + packetIds.released.length === 2).length,
    retained: core.retained.messages,
    jobs,
    forClients,
    isDamaged: core.store.isDamaged,
  }
}

const WHOLE = {
  sessions: CLIENTS,
  subscriptions: CLIENTS,
  wills: CLIENTS,
  packetIds: CLIENTS,
  retained: CLIENTS,
  jobs: JOBS,
  forClients: CLIENTS * WAITING,
}

describe.each(['closed', 'crashed'] as const)('sessions, wills and retained messages in a store that was %s', kind => {
  test('are all there as long as nothing is damaged', async () => {
    const template = templates.get(kind)
    if (template === undefined) throw new TypeError(`no store that was ${kind}`)
    await using directory = await copyOf(template)
    expect(await found(directory.path)).toEqual({ ...WHOLE, isDamaged: false })
  })

  // An orderly stop leaves next to nothing of it in log/.
  const files = STORE_FILES.filter(
    ([what, folder]) => folder === 'state' || (kind === 'crashed' && /^log.*file|table/.test(what)),
  )
  describe.each(files)('with its %s', (_what, folder, pattern) => {
    test.each(HARMS)('%s', async (_harm, harm) => {
      const template = templates.get(kind)
      if (template === undefined) throw new TypeError(`no store that was ${kind}`)
      await using directory = await copyOf(template)
      await harmOne(join(directory.path, 'store', folder), pattern, harm)
      const { isDamaged, ...kept } = await found(directory.path)
      if (!isDamaged) expect(kept).toEqual(WHOLE)
      // state/ has no messages of queues.
      if (folder === 'state') expect(kept).toMatchObject({ jobs: WHOLE.jobs, forClients: WHOLE.forClients })
      // It goes on from here.
      const { isDamaged: _, ...again } = await found(directory.path)
      expect(again).toEqual(kept)
    })
  })
})
