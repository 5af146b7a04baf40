import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import {
  type Health,
  health,
  type QueueStatus,
  queueList,
  type UpstreamStatus,
  upstreamList,
} from '../../../src/api/contract.ts'
import { eventually } from '../../support/eventually.ts'

/** The sources on the pinned runtime, with the V8 flags of the executable. */
export const SLUICE = resolve(import.meta.dirname, '../../../scripts/sluice')

const START_DEADLINE_MS = 30_000
const STOP_DEADLINE_MS = 30_000
/** Of the log, for the message of a failure. */
const KEPT_OUTPUT = 64 * 1024

export interface GatewayOptions {
  /** Takes the configuration file and, in `data`, what the gateway keeps. */
  readonly directory: string
  /** Further sections of the configuration; ports are free ones unless given. */
  readonly config?: Readonly<Record<string, unknown>>
  /** Wraps the command: another user, a mount namespace. */
  readonly wrap?: (command: readonly string[]) => { readonly program: string; readonly args: readonly string[] }
}

/** A gateway as a process of its own on a data directory that outlives it. */
export class Gateway implements AsyncDisposable {
  readonly directory: string
  readonly dataDirectory: string
  readonly #options: GatewayOptions
  #child: ChildProcess | null = null
  #ended: Promise<unknown> = Promise.resolve()
  #output = ''
  #printedBytes = 0
  #mqttPort = 0
  #httpPort = 0
  #startedAtMs = 0

  constructor(options: GatewayOptions) {
    this.#options = options
    this.directory = options.directory
    this.dataDirectory = join(options.directory, 'data')
  }

  static async start(options: GatewayOptions): Promise<Gateway> {
    const gateway = new Gateway(options)
    await gateway.start()
    return gateway
  }

  /** Starts it and resolves when the log says that it runs. Rejects with what it printed if it ends before. */
  async start(): Promise<void> {
    const file = await this.#writeConfig()
    const command = [SLUICE, 'run', '--config', file]
    const [first = '', ...rest] = command
    const { program, args } = this.#options.wrap?.(command) ?? { program: first, args: rest }
    this.#output = ''
    this.#startedAtMs = performance.now()
    const child = spawn(program, args, { cwd: this.directory, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#child = child
    this.#ended = once(child, 'close')
    const killAtExit = () => child.kill('SIGKILL')
    process.once('exit', killAtExit)
    child.once('close', () => process.off('exit', killAtExit))
    const { promise: running, resolve: runs } = Promise.withResolvers<Running>()
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text: string) => {
        this.#output = (this.#output + text).slice(-KEPT_OUTPUT)
        this.#printedBytes += text.length
        const line = runningLine(this.#output)
        if (line !== null) runs(line)
      })
    }
    const timer = setTimeout(() => child.kill('SIGKILL'), START_DEADLINE_MS)
    const line = await Promise.race([running, this.#ended])
    clearTimeout(timer)
    if (!isRunning(line)) throw new Error(`the gateway did not start: ${this.#output}`)
    this.#mqttPort = line.mqtt.port
    this.#httpPort = line.http.port
  }

  async #writeConfig(): Promise<string> {
    await mkdir(this.directory, { recursive: true })
    const file = join(this.directory, 'sluice.yaml')
    const { config = {} } = this.#options
    // JSON is YAML.
    await writeFile(
      file,
      JSON.stringify({ data_dir: this.dataDirectory, listeners: { mqtt: { port: 0 } }, http: { port: 0 }, ...config }),
    )
    return file
  }

  get pid(): number {
    const pid = this.#child?.pid
    if (pid === undefined || !this.isRunning) throw new Error(`the gateway is not running: ${this.#output}`)
    return pid
  }

  get isRunning(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null
  }

  get mqttPort(): number {
    return this.#mqttPort
  }

  get httpPort(): number {
    return this.#httpPort
  }

  get mqttUrl(): string {
    return `mqtt://127.0.0.1:${this.#mqttPort}`
  }

  /** What it printed since its last start, the end of it. */
  get output(): string {
    return this.#output
  }

  /** All it has printed, in all its starts. */
  get printedBytes(): number {
    return this.#printedBytes
  }

  /** `performance.now()` at the moment of the last start. */
  get startedAtMs(): number {
    return this.#startedAtMs
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL')
    await this.#ended
  }

  /** SIGTERM, and SIGKILL if that does not help; resolves with the exit status. Idempotent. */
  async stop(): Promise<number | null> {
    const child = this.#child
    if (child === null) return null
    if (this.isRunning) child.kill('SIGTERM')
    const timer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS)
    await this.#ended
    clearTimeout(timer)
    return child.exitCode
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop()
  }

  // ---- what it says about itself

  async queue(name: string): Promise<QueueStatus> {
    const queue = (await this.queues()).find(candidate => candidate.name === name)
    if (queue === undefined) throw new Error(`there is no queue ${name}`)
    return queue
  }

  async queues(): Promise<QueueStatus[]> {
    return queueList.parse(await (await this.get('/api/v1/queues')).json())
  }

  async upstreams(): Promise<UpstreamStatus[]> {
    return upstreamList.parse(await (await this.get('/api/v1/upstreams')).json())
  }

  /** The only one. */
  async upstream(): Promise<UpstreamStatus> {
    const [upstream] = await this.upstreams()
    if (upstream === undefined) throw new Error('there is no upstream')
    return upstream
  }

  /** Resolves when the link to the upstream is in this state. */
  async reaches(state: UpstreamStatus['state'], deadlineMs = 30_000): Promise<void> {
    await eventually(async () => (await this.upstream()).state === state, {
      deadlineMs,
      intervalMs: 20,
      what: `an upstream that is ${state}`,
    })
  }

  async ready(): Promise<{ readonly status: number; readonly health: Health }> {
    const response = await this.get('/health/ready')
    return { status: response.status, health: health.parse(await response.json()) }
  }

  /** The metrics without labels, by name. */
  async metrics(): Promise<ReadonlyMap<string, number>> {
    const text = await (await this.get('/metrics')).text()
    return new Map([...text.matchAll(/^(\w+) (\S+)$/gm)].map(([, name = '', value]) => [name, Number(value)]))
  }

  get(path: string): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.#httpPort}${path}`, { signal: AbortSignal.timeout(START_DEADLINE_MS) })
  }
}

interface Running {
  readonly mqtt: { readonly port: number }
  readonly http: { readonly port: number }
}

function runningLine(output: string): Running | null {
  for (const line of output.split('\n')) {
    // The first line kept may have lost its beginning, the last one has not all of it yet.
    if (!line.includes('"gateway is running"') || !line.startsWith('{') || !line.endsWith('}')) continue
    const value: unknown = JSON.parse(line)
    if (isRunning(value)) return value
  }
  return null
}

function isRunning(value: unknown): value is Running {
  return typeof value === 'object' && value !== null && 'mqtt' in value && 'http' in value
}

/** By how many messages a queue's ledger is off; 0: it balances. */
export function imbalance({ depth, in_flight, ledger }: QueueStatus): number {
  const sum = (counts: Readonly<Record<string, number>>) => Object.values(counts).reduce((total, n) => total + n, 0)
  const { accepted, settled, queued, expired, dropped, dead_lettered } = ledger
  if (depth !== queued + ledger.in_flight || in_flight !== ledger.in_flight) return Number.NaN
  return accepted - settled - queued - ledger.in_flight - expired - sum(dropped) - sum(dead_lettered)
}

/** Configuration of one route that takes everything below sensors/ to the topic exchange `telemetry`. */
export function forwarding(
  url: string,
  {
    upstream = {},
    route = {},
  }: { upstream?: Readonly<Record<string, unknown>>; route?: Readonly<Record<string, unknown>> } = {},
): Record<string, unknown> {
  return {
    upstreams: { central: { urls: [url], ...upstream } },
    routes: { telemetry: { from: ['sensors/#'], upstream: 'central', exchange: { name: 'telemetry' }, ...route } },
  }
}
