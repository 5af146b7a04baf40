import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import {
  decodePacketIds,
  encodePacketIds,
  NO_PACKET_IDS,
  PACKET_IDS,
  type PacketIdOwner,
  type PacketIdRecord,
} from '../../../src/core/session-ids.ts'
import { eventually } from '../../support/eventually.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const id = fc.integer({ min: 1, max: 65_535 })
const record: fc.Arbitrary<PacketIdRecord> = fc.record({
  held: fc.array(id),
  sent: fc.array(fc.record({ id, position: fc.nat({ max: 2 ** 48 - 1 }) })),
  released: fc.array(id),
})

describe('the record of a session’s packet ids', () => {
  test('is read as it was written, and there is none of nothing', () => {
    expect(encodePacketIds(NO_PACKET_IDS)).toBeNull()
    fc.assert(
      fc.property(record, ids => {
        const bytes = encodePacketIds(ids)
        expect(bytes === null ? NO_PACKET_IDS : decodePacketIds(bytes)).toEqual(ids)
      }),
    )
  })

  test('of a later version is refused', () => {
    const bytes = encodePacketIds({ held: [1], sent: [], released: [] }) ?? expect.fail('there is something to keep')
    bytes[0] = 2
    expect(() => decodePacketIds(bytes)).toThrow(expect.objectContaining({ code: 'STORE_FORMAT_UNKNOWN' }))
  })
})

describe('packet ids on disk', () => {
  let directory: TempDir
  let core: CoreUnderTest
  let ids: PacketIdRecord
  let keptTimes: number
  const owner: PacketIdOwner = {
    idsToKeep: () => ids,
    idsKept: () => {
      keptTimes++
    },
  }

  beforeEach(async () => {
    directory = await tempDir()
    core = await CoreUnderTest.open(directory.path)
    ids = { held: [7], sent: [], released: [] }
    keptTimes = 0
  })

  afterEach(async () => {
    await core.close()
    await directory.remove()
  })

  async function onDisk(): Promise<[string, PacketIdRecord][]> {
    const found: [string, PacketIdRecord][] = []
    for await (const [key, value] of core.store.readState(PACKET_IDS)) {
      found.push([key.toString('utf8', PACKET_IDS.length), decodePacketIds(value)])
    }
    return found
  }

  test('are there when their owner hears it, under the id of the client', async () => {
    const kept = core.keptSessions.begin('client 1').keepIds(owner)
    core.gate.holdCommits()
    kept.due()
    await core.store.getState(Buffer.from('l'))
    expect([keptTimes, await onDisk()]).toEqual([0, []])
    core.gate.releaseCommits()
    await eventually(() => keptTimes === 1)
    expect(await onDisk()).toEqual([['client 1', ids]])
  })

  test('that nobody waits for are written within the time of what is buffered', async () => {
    core.keptSessions.begin('c').keepIds(owner).changed()
    await eventually(() => keptTimes === 1)
    expect(await onDisk()).toEqual([['c', ids]])
  })

  test('many changes before a commit are one record in it', async () => {
    const kept = core.keptSessions.begin('c').keepIds(owner)
    const before = core.store.nextCommit
    for (let n = 0; n < 100; n++) kept.due()
    await eventually(() => keptTimes === 1)
    expect(core.store.nextCommit).toBe(before + 1)
  })

  test('go with the session', async () => {
    const kept = core.keptSessions.begin('c').keepIds(owner)
    kept.due()
    await eventually(() => keptTimes === 1)
    kept.end()
    await core.schedule.flush()
    expect([keptTimes, await onDisk()]).toEqual([1, []])
  })
})
