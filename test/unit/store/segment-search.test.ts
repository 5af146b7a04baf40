import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { recordSeq } from '../../../src/model/message.ts'
import type { Store } from '../../../src/store/store.ts'
import { ABSENT, type SegmentRef } from '../../../src/store/types.ts'
import { FaultyDisk } from '../../support/faulty-level.ts'
import { bitmapOf, commitOf, numbers, openStore, recordOf, segmentOf } from '../../support/store-kit.ts'
import { tempDir } from '../../support/temp-dir.ts'

const QUEUE = 2

/** The first seq met when reading on from there; null: the end. */
async function firstSeq(store: Store, after: SegmentRef | null): Promise<number | null> {
  const [segment] = await store.segments(QUEUE, after, 1)
  const at = segment?.offsets.find(offset => offset !== ABSENT)
  return segment === undefined || at === undefined ? null : recordSeq(segment.bytes, at)
}

/** Seqs are ten times the position. Each commit is a row of segments, [] one of another queue. */
async function write(store: Store, commits: readonly (readonly number[])[], payloadBytes = 10): Promise<number[]> {
  const firsts: number[] = []
  let next = 0
  for (const counts of commits) {
    const segments = counts.map((count, part) => {
      const positions = numbers(next, next + count - 1)
      firsts.push(next)
      next += count
      const records = positions.map(position => recordOf(position * 10, store.boot.boot, payloadBytes))
      return segmentOf({ queue: QUEUE, part, first: positions[0] ?? 0, records })
    })
    const other = segmentOf({ queue: 1, first: store.nextCommit, records: [recordOf(1, store.boot.boot)] })
    await store.commit(commitOf({ segments: segments.length === 0 ? [other] : segments }))
  }
  return firsts
}

describe('a place in a queue', () => {
  test('is found by position and by record, whatever commits its segments lie in', async () => {
    const commits = fc.array(fc.array(fc.integer({ min: 1, max: 5 }), { maxLength: 4 }), {
      minLength: 1,
      maxLength: 25,
    })
    await fc.assert(
      fc.asyncProperty(commits, async shape => {
        await using directory = await tempDir()
        await using store = await openStore(directory.path)
        const firsts = await write(store, shape)
        const end = shape.flat().reduce((sum, count) => sum + count, 0)
        for (const position of numbers(0, end)) {
          const segmentStart = firsts.findLast(first => first <= position) ?? null
          const wanted = segmentStart === null ? null : segmentStart * 10
          expect(await firstSeq(store, await store.seekPosition(QUEUE, position))).toBe(wanted)
          // Between two records: the search by record comes out at the segment that may hold the place.
          const before = (bytes: Buffer, at: number): boolean => recordSeq(bytes, at) < position * 10 + 5
          expect(await firstSeq(store, await store.seekRecord(QUEUE, before))).toBe(wanted)
        }
        expect(await store.seekRecord(QUEUE, () => false)).toBeNull()
      }),
      { numRuns: 15 },
    )
  })

  test('costs a few segments of two thousand', async () => {
    await using directory = await tempDir()
    const disk = new FaultyDisk()
    await using store = await openStore(directory.path, {}, disk.create)
    await write(
      store,
      numbers(1, 2000).map(() => [1]),
    )
    let read = 0
    disk.beforeRead = async values => {
      read += values
    }
    for (const position of [0, 3, 1000, 1500, 1999]) {
      read = 0
      await store.seekRecord(QUEUE, (bytes, at) => recordSeq(bytes, at) <= position * 10)
      expect(read).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(position + 2)) + 2)
      await store.seekPosition(QUEUE, position)
      expect(read).toBeLessThanOrEqual(2 * Math.ceil(Math.log2(position + 2)) + 2)
    }
  })

  test('behind what was deleted is found as well, and that of an emptied queue is its beginning', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    await write(
      store,
      numbers(1, 50).map(() => [2]),
    )
    const infos = await store.segmentInfos(QUEUE, null, Number.POSITIVE_INFINITY)
    expect(infos.map(({ first, end, unsettled }) => [first, end, unsettled])).toEqual(
      numbers(0, 49).map(at => [at * 2, at * 2 + 2, 2]),
    )
    const forget = (from: number, to: number): Promise<void> =>
      store.commit(
        commitOf({
          marks: infos
            .slice(from, to)
            .map(({ ref }) => ({ queue: QUEUE, ref, settled: bitmapOf(2, [0, 1]), isComplete: true })),
        }),
      )
    await forget(0, 30)
    expect(await firstSeq(store, await store.seekPosition(QUEUE, 10))).toBe(600)
    expect(await firstSeq(store, await store.seekPosition(QUEUE, 75))).toBe(740)
    await forget(30, 50)
    expect(await store.seekPosition(QUEUE, 75)).toBeNull()
    expect(await store.segmentInfos(QUEUE, null, Number.POSITIVE_INFINITY)).toEqual([])
  })
})
