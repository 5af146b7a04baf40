/**
 * Measures what the executable costs a gateway and writes docs/footprint.md: `npm run footprint [-- --idle-seconds 130] [--no-xz]`.
 * Ends with status 1 when a bar is missed. Wants an otherwise idle machine, and RabbitMQ (scripts/peers.ts).
 */

import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { connect, type Socket } from 'node:net'
import { cpus, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import type { Metafile } from 'esbuild'
import { ARCHITECTURES, executableName, METAFILE, V8_FLAGS } from './build-binary.ts'
import { freePort } from './free-port.ts'
import { startRabbit } from './peers.ts'

const PROJECT = resolve(import.meta.dirname, '..')
const DIST = join(PROJECT, 'dist')
const RESULT = join(PROJECT, 'docs/footprint.md')

const STARTS = 12
const CONNECTIONS = 2000
const DEVICES = 100
const KEEP_ALIVE_S = 60
/** After a start, and after connecting: what was allocated meanwhile has been collected or is kept. */
const SETTLE_MS = 10_000
/** A minute after its start the gateway writes a checkpoint of what the start has changed, once. That is not nothing happening. */
const CHECKPOINT_MS = 75_000
const START_DEADLINE_MS = 15_000
/** sysconf(_SC_CLK_TCK) of every Linux. */
const TICKS_PER_S = 100

const run = promisify(execFile)

interface Figure {
  readonly what: string
  readonly value: number
  readonly digits: number
  readonly unit: string
  /** Most it may be; absent where none is set. */
  readonly bar?: number
}

// ---- A gateway and its devices -----------------------------------------------------------------------------------------

interface Gateway {
  readonly pid: number
  readonly port: number
  /** From the start of the process to the first CONNACK. */
  readonly startMs: number
  stop(): Promise<void>
}

/** The gateway as it is used: one route to RabbitMQ. */
function configuration({
  port,
  httpPort,
  amqpUrl,
  directory,
}: {
  port: number
  httpPort: number
  amqpUrl: string
  directory: string
}): string {
  return `
gateway: { id: footprint }
data_dir: ${directory}/data
listeners: { mqtt: { host: 127.0.0.1, port: ${port} } }
http: { host: 127.0.0.1, port: ${httpPort} }
limits: { clients: ${CONNECTIONS + 10} }
upstreams: { central: { urls: [ "${amqpUrl}" ] } }
routes: { telemetry: { from: [ "sensors/#" ], upstream: central, exchange: { name: footprint, type: topic, declare: true } } }
`
}

async function startGateway(directory: string, amqpUrl: string): Promise<Gateway> {
  const port = await freePort()
  const file = join(directory, 'sluice.yaml')
  writeFileSync(file, configuration({ port, httpPort: await freePort(), amqpUrl, directory }))
  const startedAt = performance.now()
  const child = spawn(
    join(DIST, executableName(process.arch === 'arm64' ? 'arm64' : 'x64')),
    ['run', '--config', file],
    // Nothing of this shell: Node reads variables too, NODE_EXTRA_CA_CERTS with a file of certificates for one.
    { stdio: ['ignore', 'ignore', 'inherit'], env: { PATH: '/usr/bin:/bin' } },
  )
  const socket = await firstConnection(child, port)
  const startMs = performance.now() - startedAt
  socket.destroy()
  if (child.pid === undefined) throw new TypeError('a process that answers has a pid')
  const stop = async () => {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
  return { pid: child.pid, port, startMs, stop }
}

/** Tries until the gateway has answered a CONNECT. */
async function firstConnection(child: ChildProcess, port: number): Promise<Socket> {
  const deadline = performance.now() + START_DEADLINE_MS
  for (;;) {
    try {
      return await connectDevice(port, 'first')
    } catch (error) {
      if (child.exitCode !== null) throw new Error(`the gateway ended with status ${child.exitCode}`)
      if (performance.now() > deadline) throw error
      await delay(1)
    }
  }
}

/** CONNECT of MQTT 3.1.1 with a clean session; resolves at CONNACK with return code 0. */
async function connectDevice(port: number, clientId: string): Promise<Socket> {
  const id = Buffer.from(clientId)
  const body = Buffer.concat([
    Buffer.from([0, 4]),
    Buffer.from('MQTT'),
    Buffer.from([4, 2, 0, KEEP_ALIVE_S, 0, id.length]),
    id,
  ])
  const socket = connect({ host: '127.0.0.1', port })
  await once(socket, 'connect')
  socket.write(Buffer.concat([Buffer.from([0x10, body.length]), body]))
  const [answer] = await once(socket, 'data')
  if (answer[0] !== 0x20 || answer[3] !== 0) throw new Error(`CONNECT was answered with ${answer.toString('hex')}`)
  return socket
}

async function connectDevices(port: number, count: number): Promise<Socket[]> {
  const sockets: Socket[] = []
  for (let index = 0; index < count; index++) sockets.push(await connectDevice(port, `device-${index}`))
  return sockets
}

// ---- /proc -------------------------------------------------------------------------------------------------------------

interface Memory {
  readonly rssBytes: number
  readonly anonymousBytes: number
}

function memoryOf(pid: number | 'self'): Memory {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const bytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1]) * 1024
  return { rssBytes: bytes('Rss'), anonymousBytes: bytes('Anonymous') }
}

function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_S
}

/** Bytes handed to the block layer: what wears flash. */
function writtenBytes(pid: number): number {
  return Number(/^write_bytes: (\d+)$/m.exec(readFileSync(`/proc/${pid}/io`, 'utf8'))?.[1])
}

// ---- The measurements --------------------------------------------------------------------------------------------------

async function measureSizes({ withXz }: { withXz: boolean }): Promise<Figure[]> {
  const bars = { x64: 118, arm64: 112 }
  const sizes = ARCHITECTURES.map(architecture => ({
    what: `size, ${architecture}`,
    value: statSync(join(DIST, executableName(architecture))).size / 1e6,
    digits: 1,
    unit: 'MB',
    bar: bars[architecture],
  }))
  if (!withXz) return sizes
  const compressed = await Promise.all(
    ARCHITECTURES.map(async architecture => {
      const { stdout } = await run('sh', [
        '-c',
        'xz -9 --stdout "$1" | wc -c',
        'xz',
        join(DIST, executableName(architecture)),
      ])
      return { what: `size by xz -9, ${architecture}`, value: Number(stdout) / 1e6, digits: 1, unit: 'MB', bar: 28 }
    }),
  )
  return [...sizes, ...compressed]
}

async function measureStart(amqpUrl: string): Promise<Figure[]> {
  const median = (values: number[]) =>
    values.sort((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN
  const again: number[] = []
  const fresh: number[] = []
  await withDirectory(async kept => {
    await (await startGateway(kept, amqpUrl)).stop()
    for (let round = 0; round < STARTS; round++) {
      const gateway = await startGateway(kept, amqpUrl)
      again.push(gateway.startMs)
      await gateway.stop()
      await withDirectory(async directory => {
        const first = await startGateway(directory, amqpUrl)
        fresh.push(first.startMs)
        await first.stop()
      })
    }
  })
  return [
    { what: `start to first CONNACK, median of ${STARTS}`, value: median(again), digits: 0, unit: 'ms', bar: 90 },
    { what: `the same with an empty data directory`, value: median(fresh), digits: 0, unit: 'ms' },
  ]
}

async function measureIdle(amqpUrl: string, idleSeconds: number): Promise<Figure[]> {
  return withDirectory(async directory => {
    const gateway = await startGateway(directory, amqpUrl)
    await delay(SETTLE_MS)
    const idle = memoryOf(gateway.pid)

    const devices = await connectDevices(gateway.port, DEVICES)
    // Spread over the period, as a field of devices does.
    const pings = devices.map((device, index) =>
      delay((index * KEEP_ALIVE_S * 1000) / DEVICES).then(() =>
        setInterval(() => device.write(Buffer.from([0xc0, 0])), KEEP_ALIVE_S * 1000),
      ),
    )
    await delay(CHECKPOINT_MS)
    const before = { cpu: cpuSeconds(gateway.pid), written: writtenBytes(gateway.pid), at: performance.now() }
    await delay(idleSeconds * 1000)
    const seconds = (performance.now() - before.at) / 1000
    const cpuShare = (cpuSeconds(gateway.pid) - before.cpu) / seconds
    const writtenPerMinute = ((writtenBytes(gateway.pid) - before.written) / seconds) * 60
    for (const timer of await Promise.all(pings)) clearInterval(timer)
    for (const device of devices) device.destroy()
    await delay(SETTLE_MS)

    const alone = memoryOf(gateway.pid)
    const crowd = await connectDevices(gateway.port, CONNECTIONS)
    await delay(SETTLE_MS)
    const crowded = memoryOf(gateway.pid)
    for (const device of crowd) device.destroy()
    await gateway.stop()
    return [
      { what: 'RSS, idle', value: idle.rssBytes / 2 ** 20, digits: 1, unit: 'MiB', bar: 80 },
      { what: 'of it anonymous', value: idle.anonymousBytes / 2 ** 20, digits: 1, unit: 'MiB', bar: 30 },
      {
        what: `anonymous memory per idle TCP connection, of ${CONNECTIONS}`,
        value: (crowded.anonymousBytes - alone.anonymousBytes) / CONNECTIONS / 1000,
        digits: 1,
        unit: 'kB',
        bar: 12,
      },
      {
        what: `CPU, ${DEVICES} devices at ${KEEP_ALIVE_S} s keep-alive over ${idleSeconds} s`,
        value: cpuShare * 100,
        digits: 2,
        unit: '% of a core',
        bar: 0.5,
      },
      { what: 'written to disk while nothing happens', value: writtenPerMinute, digits: 0, unit: 'bytes/min', bar: 0 },
    ]
  })
}

interface Share {
  readonly name: string
  readonly bundleBytes: number
}

/** What each package, and our own code, takes of the bundle. */
function bundleShares(): Share[] {
  const { outputs }: Metafile = JSON.parse(readFileSync(join(DIST, METAFILE), 'utf8'))
  const output = Object.values(outputs).find(({ entryPoint }) => entryPoint !== undefined)
  if (output === undefined) throw new TypeError('the metafile names no output')
  const shares = new Map<string, number>()
  for (const [file, { bytesInOutput }] of Object.entries(output.inputs)) {
    const name = /^node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1] ?? '(Sluice)'
    shares.set(name, (shares.get(name) ?? 0) + bytesInOutput)
  }
  return [...shares]
    .map(([name, bundleBytes]) => ({ name, bundleBytes }))
    .sort((one, other) => other.bundleBytes - one.bundleBytes)
}

/** What importing a package alone adds to the memory of Node; `null`: nothing is imported. Median of 5. */
function importedMemory(name: string | null): Memory {
  const script = `${name === null ? '' : `await import(${JSON.stringify(name)});`}
    globalThis.gc(); await new Promise(done => setTimeout(done, 100));
    process.stdout.write((await import('node:fs')).readFileSync('/proc/self/smaps_rollup', 'utf8'))`
  const runs = Array.from({ length: 5 }, () => {
    const rollup = execFileSync(
      process.execPath,
      [...V8_FLAGS, '--expose-gc', '--input-type=module', '--eval', script],
      { cwd: PROJECT, encoding: 'utf8' },
    )
    const bytes = (field: string) => Number(new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(rollup)?.[1]) * 1024
    return { rssBytes: bytes('Rss'), anonymousBytes: bytes('Anonymous') }
  })
  return (
    runs.sort((one, other) => one.anonymousBytes - other.anonymousBytes)[2] ?? {
      rssBytes: Number.NaN,
      anonymousBytes: Number.NaN,
    }
  )
}

/**
 * Drops a file from the page cache. The kernel keeps a file that was just written in larger pieces than one it has read, and maps whole
 * pieces: RSS would show 20 MiB that no installed executable has.
 */
function evict(file: string): void {
  execFileSync('dd', [`of=${file}`, 'oflag=nocache', 'conv=notrunc,fdatasync', 'count=0', 'status=none'])
}

async function withDirectory<T>(use: (directory: string) => Promise<T>): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), 'sluice-footprint-'))
  try {
    return await use(directory)
  } finally {
    await rm(directory, { recursive: true })
  }
}

// ---- The document ------------------------------------------------------------------------------------------------------

function isMissed({ value, digits, bar }: Figure): boolean {
  return bar !== undefined && !(Number(value.toFixed(digits)) <= bar)
}

function figureRow(figure: Figure): string {
  const { what, value, digits, unit, bar } = figure
  return `| ${what} | ${value.toFixed(digits)} ${unit} | ${bar === undefined ? '' : `≤ ${bar} ${unit}`} | ${bar === undefined ? '' : isMissed(figure) ? '**missed**' : 'held'} |`
}

function document(figures: readonly Figure[], shares: readonly Share[]): string {
  const kilobytes = (bytes: number) => (bytes / 1000).toFixed(1)
  const mebibytes = (bytes: number) => (bytes / 2 ** 20).toFixed(1)
  const { dependencies } = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'))
  const floor = importedMemory(null)
  const memoryRows = Object.keys(dependencies)
    .map(name => ({ name, memory: importedMemory(name) }))
    .map(({ name, memory }) => ({
      name,
      rss: memory.rssBytes - floor.rssBytes,
      anonymous: memory.anonymousBytes - floor.anonymousBytes,
    }))
    .sort((one, other) => other.anonymous - one.anonymous)
  return `# What the executable costs

Written by \`npm run footprint\`: Node.js ${process.versions.node}, ${process.platform}-${process.arch}, ${cpus().length} × ${cpus()[0]?.model.trim() ?? 'unknown CPU'}.
The gateway runs with one route to a RabbitMQ that is up; memory is from \`/proc/PID/smaps_rollup\`, CPU from \`/proc/PID/stat\`, disk writes are
\`write_bytes\` of \`/proc/PID/io\`.

| what | measured | bar | |
|---|---|---|---|
${figures.map(figureRow).join('\n')}

Node alone, doing nothing: ${mebibytes(floor.rssBytes)} MiB RSS, of it ${mebibytes(floor.anonymousBytes)} MiB anonymous.

## Share of the bundle

${kilobytes(shares.reduce((sum, share) => sum + share.bundleBytes, 0))} kB in all, not minified.

| package | kB |
|---|---|
${shares.map(({ name, bundleBytes }) => `| ${name} | ${kilobytes(bundleBytes)} |`).join('\n')}

## Memory of each dependency

Added to Node alone when the package is imported whole from node_modules; in the bundle only what is used of it is loaded, and some of it only when needed.

| package | RSS, MiB | of it anonymous, MiB |
|---|---|---|
${memoryRows.map(({ name, rss, anonymous }) => `| ${name} | ${mebibytes(rss)} | ${mebibytes(anonymous)} |`).join('\n')}
`
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    allowNegative: true,
    options: { 'idle-seconds': { type: 'string', default: '130' }, xz: { type: 'boolean', default: true } },
  })
  await run(process.execPath, [join(PROJECT, 'scripts/build-binary.ts'), '--if-needed'], { cwd: PROJECT })
  evict(join(DIST, executableName(process.arch === 'arm64' ? 'arm64' : 'x64')))
  const figures = await withDirectory(async directory => {
    await using rabbit = await startRabbit({ directory })
    return [...(await measureStart(rabbit.url)), ...(await measureIdle(rabbit.url, Number(values['idle-seconds'])))]
  })
  // Last: it heats the machine.
  const sizes = await measureSizes({ withXz: values.xz })
  const text = document([...sizes, ...figures], bundleShares())
  writeFileSync(RESULT, text)
  process.stdout.write(text)
  if ([...sizes, ...figures].some(isMissed)) process.exitCode = 1
}

await main()
