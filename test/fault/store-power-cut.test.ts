import { expect, test } from 'vitest'
import { Random } from '../../firmware-sim/random.ts'
import { LossyDisk, type Syncs } from '../support/lossy-disk.ts'
import { tempDir } from '../support/temp-dir.ts'
import { type Kept, keptOf, liveAndDie, nothingPromised } from './support/committing.ts'
import { seedsOf } from './support/seeds.ts'

/** 10 here; the long run of `npm run prove` sets 200. */
const CUTS = Number(process.env.SLUICE_CUTS ?? 10)

/** Lets the committer work on such a disk and cuts the power at random moments. */
async function cutPower(seed: number, syncs: Syncs): Promise<{ starts: string[]; kept: Kept }> {
  await using directory = await tempDir()
  await using disk = await LossyDisk.over(directory.path, syncs)
  const promised = nothingPromised()
  const random = new Random(seed)
  const starts: string[] = []
  for (let cut = 0; cut < CUTS; cut++) {
    starts.push(await liveAndDie(directory.path, { promised, random, environment: disk.environment }))
    await disk.cutPower(random)
  }
  return { starts, kept: await keptOf(directory.path, promised) }
}

test.each(seedsOf('store-power-cut'))(
  `a process that commits in a loop has lost nothing it had committed after ${CUTS} power cuts at random moments (seed %i)`,
  { timeout: CUTS * 5000 },
  async seed => {
    const { starts, kept } = await cutPower(seed, 'honest')
    // Nothing was missed, and nothing taken for damage that was only not safe yet.
    for (const start of starts) expect(start).toMatch(/^open 0 false /)
    expect(kept).toEqual({ lost: [], revived: [], doubled: 0, reported: 0, findings: [] })
  },
)

test('on a disk that says it has synced and has not, committed messages are lost, and the store starts after each power cut', {
  timeout: CUTS * 5000,
}, async () => {
  const { starts, kept } = await cutPower(1, 'ignored')
  expect(starts).toHaveLength(CUTS)
  expect(kept.lost.length).toBeGreaterThan(0)
  expect(kept.doubled).toBe(0)
})
