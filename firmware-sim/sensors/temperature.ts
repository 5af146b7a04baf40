import type { Random } from '../random.ts'

export interface RoomState {
  /** Time of day, milliseconds since midnight. */
  readonly timeOfDayMs: number
  readonly celsius: number
}

export interface TemperatureReading {
  readonly celsius: number
}

const DAY_MS = 86_400_000
const MEAN_CELSIUS = 21
const SWING_KELVIN = 3
/** Warmest at 15:00. */
const WARMEST_AT_MS = 15 * 3_600_000
/** How fast a room follows the outside. */
const TIME_CONSTANT_MS = 2 * 3_600_000
const DRAUGHT_KELVIN_PER_ROOT_HOUR = 0.5
const RESOLUTION_KELVIN = 0.0625

export function roomAtStart(random: Random): RoomState {
  return { timeOfDayMs: random.between(0, DAY_MS), celsius: MEAN_CELSIUS + random.gaussian() }
}

/** A room that follows the daily course with a lag, and draughts; read with the steps of a 12-bit sensor. */
export function senseTemperature(
  state: RoomState,
  dtMs: number,
  random: Random,
): { state: RoomState; reading: TemperatureReading } {
  const timeOfDayMs = (state.timeOfDayMs + dtMs) % DAY_MS
  const target = MEAN_CELSIUS + SWING_KELVIN * Math.cos((2 * Math.PI * (timeOfDayMs - WARMEST_AT_MS)) / DAY_MS)
  const share = 1 - Math.exp(-dtMs / TIME_CONSTANT_MS)
  const draught = random.gaussian() * DRAUGHT_KELVIN_PER_ROOT_HOUR * Math.sqrt(dtMs / 3_600_000)
  const celsius = state.celsius + (target - state.celsius) * share + draught
  const reading = { celsius: Math.round(celsius / RESOLUTION_KELVIN) * RESOLUTION_KELVIN }
  return { state: { timeOfDayMs, celsius }, reading }
}
