import pino from 'pino'
import { expect, test } from 'vitest'
import type * as z from 'zod/mini'
import { freePort } from '../../scripts/free-port.ts'
import * as contract from '../../src/api/contract.ts'
import { Broker } from '../../src/broker.ts'
import { type IncomingMessage, MqttClient, type MqttVersion } from '../../src/cli/mqtt-client.ts'
import { loadConfig } from '../../src/config/load.ts'
import { eventually } from '../support/eventually.ts'
import { tempDir } from '../support/temp-dir.ts'

/** A whole gateway in this process, on free ports, whose upstream is a port where nobody listens. */
async function startGateway({ set = [] }: { set?: readonly string[] } = {}) {
  const directory = await tempDir()
  const config = await loadConfig({
    file: null,
    env: {},
    set: [
      `data_dir=${directory.path}`,
      'listeners.mqtt.port=0',
      'http.port=0',
      `upstreams.central.urls=amqp://gw:s3cret@127.0.0.1:${await freePort()}`,
      'routes.telemetry.from=sensors/#',
      'routes.telemetry.upstream=central',
      'routes.telemetry.exchange.name=telemetry',
      ...set,
    ],
  })
  const broker = await Broker.start(config, { log: pino({ level: 'silent' }) })
  const [mqtt, http] = [broker.addresses.get('mqtt'), broker.addresses.get('http')]
  if (mqtt === undefined || http === undefined) throw new TypeError('a running gateway has both listeners')
  const request = (path: string, init?: RequestInit) => fetch(`http://${http.host}:${http.port}${path}`, init)
  const connect = (
    clientId: string,
    onMessage: (message: IncomingMessage) => void = () => undefined,
    version: MqttVersion = 5,
  ) =>
    MqttClient.connect({ host: mqtt.host, port: mqtt.port, user: null, password: null, version, clientId }, message => {
      onMessage(message)
      return 'taken'
    })
  const read = async <T extends z.ZodMiniType>(path: string, schema: T): Promise<z.output<T>> =>
    schema.parse(await (await request(path)).json())
  return {
    request,
    read,
    connect,
    async [Symbol.asyncDispose]() {
      await broker.stop()
      await directory.remove()
    },
  }
}

const message = (topic: string, text: string, qos: 0 | 1 | 2 = 1) => ({
  topic,
  payload: Buffer.from(text),
  qos,
  retain: false,
})

test('what devices publish is counted, and what cannot be forwarded waits in the outbox and is shown there', async () => {
  await using gateway = await startGateway()
  const device = await gateway.connect('meter-1')
  for (let index = 0; index < 10; index++) await device.publish(message('sensors/1', `reading ${index}`))
  const overview = await gateway.read('/api/v1/overview', contract.overview)
  expect(overview.messages).toMatchObject({ received: 10, forwarded: 0, dropped: 0 })
  expect(overview.clients.connected).toBe(1)
  expect(overview.gateway.id).toMatch(/-[a-z0-9]{6}$/)
  expect(overview.disk.accepted_bytes).toBeGreaterThan(0)
  const queue = await gateway.read('/api/v1/queues/telemetry', contract.queue)
  expect(queue).toMatchObject({ origin: 'config', depth: 10, ledger: { accepted: 10, settled: 0, dropped: {} } })
  expect(queue.oldest_age_ms).not.toBeNull()
  expect(await gateway.read('/api/v1/routes', contract.routeList)).toMatchObject([
    { name: 'telemetry', upstream: 'central', exchange: 'telemetry', outbox: 'telemetry', depth: 10 },
  ])
  await device.end()
})

test('an upstream that does not answer degrades health, tells why, and keeps the gateway ready', async () => {
  await using gateway = await startGateway()
  const upstream = await eventually(async () => {
    const [found] = await gateway.read('/api/v1/upstreams', contract.upstreamList)
    return found?.cause !== null && found
  })
  expect(upstream).toMatchObject({ name: 'central', routes: ['telemetry'], confirmed: 0 })
  expect(upstream.url).not.toContain('s3cret')
  const ready = await gateway.request('/health/ready')
  expect(ready.status).toBe(200)
  const health = contract.health.parse(await ready.json())
  expect(health.status).toBe('degraded')
  expect(health.reasons.join()).toMatch(/upstream central/)
})

test('an upstream is paused and resumed', async () => {
  await using gateway = await startGateway()
  const act = async (name: string) =>
    contract.upstream.parse(
      await (await gateway.request(`/api/v1/upstreams/central/${name}`, { method: 'POST' })).json(),
    )
  expect((await act('pause')).state).toBe('paused')
  expect((await act('resume')).state).not.toBe('paused')
})

test('a client shows its subscriptions, and is gone when it is kicked', async () => {
  await using gateway = await startGateway()
  const device = await gateway.connect('valve 7/ä', () => undefined, 4)
  await device.subscribe(['commands/#', 'a/+'], 1)
  const path = `/api/v1/clients/${encodeURIComponent('valve 7/ä')}`
  const client = await gateway.read(path, contract.clientDetail)
  expect(client).toMatchObject({ protocol: 'mqtt 3.1.1', subscriptions: 2, keep_alive_s: 60 })
  expect(client.filters).toContainEqual({
    filter: 'commands/#',
    qos: 1,
    no_local: false,
    retain_as_published: false,
    identifier: null,
  })
  expect(client.address).toMatch(/^127\.0\.0\.1:\d+$/)
  expect((await gateway.request(path, { method: 'DELETE' })).status).toBe(204)
  expect(await device.closed).not.toBeNull()
  await eventually(async () => (await gateway.request(path)).status === 404)
})

test('a message over HTTP reaches subscribers, and 200 says whether anybody wanted it', async () => {
  await using gateway = await startGateway()
  const received: string[] = []
  const device = await gateway.connect('listener', ({ topic, payload, qos }) =>
    received.push(`${topic} ${payload} ${qos}`),
  )
  await device.subscribe(['commands/#'], 2)
  const publish = async (body: object) =>
    (await gateway.request('/api/v1/publish', { method: 'POST', body: JSON.stringify(body) })).json()
  expect(await publish({ topic: 'commands/1', payload: 'on' })).toEqual({ routed: true })
  expect(await publish({ topic: 'commands/2', payload: 'b2Zm', encoding: 'base64', qos: 0 })).toEqual({ routed: true })
  expect(await publish({ topic: 'commands/3', payload: 'once', qos: 2 })).toEqual({ routed: true })
  expect(await publish({ topic: 'nobody/listens', payload: '' })).toEqual({ routed: false })
  await eventually(() => received.length === 3)
  expect(received).toEqual(['commands/1 on 1', 'commands/2 off 0', 'commands/3 once 2'])
  await device.end()
})

test('retained messages are published, listed page by page, and forgotten over HTTP', async () => {
  await using gateway = await startGateway()
  const topics = Array.from({ length: 250 }, (_, n) => `state/${n}`).sort()
  const device = await gateway.connect('device')
  for (const topic of topics) await device.publish({ ...message(topic, `of ${topic}`), retain: true })
  await device.end()
  const body = JSON.stringify({ topic: 'other', payload: 'x', retain: true })
  await gateway.request('/api/v1/publish', { method: 'POST', body })
  const listed: contract.MessageDocument[] = []
  for (;;) {
    const query = new URLSearchParams({ filter: 'state/+', limit: '100', after: listed.at(-1)?.routing_key ?? '' })
    const page = await gateway.read(`/api/v1/retained?${query}`, contract.messageList)
    if (page.length === 0) break
    listed.push(...page)
  }
  expect(listed.map(({ routing_key, payload }) => [routing_key, payload])).toEqual(
    topics.map(topic => [topic, `of ${topic}`]),
  )
  const clear = async (query: string) =>
    contract.retainedCleared.parse(
      await (await gateway.request(`/api/v1/retained?filter=${query}`, { method: 'DELETE' })).json(),
    )
  expect(await clear('state/%23&dry_run')).toEqual({ cleared: 250 })
  expect(await clear('state/%23')).toEqual({ cleared: 250 })
  const left = await gateway.read('/api/v1/retained', contract.messageList)
  expect(left.map(({ routing_key }) => routing_key)).toEqual(['other'])
  expect(await (await gateway.request('/metrics')).text()).toMatch(/^sluice_retained_messages 1$/m)
})

test('a full outbox refuses a message over HTTP with 429 and says which queue', async () => {
  await using gateway = await startGateway({ set: ['routes.telemetry.limits.messages=3'] })
  const publish = () =>
    gateway.request('/api/v1/publish', { method: 'POST', body: JSON.stringify({ topic: 'sensors/1', payload: 'x' }) })
  for (let index = 0; index < 3; index++) expect((await publish()).status).toBe(200)
  const refused = await publish()
  expect(refused.status).toBe(429)
  expect(contract.problem.parse(await refused.json())).toMatchObject({ code: 'QUEUE_FULL' })
  expect((await gateway.read('/api/v1/health', contract.health)).reasons.join()).toMatch(/queue telemetry: full/)
})

test('a full queue with dead letters is not said to drop messages', async () => {
  const limits = ['queues.ring.limits.messages=1', 'queues.ring.limits.on_full=drop_oldest']
  await using gateway = await startGateway({
    set: [...limits, 'queues.ring.dead_letter=old', 'queues.ring.bind=ring/#'],
  })
  for (let index = 0; index < 2; index++) {
    const body = JSON.stringify({ topic: 'ring/1', payload: 'x' })
    expect((await gateway.request('/api/v1/publish', { method: 'POST', body })).status).toBe(200)
  }
  const { reasons } = await gateway.read('/api/v1/health', contract.health)
  expect(reasons).toContain('queue ring: full, messages become dead letters')
})

test('the configuration is shown in the keys of the file, without passwords', async () => {
  await using gateway = await startGateway()
  const text = await (await gateway.request('/api/v1/config')).text()
  expect(JSON.parse(text)).toMatchObject({ upstreams: { central: { window: 256 } }, limits: { clients: 2000 } })
  expect(text).not.toContain('s3cret')
})

test('/metrics names every figure once, with a type, and queues by label', async () => {
  await using gateway = await startGateway()
  const device = await gateway.connect('meter-1')
  await device.publish(message('sensors/1', 'x'))
  const text = await (await gateway.request('/metrics')).text()
  const types = [...text.matchAll(/^# TYPE (\S+) (counter|gauge)$/gm)].map(match => match[1] ?? '')
  expect(new Set(types).size).toBe(types.length)
  expect(types.filter(name => !/^(?:sluice|process|nodejs)_/.test(name))).toEqual([])
  expect(text).toMatch(/^sluice_queue_\w+\{queue="telemetry"[^}]*\} 1$/m)
  for (const line of text.trim().split('\n')) {
    expect(line).toMatch(
      /^(?:# (?:HELP|TYPE) \S+ .+|[a-z_0-9]+(?:\{(?:[a-z_]+="(?:[^"\\]|\\.)*",?)+\})? -?[0-9.e+-]+)$/,
    )
  }
  await device.end()
})

test('a request that arrives while the gateway stops ends, and the port is closed', async () => {
  let url = ''
  {
    await using gateway = await startGateway()
    url = (await gateway.request('/health/live')).url
  }
  await expect(fetch(url)).rejects.toThrow()
})
