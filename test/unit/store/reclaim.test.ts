import { randomBytes } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { LOG_FORMAT_KEY, logKey, parseLogKey, segmentIndexKey } from '../../../src/store/keys.ts'
import { createLevel, type Db, levelSettings } from '../../../src/store/level.ts'
import { Reclaim } from '../../../src/store/reclaim.ts'
import { State } from '../../../src/store/state.ts'
import { tempDir } from '../../support/temp-dir.ts'

const VALUE_BYTES = 256 * 1024
const MEBIBYTE = 1024 ** 2

/** A log of so many commits with one segment each, and what was compacted. */
class LogUnderTest {
  readonly log: Db
  readonly state: State
  /** First and last commit of each range. */
  readonly compacted: (readonly [number | undefined, number | undefined])[] = []
  readonly reclaim = new Reclaim()

  constructor(directory: string) {
    this.log = createLevel(join(directory, 'log'), levelSettings(true, true))
    this.state = new State(createLevel(join(directory, 'state'), levelSettings(false, true)), () => undefined)
    const { log } = this
    const compactRange = log.compactRange.bind(log)
    log.compactRange = async (first: Buffer, last: Buffer) => {
      this.compacted.push([parseLogKey(first)?.commit, parseLogKey(last)?.commit])
      await compactRange(first, last)
    }
  }

  async fill(commits: number): Promise<void> {
    for (let commit = 1; commit <= commits; commit++) await this.log.put(logKey(commit, 1, 0), randomBytes(VALUE_BYTES))
    // Nothing lies before the oldest that is indexed.
    await this.state.apply([{ key: segmentIndexKey(1, { commit: 1, part: 0 }), value: Buffer.alloc(0) }])
    // Sizes are those of tables.
    await this.log.compactRange(LOG_FORMAT_KEY, logKey(commits + 1, 0, 0))
    this.compacted.length = 0
  }

  /** A checkpoint that deletes these. */
  async delete(...commits: number[]): Promise<void> {
    const keys = commits.map(commit => logKey(commit, 1, 0))
    await this.log.batch(keys.map(key => ({ type: 'del', key })))
    this.reclaim.note(keys, keys.length * VALUE_BYTES)
    await this.reclaim.run(this.log, this.state)
  }

  async close(): Promise<void> {
    await this.log.close()
    await this.state.level.close()
  }
}

async function bytesOf(directory: string): Promise<number> {
  const files = await readdir(directory)
  const sizes = await Promise.all(files.map(async name => (await stat(join(directory, name))).size))
  return sizes.reduce((sum, size) => sum + size, 0)
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

describe('space of what was deleted', () => {
  it('returns from both ends without rewriting what lives between them', async () => {
    await using directory = await tempDir()
    const test = new LogUnderTest(directory.path)
    await test.fill(400)
    // What a stream forgets, and what a queue settles, checkpoint by checkpoint.
    for (let step = 0; step < 80; step += 20) {
      await test.delete(...range(1 + step, 21 + step), ...range(321 + step, 341 + step))
    }
    expect(test.compacted).toEqual([
      [1, 80],
      [321, 400],
    ])
    await test.close()
    expect(await bytesOf(join(directory.path, 'log'))).toBeLessThan(65 * MEBIBYTE)
  })

  it('of more places than are told apart returns with what lies between those closest to each other', async () => {
    await using directory = await tempDir()
    const test = new LogUnderTest(directory.path)
    await test.fill(300)
    const places = [1, 60, 120, 180, 240]
    for (const from of places) await test.delete(...range(from, from + 20))
    expect(test.compacted).toEqual([])
    for (const from of places) await test.delete(...range(from + 20, from + 40))
    expect(test.compacted.length).toBeGreaterThan(0)
    await test.close()
  })
})
