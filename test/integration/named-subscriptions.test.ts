import mqtt, { type MqttClient } from 'mqtt'
import pino from 'pino'
import { expect, test } from 'vitest'
import { queue as queueStatus } from '../../src/api/contract.ts'
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
  return {
    port,
    connect: async (
      clientId: string,
      protocolVersion: 4 | 5,
      { receiveMaximum = 65_535, clean = true }: { receiveMaximum?: number; clean?: boolean } = {},
    ): Promise<MqttClient> => {
      const sessionExpiryInterval = clean ? 0 : 60
      const properties = protocolVersion === 5 ? { properties: { receiveMaximum, sessionExpiryInterval } } : {}
      const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${port}`, {
        protocolVersion,
        clientId,
        reconnectPeriod: 0,
        clean,
        ...properties,
      })
      clients.push(client)
      return client
    },
    jobs: async () => queueStatus.parse(await (await fetch(`http://127.0.0.1:${http}/api/v1/queues/jobs`)).json()),
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
  test(`MQTT.js, version ${protocolVersion}: two workers share a thousand jobs, each is done once`, async () => {
    await using directory = await tempDir()
    await using gateway = await startGateway(directory)
    const done: string[][] = [[], []]
    for (const [n, own] of done.entries()) {
      const worker = await gateway.connect(`worker-${n}`, protocolVersion)
      worker.on('message', (topic, payload) => own.push(`${topic} ${payload}`))
      expect((await worker.subscribeAsync('$queue/jobs', { qos: 1 }))[0]?.qos).toBe(1)
    }
    await publish(await gateway.connect('boss', protocolVersion), numbers(1000))
    await eventually(async () => (await gateway.jobs()).ledger.settled === 1000, { what: 'all jobs' })
    expect(done.flat().sort()).toEqual(
      numbers(1000)
        .map(text => `jobs/${text} ${text}`)
        .sort(),
    )
    // In turn among those with room.
    for (const own of done) expect(own.length).toBeGreaterThan(300)
  })
}

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
      const reader = await gateway.connect('reader', protocolVersion, { clean: false })
      reader.on('message', (_topic, payload) => texts.push(payload.toString()))
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
