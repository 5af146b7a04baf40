import { beforeEach, expect, test } from 'vitest'
import { Watchdog } from '../../../src/bridge/watchdog.ts'

let now = 0
const clock = { monotonicMs: () => now, wallMs: () => 0 }
let watchdog: Watchdog

beforeEach(() => {
  now = 1000
  watchdog = new Watchdog(10_000, clock)
})

const pass = (ms: number): boolean => {
  now += ms
  return watchdog.isStalled
}

test('a link with nothing out is never stalled, however long it is silent', () => {
  expect(pass(3_600_000)).toBe(false)
})

test('a link is stalled when a message is out and nothing was confirmed for the timeout', () => {
  watchdog.sent()
  expect(pass(9_999)).toBe(false)
  expect(pass(1)).toBe(true)
})

test('every confirm begins the timeout anew while messages are out', () => {
  watchdog.sent()
  watchdog.sent()
  watchdog.sent()
  expect(pass(9_000)).toBe(false)
  watchdog.answered(1)
  expect(pass(9_000)).toBe(false)
  watchdog.answered(1)
  expect(pass(10_000)).toBe(true)
})

test('sending more is no progress', () => {
  watchdog.sent()
  pass(9_000)
  watchdog.sent()
  expect(pass(1_000)).toBe(true)
})

test('the time starts with the first message after all were confirmed', () => {
  watchdog.sent()
  watchdog.answered(1)
  expect(pass(60_000)).toBe(false)
  watchdog.sent()
  expect(pass(9_999)).toBe(false)
})

test('it rests while the upstream blocks the connection, and counts from the end of that', () => {
  watchdog.sent()
  watchdog.rest()
  expect(pass(3_600_000)).toBe(false)
  watchdog.wake()
  expect(pass(9_999)).toBe(false)
  expect(pass(1)).toBe(true)
})

test('a link that stalls again before any confirm is given twice the time, up to eight times; a confirm ends that', () => {
  watchdog.sent()
  const borne: number[] = []
  for (let i = 0; i < 5; i++) {
    expect(pass(watchdog.allowedMs - 1)).toBe(false)
    expect(pass(1)).toBe(true)
    borne.push(watchdog.allowedMs)
    watchdog.cut()
    watchdog.abandoned(1)
    watchdog.sent()
  }
  expect(borne).toEqual([10_000, 20_000, 40_000, 80_000, 80_000])
  watchdog.answered(1)
  expect(watchdog.allowedMs).toBe(10_000)
})
