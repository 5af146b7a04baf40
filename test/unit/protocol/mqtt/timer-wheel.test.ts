import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { type Timed, TimerWheel } from '../../../../src/protocol/mqtt/timer-wheel.ts'

class Deadline implements Timed {
  wheelSlot = -1
  readonly reached: number[] = []
  timeReached(nowMs: number): void {
    this.reached.push(nowMs)
  }
}

describe('the timer wheel', () => {
  let wheel: TimerWheel
  const clock = { monotonicMs: () => performance.now(), wallMs: () => Date.now() }

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    wheel = new TimerWheel(clock)
  })
  afterEach(() => {
    wheel.stop()
    vi.useRealTimers()
  })

  test('calls at the deadline or within a tick after it, once', () => {
    const start = performance.now()
    const deadlines = [1, 249, 250, 251, 999, 1000, 5000].map(afterMs => {
      const timed = new Deadline()
      wheel.schedule(timed, start + afterMs)
      return { afterMs, timed }
    })
    vi.advanceTimersByTime(10_000)
    for (const { afterMs, timed } of deadlines) {
      expect(timed.reached).toHaveLength(1)
      expect(timed.reached[0]).toBeGreaterThanOrEqual(start + afterMs)
      expect(timed.reached[0]).toBeLessThanOrEqual(start + afterMs + 251)
    }
  })

  test('a deadline moved later or cancelled is not called at the old time', () => {
    const start = performance.now()
    const moved = new Deadline()
    const cancelled = new Deadline()
    wheel.schedule(moved, start + 1000)
    wheel.schedule(moved, start + 3000)
    wheel.schedule(cancelled, start + 1000)
    wheel.cancel(cancelled)
    vi.advanceTimersByTime(2900)
    expect(moved.reached).toEqual([])
    vi.advanceTimersByTime(1000)
    expect(moved.reached).toHaveLength(1)
    expect(cancelled.reached).toEqual([])
  })

  test('one moved earlier is called at the earlier time', () => {
    const start = performance.now()
    const timed = new Deadline()
    wheel.schedule(timed, start + 50_000)
    wheel.schedule(timed, start + 500)
    vi.advanceTimersByTime(800)
    expect(timed.reached).toHaveLength(1)
  })

  test('a deadline beyond one turn is asked at least once a turn', () => {
    const timed = new Deadline()
    wheel.schedule(timed, performance.now() + 24 * 3_600_000)
    vi.advanceTimersByTime(65_000)
    expect(timed.reached).toHaveLength(1)
  })

  test('sleeps while nothing is due: no timer without deadlines, one wake-up for one deadline', () => {
    expect(vi.getTimerCount()).toBe(0)
    const timed = new Deadline()
    wheel.schedule(timed, performance.now() + 30_000)
    expect(vi.getTimerCount()).toBe(1)
    vi.advanceTimersToNextTimer()
    expect(timed.reached).toHaveLength(1)
    expect(vi.getTimerCount()).toBe(0)
  })

  test('one that schedules itself again from its call comes again', () => {
    const timed = new Deadline()
    const again: Timed = {
      wheelSlot: -1,
      timeReached: nowMs => {
        timed.timeReached(nowMs)
        wheel.schedule(again, nowMs + 250)
      },
    }
    wheel.schedule(again, performance.now() + 250)
    vi.advanceTimersByTime(10_000)
    expect(timed.reached.length).toBeGreaterThanOrEqual(19)
    expect(timed.reached.length).toBeLessThanOrEqual(40)
  })
})
