import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Backoff } from '../../../src/bridge/backoff.ts'

const FIRST_MS = 250
const MAX_MS = 8000

function pauses(randoms: readonly number[]): number[] {
  const left = [...randoms]
  const backoff = new Backoff({ firstMs: FIRST_MS, maxMs: MAX_MS, random: () => left.shift() ?? 0 })
  return randoms.map(() => backoff.nextMs())
}

test('every pause lies between the first one and three times the last one, and never above the longest', () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { maxLength: 50 }), randoms => {
      let last = FIRST_MS
      for (const pause of pauses(randoms)) {
        expect(pause).toBeGreaterThanOrEqual(FIRST_MS)
        expect(pause).toBeLessThanOrEqual(Math.min(MAX_MS, last * 3))
        last = pause
      }
    }),
  )
})

test('pauses grow to the longest one when the dice fall high, and stay short when they fall low', () => {
  expect(pauses([1, 1, 1, 1, 1].map(n => n - Number.EPSILON)).at(-1)).toBe(MAX_MS)
  expect(pauses([0, 0, 0, 0, 0])).toEqual([FIRST_MS, FIRST_MS, FIRST_MS, FIRST_MS, FIRST_MS])
})

test('two gateways with different dice come back at different times', () => {
  expect(pauses([0.2, 0.9])).not.toEqual(pauses([0.7, 0.1]))
})

test('after a success the next pause is a short one again', () => {
  const backoff = new Backoff({ firstMs: FIRST_MS, maxMs: MAX_MS, random: () => 0.99 })
  for (let i = 0; i < 10; i++) backoff.nextMs()
  backoff.reset()
  expect(backoff.nextMs()).toBeLessThanOrEqual(FIRST_MS * 3)
})
