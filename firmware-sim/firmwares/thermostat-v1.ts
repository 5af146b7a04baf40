import type { Firmware } from '../firmware.ts'
import { roomAtStart, senseTemperature } from '../sensors/temperature.ts'

/** Room thermostat, first generation: tells the temperature every 10 s and forgets it at once. */
export const thermostatV1: Firmware = {
  model: 'thermostat-v1',
  topic: deviceId => `sensors/${deviceId}/temperature`,
  qos: 0,
  samplePeriodMs: 10_000,
  flashReadings: 0,
  window: 0,
  keepAliveS: 20,
  answerTimeoutMs: 5_000,
  reconnect: { firstMs: 500, maxMs: 8_000 },
  powerOn: random => {
    let state = roomAtStart(random)
    return dtMs => {
      const next = senseTemperature(state, dtMs, random)
      state = next.state
      return { ...next.reading }
    }
  },
}
