/*
 * V8's code cache for the executable: the functions that are called while a gateway starts, answers a device and stops. The others are compiled
 * when they are called, as ever.
 *
 * The cache of a gateway that ran would never come out twice the same: V8 numbers functions in the order they are first called in, and leaves a few
 * bytes of each as it found them in memory. So one process tells which functions were called, which is always the same, and another
 * does nothing but compile these, one after the other.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from './free-port.ts'

const RUNS_AT_MOST = 5
const START_DEADLINE_MS = 30_000
const RETRY_MS = 5
/** What a refused connection to the upstream sets off is over by then. */
const SETTLE_MS = 100

/** Of MQTT 3.1.1: a clean session of the client `a`. */
const CONNECT = Buffer.from('100d00044d5154540402003c000161', 'hex')
const DISCONNECT = Buffer.from('e000', 'hex')

/**
 * Writes `code-cache` into a directory that holds the other assets for this machine's architecture. Rejects when it can't be made twice the
 * same.
 */
export async function makeCodeCache(directory: string, v8Flags: readonly string[]): Promise<void> {
  let before: Buffer | null = null
  for (let run = 0; run < RUNS_AT_MOST; run++) {
    writeFileSync(join(directory, 'called.json'), JSON.stringify(await calledFunctions(directory)))
    // The order of the cache follows V8's hash seed, and a few of its bytes what V8's other threads did meanwhile. The executable takes a cache
    // made with these two flags though it runs without them.
    const flags = [...v8Flags, '--random-seed=1', '--predictable']
    // Nothing of this machine: a variable could change what runs.
    execFileSync(process.execPath, [...flags, script('compile-functions.ts'), directory], { env: {}, stdio: 'pipe' })
    const cache = readFileSync(join(directory, 'code-cache'))
    if (before?.equals(cache)) return
    before = cache
  }
  throw new Error(`V8's code cache came out differently in each of ${RUNS_AT_MOST} runs`)
}

/** Where in the bundle the functions begin that two starts call, with an empty data directory and with the one that left; ascending. */
async function calledFunctions(directory: string): Promise<number[]> {
  const dataDirectory = join(directory, 'sample')
  const called = new Set<number>()
  for (let start = 0; start < 2; start++) {
    await runGateway(directory, dataDirectory)
    for (const offset of JSON.parse(readFileSync(join(directory, 'called.json'), 'utf8'))) called.add(offset)
  }
  rmSync(dataDirectory, { recursive: true })
  return [...called].sort((one, other) => one - other)
}

/** A gateway as it is mostly used, until a device has been answered and has left. */
async function runGateway(directory: string, dataDirectory: string): Promise<void> {
  const port = await freePort()
  const file = join(directory, 'sample.yaml')
  writeFileSync(
    file,
    `
gateway: { id: sample }
data_dir: ${dataDirectory}
listeners:
  mqtt: { host: 127.0.0.1, port: ${port} }
http: { host: 127.0.0.1, port: ${await freePort()} }
store: { disk_free_min: 1MiB }
limits:
  clients: 100
  memory: 32MiB
upstreams:
  central:
    urls: [ "amqp://guest:guest@127.0.0.1:${await freePort()}" ]
    reconnect: { first: 1m, max: 1m }
routes:
  all:
    from: [ "sensors/#" ]
    upstream: central
    exchange: { name: all, type: topic, declare: true }
    limits: { age: 7d }
clock: { trust: never }
log: { level: info }
`,
  )
  const args = [script('called-functions.ts'), directory, 'run', '--config', file]
  const gateway = spawn(process.execPath, args, { env: {}, stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = once(gateway, 'exit')
  try {
    const device = await connectDevice(port)
    device.write(CONNECT)
    await once(device, 'data')
    device.write(DISCONNECT)
    await once(device, 'close')
    await delay(SETTLE_MS)
  } finally {
    gateway.kill('SIGTERM')
  }
  const [status] = await ended
  if (status !== 0) throw new Error(`the gateway that shows what a start calls ended with status ${status}`)
}

async function connectDevice(port: number): Promise<Socket> {
  const deadline = performance.now() + START_DEADLINE_MS
  for (;;) {
    const socket = connect({ host: '127.0.0.1', port })
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      if (performance.now() > deadline) throw error
      await delay(RETRY_MS)
    }
  }
}

function script(name: string): string {
  return join(import.meta.dirname, name)
}
