import type { Random } from '../random.ts'

export interface MeterState {
  /** Counter reading since the meter was installed; never falls. */
  readonly wattHours: number
  readonly watts: number
}

export interface EnergyReading {
  readonly wattHours: number
  readonly watts: number
  readonly volts: number
}

const STANDBY_WATTS = 150
const PEAK_WATTS = 7_500
/** On average a machine is switched on or off this often. */
const SWITCH_EVERY_MS = 5 * 60_000

export function meterAtStart(random: Random): MeterState {
  return { wattHours: Math.floor(random.between(0, 5_000_000)), watts: STANDBY_WATTS }
}

/** A machine hall: load that changes by switching, a mains voltage that sags under load, a counter that adds it up. */
export function senseEnergy(
  state: MeterState,
  dtMs: number,
  random: Random,
): { state: MeterState; reading: EnergyReading } {
  const isSwitched = random.next() < 1 - Math.exp(-dtMs / SWITCH_EVERY_MS)
  const watts = isSwitched ? random.between(STANDBY_WATTS, PEAK_WATTS) : state.watts
  const wattHours = state.wattHours + (watts * dtMs) / 3_600_000
  const volts = 232 - (4 * watts) / PEAK_WATTS + 0.5 * random.gaussian()
  const reading = { wattHours: Math.floor(wattHours), watts: Math.round(watts), volts: Math.round(volts * 10) / 10 }
  return { state: { wattHours, watts }, reading }
}
