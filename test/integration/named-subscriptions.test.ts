import mqtt, { type MqttClient } from 'mqtt'
import pino from 'pino'
import { expect, test } from 'vitest'
import type * as z from 'zod/mini'
import { queueList, sessionDetail, sessionList } from '../../src/api/contract.ts'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { eventually } from '../support/eventually.ts'
import { runSluice } from '../support/run-sluice.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

/** `$queue/NAME` and `$stream/NAME/FROM` with clients we did not write, and over a restart of the gateway on the same data. */

async function startGateway(directory: TempDir) {
  const set = [
    `data_dir=${directory.path}`,
    'listeners.mqtt.port=0',
    'http.port=0',
    'queues.jobs.bind=jobs/#',
    'streams.history.bind=jobs/#',
    'queues.jobs.max_attempts=3',
    'queues.jobs.retry.backoff.first=1ms',
    'queues.jobs.retry.backoff.max=1ms',
  ]
  const config = await loadConfig({ file: null, env: {}, set })
  const broker = await Broker.start(config, { log: pino({ level: 'silent' }) })
  const port = broker.addresses.get('mqtt')?.port ?? expect.fail('the gateway has no MQTT listener')
  const http = broker.addresses.get('http')?.port ?? expect.fail('the gateway has no HTTP listener')
  const clients: MqttClient[] = []
  const request = (path: string, init: RequestInit = {}) => fetch(`http://127.0.0.1:${http}/api/v1/${path}`, init)
  const get = async <T extends z.ZodMiniType>(path: string, schema: T): Promise<z.output<T>> =>
    schema.parse(await (await request(path)).json())
  const queue = async (name: string) =>
    (await get('queues?all', queueList)).find(one => one.name === name) ?? expect.fail(`there is no queue ${name}`)
  return {
    port,
    connect: async (
      clientId: string,
      protocolVersion: 4 | 5,
      {
        receiveMaximum = 65_535,
        clean = true,
        onMessage,
      }: { receiveMaximum?: number; clean?: boolean; onMessage?: (topic: string, payload: Buffer) => void } = {},
    ): Promise<MqttClient> => {
      const sessionExpiryInterval = clean ? 0 : 60
      const properties = protocolVersion === 5 ? { properties: { receiveMaximum, sessionExpiryInterval } } : {}
      const options = { protocolVersion, clientId, reconnectPeriod: 0, clean, ...properties }
      const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, options)
      clients.push(client)
      // A session that is resumed is sent messages right behind CONNACK.
      if (onMessage !== undefined) client.on('message', onMessage)
      await new Promise((connected, failed) => client.once('connect', connected).once('error', failed))
      return client
    },
    request,
    get,
    queue,
    jobs: () => queue('jobs'),
    async [Symbol.asyncDispose]() {
      for (const client of clients) await client.endAsync(true)
      await broker.stop()
    },
  }
}

/** MQTT.js does not look at the receive maximum of the broker (64), so it gets no more than that at once. */
async function publish(client: MqttClient, texts: readonly string[]): Promise<void> {
  for (let n = 0; n < texts.length; n += 50) {
    await Promise.all(texts.slice(n, n + 50).map(text => client.publishAsync(`jobs/${text}`, text, { qos: 1 })))
  }
}

const numbers = (count: number): string[] => Array.from({ length: count }, (_, n) => `${n}`)

for (const protocolVersion of [4, 5] as const) {
  for (const filter of ['$queue/jobs', '$share/workers/jobs/#']) {
    test(`MQTT.js, version ${protocolVersion}: two workers share a thousand jobs of ${filter}, each is done once`, async () => {
      await using directory = await tempDir()
      await using gateway = await startGateway(directory)
      const done: string[][] = [[], []]
      for (const [n, own] of done.entries()) {
        const worker = await gateway.connect(`worker-${n}`, protocolVersion)
        worker.on('message', (topic, payload) => own.push(`${topic} ${payload}`))
        expect((await worker.subscribeAsync(filter, { qos: 1 }))[0]?.qos).toBe(1)
      }
      await publish(await gateway.connect('boss', protocolVersion), numbers(1000))
      const name = filter.startsWith('$queue/') ? 'jobs' : filter
      await eventually(async () => (await gateway.queue(name)).ledger.settled === 1000, { what: 'all jobs' })
      expect(done.flat().sort()).toEqual(
        numbers(1000)
          .map(text => `jobs/${text} ${text}`)
          .sort(),
      )
      // In turn among those with room.
      for (const own of done) expect(own.length).toBeGreaterThan(300)
    })
  }
}

test('a group and the sessions that share it are shown, and end one by one', async () => {
  await using directory = await tempDir()
  await using gateway = await startGateway(directory)
  const group = '$share/workers/jobs/#'
  const away = await gateway.connect('away', 5, { clean: false })
  await away.subscribeAsync(group, { qos: 1, rap: true, properties: { subscriptionIdentifier: 7 } })
  await away.endAsync()
  await publish(await gateway.connect('boss', 5), numbers(3))
  expect(await gateway.queue(group)).toMatchObject({ kind: 'group', consumers: 0, depth: 3 })
  const sessions = await gateway.get('sessions', sessionList)
  expect(sessions.find(({ id }) => id === 'away')).toMatchObject({ connected: false, session_expiry_ms: 60_000 })
  const { filters, ends_in_ms } = await gateway.get('sessions/away', sessionDetail)
  expect(filters).toMatchObject([{ filter: group, qos: 1, retain_as_published: true, identifier: 7 }])
  expect(ends_in_ms).toBeGreaterThan(0)
  const present = await gateway.connect('present', 4)
  const done: string[] = []
  present.on('message', (_topic, payload) => done.push(payload.toString()))
  await present.subscribeAsync(group, { qos: 0 })
  await eventually(() => done.length === 3)
  expect((await gateway.request('queues/$share%2Fworkers%2Fjobs%2F%23', { method: 'DELETE' })).status).toBe(404)
  for (const id of ['away', 'present']) {
    expect((await gateway.request(`sessions/${id}`, { method: 'DELETE' })).status).toBe(204)
    expect((await gateway.request(`sessions/${id}`)).status).toBe(404)
  }
  await eventually(() => !present.connected)
  expect((await gateway.get('queues?all', queueList)).map(({ name }) => name)).not.toContain(group)
})

test('jobs of a worker that dies, and of a gateway that restarts, are done by the next', async () => {
  await using directory = await tempDir()
  {
    await using gateway = await startGateway(directory)
    const boss = await gateway.connect('boss', 5)
    await publish(boss, numbers(10))
    const taken: string[] = []
    const mortal = await gateway.connect('mortal', 5)
    // Takes its jobs and never answers.
    mortal.handleMessage = ({ payload }) => taken.push(payload.toString())
    await mortal.subscribeAsync('$queue/jobs', { qos: 1 })
    await eventually(async () => (await gateway.jobs()).in_flight === 10)
    mortal.stream.destroy()
    await eventually(async () => (await gateway.jobs()).in_flight === 0)
    expect(taken).toEqual(['0'])
    const worker = await gateway.connect('worker', 5, { receiveMaximum: 1 })
    const seen: string[] = []
    worker.handleMessage = ({ payload }, answered) => {
      seen.push(payload.toString())
      // The fourth is never answered: the gateway stops while it is in flight.
      if (seen.length <= 3) answered()
    }
    await worker.subscribeAsync('$queue/jobs', { qos: 1 })
    await eventually(() => seen.length === 4)
    await eventually(async () => (await gateway.jobs()).ledger.settled === 3)
  }
  await using gateway = await startGateway(directory)
  const jobs = await gateway.jobs()
  expect(jobs).toMatchObject({ depth: 7, ledger: { accepted: 10, settled: 3, queued: 7, in_flight: 0 } })
  const done: string[] = []
  const worker = await gateway.connect('worker', 4)
  worker.on('message', (_topic, payload) => done.push(payload.toString()))
  await worker.subscribeAsync('$queue/jobs', { qos: 1 })
  await eventually(async () => (await gateway.jobs()).depth === 0)
  expect(done.sort()).toEqual(['3', '4', '5', '6', '7', '8', '9'])
})

for (const protocolVersion of [4, 5] as const) {
  test(`MQTT.js, version ${protocolVersion}: a reader of a stream goes on after a restart`, async () => {
    await using directory = await tempDir()
    const read = async (gateway: Awaited<ReturnType<typeof startGateway>>, count: number): Promise<string[]> => {
      const texts: string[] = []
      const onMessage = (_topic: string, payload: Buffer) => texts.push(payload.toString())
      const reader = await gateway.connect('reader', protocolVersion, { clean: false, onMessage })
      await reader.subscribeAsync('$stream/history/first', { qos: 1 })
      await eventually(() => texts.length >= count)
      // Answered behind the acknowledgements.
      await reader.publishAsync('nothing', '', { qos: 1 })
      return texts
    }
    {
      await using gateway = await startGateway(directory)
      await publish(await gateway.connect('boss', protocolVersion), numbers(100))
      expect(await read(gateway, 100)).toEqual(numbers(100))
    }
    await using gateway = await startGateway(directory)
    await publish(await gateway.connect('boss', protocolVersion), ['new'])
    expect(await read(gateway, 1)).toEqual(['new'])
  })
}

test('sluice sub takes what it prints and nothing else, and can refuse', async () => {
  await using directory = await tempDir()
  await using gateway = await startGateway(directory)
  const boss = await gateway.connect('boss', 5)
  const sub = (...args: string[]) =>
    runSluice(['sub', '-t', '$queue/jobs', '-p', `${gateway.port}`, '-W', '30', ...args])
  await publish(boss, ['poison'])
  const refused = await sub('-q', '1', '--nack', 'fail', '-C', '3')
  expect(refused).toEqual({ status: 0, stdout: 'poison\npoison\npoison\n', stderr: '' })
  await eventually(async () => (await gateway.jobs()).depth === 0)
  expect((await gateway.jobs()).ledger).toMatchObject({ settled: 0, dropped: { delivery_limit: 1 } })
  await publish(boss, numbers(5))
  for (const version of ['3.1.1', '5']) {
    expect(await sub('-q', '1', '-C', '1', '-V', version)).toMatchObject({ status: 0, stderr: '' })
  }
  await eventually(async () => (await gateway.jobs()).in_flight === 0)
  expect((await gateway.jobs()).ledger).toMatchObject({ settled: 2, queued: 3 })
  expect(await sub('-q', '0', '--nack', 'fail')).toMatchObject({ status: 2, stderr: expect.stringContaining('--nack') })
  const missing = await runSluice(['sub', '-t', '$queue/none', '-p', `${gateway.port}`])
  expect(missing).toMatchObject({ status: 1, stderr: expect.stringContaining('there is no queue none') })
})
