import { readdirSync } from 'node:fs'
import { readdir, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import type { Store } from '../../../src/store/store.ts'
import { eventually } from '../../support/eventually.ts'
import { type Fault, FaultyDisk } from '../../support/faulty-level.ts'
import { bitmapOf, commitOf, numbers, openStore, readQueue, recordOf, segmentOf } from '../../support/store-kit.ts'
import { tempDir } from '../../support/temp-dir.ts'

const append = (store: Store, seq: number): Promise<void> =>
  store.commit(commitOf({ segments: [segmentOf({ queue: 1, first: seq, records: [recordOf(seq, store.boot.boot)] })] }))

/** Fails the n-th call that `matches`, once. */
function failOnce(disk: FaultyDisk, fault: Fault, database: 'log' | 'state', what: 'batch' | 'flush'): void {
  disk.next = (asked, call) => {
    if (asked !== database || call !== what) return 'none'
    disk.next = () => 'none'
    return fault
  }
}

describe.each([
  ['the write to log/ fails', 'fails', 'log'],
  ['the write to log/ fails after it has reached the disk', 'fails after writing', 'log'],
  ['the write to state/ fails', 'fails', 'state'],
  ['the write to state/ fails after it has reached the disk', 'fails after writing', 'state'],
] as const)('when %s', (_, fault, database) => {
  test('the commit resolves after the store has reopened itself, once, and nothing is lost or doubled', async () => {
    await using directory = await tempDir()
    const disk = new FaultyDisk()
    await using store = await openStore(directory.path, {}, disk.create)
    const refusals: (string | null)[] = []
    store.onRefusalChange = () => refusals.push(store.refusal)
    await append(store, 0)
    failOnce(disk, fault, database, 'batch')
    await append(store, 1)
    await append(store, 2)
    expect((await readQueue(store, 1)).seqs).toEqual([0, 1, 2])
    expect(refusals).toEqual(['STORE_UNAVAILABLE', null])
    expect(store.isDamaged).toBe(false)
    await store.close()
    await using reopened = await openStore(directory.path)
    expect(reopened.recovery).toMatchObject({ lostRecords: 0, lostCommits: 0, findings: [] })
    expect((await readQueue(reopened, 1)).seqs).toEqual([0, 1, 2])
  })
})

test('a commit waits as long as the disk is full, reads go on as soon as the store is open again', async () => {
  await using directory = await tempDir()
  const disk = new FaultyDisk()
  await using store = await openStore(directory.path, {}, disk.create)
  await append(store, 0)
  disk.next = (_, what) => (what === 'batch' ? 'fails' : 'none')
  let isDone = false
  const committed = append(store, 1).then(() => {
    isDone = true
  })
  await eventually(() => store.refusal === 'STORE_UNAVAILABLE')
  const tried = disk.writes
  await eventually(() => disk.writes > tried + 3)
  expect(isDone).toBe(false)
  disk.next = () => 'none'
  await committed
  expect(store.refusal).toBeNull()
  expect((await readQueue(store, 1)).seqs).toEqual([0, 1])
})

test('when opening needs room, the ballast is given up, and kept again once there is room', async () => {
  await using directory = await tempDir()
  const disk = new FaultyDisk()
  await using store = await openStore(directory.path, {}, disk.create)
  const ballast = join(directory.path, 'store/ballast')
  const ballastBytes = () =>
    stat(ballast).then(
      ({ size }) => size,
      () => 0,
    )
  await eventually(async () => (await ballastBytes()) === 4 * 1024 * 1024)
  let isBallastGone = false
  disk.next = (_, what) => (what === 'batch' ? 'fails' : 'none')
  const committed = append(store, 0)
  await eventually(() => store.refusal === 'STORE_UNAVAILABLE')
  disk.next = (_, what) => {
    if (what !== 'open') return 'none'
    isBallastGone = !readdirSync(join(directory.path, 'store')).includes('ballast')
    return isBallastGone ? 'none' : 'fails'
  }
  await committed
  expect(isBallastGone).toBe(true)
  disk.next = () => 'none'
  await eventually(async () => {
    await append(store, (await store.lastSegment(1))?.end ?? 0)
    return (await ballastBytes()) === 4 * 1024 * 1024
  })
})

test('closing while a commit waits for the disk rejects it, and the next start has what was committed', async () => {
  await using directory = await tempDir()
  const disk = new FaultyDisk()
  const store = await openStore(directory.path, {}, disk.create)
  await append(store, 0)
  disk.next = () => 'fails'
  const waiting = expect(append(store, 1)).rejects.toMatchObject({ code: 'STOPPING' })
  await eventually(() => store.refusal === 'STORE_UNAVAILABLE')
  await store.close()
  await waiting
  await using reopened = await openStore(directory.path)
  expect((await readQueue(reopened, 1)).seqs).toEqual([0])
})

test('when LevelDB keeps quiet about a flush that did not happen, nothing is deleted from log/', async () => {
  await using directory = await tempDir()
  const disk = new FaultyDisk()
  {
    await using store = await openStore(directory.path, {}, disk.create)
    for (let seq = 0; seq < 5; seq++) await append(store, seq)
    await store.commit(
      commitOf({ marks: [{ queue: 1, ref: { commit: 2, part: 1 }, settled: bitmapOf(1, [0]), isComplete: true }] }),
    )
    disk.next = (_, what) => (what === 'flush' ? 'does not flush' : 'none')
  }
  await using store = await openStore(directory.path)
  // Boot and six commits, all replayed: the checkpoint at close did not count.
  expect(store.recovery.replayedCommits).toBe(7)
  expect((await readQueue(store, 1)).seqs).toEqual([1, 2, 3, 4])
})

test('whichever write fails, all that was committed is there and in order', async () => {
  for (let failing = 1; failing <= 12; failing++) {
    await using directory = await tempDir()
    const disk = new FaultyDisk()
    {
      await using store = await openStore(directory.path, {}, disk.create)
      let calls = 0
      disk.next = (_, what) =>
        what === 'batch' && ++calls === failing ? (failing % 2 === 0 ? 'fails' : 'fails after writing') : 'none'
      for (let seq = 0; seq < 4; seq++) {
        await append(store, seq)
        if (seq === 1) {
          await store.commit(
            commitOf({
              marks: [{ queue: 1, ref: { commit: 2, part: 1 }, settled: bitmapOf(1, [0]), isComplete: true }],
            }),
          )
        }
      }
      expect((await readQueue(store, 1)).seqs).toEqual([1, 2, 3])
    }
    await using store = await openStore(directory.path)
    expect((await readQueue(store, 1)).seqs).toEqual([1, 2, 3])
    expect(store.recovery.findings).toEqual([])
  }
}, 30_000)

test('every write to log/ is synced', async () => {
  await using directory = await tempDir()
  const disk = new FaultyDisk()
  await using store = await openStore(directory.path, {}, disk.create)
  for (let seq = 0; seq < 5; seq++) await append(store, seq)
  expect(disk.unsyncedLogWrites).toBe(0)
  expect(disk.writes).toBeGreaterThan(5)
})

test('a segment that is settled and deleted between finding and reading it is not taken for damage', async () => {
  await using directory = await tempDir()
  const disk = new FaultyDisk()
  await using store = await openStore(directory.path, {}, disk.create)
  // As many as make a checkpoint due at once, which deletes them.
  const parts = numbers(0, 16_383)
  const commit = store.nextCommit
  await store.commit(
    commitOf({
      segments: parts.map(part => segmentOf({ queue: 1, part, first: part, records: [recordOf(part, 1, 8)] })),
    }),
  )
  let isReading = false
  const { promise: deleted, resolve: goOn } = Promise.withResolvers<void>()
  disk.beforeRead = () => {
    isReading = true
    return deleted
  }
  const reading = store.segments(1, null, 1)
  await eventually(() => isReading)
  let flushes = 0
  disk.next = (database, what) => {
    // The last step of a checkpoint is a write to state/ after its flush: then the keys are gone.
    if (database === 'state' && what === 'flush') flushes++
    if (database === 'state' && what === 'batch' && flushes > 0) goOn()
    return 'none'
  }
  const settled = bitmapOf(1, [0])
  await store.commit(
    commitOf({ marks: parts.map(part => ({ queue: 1, ref: { commit, part }, settled, isComplete: true })) }),
  )
  expect(await reading).toEqual([])
  expect(store.isDamaged).toBe(false)
}, 20_000)

describe('the disk guard', () => {
  test('refuses when the data directory has grown to its limit, and accepts again when something was freed', async () => {
    await using directory = await tempDir()
    const filler = join(directory.path, 'filler')
    let now = 0
    await using store = await openStore(directory.path, { diskBytes: 20 * 1024 * 1024, monotonicMs: () => now })
    const refusals: (string | null)[] = []
    store.onRefusalChange = () => refusals.push(store.refusal)
    await writeFile(filler, Buffer.alloc(20 * 1024 * 1024))
    // Looked at once a second at most, and only when something is committed.
    await append(store, 0)
    expect(store.refusal).toBeNull()
    now += 1000
    await append(store, 1)
    await eventually(() => store.refusal === 'DISK_FULL')
    // A refusal is for new messages: settling goes on.
    await store.commit(
      commitOf({ marks: [{ queue: 1, ref: { commit: 2, part: 1 }, settled: bitmapOf(1, [0]), isComplete: true }] }),
    )
    await writeFile(filler, Buffer.alloc(15 * 1024 * 1024))
    await eventually(() => store.refusal === 'DISK_FULL')
    await writeFile(filler, '')
    await eventually(() => store.refusal === null)
    expect(refusals).toEqual(['DISK_FULL', null])
  })

  test('refuses when less is free on the file system than must be', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path, { diskFreeMinBytes: 1024 ** 5 })
    expect(store.refusal).toBe('DISK_FULL')
    expect(await readdir(join(directory.path, 'store'))).not.toContain('ballast')
  })
})

test('acknowledged and written bytes are counted', async () => {
  await using directory = await tempDir()
  await using store = await openStore(directory.path)
  for (const seq of numbers(0, 9)) {
    await store.commit(
      commitOf({
        segments: [segmentOf({ queue: 1, first: seq, records: [recordOf(seq, 1, 50_000)] })],
        acceptedBytes: 50_000,
      }),
    )
  }
  expect(store.counters).toMatchObject({ commits: 10, acceptedBytes: 500_000 })
  expect(store.counters.lastSyncMs).toBeGreaterThan(0)
})
