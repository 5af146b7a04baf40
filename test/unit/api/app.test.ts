import { createHash } from 'node:crypto'
import pino from 'pino'
import { describe, expect, test } from 'vitest'
import type * as z from 'zod/mini'
import { createApp } from '../../../src/api/app.ts'
import * as contract from '../../../src/api/contract.ts'
import type { Gateway, Model, PublishedMessage } from '../../../src/api/gateway.ts'
import { Rates } from '../../../src/api/rates.ts'
import type { Access } from '../../../src/core/access.ts'
import { AddressGate } from '../../../src/core/address-gate.ts'
import { Tokens } from '../../../src/core/tokens.ts'
import { BrokerError } from '../../../src/model/error.ts'
import { Metrics } from '../../../src/telemetry/metrics.ts'
import { EMPTY_MODEL, NO_DEFINITIONS, NO_RETAINED, NO_STREAMS } from '../../support/empty-model.ts'
import { PLAIN_QUEUE_STATUS } from '../../support/plain-queue-status.ts'
import { accessWith, userEntry, usersOf } from '../../support/users.ts'

const CLIENT: contract.ClientDetail = {
  id: 'line/2 é',
  protocol: 'mqtt 5.0',
  address: '127.0.0.1:50000',
  connected_at: '2026-11-23T12:00:00.000Z',
  keep_alive_s: 60,
  subscriptions: 1,
  queued: 0,
  in_flight: 0,
  received: 3,
  delivered: 4,
  dropped: 0,
  session_expiry_ms: 60_000,
  filters: [
    {
      filter: 'a/#',
      qos: 1,
      no_local: true,
      retain_as_published: false,
      identifier: 7,
    },
  ],
}

/** Of that client, while it is away. */
const SESSION: contract.SessionDetail = {
  id: 'line/2 é',
  connected: false,
  session_expiry_ms: 60_000,
  ends_in_ms: 30_000,
  subscriptions: 1,
  durable: true,
  queued: 3,
  bytes: 300,
  in_flight: 0,
  delivered: 4,
  dropped: 0,
  filters: CLIENT.filters,
}

const QUEUE: contract.QueueStatus = {
  ...PLAIN_QUEUE_STATUS,
  name: 'telemetry',
  depth: 5,
  bytes: 500,
  in_flight: 2,
  oldest_age_ms: 1234,
  limits: { messages: 10, bytes: 1000, age_ms: 60_000, on_full: 'reject' },
  ledger: { accepted: 9, settled: 4, queued: 3, in_flight: 2, dropped: {}, expired: 0, dead_lettered: {} },
}

/** A small gateway in memory: one client, one queue, one upstream. */
class SmallGateway implements Gateway {
  readonly config = { http: { port: 15_680 } }
  model: Model = {
    ...EMPTY_MODEL,
    queues: () => [QUEUE],
    queue: name => (name === QUEUE.name ? QUEUE : undefined),
    sessionQueues: () => [{ ...QUEUE, name: '$share/g/a', kind: 'group', origin: 'client' }],
  }
  readonly streams = { ...NO_STREAMS }
  readonly retained = { ...NO_RETAINED }
  readonly definitions = { ...NO_DEFINITIONS }
  readonly published: PublishedMessage[] = []
  refusal: BrokerError | null = null
  status: contract.Health['status'] = 'ok'
  isConnected = true
  isBanned = true
  hasSession = true
  isPaused = false

  messages() {
    return { received: 100, delivered: 50, forwarded: 20, unrouted: 0, dropped: 0 }
  }
  overview() {
    return {
      gateway: {
        id: 'gw-1',
        version: '0.1.0',
        epoch: 'abcdefghij',
        started_at: '2026-11-23T12:00:00.000Z',
        uptime_ms: 5,
        clock: 'synced' as const,
      },
      clients: { connected: 1, limit: 2000 },
      memory: { used_bytes: 1, limit_bytes: 2, resident_bytes: 3 },
      disk: {
        used_bytes: 1,
        limit_bytes: 2,
        free_bytes: 3,
        free_min_bytes: 4,
        accepted_bytes: 5,
        written_bytes: 6,
        full_in_ms: null,
      },
    }
  }
  health(): contract.Health {
    return { status: this.status, reasons: this.status === 'ok' ? [] : ['upstream central: waiting, refused'] }
  }
  clients() {
    const { filters, session_expiry_ms: _, ...summary } = CLIENT
    return this.isConnected ? [{ ...summary, subscriptions: filters.length }] : []
  }
  client(id: string) {
    return this.isConnected && id === CLIENT.id ? CLIENT : undefined
  }
  kick(id: string) {
    const isKnown = this.client(id) !== undefined
    if (isKnown) this.isConnected = false
    return isKnown
  }
  users() {
    return [{ name: 'operator', groups: ['admin'], clients: 1, last_login_at: null }]
  }
  bans() {
    return this.isBanned ? [{ address: '2001:db8:1:2::/64', ends_in_ms: 1000 }] : []
  }
  unban(address: string) {
    const isKnown = this.isBanned && address === '2001:db8:1:2::/64'
    if (isKnown) this.isBanned = false
    return isKnown
  }
  sessions() {
    const { filters: _, ...summary } = SESSION
    return this.hasSession ? [summary] : []
  }
  session(id: string) {
    return this.hasSession && id === SESSION.id ? SESSION : undefined
  }
  async endSession(id: string) {
    const isKnown = this.session(id) !== undefined
    if (isKnown) this.hasSession = false
    return isKnown
  }
  routes(): contract.RouteStatus[] {
    return [
      {
        name: 'telemetry',
        from: ['sensors/#'],
        upstream: 'central',
        exchange: 'telemetry',
        routing_key: '{topic}',
        qos0: 'buffer',
        outbox: 'telemetry',
        depth: 5,
        bytes: 500,
        oldest_age_ms: null,
        forecast: QUEUE.forecast,
        parked: null,
      },
    ]
  }
  upstreams(): contract.UpstreamStatus[] {
    return [
      {
        name: 'central',
        url: 'amqp://gw:***@hub',
        state: this.isPaused ? 'paused' : 'forwarding',
        since: null,
        cause: null,
        retry_in_ms: null,
        routes: ['telemetry'],
        unconfirmed: 0,
        confirmed: 20,
        reconnects: 1,
      },
    ]
  }
  upstream(name: string) {
    return this.upstreams().find(upstream => upstream.name === name)
  }
  pauseUpstream() {
    this.isPaused = true
  }
  resumeUpstream() {
    this.isPaused = false
  }
  async publish(message: PublishedMessage) {
    if (this.refusal !== null) throw this.refusal
    this.published.push(message)
    return { isRouted: message.key !== 'nowhere' }
  }
}

function openApi({ access = accessWith(), from = '127.0.0.1' }: { access?: Access; from?: string } = {}) {
  const gateway = new SmallGateway()
  const metrics = new Metrics()
  metrics.add({ name: 'sluice_clients', help: 'Clients.', kind: 'gauge', read: () => 1 })
  const rates = new Rates({ read: () => gateway.messages(), monotonicMs: () => 0 })
  const app = createApp({ gateway, metrics, rates, log: pino({ level: 'silent' }), access })
  const request = (path: string, { headers, ...init }: RequestInit & { headers?: Record<string, string> } = {}) =>
    app.request(
      path,
      { ...init, headers: { host: '127.0.0.1:15680', ...headers } },
      { incoming: { socket: { remoteAddress: from } } },
    )
  const publish = (body: unknown) =>
    request('/api/v1/publish', { method: 'POST', body: typeof body === 'string' ? body : JSON.stringify(body) })
  return { gateway, request, publish }
}

async function expectProblem(response: Response, status: number, code: string): Promise<contract.Problem> {
  expect(response.status).toBe(status)
  expect(response.headers.get('content-type')).toBe('application/problem+json')
  const problem = contract.problem.parse(await response.json())
  expect(problem).toMatchObject({ status, code, type: 'about:blank' })
  return problem
}

describe('documents have the form of the contract', () => {
  const documents: readonly [string, z.ZodMiniType][] = [
    ['/api/v1/overview', contract.overview],
    ['/api/v1/clients', contract.clientList],
    ['/api/v1/clients/line%2F2%20%C3%A9', contract.clientDetail],
    ['/api/v1/users', contract.userList],
    ['/api/v1/bans', contract.banList],
    ['/api/v1/sessions', contract.sessionList],
    ['/api/v1/sessions/line%2F2%20%C3%A9', contract.sessionDetail],
    ['/api/v1/queues', contract.queueList],
    ['/api/v1/queues?all', contract.queueList],
    ['/api/v1/queues/telemetry', contract.queue],
    ['/api/v1/routes', contract.routeList],
    ['/api/v1/upstreams', contract.upstreamList],
    ['/api/v1/config', contract.config],
    ['/api/v1/health', contract.health],
    ['/health/ready', contract.health],
  ]
  test.each(documents)('GET %s', async (path, schema) => {
    const response = await openApi().request(path)
    expect(response.status).toBe(200)
    expect(response.headers.get('content-type')).toMatch(/^application\/json/)
    const body = await response.json()
    expect(schema.parse(body)).toEqual(body)
  })

  test('a message may name its exchange and key instead of a topic', async () => {
    const { gateway, publish } = openApi()
    await publish({ exchange: '', routing_key: 'jobs', payload: 'x', qos: 0 })
    await publish({ exchange: 'orders', routing_key: 'a.#', payload: 'x' })
    expect(gateway.published).toMatchObject([
      { exchange: '', key: 'jobs', qos: 0 },
      { exchange: 'orders', key: 'a.#', qos: 1 },
    ])
  })

  test('figures are never taken from a cache', async () => {
    expect((await openApi().request('/api/v1/queues')).headers.get('cache-control')).toBe('no-store')
  })

  test('queues of sessions and groups are listed for whoever asks for all', async () => {
    const kinds = async (path: string) =>
      contract.queueList.parse(await (await openApi().request(path)).json()).map(({ name, kind }) => [name, kind])
    expect(await kinds('/api/v1/queues')).toEqual([['telemetry', 'named']])
    expect(await kinds('/api/v1/queues?all')).toEqual([
      ['telemetry', 'named'],
      ['$share/g/a', 'group'],
    ])
    await expectProblem(await openApi().request('/api/v1/queues?all=maybe'), 400, 'REQUEST_INVALID')
  })

  test('/ points to the rest', async () => {
    expect(await (await openApi().request('/')).json()).toMatchObject({
      overview: '/api/v1/overview',
      metrics: '/metrics',
    })
  })
})

describe('health', () => {
  test.each([
    ['ok', 200],
    ['degraded', 200],
    ['unavailable', 503],
  ] as const)('%s is ready with %i: an outage upstream is no reason to restart a gateway', async (status, expected) => {
    const { gateway, request } = openApi()
    gateway.status = status
    const response = await request('/health/ready')
    expect(response.status).toBe(expected)
    expect(await response.json()).toMatchObject({ status })
    expect((await request('/health/live')).status).toBe(200)
    expect((await request('/api/v1/health')).status).toBe(200)
  })
})

test('/metrics is the text format of Prometheus', async () => {
  const response = await openApi().request('/metrics')
  expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  expect(await response.text()).toContain('\nsluice_clients 1\n')
})

describe('acts', () => {
  test('a client is disconnected once, then it is not there any more', async () => {
    const { request } = openApi()
    const path = `/api/v1/clients/${encodeURIComponent(CLIENT.id)}`
    expect((await request(path, { method: 'DELETE' })).status).toBe(204)
    await expectProblem(await request(path, { method: 'DELETE' }), 404, 'CLIENT_NOT_FOUND')
    await expectProblem(await request(path), 404, 'CLIENT_NOT_FOUND')
  })

  test('a ban is lifted once', async () => {
    const { request } = openApi()
    const path = `/api/v1/bans/${encodeURIComponent('2001:db8:1:2::/64')}`
    expect((await request(path, { method: 'DELETE' })).status).toBe(204)
    await expectProblem(await request(path, { method: 'DELETE' }), 404, 'BAN_NOT_FOUND')
    expect(await (await request('/api/v1/bans')).json()).toEqual([])
  })

  test('a session is ended once, then it is not there any more', async () => {
    const { request } = openApi()
    const path = `/api/v1/sessions/${encodeURIComponent(SESSION.id)}`
    expect((await request(path, { method: 'DELETE' })).status).toBe(204)
    await expectProblem(await request(path, { method: 'DELETE' }), 404, 'SESSION_NOT_FOUND')
    await expectProblem(await request(path), 404, 'SESSION_NOT_FOUND')
  })

  test('an upstream is paused and resumed, twice if need be, and tells its state', async () => {
    const { request } = openApi()
    for (const [act, state] of [
      ['pause', 'paused'],
      ['pause', 'paused'],
      ['resume', 'forwarding'],
    ]) {
      const response = await request(`/api/v1/upstreams/central/${act}`, { method: 'POST' })
      expect(contract.upstream.parse(await response.json()).state).toBe(state)
    }
    await expectProblem(await request('/api/v1/upstreams/nobody/pause', { method: 'POST' }), 404, 'UPSTREAM_NOT_FOUND')
    await expectProblem(await request('/api/v1/upstreams/__proto__/pause', { method: 'POST' }), 400, 'NAME_INVALID')
  })
})

describe('retained messages', () => {
  test('are listed behind a topic, all if no filter is said', async () => {
    const { gateway, request } = openApi()
    const asked: unknown[] = []
    gateway.retained.list = async (...args) => {
      asked.push(args)
      return []
    }
    expect(await (await request('/api/v1/retained')).json()).toEqual([])
    await request('/api/v1/retained?filter=a/%2B&after=a/b&limit=100')
    expect(asked).toEqual([
      ['#', { after: '', limit: 20 }],
      ['a/+', { after: 'a/b', limit: 100 }],
    ])
    await expectProblem(await request('/api/v1/retained?limit=101'), 400, 'REQUEST_INVALID')
    await expectProblem(await request('/api/v1/retained?filter=a%23'), 400, 'NAME_INVALID')
  })

  test('are forgotten by a filter that must be said', async () => {
    const { gateway, request } = openApi()
    gateway.retained.clear = async (filter, { isDryRun }) => (filter === 'a/#' && !isDryRun ? 3 : 0)
    const clear = (query: string) => request(`/api/v1/retained${query}`, { method: 'DELETE' })
    expect(contract.retainedCleared.parse(await (await clear('?filter=a/%23')).json())).toEqual({ cleared: 3 })
    expect(await (await clear('?filter=a/%23&dry_run')).json()).toEqual({ cleared: 0 })
    await expectProblem(await clear(''), 400, 'REQUEST_INVALID')
    await expectProblem(await clear('?filter='), 400, 'NAME_INVALID')
  })
})

describe('publish', () => {
  test('answers after the message is safe and tells whether anybody wanted it', async () => {
    const { gateway, publish } = openApi()
    const answer = await (await publish({ topic: 'a/b', payload: 'é' })).json()
    expect(contract.publishResponse.parse(answer)).toEqual({ routed: true })
    expect(await (await publish({ topic: 'nowhere', payload: '', qos: 0, retain: true })).json()).toEqual({
      routed: false,
    })
    expect(await (await publish({ topic: 'a', payload: '/wA=', encoding: 'base64' })).json()).toEqual({ routed: true })
    expect(gateway.published).toEqual([
      { exchange: 'mqtt', key: 'a/b', payload: Buffer.from('é'), qos: 1, retain: false, priority: 0 },
      { exchange: 'mqtt', key: 'nowhere', payload: Buffer.alloc(0), qos: 0, retain: true, priority: 0 },
      { exchange: 'mqtt', key: 'a', payload: Buffer.from([0xff, 0]), qos: 1, retain: false, priority: 0 },
    ])
  })

  test.each([
    ['{', 'REQUEST_INVALID', /not JSON/],
    ['', 'REQUEST_INVALID', /body: an object is needed/],
    ['{"topic":"a","payload":"x","__proto__":{}}', 'REQUEST_INVALID', /__proto__/],
    ['[]', 'REQUEST_INVALID', /body/],
    [{ topic: 'a' }, 'REQUEST_INVALID', /payload/],
    [{ topic: 'a', payload: 'x', qos: 3 }, 'REQUEST_INVALID', /qos/],
    [{ topic: 'a', payload: 'x', retain: 1 }, 'REQUEST_INVALID', /retain/],
    [{ topic: 'a', payload: 'not base64!', encoding: 'base64' }, 'REQUEST_INVALID', /base64/],
    [{ topic: 'a/#', payload: 'x' }, 'NAME_INVALID', /wildcards/],
    [{ payload: 'x' }, 'REQUEST_INVALID', /either topic, or exchange and routing_key/],
    [{ topic: 'a', exchange: 'b', payload: 'x' }, 'REQUEST_INVALID', /either topic, or exchange and routing_key/],
    [{ exchange: 'b', payload: 'x' }, 'REQUEST_INVALID', /either topic, or exchange and routing_key/],
    [{ exchange: 'mqtt', routing_key: 'a/#', payload: 'x' }, 'NAME_INVALID', /wildcards/],
    [{ exchange: 'b', routing_key: 'x'.repeat(256), payload: 'x' }, 'NAME_INVALID', /255 bytes/],
  ])('%j is refused', async (body, code, detail) => {
    const { gateway, publish } = openApi()
    const problem = await expectProblem(await publish(body), 400, code)
    expect(problem.detail).toMatch(detail)
    expect(gateway.published).toEqual([])
  })

  test.each([
    ['QUEUE_FULL', 429],
    ['RETAINED_FULL', 429],
    ['MEMORY_FULL', 429],
    ['DISK_FULL', 507],
    ['STORE_UNAVAILABLE', 503],
  ] as const)('a refusal with %s is %i', async (code, status) => {
    const { gateway, publish } = openApi()
    gateway.refusal = new BrokerError(code, 'Refused, and why.', { facts: { queue: 'telemetry', limit: 10 } })
    const problem = await expectProblem(await publish({ topic: 'a', payload: 'x' }), status, code)
    expect(problem).toMatchObject({ detail: 'Refused, and why.', queue: 'telemetry', limit: 10 })
  })

  test('a body of more than 2 MiB is refused unread', async () => {
    const { gateway, publish } = openApi()
    await expectProblem(await publish({ topic: 'a', payload: 'x'.repeat(2 * 1024 * 1024) }), 413, 'REQUEST_INVALID')
    expect(gateway.published).toEqual([])
  })
})

describe('what is not there or not allowed', () => {
  test('an unknown path, queue or method is a problem document', async () => {
    const { request } = openApi()
    await expectProblem(await request('/api/v1/bogus'), 404, 'NOT_FOUND')
    await expectProblem(await request('/api/v1/queues/bogus'), 404, 'QUEUE_NOT_FOUND')
    await expectProblem(await request('/api/v1/queues', { method: 'PATCH' }), 404, 'NOT_FOUND')
  })

  test.each([
    'evil.example',
    'evil.example:15680',
    '192.168.1.2',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '',
  ])('a request for the host %j is refused: a name may have been made to resolve to this machine', async host => {
    await expectProblem(await openApi().request('/api/v1/overview', { headers: { host } }), 403, 'NOT_AUTHORIZED')
  })

  test.each(['127.0.0.1', 'localhost:15680', '[::1]:15680', '127.1.2.3:1'])(
    'a request for %j is answered',
    async host => {
      expect((await openApi().request('/api/v1/overview', { headers: { host } })).status).toBe(200)
    },
  )

  test('a web page of elsewhere may not call, one of this machine may', async () => {
    const { request } = openApi()
    const pause = (origin: string) =>
      request('/api/v1/upstreams/central/pause', { method: 'POST', headers: { origin } })
    await expectProblem(await pause('https://evil.example'), 403, 'NOT_AUTHORIZED')
    await expectProblem(await pause('null'), 403, 'NOT_AUTHORIZED')
    expect((await pause('http://127.0.0.1:15680')).status).toBe(200)
  })

  test('a mistake in a handler is a 500 without its text', async () => {
    const { gateway, request } = openApi()
    gateway.clients = () => {
      throw new TypeError('secret detail')
    }
    const problem = await expectProblem(await request('/api/v1/clients'), 500, 'INTERNAL')
    expect(problem.detail).not.toContain('secret detail')
  })
})

describe('outside loopback', () => {
  const [ADMIN, VIEWER, NOBODY] = ['admin-token', 'viewer-token', 'nobodys-token']
  const host = 'gateway.example:15680'
  const sha256 = (token: string) => createHash('sha256').update(token).digest()

  function openFrom(from: string) {
    const tokens = new Tokens()
    tokens.replace([
      { name: 'ops', sha256: sha256(ADMIN), groups: ['admin'] },
      { name: 'prometheus', sha256: sha256(VIEWER), groups: ['viewer'] },
      { name: 'other', sha256: sha256(NOBODY), groups: ['meters'] },
    ])
    const users = usersOf(userEntry('operator', 'a:b', 'admin'), userEntry('guest', 'g', 'viewer'))
    const gate = new AddressGate({ connectionsPerS: 0, loginFailures: 3, banMs: 60_000 }, () => performance.now())
    const access = accessWith({ tokens, users, gate })
    const { request, gateway } = openApi({ access, from })
    const ask = (method: 'GET' | 'POST' | 'HEAD', authorization?: string, headers: Record<string, string> = {}) =>
      request(method === 'POST' ? '/api/v1/upstreams/central/pause' : '/api/v1/overview', {
        method,
        headers: { host, ...headers, ...(authorization !== undefined && { authorization }) },
      })
    return { ask, gateway, access }
  }
  const basic = (user: string, password: string) => `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`

  test('nobody asks without saying who they are, not even for health, and hears how', async () => {
    const { ask, gateway } = openFrom('192.0.2.7')
    const response = await ask('GET')
    expect(response.headers.get('www-authenticate')).toMatch(/^Bearer realm="sluice", Basic realm="sluice"/)
    await expectProblem(response, 401, 'NOT_AUTHENTICATED')
    await expectProblem(await ask('POST'), 401, 'NOT_AUTHENTICATED')
    // Who calls itself local is not.
    await expectProblem(await ask('GET', undefined, { host: '127.0.0.1:15680' }), 401, 'NOT_AUTHENTICATED')
    const probe = openApi({ access: accessWith({ users: usersOf() }), from: '192.0.2.7' })
    expect((await probe.request('/health/live')).status).toBe(401)
    expect((await probe.request('/metrics')).status).toBe(401)
    expect(gateway.isPaused).toBe(false)
  })

  test.each([
    ['a token of the group admin', `Bearer ${ADMIN}`, 200, 200],
    ['a token of the group viewer', `Bearer ${VIEWER}`, 200, 403],
    ['a token of another group', `Bearer ${NOBODY}`, 403, 403],
    ['a token nobody has', 'Bearer admin', 401, 401],
    ['a user of the group admin', basic('operator', 'a:b'), 200, 200],
    ['a user of the group viewer', basic('guest', 'g'), 200, 403],
    ['a wrong password', basic('operator', 'a'), 401, 401],
    ['a user nobody is', basic('constructor', 'a'), 401, 401],
    ['a token given as a password', basic('ops', ADMIN), 401, 401],
    ['another scheme', 'Digest username="operator"', 401, 401],
    ['no scheme', ADMIN, 401, 401],
    ['Basic without a colon', 'Basic b3BlcmF0b3I=', 401, 401],
  ])('with %s', async (_, authorization, reading, changing) => {
    for (const from of ['192.0.2.7', '127.0.0.1']) {
      expect((await openFrom(from).ask('GET', authorization)).status).toBe(reading)
      expect((await openFrom(from).ask('HEAD', authorization)).status).toBe(reading)
      const { ask, gateway } = openFrom(from)
      expect((await ask('POST', authorization)).status).toBe(changing)
      expect(gateway.isPaused).toBe(changing === 200)
    }
  })

  test('wrong tokens and passwords get their address banned', async () => {
    const { ask, access } = openFrom('192.0.2.7')
    await Promise.all([ask('GET', 'Bearer a'), ask('GET', 'Bearer b'), ask('GET', basic('operator', 'x'))])
    expect((await ask('GET', basic('operator', 'a:b'))).status).toBe(401)
    expect(access.refused.banned).toBe(1)
  })

  test('on this machine nobody has to, unless a proxy on it passes a request on', async () => {
    const { ask } = openFrom('127.0.0.1')
    const local = { host: 'localhost:15680' }
    expect((await ask('POST', undefined, local)).status).toBe(200)
    await expectProblem(await ask('GET'), 401, 'NOT_AUTHENTICATED')
    expect((await ask('POST', `Bearer ${VIEWER}`, local)).status).toBe(403)
  })

  test('a page of another site may not use what a browser knows, a page of this one may', async () => {
    const { ask } = openFrom('192.0.2.7')
    const token = `Bearer ${ADMIN}`
    await expectProblem(await ask('POST', token, { origin: 'http://evil.example' }), 403, 'NOT_AUTHORIZED')
    expect((await ask('POST', token, { origin: `http://${host}` })).status).toBe(200)
  })
})

describe('streams', () => {
  test('are read from where the query says, and anything else is refused', async () => {
    const { gateway, request } = openApi()
    const asked: unknown[] = []
    gateway.streams.messages = async (name, from, limit) => {
      asked.push([name, from, limit])
      return []
    }
    for (const query of ['', '?from=17&limit=100', '?from=2026-07-01T12:00Z']) {
      expect((await request(`/api/v1/streams/history/messages${query}`)).status).toBe(200)
    }
    expect(asked).toEqual([
      ['history', 'first', 10],
      ['history', { sequence: 17 }, 100],
      ['history', { timeMs: Date.UTC(2026, 6, 1, 12) }, 10],
    ])
    for (const query of ['?from=yesterday', '?from=-1', '?limit=0', '?limit=101', '?from=']) {
      await expectProblem(await request(`/api/v1/streams/history/messages${query}`), 400, 'REQUEST_INVALID')
    }
  })

  test('are replayed in a range of bounded length', async () => {
    const { gateway, request } = openApi()
    const asked: unknown[] = []
    gateway.streams.replay = async (name, range, { to, limit }) => {
      asked.push([name, range, to, limit])
      return { replayed: 1, unrouted: 0, next: null, held: false }
    }
    const replay = (body: unknown) =>
      request('/api/v1/streams/history/replay', { method: 'POST', body: JSON.stringify(body) })
    expect(
      await (await replay({ to: { exchange: 'again' }, from: '5', until: 'last', limit: 7 })).json(),
    ).toMatchObject({
      replayed: 1,
    })
    expect((await replay({ to: { exchange: 'mqtt', routing_key: 'a/b' } })).status).toBe(200)
    expect(asked).toEqual([
      ['history', { from: { sequence: 5 }, until: 'last' }, { exchange: 'again', routing_key: null }, 7],
      ['history', { from: 'first', until: 'next' }, { exchange: 'mqtt', routing_key: 'a/b' }, 10_000],
    ])
    for (const body of [
      {},
      { to: { exchange: 'x' }, limit: 10_001 },
      { to: { exchange: 'x' }, from: 'never' },
      { to: { exchange: 'x' }, all: 1 },
    ]) {
      await expectProblem(await replay(body), 400, 'REQUEST_INVALID')
    }
  })
})
