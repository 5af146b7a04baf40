import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type FaultName, FaultTable } from './scenarios/upstream-faults.ts'
import { seedsOf } from './support/seeds.ts'

/** How long each lasts here; `npm run prove -- --only upstream-faults` takes the time of the field. */
const SHORT: readonly (readonly [FaultName, number])[] = [
  ['disk alarm', 1000],
  ['permission to write revoked', 500],
  ['black hole both ways', 2500],
  ['connections reset at random', 1500],
  ['flapping every two seconds', 2000],
]

let table: FaultTable

beforeAll(async () => {
  table = await FaultTable.start()
})
afterAll(async () => {
  await table[Symbol.asyncDispose]()
})

describe.each(seedsOf('upstream-faults'))('messages that keep coming while the upstream is away (seed %i)', seed => {
  test.each(SHORT)(
    '%s: none is lost, what comes twice is known, and it goes on by itself within 10 s',
    async (name, lastsMs) => {
      const figures = await table.run(name, { lastsMs, seed })
      expect(figures).toMatchObject({ lost: 0, unknown: 0 })
      expect(figures.published).toBeGreaterThan(100)
      expect(figures.repeated).toBeLessThanOrEqual(figures.interruptions * figures.window)
      expect(figures.resumedMs).toBeLessThan(10_000)
      expect(figures.heldBytes).toBeLessThan(1024 ** 2)
    },
  )
})
