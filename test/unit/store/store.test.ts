import { appendFile, cp, readdir, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { recordBytes } from '../../../src/model/message.ts'
import { LOG_FORMAT_KEY, parseLogKey, StatePrefix, segmentIndexKey } from '../../../src/store/keys.ts'
import { sealValue } from '../../../src/store/state.ts'
import type { Store } from '../../../src/store/store.ts'
import { ABSENT, type SegmentRef } from '../../../src/store/types.ts'
import { bitmapOf, commitOf, numbers, openStore, readQueue, recordOf, segmentOf } from '../../support/store-kit.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

const LEDGER = Buffer.from([StatePrefix.ledger, 1])

/** Commits one segment with the records of these seqs. */
async function append(
  store: Store,
  queue: number,
  seqs: number[],
  changes: { payloadBytes?: number } = {},
): Promise<SegmentRef> {
  const commit = store.nextCommit
  const records = seqs.map(seq => recordOf(seq, store.boot.boot, changes.payloadBytes ?? 60))
  await store.commit(commitOf({ segments: [segmentOf({ queue, first: seqs[0] ?? 0, records })] }))
  return { commit, part: 1 }
}

const settleAll = (store: Store, queue: number, ref: SegmentRef, count: number): Promise<void> =>
  store.commit(commitOf({ marks: [{ queue, ref, settled: bitmapOf(count, numbers(0, count - 1)), isComplete: true }] }))

/** The data directory as a power cut or kill -9 would leave it: the store still has it open. */
async function imageOf(directory: TempDir): Promise<TempDir> {
  const image = await tempDir()
  await cp(directory.path, image.path, { recursive: true })
  return image
}

describe('a commit', () => {
  test('is there after every reopening, in order, with notes and positions', async () => {
    await using directory = await tempDir()
    for (let round = 0; round < 5; round++) {
      await using store = await openStore(directory.path)
      const from = round * 3
      const records = numbers(from, from + 2).map(seq => recordOf(seq, 1))
      await store.commit(commitOf({ segments: [segmentOf({ queue: 7, first: from, records, note: round })] }))
      const { entries, damaged } = await readQueue(store, 7)
      expect(damaged).toBe(0)
      expect(entries.map(({ position, seq, note }) => [position, seq, note])).toEqual(
        numbers(0, from + 2).map(seq => [seq, seq, Math.floor(seq / 3)]),
      )
      expect(store.recovery).toMatchObject({ lostCommits: 0, lostRecords: 0, findings: [] })
      expect(store.isDamaged).toBe(false)
    }
  })

  test('holds the bytes that were handed over, even those of a record larger than LevelDB likes', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    const records = [recordOf(0, 1, 10), recordOf(1, 1, 3_000_000), recordOf(2, 1, 0)]
    await store.commit(commitOf({ segments: [segmentOf({ queue: 1, first: 0, records })] }))
    const [segment] = await store.segments(1, null, 1)
    if (segment === undefined) throw new Error('no segment')
    for (const [entry, record] of records.entries()) {
      const at = segment.offsets[entry] ?? ABSENT
      expect(recordBytes(segment.bytes, at)).toBe(record.length)
      expect(segment.bytes.subarray(at + 8, at + record.length).equals(record.subarray(8))).toBe(true)
    }
  })

  test('leaves a hole where an entry was settled before it was written', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    const records = [null, recordOf(1, 1), null, recordOf(3, 1), null]
    await store.commit(commitOf({ segments: [segmentOf({ queue: 1, first: 0, records })] }))
    expect((await readQueue(store, 1)).entries.map(({ position }) => position)).toEqual([1, 3])
    expect(await store.lastSegment(1)).toEqual({ ref: { commit: 2, part: 1 }, end: 5 })
  })

  test('stores the body of a message once however many queues it goes to, and each queue reads it', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    const queues = numbers(1, 8)
    const records = [recordOf(0, 1, 20_000)]
    await store.commit(
      commitOf({ segments: queues.map(queue => segmentOf({ queue, first: 0, records, isShared: true })) }),
    )
    for (const queue of queues) expect((await readQueue(store, queue)).seqs).toEqual([0])
    await store.close()
    const logBytes =
      (await stat(join(directory.path, 'store/log')).then(() => directoryBytes(join(directory.path, 'store/log')))) ?? 0
    expect(logBytes).toBeLessThan(60_000)
  })

  test('keeps a shared body until the last queue has settled it, across restarts', async () => {
    await using directory = await tempDir()
    const records = [recordOf(0, 1)]
    {
      await using store = await openStore(directory.path)
      await store.commit(
        commitOf({ segments: [1, 2].map(queue => segmentOf({ queue, first: 0, records, isShared: true })) }),
      )
      await settleAll(store, 1, { commit: 2, part: 1 }, 1)
    }
    {
      await using store = await openStore(directory.path)
      expect([(await readQueue(store, 1)).seqs, (await readQueue(store, 2)).seqs]).toEqual([[], [0]])
      await settleAll(store, 2, { commit: 2, part: 1 }, 1)
    }
    await using store = await openStore(directory.path)
    expect((await readQueue(store, 2)).seqs).toEqual([])
    expect(store.isDamaged).toBe(false)
  })

  test('is refused as a mistake while another is under way, and when it writes the store’s own keys', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    const first = store.commit(commitOf({}))
    await expect(store.commit(commitOf({}))).rejects.toThrow(TypeError)
    await first
    await expect(store.commit(commitOf({ changes: [{ key: Buffer.from('s'), value: null }] }))).rejects.toThrow(
      TypeError,
    )
  })
})

describe('settled marks', () => {
  test('hide entries, survive a restart, can be taken back, and delete the segment when complete', async () => {
    await using directory = await tempDir()
    const settledOf = async (settled: number[], isComplete = false) => {
      await using store = await openStore(directory.path)
      await store.commit(commitOf({ marks: [{ queue: 1, ref, settled: bitmapOf(4, settled), isComplete }] }))
    }
    let ref: SegmentRef
    {
      await using store = await openStore(directory.path)
      ref = await append(store, 1, [0, 1, 2, 3])
    }
    await settledOf([0, 2])
    {
      await using store = await openStore(directory.path)
      expect((await readQueue(store, 1)).seqs).toEqual([1, 3])
    }
    await settledOf([2])
    {
      await using store = await openStore(directory.path)
      expect((await readQueue(store, 1)).seqs).toEqual([0, 1, 3])
    }
    await settledOf([0, 1, 2, 3], true)
    await using store = await openStore(directory.path)
    expect((await readQueue(store, 1)).seqs).toEqual([])
    expect(await store.lastSegment(1)).toBeNull()
  })

  test('may come in the commit that writes the segment', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    const ref = { commit: store.nextCommit, part: 1 }
    const segments = [segmentOf({ queue: 1, first: 0, records: [recordOf(0, 1), recordOf(1, 1)] })]
    await store.commit(commitOf({ segments, marks: [{ queue: 1, ref, settled: bitmapOf(2, [0]), isComplete: false }] }))
    expect((await readQueue(store, 1)).seqs).toEqual([1])
  })

  test('of the commit before the stop are not forgotten when state/ was damaged', async () => {
    await using directory = await tempDir()
    {
      await using store = await openStore(directory.path)
      const ref = await append(store, 1, [0, 1, 2])
      await store.commit(commitOf({ marks: [{ queue: 1, ref, settled: bitmapOf(3, [1]), isComplete: false }] }))
    }
    await rm(join(directory.path, 'store/state/CURRENT'))
    await using store = await openStore(directory.path)
    expect(store.recovery.isStateRebuilt).toBe(true)
    expect((await readQueue(store, 1)).seqs).toEqual([0, 2])
  })

  test('of a segment that is gone change nothing', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    const ref = await append(store, 1, [0])
    await settleAll(store, 1, ref, 1)
    await settleAll(store, 1, ref, 1)
    await store.commit(commitOf({ marks: [{ queue: 1, ref, settled: bitmapOf(1, []), isComplete: false }] }))
    expect((await readQueue(store, 1)).seqs).toEqual([])
  })
})

describe('reading a queue', () => {
  test('gives one segment always, more while their bytes stay within the limit', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    for (let at = 0; at < 6; at++) await append(store, 1, [at], { payloadBytes: 1000 })
    const lengths = await Promise.all(
      [1, 2500, 100_000].map(async maxBytes => (await store.segments(1, null, maxBytes)).length),
    )
    expect(lengths).toEqual([1, 2, 6])
  })

  test('reads thousands of one-record segments whole and in order, whatever lies between', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    for (let commit = 0; commit < 3; commit++) {
      const segments = numbers(0, 999).flatMap(part => {
        const position = commit * 1000 + part
        return [1, 2].map(queue => segmentOf({ queue, part, first: position, records: [recordOf(position, 1, 8)] }))
      })
      await store.commit(commitOf({ segments }))
    }
    expect((await readQueue(store, 1)).seqs).toEqual(numbers(0, 2999))
    expect((await readQueue(store, 2, 1)).seqs).toEqual(numbers(0, 2999))
  })

  test('sees a commit as soon as it has resolved', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    for (let at = 0; at < 50; at++) {
      await append(store, 1, [at])
      expect((await store.lastSegment(1))?.end).toBe(at + 1)
    }
  })

  test('does not take a segment that is settled and deleted meanwhile for damage', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    const refs: SegmentRef[] = []
    for (let at = 0; at < 40; at++) refs.push(await append(store, 1, [at]))
    const reading = Promise.all(numbers(1, 20).map(() => readQueue(store, 1, 1)))
    for (const ref of refs) await settleAll(store, 1, ref, 1)
    for (const { damaged } of await reading) expect(damaged).toBe(0)
    expect(store.isDamaged).toBe(false)
  })
})

describe("core's own records", () => {
  test('come back by key and by prefix, in order, the latest value', async () => {
    await using directory = await tempDir()
    const keys = numbers(0, 2500).map(n => Buffer.from([StatePrefix.retained, n >> 8, n & 255]))
    {
      await using store = await openStore(directory.path)
      await store.commit(commitOf({ changes: keys.map(key => ({ key, value: Buffer.from('old') })) }))
      await store.commit(commitOf({ changes: keys.map(key => ({ key, value: Buffer.from(key) })) }))
      await store.commit(commitOf({ changes: keys.slice(0, 10).map(key => ({ key, value: null })) }))
      await store.commit(commitOf({ changes: [{ key: LEDGER, value: Buffer.alloc(0) }] }))
    }
    await using store = await openStore(directory.path)
    const found: Buffer[] = []
    for await (const [key, value] of store.readState(Buffer.from([StatePrefix.retained]))) {
      expect(value).toEqual(key)
      found.push(key)
    }
    expect(found).toEqual(keys.slice(10))
    expect([await store.getState(LEDGER), await store.getState(keys[0] ?? LEDGER)]).toEqual([
      Buffer.alloc(0),
      undefined,
    ])
  })
})

describe('a process start', () => {
  test('has a boot number above all before and an epoch of its own, and knows earlier ones', async () => {
    await using directory = await tempDir()
    const boots = []
    for (let start = 1; start <= 3; start++) {
      await using store = await openStore(directory.path, {
        gateway: `gw-${start}`,
        wallMs: () => 5000 * start,
        monotonicMs: () => 1000,
      })
      expect(store.boot).toMatchObject({
        boot: start,
        gateway: `gw-${start}`,
        wallOffsetMs: 5000 * start - 1000,
        clock: 0,
      })
      expect(store.boot.epoch).toMatch(/^[a-z2-7]{10}$/)
      boots.push(store.boot)
      for (const boot of boots) expect(store.bootRecord(boot.boot)).toEqual(boot)
      expect(store.bootRecord(start + 1)).toBeUndefined()
    }
    expect(new Set(boots.map(({ epoch }) => epoch)).size).toBe(3)
  })

  test('writes nothing more while nothing happens', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    await append(store, 1, [0])
    await readQueue(store, 1)
    const before = await imageOf(directory)
    for (let at = 0; at < 20; at++) await readQueue(store, 1)
    const after = await imageOf(directory)
    expect(await directoryBytes(after.path)).toBe(await directoryBytes(before.path))
    await before.remove()
    await after.remove()
  })
})

describe('state/', () => {
  /** A store with two checkpoints behind it, something settled, something shared, ledger and a tail without checkpoint. */
  async function build(directory: string, beforeSecond: () => Promise<void> = () => Promise.resolve()): Promise<Store> {
    {
      await using store = await openStore(directory)
      store.nameQueue(1, 'telemetry')
      const ref = await append(store, 1, [0, 1, 2])
      await append(store, 1, [3, 4, 5])
      await settleAll(store, 1, ref, 3)
      const records = [recordOf(100, 1)]
      await store.commit(
        commitOf({ segments: [2, 3].map(queue => segmentOf({ queue, first: 0, records, isShared: true })) }),
      )
      await store.commit(commitOf({ changes: [{ key: LEDGER, value: Buffer.from('first') }] }))
    }
    await beforeSecond()
    {
      await using store = await openStore(directory)
      store.nameQueue(1, 'telemetry')
      const ref = await append(store, 1, [6, 7, 8])
      await store.commit(commitOf({ marks: [{ queue: 1, ref, settled: bitmapOf(3, [1]), isComplete: false }] }))
      await store.commit(commitOf({ changes: [{ key: LEDGER, value: Buffer.from('second') }] }))
    }
    const store = await openStore(directory)
    store.nameQueue(1, 'telemetry')
    const ref = await append(store, 1, [9, 10, 11])
    await append(store, 1, [12, 13, 14])
    await settleAll(store, 1, ref, 3)
    await store.commit(commitOf({ changes: [{ key: LEDGER, value: Buffer.from('last') }] }))
    return store
  }
  const EXPECTED = [3, 4, 5, 6, 8, 12, 13, 14]

  test('without the changes since its last checkpoint is brought up to log/', async () => {
    await using directory = await tempDir()
    await using store = await build(directory.path)
    await using image = await imageOf(directory)
    // What a power cut may do to state/: nothing since the checkpoint has reached the disk. The files are there, for LevelDB syncs the directory with
    // the MANIFEST that names them, but they are empty.
    const location = join(image.path, 'store/state')
    const logs = (await readdir(location)).filter(file => file.endsWith('.log'))
    expect(logs).not.toEqual([])
    for (const file of logs) await truncate(join(location, file))
    await using reopened = await openStore(image.path)
    expect(reopened.recovery).toMatchObject({ isStateRebuilt: false, lostRecords: 0, findings: [] })
    expect(reopened.recovery.replayedCommits).toBeGreaterThanOrEqual(4)
    expect((await readQueue(reopened, 1)).seqs).toEqual(EXPECTED)
    expect(await reopened.getState(LEDGER)).toEqual(Buffer.from('last'))
    expect(store.isDamaged).toBe(false)
  })

  test('that is lost is built anew from log/: nothing unsettled is missing, queues are known by name', async () => {
    await using directory = await tempDir()
    await using store = await build(directory.path)
    await using image = await imageOf(directory)
    await rm(join(image.path, 'store/state'), { recursive: true })
    for (const round of [1, 2]) {
      await using reopened = await openStore(image.path)
      const { seqs, damaged } = await readQueue(reopened, 1)
      // Marks made before the last checkpoint are lost with it: 7 is delivered again.
      expect(seqs).toEqual([3, 4, 5, 6, 7, 8, 12, 13, 14])
      expect([(await readQueue(reopened, 2)).seqs, (await readQueue(reopened, 3)).seqs, damaged]).toEqual([
        [100],
        [100],
        0,
      ])
      expect(reopened.recovery.isStateRebuilt).toBe(round === 1)
      if (round === 1) expect(reopened.recovery.queueNames).toEqual(new Map([[1, 'telemetry']]))
      expect(reopened.recovery.lostRecords).toBe(0)
      expect(reopened.bootRecord(store.boot.boot)).toEqual(store.boot)
      expect(reopened.boot.boot).toBeGreaterThan(store.boot.boot)
    }
  })

  test('that is older than what log/ has forgotten is recognised and built anew', async () => {
    await using directory = await tempDir()
    await using old = await tempDir()
    await using store = await build(directory.path, () =>
      cp(join(directory.path, 'store/state'), join(old.path, 'state'), { recursive: true }),
    )
    await using image = await imageOf(directory)
    await rm(join(image.path, 'store/state'), { recursive: true })
    await cp(join(old.path, 'state'), join(image.path, 'store/state'), { recursive: true })
    await using reopened = await openStore(image.path)
    expect(reopened.recovery.isStateRebuilt).toBe(true)
    expect((await readQueue(reopened, 1)).seqs).toEqual([3, 4, 5, 6, 7, 8, 12, 13, 14])
    expect(await reopened.getState(LEDGER)).toEqual(Buffer.from('last'))
    expect(store.isDamaged).toBe(false)
  })

  test.each([
    ['lost the delta of the checkpoint', 1, null, EXPECTED],
    ['a damaged delta of the checkpoint', 1, Buffer.from('damaged'), EXPECTED],
    ['lost the next delta too', 2, null, [3, 4, 5, 6, 7, 8, 12, 13, 14]],
    ['the next delta damaged too', 2, Buffer.from('damaged'), [3, 4, 5, 6, 7, 8, 12, 13, 14]],
  ])('is believed where every delta since its checkpoint is there: log/ has %s', async (_, count, harmed, expected) => {
    await using directory = await tempDir()
    await using store = await build(directory.path)
    await using image = await imageOf(directory)
    const log = new ClassicLevel<Buffer, Buffer>(join(image.path, 'store/log'), {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
    })
    const deltas = (await log.keys().all()).filter(key => {
      const place = parseLogKey(key)
      return place !== null && place.commit > 0 && place.queue === 0 && place.part === 0
    })
    for (const key of deltas.slice(0, count)) await (harmed === null ? log.del(key) : log.put(key, harmed))
    await log.close()
    await using reopened = await openStore(image.path)
    expect(reopened.recovery).toMatchObject({ isStateRebuilt: count > 1, lostRecords: 0, missingRecords: 0 })
    expect(await readQueue(reopened, 1)).toMatchObject({ seqs: expected, damaged: 0 })
    expect(await reopened.getState(LEDGER)).toEqual(Buffer.from('last'))
    expect(store.isDamaged).toBe(false)
  })

  test('that a crash left half rebuilt, without a checkpoint record, is rebuilt at the next start', async () => {
    await using directory = await tempDir()
    await using store = await build(directory.path)
    await using image = await imageOf(directory)
    await rm(join(image.path, 'store/state'), { recursive: true })
    const half = new ClassicLevel<Buffer, Buffer>(join(image.path, 'store/state'), {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
    })
    await half.put(segmentIndexKey(1, { commit: 3, part: 1 }), Buffer.from('half written'))
    await half.close()
    await using reopened = await openStore(image.path)
    expect(reopened.recovery.isStateRebuilt).toBe(true)
    expect((await readQueue(reopened, 1)).seqs).toEqual([3, 4, 5, 6, 7, 8, 12, 13, 14])
    expect(store.nextCommit).toBeLessThan(reopened.nextCommit)
  })
})

describe('what a crash leaves is not damage:', () => {
  test.each(['log', 'state'])('a table of %s/ that was begun and is in no MANIFEST yet', async name => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    await append(store, 1, [0, 1, 2])
    await using image = await imageOf(directory)
    await writeFile(join(image.path, 'store', name, '000099.ldb'), Buffer.alloc(5000, 7))
    await using reopened = await openStore(image.path)
    expect(reopened.recovery).toMatchObject({ isStateRebuilt: false, findings: [], quarantined: [] })
    expect((await readQueue(reopened, 1)).seqs).toEqual([0, 1, 2])
  })

  test.each(['log', 'state'])('a MANIFEST of %s/ whose last entry was not written to its end', async name => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    await append(store, 1, [0, 1, 2])
    await using image = await imageOf(directory)
    const location = join(image.path, 'store', name)
    const manifest = (await readdir(location)).find(file => file.startsWith('MANIFEST')) ?? ''
    // A record of 100 bytes, of which 13 came to be written.
    await appendFile(join(location, manifest), Buffer.from([1, 2, 3, 4, 100, 0, 1, 7, 7, 7, 7, 7, 7]))
    await using reopened = await openStore(image.path)
    expect(reopened.recovery).toMatchObject({ isStateRebuilt: false, findings: [], quarantined: [] })
    expect((await readQueue(reopened, 1)).seqs).toEqual([0, 1, 2])
  })
})

describe('opening', () => {
  test('a directory that another store of this process has open says so', async () => {
    await using directory = await tempDir()
    await using store = await openStore(directory.path)
    await append(store, 1, [0])
    await expect(openStore(directory.path)).rejects.toMatchObject({ code: 'STORE_LOCKED' })
    await append(store, 1, [1])
    expect((await readQueue(store, 1)).seqs).toEqual([0, 1])
  })

  test('a path that is no directory says so', async () => {
    await using directory = await tempDir()
    await writeFile(join(directory.path, 'file'), '')
    await expect(openStore(join(directory.path, 'file'))).rejects.toMatchObject({ code: 'STORE_UNWRITABLE' })
  })

  test('a store of a format it does not know says which, and leaves it as it is', async () => {
    await using directory = await tempDir()
    await (await openStore(directory.path)).close()
    const level = new ClassicLevel<Buffer, Buffer>(join(directory.path, 'store/log'), {
      keyEncoding: 'buffer',
      valueEncoding: 'buffer',
    })
    await level.put(LOG_FORMAT_KEY, sealValue(LOG_FORMAT_KEY, Buffer.from('sluice-log 99')))
    await level.close()
    await expect(openStore(directory.path)).rejects.toMatchObject({
      code: 'STORE_FORMAT_UNKNOWN',
      message: expect.stringContaining('99'),
    })
  })

  test('again after close works at once; closing twice and committing after it are answered', async () => {
    await using directory = await tempDir()
    const store = await openStore(directory.path)
    const committed = append(store, 1, [0])
    await store.close()
    await store.close()
    await committed
    expect(store.refusal).toBe('STOPPING')
    await expect(store.commit(commitOf({}))).rejects.toMatchObject({ code: 'STOPPING' })
    await expect(store.segments(1, null, 1)).rejects.toMatchObject({ code: 'STOPPING' })
    await using reopened = await openStore(directory.path)
    expect((await readQueue(reopened, 1)).seqs).toEqual([0])
  })
})

test('against a model: whatever is appended, settled, taken back and reopened, what is read is what is unsettled', async () => {
  const step = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        do: fc.constant('append' as const),
        queue: fc.integer({ min: 1, max: 3 }),
        count: fc.integer({ min: 1, max: 5 }),
        isShared: fc.boolean(),
      }),
    },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('mark' as const), which: fc.nat(), bits: fc.nat(31) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('reopen' as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('crash' as const) }) },
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async steps => {
      let directory = await tempDir()
      let store = await openStore(directory.path)
      const model: { queue: number; ref: SegmentRef; seqs: number[]; settled: Set<number> }[] = []
      const ends = new Map<number, number>()
      let seq = 0
      for (const action of steps) {
        if (action.do === 'append') {
          const ref = { commit: store.nextCommit, part: 1 }
          const seqs = numbers(seq, seq + action.count - 1)
          seq += action.count
          const queues = action.isShared ? [action.queue, action.queue + 3] : [action.queue]
          const records = seqs.map(n => recordOf(n, 1, 8 + (n % 50)))
          const segments = queues.map(queue =>
            segmentOf({ queue, first: ends.get(queue) ?? 0, records, isShared: action.isShared }),
          )
          await store.commit(commitOf({ segments }))
          for (const queue of queues) {
            ends.set(queue, (ends.get(queue) ?? 0) + seqs.length)
            model.push({ queue, ref, seqs, settled: new Set() })
          }
        } else if (action.do === 'mark') {
          const segment = model[action.which % Math.max(1, model.length)]
          if (segment === undefined) continue
          segment.settled = new Set(segment.seqs.filter((_, at) => ((action.bits >> at) & 1) === 1))
          const isComplete = segment.settled.size === segment.seqs.length
          const settled = bitmapOf(
            segment.seqs.length,
            [...segment.seqs.keys()].filter(at => ((action.bits >> at) & 1) === 1),
          )
          await store.commit(commitOf({ marks: [{ queue: segment.queue, ref: segment.ref, settled, isComplete }] }))
          if (isComplete) model.splice(model.indexOf(segment), 1)
        } else if (action.do === 'reopen') {
          await store.close()
          store = await openStore(directory.path)
        } else {
          const image = await imageOf(directory)
          await store.close()
          await directory.remove()
          directory = image
          store = await openStore(directory.path)
          expect(store.recovery.findings).toEqual([])
        }
      }
      for (const queue of numbers(1, 6)) {
        const expected = model
          .filter(segment => segment.queue === queue)
          .flatMap(({ seqs, settled }) => seqs.filter(n => !settled.has(n)))
        expect((await readQueue(store, queue, 200)).seqs).toEqual(expected)
      }
      expect(store.isDamaged).toBe(false)
      await store.close()
      await directory.remove()
    }),
    { numRuns: 25 },
  )
}, 60_000)

async function directoryBytes(path: string): Promise<number> {
  let sum = 0
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    if (entry.isFile()) sum += (await stat(join(entry.parentPath, entry.name))).size
  }
  return sum
}
