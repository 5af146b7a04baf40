import { expect, test } from 'vitest'
import { kill } from './scenarios/kill.ts'
import { seedsOf } from './support/seeds.ts'

test.each(seedsOf('kill'))(
  'a gateway killed 20 times under load loses nothing it acknowledged, and its books balance after each start (seed %i)',
  { timeout: 180_000 },
  async seed => {
    const { report, kills } = await kill({ seed, kills: 20, powerCuts: null, closingMs: 60_000, say: () => undefined })
    expect(kills).toBe(20)
    expect(report.isFaultless).toBe(true)
    expect(report.acknowledged).toBeGreaterThan(1_000)
    // It was killed with work in hand: what was on its way comes again.
    expect(report.repeatedIds + report.resentByDevice).toBeGreaterThan(0)
  },
)
