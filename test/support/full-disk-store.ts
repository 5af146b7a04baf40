/*
 * A store on a disk that somebody else fills to the last byte, and frees again: `node full-disk-store.ts DIRECTORY`, on a small tmpfs. Prints what
 * happened as one line of JSON.
 */
import { existsSync } from 'node:fs'
import { open, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { eventually } from './eventually.ts'
import { commitOf, openStore, readQueue, recordOf, segmentOf } from './store-kit.ts'

const MEBIBYTE = 1024 ** 2
/** Left to the store at first. */
const ROOM_BYTES = 6 * MEBIBYTE

const [directory = ''] = process.argv.slice(2)
const store = await openStore(directory)
const refusals: (string | null)[] = []
store.onRefusalChange = () => refusals.push(store.refusal)
const filler = join(directory, 'filler')
await fillDisk()

let seq = 0
const append = () => {
  const records = [recordOf(seq, store.boot.boot, 60_000)]
  const committed = store.commit(commitOf({ segments: [segmentOf({ queue: 1, first: seq, records })] }))
  seq++
  return committed
}

// Give the ballast away, then commit until nothing more fits at all.
let waiting: Promise<void> | null = null
while (waiting === null) {
  let isDone = false
  const committed = append().then(() => {
    isDone = true
  })
  const isStuck = eventually(
    () => isDone || (store.refusal === 'STORE_UNAVAILABLE' && !existsSync(join(directory, 'store/ballast')) && 'stuck'),
    {
      deadlineMs: 30_000,
      intervalMs: 2,
    },
  )
  if ((await isStuck) === 'stuck') {
    // Four attempts of the store later it is still stuck, or had just found a last bit of room.
    await eventually(() => isDone || refusals.length >= 12, { deadlineMs: 4000 }).catch(() => false)
    if (!isDone) waiting = committed
  }
}
const committedBefore = seq - 1
const refusalWhileFull = store.refusal
await rm(filler)
await waiting
for (let more = 0; more < 5; more++) await append()
const { seqs, damaged } = await readQueue(store, 1)
// The guard looks at the disk once a second at most, and only when something is committed.
await eventually(async () => {
  await store.commit(commitOf({}))
  return existsSync(join(directory, 'store/ballast'))
})
await store.close()
const reopened = await openStore(directory)
const again = await readQueue(reopened, 1)
console.log(
  JSON.stringify({
    committedBefore,
    committed: seq,
    isAllThere: seqs.every((found, at) => found === at) && seqs.length === seq,
    isAllThereAgain: again.seqs.every((found, at) => found === at) && again.seqs.length === seq,
    damaged: damaged + again.damaged,
    refusalWhileFull,
    refusalAtEnd: reopened.refusal,
    findings: reopened.recovery.findings,
  }),
)
await reopened.close()

async function fillDisk(): Promise<void> {
  const file = await open(filler, 'w')
  const block = Buffer.alloc(64 * 1024, 1)
  let bytes = 0
  try {
    for (;;) bytes += (await file.write(block)).bytesWritten
  } catch {
    // No room left: what was meant.
  } finally {
    await file.close()
  }
  await truncate(filler, Math.max(0, bytes - ROOM_BYTES))
  await writeFile(join(directory, 'probe'), 'x')
}
