/*
 * What is measured. The figures of design.md section 3 were taken with these numbers of publishers, windows and sizes; brokers can
 * only be compared with the same ones, because fast results are largely batching by TCP.
 */

export type QoS = 0 | 1 | 2

/**
 * Where messages go: to subscribers that read, to consumers of a durable queue, to the session of a subscriber that is away, to one that is away and comes
 * back at the end, or nowhere the generator sees.
 */
export type Sink = 'subscribers' | 'queue' | 'offline-session' | 'returning-session' | 'nobody'

/** What the generator does; the same towards every broker. */
export interface Load {
  readonly publishers: number
  readonly subscribers: number
  /** Each subscriber gets everything, or what the publisher of its number sends. */
  readonly reads: 'all' | 'own'
  readonly qos: QoS
  readonly payloadBytes: number
  /** QoS 1 and 2: unfinished messages per publisher. QoS 0: messages on their way through the broker, all publishers together. */
  readonly window: number
  /** Messages per second of all publishers together, once warmed up; 0: as many as the windows allow. */
  readonly ratePerS: number
  readonly sink: Sink
  /** TLS, on every connection. */
  readonly isEncrypted: boolean
  /** Connections that are opened first, many at once, and stay without a word. */
  readonly idle: number
  /** The measured part is repeated with one more subscriber, which reads nothing. */
  readonly freezes: boolean
}

/** What is shown and compared; report.ts says how. */
export type FigureName = 'rate' | 'latency' | 'frozen' | 'replay' | 'connecting' | 'memory'

/** Where Sluice must stand. What is to be small must be at most this, what is to be large at least. */
export interface Bar {
  /** Its figure by that of mosquitto 2.0.11; null: it stands for itself. */
  readonly ratio: number | null
  /** Its figure; null: any. */
  readonly figure: number | null
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
  /** Of the brokers: so wide that none drops anything, or as they come. */
  readonly limits: 'wide' | 'default'
  readonly shows: FigureName
  /** null: for information. */
  readonly bar: Bar | null
}

const FAN_IN: Load = {
  publishers: 10,
  subscribers: 1,
  reads: 'all',
  qos: 1,
  payloadBytes: 256,
  window: 20,
  ratePerS: 0,
  sink: 'subscribers',
  isEncrypted: false,
  idle: 0,
  freezes: false,
}

const IDLE: Load = { ...FAN_IN, publishers: 0, subscribers: 0, sink: 'nobody', idle: 5000 }

const IN_MEMORY = { isDurable: false, queues: 'one', limits: 'wide', shows: 'rate' } as const
const ON_DISK = { isDurable: true, queues: 'one', limits: 'wide', shows: 'rate' } as const

const times = (ratio: number, amplification: number | null = null): Bar => ({ ratio, figure: null, amplification })
const figure = (value: number): Bar => ({ ratio: null, figure: value, amplification: null })

export const SCENARIOS: readonly Scenario[] = [
  {
    ...IN_MEMORY,
    name: 'qos0-fan-in',
    title: 'QoS 0, 64 B, 10 publishers to 1 subscriber',
    load: { ...FAN_IN, qos: 0, payloadBytes: 64, window: 40_000 },
    bar: times(10),
  },
  {
    ...IN_MEMORY,
    name: 'qos1-fan-in',
    title: 'QoS 1 in memory, 256 B, 10 publishers with window 20 to 1 subscriber',
    load: FAN_IN,
    bar: times(4),
  },
  {
    ...IN_MEMORY,
    name: 'qos2-fan-in',
    title: 'QoS 2 in memory, 256 B, 10 publishers with window 20 to 1 subscriber',
    load: { ...FAN_IN, qos: 2 },
    bar: times(6),
  },
  {
    ...IN_MEMORY,
    name: 'window-1',
    title: 'QoS 1, 256 B, 100 publishers with one message in flight each, 1 subscriber',
    load: { ...FAN_IN, publishers: 100, window: 1 },
    bar: times(1.3),
  },
  {
    ...IN_MEMORY,
    name: 'pairs',
    title: 'QoS 1 in memory, 256 B, 50 publishers with window 20, each to a subscriber of its own',
    load: { ...FAN_IN, publishers: 50, subscribers: 50, reads: 'own' },
    bar: times(3),
  },
  {
    ...IN_MEMORY,
    name: 'fan-out',
    title: 'QoS 0, 64 B, 1 publisher to 100 subscribers, deliveries',
    load: { ...FAN_IN, publishers: 1, subscribers: 100, qos: 0, payloadBytes: 64, window: 4_000 },
    bar: times(10),
  },
  {
    ...IN_MEMORY,
    name: 'latency',
    title:
      'QoS 1, 256 B, 10 publishers to 1 subscriber at 2,000 messages/s: median and 99th percentile, which is compared',
    load: { ...FAN_IN, ratePerS: 2000 },
    shows: 'latency',
    bar: times(1.5),
  },
  {
    ...IN_MEMORY,
    name: 'frozen',
    title:
      'QoS 1, 256 B, 10 publishers to 1 subscriber at 2,000 messages/s: 99th percentile before and while a second subscriber reads nothing',
    load: { ...FAN_IN, window: 1, ratePerS: 2000, freezes: true },
    limits: 'default',
    shows: 'frozen',
    bar: figure(1.25),
  },
  {
    ...IN_MEMORY,
    name: 'connecting',
    title: '5,000 connections, 64 at a time, each from the first packet to CONNACK',
    load: IDLE,
    shows: 'connecting',
    bar: figure(5000),
  },
  {
    ...IN_MEMORY,
    name: 'idle-memory',
    title: '5,000 connections that say nothing: anonymous memory of the broker for each',
    load: IDLE,
    shows: 'memory',
    bar: figure(12),
  },
  {
    ...IN_MEMORY,
    name: 'tls-qos1-fan-in',
    title: 'QoS 1 in memory over TLS 1.3, 256 B, 10 publishers with window 20 to 1 subscriber',
    load: { ...FAN_IN, isEncrypted: true },
    bar: times(1),
  },
  {
    ...IN_MEMORY,
    name: 'tls-window-1',
    title: 'QoS 1 over TLS 1.3, 256 B, 100 publishers with one message in flight each, 1 subscriber',
    load: { ...FAN_IN, publishers: 100, window: 1, isEncrypted: true },
    bar: null,
  },
  {
    ...IN_MEMORY,
    name: 'tls-idle-memory',
    title: '1,000 connections over TLS 1.3 that say nothing: anonymous memory of the broker for each',
    load: { ...IDLE, idle: 1000, isEncrypted: true },
    shows: 'memory',
    bar: figure(70),
  },
  {
    ...IN_MEMORY,
    name: 'offline-in',
    title: 'QoS 1, 256 B, 10 publishers with window 20 into the session of a client that is away',
    load: { ...FAN_IN, subscribers: 0, sink: 'returning-session' },
    bar: times(1),
  },
  {
    ...IN_MEMORY,
    name: 'offline-replay',
    title: 'the same: what the client gets per second when it comes back',
    load: { ...FAN_IN, subscribers: 0, sink: 'returning-session' },
    shows: 'replay',
    bar: times(1),
  },
  {
    ...ON_DISK,
    name: 'durable-ingress',
    title: 'QoS 1, 256 B, 10 publishers with window 20, no consumer; Sluice: fsync before PUBACK',
    load: { ...FAN_IN, subscribers: 0, sink: 'offline-session' },
    bar: times(2, 2.5),
  },
  {
    ...ON_DISK,
    name: 'durable-queues',
    title: 'QoS 1, 256 B, 100 publishers with window 20, no consumer; Sluice: fsync before PUBACK, a queue each',
    load: { ...FAN_IN, publishers: 100, subscribers: 0, sink: 'offline-session' },
    queues: 'one each',
    bar: times(0.5, 2.5),
  },
  {
    ...ON_DISK,
    name: 'durable-through',
    title: 'QoS 1, 256 B, 10 publishers with window 20 into a durable queue, 1 consumer of it',
    load: { ...FAN_IN, sink: 'queue' },
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
