import { join } from 'node:path'
import { expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { FaultyDisk } from '../support/faulty-level.ts'
import { outputUnder } from '../support/mount-namespace.ts'
import { commitOf, numbers, openStore, readQueue, recordOf, segmentOf } from '../support/store-kit.ts'
import { tempDir } from '../support/temp-dir.ts'

const WENT_WELL = {
  isAllThere: true,
  isAllThereAgain: true,
  damaged: 0,
  refusalWhileFull: 'STORE_UNAVAILABLE',
  refusalAtEnd: null,
  findings: [],
}

test('on a disk filled to the last byte a commit waits, comes through when there is room again, and nothing is lost', async () => {
  await using directory = await tempDir()
  const mounts = [{ directory: directory.path, options: 'size=32m' }]
  const canMount = await outputUnder(mounts, ['true']).then(
    () => true,
    () => false,
  )
  expect(await (canMount ? onSmallDisk(directory.path, mounts) : onFaultyDisk(directory.path))).toMatchObject(WENT_WELL)
})

async function onSmallDisk(directory: string, mounts: Parameters<typeof outputUnder>[0]): Promise<unknown> {
  const script = join(import.meta.dirname, '../support/full-disk-store.ts')
  return JSON.parse(await outputUnder(mounts, [process.execPath, script, directory]))
}

/** Where nothing can be mounted: the same by a database that says its disk is full. */
async function onFaultyDisk(directory: string): Promise<unknown> {
  const disk = new FaultyDisk()
  const store = await openStore(directory, {}, disk.create)
  const append = (seq: number) =>
    store.commit(commitOf({ segments: [segmentOf({ queue: 1, first: seq, records: [recordOf(seq, 1, 60_000)] })] }))
  for (const seq of numbers(0, 9)) await append(seq)
  disk.next = () => 'fails'
  const waiting = append(10)
  await eventually(() => store.refusal !== null)
  const refusalWhileFull = store.refusal
  disk.next = () => 'none'
  await waiting
  const first = await readQueue(store, 1)
  await store.close()
  await using reopened = await openStore(directory)
  const again = await readQueue(reopened, 1)
  const isWhole = (seqs: number[]) => seqs.length === 11 && seqs.every((seq, at) => seq === at)
  return {
    isAllThere: isWhole(first.seqs),
    isAllThereAgain: isWhole(again.seqs),
    damaged: first.damaged + again.damaged,
    refusalWhileFull,
    refusalAtEnd: reopened.refusal,
    findings: reopened.recovery.findings,
  }
}
