import fc from 'fast-check'
import { expect, test } from 'vitest'
import { TokenBucket } from '../../../src/bridge/token-bucket.ts'

/** A bucket, and a clock that is turned by hand. */
function bucketOf(perS: number) {
  const time = { ms: 0 }
  return { time, bucket: new TokenBucket(perS, () => time.ms) }
}

test('a tenth of a second goes at once, then one at a time as tokens come in', () => {
  const { time, bucket } = bucketOf(100)
  for (let i = 0; i < 10; i++) {
    expect(bucket.waitMs).toBe(0)
    bucket.take(1)
  }
  expect(bucket.waitMs).toBe(10)
  time.ms += 10
  expect(bucket.waitMs).toBe(0)
})

test('a rate below one in a tenth of a second passes one, and the next when it is due', () => {
  const { time, bucket } = bucketOf(2)
  bucket.take(1)
  expect(bucket.waitMs).toBe(500)
  time.ms += 3_600_000
  bucket.take(1)
  expect(bucket.waitMs).toBe(500)
})

test('what is larger than the bucket passes, and the next waits until it is paid for', () => {
  const { time, bucket } = bucketOf(1000)
  bucket.take(5000)
  expect(bucket.waitMs).toBe(4901)
  time.ms += 4901
  expect(bucket.waitMs).toBe(0)
})

test('0 is no limit', () => {
  const { bucket } = bucketOf(0)
  bucket.take(1_000_000)
  expect(bucket.waitMs).toBe(0)
})

test('whoever waits as long as it says is let through, and the rate is never exceeded by more than a burst', () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 500 }), { maxLength: 200 })
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 10_000 }), sizes, (perS, takes) => {
      const { time, bucket } = bucketOf(perS)
      let taken = 0
      for (const size of takes) {
        while (bucket.waitMs > 0) time.ms += Math.ceil(bucket.waitMs)
        expect(taken).toBeLessThanOrEqual(Math.max(1, perS / 10) + (time.ms * perS) / 1000 + 1e-6)
        bucket.take(size)
        taken += size
      }
    }),
  )
})
