import type { Random } from './random.ts'

/** Takes one reading, `dtMs` of virtual time after the one before. */
export type Sampler = (dtMs: number) => Readonly<Record<string, number>>

/** A kind of device as its data sheet describes it; the loop that lives by it is in device.ts. */
export interface Firmware {
  readonly model: string
  readonly topic: (deviceId: string) => string
  readonly qos: 0 | 1
  /** Virtual time between two readings. */
  readonly samplePeriodMs: number
  /** Readings the device can keep until they are acknowledged; 0: a reading that can't be sent at once is gone. Needed for QoS 1. */
  readonly flashReadings: number
  /** QoS 1: messages sent and not yet acknowledged at most. */
  readonly window: number
  /** Real seconds, announced in CONNECT. */
  readonly keepAliveS: number
  /** Real time without CONNACK, PUBACK or PINGRESP after which the device gives the connection up and makes a new one. */
  readonly answerTimeoutMs: number
  /** Real pause before a new connection: doubles from first to max, less a random half. */
  readonly reconnect: { readonly firstMs: number; readonly maxMs: number }
  readonly powerOn: (random: Random) => Sampler
}
