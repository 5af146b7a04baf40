import { expect, test } from 'vitest'
import { Random } from '../../../firmware-sim/random.ts'

const take = (random: Random, count: number) => Array.from({ length: count }, () => random.next())

test('the same seed gives the same numbers, another seed others', () => {
  expect(take(new Random(7), 100)).toEqual(take(new Random(7), 100))
  expect(take(new Random(7), 100)).not.toEqual(take(new Random(8), 100))
})

test('a forked stream does not depend on how many numbers were drawn before', () => {
  const fresh = new Random(7)
  const used = new Random(7)
  take(used, 50)
  expect(take(fresh.fork('meter-001'), 20)).toEqual(take(used.fork('meter-001'), 20))
})

test('streams forked by different names or from different seeds differ', () => {
  const streams = [
    new Random(7).fork('meter-001'),
    new Random(7).fork('meter-002'),
    new Random(8).fork('meter-001'),
    new Random(7).fork('meter-001').fork('radio'),
  ]
  expect(new Set(streams.map(stream => stream.next())).size).toBe(streams.length)
})

test('numbers lie in [0, 1) and are spread evenly', () => {
  const numbers = take(new Random(1), 20_000)
  expect(Math.min(...numbers)).toBeGreaterThanOrEqual(0)
  expect(Math.max(...numbers)).toBeLessThan(1)
  const perTenth = new Array<number>(10).fill(0)
  for (const number of numbers) perTenth[Math.floor(number * 10)] = (perTenth[Math.floor(number * 10)] ?? 0) + 1
  for (const count of perTenth) expect(Math.abs(count - 2000)).toBeLessThan(200)
})

test('gaussian and exponential numbers have the mean and spread they promise', () => {
  const random = new Random(3)
  const gaussian = Array.from({ length: 20_000 }, () => random.gaussian())
  const mean = gaussian.reduce((sum, value) => sum + value, 0) / gaussian.length
  const variance = gaussian.reduce((sum, value) => sum + (value - mean) ** 2, 0) / gaussian.length
  expect(mean).toBeCloseTo(0, 1)
  expect(variance).toBeCloseTo(1, 1)
  const waits = Array.from({ length: 20_000 }, () => random.exponential(60))
  expect(waits.reduce((sum, value) => sum + value, 0) / waits.length).toBeGreaterThan(57)
  expect(waits.reduce((sum, value) => sum + value, 0) / waits.length).toBeLessThan(63)
})
