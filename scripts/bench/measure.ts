import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { mkdtemp, rm, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type BrokerName, pinned, startBroker } from './brokers.ts'
import { FILTER, type LoadOrder, type LoadResult, TOPIC_BYTES, topicOf } from './load.ts'
import type { Load, Scenario, Sink } from './scenarios.ts'

/* One broker, fresh, under one scenario. */

/** Who is measured in a scenario: a broker, with another end of the way where that makes a difference. */
export interface Contender {
  readonly label: string
  readonly broker: BrokerName
  readonly sink: Sink
}

export interface Measurement extends LoadResult {
  /** Bytes written to the disk per byte accepted (payload and topic), from start to end of the process; null unless it is durable. */
  readonly amplification: number | null
}

export interface MeasureOptions {
  readonly scenario: Scenario
  readonly contender: Contender
  readonly warmUpS: number
  readonly seconds: number
  /** Takes a directory for each broker. */
  readonly directory: string
  readonly sluice: string
  /** Of Sluice, added to this process's own. */
  readonly environment?: NodeJS.ProcessEnv
}

/** statfs type of tmpfs: what is written there costs nothing. */
const TMPFS = 0x01021994
/** A run that hangs is ended after its time and this. */
const GRACE_MS = 60_000

const run = promisify(execFile)

/** The brokers of a scenario; the first is the one the others are compared with. */
export function contendersOf({ load, isDurable }: Scenario): readonly Contender[] {
  if (!isDurable) {
    return [
      { label: 'mosquitto', broker: 'mosquitto', sink: load.sink },
      { label: 'aedes', broker: 'aedes', sink: load.sink },
      { label: 'Sluice', broker: 'sluice', sink: load.sink },
    ]
  }
  const fanIn: Contender = { label: 'mosquitto, fan-in', broker: 'mosquitto', sink: 'subscribers' }
  if (load.sink === 'queue') return [fanIn, { label: 'Sluice, $queue', broker: 'sluice', sink: 'queue' }]
  return [
    fanIn,
    { label: 'mosquitto, kept', broker: 'mosquitto', sink: 'offline-session' },
    { label: 'mosquitto, nobody', broker: 'mosquitto', sink: 'nobody' },
    { label: 'aedes, kept', broker: 'aedes', sink: 'offline-session' },
    { label: 'Sluice, fsync', broker: 'sluice', sink: 'nobody' },
  ]
}

/** Starts the broker and a generator, and stops both. Rejects when either fails. */
export async function measure(options: MeasureOptions): Promise<Measurement> {
  const { scenario, contender, warmUpS, seconds, sluice, environment = {} } = options
  const { isDurable, queues, limits, load } = scenario
  const directory = await mkdtemp(join(options.directory, `${contender.broker}-`))
  try {
    if (isDurable && (await statfs(directory)).type === TMPFS) {
      throw new Error(`${directory} is in memory (tmpfs); name a directory on a disk with --data`)
    }
    const writtenBefore = writtenBytes()
    const broker = await startBroker(contender.broker, {
      directory,
      routes: isDurable && load.sink !== 'queue' ? routesOf(queues, load) : [],
      isEncrypted: load.isEncrypted,
      queueFilter: load.sink === 'queue' ? FILTER : null,
      limits,
      sluice,
      environment,
    })
    let result: LoadResult
    try {
      const order: LoadOrder = {
        port: load.isEncrypted ? broker.tlsPort : broker.port,
        load: loadOf(load, contender.sink),
        warmUpS,
        seconds,
        brokerPid: broker.pid,
      }
      result = await generate(order)
      const kept = isDurable ? await broker.outboxDepth() : null
      if (kept !== null) result = { ...result, received: kept, lost: result.acked - kept }
    } finally {
      await broker.stop()
    }
    const written = writtenBytes() - writtenBefore
    const accepted = result.acked * (load.payloadBytes + TOPIC_BYTES)
    const isOnDisk = isDurable && contender.broker === 'sluice'
    return { ...result, amplification: isOnDisk ? written / accepted : null }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
}

/** What is published where nobody subscribes goes to one subscriber where that is compared with. */
const loadOf = (load: Load, sink: Sink): Load =>
  sink === 'subscribers' && load.subscribers === 0 ? { ...load, sink, subscribers: 1 } : { ...load, sink }

/** Filters of the routes that keep everything. */
const routesOf = (queues: Scenario['queues'], { publishers }: Load): string[] =>
  queues === 'one' ? [FILTER] : Array.from({ length: publishers }, (_, publisher) => topicOf(publisher))

async function generate(order: LoadOrder): Promise<LoadResult> {
  const script = join(import.meta.dirname, 'load.ts')
  const [program, args] = pinned('generator', [process.execPath, script, '--order', JSON.stringify(order)])
  const timeout = (order.warmUpS + order.seconds) * 1000 + GRACE_MS
  const { stdout } = await run(program, args, { timeout, killSignal: 'SIGKILL' })
  return JSON.parse(stdout)
}

/**
 * Bytes this process and its children that have ended caused to be written to disks: the kernel adds a child's account to its
 * parent's when the parent waits for it. So everything counts, up to the last flush before the exit.
 */
function writtenBytes(): number {
  const match = /^write_bytes: (?<bytes>\d+)$/m.exec(readFileSync('/proc/self/io', 'latin1'))
  return Number(match?.groups?.bytes)
}

/** The value in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}
