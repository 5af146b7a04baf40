import { join } from 'node:path'
import { FILTER, QUEUE, runLoad } from '../../../scripts/bench/load.ts'
import { median } from '../../../scripts/bench/measure.ts'
import type { Load } from '../../../scripts/bench/scenarios.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { fillQueue } from '../support/fill-queue.ts'
import { Gateway } from '../support/gateway.ts'

export interface LongQueueOptions {
  /** In the long queue. */
  readonly messages: number
  /** Of each measurement. */
  readonly seconds: number
  /** Odd, so that each median is a measurement. */
  readonly rounds: number
}

/** Of a message to the short queue: medians of the rounds' 99th percentiles, milliseconds. */
export interface ShortQueueTimes {
  /** To its PUBACK, by fdatasync: nobody consumes. */
  readonly acknowledgedMs: number
  /** To its consumer. */
  readonly deliveredMs: number
}

const WARM_UP_S = 0.3
const LOAD: Load = {
  publishers: 10,
  subscribers: 1,
  reads: 'all',
  qos: 1,
  payloadBytes: 256,
  window: 1,
  ratePerS: 500,
  sink: 'queue',
  isEncrypted: false,
  idle: 0,
  freezes: false,
}

/** Two gateways with a short queue; one of them also has a long one. They are measured in turn, so that what else the machine does hits both alike. */
export async function longQueue({
  messages,
  seconds,
  rounds,
}: LongQueueOptions): Promise<{ readonly alone: ShortQueueTimes; readonly beside: ShortQueueTimes }> {
  await using directory = await tempDir()
  const queues = { [QUEUE]: { bind: [FILTER] }, long: { bind: ['sensors/#'], limits: { messages: 2 * messages } } }
  await using empty = await Gateway.start({ directory: join(directory.path, 'empty'), config: { queues } })
  const withLong = join(directory.path, 'full')
  await fillQueue(join(withLong, 'data'), { name: 'long', messages })
  await using full = await Gateway.start({ directory: withLong, config: { queues } })
  const { depth } = await full.queue('long')
  if (depth !== messages) throw new Error(`the long queue has ${depth} messages, not ${messages}`)
  const alone: ShortQueueTimes[] = []
  const beside: ShortQueueTimes[] = []
  for (let round = 1; round <= rounds; round++) {
    alone.push(await timesOf(empty, seconds))
    beside.push(await timesOf(full, seconds))
  }
  return { alone: medians(alone), beside: medians(beside) }
}

/** What the measurement of PUBACKs leaves in the queue goes to the consumer of the next one before it is measured. */
async function timesOf(gateway: Gateway, seconds: number): Promise<ShortQueueTimes> {
  const order = { port: gateway.mqttPort, warmUpS: WARM_UP_S, seconds, brokerPid: null }
  const delivered = await runLoad({ ...order, load: LOAD })
  const acknowledged = await runLoad({ ...order, load: { ...LOAD, subscribers: 0, sink: 'nobody' } })
  if (delivered.latencyMs === null || acknowledged.latencyMs === null) {
    throw new Error(`nothing arrived: ${JSON.stringify({ delivered, acknowledged })}`)
  }
  return { acknowledgedMs: acknowledged.latencyMs.p99, deliveredMs: delivered.latencyMs.p99 }
}

function medians(times: readonly ShortQueueTimes[]): ShortQueueTimes {
  return {
    acknowledgedMs: median(times.map(({ acknowledgedMs }) => acknowledgedMs)),
    deliveredMs: median(times.map(({ deliveredMs }) => deliveredMs)),
  }
}
