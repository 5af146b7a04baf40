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

  test.each(seedsOf('healthy-link'))(
    'is there throughout: hardly anything is written to disk (seed %i)',
    { timeout: DEADLINE_MS },
    async seed => {
      const { report, acceptedBytes, writtenBytes } = await outage({
        seed,
        devices: 50,
        seconds: 15,
        faults: null,
        // On a machine that does other things RabbitMQ may well need more than the default of 50 ms to confirm.
        store: { commit_interval: '2s' },
        say,
      })
      expect(report.isFaultless).toBe(true)
      expect(report.replayed).toBe(0)
      // A third of the bar, which is 5 % over 150 s.
      expect(writtenBytes / acceptedBytes).toBeLessThan(0.15)
    },
  )
})
