import fc from 'fast-check'
import { expect, test } from 'vitest'
import { NumberSet, toRanges } from '../../../firmware-sim/number-set.ts'

test('it holds what a Set holds, sparse numbers included', () => {
  fc.assert(
    fc.property(fc.array(fc.oneof(fc.nat(300), fc.nat(200_000), fc.maxSafeNat())), numbers => {
      const set = new NumberSet()
      const model = new Set<number>()
      for (const number of numbers) {
        expect(set.add(number)).toBe(!model.has(number))
        model.add(number)
      }
      expect(set.size).toBe(model.size)
      expect([...set.values()]).toEqual([...model].sort((a, b) => a - b))
      for (const number of numbers) expect(set.has(number)).toBe(true)
      expect(set.has(300_001)).toBe(model.has(300_001))
    }),
  )
})

test('ranges are inclusive and lead back to the same set', () => {
  const set = new NumberSet()
  for (const number of [1, 2, 3, 7, 9, 10]) set.add(number)
  expect(set.ranges()).toEqual([
    [1, 3],
    [7, 7],
    [9, 10],
  ])
  expect([...NumberSet.of(set.ranges()).values()]).toEqual([1, 2, 3, 7, 9, 10])
  expect(toRanges([])).toEqual([])
})
