import { describe, expect, test } from 'vitest'
import { Forecasts, type Stock } from '../../src/gateway-forecasts.ts'

const LIMITS = { messages: 100_000, bytes: 1_000_000_000 }
const MIB = 1024 ** 2

/** One queue and a disk that change by so much per second. */
function world() {
  let nowMs = 0
  let stock: Stock = { messages: 0, bytes: 0, accepted: 0 }
  let disk = { usedBytes: 100 * MIB, freeBytes: 1000 * MIB }
  const forecasts = new Forecasts({
    read: () => ({ queues: new Map([['q', stock]]), disk }),
    monotonicMs: () => nowMs,
  })
  forecasts.samples.take()
  return {
    passes(
      seconds: number,
      { into = 0, out = 0, size = 100, written = 0 }: { into?: number; out?: number; size?: number; written?: number },
    ) {
      for (let second = 1; second <= seconds; second++) {
        nowMs += 1000
        const { messages, bytes, accepted } = stock
        const growth = into - out
        stock = { messages: messages + growth, bytes: bytes + growth * size, accepted: accepted + into }
        disk = { usedBytes: disk.usedBytes + written, freeBytes: disk.freeBytes - written }
        if (nowMs % 5000 === 0) forecasts.samples.take()
      }
    },
    forecast: (limits = LIMITS) => forecasts.queue('q', stock, limits),
    diskFullInMs: (diskBytes: number, diskFreeMinBytes: number) =>
      forecasts.diskFullInMs({ diskBytes, diskFreeMinBytes }),
    forecasts,
  }
}

describe('a queue', () => {
  test('that fills is full when the nearer of its limits is reached', () => {
    const { passes, forecast } = world()
    passes(10, { into: 300, out: 100 })
    // 2,000 are in it, 98,000 to go at 200 a second.
    expect(forecast()).toEqual({ in_per_s: 300, out_per_s: 100, full_in_ms: 490_000, drained_in_ms: null })
    expect(forecast({ ...LIMITS, bytes: 400_000 }).full_in_ms).toBe(10_000)
    expect(forecast({ ...LIMITS, messages: 2000 }).full_in_ms).toBe(0)
  })

  test('that drains is empty when the rest has gone', () => {
    const { passes, forecast } = world()
    passes(100, { into: 1000 })
    passes(40, { into: 100, out: 600 })
    // 80,000 are left, less by 500 a second.
    expect(forecast()).toEqual({ in_per_s: 100, out_per_s: 600, full_in_ms: null, drained_in_ms: 160_000 })
  })

  test('goes by the last half minute: an outage that has just ended is forgotten', () => {
    const { passes, forecast } = world()
    passes(60, { into: 1000 })
    passes(15, { into: 1000, out: 3000 })
    expect(forecast().drained_in_ms).toBeGreaterThan(15_000)
    passes(10, { into: 1000, out: 3000 })
    const { drained_in_ms } = forecast()
    passes(6, { into: 1000, out: 1000 })
    expect(drained_in_ms).toBeLessThan(60_000)
  })

  test.each([
    ['is empty', 10, { into: 50, out: 50 }],
    ['has not been watched long enough', 4, { into: 300 }],
  ])('that %s has neither', (_, seconds, change) => {
    const { passes, forecast } = world()
    passes(seconds, change)
    expect(forecast()).toMatchObject({ full_in_ms: null, drained_in_ms: null })
  })

  test('that would take months to fill is not said to fill', () => {
    const { passes, forecast } = world()
    passes(30, { into: 1, out: 0 })
    expect(forecast({ messages: 10_000_000, bytes: 2 ** 50 }).full_in_ms).toBe(null)
  })

  test('that was not there before has none yet', () => {
    const { forecasts, passes } = world()
    passes(30, {})
    const none = { in_per_s: 0, out_per_s: 0, full_in_ms: null, drained_in_ms: null }
    expect(forecasts.queue('new', { messages: 5, bytes: 5, accepted: 5 }, LIMITS)).toEqual(none)
  })
})

describe('the disk', () => {
  test('is full when store.disk or the floor of free space is reached, whichever is sooner', () => {
    const { passes, diskFullInMs } = world()
    passes(10, { written: MIB })
    // 110 MiB used, 990 MiB free.
    expect(diskFullInMs(510 * MIB, 200 * MIB)).toBe(400_000)
    expect(diskFullInMs(5000 * MIB, 200 * MIB)).toBe(790_000)
  })

  test('that nobody writes to does not fill', () => {
    const { passes, diskFullInMs } = world()
    passes(10, {})
    expect(diskFullInMs(510 * MIB, 200 * MIB)).toBe(null)
  })
})
