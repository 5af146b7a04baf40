import { expect, test } from 'vitest'
import { Pace } from '../../../src/bridge/pace.ts'

/** An upstream that takes one message after the other: what is out waits for what was out before it. */
class Link {
  readonly pace: Pace
  #nowMs = 0

  constructor(window: number) {
    this.pace = new Pace(window, () => this.#nowMs)
  }

  /** Keeps as much of the backlog out as may be, for so many measurements; each message takes `perMessageMs`, and its confirm `roundTripMs` more. */
  drain({ perMessageMs, roundTripMs = 0 }: { perMessageMs: number; roundTripMs?: number }, measurements = 50): void {
    for (let i = 0; i < measurements; i++) {
      // Now and then one goes out by itself.
      const out = i % 10 === 0 ? 1 : this.pace.bound
      expect(this.pace.sent(out)).toBe(true)
      this.#nowMs += out * perMessageMs + roundTripMs
      this.pace.answered()
    }
  }
}

test('a quick link has the whole window, however often it is measured', () => {
  const link = new Link(256)
  link.drain({ perMessageMs: 0.1, roundTripMs: 20 })
  expect(link.pace.bound).toBe(256)
})

test('on a thin link as much is out as a live message behind it can bear', () => {
  const link = new Link(256)
  link.drain({ perMessageMs: 20 })
  expect(link.pace.bound).toBeGreaterThan(10)
  expect(link.pace.bound * 20).toBeLessThanOrEqual(500 * 1.5)
})

test('a link on which a single message takes seconds still has one out', () => {
  const link = new Link(256)
  link.drain({ perMessageMs: 3000 })
  expect(link.pace.bound).toBeLessThanOrEqual(3)
  expect(link.pace.bound).toBeGreaterThanOrEqual(1)
})

test('a far link is not taken for a thin one', () => {
  const link = new Link(256)
  link.drain({ perMessageMs: 0.1, roundTripMs: 900 })
  expect(link.pace.bound).toBe(256)
})

test('when a thin link becomes a quick one the window is whole again', () => {
  const link = new Link(256)
  link.drain({ perMessageMs: 50 })
  link.drain({ perMessageMs: 0.1 })
  expect(link.pace.bound).toBe(256)
})

test('of a link that is new little is expected, until it has shown what it can', () => {
  const link = new Link(256)
  expect(link.pace.bound).toBe(32)
  link.drain({ perMessageMs: 0.1 }, 6)
  expect(link.pace.bound).toBe(256)
  link.pace.sent(1)
  link.pace.abandoned()
  expect(link.pace.bound).toBe(32)
  expect(new Link(8).pace.bound).toBe(8)
})

test('one message is measured at a time, and after one that never was answered the next', () => {
  const pace = new Pace(256, () => 0)
  expect(pace.sent(1)).toBe(true)
  expect(pace.sent(2)).toBe(false)
  pace.abandoned()
  expect(pace.sent(1)).toBe(true)
})
