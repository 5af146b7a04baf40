import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, writeFile } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { startVerifier } from '../../firmware-sim/verifier.ts'
import { startRabbit } from '../../scripts/peers.ts'
import { eventually } from '../support/eventually.ts'
import { mounted, outputUnder } from '../support/mount-namespace.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'
import { forwarding, Gateway, imbalance, SLUICE } from './support/gateway.ts'
import { LoadClient } from './support/load-client.ts'

/** Nobody, on Debian. */
const OTHER_UID = 65_534

interface Outcome {
  readonly status: unknown
  readonly stdout: string
  readonly stderr: string
}

let directory: TempDir

beforeEach(async () => {
  directory = await tempDir()
})

afterEach(() => directory.remove())

/** Runs a gateway that is expected to end by itself. */
async function runs(
  config: string,
  wrap: (command: readonly string[]) => readonly string[] = command => command,
): Promise<Outcome> {
  const file = join(directory.path, 'sluice.yaml')
  await writeFile(file, config)
  const [program = '', ...args] = wrap([SLUICE, 'run', '--config', file])
  const child = spawn(program, args, { cwd: directory.path, stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000 })
  const [stdout, stderr, [status]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  return { status, stdout, stderr }
}

function configured({ data = join(directory.path, 'data'), mqtt = 0, http = 0, gateway = {} } = {}): string {
  return JSON.stringify({ gateway, data_dir: data, listeners: { mqtt: { port: mqtt } }, http: { port: http } })
}

/** Status 1, and on standard error one line that says what, why and what to do. */
function expectOneLine({ status, stderr }: Outcome, line: RegExp): void {
  expect(stderr).toMatch(line)
  expect(stderr).toMatch(/^sluice: [^\n]+\n$/)
  expect(status).toBe(1)
}

describe('a gateway that cannot start says why in one line and ends with status 1', () => {
  test('a wrong configuration', { timeout: 60_000 }, async () => {
    expectOneLine(
      await runs('listeners:\n  mqtt: { prot: 1883 }\n'),
      /sluice\.yaml:2:11: listeners\.mqtt\.prot.*did you mean "port"/,
    )
    expectOneLine(await runs('limits: { clients: many }\n'), /limits\.clients/)
    expectOneLine(await runs('upstreams: [\n'), /sluice\.yaml/)
  })

  test.each(['mqtt', 'http'] as const)('the %s port in use', { timeout: 60_000 }, async listener => {
    const occupant = createServer().listen({ port: 0, host: '127.0.0.1' })
    await once(occupant, 'listening')
    const { port } = occupant.address() as AddressInfo
    const outcome = await runs(configured({ [listener]: port }))
    occupant.close()
    expectOneLine(outcome, new RegExp(`127\\.0\\.0\\.1.*in use.*${listener}\\.port`))
  })

  test('the data directory in use by another gateway, which goes on undisturbed', { timeout: 60_000 }, async () => {
    await using other = await Gateway.start({
      directory: join(directory.path, 'other'),
      config: forwarding('amqp://127.0.0.1:1'),
    })
    const client = await LoadClient.connect({ id: 'steady', port: other.mqttPort })
    await client.publish(100)
    expectOneLine(await runs(configured({ data: other.dataDirectory })), new RegExp(`${other.dataDirectory} is in use`))
    await client.publish(100)
    await client.close()
    const outbox = await other.queue('telemetry')
    expect(outbox.depth).toBe(200)
    expect(imbalance(outbox)).toBe(0)
    expect(await other.stop()).toBe(0)
  })

  test('a data directory that belongs to somebody else', { timeout: 60_000 }, async () => {
    const data = join(directory.path, 'data')
    await mkdir(data)
    await chmod(data, 0o555)
    await chmod(directory.path, 0o755)
    // Root may write anywhere, so it becomes nobody.
    const wrap = (command: readonly string[]) =>
      process.getuid?.() === 0
        ? ['setpriv', `--reuid=${OTHER_UID}`, `--regid=${OTHER_UID}`, '--clear-groups', ...command]
        : command
    for (const gateway of [{}, { id: 'named' }]) {
      expectOneLine(await runs(configured({ data, gateway }), wrap), new RegExp(`${data}.*permission denied`))
    }
  })

  test('a data directory on a disk that is mounted read-only', { timeout: 60_000 }, async ({ skip }) => {
    const data = join(directory.path, 'data')
    await mkdir(data)
    const mount = { directory: data, options: 'ro' }
    const canMount = await outputUnder([mount], ['true']).then(
      () => true,
      () => false,
    )
    if (!canMount) skip('nothing can be mounted here')
    const wrap = (command: readonly string[]) => {
      const { program, args } = mounted([mount], command)
      return [program, ...args]
    }
    for (const gateway of [{}, { id: 'named' }]) {
      expectOneLine(await runs(configured({ data, gateway }), wrap), new RegExp(`${data}.*read-only`))
    }
  })
})

test('an upstream that refuses the password: the gateway runs, says so, keeps everything, and forwards it once the password is right', {
  timeout: 180_000,
}, async () => {
  await using rabbit = await startRabbit({ directory: join(directory.path, 'rabbitmq') })
  const verifier = await startVerifier({
    url: rabbit.url,
    queue: { name: 'arrivals' },
    exchange: { name: 'telemetry', type: 'topic' },
  })
  await using stack = new AsyncDisposableStack()
  stack.defer(() => verifier.stop())
  await rabbit.ctl(['add_user', 'gateway', 'right'])
  await rabbit.ctl(['set_permissions', 'gateway', '.*', '.*', '.*'])
  await using gateway = await Gateway.start({
    directory: join(directory.path, 'gateway'),
    config: forwarding(`amqp://gateway:wrong@127.0.0.1:${rabbit.port}`, {
      upstream: { reconnect: { first: '100ms', max: '500ms' } },
    }),
  })
  const client = await LoadClient.connect({ id: 'patient', port: gateway.mqttPort })
  await client.publish(500)
  await gateway.reaches('waiting')
  const { cause } = await gateway.upstream()
  expect(cause).toMatch(/password|user|refused/i)
  expect(cause).not.toContain('wrong')
  expect(gateway.output).toContain('"code":"UPSTREAM_REFUSED"')
  expect(gateway.output).not.toContain(':wrong@')
  const { status, health } = await gateway.ready()
  expect(status).toBe(200)
  expect(health.status).toBe('degraded')
  expect((await gateway.queue('telemetry')).depth).toBe(500)

  await rabbit.ctl(['change_password', 'gateway', 'wrong'])
  await gateway.reaches('forwarding')
  expect(await verifier.complete([client.ledger.snapshot()], 30_000)).toBe(true)
  expect(verifier.verify([client.ledger.snapshot()]).isFaultless).toBe(true)
  await eventually(async () => (await gateway.queue('telemetry')).depth === 0)
  await client.close()
  expect(await gateway.stop()).toBe(0)
})
