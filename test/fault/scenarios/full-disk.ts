import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { startVerifier } from '../../../firmware-sim/verifier.ts'
import { startRabbit } from '../../../scripts/peers.ts'
import { TcpProxy } from '../../../scripts/tcp-proxy.ts'
import { eventually } from '../../support/eventually.ts'
import { mounted, outputUnder } from '../../support/mount-namespace.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { forwarding, Gateway, imbalance } from '../support/gateway.ts'
import { LoadClient } from '../support/load-client.ts'
import { faultsOf } from '../support/report.ts'

export interface FullDiskFigures {
  /** A tmpfs, or where none can be mounted the limit store.disk. */
  readonly disk: 'tmpfs' | 'store.disk'
  /** From the first refused publish of an MQTT 3.1.1 client to the end of its connection. */
  readonly heldMs: number
  readonly acknowledged: number
}

const MEBIBYTE = 1024 ** 2
const DISK_MEBIBYTES = 192
const FLOOR_MEBIBYTES = 64
/** What somebody else keeps on the same disk at first. */
const FOREIGN_MEBIBYTES = 80
const REFUSE_DISCONNECT_AFTER_MS = 1_000
const PAYLOAD_BYTES = 2048
const QUOTA_EXCEEDED = 0x97

/**
 * The disk of a gateway without upstream runs full, twice: up to the floor by what it keeps itself, and to the last byte by what
 * somebody else writes. Publishers are refused before the acknowledgement, and when there is room again it goes on by itself.
 */
export async function fullDisk({ say }: { say: (line: string) => void }): Promise<FullDiskFigures> {
  await using directory = await tempDir()
  await using rabbit = await startRabbit({ directory: join(directory.path, 'rabbitmq') })
  await using proxy = await TcpProxy.start({ port: rabbit.port })
  proxy.refuse()
  const verifier = await startVerifier({
    url: rabbit.url,
    queue: { name: 'arrivals' },
    exchange: { name: 'telemetry', type: 'topic' },
  })
  await using stack = new AsyncDisposableStack()
  stack.defer(() => verifier.stop())

  const gatewayDirectory = join(directory.path, 'gateway')
  const dataDirectory = join(gatewayDirectory, 'data')
  await mkdir(dataDirectory, { recursive: true })
  const tmpfs = { directory: dataDirectory, options: `size=${DISK_MEBIBYTES}m` }
  const disk = await outputUnder([tmpfs], ['true']).then(
    () => 'tmpfs' as const,
    () => 'store.disk' as const,
  )
  if (disk === 'store.disk') say('no tmpfs can be mounted here: the limit store.disk stands in for a full disk')
  const forwards = forwarding(`amqp://guest:guest@127.0.0.1:${proxy.port}`, {
    upstream: { reconnect: { first: '2s', max: '5s' } },
  })
  const limits = { refuse_disconnect_after: `${REFUSE_DISCONNECT_AFTER_MS}ms` }
  await using gateway = await Gateway.start(
    disk === 'tmpfs'
      ? {
          directory: gatewayDirectory,
          config: { ...forwards, limits, store: { disk_free_min: `${FLOOR_MEBIBYTES}MiB` } },
          wrap: command => mounted([tmpfs], command),
        }
      : {
          directory: gatewayDirectory,
          config: { ...forwards, limits, store: { disk: `${DISK_MEBIBYTES - FLOOR_MEBIBYTES}MiB` } },
        },
  )
  const { pid } = gateway
  // The mount is the gateway's alone; this is the way into it.
  const foreign = join(disk === 'tmpfs' ? `/proc/${pid}/root` : '/', dataDirectory, 'foreign')
  await writeZeros(foreign, FOREIGN_MEBIBYTES * MEBIBYTE)

  const modern = await LoadClient.connect({
    id: 'modern',
    port: gateway.mqttPort,
    version: 5,
    window: 10,
    payloadBytes: PAYLOAD_BYTES,
  })
  const plain = await LoadClient.connect({
    id: 'plain',
    port: gateway.mqttPort,
    window: 10,
    payloadBytes: PAYLOAD_BYTES,
  })
  await plain.publish(100)
  assert.equal((await gateway.ready()).status, 200)

  while (modern.refusals.length === 0) await modern.publish(100)
  assert.deepEqual(new Set(modern.refusals), new Set([QUOTA_EXCEEDED]))
  say(`up to the floor: ${modern.ledger.acknowledged} acknowledged, then 0x97`)
  await assertUnavailable(gateway)
  const heldSinceMs = performance.now()
  await assert.rejects(plain.publish(1), /closed/)
  const heldMs = performance.now() - heldSinceMs
  assert.equal(plain.ledger.acknowledged, 100, 'a refused publish of MQTT 3.1.1 was acknowledged')

  await rm(foreign)
  await worksAgain(gateway, modern, plain)

  if (disk === 'tmpfs') {
    await writeZeros(foreign, Number.POSITIVE_INFINITY)
    say('to the last byte: written full by somebody else')
    let isFull = true
    const publishing = Promise.allSettled([publishWhile(modern, () => isFull), publishWhile(plain, () => isFull)])
    await eventually(async () => (await gateway.ready()).status === 503, { what: 'a gateway that refuses' })
    isFull = false
    await rm(foreign)
    await publishing
    await worksAgain(gateway, modern, plain)
  }
  assert.equal(gateway.pid, pid)

  proxy.heal()
  const ledgers = [modern.ledger.snapshot(), plain.ledger.snapshot()]
  const isComplete = await verifier.complete(ledgers, 120_000)
  const report = verifier.verify(ledgers)
  say(`acknowledged ${report.acknowledged}, arrived ${report.received}, lost ${report.lost}`)
  assert.ok(isComplete && report.isFaultless, faultsOf(report))
  const outbox = await eventually(
    async () => {
      const queue = await gateway.queue('telemetry')
      return queue.depth === 0 && queue
    },
    { what: 'an empty outbox' },
  )
  assert.equal(imbalance(outbox), 0, `the ledger is off: ${JSON.stringify(outbox.ledger)}`)
  await Promise.all([modern.close(), plain.close()])
  assert.equal(await gateway.stop(), 0, gateway.output)
  return { disk, heldMs, acknowledged: report.acknowledged }
}

/**
 * A gateway dies, and when it is started again somebody else has written the disk full to the last byte. It starts, refuses, and goes
 * on when there is room. Null where no tmpfs can be mounted.
 */
export async function startOnFullDisk(): Promise<{ readonly kept: number } | null> {
  await using directory = await tempDir()
  const gatewayDirectory = join(directory.path, 'gateway')
  const dataDirectory = join(gatewayDirectory, 'data')
  await mkdir(dataDirectory, { recursive: true })
  const tmpfs = { directory: dataDirectory, options: 'size=48m' }
  // Holds the mount while the gateway is down, until its input ends.
  const { program, args } = mounted([tmpfs], ['sh', '-c', 'echo mounted; exec cat'])
  const holder = spawn(program, args, { stdio: ['pipe', 'pipe', 'ignore'] })
  const ended = once(holder, 'close')
  const isMounted = await Promise.race([once(holder.stdout, 'data').then(() => true), ended.then(() => false)])
  if (!isMounted) return null
  await using stack = new AsyncDisposableStack()
  stack.defer(async () => {
    holder.stdin.end()
    await ended
  })
  await using gateway = await Gateway.start({
    directory: gatewayDirectory,
    config: { ...forwarding('amqp://127.0.0.1:1'), store: { disk_free_min: '16MiB' } },
    wrap: command => ({
      program: 'nsenter',
      args: ['--target', String(holder.pid), '--user', '--mount', '--preserve-credentials', ...command],
    }),
  })
  const client = await LoadClient.connect({ id: 'steady', port: gateway.mqttPort, version: 5 })
  await client.publish(2_000)
  assert.equal(client.refusals.length, 0)
  await gateway.kill()

  const foreign = join(`/proc/${holder.pid}/root`, dataDirectory, 'foreign')
  await writeZeros(foreign, Number.POSITIVE_INFINITY)
  await gateway.start()
  await assertUnavailable(gateway)
  await client.connect(gateway.mqttPort)
  await client.publish(10)
  assert.deepEqual(new Set(client.refusals), new Set([QUOTA_EXCEEDED]))
  await rm(foreign)
  const refused = client.refusals.length
  await eventually(async () => (await gateway.ready()).status === 200, { deadlineMs: 20_000 })
  await client.publish(1_000)
  assert.equal(client.refusals.length, refused, 'refused with room on the disk')
  const outbox = await gateway.queue('telemetry')
  assert.equal(imbalance(outbox), 0, `the ledger is off: ${JSON.stringify(outbox.ledger)}`)
  assert.equal(await gateway.stop(), 0, gateway.output)
  return { kept: outbox.depth }
}

async function assertUnavailable(gateway: Gateway): Promise<void> {
  const { status, health } = await gateway.ready()
  assert.equal(status, 503)
  assert.equal(health.status, 'unavailable')
  assert.match(health.reasons.join('\n'), /disk: nearly full/)
}

/** Room was made: publishes are taken again by the same process. */
async function worksAgain(gateway: Gateway, modern: LoadClient, plain: LoadClient): Promise<void> {
  await eventually(async () => (await gateway.ready()).status === 200, { deadlineMs: 20_000 }).catch(async error => {
    const { health } = await gateway.ready()
    throw new Error(`with room on the disk: ${JSON.stringify(health)}; its log: ${gateway.output}`, { cause: error })
  })
  for (const client of [modern, plain]) if (!client.isConnected) await client.connect(gateway.mqttPort)
  const refused = modern.refusals.length
  const before = plain.ledger.acknowledged
  await Promise.all([modern.publish(100), plain.publish(100)])
  assert.equal(modern.refusals.length, refused, 'refused with room on the disk')
  assert.equal(plain.ledger.acknowledged, before + 100)
}

async function publishWhile(client: LoadClient, condition: () => boolean): Promise<void> {
  while (condition()) await client.publish(10)
}

/** Writes up to so many bytes, or as many as the disk takes. */
async function writeZeros(path: string, bytes: number): Promise<void> {
  const file = await open(path, 'w')
  // Ever smaller pieces, so that nothing is left.
  let piece = MEBIBYTE
  try {
    for (let written = 0; written < bytes && piece >= 1; ) {
      try {
        written += (await file.write(Buffer.alloc(Math.min(piece, bytes - written)))).bytesWritten
      } catch (error) {
        if (!isNoSpace(error)) throw error
        piece = Math.floor(piece / 2)
      }
    }
  } finally {
    await file.close()
  }
}

function isNoSpace(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOSPC'
}
