import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type * as z from 'zod/mini'
import { freePort } from '../../scripts/free-port.ts'
import * as contract from '../../src/api/contract.ts'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { eventually } from '../support/eventually.ts'
import { runSluice } from '../support/run-sluice.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const CONFIG = `
queues:
  jobs: { bind: [ "jobs/#" ], limits: { messages: 5000 } }
  parked: {}
`

/** A whole gateway in this process on a directory that outlives it. */
async function startGateway(directory: string, config = CONFIG, upstream = '') {
  const file = join(directory, 'sluice.yaml')
  await writeFile(file, config + upstream)
  const set = [`data_dir=${directory}/data`, 'listeners.mqtt.port=0', 'http.port=0']
  const broker = await Broker.start(await loadConfig({ file, env: {}, set }), { log: pino({ level: 'silent' }) })
  const [mqtt, http] = [broker.addresses.get('mqtt'), broker.addresses.get('http')]
  if (mqtt === undefined || http === undefined) throw new TypeError('a running gateway has both listeners')
  const httpUrl = `http://${http.host}:${http.port}`
  const send = (method: string, path: string, body?: unknown) =>
    fetch(`${httpUrl}/api/v1/${path}`, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
  return {
    mqttUrl: `mqtt://${mqtt.host}:${mqtt.port}`,
    send,
    async status(method: string, path: string, body?: unknown): Promise<number> {
      return (await send(method, path, body)).status
    },
    async problem(method: string, path: string, body?: unknown): Promise<[number, string]> {
      const { status, code } = contract.problem.parse(await (await send(method, path, body)).json())
      return [status, code]
    },
    async read<T extends z.ZodMiniType>(schema: T, method: string, path: string, body?: unknown): Promise<z.output<T>> {
      const document = await (await send(method, path, body)).json()
      const parsed = schema.parse(document)
      // Nothing in it that the contract does not name.
      expect(parsed).toEqual(document)
      return parsed
    },
    sluice: (...args: readonly string[]) => runSluice(args, { env: { SLUICE_URL: httpUrl } }),
    [Symbol.asyncDispose]: () => broker.stop(),
  }
}

let directory: TempDir
let gateway: Awaited<ReturnType<typeof startGateway>>

beforeAll(async () => {
  directory = await tempDir()
  gateway = await startGateway(directory.path)
})
afterAll(async () => {
  await gateway[Symbol.asyncDispose]()
  await directory.remove()
})

describe('exchanges and bindings over HTTP', () => {
  test('are declared once, told with all they are, and deleted', async () => {
    const orders = { type: 'direct', internal: true, alternate_exchange: 'amq.fanout' }
    expect(await gateway.status('PUT', 'exchanges/orders%2F1', orders)).toBe(201)
    expect(await gateway.status('PUT', 'exchanges/orders%2F1', orders)).toBe(204)
    expect(await gateway.problem('PUT', 'exchanges/orders%2F1', { type: 'topic' })).toEqual([
      409,
      'DECLARATION_MISMATCH',
    ])
    expect(await gateway.read(contract.exchange, 'GET', 'exchanges/orders%2F1')).toEqual({
      name: 'orders/1',
      ...orders,
      durable: true,
      origin: 'api',
    })
    const names = (await gateway.read(contract.exchangeList, 'GET', 'exchanges')).map(({ name }) => name)
    expect(names).toEqual(['mqtt', '', 'amq.direct', 'amq.fanout', 'amq.headers', 'orders/1'])
    expect(await gateway.problem('POST', 'publish', { exchange: 'orders/1', routing_key: 'k', payload: '' })).toEqual([
      403,
      'NOT_AUTHORIZED',
    ])
    expect(await gateway.status('DELETE', 'exchanges/orders%2F1')).toBe(204)
    expect(await gateway.problem('DELETE', 'exchanges/orders%2F1')).toEqual([404, 'EXCHANGE_NOT_FOUND'])
    expect(await gateway.problem('GET', 'exchanges/orders%2F1')).toEqual([404, 'EXCHANGE_NOT_FOUND'])
    expect(await gateway.problem('DELETE', 'exchanges/mqtt')).toEqual([403, 'NOT_AUTHORIZED'])
  })

  test('a binding is named by its whole document', async () => {
    const binding = { source: 'amq.headers', destination: 'parked', arguments: { kind: 'alarm', 'x-match': 'any' } }
    expect(await gateway.status('PUT', 'bindings', binding)).toBe(201)
    expect(await gateway.status('PUT', 'bindings', binding)).toBe(204)
    expect(await gateway.read(contract.bindingList, 'GET', 'bindings')).toEqual([
      {
        source: 'mqtt',
        destination: 'jobs',
        destination_type: 'queue',
        routing_key: 'jobs/#',
        arguments: null,
        origin: 'config',
      },
      { ...binding, destination_type: 'queue', routing_key: '', origin: 'api' },
    ])
    expect(await gateway.problem('DELETE', 'bindings', { ...binding, arguments: null })).toEqual([
      404,
      'BINDING_NOT_FOUND',
    ])
    expect(await gateway.status('DELETE', 'bindings', binding)).toBe(204)
    expect(await gateway.problem('DELETE', 'bindings', binding)).toEqual([404, 'BINDING_NOT_FOUND'])
    const ofConfig = { source: 'mqtt', destination: 'jobs', routing_key: 'jobs/#' }
    expect(await gateway.problem('DELETE', 'bindings', ofConfig)).toEqual([403, 'NOT_AUTHORIZED'])
  })

  test.each([
    ['PUT', 'exchanges/a', {}, 'REQUEST_INVALID'],
    ['PUT', 'exchanges/a', { type: 'bogus' }, 'REQUEST_INVALID'],
    ['PUT', 'exchanges/a', { type: 'topic', alternate_exchange: '' }, 'NAME_INVALID'],
    ['PUT', 'exchanges/a', { type: 'topic', auto_delete: true }, 'REQUEST_INVALID'],
    ['PUT', `exchanges/${'a'.repeat(256)}`, { type: 'topic' }, 'NAME_INVALID'],
    ['PUT', 'bindings', undefined, 'REQUEST_INVALID'],
    ['PUT', 'bindings', { source: 'mqtt', destination: 'jobs', routing_key: 'a#' }, 'NAME_INVALID'],
    ['PUT', 'bindings', { source: 'amq.direct', destination: 'jobs', arguments: { a: '1' } }, 'REQUEST_INVALID'],
    [
      'PUT',
      'bindings',
      { source: 'amq.headers', destination: 'jobs', arguments: { 'x-match': 'some' } },
      'REQUEST_INVALID',
    ],
    ['PUT', 'bindings', { source: 'amq.headers', destination: 'jobs', arguments: { a: [1] } }, 'REQUEST_INVALID'],
    ['PUT', 'queues/a', { limits: { messages: 0 } }, 'REQUEST_INVALID'],
    ['PUT', 'queues/a', { limits: { on_full: 'explode' } }, 'REQUEST_INVALID'],
    ['PUT', 'queues/a%00b', {}, 'NAME_INVALID'],
    ['GET', 'queues/jobs/messages?limit=101', undefined, 'REQUEST_INVALID'],
    ['POST', 'queues/jobs/get', { count: 1 }, 'REQUEST_INVALID'],
    ['POST', 'queues/jobs/get', { count: 101, ack_mode: 'ack' }, 'REQUEST_INVALID'],
  ])('%s %s %j is refused with 400', async (method, path, body, code) => {
    expect(await gateway.problem(method, path, body)).toEqual([400, code])
  })

  test.each([
    ['GET', 'queues/none/messages', undefined],
    ['POST', 'queues/none/purge', undefined],
    ['POST', 'queues/none/get', { ack_mode: 'ack' }],
    ['DELETE', 'queues/none', undefined],
    ['PUT', 'bindings', { source: 'mqtt', destination: 'none', routing_key: '#' }],
  ])('%s %s of a queue that is not there is 404', async (method, path, body) => {
    expect(await gateway.problem(method, path, body)).toEqual([404, 'QUEUE_NOT_FOUND'])
  })
})

describe('queues over HTTP', () => {
  test('take what is published to them by name; it is looked at, got, purged', async () => {
    expect(await gateway.status('PUT', 'queues/work', { limits: { messages: 100 } })).toBe(201)
    expect(await gateway.status('PUT', 'queues/work', { limits: { messages: 100 } })).toBe(204)
    expect(await gateway.problem('PUT', 'queues/work')).toEqual([409, 'DECLARATION_MISMATCH'])
    expect(await gateway.read(contract.queue, 'GET', 'queues/work')).toMatchObject({
      origin: 'api',
      limits: { messages: 100, bytes: 2 * 1024 ** 3, age_ms: 7 * 86_400_000, on_full: 'reject' },
    })
    const publish = (payload: string, encoding = 'utf8') =>
      gateway.read(contract.publishResponse, 'POST', 'publish', {
        exchange: '',
        routing_key: 'work',
        payload,
        encoding,
      })
    for (const text of ['one', 'two', 'three']) expect(await publish(text)).toEqual({ routed: true })
    await publish('/wA=', 'base64')
    // Cut between two characters: the 2,049th character of two bytes would be cut in half.
    await publish(`x${'é'.repeat(4000)}`)
    const peeked = await gateway.read(contract.peekedList, 'GET', 'queues/work/messages')
    expect(peeked).toMatchObject([
      {
        exchange: '',
        routing_key: 'work',
        qos: 1,
        payload: 'one',
        encoding: 'utf8',
        truncated: false,
        in_flight: false,
      },
      { payload: 'two' },
      { payload: 'three' },
      { payload: '/wA=', encoding: 'base64', payload_bytes: 2 },
      { payload: `x${'é'.repeat(2047)}`, encoding: 'utf8', payload_bytes: 8001, truncated: true },
    ])
    expect(peeked[0]?.id).toMatch(/^\S+\/[a-z2-7]{10}\/\d+$/i)
    expect(Date.parse(peeked[0]?.accepted_at ?? '')).toBeGreaterThan(Date.now() - 60_000)
    const get = (body: object) => gateway.read(contract.messageList, 'POST', 'queues/work/get', body)
    expect(await get({ count: 2, ack_mode: 'requeue' })).toMatchObject([{ payload: 'one' }, { payload: 'two' }])
    expect(await get({ ack_mode: 'ack' })).toMatchObject([{ payload: 'one', redelivered: true }])
    expect(await gateway.read(contract.purged, 'POST', 'queues/work/purge')).toEqual({ purged: 4 })
    expect(await get({ count: 100, ack_mode: 'ack' })).toEqual([])
    expect((await gateway.read(contract.queue, 'GET', 'queues/work')).ledger).toMatchObject({
      accepted: 5,
      settled: 1,
      queued: 0,
      dropped: { purged: 4 },
    })
    expect(await gateway.status('DELETE', 'queues/work')).toBe(204)
    expect(await gateway.problem('GET', 'queues/work')).toEqual([404, 'QUEUE_NOT_FOUND'])
    expect(await gateway.problem('DELETE', 'queues/jobs')).toEqual([409, 'QUEUE_IN_USE'])
  })

  test('have a policy, which is told and outlives a restart; priorities, attempts and what is in memory only are as declared', async () => {
    const policy = {
      max_attempts: 2,
      retry: { first_ms: 10, max_ms: 50, waiting: 7 },
      ttl_ms: 3_600_000,
      max_priority: 3,
      single_active_consumer: true,
      exclusive: false,
      expires_ms: null,
    }
    expect(await gateway.status('PUT', 'queues/careful', policy)).toBe(201)
    expect(await gateway.status('PUT', 'queues/careful', policy)).toBe(204)
    expect(await gateway.problem('PUT', 'queues/careful', { ...policy, ttl_ms: 1 })).toEqual([
      409,
      'DECLARATION_MISMATCH',
    ])
    expect(await gateway.status('PUT', 'queues/brief', { durable: false })).toBe(201)
    for (const [payload, priority] of [
      ['low', 0],
      ['high', 3],
      ['highest', 9],
    ] as const) {
      await gateway.send('POST', 'publish', { exchange: '', routing_key: 'careful', payload, priority })
    }
    await gateway[Symbol.asyncDispose]()
    gateway = await startGateway(directory.path)
    expect(await gateway.read(contract.queue, 'GET', 'queues/careful')).toMatchObject({
      durable: true,
      consumers: 0,
      depth: 3,
      waiting: 0,
      parked: false,
      policy,
    })
    const messages = await gateway.read(contract.messageList, 'POST', 'queues/careful/get', {
      count: 9,
      ack_mode: 'ack',
    })
    expect(messages.map(({ payload }) => payload)).toEqual(['high', 'highest', 'low'])
    expect(await gateway.problem('GET', 'queues/brief')).toEqual([404, 'QUEUE_NOT_FOUND'])
    const shown = await gateway.sluice('queues', 'show', 'careful')
    expect(shown.stdout).toContain(
      'durable; ack fsync; 2 attempts, pauses 10ms to 50ms; time to live 1h; priorities to 3; single active consumer',
    )
    expect(await gateway.status('DELETE', 'queues/careful')).toBe(204)
  })

  test.each([
    [{ max_attempts: 0 }],
    [{ max_priority: 10 }],
    [{ ttl_ms: 0 }],
    [{ retry: { first_ms: 100, max_ms: 10 } }],
    [{ retry: { waiting: 1_000_000 } }],
    [{ exclusive: 'yes' }],
    [{ x_expires: 1 }],
  ])('with policy %j are refused with 400', async policy => {
    expect(await gateway.problem('PUT', 'queues/careful', policy)).toEqual([400, 'REQUEST_INVALID'])
  })

  test('whose messages have had their time are emptied without anybody asking, and go when nobody uses them', async () => {
    await gateway.send('PUT', 'queues/fresh', { ttl_ms: 20, expires_ms: 600_000 })
    await gateway.send('POST', 'publish', { exchange: '', routing_key: 'fresh', payload: 'stale' })
    const fresh = () => gateway.read(contract.queue, 'GET', 'queues/fresh')
    const expired = await eventually(async () => ((await fresh()).depth === 0 ? fresh() : null), {
      what: 'an empty queue',
    })
    expect(expired.ledger).toMatchObject({ accepted: 1, expired: 1 })
    await gateway.send('PUT', 'queues/passing', { expires_ms: 20 })
    await eventually(async () => (await gateway.status('GET', 'queues/passing')) === 404, { what: 'the queue to go' })
  })

  test('MQTT 5 user properties choose the queue, and MQTT subscribers are told topics of AMQP keys', async () => {
    await gateway.send('PUT', 'bindings', {
      source: 'mqtt',
      destination: 'amq.headers',
      destination_type: 'exchange',
      routing_key: 'line/#',
    })
    await gateway.send('PUT', 'bindings', {
      source: 'amq.headers',
      destination: 'parked',
      arguments: { 'x-match': 'all', kind: 'alarm' },
    })
    await gateway.send('PUT', 'exchanges/centre', { type: 'topic' })
    await gateway.send('PUT', 'bindings', {
      source: 'centre',
      destination: 'mqtt',
      destination_type: 'exchange',
      routing_key: 'commands.#',
    })
    const client = await connectAsync(gateway.mqttUrl, { protocolVersion: 5, reconnectPeriod: 0 })
    const kinds = ['alarm', 'reading', 'reading', 'alarm', 'alarm', 'reading']
    await Promise.all(
      kinds.map((kind, n) =>
        client.publishAsync('line/1', String(n), { qos: 1, properties: { userProperties: { kind } } }),
      ),
    )
    const parked = await gateway.read(contract.peekedList, 'GET', 'queues/parked/messages')
    expect(parked.map(({ payload }) => payload)).toEqual(['0', '3', '4'])
    expect(parked[0]).toMatchObject({ exchange: 'mqtt', routing_key: 'line/1', user_properties: [['kind', 'alarm']] })

    const heard: string[] = []
    client.on('message', (topic, payload, { qos }) => heard.push(`${topic} ${payload} ${qos}`))
    await client.subscribeAsync('commands/#', { qos: 1 })
    for (const qos of [1, 0]) {
      const message = { exchange: 'centre', routing_key: `commands.v/2.${qos}`, payload: 'on', qos }
      expect(await gateway.read(contract.publishResponse, 'POST', 'publish', message)).toEqual({ routed: true })
    }
    await eventually(() => heard.length === 2)
    expect(heard.toSorted()).toEqual(['commands/v.2/0 on 0', 'commands/v.2/1 on 1'])
    await client.endAsync()
  })
})

describe('the command line', () => {
  test('lists exchanges and bindings in 80 columns, and as JSON', async () => {
    await gateway.send('PUT', `exchanges/${'long-name-'.repeat(10)}`, {
      type: 'fanout',
      alternate_exchange: 'amq.fanout',
    })
    const exchanges = await gateway.sluice('exchanges')
    expect(exchanges).toMatchObject({ status: 0, stderr: '' })
    expect(exchanges.stdout).toMatch(/^EXCHANGE +TYPE +KEPT +INTERNAL +ALTERNATE +ORIGIN\n/)
    expect(exchanges.stdout).toMatch(/^\(default\) +direct +durable +- +- +built-in$/m)
    await gateway.send('PUT', 'bindings', {
      source: 'amq.headers',
      destination: 'parked',
      arguments: { kind: 'alarm'.repeat(20), line: null },
    })
    const bindings = await gateway.sluice('bindings', 'ls')
    expect(bindings.stdout).toMatch(/^mqtt +queue jobs +jobs\/# +- +config$/m)
    for (const line of `${exchanges.stdout}${bindings.stdout}`.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
    contract.exchangeList.parse(JSON.parse((await gateway.sluice('exchanges', 'ls', '--json')).stdout))
    contract.bindingList.parse(JSON.parse((await gateway.sluice('bindings', '--json')).stdout))
  })

  test('peeks into a queue and purges it, the latter only when told twice', async () => {
    for (let n = 0; n < 12; n++)
      await gateway.send('POST', 'publish', { topic: `jobs/${n}`, payload: `do \u001b[31m${n}` })
    const peek = await gateway.sluice('queues', 'peek', 'jobs', '--limit', '11')
    expect(peek).toMatchObject({ status: 0, stderr: '' })
    const lines = peek.stdout.trim().split('\n')
    expect(lines).toHaveLength(12)
    expect(lines[0]).toMatch(/^ *AGE +EXCHANGE +KEY +QOS +STATE +BYTES +PAYLOAD$/)
    expect(lines[11]).toMatch(/ mqtt +jobs\/10 +1 +waits +10 B +do \\x1b\[31m10$/)
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80)
    const json = await gateway.sluice('queues', 'peek', 'jobs', '--json')
    expect(contract.peekedList.parse(JSON.parse(json.stdout))).toHaveLength(10)

    const unsure = await gateway.sluice('queues', 'purge', 'jobs')
    expect(unsure).toMatchObject({ status: 2, stdout: '' })
    expect(unsure.stderr).toMatch(
      /^sluice: 12 messages \(.*\) of jobs would be lost; nothing was dropped, add --yes.*\n$/,
    )
    expect(await gateway.sluice('queues', 'purge', 'jobs', '--yes')).toEqual({
      status: 0,
      stdout: '12 messages of jobs dropped\n',
      stderr: '',
    })
    expect(JSON.parse((await gateway.sluice('queues', 'purge', 'jobs', '--yes', '--json')).stdout)).toEqual({
      purged: 0,
    })
    expect((await gateway.sluice('queues', 'peek', 'jobs')).stdout).toBe('the queue is empty\n')
    expect(await gateway.sluice('queues', 'purge', 'none', '--yes')).toMatchObject({
      status: 1,
      stderr: 'sluice: there is no queue none; `sluice queues` lists those there are\n',
    })
  })
})

test('what was declared is there after a restart; what left the configuration stays as an orphan that may be deleted', async () => {
  await using own = await tempDir()
  {
    await using before = await startGateway(own.path)
    await before.send('PUT', 'exchanges/orders', { type: 'direct' })
    await before.send('PUT', 'exchanges/passing', { type: 'direct', durable: false })
    await before.send('PUT', 'queues/work', { limits: { on_full: 'drop_oldest' } })
    await before.send('PUT', 'bindings', { source: 'orders', destination: 'work', routing_key: 'k' })
    await before.send('PUT', 'bindings', { source: 'orders', destination: 'jobs', routing_key: 'k' })
    await before.send('PUT', 'bindings', { source: 'passing', destination: 'work', routing_key: 'k' })
    await before.send('POST', 'publish', { exchange: 'orders', routing_key: 'k', payload: 'kept' })
  }
  {
    await using after = await startGateway(own.path, 'queues: { work: { limits: { messages: 7 } } }\n')
    const bindings = await after.read(contract.bindingList, 'GET', 'bindings')
    expect(bindings.map(({ source, destination }) => [source, destination]).toSorted()).toEqual([
      ['orders', 'jobs'],
      ['orders', 'work'],
    ])
    // The configuration has the last word on a queue it names.
    expect(await after.read(contract.queue, 'GET', 'queues/work')).toMatchObject({
      origin: 'config',
      depth: 1,
      limits: { messages: 7, on_full: 'reject' },
    })
    expect(await after.problem('GET', 'exchanges/passing')).toEqual([404, 'EXCHANGE_NOT_FOUND'])
    expect(await after.read(contract.messageList, 'POST', 'queues/jobs/get', { ack_mode: 'ack' })).toMatchObject([
      { exchange: 'orders', routing_key: 'k', payload: 'kept' },
    ])
    expect(await after.status('DELETE', 'queues/jobs')).toBe(204)
    await after.send('POST', 'publish', { exchange: 'orders', routing_key: 'k', payload: 'more' })
  }
  await using last = await startGateway(own.path)
  const queues = await last.read(contract.queueList, 'GET', 'queues')
  expect(queues.map(({ name, depth }) => [name, depth]).toSorted()).toEqual([
    ['jobs', 0],
    ['parked', 0],
    ['work', 2],
  ])
})

test('bindings of routes are listed, and a queue named like a route is refused by the configuration', async () => {
  await using own = await tempDir()
  const upstream = `upstreams: { central: { urls: [ "amqp://127.0.0.1:${await freePort()}" ] } }
routes: { telemetry: { from: [ "sensors/#" ], upstream: central, exchange: { name: telemetry } } }
`
  {
    await using running = await startGateway(own.path, '', upstream)
    expect(await running.read(contract.bindingList, 'GET', 'bindings')).toMatchObject([
      { source: 'mqtt', destination: 'telemetry', routing_key: 'sensors/#', origin: 'config' },
    ])
  }
  await expect(startGateway(own.path, 'queues: { telemetry: {} }\n', upstream)).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: expect.stringMatching(/queues\.telemetry: route telemetry has a queue of this name, its outbox/),
  })
})
