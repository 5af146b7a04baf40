import { copyFile, cp, link, mkdir, readdir, rm } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { HighWater } from '../../src/store/high-water.ts'
import { StatePrefix } from '../../src/store/keys.ts'
import type { Store } from '../../src/store/store.ts'
import { eventually } from '../support/eventually.ts'
import { HARMS, harmOne, STORE_FILES } from '../support/harm.ts'
import { bitmapOf, commitOf, numbers, openStore, readQueue, recordOf, segmentOf } from '../support/store-kit.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

/*
 * Every kind of file of the store, damaged in every way. Whatever was done to it: the store starts, what can be read is what was written, and
 * what is missing is reported.
 */

const QUEUES = [1, 2, 3]
const LEDGER = Buffer.from([StatePrefix.ledger, 1])

interface Template {
  readonly directory: TempDir
  /** Queue → seqs that are not settled. */
  readonly unsettled: Map<number, Set<number>>
  /** Queue → all seqs ever written. */
  readonly written: Map<number, Set<number>>
}

/** Nothing settled: with damage to log/ the figures must be exact. */
const UNSETTLED = 'crashed before anything was settled'
const KINDS = ['closed', 'crashed', UNSETTLED] as const
const templates = new Map<(typeof KINDS)[number], Template>()

beforeAll(async () => {
  templates.set('closed', await build({ isClosed: true, settles: true }))
  templates.set('crashed', await build({ isClosed: false, settles: true }))
  templates.set(UNSETTLED, await build({ isClosed: false, settles: false }))
})
afterAll(async () => {
  for (const { directory } of templates.values()) await directory.remove()
})

function templateOf(kind: (typeof KINDS)[number]): Template {
  const template = templates.get(kind)
  if (template === undefined) throw new TypeError(`no store that was ${kind}`)
  return template
}

/** 3 MB in 3 queues, partly settled or not at all, with a checkpoint in between: tables, write-ahead files and a MANIFEST with some history. */
async function build({ isClosed, settles }: { isClosed: boolean; settles: boolean }): Promise<Template> {
  await using source = await tempDir()
  const unsettled = new Map(QUEUES.map(queue => [queue, new Set<number>()]))
  const written = new Map(QUEUES.map(queue => [queue, new Set<number>()]))
  let seq = 0
  const fill = async (store: Awaited<ReturnType<typeof openStore>>, commits: number) => {
    for (let commit = 0; commit < commits; commit++) {
      const number = store.nextCommit
      const seqs = numbers(seq, seq + 4)
      seq += 5
      // Payloads that can't be compressed, always the same ones: in a compressed block one bit garbles much.
      const records = seqs.map(n => scramble(recordOf(n, 1, 3000), n))
      // 1 and 2 share every other commit; 3 receives alone.
      const isShared = commit % 2 === 0
      const queues = isShared ? [1, 2] : [3]
      await store.commit(
        commitOf({
          segments: queues.map(queue => segmentOf({ queue, first: seqs[0] ?? 0, records, isShared })),
          changes: [{ key: LEDGER, value: Buffer.from(String(number)) }],
        }),
      )
      for (const queue of queues) for (const n of seqs) for (const kept of [unsettled, written]) kept.get(queue)?.add(n)
      if (!settles) continue
      const ref = { commit: number, part: 1 }
      if (commit % 5 === 0) {
        await store.commit(
          commitOf({
            marks: queues.map(queue => ({ queue, ref, settled: bitmapOf(5, numbers(0, 4)), isComplete: true })),
          }),
        )
        for (const queue of queues) for (const n of seqs) unsettled.get(queue)?.delete(n)
      } else if (commit % 7 === 0) {
        await store.commit(
          commitOf({ marks: queues.map(queue => ({ queue, ref, settled: bitmapOf(5, [1, 3]), isComplete: false })) }),
        )
        for (const queue of queues) for (const at of [1, 3]) unsettled.get(queue)?.delete(seqs[at] ?? 0)
      }
    }
  }
  {
    await using store = await openStore(source.path)
    await fill(store, 150)
  }
  const store = await openStore(source.path)
  await fill(store, 60)
  if (isClosed) await store.close()
  // The mark may lag by ten milliseconds, and the figures below are to be exact.
  else await eventually(() => isMarked(source.path, store.nextCommit - 1), { what: 'the mark of the last commit' })
  const directory = await tempDir()
  await cp(source.path, directory.path, { recursive: true })
  await store.close()
  return { directory, unsettled, written }
}

/** Whether the high-water mark says so. */
async function isMarked(directory: string, commit: number): Promise<boolean> {
  const highWater = await HighWater.open(join(directory, 'store/high-water'))
  await highWater.close()
  return highWater.mark?.commit === commit
}

/** Fills the payload behind its seq with noise. */
function scramble(record: Buffer, seed: number): Buffer {
  let noise = seed + 1
  for (let at = record.length - 2990; at < record.length; at++) {
    noise = (Math.imul(noise, 1_664_525) + 1_013_904_223) >>> 0
    record[at] = noise >>> 24
  }
  return record
}

/** A copy to be harmed. Tables and ballast are links: nothing writes into them, so the template's stay what they are. */
async function copyOf({ directory: { path: from } }: Template): Promise<TempDir> {
  const copy = await tempDir()
  for (const entry of await readdir(from, { recursive: true, withFileTypes: true })) {
    const source = join(entry.parentPath, entry.name)
    const target = join(copy.path, relative(from, source))
    if (entry.isDirectory()) await mkdir(target, { recursive: true })
    else if (/\.ldb$|^ballast$/.test(entry.name)) await link(source, target)
    else await copyFile(source, target)
  }
  return copy
}

/** Reads all there is, which must be what was written, in order, and counts what is not. */
async function readAll(store: Store, template: Template): Promise<{ lost: number; reported: number }> {
  let lost = 0
  let reported = store.recovery.lostRecords
  for (const queue of QUEUES) {
    const { seqs, damaged } = await readQueue(store, queue)
    reported += damaged
    const found = new Set(seqs)
    expect(seqs.filter(seq => template.written.get(queue)?.has(seq) !== true)).toEqual([])
    expect(seqs).toEqual([...seqs].sort((a, b) => a - b))
    for (const seq of template.unsettled.get(queue) ?? []) if (!found.has(seq)) lost++
  }
  return { lost, reported }
}

/** Files whose loss costs no message. */
const HARMLESS = /^state|high-water|CURRENT|MANIFEST/

describe.each(KINDS)('a store that was %s', kind => {
  const files = kind === UNSETTLED ? STORE_FILES.filter(([, folder]) => folder === 'log') : STORE_FILES
  describe.each(files)('with its %s', (what, folder, pattern) => {
    test.each(HARMS)('%s', async (harmName, harm) => {
      const template = templateOf(kind)
      await using directory = await copyOf(template)
      await harmOne(join(directory.path, 'store', folder), pattern, harm)

      let lost: number
      {
        await using store = await openStore(directory.path)
        const found = await readAll(store, template)
        lost = found.lost
        expect(found.reported).toBeGreaterThanOrEqual(lost)
        // Where nothing was settled, nothing that is missing may have been settled.
        if (kind === UNSETTLED) expect(found.reported).toBe(lost)
        if (HARMLESS.test(what) || what.includes('MANIFEST')) expect(lost).toBe(0)
        const total = [...template.unsettled.values()].reduce((sum, seqs) => sum + seqs.size, 0)
        expect(lost).toBeLessThan(total)
        // One bit costs one record in each queue that has it, one commit if it hit a header or the end of a write-ahead file.
        if (what.startsWith('log/') && harmName.startsWith('a bit')) expect(lost).toBeLessThanOrEqual(10)
        // It goes on from here: takes new messages, and keeps them and what was left over the next start.
        await store.commit(commitOf({ segments: [segmentOf({ queue: 9, first: 0, records: [recordOf(0, 2)] })] }))
      }
      await using store = await openStore(directory.path)
      expect((await readAll(store, template)).lost).toBe(lost)
      expect((await readQueue(store, 9)).seqs).toEqual([0])
    })
  })
})

describe.each(KINDS)('a store that was %s', kind => {
  test.each(['log', 'state', 'log and state'])(
    'and has lost the directory of %s starts and reports no less than is missing',
    async what => {
      const template = templateOf(kind)
      await using directory = await copyOf(template)
      for (const name of what.split(' and ')) await rm(join(directory.path, 'store', name), { recursive: true })
      await using store = await openStore(directory.path)
      const { lost, reported } = await readAll(store, template)
      expect(reported).toBeGreaterThanOrEqual(lost)
      if (what === 'state') expect(lost).toBe(0)
      expect(store.recovery.findings).not.toEqual([])
      expect(store.isDamaged).toBe(true)
    },
  )

  test('and whose data directory holds nothing but a high-water mark begins behind that mark', async () => {
    const template = templateOf(kind)
    await using directory = await tempDir()
    await cp(join(template.directory.path, 'store/high-water'), join(directory.path, 'store/high-water'), {
      recursive: true,
    })
    await using before = await copyOf(template)
    await using whole = await openStore(before.path)
    await using store = await openStore(directory.path)
    expect(store.nextCommit).toBeGreaterThanOrEqual(whole.nextCommit)
    expect(store.boot.boot).toBeGreaterThanOrEqual(whole.boot.boot)
  })
})
