import { meter } from '../firmwares/meter.ts'
import { thermostatV1 } from '../firmwares/thermostat-v1.ts'
import type { FleetPlan } from '../fleet.ts'
import { PERFECT_RADIO, type RadioPlan } from '../radio.ts'

const MINUTE_MS = 60_000

/** Wi-Fi in the offices: good, now and then a roaming loss. */
const OFFICE_RADIO: RadioPlan = { ...PERFECT_RADIO, dropEveryMs: 120 * MINUTE_MS, halfOpenShare: 0.2 }

/** Between presses and steel racks. */
const HALL_RADIO: RadioPlan = { ...PERFECT_RADIO, latencyMs: 2, dropEveryMs: 60 * MINUTE_MS, halfOpenShare: 0.3 }

/** The far end of the yard: a truck parks in front of the antenna twice. */
const YARD_RADIO: RadioPlan = {
  ...PERFECT_RADIO,
  latencyMs: 5,
  dropEveryMs: 45 * MINUTE_MS,
  halfOpenShare: 0.5,
  outages: [
    { fromMs: 20 * MINUTE_MS, toMs: 26 * MINUTE_MS },
    { fromMs: 70 * MINUTE_MS, toMs: 74 * MINUTE_MS },
  ],
}

/** A small factory: 50 devices, 5 readings a second in virtual time. */
export const fleet: FleetPlan = {
  name: 'factory',
  groups: [
    { name: 'office', firmware: thermostatV1, count: 20, radio: OFFICE_RADIO },
    { name: 'hall', firmware: meter, count: 24, radio: HALL_RADIO },
    { name: 'yard', firmware: meter, count: 6, radio: YARD_RADIO },
  ],
}
