import { describe, expect, test } from 'vitest'
import { momentOf } from '../../../src/core/moment.ts'

const DAY = 86_400_000
const day = (n: number): number => Date.UTC(2026, 0, 1) + n * DAY
const UNKNOWN = 0
const SYNCED = 2
const boots = (...starts: (readonly [startsAt: number, clock: 0 | 2])[]) =>
  starts.map(([wallOffsetMs, clock], at) => ({ boot: at + 1, wallOffsetMs, clock }))

describe('the moment of a wall time', () => {
  test('lies in the start that was running then', () => {
    const known = boots([day(0), SYNCED], [day(10), SYNCED], [day(20), SYNCED])
    expect(momentOf(day(5), known)).toEqual({ boot: 1, ms: 5 * DAY })
    expect(momentOf(day(10), known)).toEqual({ boot: 2, ms: 0 })
    expect(momentOf(day(300), known)).toEqual({ boot: 3, ms: 280 * DAY })
  })

  test('lies before everything if it was before the first start', () => {
    expect(momentOf(day(-1), boots([day(0), SYNCED], [day(10), SYNCED]))).toEqual({ boot: 1, ms: -DAY })
  })

  test('leaves starts with an unknown clock behind it, whatever their clock said', () => {
    for (const said of [day(-20_000), day(2), day(8), day(20_000)]) {
      const known = boots([day(0), SYNCED], [said, UNKNOWN], [day(10), SYNCED])
      // The first start may have run until the fifth day or longer: nothing behind it is known to be older.
      expect(momentOf(day(5), known)).toEqual({ boot: 1, ms: 5 * DAY })
      expect(momentOf(day(11), known)).toEqual({ boot: 3, ms: DAY })
    }
  })

  test('goes by unknown clocks as long as they went forward, if there are no others', () => {
    const forward = boots([day(0), UNKNOWN], [day(10), UNKNOWN], [day(20), UNKNOWN])
    expect(momentOf(day(15), forward)).toEqual({ boot: 2, ms: 5 * DAY })
    expect(momentOf(day(25), forward)).toEqual({ boot: 3, ms: 5 * DAY })
  })

  test('lies before a start at which an unknown clock had gone back', () => {
    const back = boots([day(0), UNKNOWN], [day(-20_000), UNKNOWN], [day(20), UNKNOWN])
    expect(momentOf(day(15), back)).toEqual({ boot: 1, ms: 15 * DAY })
    expect(momentOf(day(25), back)).toEqual({ boot: 1, ms: 25 * DAY })
  })
})
