import type { Firmware } from '../firmware.ts'
import { meterAtStart, senseEnergy } from '../sensors/energy-meter.ts'

/** Energy meter for billing: no reading may be lost, so it keeps each in flash until it is acknowledged. */
export const meter: Firmware = {
  model: 'meter',
  topic: deviceId => `sensors/${deviceId}/energy`,
  qos: 1,
  samplePeriodMs: 10_000,
  flashReadings: 20_000,
  window: 20,
  keepAliveS: 30,
  answerTimeoutMs: 5_000,
  reconnect: { firstMs: 250, maxMs: 4_000 },
  powerOn: random => {
    let state = meterAtStart(random)
    return dtMs => {
      const next = senseEnergy(state, dtMs, random)
      state = next.state
      return { ...next.reading }
    }
  },
}
