import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { connectAsync } from 'mqtt'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type RabbitPeer, startRabbit } from '../../scripts/peers.ts'
import { eventuallyPasses } from '../support/eventually.ts'
import { BARE_ENVIRONMENT, BUILD_COMMIT, BUILD_DEADLINE_MS, placeExecutable } from '../support/executable.ts'
import { type GatewayProcess, startGatewayProcess } from '../support/gateway-process.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const COMMANDS = resolve(import.meta.dirname, '../../src/cli/commands')
const SOURCES = resolve(import.meta.dirname, '../../src/main.ts')
const TEST_DEADLINE_MS = 60_000

interface Outcome {
  readonly status: unknown
  readonly stdout: string
  readonly stderr: string
}

let place: TempDir
let executable: string
let rabbitPlace: TempDir
let rabbit: RabbitPeer
let work: TempDir
let gateway: GatewayProcess

beforeAll(async () => {
  place = await tempDir()
  executable = await placeExecutable(place.path)
  rabbitPlace = await tempDir()
  rabbit = await startRabbit({ directory: rabbitPlace.path })
  work = await tempDir()
  await writeFile(usersFile(), '')
  gateway = await startGatewayProcess({
    command: [executable],
    directory: work.path,
    config: route(),
    environment: BARE_ENVIRONMENT,
  })
}, BUILD_DEADLINE_MS)

afterAll(async () => {
  await gateway?.stop()
  await rabbit?.stop()
  for (const directory of [work, rabbitPlace, place]) await directory?.remove()
})

function route(): string {
  return [
    `auth: { users_file: ${usersFile()} }`,
    `upstreams: { central: { urls: [ "${rabbit.url}" ] } }`,
    'routes: { all: { from: [ "sensors/#" ], upstream: central, exchange: { name: all } } }',
    'streams: { history: { bind: [ "tried/stream" ] } }',
  ].join('\n')
}

const usersFile = (): string => join(work.path, 'users.yaml')

function execute(
  program: string,
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  input = '',
): Promise<Outcome> {
  return new Promise(done => {
    const child = execFile(program, args, { env: environment, cwd: work.path }, (error, stdout, stderr) =>
      done({ status: error === null ? 0 : error.code, stdout, stderr }),
    )
    child.stdin?.end(input)
  })
}

function sluice(...args: string[]): Promise<Outcome> {
  return execute(executable, args, BARE_ENVIRONMENT)
}

/** Runs a command that must succeed and gives the JSON it printed. */
async function sluiceJson(...args: string[]): Promise<unknown> {
  const { status, stdout, stderr } = await sluice(...args, '--url', gateway.httpUrl, '--json')
  expect(stderr).toBe('')
  expect(status).toBe(0)
  return JSON.parse(stdout)
}

/** What each command does, tried in the executable. */
const TRIALS: Readonly<Record<string, () => Promise<void>>> = {
  async run() {
    await using directory = await tempDir()
    await using other = await startGatewayProcess({
      command: [executable],
      directory: directory.path,
      environment: BARE_ENVIRONMENT,
    })
    expect(await other.stop()).toBe(0)
  },
  async check() {
    const valid = join(work.path, 'valid.yaml')
    await writeFile(valid, 'listeners: { mqtt: { port: 1883 } }\n')
    expect(await sluice('check', valid)).toMatchObject({ status: 0, stderr: '' })
    const wrong = join(work.path, 'wrong.yaml')
    await writeFile(wrong, 'listners: {}\nlimits: { clients: many }\n')
    const { status, stderr } = await sluice('check', wrong)
    expect(status).toBe(1)
    expect(stderr).toMatch(/listners.*listeners/s)
    expect(stderr).toMatch(/limits\.clients/)
  },
  async status() {
    expect(await sluiceJson('status')).toMatchObject({})
  },
  async clients() {
    const client = await connectAsync(gateway.mqttUrl, { clientId: 'seen', reconnectPeriod: 0 })
    expect(await sluiceJson('clients', 'ls')).toMatchObject([{ id: 'seen' }])
    expect(await sluiceJson('clients', 'show', 'seen')).toMatchObject({ id: 'seen' })
    await sluiceJson('clients', 'kick', 'seen')
    await eventuallyPasses(() => expect(client.connected).toBe(false))
    await client.endAsync()
    const kept = { clientId: 'kept', clean: false, reconnectPeriod: 0 }
    await (await connectAsync(gateway.mqttUrl, kept)).endAsync()
    await eventuallyPasses(async () =>
      expect(await sluiceJson('clients', 'ls', '--away')).toMatchObject([{ id: 'kept' }]),
    )
    await sluiceJson('clients', 'kick', 'kept', '--end')
    expect(await sluiceJson('clients', 'ls', '--away')).toEqual([])
  },
  async queues() {
    const queues = await sluiceJson('queues', 'ls')
    expect(queues).toMatchObject([{ name: 'all' }, { name: 'all.dead' }])
    expect(await sluiceJson('queues', 'peek', 'all')).toEqual([])
    expect(await sluiceJson('queues', 'purge', 'all', '--yes')).toEqual({ purged: 0 })
    expect(await sluice('queues', 'delete', 'all', '--url', gateway.httpUrl)).toMatchObject({ status: 2 })
  },
  async dead() {
    expect(await sluiceJson('dead')).toMatchObject([{ queue: 'all.dead', sources: ['all'] }])
    expect(await sluiceJson('dead', 'show', 'all.dead')).toEqual([])
    expect(await sluiceJson('dead', 'replay', 'all.dead', '--all', '--dry-run')).toMatchObject({ replayed: 0 })
    expect(await sluiceJson('dead', 'purge', 'all.dead', '--yes')).toEqual({ purged: 0 })
  },
  async stream() {
    const client = await connectAsync(gateway.mqttUrl)
    await client.publishAsync('tried/stream', 'kept', { qos: 1 })
    await client.endAsync()
    expect(await sluiceJson('stream', 'ls')).toMatchObject([{ name: 'history', messages: 1 }])
    expect(await sluiceJson('stream', 'show', 'history')).toMatchObject({ next: 1 })
    expect(await sluiceJson('stream', 'replay', 'history', '--to', 'mqtt:tried/again')).toMatchObject({ unrouted: 1 })
    expect(await sluice('stream', 'delete', 'history', '--url', gateway.httpUrl)).toMatchObject({ status: 2 })
    const read = await sluice('stream', 'read', 'history', '--from', 'first', '--url', gateway.httpUrl)
    expect(read).toMatchObject({
      status: 0,
      stderr: '',
      stdout: expect.stringMatching(/^0 {2}\S+Z {2}tried\/stream {2}kept\n$/),
    })
  },
  async retained() {
    expect(await sluice('pub', ...mqttAddress(), '-t', 'tried/kept', '-m', 'kept', '-q', '1', '-r')).toMatchObject({
      status: 0,
      stderr: '',
    })
    expect(await sluiceJson('retained', 'ls', 'tried/#')).toMatchObject({ routing_key: 'tried/kept', payload: 'kept' })
    expect(await sluice('retained', 'clear', 'tried/#', '--url', gateway.httpUrl)).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('1 retained messages would be forgotten'),
    })
    expect(await sluiceJson('retained', 'clear', 'tried/#', '--yes')).toEqual({ cleared: 1 })
  },
  async exchanges() {
    const exchanges = await sluiceJson('exchanges', 'ls')
    expect(exchanges).toContainEqual(expect.objectContaining({ name: 'mqtt', type: 'topic' }))
  },
  async bindings() {
    const bindings = await sluiceJson('bindings', 'ls')
    expect(bindings).toContainEqual(
      expect.objectContaining({ source: 'mqtt', destination: 'all', routing_key: 'sensors/#' }),
    )
  },
  async export() {
    expect(await sluiceJson('export')).toMatchObject({ format: 1, queues: [{ name: 'all' }, { name: 'all.dead' }] })
  },
  async import() {
    const file = join(work.path, 'definitions.json')
    expect(await sluice('export', '--output', file, '--url', gateway.httpUrl)).toMatchObject({ status: 0, stderr: '' })
    expect(await sluiceJson('import', file, '--dry-run')).toMatchObject({
      dry_run: true,
      queues: { created: 0, config: 2 },
    })
  },
  async users() {
    await writeFile(usersFile(), '')
    await eventuallyPasses(async () => expect(await sluiceJson('users')).toEqual([]))
    expect(await sluiceJson('users', 'bans')).toEqual([])
    expect(await sluice('users', 'unban', '192.0.2.7', '--url', gateway.httpUrl)).toMatchObject({
      status: 1,
      stderr: 'sluice: The address "192.0.2.7" is not banned.\n',
    })
  },
  async passwd() {
    const args = ['passwd', 'operator', '--groups', 'admin', '--stdin', '--file', usersFile()]
    expect(await execute(executable, args, BARE_ENVIRONMENT, 'secret\n')).toMatchObject({ status: 0, stderr: '' })
    const user = { name: 'operator', groups: ['admin'], clients: 0, last_login_at: null }
    await eventuallyPasses(async () => expect(await sluiceJson('users')).toEqual([user]))
    const client = await connectAsync(gateway.mqttUrl, { username: 'operator', password: 'secret' })
    expect(await sluiceJson('users')).toMatchObject([{ clients: 1, last_login_at: expect.any(String) }])
    await client.endAsync()
    expect(await sluice('passwd', 'operator', '--delete', '--file', usersFile())).toMatchObject({ status: 0 })
    await eventuallyPasses(async () => expect(await sluiceJson('users')).toEqual([]))
  },
  async routes() {
    expect(await sluiceJson('routes')).toMatchObject([{ name: 'all', upstream: 'central' }])
  },
  async upstreams() {
    expect(await sluiceJson('upstreams', 'ls')).toMatchObject([{ name: 'central' }])
    expect(await sluiceJson('upstreams', 'pause', 'central')).toMatchObject({ state: 'paused' })
    await sluiceJson('upstreams', 'resume', 'central')
    await eventuallyPasses(async () =>
      expect(await sluiceJson('upstreams', 'ls')).toMatchObject([{ state: 'forwarding' }]),
    )
  },
  async pub() {
    const client = await connectAsync(gateway.mqttUrl)
    const received: string[] = []
    client.on('message', (_topic, payload) => received.push(payload.toString()))
    await client.subscribeAsync('tried/pub')
    expect(await sluice('pub', ...mqttAddress(), '-t', 'tried/pub', '-m', 'said', '-q', '1')).toMatchObject({
      status: 0,
      stderr: '',
    })
    await eventuallyPasses(() => expect(received).toEqual(['said']))
    await client.endAsync()
  },
  async sub() {
    const heard = sluice('sub', ...mqttAddress(), '-t', 'tried/sub', '-q', '1', '-C', '1', '-W', '30', '-v')
    const client = await connectAsync(gateway.mqttUrl)
    // Nobody tells when the subscription is there: said again until it was heard.
    let isOver = false
    void heard.finally(() => {
      isOver = true
    })
    await eventuallyPasses(async () => {
      await client.publishAsync('tried/sub', 'heard', { qos: 1 })
      expect(isOver).toBe(true)
    })
    expect(await heard).toEqual({ status: 0, stdout: 'tried/sub heard\n', stderr: '' })
    await client.endAsync()
  },
  async demo() {
    const environment = { ...BARE_ENVIRONMENT, HOME: work.path, PATH: await pathWithoutNode() }
    const { status, stdout, stderr } = await execute(
      executable,
      ['demo', '--seconds', '5', '--devices', '4'],
      environment,
    )
    expect(stderr).toBe('')
    expect(stdout).toMatch(/^published \d+, acknowledged \d+, upstream \d+, duplicates \d+, lost 0$/m)
    expect(status).toBe(0)
  },
}

function mqttAddress(): string[] {
  return ['--url', gateway.mqttUrl]
}

/** The demo starts RabbitMQ, which needs the system's programs: all of them but Node's. */
async function pathWithoutNode(): Promise<string> {
  const directory = join(work.path, 'bin')
  await mkdir(directory)
  for (const source of ['/usr/bin', '/usr/sbin']) {
    for (const name of await readdir(source)) {
      // A name that both have is taken from the first.
      if (!/^(node|nodejs|npm|npx|corepack)$/.test(name))
        await symlink(join(source, name), join(directory, name)).catch(() => undefined)
    }
  }
  return directory
}

async function commandNames(): Promise<string[]> {
  return (await readdir(COMMANDS)).map(file => file.replace(/\.ts$/, '')).sort()
}

describe('the executable does everything the command line of the sources does', () => {
  test('every command of the sources is tried here', async () => {
    expect(Object.keys(TRIALS).sort()).toEqual(await commandNames())
  })

  test('its help is that of the sources, for every command', { timeout: TEST_DEADLINE_MS }, async () => {
    const environment = { ...BARE_ENVIRONMENT, COLUMNS: '100' }
    const lists = [[], ...(await commandNames()).map(name => [name])]
    for (const words of lists) {
      const args = [...words, '--help']
      const expected = await execute(process.execPath, [SOURCES, ...args], environment)
      expect(expected).toMatchObject({ status: 0, stderr: '' })
      expect(await execute(executable, args, environment)).toEqual(expected)
    }
  })

  test.each(Object.entries(TRIALS))('sluice %s', { timeout: TEST_DEADLINE_MS }, (_name, trial) => trial())

  test('--version tells version, commit, runtime and LevelDB', async () => {
    const { stdout } = await sluice('--version')
    expect(stdout).toMatch(
      new RegExp(
        `^sluice \\d+\\.\\d+\\.\\d+\\ncommit ${BUILD_COMMIT}\\nruntime Node\\.js ${process.versions.node} \\(V8 \\S+\\), linux-${process.arch}, executable\\nLevelDB 1\\.20 \\(classic-level \\d+\\.\\d+\\.\\d+\\)\\n$`,
      ),
    )
  })

  test('an error nobody foresaw is told with files and lines of the sources', async () => {
    const trap = join(work.path, 'trap.cjs')
    await writeFile(trap, "JSON.stringify = () => { throw new TypeError('sprung') }")
    const { status, stderr } = await sluice(`--node-options=--require=${trap}`, 'check', '--json')
    expect(status).toBe(1)
    expect(stderr).toContain('TypeError: sprung\n')
    for (const [file, text] of [
      ['src/cli/print.ts', 'JSON.stringify('],
      ['src/cli/commands/check.ts', 'printJson({'],
    ] as const) {
      const source = await readFile(resolve(COMMANDS, '../../..', file), 'utf8')
      const line = source.split('\n').findIndex(candidate => candidate.includes(text)) + 1
      expect(stderr).toMatch(new RegExp(`^ {4}at .*\\(${file}:${line}\\)$`, 'm'))
    }
  })

  test('wrong usage ends with status 2 and one line', async () => {
    const { status, stderr } = await sluice('statsu')
    expect(status).toBe(2)
    expect(stderr.trimEnd().split('\n')).toHaveLength(1)
  })
})
