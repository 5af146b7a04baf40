import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { HighWater } from '../../../src/store/high-water.ts'
import { eventually } from '../../support/eventually.ts'
import { tempDir } from '../../support/temp-dir.ts'

const markOf = (commit: number) => ({ commit, nextRecord: commit * 10, unsettled: commit, boot: 3 })

async function noteAll(path: string, commits: number[]): Promise<void> {
  const highWater = await HighWater.open(path)
  for (const commit of commits) {
    highWater.note(markOf(commit))
    await highWater.sync()
  }
  await highWater.close()
}

async function markIn(path: string) {
  const highWater = await HighWater.open(path)
  const { mark } = highWater
  await highWater.close()
  return mark
}

test('the newest mark is found again', async () => {
  await using directory = await tempDir()
  const path = join(directory.path, 'high-water')
  expect(await markIn(path)).toBeNull()
  for (const last of [1, 2, 7]) {
    await noteAll(path, [last])
    expect(await markIn(path)).toEqual(markOf(last))
  }
})

test('marks noted while one is being written: the last one is kept', async () => {
  await using directory = await tempDir()
  const path = join(directory.path, 'high-water')
  const highWater = await HighWater.open(path)
  for (let commit = 1; commit <= 50; commit++) highWater.note(markOf(commit))
  await highWater.close()
  expect(await markIn(path)).toEqual(markOf(50))
})

test('a mark that follows another at once is in the file without anything more happening', async () => {
  await using directory = await tempDir()
  const path = join(directory.path, 'high-water')
  const highWater = await HighWater.open(path)
  highWater.note(markOf(1))
  await eventually(async () => (await markIn(path))?.commit === 1)
  highWater.note(markOf(2))
  await eventually(async () => (await markIn(path))?.commit === 2)
  await highWater.close()
})

test('with one slot spoiled the mark before it is found', async () => {
  await using directory = await tempDir()
  const path = join(directory.path, 'high-water')
  await noteAll(path, [1, 2, 3])
  const bytes = await readFile(path)
  const found: (number | undefined)[] = []
  for (const slot of [0, 4096]) {
    const damaged = Buffer.from(bytes)
    damaged[slot + 12] = (damaged[slot + 12] ?? 0) ^ 1
    await writeFile(path, damaged)
    found.push((await markIn(path))?.commit)
  }
  expect(found.sort()).toEqual([2, 3])
})

test.each([
  ['empty', Buffer.alloc(0)],
  ['all zero', Buffer.alloc(8192)],
  ['cut within the first slot', Buffer.alloc(20, 1)],
])('a file that is %s holds no mark, and takes a new one', async (_, bytes) => {
  await using directory = await tempDir()
  const path = join(directory.path, 'high-water')
  await writeFile(path, bytes)
  expect(await markIn(path)).toBeNull()
  await noteAll(path, [5])
  expect(await markIn(path)).toEqual(markOf(5))
})
