/*
 * A process that commits in a loop until it is killed, and says on stdout which sequence numbers it commits and settles: `node committer.ts DIRECTORY`.
 * Two queues, every third message goes to both; what is old is settled, partly and wholly. Every now and then it closes the store
 * in order, which makes a checkpoint, and opens it again.
 */
import { writeSync } from 'node:fs'
import type { SegmentRef } from '../../src/store/types.ts'
import { bitmapOf, commitOf, numbers, openStore, recordOf, segmentOf } from './store-kit.ts'

const COMMITS_PER_CHECKPOINT = 25

const [directory = ''] = process.argv.slice(2)
let store = await openStore(directory)
const open: { ref: SegmentRef; first: number; count: number; isShared: boolean }[] = []
const end = (await store.lastSegment(1))?.end ?? 0
say(`open ${store.recovery.lostRecords} ${store.recovery.isStateRebuilt} ${end}\n`)
let seq = end
for (let commits = 1; ; commits++) {
  const count = 1 + (seq % 20)
  const ref = { commit: store.nextCommit, part: 1 }
  const isShared = seq % 3 === 0
  const records = numbers(seq, seq + count - 1).map(n => recordOf(n, store.boot.boot, 40 + (n % 500)))
  const queues = isShared ? [1, 2] : [1]
  const settled = open.length > 30 ? open.shift() : undefined
  const half = open[0]
  const settling = [
    ...(settled === undefined ? [] : [settled]),
    ...(half === undefined ? [] : [{ first: half.first, count: 1 }]),
  ]
  // Synchronously, before and after: once a line is out it has been promised; what is only announced may have happened.
  for (const { first, count } of settling) say(`settling ${first} ${count}\n`)
  await store.commit(
    commitOf({
      segments: queues.map(queue => segmentOf({ queue, first: seq, records, isShared })),
      marks: [
        ...(settled === undefined
          ? []
          : (settled.isShared ? [1, 2] : [1]).map(queue => ({
              queue,
              ref: settled.ref,
              settled: bitmapOf(settled.count, numbers(0, settled.count - 1)),
              isComplete: true,
            }))),
        ...(half === undefined
          ? []
          : [{ queue: 1, ref: half.ref, settled: bitmapOf(half.count, [0]), isComplete: half.count === 1 }]),
      ],
    }),
  )
  if (half !== undefined && half.count === 1 && !half.isShared) open.shift()
  say(`committed ${seq} ${count}\n`)
  for (const { first, count } of settling) say(`settled ${first} ${count}\n`)
  open.push({ ref, first: seq, count, isShared })
  seq += count
  if (commits % COMMITS_PER_CHECKPOINT === 0) {
    await store.close()
    store = await openStore(directory)
  }
}

/** Writes a line before anything else happens. Node makes the pipe non-blocking: when the reader lags the line has to be offered again. */
function say(line: string): void {
  for (;;) {
    try {
      writeSync(1, line)
      return
    } catch (error) {
      if (!(error instanceof Error && 'code' in error && error.code === 'EAGAIN')) throw error
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    }
  }
}
