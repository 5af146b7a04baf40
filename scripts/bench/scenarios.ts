/*
 * What is measured. The figures of design.md section 3 were taken with these numbers of publishers, windows and sizes; brokers can
 * only be compared with the same ones, because fast results are largely batching by TCP.
 */

/** Where messages go: to subscribers that read, to consumers of a durable queue, to the session of a subscriber that is away, or nowhere the generator sees. */
export type Sink = 'subscribers' | 'queue' | 'offline-session' | 'nobody'

/** What the generator does; the same towards every broker. */
export interface Load {
  readonly publishers: number
  readonly subscribers: number
  readonly qos: 0 | 1
  readonly payloadBytes: number
  /** QoS 1: unacknowledged messages per publisher. QoS 0: messages on their way through the broker, all publishers together. */
  readonly window: number
  /** Messages per second of all publishers together; 0: as many as the windows allow. */
  readonly ratePerS: number
  readonly sink: Sink
}

/** Where Sluice must stand against mosquitto 2.0.11. */
export interface Bar {
  readonly ratio: number
  /** Bytes written per byte accepted (payload and topic), at most; null: nothing is written. */
  readonly amplification: number | null
}

export interface Scenario {
  readonly name: string
  readonly title: string
  readonly load: Load
  /** Sluice keeps everything in the outbox of a route whose upstream refuses connections, or in a queue that is consumed; the others in an offline session. */
  readonly isDurable: boolean
  /** Of Sluice, where it keeps everything: one for all publishers, or one each. */
  readonly queues: 'one' | 'one each'
  readonly shows: 'rate' | 'latency'
  /** null: for information. */
  readonly bar: Bar | null
}

const FAN_IN: Load = {
  publishers: 10,
  subscribers: 1,
  qos: 1,
  payloadBytes: 256,
  window: 20,
  ratePerS: 0,
  sink: 'subscribers',
}

export const SCENARIOS: readonly Scenario[] = [
  {
    name: 'qos0-fan-in',
    title: 'QoS 0, 64 B, 10 publishers to 1 subscriber',
    load: { ...FAN_IN, qos: 0, payloadBytes: 64, window: 40_000 },
    isDurable: false,
    queues: 'one',
    shows: 'rate',
    bar: { ratio: 10, amplification: null },
  },
  {
    name: 'qos1-fan-in',
    title: 'QoS 1 in memory, 256 B, 10 publishers with window 20 to 1 subscriber',
    load: FAN_IN,
    isDurable: false,
    queues: 'one',
    shows: 'rate',
    bar: { ratio: 4, amplification: null },
  },
  {
    name: 'window-1',
    title: 'QoS 1, 256 B, 100 publishers with one message in flight each, 1 subscriber',
    load: { ...FAN_IN, publishers: 100, window: 1 },
    isDurable: false,
    queues: 'one',
    shows: 'rate',
    bar: { ratio: 1.3, amplification: null },
  },
  {
    name: 'durable-ingress',
    title: 'QoS 1, 256 B, 10 publishers with window 20, no consumer; Sluice: fsync before PUBACK',
    load: { ...FAN_IN, subscribers: 0, sink: 'offline-session' },
    isDurable: true,
    queues: 'one',
    shows: 'rate',
    bar: { ratio: 2, amplification: 2.5 },
  },
  {
    name: 'durable-queues',
    title: 'QoS 1, 256 B, 100 publishers with window 20, no consumer; Sluice: fsync before PUBACK, a queue each',
    load: { ...FAN_IN, publishers: 100, subscribers: 0, sink: 'offline-session' },
    isDurable: true,
    queues: 'one each',
    shows: 'rate',
    bar: { ratio: 0.5, amplification: 2.5 },
  },
  {
    name: 'durable-through',
    title: 'QoS 1, 256 B, 10 publishers with window 20 into a durable queue, 1 consumer of it',
    load: { ...FAN_IN, sink: 'queue' },
    isDurable: true,
    queues: 'one',
    shows: 'rate',
    bar: null,
  },
  {
    name: 'latency',
    title: 'QoS 1, 256 B, 10 publishers to 1 subscriber at 2,000 messages/s',
    load: { ...FAN_IN, ratePerS: 2000 },
    isDurable: false,
    queues: 'one',
    shows: 'latency',
    bar: null,
  },
  {
    name: 'fan-out',
    title: 'QoS 0, 64 B, 1 publisher to 100 subscribers, deliveries',
    load: { ...FAN_IN, publishers: 1, subscribers: 100, qos: 0, payloadBytes: 64, window: 4_000 },
    isDurable: false,
    queues: 'one',
    shows: 'rate',
    bar: null,
  },
]

/** The scenario of that name; throws with the names there are. */
export function scenarioNamed(name: string): Scenario {
  const found = SCENARIOS.find(scenario => scenario.name === name)
  if (found === undefined) {
    throw new Error(`no scenario ${name}; there are ${SCENARIOS.map(scenario => scenario.name).join(', ')}`)
  }
  return found
}
