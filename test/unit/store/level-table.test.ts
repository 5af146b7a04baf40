import { copyFile, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CrashCount } from '../../../src/store/crash-count.ts'
import { findFault } from '../../../src/store/level-files.ts'
import { isTableSound, salvageTable } from '../../../src/store/level-table.ts'
import { decompressSnappy } from '../../../src/store/snappy.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

const ENTRIES = 5000

describe.each([true, false])('a table LevelDB wrote, compressed: %s', compression => {
  let directory: TempDir
  let table: string
  beforeAll(async () => {
    directory = await tempDir()
    const level = new ClassicLevel<string, string>(join(directory.path, 'level'), { compression })
    for (let n = 0; n < ENTRIES; n++) await level.put(keyOf(n), `value ${n} `.repeat(1 + (n % 9)))
    await level.del(keyOf(7))
    await level.compactRange('', '~')
    await level.close()
    const file = (await readdir(join(directory.path, 'level'))).find(name => name.endsWith('.ldb'))
    table = join(directory.path, 'level', file ?? '')
  })
  afterAll(() => directory.remove())

  test('is sound, and every value in it can be had', async () => {
    expect(await isTableSound(table)).toBe(true)
    const found = await salvageTable(table, () => false)
    const expected = Array.from({ length: ENTRIES }, (_, n) => [keyOf(n), `value ${n} `.repeat(1 + (n % 9))]).filter(
      (_, n) => n !== 7,
    )
    expect(found.map(([key, value]) => [key.toString(), value.toString()])).toEqual(expected)
  })

  test('with a bit flipped anywhere is not sound, and only values of sound blocks, or recognised ones, are had', async () => {
    const bytes = await readFile(table)
    const damagedTable = join(directory.path, 'damaged.ldb')
    // The padding of the footer means nothing and is not covered by any checksum.
    const covered = bytes.length - 48
    for (let step = 0; step < 60; step++) {
      const at = Math.floor((covered * step) / 60)
      const damaged = Buffer.from(bytes)
      damaged[at] = (damaged[at] ?? 0) ^ (1 << (step & 7))
      await writeFile(damagedTable, damaged)
      expect(await isTableSound(damagedTable)).toBe(false)
      const found = await salvageTable(damagedTable, () => false)
      expect(found.length).toBeGreaterThan(ENTRIES / 2)
      for (const [key, value] of found)
        expect(value.toString()).toMatch(new RegExp(`^(value ${Number(key.toString().slice(4))} )+$`))
    }
  })

  test('with a damaged filter, index or footer loses no value', async () => {
    const bytes = await readFile(table)
    const damagedTable = join(directory.path, 'damaged.ldb')
    const covered = bytes.length - 48
    const afterFilter = bytes.indexOf('filter.leveldb')
    const places = Array.from({ length: 40 }, (_, step) => Math.floor(((bytes.length - afterFilter) * step) / 40))
    for (const place of [afterFilter - 100, ...places.map(place => afterFilter + place), bytes.length - 1]) {
      const damaged = Buffer.from(bytes)
      damaged[place] = (damaged[place] ?? 0) ^ 0x10
      await writeFile(damagedTable, damaged)
      if (place < covered) expect(await isTableSound(damagedTable)).toBe(false)
      expect(await salvageTable(damagedTable, () => false)).toHaveLength(ENTRIES - 1)
    }
    for (const length of [bytes.length - 1, covered, afterFilter]) {
      await writeFile(damagedTable, bytes.subarray(0, length))
      expect(await salvageTable(damagedTable, () => false)).toHaveLength(ENTRIES - 1)
    }
  })

  test('with a damaged index and a damaged block loses that block, and what follows only where the index leads no further', async () => {
    const damaged = await readFile(table)
    const damagedTable = join(directory.path, 'damaged.ldb')
    const index = damaged.subarray(damaged.indexOf('filter.leveldb'), -48)
    index[index.length >> 1] = (index[index.length >> 1] ?? 0) ^ 0x10
    damaged[100] = (damaged[100] ?? 0) ^ 0x10
    await writeFile(damagedTable, damaged)
    const found = await salvageTable(damagedTable, () => false)
    expect(found.length).toBeLessThan(ENTRIES - 1)
    expect(found.length).toBeGreaterThan(ENTRIES * 0.9)
    expect(found.at(-1)?.[0].toString()).toBe(keyOf(ENTRIES - 1))
  })

  test('of any length, or of noise, is a damaged table and not a crash', async () => {
    const bytes = await readFile(table)
    const damagedTable = join(directory.path, 'damaged.ldb')
    let noise = 1
    const isOwn = () => true
    for (const length of [0, 1, 47, 48, 49, 1000, bytes.length - 1]) {
      await writeFile(damagedTable, bytes.subarray(0, length))
      expect(await isTableSound(damagedTable)).toBe(false)
      await salvageTable(damagedTable, isOwn)
    }
    for (let round = 0; round < 50; round++) {
      const damaged = Buffer.from(bytes)
      // Half of them keep their footer, so that the noise is read as indexes and blocks.
      const end = damaged.length - (round % 2 === 0 ? 48 : 0)
      for (let at = round * 3; at < end; at += 1 + (round % 5)) {
        noise = (Math.imul(noise, 1_664_525) + 1_013_904_223) >>> 0
        damaged[at] = noise >>> 24
      }
      await writeFile(damagedTable, damaged)
      expect(await isTableSound(damagedTable)).toBe(false)
      await salvageTable(damagedTable, isOwn)
    }
  })

  test('that lacks its end is found before LevelDB is asked to open it', async () => {
    const location = join(directory.path, 'level')
    expect(await findFault(location, { isSuspect: true })).toBeNull()
    const aside = join(directory.path, 'aside')
    await copyFile(table, aside)
    await writeFile(table, (await readFile(table)).subarray(0, 5000))
    expect(await findFault(location, { isSuspect: false })).toMatch(/\.ldb is damaged$/)
    await copyFile(aside, table)
    await rm(join(location, 'CURRENT'))
    expect(await findFault(location, { isSuspect: false })).toBe('CURRENT is missing')
    await writeFile(join(location, 'CURRENT'), 'MANIFEST-999999\n')
    expect(await findFault(location, { isSuspect: false })).toBe('MANIFEST-999999 is missing')
  })
})

test('what is no snappy block is not decompressed', () => {
  const literal = Buffer.from([5, 4 << 2, 1, 2, 3, 4, 5])
  expect(decompressSnappy(literal)).toEqual(Buffer.from([1, 2, 3, 4, 5]))
  const repeated = Buffer.from([8, 0, 9, 2 | (6 << 2), 1, 0])
  expect(decompressSnappy(repeated)).toEqual(Buffer.alloc(8, 9))
  for (const broken of [
    Buffer.alloc(0),
    Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 1]),
    literal.subarray(0, 4),
    Buffer.from([9, 0, 9, 2 | (6 << 2), 1, 0]),
    Buffer.from([8, 0, 9, 2 | (6 << 2), 2, 0]),
    Buffer.from([8, 0, 9, 2 | (6 << 2), 0, 0]),
    Buffer.from([8, 63 << 2, 1]),
  ]) {
    expect(decompressSnappy(broken)).toBeNull()
  }
})

test('starts that do not end in order are counted, an orderly stop ends the count, a start that came to nothing changes nothing', async () => {
  await using directory = await tempDir()
  const path = join(directory.path, 'running')
  const begin = () => CrashCount.begin(path)
  expect([(await begin()).before, (await begin()).before]).toEqual([0, 1])
  await (await begin()).cancel()
  const last = await begin()
  expect(last.before).toBe(2)
  await last.end()
  await (await begin()).cancel()
  expect((await begin()).before).toBe(0)
  await writeFile(path, 'no number')
  expect((await begin()).before).toBe(0)
})

function keyOf(n: number): string {
  return `key ${String(n).padStart(6, '0')}`
}
