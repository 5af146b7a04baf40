import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { scanLogFile } from '../../../src/store/level-manifest.ts'
import { withoutGarbage } from '../../../src/store/level-write-ahead.ts'
import { numbers } from '../../support/store-kit.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

const BATCHES = 60
/** Some batches fill several blocks of 32 KiB. */
const textOf = (n: number) => `${n}:`.padEnd(n % 20 === 7 ? 70_000 : 900, 'x')
const keyOf = (n: number) => `key ${String(n).padStart(3, '0')}`
/** In front of a batch's operations. */
const BATCH_HEADER_BYTES = 12

let directory: TempDir
/** A write-ahead file with a batch per number: its own key, and one key that all batches write. */
let written: Buffer
let repairs = 0

beforeAll(async () => {
  directory = await tempDir()
  const level = new ClassicLevel<string, string>(join(directory.path, 'level'))
  for (const n of numbers(0, BATCHES - 1)) {
    await level.batch([
      { type: 'put', key: 'same', value: String(n) },
      { type: 'put', key: keyOf(n), value: textOf(n) },
    ])
  }
  const file = (await readdir(join(directory.path, 'level'))).find(name => name.endsWith('.log')) ?? ''
  written = await readFile(join(directory.path, 'level', file))
  await level.close()
})
afterAll(() => directory.remove())

/** What LevelDB's repair makes of a database of which only this write-ahead file is left. */
async function repaired(bytes: Buffer): Promise<Map<string, string>> {
  const location = join(directory.path, `repaired-${++repairs}`)
  await mkdir(location)
  await writeFile(join(location, '000003.log'), bytes)
  await ClassicLevel.repair(location)
  const level = new ClassicLevel<string, string>(location, { createIfMissing: false })
  const found = new Map(await level.iterator().all())
  await level.close()
  return found
}

/** Where the batch begins that writes this value. */
const batchAt = (n: number) =>
  written.indexOf(keyOf(n)) - '\x01\x04same\x01'.length - 1 - String(n).length - 1 - BATCH_HEADER_BYTES

describe('a write-ahead file', () => {
  test('of which nothing is damaged is left as it is', () => {
    expect(withoutGarbage(written).equals(written)).toBe(true)
    expect(withoutGarbage(Buffer.alloc(0))).toHaveLength(0)
  })

  test('in which batches have lost their sequence numbers can be repaired without the end of the process, and gives all the others', async () => {
    const damaged = Buffer.from(written)
    const lost = [3, 4, 5, 31, 32]
    for (const n of lost) damaged.fill(0, batchAt(n), batchAt(n) + 8)
    const found = await repaired(withoutGarbage(damaged))
    expect([...found.keys()].filter(key => key !== 'same')).toEqual(
      numbers(0, BATCHES - 1)
        .filter(n => !lost.includes(n))
        .map(keyOf),
    )
    expect(found.get('same')).toBe(String(BATCHES - 1))
  })

  test('with a flipped bit in a value keeps that batch too: whose value it is has a CRC of its own', async () => {
    const damaged = Buffer.from(written)
    const at = written.indexOf(textOf(40)) + 100
    damaged[at] = (damaged[at] ?? 0) ^ 1
    const found = await repaired(withoutGarbage(damaged))
    expect(found.size).toBe(BATCHES + 1)
    expect(found.get(keyOf(40))).not.toBe(textOf(40))
    expect(found.get(keyOf(41))).toBe(textOf(41))
  })

  test('with any page of it zero, or cut anywhere, can be repaired and gives only what was written', async () => {
    for (const at of numbers(0, 30).map(step => Math.floor((written.length * step) / 31))) {
      const zeroed = Buffer.from(written)
      zeroed.fill(0, at, at + 4096)
      for (const damaged of [zeroed, written.subarray(0, at)]) {
        const scan = scanLogFile(withoutGarbage(damaged))
        expect(scan).toMatchObject({ isBroken: false, isTorn: false })
        expect(scan.records.length).toBeLessThan(BATCHES + 1)
      }
    }
    const zeroed = Buffer.from(written)
    zeroed.fill(0, 8192, 12_288)
    const found = await repaired(withoutGarbage(zeroed))
    const keys = new Set(['same', ...numbers(0, BATCHES - 1).map(keyOf)])
    expect([...found.keys()].filter(key => !keys.has(key))).toEqual([])
    expect(found.size).toBeGreaterThan(BATCHES / 2)
  })
})
