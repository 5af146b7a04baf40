import { writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { freePort } from '../../../scripts/free-port.ts'
import { runSluice } from '../../support/run-sluice.ts'
import { tempDir } from '../../support/temp-dir.ts'

const COMMANDS = [
  'run',
  'demo',
  'check',
  'status',
  'clients',
  'queues',
  'exchanges',
  'bindings',
  'users',
  'passwd',
  'routes',
  'upstreams',
  'export',
  'import',
  'pub',
  'sub',
]
const SUBCOMMANDS = [
  'queues ls',
  'queues show',
  'queues peek',
  'queues purge',
  'exchanges ls',
  'bindings ls',
  'clients ls',
  'clients show',
  'clients kick',
  'users ls',
  'users bans',
  'users unban',
  'upstreams ls',
  'upstreams pause',
  'upstreams resume',
]

describe.concurrent('help', () => {
  test('lists every command with what it does', async () => {
    const { status, stdout } = await runSluice(['--help'])
    expect(status).toBe(0)
    for (const command of COMMANDS) expect(stdout).toMatch(new RegExp(`^  ${command} +\\S`, 'm'))
  })

  test.each([...COMMANDS, ...SUBCOMMANDS])('of %s has an example of it', async command => {
    const { status, stdout, stderr } = await runSluice([...command.split(' '), '--help'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toMatch(new RegExp(`^Usage: sluice ${command} `))
    expect(stdout).toMatch(new RegExp(`Examples?:\n(.*\n)*.*\\$ .*sluice ${command}`))
    // Documents are for people; what they print for programs is JSON.
    if (/^(?:status|routes|.* ls|.* show|.* peek|.* purge|check|pub|sub)/.test(command))
      expect(stdout).toContain('--json')
  })

  test('`help COMMAND` is the same', async () => {
    expect((await runSluice(['help', 'queues'])).stdout).toBe((await runSluice(['queues', '--help'])).stdout)
  })
})

test('--version tells version, commit, runtime and LevelDB', async () => {
  const { status, stdout } = await runSluice(['--version'])
  expect(status).toBe(0)
  expect(stdout).toMatch(/^sluice \d+\.\d+\.\d+\ncommit \S+\nruntime Node\.js 24\.21\.0 .*\nLevelDB 1\.20/)
})

describe.concurrent('wrong usage is status 2, with one line on standard error that points to the help', () => {
  test.each([
    ['bogus', /unknown command 'bogus' \(see sluice --help\)/],
    ['queus', /unknown command 'queus' \(Did you mean queues\?\)/],
    ['--bogus', /unknown option '--bogus' \(see sluice --help\)/],
    ['status --bogus', /unknown option '--bogus' \(see sluice status --help\)/],
    ['queues show', /missing required argument 'name' \(see sluice queues show --help\)/],
    ['queues peek jobs --limit 101', /whole number from 1 to 100/],
    ['clients frobnicate', /too many arguments/],
    ['run extra', /too many arguments/],
    ['pub -m x', /required option '-t, --topic <topic>' not specified/],
    ['pub -t a', /exactly one of -m, -f, -l, -n/],
    ['pub -t a -m x -l', /exactly one of -m, -f, -l, -n/],
    ['pub -t a -m x -q 3', /whole number from 0 to 2/],
    ['sub -t a -p 0', /whole number from 1 to 65535/],
    ['sub -t a -V 4', /Accepted are 3\.1, 3\.1\.1 and 5/],
  ])('sluice %s', async (line, expected) => {
    const { status, stdout, stderr } = await runSluice(line.split(' '))
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toMatch(expected)
    expect(stderr).toMatch(/^sluice: .*\n$/)
  })

  test('no command at all shows the help', async () => {
    const { status, stderr } = await runSluice([])
    expect(status).toBe(2)
    expect(stderr).toMatch(/^Usage: sluice /)
  })
})

describe.concurrent('a failed operation is status 1, with one line that says what to do', () => {
  test.each([
    [
      'status',
      /^sluice: No gateway answers at http:\/\/127\.0\.0\.1:\d+: connection refused\. Start it with `sluice run`/,
    ],
    ['clients kick x', /^sluice: No gateway answers/],
    ['queues', /^sluice: No gateway answers/],
    ['upstreams pause central', /^sluice: No gateway answers/],
  ])('sluice %s without a gateway', async (line, expected) => {
    const { status, stdout, stderr } = await runSluice(line.split(' '), {
      env: { SLUICE_URL: `http://127.0.0.1:${await freePort()}` },
    })
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
    expect(stderr).toMatch(expected)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })

  test('a server that is no gateway', async () => {
    const server = createServer((_request, response) => response.writeHead(404).end('<html>'))
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    const address = server.address()
    if (address === null || typeof address === 'string') throw new TypeError('a TCP listener has a port')
    const { status, stderr } = await runSluice(['status', '--url', `http://127.0.0.1:${address.port}`])
    server.close()
    expect(status).toBe(1)
    expect(stderr).toMatch(/answered 404 to GET .*is this a Sluice gateway\? Check --url\.\n$/)
  })

  test('an address that is none', async () => {
    const { status, stderr } = await runSluice(['status', '--url', 'ftp://x'])
    expect(status).toBe(1)
    expect(stderr).toMatch(/"ftp:\/\/x" is not an HTTP address/)
  })

  test.each(['pub -t a -m x', 'sub -t a'])('sluice %s without a broker', async line => {
    const { status, stderr } = await runSluice([...line.split(' '), '-p', String(await freePort())])
    expect(status).toBe(1)
    expect(stderr).toMatch(/^sluice: No MQTT session at 127\.0\.0\.1:\d+: connection refused\. Check --host and --port/)
  })

  test.each([
    ['pub -t a/# -m x', /wildcards/],
    ['pub -t a -f /nonexistent', /can't be read from \/nonexistent/],
    ['pub -t a -m x --url http://x', /no address of a broker/],
    ['run --config /nonexistent.yaml', /\/nonexistent\.yaml can't be read: ENOENT.* Name another with --config FILE/],
    ['run --set http.prot=1', /--set http\.prot: http\.prot: unknown key "prot" \(did you mean "port"\?\)/],
  ])('sluice %s', async (line, expected) => {
    const { status, stderr } = await runSluice(line.split(' '))
    expect(status).toBe(1)
    expect(stderr).toMatch(expected)
    expect(stderr.trim().split('\n')).toHaveLength(1)
  })
})

describe('check', () => {
  test('a valid file is said to be so, with what is worth a warning', async () => {
    await using folder = await tempDir()
    await writeFile(join(folder.path, 'sluice.yaml'), 'listeners: { mqtt: { host: 0.0.0.0 } }\n')
    const { status, stdout, stderr } = await runSluice(['check'], { cwd: folder.path })
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toMatch(
      /^warning: no MQTT client can connect.*\nsluice\.yaml is valid: 0 routes, 0 upstreams, 0 queues, 0 streams\n$/,
    )
  })

  test('every error has its place, and a program gets them as JSON', async () => {
    await using folder = await tempDir()
    const file = join(folder.path, 'gw.yaml')
    await writeFile(file, 'http: { prot: 1 }\nlog: { level: loud }\n')
    const text = await runSluice(['check', file])
    expect(text.status).toBe(1)
    expect(text.stderr.split('\n').slice(0, 3)).toEqual([
      `sluice: ${file} has 2 errors:`,
      `  ${file}:1:9: http.prot: unknown key "prot" (did you mean "port"?); accepted here: host, port, tokens_file`,
      expect.stringMatching(/gw\.yaml:2:15: log\.level: "loud" is not accepted/),
    ])
    const json = await runSluice(['check', file, '--json'])
    expect(json.status).toBe(1)
    expect(JSON.parse(json.stdout)).toMatchObject({
      valid: false,
      problems: [{ line: 1, column: 9, path: 'http.prot' }, { line: 2 }],
    })
  })

  test('--acl asks the rules, with the groups of the users file, and names the rule that decides', async () => {
    await using folder = await tempDir()
    const users = join(folder.path, 'users.yaml')
    await runSluice(['passwd', 'ann', '--file', users, '--groups', 'ops', '--stdin'], { stdin: 'secret' })
    const file = join(folder.path, 'gw.yaml')
    const rules = [
      '{ user: "*", deny_subscribe: ["private/#"] }',
      '{ user: "*", publish: ["sensors/%c/#"], consume: ["jobs"] }',
      '{ group: ops, subscribe: ["#"] }',
    ]
    await writeFile(file, `auth:\n  users_file: ${users}\n  acl:\n${rules.map(rule => `    - ${rule}\n`).join('')}`)
    const ask = (...parts: readonly string[]) => runSluice(['check', file, '--acl', ...parts])
    expect(await ask('client=dev-7', 'publish=sensors/dev-7/t', 'consume=jobs')).toEqual({
      status: 0,
      stdout: 'allowed  publish sensors/dev-7/t  by rule 2\nallowed  consume jobs  by rule 2\n',
      stderr: '',
    })
    expect(await ask('user=ann', 'subscribe=a/#', 'subscribe=#')).toEqual({
      status: 1,
      stdout: 'allowed  subscribe a/#  by rule 3\nrefused  subscribe #  by rule 1\n',
      stderr: '',
    })
    const { status, stdout } = await ask('user=bob', 'subscribe=a/#', '--json')
    expect({ status, answer: JSON.parse(stdout) }).toEqual({
      status: 1,
      answer: [{ act: 'subscribe', what: 'a/#', allowed: false, rule: null }],
    })
    expect(await ask('pulbish=a')).toMatchObject({ status: 2, stderr: expect.stringContaining('publish=') })
    expect(await ask('client=a')).toMatchObject({ status: 1, stderr: expect.stringContaining('Nothing is asked') })
  })

  test('overrides count, as they would for run', async () => {
    const { status, stderr } = await runSluice(['check'], { env: { SLUICE_HTTP__PORT: 'x' } })
    expect(status).toBe(1)
    expect(stderr).toContain('SLUICE_HTTP__PORT: http.port: "x" is not such a number')
  })
})
