import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import * as contract from '../../src/api/contract.ts'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { runSluice } from '../support/run-sluice.ts'
import { tempDir } from '../support/temp-dir.ts'

const CONFIG = 'queues: { jobs: { bind: [ "jobs/#" ] } }\nstreams: { history: { bind: [ "sensors/#" ] } }\n'

async function startGateway(directory: string) {
  const file = join(directory, 'sluice.yaml')
  await writeFile(file, CONFIG)
  const set = [`data_dir=${directory}/data`, 'listeners.mqtt.port=0', 'http.port=0']
  const broker = await Broker.start(await loadConfig({ file, env: {}, set }), { log: pino({ level: 'silent' }) })
  const http = broker.addresses.get('http')
  if (http === undefined) throw new TypeError('a running gateway has an HTTP listener')
  const url = `http://${http.host}:${http.port}`
  const send = (method: string, path: string, body?: unknown) =>
    fetch(`${url}/api/v1/${path}`, {
      method,
      ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    })
  return {
    send,
    exported: async () => (await send('GET', 'definitions')).text(),
    sluice: (...args: readonly string[]) => runSluice(args, { env: { SLUICE_URL: url } }),
    [Symbol.asyncDispose]: () => broker.stop(),
  }
}

const HEADERS = { 'x-match': 'any', kind: 'alarm', 7: 1 }

async function declareSome({ send }: Awaited<ReturnType<typeof startGateway>>): Promise<void> {
  for (const [path, body] of [
    ['exchanges/z', { type: 'headers', alternate_exchange: 'a' }],
    ['exchanges/a', { type: 'fanout', internal: true }],
    [
      'queues/work',
      { max_attempts: 3, max_priority: 4, ttl_ms: 1000, dead_letter: { exchange: '', routing_key: 'dead' } },
    ],
    ['queues/dead', {}],
    ['bindings', { source: 'z', destination: 'work', arguments: HEADERS }],
    ['bindings', { source: 'z', destination: 'a', destination_type: 'exchange' }],
    ['bindings', { source: 'mqtt', destination: 'history', routing_key: 'more/#' }],
  ] as const) {
    expect((await send('PUT', path, body)).status).toBe(201)
  }
}

test('an export is imported into a fresh gateway and exported again as it was, also after restarts', async () => {
  await using first = await tempDir()
  await using second = await tempDir()
  let text = ''
  {
    await using gateway = await startGateway(first.path)
    await declareSome(gateway)
    text = await gateway.exported()
    expect((await gateway.send('POST', 'definitions', text)).status).toBe(200)
    expect(await gateway.exported()).toBe(text)
    expect(contract.definitionsDocument.parse(JSON.parse(text)).queues.map(({ origin }) => origin)).toEqual([
      'api',
      'config',
      'api',
    ])
    expect((await gateway.sluice('export', '--output', join(first.path, 'all.json'))).status).toBe(0)
  }
  const file = join(first.path, 'all.json')
  {
    await using again = await startGateway(first.path)
    expect(await again.exported()).toBe(text)
    await using fresh = await startGateway(second.path)
    const before = await fresh.exported()
    const dry = await fresh.sluice('import', file, '--dry-run')
    expect(dry).toMatchObject({ status: 0, stderr: '' })
    expect(dry.stdout).toContain('+ queue work\n')
    expect(dry.stdout).toMatch(
      /WOULD BE CREATED +THERE ALREADY +LEFT TO CONFIGURATION\nexchanges +2 +0 +0\nqueues +2 +0 +1\n/,
    )
    expect(await fresh.exported()).toBe(before)
    expect(await fresh.sluice('import', file)).toMatchObject({ status: 0, stderr: '' })
    expect(await fresh.exported()).toBe(text)
    const twice = await fresh.sluice('import', file, '--json')
    expect(contract.definitionsImported.parse(JSON.parse(twice.stdout))).toMatchObject({
      created: [],
      exchanges: { created: 0, existing: 2, config: 0 },
      queues: { created: 0, existing: 2, config: 1 },
      streams: { created: 0, existing: 0, config: 1 },
      bindings: { created: 0, existing: 3, config: 2 },
    })
  }
  await using restarted = await startGateway(second.path)
  expect(await restarted.exported()).toBe(text)
})

test('what is in the way is told item by item, and nothing is changed', async () => {
  await using directory = await tempDir()
  await using gateway = await startGateway(directory.path)
  await declareSome(gateway)
  const before = await gateway.exported()
  const origin = 'api'
  const retain = { age_ms: 60_000, bytes: 1024 ** 2 }
  const clash = {
    format: 1,
    exchanges: [
      { name: 'new', type: 'topic', origin },
      { name: 'a', type: 'direct', origin },
    ],
    queues: [
      { name: 'new', origin },
      { name: 'jobs', max_attempts: 9, origin },
      { name: 'amq.x', origin },
    ],
    streams: [
      { name: 'work', retain, origin },
      { name: 'new', retain, origin },
    ],
    bindings: [
      { source: 'new', destination: 'new', routing_key: '#', origin },
      { source: 'new', destination: 'nowhere', origin },
    ],
  }
  const response = await gateway.send('POST', 'definitions', clash)
  expect(response.status).toBe(409)
  const problem = contract.problem.parse(await response.json())
  expect(problem).toMatchObject({ code: 'DEFINITIONS_REFUSED', refused: 6 })
  expect(problem.errors?.map(({ item, code }) => [item, code])).toEqual([
    ['exchange a', 'DECLARATION_MISMATCH'],
    ['queue jobs', 'DECLARATION_MISMATCH'],
    ['queue amq.x', 'NOT_AUTHORIZED'],
    ['stream work', 'DECLARATION_MISMATCH'],
    ['stream new', 'REQUEST_INVALID'],
    ['binding from new to queue nowhere with key ""', 'QUEUE_NOT_FOUND'],
  ])
  const file = join(directory.path, 'clash.json')
  await writeFile(file, JSON.stringify(clash))
  const { status, stderr } = await gateway.sluice('import', file)
  expect(status).toBe(1)
  expect(stderr).toMatch(/^sluice: nothing was changed: 6 .*\n {2}exchange a: .*\n {2}queue jobs: /)
  expect(await gateway.exported()).toBe(before)
})

test('a stream that acknowledges in another way is in the way', async () => {
  await using directory = await tempDir()
  await using gateway = await startGateway(directory.path)
  const withStream = (ack: string) => ({
    format: 1,
    streams: [{ name: 'log', retain: { age_ms: 60_000, bytes: 1024 ** 2 }, ack, origin: 'api' }],
  })
  expect((await gateway.send('POST', 'definitions', withStream('buffered'))).status).toBe(200)
  expect(JSON.parse(await gateway.exported()).streams).toContainEqual(
    expect.objectContaining({ name: 'log', ack: 'buffered' }),
  )
  expect((await gateway.send('POST', 'definitions', withStream('buffered'))).status).toBe(200)
  expect((await gateway.send('POST', 'definitions', withStream('fsync'))).status).toBe(409)
})

test('what is no document of definitions is refused and says why', async () => {
  await using directory = await tempDir()
  await using gateway = await startGateway(directory.path)
  const before = await gateway.exported()
  const queue = (attributes: object) => ({ format: 1, queues: [{ name: 'q', origin: 'api', ...attributes }] })
  for (const [body, status, detail] of [
    ['{', 400, /not JSON/],
    ['', 400, /an object is needed/],
    [{}, 400, /format: 1 is what this version/],
    [{ format: 2 }, 400, /format: 1 is what this version/],
    [{ format: 1, users: [] }, 400, /no member users/],
    [{ format: 1, queues: {} }, 400, /queues: a list is needed/],
    [{ format: 1, queues: [{ name: 'q' }] }, 400, /queues\.0.*origin is config, api or client/],
    [queue({ colour: 'red' }), 400, /queues\.0: there is no member colour/],
    [queue({ ttl_ms: -1 }), 400, /queues\.0\.ttl_ms/],
    [queue({ name: '' }), 409, /1 of the definitions/],
    ['x'.repeat(8 * 1024 ** 2 + 1), 413, /larger than 8388608 bytes/],
  ] as const) {
    const response = await gateway.send('POST', 'definitions', body)
    expect([response.status, contract.problem.parse(await response.json()).detail]).toEqual([
      status,
      expect.stringMatching(detail),
    ])
  }
  expect((await gateway.send('POST', 'definitions?dry_run=perhaps', { format: 1 })).status).toBe(400)
  const file = join(directory.path, 'bad.json')
  await writeFile(file, '{ "format": ')
  expect(await gateway.sluice('import', file)).toMatchObject({ status: 1, stderr: expect.stringMatching(/not JSON/) })
  const missing = await gateway.sluice('import', `${file}.gone`)
  expect(missing).toMatchObject({ status: 1, stderr: expect.stringMatching(/cannot be read/) })
  expect(await gateway.exported()).toBe(before)
})
