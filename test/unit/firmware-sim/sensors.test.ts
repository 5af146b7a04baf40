import { expect, test } from 'vitest'
import { Random } from '../../../firmware-sim/random.ts'
import { meterAtStart, senseEnergy } from '../../../firmware-sim/sensors/energy-meter.ts'
import { roomAtStart, senseTemperature } from '../../../firmware-sim/sensors/temperature.ts'

const MINUTE_MS = 60_000

function temperatures(seed: number, minutes: number): number[] {
  const random = new Random(seed)
  let state = roomAtStart(random)
  return Array.from({ length: minutes }, () => {
    const next = senseTemperature(state, MINUTE_MS, random)
    state = next.state
    return next.reading.celsius
  })
}

test('a room stays habitable over a week and moves in steps of the sensor', () => {
  const readings = temperatures(5, 7 * 24 * 60)
  for (const celsius of readings) {
    expect(celsius).toBeGreaterThan(10)
    expect(celsius).toBeLessThan(32)
    expect(Number.isInteger(celsius / 0.0625)).toBe(true)
  }
  expect(new Set(readings).size).toBeGreaterThan(10)
})

test('the same seed measures the same temperatures', () => {
  expect(temperatures(5, 200)).toEqual(temperatures(5, 200))
  expect(temperatures(5, 200)).not.toEqual(temperatures(6, 200))
})

test('measuring changes no state in place', () => {
  const random = new Random(1)
  const room = Object.freeze(roomAtStart(random))
  const hall = Object.freeze(meterAtStart(random))
  expect(senseTemperature(room, MINUTE_MS, random).state).not.toEqual(room)
  expect(senseEnergy(hall, MINUTE_MS, random).state).not.toEqual(hall)
})

test('an energy counter never falls and adds up the power', () => {
  const random = new Random(9)
  let state = { ...meterAtStart(random), wattHours: 0 }
  let wattHours = 0
  let last = 0
  for (let minute = 0; minute < 24 * 60; minute++) {
    const next = senseEnergy(state, MINUTE_MS, random)
    state = next.state
    wattHours += next.reading.watts / 60
    expect(next.reading.wattHours).toBeGreaterThanOrEqual(last)
    expect(next.reading.volts).toBeGreaterThan(220)
    expect(next.reading.volts).toBeLessThan(240)
    last = next.reading.wattHours
  }
  expect(last).toBeGreaterThan(3_600)
  expect(Math.abs(last - wattHours)).toBeLessThan(20)
})
