import { readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { freePort } from '../../scripts/free-port.ts'
import { clientList, overview, queueList, routeList, upstreamList } from '../../src/api/contract.ts'
import { eventually } from '../support/eventually.ts'
import { type GatewayProcess, startGatewayProcess } from '../support/gateway-process.ts'
import { runSluice } from '../support/run-sluice.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const SLUICE = `${import.meta.dirname}/../../scripts/sluice`

let directory: TempDir
let gateway: GatewayProcess

beforeAll(async () => {
  directory = await tempDir()
  gateway = await startGatewayProcess({
    command: [SLUICE],
    directory: directory.path,
    config: `upstreams: { central: { urls: [ "amqp://127.0.0.1:${await freePort()}" ] } }
routes: { telemetry: { from: [ "sensors/#" ], upstream: central, exchange: { name: telemetry } } }`,
  })
})
afterAll(async () => {
  await gateway.stop()
  await directory.remove()
})

const sluice = (...args: readonly string[]) => runSluice(args, { env: { SLUICE_URL: gateway.httpUrl } })
const mqtt = (...args: readonly string[]) => runSluice([...args, '--url', gateway.mqttUrl])

async function json(...args: readonly string[]): Promise<unknown> {
  const { status, stdout, stderr } = await sluice(...args, '--json')
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
  return JSON.parse(stdout)
}

describe('a running gateway', () => {
  test('takes what `sluice pub` sends and shows where it waits', async () => {
    const depth = async () => queueList.parse(await json('queues'))[0]?.depth ?? 0
    const before = await depth()
    expect(await mqtt('pub', '-t', 'sensors/1', '-m', '21.5', '-q', '1', '--repeat', '5')).toMatchObject({
      status: 0,
      stderr: '',
    })
    expect(await depth()).toBe(before + 5)
    const list = await sluice('queues')
    expect(list.stdout).toMatch(/^QUEUE +DEPTH +IN FLIGHT +BYTES +OLDEST +FORECAST +SETTLED +DROPPED\ntelemetry +\d+ /)
    const shown = await sluice('queues', 'show', 'telemetry')
    expect(shown.stdout).toMatch(/^accepted +\d+$/m)
    expect(shown.stdout).toMatch(/^limits +1000000 messages, 2\.0 GiB, age 7d, when full reject$/m)
  })

  test('is one screen of 80 columns', async () => {
    const { status, stdout } = await sluice('status')
    expect(status).toBe(0)
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80)
    for (const part of [
      /^gateway +\S+, sluice \d/m,
      /^health +degraded$/m,
      /^! upstream central: /m,
      /^central +waiting|^central +connecting/m,
      /^telemetry +\d+ /m,
    ]) {
      expect(stdout).toMatch(part)
    }
  })

  test('tells programs the same as JSON in the form of the contract', async () => {
    overview.parse(await json('status'))
    clientList.parse(await json('clients'))
    queueList.parse(await json('queues', 'ls'))
    expect(routeList.parse(await json('routes'))).toMatchObject([{ name: 'telemetry', exchange: 'telemetry' }])
    expect(upstreamList.parse(await json('upstreams'))).toMatchObject([{ name: 'central' }])
  })

  test('shows and disconnects a client', async () => {
    const subscribing = mqtt('sub', '-t', 'commands/#', '-i', 'valve-7')
    await eventually(async () =>
      clientList.parse(await json('clients')).some(({ id, subscriptions }) => id === 'valve-7' && subscriptions === 1),
    )
    expect((await sluice('clients')).stdout).toMatch(/^valve-7 +mqtt 5(?:\.0)? +127\.0\.0\.1:\d+ /m)
    expect((await sluice('clients', 'show', 'valve-7')).stdout).toMatch(/^subscribed +commands\/# at QoS 0$/m)
    expect(await sluice('clients', 'kick', 'valve-7')).toEqual({
      status: 0,
      stdout: 'valve-7 is disconnected\n',
      stderr: '',
    })
    const { status, stderr } = await subscribing
    expect(status).toBe(1)
    expect(stderr).toMatch(/^sluice: The broker (?:ended the session|closed the connection)/)
    const again = await sluice('clients', 'kick', 'valve-7')
    expect(again).toEqual({ status: 1, stdout: '', stderr: 'sluice: No client with the id "valve-7" is connected.\n' })
  })

  test('shows, replays and deletes a stream, and deletes a queue, but neither without being told twice', async () => {
    const file = join(directory.path, 'declared.json')
    const policy = { dead_letter: { exchange: 'mqtt', routing_key: 'copies/dead' } }
    const bindings = [{ origin: 'api', source: 'mqtt', destination: 'history', routing_key: 'logs/#' }]
    const streams = [{ origin: 'api', name: 'history', retain: { age_ms: 3_600_000, bytes: 2 ** 20 } }]
    await writeFile(
      file,
      JSON.stringify({ format: 1, queues: [{ origin: 'api', name: 'copies', ...policy }], streams, bindings }),
    )
    expect(await sluice('import', file)).toMatchObject({ status: 0, stderr: '' })
    expect(await mqtt('pub', '-t', 'logs/1', '-m', 'line', '-q', '1', '--repeat', '3')).toMatchObject({ status: 0 })
    const stream = await sluice('stream', 'show', 'history')
    expect(stream.stdout).toMatch(/^messages +3, .*, numbers 0 to 3$/m)
    expect(stream.stdout).toMatch(/^kept +for 1h, up to 1\.0 MiB$/m)
    const replay = await sluice('stream', 'replay', 'history', '--to', ':copies', '--from', '1')
    expect(replay).toEqual({ status: 0, stdout: '2 messages of history replayed\n', stderr: '' })
    expect(await json('stream', 'replay', 'history', '--to', ':copies', '--limit', '1')).toMatchObject({ replayed: 1 })
    const held = await sluice('stream', 'replay', 'history', '--to', ':nowhere')
    expect(held).toMatchObject({ status: 1, stderr: expect.stringContaining('a queue is full or missing') })
    expect((await sluice('queues', 'show', 'copies')).stdout).toMatch(
      /^dead letters +to exchange mqtt, key copies\/dead$/m,
    )
    for (const [kind, name] of [
      ['stream', 'history'],
      ['queues', 'copies'],
    ] as const) {
      expect(await sluice(kind, 'delete', name)).toMatchObject({
        status: 2,
        stderr: expect.stringMatching(
          new RegExp(`3 messages \\(\\d+ B\\) of ${name} would be lost; nothing was deleted, add --yes`),
        ),
      })
      expect(await sluice(kind, 'delete', name, '--yes')).toEqual({
        status: 0,
        stdout: `${name} is deleted\n`,
        stderr: '',
      })
      expect(await sluice(kind, 'show', name)).toMatchObject({ status: 1, stdout: '' })
    }
    const configured = await sluice('queues', 'delete', 'telemetry', '--yes')
    expect(configured).toMatchObject({ status: 1, stderr: expect.stringContaining('comes from the configuration') })
  })

  test('pauses and resumes an upstream', async () => {
    expect((await sluice('upstreams', 'pause', 'central')).stdout).toBe('central is paused\n')
    expect((await sluice('upstreams')).stdout).toMatch(/^central +paused /m)
    expect((await sluice('upstreams', 'resume', 'central')).stdout).toMatch(/^central is (?:connecting|waiting)\n$/)
    expect((await sluice('upstreams', 'pause', 'nobody')).stderr).toBe('sluice: There is no upstream "nobody".\n')
  })

  test('carries messages from `sluice pub` to `sluice sub`', async () => {
    for (const [version, qos] of [
      ['3.1', '1'],
      ['3.1.1', '2'],
      ['5', '2'],
    ] as const) {
      const subscribing = mqtt(
        'sub',
        '-t',
        'chat/+',
        '-v',
        '-q',
        qos,
        '-C',
        '2',
        '-W',
        '30',
        '-i',
        `chat-${version}`,
        '-V',
        version,
      )
      await eventually(async () =>
        clientList
          .parse(await json('clients'))
          .some(({ id, subscriptions }) => id === `chat-${version}` && subscriptions === 1),
      )
      expect((await mqtt('pub', '-t', 'chat/a', '-m', 'hello', '-q', qos, '-V', version)).status).toBe(0)
      expect((await mqtt('pub', '-t', 'chat/b', '-n', '-V', version)).status).toBe(0)
      expect(await subscribing).toEqual({ status: 0, stdout: 'chat/a hello\nchat/b \n', stderr: '' })
    }
  })
})

function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch {
    // ESRCH: it is gone.
    return false
  }
}

describe('sluice run', () => {
  test('reads its configuration again on SIGHUP, and says what takes a restart and what is wrong', async () => {
    const file = join(directory.path, 'sluice.yaml')
    const before = await readFile(file, 'utf8')
    const hangUp = async (text: string, answer: RegExp): Promise<void> => {
      const heard = gateway.output().length
      await writeFile(file, text)
      process.kill(gateway.pid, 'SIGHUP')
      await eventually(() => answer.test(gateway.output().slice(heard)), { what: String(answer) })
    }
    const publishing = () => mqtt('pub', '-t', 'other', '-m', 'x', '-q', '1', '-V', '5')
    const rules = 'auth: { acl: [ { user: "*", publish: [ "sensors/#" ] } ] }'
    await hangUp(
      `${before}\n${rules}\nstore: { disk: 4GiB }`,
      /"applied":\["auth\.acl"\].*restart to apply: store\.disk"/s,
    )
    expect(await publishing()).toMatchObject({ status: 1, stderr: expect.stringContaining('not allowed') })
    await hangUp('bogus: 1', /"code":"CONFIG_INVALID".*nothing changes: .*unknown key \\"bogus\\"/s)
    expect(await publishing()).toMatchObject({ status: 1 })
    await hangUp(before, /"applied":\["auth\.acl"\]/)
    expect(await publishing()).toMatchObject({ status: 0 })
  })

  test('stops on SIGTERM with status 0, having said so', async () => {
    await using own = await tempDir()
    const running = await startGatewayProcess({ command: [SLUICE], directory: own.path })
    expect(await running.stop()).toBe(0)
    const lines = running
      .output()
      .trim()
      .split('\n')
      .map(line => JSON.parse(line))
    expect(lines.map(line => line.msg).slice(-2)).toEqual(['stopping', 'stopped'])
  })

  test('SIGINT is the same', async () => {
    await using own = await tempDir()
    await using running = await startGatewayProcess({ command: [SLUICE], directory: own.path })
    process.kill(running.pid, 'SIGINT')
    await eventually(() => !isRunning(running.pid))
    expect(running.output()).toContain('"msg":"stopped"')
    expect(await running.stop()).toBe(0)
  })

  test.each([
    ['listeners.mqtt.port', 'http.port'],
    ['http.port', 'listeners.mqtt.port'],
  ])('with %s in use ends with status 1 and one line that says so', async (taken, free) => {
    await using own = await tempDir()
    const other = createServer()
    await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve))
    const address = other.address()
    if (address === null || typeof address === 'string') throw new TypeError('a TCP listener has a port')
    const { status, stderr } = await runSluice([
      'run',
      '--data',
      own.path,
      '--set',
      `${taken}=${address.port}`,
      '--set',
      `${free}=0`,
    ])
    other.close()
    expect(status).toBe(1)
    expect(stderr).toMatch(new RegExp(`^sluice: .*${address.port}.* in use.*\n$`))
    expect(stderr).toContain(taken)
  })

  test('with the data directory of a running gateway ends with status 1 and one line', async () => {
    const { status, stderr } = await runSluice([
      'run',
      '--data',
      `${directory.path}/data`,
      '--set',
      'listeners.mqtt.port=0',
      '--set',
      'http.port=0',
    ])
    expect(status).toBe(1)
    expect(stderr).toMatch(/^sluice: .*in use by another.*\n$/i)
  })

  test('with a data directory that cannot be made ends with status 1 and one line', async () => {
    const { status, stderr } = await runSluice([
      'run',
      '--data',
      '/proc/sluice',
      '--set',
      'listeners.mqtt.port=0',
      '--set',
      'http.port=0',
    ])
    expect(status).toBe(1)
    expect(stderr).toMatch(/^sluice: .*\/proc\/sluice.*\n$/)
  })
})
