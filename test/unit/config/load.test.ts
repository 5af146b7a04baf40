import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type ConfigSources, loadConfig, readConfig } from '../../../src/config/load.ts'
import { readUpstreamUrl } from '../../../src/config/upstream-url.ts'
import { PLAIN_POLICY } from '../../../src/model/queue-policy.ts'
import { tempDir } from '../../support/temp-dir.ts'

/** Reads a text as if it were `sluice.yaml` in a folder of its own. */
async function read(yaml: string, sources: Partial<ConfigSources> = {}) {
  await using folder = await tempDir()
  const file = join(folder.path, 'sluice.yaml')
  await writeFile(file, yaml)
  const { config, problems } = await readConfig({ file, env: {}, set: [], ...sources })
  // `line:column path: message`, as the operator sees them after the file name.
  return {
    config,
    problems: problems.map(
      ({ origin, line, column, path, message }) =>
        `${line === null ? origin : `${line}:${column}`} ${path}: ${message}`,
    ),
  }
}

async function accept(yaml: string, sources: Partial<ConfigSources> = {}) {
  const { config, problems } = await read(yaml, sources)
  expect(problems).toEqual([])
  if (config === null) throw new Error('there is neither a configuration nor a problem')
  return config
}

const ROUTED = `
upstreams:
  central: { urls: [ "amqp://gw:\${PW}@hub/iot" ] }
routes:
  telemetry:
    from: [ "sensors/+/+" ]
    upstream: central
    exchange: { name: telemetry }
`
const PW = { PW: 's3cret' }

describe('listeners', () => {
  test('there is only what is named; paths start at the folder of the file, permissions are octal', async () => {
    expect((await accept('')).listeners).toEqual({
      mqtt: { host: '127.0.0.1', port: 1883, trustedProxies: null },
      ...{ mqtts: null, ws: null, wss: null, unix: null },
    })
    const { listeners } = await accept('listeners: { ws: {}, unix: { path: /run/mqtt.sock } }')
    expect(listeners.ws).toEqual({
      ...{ host: '127.0.0.1', port: 8083, trustedProxies: null },
      ...{ path: '/mqtt', origins: [] },
    })
    expect(listeners.unix).toEqual({ path: '/run/mqtt.sock', mode: 0o660 })
  })

  test('behind proxies, which are on this machine unless others are named', async () => {
    const listening = async (more: string) =>
      (await accept(`listeners: { mqtt: { proxy_protocol: true${more} } }`)).listeners.mqtt.trustedProxies
    expect(await listening('')).toEqual(['127.0.0.1', '::1'])
    expect(await listening(', trusted_proxies: [ 192.0.2.0/24, "2001:db8::/32", 10.0.0.1 ]')).toEqual([
      ...['192.0.2.0/24', '2001:db8::/32', '10.0.0.1'],
    ])
  })

  test('anonymous clients are at home as long as every port is on loopback; a socket file always is', async () => {
    const anonymous = async (yaml: string) => (await accept(yaml)).auth.anonymous
    expect(await anonymous('listeners: { ws: {}, unix: { path: a } }')).toBe('local')
    expect(await anonymous('listeners: { ws: { host: 0.0.0.0 } }')).toBe('nobody')
  })
})

describe('defaults', () => {
  test('without a file everything has the default of the contract, in milliseconds and bytes', async () => {
    const config = await loadConfig({ file: null, env: {}, set: [] })
    expect(config).toMatchObject({
      gateway: { id: null },
      dataDir: join(process.cwd(), 'data'),
      listeners: { mqtt: { host: '127.0.0.1', port: 1883 } },
      http: { host: '127.0.0.1', port: 15_680 },
      auth: { anonymous: 'local' },
      store: {
        commitIntervalMs: 50,
        bufferedIntervalMs: 1000,
        diskBytes: 8 * 2 ** 30,
        diskFreeMinBytes: 200 * 2 ** 20,
      },
      limits: {
        clients: 2000,
        memoryBytes: 64 * 2 ** 20,
        outputPerClientBytes: 2 ** 20,
        packetBytes: 2 ** 20,
        receiveMax: 64,
        inflight: 64,
        topicAliases: 16,
        topicBytes: 1024,
        topicLevels: 128,
        subscriptionsPerSession: 100,
        keepAliveMaxMs: 0,
        sessionQueue: { messages: 10_000, bytes: 16 * 2 ** 20, onFull: 'drop_oldest' },
        sessionQueueQos0: false,
        connectTimeoutMs: 10_000,
        refuseDisconnectAfterMs: 10_000,
      },
      upstreams: [],
      routes: [],
      log: { level: 'info' },
      warnings: [],
    })
  })

  test('an empty file, and sections without content, are the defaults too', async () => {
    const { effective, ...plain } = await loadConfig({ file: null, env: {}, set: [] })
    for (const yaml of ['', '# nothing\n', 'http:\nlimits:\n  session_queue:\n', '{}']) {
      expect(await accept(yaml)).toEqual({ ...plain, effective })
    }
  })

  test('an upstream and a route need no more than where, what, and whereto', async () => {
    const config = await accept(ROUTED, { env: PW })
    expect(config.upstreams).toEqual([
      {
        name: 'central',
        urls: ['amqp://gw:s3cret@hub/iot'],
        tls: { ca: null, cert: null, key: null },
        window: 256,
        share: { live: 70, backlog: 30 },
        drain: { messagesPerS: 0, bytesPerS: 0 },
        heartbeatMs: 15_000,
        stallTimeoutMs: 10_000,
        reconnect: { firstMs: 250, maxMs: 8000, connectTimeoutMs: 5000, handshakeTimeoutMs: 5000, returnMs: 60_000 },
      },
    ])
    expect(config.routes).toEqual([
      {
        name: 'telemetry',
        from: ['sensors/+/+'],
        upstream: 'central',
        exchange: { name: 'telemetry', type: 'topic', declare: true },
        routingKey: '{topic}',
        codec: 'escaped',
        qos0: 'buffer',
        order: 'live_first',
        priority: 0,
        late: { exchange: null, keySuffix: '' },
        limits: { messages: 1_000_000, bytes: 2 * 2 ** 30, ageMs: 7 * 86_400_000, onFull: 'reject' },
        deadLetter: 'telemetry.dead',
        policy: { ...PLAIN_POLICY, maxAttempts: 10 },
      },
    ])
  })
})

describe('errors say where, what, and what is accepted', () => {
  test.each([
    ['http:\n  prot: 80\n', '2:3 http.prot: unknown key "prot" (did you mean "port"?); accepted here: host, port'],
    ['lgo: { level: info }\n', '1:1 lgo: unknown key "lgo" (did you mean "log"?); accepted here: gateway, data_dir,'],
    ['listeners:\n  mqtt: { tls: {} }\n', '2:11 listeners.mqtt.tls: unknown key "tls"; accepted here: host, port'],
    ['http: { port: 65536 }', '1:15 http.port: 65536 is not such a number; accepted is a whole number from 0 to 65535'],
    ['http: { port: [80] }', '1:15 http.port: [80] is not accepted; accepted is a whole number from 0 to 65535'],
    ['http: 80', '1:7 http: a number is not accepted here; accepted is a section of keys'],
    ['- a', '1:1 : a list of 1 is not accepted here; accepted is a section of keys'],
    [
      'store: { commit_interval: 50 }',
      '1:27 store.commit_interval: "50" is not a duration; accepted is a number with a unit',
    ],
    ['store: { commit_interval: 1h }', '1:27 store.commit_interval: 1h is out of bounds; accepted is'],
    ['limits: { memory: 64MB }', '1:19 limits.memory: "64MB" is not a size; accepted is'],
    [
      'log: { level: warning }',
      '1:15 log.level: "warning" is not accepted (did you mean "warn"?); accepted is silent, fatal',
    ],
    [
      'auth: { allow_anonymous: maybe }',
      '1:26 auth.allow_anonymous: "maybe" is not accepted; accepted is true or false',
    ],
    ['gateway: { id: a/b }', '1:16 gateway.id: "a/b" is no gateway id; accepted is 1 to 64 letters'],
    ['http: { host: 0.0.0.0 }', '1:15 http.host: 0.0.0.0 is not loopback; outside loopback HTTP needs tokens'],
    ['routes: { __proto__: {} }', '1:11 __proto__: unknown key "__proto__"'],
    ['log: {}\nlog: {}', '2:1 : "log" is given twice'],
    ['upstreams: { a.b: {} }', '1:14 upstreams.a.b: "a.b" is not a valid name'],
  ])('%j', async (yaml, expected) => {
    const { config, problems } = await read(yaml)
    expect(config).toBeNull()
    expect(
      problems.some(problem => problem.startsWith(expected)),
      problems.join('\n'),
    ).toBe(true)
  })

  test.each([
    [
      'from: [ "sensors/+/+" ]',
      'from: [ "a/#/b" ]',
      '6:13 routes.telemetry.from.0: "a/#/b" is not a valid topic filter: # must fill the last level',
    ],
    [
      'from: [ "sensors/+/+" ]',
      'from: []',
      '6:11 routes.telemetry.from: a list of 0 is not accepted here; accepted is a list of 1 to 1000',
    ],
    ['from: [ "sensors/+/+" ]', '', '5:3 routes.telemetry.from: this is missing; accepted is a list'],
    ['name: telemetry', '', '8:5 routes.telemetry.exchange.name: this is missing'],
    [
      'upstream: central',
      'upstream: centrall',
      '7:15 routes.telemetry.upstream: no upstream is called "centrall" (did you mean "central"?)',
    ],
    [
      'exchange: {',
      'routing_key: "{topicc}"\n    exchange: {',
      '8:18 routes.telemetry.routing_key: "{topicc}" has a placeholder',
    ],
    [
      'exchange: {',
      'ack: disk\n    exchange: {',
      '8:10 routes.telemetry.ack: "disk" is not accepted; accepted is fsync, upstream, buffered',
    ],
    [
      'amqp://gw:${PW}@hub/iot" ]',
      `${Array.from({ length: 9 }, (_, i) => `amqp://hub-${i}`).join('", "')}" ]`,
      '3:20 upstreams.central.urls: a list of 9 is not accepted here; accepted is a list of 1 to 8',
    ],
    ['amqp://gw', 'http://gw', '3:22 upstreams.central.urls.0: the scheme is "http:", neither amqp: nor amqps:'],
    ['] }', '], tls: { ca: x } }', '3:56 upstreams.central.tls: no URL of this upstream is amqps'],
    ['] }', '], tls: { cert: x } }', '3:64 upstreams.central.tls.cert: tls.key is missing'],
    ['] }', '], heartbeat: 1500ms }', '3:62 upstreams.central.heartbeat: 1500ms is not a whole number of seconds'],
    [
      '] }',
      '], reconnect: { first: 9s } }',
      '3:71 upstreams.central.reconnect.first: 9s is more than reconnect.max (8s)',
    ],
    [
      'exchange: {',
      'limits: { bytes: 9GiB }\n    exchange: {',
      '8:22 routes.telemetry.limits.bytes: 9GiB is more than store.disk (8GiB)',
    ],
  ])('with %j as %j', async (from, to, expected) => {
    expect(ROUTED).toContain(from)
    const { config, problems } = await read(ROUTED.replace(from, to), { env: PW })
    expect(config).toBeNull()
    expect(
      problems.some(problem => problem.startsWith(expected)),
      problems.join('\n'),
    ).toBe(true)
  })

  test.each([
    ['http: { port: 1883 }', 'http.port: port 1883 is already taken by listeners.mqtt.port'],
    [
      'listeners: { mqtt: { host: 0.0.0.0, port: 15680 } }',
      'http.port: port 15680 is already taken by listeners.mqtt.port',
    ],
    ['limits: { memory: 8MiB }', 'limits.session_queue.bytes: 16MiB is more than limits.memory (8MiB)'],
    ['limits: { packet: 65MiB }', 'limits.packet: 65MiB is more than limits.memory (64MiB)'],
    ['store: { disk: 1GiB }\nqueues: { jobs: {} }', 'queues.jobs.limits.bytes: 2GiB is more than store.disk (1GiB)'],
    [
      `${ROUTED.replace(':${PW}', '')}queues: { telemetry: {} }`,
      'queues.telemetry: route telemetry has a queue of this name, its outbox; rename one of them',
    ],
    ['queues: { jobs: { dead_letter: jobs } }', 'queues.jobs.dead_letter: jobs is this queue itself; name another'],
    [
      `${ROUTED.replace(':${PW}', '')}queues: { jobs: { dead_letter: telemetry } }`,
      'queues.jobs.dead_letter: telemetry is the outbox of a route; name another queue',
    ],
    [
      `${ROUTED.replace(':${PW}', '')}  other: { from: [ a ], upstream: central, exchange: { name: x }, dead_letter: telemetry.dead }\n`,
      'routes.other.dead_letter: route telemetry has telemetry.dead already, within its byte limit; name another queue',
    ],
    ['queues: { jobs: { bind: [ "a#" ] } }', 'queues.jobs.bind.0: "a#" is not a valid topic filter'],
    ['queues: { jobs: { expires: 1h } }', 'queues.jobs.expires: '],
    [
      'queues: { jobs: { retry: { backoff: { first: 10m } } } }',
      'queues.jobs.retry.backoff.first: 10m is more than retry.backoff.max (5m)',
    ],
    [
      'limits: { queues: 1 }\nqueues: { a: {}, b: {} }',
      'limits.queues: 1 is less than the queues and routes of this file, which are 2; raise it',
    ],
  ])('options that contradict each other: %s', async (yaml, expected) => {
    const { problems } = await read(yaml)
    expect(problems.join('\n')).toContain(expected)
  })

  test('a queue has the limits of an outbox unless it says otherwise', async () => {
    const { queues, routes } = await accept(
      `${ROUTED}queues: { jobs: {}, small: { bind: [ a/b ], limits: { messages: 7 } } }`,
      {
        env: PW,
      },
    )
    expect(queues).toEqual([
      { name: 'jobs', bind: [], limits: routes[0]?.limits, policy: PLAIN_POLICY, deadLetter: null },
      {
        name: 'small',
        bind: ['a/b'],
        limits: { ...routes[0]?.limits, messages: 7 },
        policy: PLAIN_POLICY,
        deadLetter: null,
      },
    ])
  })

  test('dead letters go to a queue by its name, of a route to its own unless it has none', async () => {
    const { queues, routes } = await accept(
      `${ROUTED}    dead_letter: none\nqueues: { jobs: { dead_letter: jobs.dead }, other: { dead_letter: none } }`,
      { env: PW },
    )
    expect([...routes, ...queues].map(({ deadLetter }) => deadLetter)).toEqual([null, 'jobs.dead', null])
  })

  test('the policy of a queue is in milliseconds and whole numbers', async () => {
    const { queues } = await accept(
      'queues: { jobs: { max_attempts: 5, ttl: 1h, max_priority: 9, single_active_consumer: true, retry: { backoff: { max: 1m }, waiting: 10 } } }',
    )
    expect(queues[0]?.policy).toEqual({
      ...PLAIN_POLICY,
      maxAttempts: 5,
      ttlMs: 3_600_000,
      maxPriority: 9,
      hasSingleActiveConsumer: true,
      retry: { firstMs: 1000, maxMs: 60_000, waiting: 10 },
    })
  })

  test.each([
    ['listeners: { ws: { port: 1883 } }', 'listeners.ws.port: port 1883 is already taken by listeners.mqtt.port'],
    [
      'listeners: { mqtt: { trusted_proxies: [ 10.0.0.1 ] } }',
      'listeners.mqtt.trusted_proxies: no proxy is asked for addresses; set proxy_protocol to true, or leave this out',
    ],
    ['listeners: { ws: { path: mqtt } }', 'listeners.ws.path: "mqtt" is no absolute path'],
    [
      'listeners: { ws: { origins: [ "https://panel.example/" ] } }',
      'listeners.ws.origins.0: a browser says https://panel.example for "https://panel.example/"',
    ],
    ['listeners: { ws: { origins: [ "panel.example" ] } }', 'listeners.ws.origins.0: "panel.example" is no origin'],
    ['listeners: { ws: { tls: {} } }', 'listeners.ws.tls: unknown key "tls"'],
    ['listeners: { wss: {} }', 'listeners.wss.tls: this is missing'],
    ['listeners: { unix: {} }', 'listeners.unix.path: this is missing'],
    [
      'listeners: { unix: { path: a, mode: 660 } }',
      'listeners.unix.mode: 660 is not accepted; accepted is three octal digits in quotes',
    ],
    ['listeners: { unix: { path: a, mode: "680" } }', 'listeners.unix.mode: "680" are no permissions'],
  ])('of a listener: %s', async (yaml, expected) => {
    const { problems } = await read(yaml)
    expect(problems.join('\n')).toContain(expected)
  })

  test.each([
    '10.0.0.256',
    '10.0.0.1/33',
    '10.0.0',
    '010.0.0.1',
    '::1/129',
    'fe80::1%eth0',
    'proxy.example',
    '::1/64/1',
    '',
  ])('the address of a proxy: %s', async proxy => {
    const { problems } = await read(`listeners: { mqtt: { proxy_protocol: true, trusted_proxies: [ "${proxy}" ] } }`)
    expect(problems.join('\n')).toContain('listeners.mqtt.trusted_proxies.0: ')
  })

  test('two listeners may share port 0', async () => {
    await accept('http: { port: 0 }\nlisteners: { mqtt: { port: 0 } }')
  })

  test('all errors come at once, in the order of the file', async () => {
    const { problems } = await read('http: { port: x, hots: 1 }\nlog: { level: loud }\nbogus: 1\n')
    expect(problems.map(problem => problem.split(' ')[1])).toEqual(['http.port:', 'http.hots:', 'log.level:', 'bogus:'])
  })

  test('a password never appears in an error', async () => {
    const { problems } = await read(ROUTED.replace('amqp://', 'ftp://'), { env: PW })
    expect(problems).toHaveLength(1)
    expect(problems.join()).not.toContain('s3cret')
  })

  test('broken YAML is told with its place', async () => {
    await expect(read('http: { port: 1\nlog: [')).rejects.toThrow(/sluice\.yaml:2:\d+: this is not YAML/)
    await expect(read('http: !secret { port: 1 }\n')).rejects.toThrow(/sluice\.yaml:1:\d+: this is not YAML/)
  })

  test('aliases that multiply without end are refused', async () => {
    const levels = [
      'a: &a [x,x,x,x,x,x,x,x,x]',
      ...'bcdefgh'
        .split('')
        .map((key, index) => `${key}: &${key} [${Array(9).fill(`*${'abcdefg'[index]}`).join(',')}]`),
    ]
    await expect(read(levels.join('\n'))).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
  })

  test('a file that is not there is another error than a wrong one', async () => {
    await expect(loadConfig({ file: '/nonexistent/sluice.yaml', env: {}, set: [] })).rejects.toMatchObject({
      code: 'CONFIG_NOT_FOUND',
      message: expect.stringContaining('--config FILE'),
    })
    await expect(loadConfig({ file: null, env: {}, set: ['http.port=x'] })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    })
  })
})

describe('auth.acl', () => {
  test('rules keep their order, and what a rule does not say is empty', async () => {
    const { auth, effective } = await accept(
      'auth:\n  acl:\n    - { user: "*", deny_subscribe: ["private/#"] }\n    - { group: ops, publish: ["of/%c/%u/#"], consume: [jobs] }\n',
    )
    const silent = { publish: [], denyPublish: [], subscribe: [], denySubscribe: [], consume: [] }
    expect(auth.acl).toEqual([
      { ...silent, user: '*', group: null, denySubscribe: ['private/#'] },
      { ...silent, user: null, group: 'ops', publish: ['of/%c/%u/#'], consume: ['jobs'] },
    ])
    expect(effective.auth).toMatchObject({
      acl: [
        { user: '*', group: null, publish: [], deny_subscribe: ['private/#'] },
        { user: null, group: 'ops', publish: ['of/%c/%u/#'] },
      ],
    })
    expect((await accept('auth: { acl: [] }')).auth.acl).toEqual([])
  })

  test.each([
    ['[{ publish: [a] }]', '1:15 auth.acl.0: a rule is for a user (* is everybody) or for a group'],
    ['[{ user: a, group: b, publish: [a] }]', '1:15 auth.acl.0: a rule is for a user'],
    ['[{ user: a }]', '1:15 auth.acl.0: the rule says nothing; give publish'],
    ['[{ user: a, pulbish: [a] }]', '1:26 auth.acl.0.pulbish: unknown key "pulbish" (did you mean "publish"?)'],
    ['[{ user: a, publish: ["a/#/b"] }]', '1:36 auth.acl.0.publish.0: "a/#/b" is not a valid topic filter'],
    ['[{ user: a, publish: ["a+%c"] }]', '1:36 auth.acl.0.publish.0: "a+%c" is not a valid topic filter: + must fill'],
    [
      '[{ user: a, subscribe: ["$queue/jobs"] }]',
      '1:38 auth.acl.0.subscribe.0: "$queue/jobs" is not a valid topic filter',
    ],
    ['[{ user: a, publish: a }]', '1:35 auth.acl.0.publish: a string is not accepted here; accepted is a list'],
    ['[a]', '1:15 auth.acl.0: a string is not accepted here; accepted is a section of keys'],
    ['{ user: a }', '1:14 auth.acl: a section is not accepted here; accepted is a list of up to 1000'],
  ])('%s is refused', async (acl, expected) => {
    const { config, problems } = await read(`auth: { acl: ${acl} }`)
    expect(config).toBeNull()
    expect(problems.join('\n')).toContain(expected)
  })

  test('rules that can never allow anything are worth a warning', async () => {
    const { warnings } = await accept('auth: { acl: [ { user: ann, subscribe: ["#"] } ] }')
    expect(warnings).toEqual([
      expect.stringContaining('there are no users'),
      expect.stringContaining('nobody may publish: auth.acl has rules'),
    ])
    expect((await accept('auth: { acl: [ { user: "*", publish: ["#"] } ] }')).warnings).toEqual([])
  })

  test('comes from the file alone', async () => {
    const { problems } = await read('', { env: { SLUICE_AUTH__ACL: 'x' }, set: ['auth.acl.0.user=a'] })
    expect(problems).toEqual([
      'SLUICE_AUTH__ACL auth.acl: this is a list of sections; only the file can set it',
      '--set auth.acl.0.user auth.acl.0.user: this is a list of sections; only the file can set it',
    ])
  })
})

describe('overrides', () => {
  test('the environment overrides the file, --set overrides the environment', async () => {
    const yaml = 'http: { port: 1 }\nlimits: { clients: 1 }\n'
    const config = await accept(yaml, {
      env: { SLUICE_HTTP__PORT: '2', SLUICE_LIMITS__CLIENTS: '2', SLUICE_DATA_DIR: '/tmp/x' },
      set: ['http.port=3'],
    })
    expect([config.http.port, config.limits.clients, config.dataDir]).toEqual([3, 2, '/tmp/x'])
  })

  test('they reach into sections the file does not have, named ones and lists of one', async () => {
    const config = await accept('', {
      env: { SLUICE_UPSTREAMS__CENTRAL__URLS: 'amqp://hub' },
      set: ['upstreams.central.window=9', 'routes.r.from=a/#', 'routes.r.upstream=central', 'routes.r.exchange.name=x'],
    })
    expect(config.upstreams[0]).toMatchObject({ name: 'central', urls: ['amqp://hub'], window: 9 })
    expect(config.routes[0]).toMatchObject({ name: 'r', from: ['a/#'] })
  })

  test('a variable finds a name of the file whatever its case', async () => {
    const config = await accept(ROUTED.replaceAll('central', 'Central'), {
      env: { ...PW, SLUICE_UPSTREAMS__CENTRAL__WINDOW: '7' },
    })
    expect(config.upstreams).toHaveLength(1)
    expect(config.upstreams[0]?.window).toBe(7)
  })

  test('true and false come as text', async () => {
    expect((await accept('', { set: ['auth.allow_anonymous=false'] })).auth.anonymous).toBe('nobody')
    const { routes } = await accept(ROUTED, { env: PW, set: ['routes.telemetry.exchange.declare=false'] })
    expect(routes[0]?.exchange.declare).toBe(false)
  })

  test.each([
    [{ env: { SLUICE_HTTP__PROT: '1' } }, 'SLUICE_HTTP__PROT http.prot: unknown key "prot" (did you mean "port"?)'],
    [{ env: { SLUICE_HTPP: '1' } }, 'SLUICE_HTPP htpp: unknown key "htpp" (did you mean "http"?)'],
    [{ env: { SLUICE_HTTP__PORT: 'x' } }, 'SLUICE_HTTP__PORT http.port: "x" is not such a number'],
    [{ set: ['http.port=x'] }, '--set http.port http.port: "x" is not such a number'],
    [{ set: ['http=1'] }, '--set http http: this is a section; set one of its keys'],
    [{ set: ['http.port.x=1'] }, '--set http.port.x http.port.x: unknown key "x"'],
    [{ set: ['bogus'] }, '--set : "bogus" is no assignment; accepted is KEY.KEY=VALUE'],
    [{ set: ['routes.__proto__.upstream=x'] }, '--set routes.__proto__.upstream'],
  ])('%j is refused by name', async (sources, expected) => {
    const { config, problems } = await read('', sources)
    expect(config).toBeNull()
    expect(
      problems.some(problem => problem.startsWith(expected)),
      problems.join('\n'),
    ).toBe(true)
  })

  test('variables of the command line are no options', async () => {
    await accept('', { env: { SLUICE_URL: 'http://x', SLUICE_TOKEN: 'y' } })
  })
})

describe('variables and secrets', () => {
  test('${NAME} takes a variable, $${NAME} the plain text, and a missing one is an error with its place', async () => {
    const config = await accept('gateway: { id: "gw-${UNIT}" }\nhttp: { port: "${PORT}" }', {
      env: { UNIT: '017', PORT: '99' },
    })
    expect([config.gateway.id, config.http.port]).toEqual(['gw-017', 99])
    expect((await accept('data_dir: "/tmp/$${X}"')).dataDir).toBe('/tmp/${X}')
    expect((await read(ROUTED)).problems).toEqual([expect.stringMatching(/^3:22 : the environment has no variable PW/)])
  })

  test('what a variable holds is a value, never YAML', async () => {
    const config = await accept('data_dir: ${D}', { env: { D: 'x\nhttp: { port: 1 }' } })
    expect(config.http.port).toBe(15_680)
    expect(config.dataDir).toContain('http: { port: 1 }')
  })

  test('file:PATH reads a secret beside the configuration, its first line', async () => {
    await using folder = await tempDir()
    const file = join(folder.path, 'sluice.yaml')
    await writeFile(file, ROUTED.replace('amqp://gw:${PW}@hub/iot', 'file:hub.url'))
    await writeFile(join(folder.path, 'hub.url'), 'amqp://gw:from-file@hub\n')
    const config = await loadConfig({ file, env: {}, set: [] })
    expect(config.upstreams[0]?.urls.map(readUpstreamUrl)).toEqual(['amqp://gw:from-file@hub'])
    await writeFile(join(folder.path, 'hub.url'), 'amqp://gw:changed@hub\n')
    expect(config.upstreams[0]?.urls.map(readUpstreamUrl)).toEqual(['amqp://gw:changed@hub'])
    expect(JSON.stringify(config.effective)).not.toContain('from-file')
    await writeFile(file, ROUTED.replace('amqp://gw:${PW}@hub/iot', 'file:missing'))
    await expect(loadConfig({ file, env: {}, set: [] })).rejects.toThrow(
      /upstreams\.central\.urls\.0: the secret can't be read: no URL of an upstream in .*missing: ENOENT/,
    )
  })

  test('an option that is no secret does not read files', async () => {
    expect((await accept('data_dir: "file:/etc/passwd"')).dataDir).toMatch(/file:\/etc\/passwd$/)
  })

  test('what the API shows has the keys of the file, every default, and no password', async () => {
    const { effective } = await accept(ROUTED, { env: PW, set: ['http.port=99', 'auth.allow_anonymous=false'] })
    expect(effective).toMatchObject({
      http: { host: '127.0.0.1', port: 99 },
      auth: { allow_anonymous: false },
      store: { commit_interval: '50ms', disk: '8GiB' },
      upstreams: { central: { urls: ['amqp://gw:***@hub/iot'], window: 256, reconnect: { max: '8s' } } },
      routes: { telemetry: { from: ['sensors/+/+'], limits: { age: '7d' } } },
    })
    expect(JSON.stringify(effective)).not.toContain('s3cret')
  })
})

describe('who may connect', () => {
  test('clients on this machine while every listener is on loopback, nobody otherwise unless it is said, and the log says so', async () => {
    for (const host of ['127.0.0.1', 'localhost', '::1']) {
      expect((await accept(`listeners: { mqtt: { host: "${host}" } }`)).auth.anonymous).toBe('local')
    }
    const open = await accept('listeners: { mqtt: { host: 0.0.0.0 } }')
    expect(open.auth.anonymous).toBe('nobody')
    expect(open.warnings).toEqual([expect.stringMatching(/^no MQTT client can connect/)])
    const chosen = await accept('listeners: { mqtt: { host: 0.0.0.0 } }\nauth: { allow_anonymous: true }')
    expect(chosen.auth.anonymous).toBe('everybody')
    expect(chosen.warnings).toEqual([expect.stringMatching(/^every host that reaches 0\.0\.0\.0/)])
  })

  test('HTTP outside loopback needs users or tokens, and is worth a warning', async () => {
    for (const who of ['auth: { users_file: users.yaml }', 'http: { tokens_file: tokens.yaml }']) {
      const { warnings } = await accept(who, { set: ['http.host=0.0.0.0'] })
      expect(warnings).toEqual([expect.stringMatching(/^HTTP on 0\.0\.0\.0 is not encrypted/)])
    }
  })

  test('an upstream nothing is forwarded to is worth a warning', async () => {
    const { warnings } = await accept('upstreams: { central: { urls: [ "amqp://hub" ] } }')
    expect(warnings).toEqual(['upstream central has no route: nothing is forwarded to it'])
  })
})
