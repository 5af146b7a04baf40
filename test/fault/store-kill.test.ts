import { expect, test } from 'vitest'
import { Random } from '../../firmware-sim/random.ts'
import { tempDir } from '../support/temp-dir.ts'
import { keptOf, liveAndDie, nothingPromised } from './support/committing.ts'
import { seedsOf } from './support/seeds.ts'

/** 20 here; the long run of `npm run prove` sets 200. */
const KILLS = Number(process.env.SLUICE_KILLS ?? 20)

test.each(seedsOf('store-kill'))(
  `a process that commits in a loop and is killed ${KILLS} times at random moments has lost nothing it had committed (seed %i)`,
  { timeout: KILLS * 5000 },
  async seed => {
    await using directory = await tempDir()
    const promised = nothingPromised()
    const random = new Random(seed)
    for (let kill = 0; kill < KILLS; kill++) {
      expect(await liveAndDie(directory.path, { promised, random })).toMatch(/^open 0 false /)
    }
    const kept = await keptOf(directory.path, promised)
    expect(kept).toEqual({ lost: [], revived: [], doubled: 0, reported: 0, findings: [] })
    expect(promised.committed.size).toBeGreaterThan(KILLS)
  },
)
