import fc from 'fast-check'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Waiting } from '../../../src/core/waiting.ts'

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
})

afterEach(() => {
  vi.useRealTimers()
})

it('gives out each position when it is due, in order of time, whatever the order they came in', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 1000 }), { maxLength: 200 }), pauses => {
      let nowMs = 0
      const given: number[] = []
      const waiting = new Waiting(
        () => nowMs,
        () => {
          for (let position = waiting.takeDue(); position >= 0; position = waiting.takeDue()) {
            expect(pauses[position]).toBeLessThanOrEqual(nowMs)
            given.push(position)
          }
        },
      )
      for (const [position, pauseMs] of pauses.entries()) waiting.add(position, pauseMs)
      expect(waiting.size).toBe(pauses.length)
      for (; nowMs <= 1000; nowMs += 10) vi.advanceTimersByTime(10)
      expect(waiting.size).toBe(0)
      expect(given.toSorted((a, b) => a - b)).toEqual([...pauses.keys()])
      const times = given.map(position => Math.ceil((pauses[position] ?? 0) / 10))
      expect(times).toEqual(times.toSorted((a, b) => a - b))
    }),
  )
})

it('forgets what it is told to forget', () => {
  let isDue = false
  const waiting = new Waiting(
    () => 0,
    () => {
      isDue = true
    },
  )
  waiting.add(1, 10)
  waiting.clear()
  vi.advanceTimersByTime(1000)
  expect([waiting.size, isDue]).toEqual([0, false])
})
