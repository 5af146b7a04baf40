import { describe, expect, test } from 'vitest'
import { outage } from './scenarios/outage.ts'
import { seedsOf } from './support/seeds.ts'

const DEADLINE_MS = 180_000
const say = () => undefined
/** Quicker to notice and to come back than the defaults, as the faults are shorter than in the full form. */
const HASTY = { stall_timeout: '2s', reconnect: { first: '100ms', max: '1s' } }

describe('a fleet of 50 devices through an upstream that', () => {
  test.each(seedsOf('outage'))(
    'is killed, frozen, killed again and lost in a black hole: nothing acknowledged is lost, order holds, repeats keep their id (seed %i)',
    { timeout: DEADLINE_MS },
    async seed => {
      const faults = { downMs: 500, frozenMs: 4_000, blackHoleMs: 4_000 }
      const { report, reconnects } = await outage({ seed, devices: 50, seconds: 35, faults, upstream: HASTY, say })
      expect(report.isFaultless).toBe(true)
      expect(report.acknowledged).toBeGreaterThan(500)
      expect(report.replayed).toBeGreaterThan(0)
      expect(reconnects).toBeGreaterThanOrEqual(3)
    },
  )

  test('is there throughout: hardly anything is written to disk', { timeout: DEADLINE_MS }, async () => {
    const { report, acceptedBytes, writtenBytes } = await outage({
      seed: 1,
      devices: 50,
      seconds: 15,
      faults: null,
      say,
    })
    expect(report.isFaultless).toBe(true)
    expect(report.replayed).toBe(0)
    // The bar is 5 % over 150 s; here the start weighs more and the machine does other things.
    expect(writtenBytes / acceptedBytes).toBeLessThan(0.15)
  })
})
