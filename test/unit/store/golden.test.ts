import { cp, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { decodeRecord } from '../../../src/model/message.ts'
import { FORMAT_VERSION } from '../../../src/store/format.ts'
import { StatePrefix } from '../../../src/store/keys.ts'
import { ABSENT } from '../../../src/store/types.ts'
import { openStore, readQueue } from '../../support/store-kit.ts'
import { tempDir } from '../../support/temp-dir.ts'

const DATA = join(import.meta.dirname, '../../data')

test('there is a golden store of the present format', async () => {
  expect(await readdir(DATA)).toContain(`store-v${FORMAT_VERSION}`)
})

test('the golden store of format 1 is read as it was written', async () => {
  await using directory = await tempDir()
  await cp(join(DATA, 'store-v1'), directory.path, { recursive: true })
  await using store = await openStore(directory.path)
  expect(store.recovery).toMatchObject({
    isFirstStart: false,
    replayedCommits: 2,
    lostCommits: 0,
    lostRecords: 0,
    findings: [],
  })
  expect(store.boot.boot).toBe(3)
  expect(store.nextCommit).toBe(7)
  for (const boot of [1, 2]) {
    expect(store.bootRecord(boot)).toMatchObject({
      boot,
      gateway: 'gw-golden',
      wallOffsetMs: 1_799_999_995_000,
      clock: 1,
    })
    expect(store.bootRecord(boot)?.epoch).toMatch(/^[a-z2-7]{10}$/)
  }
  const [telemetry, alarms, history] = await Promise.all([1, 2, 3].map(queue => readQueue(store, queue)))
  expect(telemetry?.entries.map(({ position, seq, note }) => [position, seq, note])).toEqual([
    [1, 1, 1],
    [3, 3, 1],
    [4, 4, 0],
    [5, 5, 0],
  ])
  expect([alarms?.seqs, history?.seqs]).toEqual([[], [10, 11]])
  expect(await store.getState(Buffer.from([StatePrefix.ledger, 0, 0, 0, 1]))).toEqual(Buffer.from('second'))
  const segment = telemetry?.segments[0]
  const at = segment?.offsets[1] ?? ABSENT
  expect(decodeRecord(segment?.bytes ?? Buffer.alloc(0), at)).toMatchObject({
    exchange: 'mqtt',
    key: 'sensors/7/temperature',
    qos: 1,
    clientId: 'device-7',
    user: 'meter',
    expiryMs: 60_000,
    seq: 1,
    boot: 1,
    acceptedAt: 5001,
    payload: Buffer.from('{"seq":1}'),
  })
})
