import { expect, test } from 'vitest'
import { kill } from './scenarios/kill.ts'
import { seedsOf } from './support/seeds.ts'

/** That it would lose something if the disk lied is shown by store-power-cut.test.ts, and in the long form by `npm run prove`. */
test.each(seedsOf('power-cut'))(
  'a gateway under load whose power is cut 6 times loses nothing it acknowledged, and its books balance after each start (seed %i)',
  { timeout: 180_000 },
  async seed => {
    const { report } = await kill({ seed, kills: 6, powerCuts: 'honest', closingMs: 60_000, say: () => undefined })
    expect(report.isFaultless).toBe(true)
    expect(report.acknowledged).toBeGreaterThan(300)
  },
)
