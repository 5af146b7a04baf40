import { expect, test } from 'vitest'
import { Rates } from '../../../src/api/rates.ts'

function openRates() {
  let nowMs = 0
  const counted = { received: 0, delivered: 0, forwarded: 0 }
  const rates = new Rates({ read: () => counted, monotonicMs: () => nowMs })
  const pass = (seconds: number, { received }: { received: number }) => {
    for (let second = 0; second < seconds; second++) {
      nowMs += 1000
      counted.received += received
      rates.samples.take()
    }
  }
  return { rates, pass }
}

test('without a sample there is no rate', () => {
  expect(openRates().rates.perSecond()).toEqual({ received: 0, delivered: 0, forwarded: 0 })
})

test('rates are means of the last seconds and forget what was before', () => {
  const { rates, pass } = openRates()
  rates.samples.take()
  pass(3, { received: 100 })
  expect(rates.perSecond().received).toBe(100)
  pass(2, { received: 0 })
  expect(rates.perSecond().received).toBe(60)
  pass(10, { received: 7 })
  expect(rates.perSecond().received).toBe(7)
})
