import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { routeList } from '../../src/api/contract.ts'
import { freePort } from '../free-port.ts'
import { startMosquitto } from '../peers.ts'
import { CONNACK, connectFrame } from './frames.ts'
import { QUEUE } from './load.ts'
import type { Scenario } from './scenarios.ts'

/* The brokers that are measured, each a fresh process on the first core; the generator has the second. */

export type BrokerName = 'mosquitto' | 'aedes' | 'sluice'

export interface RunningBroker {
  readonly pid: number
  readonly port: number
  /** NaN unless TLS was asked for. */
  readonly tlsPort: number
  /** Messages in the outboxes of its routes, by the broker's own word; null for brokers that have none. */
  outboxDepth(): Promise<number | null>
  /** SIGTERM, and its end. */
  stop(): Promise<void>
}

export interface BrokerOptions {
  /** Its files; must exist. For Sluice's store it must lie on a disk. */
  readonly directory: string
  /** Sluice gets a route for each of these filters, towards an upstream that refuses connections. */
  readonly routes: readonly string[]
  /** It listens with TLS too. */
  readonly isEncrypted: boolean
  /** Sluice gets a durable queue QUEUE for this filter; null: none. */
  readonly queueFilter: string | null
  /** What starts Sluice: the sources' start script or an executable. */
  readonly sluice: string
  /** `wide`: so that nothing is dropped, and both do the same work. */
  readonly limits: Scenario['limits']
  /** Of Sluice, added to this process's own. */
  readonly environment: NodeJS.ProcessEnv
}

const START_DEADLINE_MS = 15_000
const STOP_DEADLINE_MS = 30_000
const POLL_MS = 25

const run = promisify(execFile)

/** Core of the broker and core of the generator; null where pinning makes no sense. */
export const CORES: { readonly broker: string; readonly generator: string } | null =
  availableParallelism() >= 2 && existsSync('/usr/bin/taskset') ? { broker: '0', generator: '1' } : null

/** The command, pinned to that core where cores can be had. */
export function pinned(core: 'broker' | 'generator', command: readonly string[]): [string, string[]] {
  const [program = '', ...args] = CORES === null ? command : ['/usr/bin/taskset', '--cpu-list', CORES[core], ...command]
  return [program, args]
}

/** Starts it and waits until it answers CONNECT. */
export async function startBroker(name: BrokerName, options: BrokerOptions): Promise<RunningBroker> {
  if (name === 'mosquitto') return startMosquittoPinned(options)
  if (name === 'aedes') return startAedes(options)
  return startSluice(options)
}

async function startMosquittoPinned({ directory, limits, isEncrypted }: BrokerOptions): Promise<RunningBroker> {
  const config = ['persistence false', 'log_type error']
  if (limits === 'wide') config.push('max_inflight_messages 1000', 'max_queued_messages 0')
  const tlsPort = isEncrypted ? await freePort() : Number.NaN
  if (isEncrypted) {
    const { cert, key } = await makeCertificate(directory)
    config.push(`listener ${tlsPort} 127.0.0.1`, `certfile ${cert}`, `keyfile ${key}`)
  }
  const peer = await startMosquitto({ directory, config: config.join('\n') })
  if (CORES !== null) {
    await run('/usr/bin/taskset', ['--all-tasks', '--cpu-list', '--pid', CORES.broker, String(peer.pid)])
  }
  return { pid: peer.pid, port: peer.port, tlsPort, outboxDepth: async () => null, stop: () => peer.stop() }
}

async function startAedes({ directory, isEncrypted }: BrokerOptions): Promise<RunningBroker> {
  const [port, tlsPort] = [await freePort(), await freePort()]
  const script = join(import.meta.dirname, 'aedes-peer.ts')
  const command = [process.execPath, script, '--port', String(port)]
  if (isEncrypted) {
    const { cert, key } = await makeCertificate(directory)
    command.push('--tlsPort', String(tlsPort), '--cert', cert, '--key', key)
  }
  const child = await startProcess(command, port)
  return { ...child, port, tlsPort, outboxDepth: async () => null }
}

async function startSluice({
  directory,
  routes,
  queueFilter,
  limits,
  isEncrypted,
  sluice,
  environment,
}: BrokerOptions): Promise<RunningBroker> {
  const [port, httpPort, deadPort] = [await freePort(), await freePort(), await freePort()]
  const file = join(directory, 'sluice.yaml')
  await mkdir(directory, { recursive: true })
  const tlsPort = isEncrypted ? await freePort() : Number.NaN
  const tls: string[] = []
  if (isEncrypted) {
    const { cert, key } = await makeCertificate(directory)
    tls.push(`  mqtts: { host: 127.0.0.1, port: ${tlsPort}, tls: { cert: ${cert}, key: ${key} } }`)
  }
  const config = [
    `gateway: { id: bench }`,
    `data_dir: ${join(directory, 'data')}`,
    'listeners:',
    `  mqtt: { host: 127.0.0.1, port: ${port} }`,
    ...tls,
    `http: { host: 127.0.0.1, port: ${httpPort} }`,
    'store: { disk: 1TiB }',
    'log: { level: error }',
    'limits:',
    '  clients: 10000',
    '  tls_clients: 10000',
  ]
  if (limits === 'wide') {
    config.push(
      '  memory: 1GiB',
      '  output_per_client: 256MiB',
      '  receive_max: 1000',
      '  inflight: 1000',
      '  session_queue: { messages: 10000000, bytes: 1GiB }',
    )
  }
  if (queueFilter !== null) {
    config.push(`queues: { ${QUEUE}: { bind: [ "${queueFilter}" ], limits: { messages: 1000000000, bytes: 1TiB } } }`)
  }
  if (routes.length > 0) {
    config.push(
      `upstreams: { away: { urls: [ "amqp://127.0.0.1:${deadPort}" ] } }`,
      'routes:',
      ...routes.map(
        (filter, n) =>
          `  bench-${n}: { from: [ "${filter}" ], upstream: away, exchange: { name: bench }, limits: { messages: 1000000000, bytes: 1TiB } }`,
      ),
    )
  }
  await writeFile(file, `${config.join('\n')}\n`)
  const child = await startProcess([sluice, 'run', '--config', file], port, environment)
  return {
    ...child,
    port,
    tlsPort,
    outboxDepth: async () => {
      const response = await fetch(`http://127.0.0.1:${httpPort}/api/v1/routes`)
      const found = routeList.parse(await response.json())
      return found.length === 0 ? null : found.reduce((depth, route) => depth + route.depth, 0)
    },
  }
}

/** A certificate of its own, as devices have to check it: of a key on the curve P-256. */
async function makeCertificate(directory: string): Promise<{ cert: string; key: string }> {
  const [cert, key] = [join(directory, 'cert.pem'), join(directory, 'key.pem')]
  await run('openssl', [
    ...['req', '-x509', '-subj', '/CN=bench', '-days', '30', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
    ...['-noenc', '-keyout', key, '-out', cert],
  ])
  return { cert, key }
}

async function startProcess(
  command: readonly string[],
  port: number,
  environment: NodeJS.ProcessEnv = {},
): Promise<Pick<RunningBroker, 'pid' | 'stop'>> {
  const [program, args] = pinned('broker', command)
  const child = spawn(program, args, { env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(-2000)
    })
  }
  await once(child, 'spawn')
  const { pid } = child
  if (pid === undefined) throw new TypeError('a spawned process has a pid')
  const killAtExit = () => child.kill('SIGKILL')
  process.once('exit', killAtExit)
  child.once('exit', () => process.off('exit', killAtExit))
  const deadline = performance.now() + START_DEADLINE_MS
  while (!(await answers(port))) {
    if (hasEnded(child)) throw new Error(`${command.join(' ')} ended at start: ${output}`)
    if (performance.now() > deadline) {
      child.kill('SIGKILL')
      throw new Error(`${command.join(' ')} did not answer within ${START_DEADLINE_MS / 1000} s: ${output}`)
    }
    await delay(POLL_MS)
  }
  return { pid, stop: () => stopProcess(child) }
}

const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null

async function stopProcess(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS)
  await ended
  clearTimeout(timer)
}

/** Whether a client that connects now gets CONNACK. */
async function answers(port: number): Promise<boolean> {
  const socket = connect({ host: '127.0.0.1', port })
  try {
    socket.write(connectFrame({ clientId: 'bench-probe', clean: true }))
    const [bytes] = await once(socket, 'data', { signal: AbortSignal.timeout(START_DEADLINE_MS) })
    return bytes[0] === CONNACK
  } catch {
    // Refused or closed: not yet.
    return false
  } finally {
    // A late error of the destroyed socket says nothing new.
    socket.on('error', () => undefined)
    socket.destroy()
  }
}
