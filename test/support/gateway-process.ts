import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../../scripts/free-port.ts'
import { eventually } from './eventually.ts'

/** Under qemu a start takes some seconds. */
const READY_DEADLINE_MS = 60_000

export interface GatewayOptions {
  /** What runs the gateway: `['/some/dir/sluice']`, `['node', 'src/main.ts']`. */
  readonly command: readonly string[]
  /** Working directory; takes the configuration file. The data directory is `data` in it. */
  readonly directory: string
  /** Further lines of sluice.yaml. */
  readonly config?: string
  readonly environment?: NodeJS.ProcessEnv
}

/** A gateway as a process of its own. */
export interface GatewayProcess extends AsyncDisposable {
  readonly pid: number
  readonly mqttUrl: string
  readonly httpUrl: string
  /** Everything it has printed. */
  output(): string
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>
  /** SIGTERM; resolves with its exit status. Idempotent. */
  stop(): Promise<number | null>
}

/** Starts a gateway on free ports and resolves when it says it is ready. Rejects with what it printed if it ends before. */
export async function startGatewayProcess({
  command,
  directory,
  config = '',
  environment = process.env,
}: GatewayOptions): Promise<GatewayProcess> {
  const [port, httpPort] = [await freePort(), await freePort()]
  const file = join(directory, 'sluice.yaml')
  const lines = [
    `data_dir: ${join(directory, 'data')}`,
    `listeners: { mqtt: { port: ${port} } }`,
    `http: { port: ${httpPort} }`,
    config,
  ]
  await writeFile(file, lines.join('\n'))
  const [program = '', ...args] = [...command, 'run', '--config', file]
  const child = spawn(program, args, { cwd: directory, env: environment, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  const ended = once(child, 'close')
  await once(child, 'spawn')
  const { pid } = child
  if (pid === undefined) throw new TypeError('a spawned process has a pid')
  const isRunning = () => child.exitCode === null && child.signalCode === null
  const end = async (signal: NodeJS.Signals) => {
    if (isRunning()) child.kill(signal)
    await ended
    return child.exitCode
  }
  const httpUrl = `http://127.0.0.1:${httpPort}`
  try {
    await eventually(async () => !isRunning() || (await fetch(`${httpUrl}/health/ready`)).ok, {
      deadlineMs: READY_DEADLINE_MS,
      what: 'a gateway that is ready',
    })
    if (!isRunning()) throw new Error(`the gateway ended with status ${child.exitCode}`)
  } catch (error) {
    await end('SIGKILL')
    throw new Error(`the gateway did not start: ${output}`, { cause: error })
  }
  return {
    pid,
    mqttUrl: `mqtt://127.0.0.1:${port}`,
    httpUrl,
    output: () => output,
    kill: async () => {
      await end('SIGKILL')
    },
    stop: () => end('SIGTERM'),
    [Symbol.asyncDispose]: async () => {
      await end('SIGTERM')
    },
  }
}
