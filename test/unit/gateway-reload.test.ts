import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connectAsync, type MqttClient } from 'mqtt'
import { describe, expect, test } from 'vitest'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { Reload } from '../../src/gateway-reload.ts'
import { createLogger } from '../../src/telemetry/log.ts'
import { eventually } from '../support/eventually.ts'
import { tempDir } from '../support/temp-dir.ts'

/** A gateway whose configuration can be written again. */
async function startGateway(yaml: string) {
  const directory = await tempDir()
  const file = join(directory.path, 'sluice.yaml')
  const read = async (text: string) => {
    await writeFile(file, text)
    const set = [`data_dir=${join(directory.path, 'data')}`, 'listeners.mqtt.port=0', 'http.port=0']
    return loadConfig({ file, env: {}, set })
  }
  const log = createLogger('silent')
  const broker = await Broker.start(await read(yaml), { log })
  const [mqtt, http] = [broker.addresses.get('mqtt'), broker.addresses.get('http')]
  if (mqtt === undefined || http === undefined) throw new TypeError('both are configured')
  const clients: MqttClient[] = []
  return {
    broker,
    log,
    reload: async (text: string) => broker.reload(await read(text)),
    async client(clientId: string): Promise<MqttClient> {
      const client = await connectAsync(`mqtt://127.0.0.1:${mqtt.port}`, {
        clientId,
        protocolVersion: 5,
        reconnectPeriod: 0,
      })
      clients.push(client)
      return client
    },
    async config(): Promise<unknown> {
      return (await fetch(`http://${http.host}:${http.port}/api/v1/config`)).json()
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) await client.endAsync(true)
      await broker.stop()
      await directory.remove()
    },
  }
}

const rulesWith = (...rules: readonly string[]): string =>
  `auth:\n  acl:\n    - { user: "*", publish: ["sensors/%c"], subscribe: ["sensors/#", "toggled/#"] }\n${rules.map(rule => `    - ${rule}\n`).join('')}`
const WIDE = rulesWith('{ user: "*", publish: ["toggled/#"], subscribe: ["private/#"] }')
const NARROW = rulesWith()

describe('a configuration that is read again', () => {
  test('says what is in force now and what takes a restart, until it is restarted', async () => {
    const read = (...set: readonly string[]) => loadConfig({ file: null, env: {}, set })
    const reload = new Reload(await read())
    const taken: number[] = []
    reload.on(['limits'], ({ limits }) => taken.push(limits.clients))
    reload.on(['log.level'], () => taken.push(-1))
    expect(reload.take(await read())).toEqual({ applied: [], restart: [] })
    const changed = ['limits.clients=7', 'store.disk=1GiB', 'upstreams.a.urls=amqp://u:one@h']
    expect(reload.take(await read(...changed))).toEqual({
      applied: ['limits.clients'],
      restart: ['store.disk', 'upstreams.a'],
    })
    expect(taken).toEqual([7])
    expect(reload.effective).toMatchObject({ limits: { clients: 7 }, store: { disk: '8GiB' }, upstreams: {} })
    expect(reload.take(await read(...changed))).toEqual({ applied: [], restart: ['store.disk', 'upstreams.a'] })
    expect(reload.take(await read())).toEqual({ applied: ['limits.clients'], restart: [] })
  })

  test('differs by a password too, and shows none', async () => {
    const read = (password: string) =>
      loadConfig({ file: null, env: {}, set: [`upstreams.a.urls=amqp://u:${password}@h`] })
    const reload = new Reload(await read('hunter1'))
    expect(reload.take(await read('hunter2'))).toEqual({ applied: [], restart: ['upstreams.a.urls'] })
    expect(JSON.stringify(reload.effective)).not.toMatch(/hunter/)
  })

  test('takes the level of the log, also for what is derived from it', async () => {
    await using gateway = await startGateway('log: { level: silent }')
    const child = gateway.log.child({ route: 'a' })
    expect(await gateway.reload('log: { level: fatal }')).toEqual({ applied: ['log.level'], restart: [] })
    expect([gateway.log.level, child.level]).toEqual(['fatal', 'fatal'])
    expect(await gateway.config()).toMatchObject({ log: { level: 'fatal' } })
  })

  test('counts for clients that come from now on, and nobody is disconnected', async () => {
    await using gateway = await startGateway('{}')
    const first = await gateway.client('first')
    const report = await gateway.reload(
      'limits: { clients: 1, subscriptions_per_session: 1 }\nauth: { allow_anonymous: false }',
    )
    expect(report.applied.toSorted()).toEqual([
      'auth.allow_anonymous',
      'limits.clients',
      'limits.subscriptions_per_session',
    ])
    await expect(gateway.client('second')).rejects.toThrow('Not authorized')
    await gateway.reload('limits: { clients: 1, subscriptions_per_session: 1 }')
    await expect(gateway.client('second')).rejects.toThrow(/Quota exceeded/)
    await first.subscribeAsync('a', { qos: 1 })
    await expect(first.subscribeAsync('b', { qos: 1 })).rejects.toThrow()
    await gateway.reload('{}')
    await gateway.client('second')
    expect(first.connected).toBe(true)
  })

  test('leaves what takes a restart as it was, beside what does not', async () => {
    await using gateway = await startGateway('{}')
    const report = await gateway.reload('limits: { inflight: 7, packet: 64KiB, queues: 10 }')
    expect(report).toEqual({ applied: ['limits.inflight'], restart: ['limits.packet', 'limits.queues'] })
    expect(await gateway.config()).toMatchObject({ limits: { inflight: 7, packet: '1MiB', queues: 5000 } })
    const client = await gateway.client('c')
    await client.publishAsync('a', 'x'.repeat(100_000), { qos: 1 })
  })

  test('with other rules under load drops no connection that is still allowed, and loses no message', async () => {
    await using gateway = await startGateway(WIDE)
    const heard: string[] = []
    const listener = await gateway.client('listener')
    listener.on('message', (_topic, payload) => heard.push(payload.toString()))
    await listener.subscribeAsync(['sensors/#', 'toggled/#'], { qos: 1 })
    const curious = await gateway.client('curious')
    await curious.subscribeAsync(['private/#', 'sensors/nobody'], { qos: 1 })
    const publishers = await Promise.all(Array.from({ length: 10 }, (_, n) => gateway.client(`p${n}`)))
    const all = [listener, curious, ...publishers]
    const closed: string[] = []
    for (const client of all) client.on('close', () => closed.push(client.options.clientId ?? ''))

    let isOver = false
    const accepted: string[] = []
    const refused: string[] = []
    const publish = async (client: MqttClient, topic: string, payload: string): Promise<void> => {
      try {
        await client.publishAsync(topic, payload, { qos: 1 })
        accepted.push(payload)
      } catch (error) {
        expect(error).toMatchObject({ message: expect.stringContaining('Not authorized') })
        refused.push(payload)
      }
    }
    const publishing = publishers.map(async (client, n) => {
      for (let i = 0; !isOver; i++) {
        await Promise.all([
          publish(client, `sensors/p${n}`, `s${n}.${i}`),
          publish(client, `toggled/p${n}`, `t${n}.${i}`),
        ])
      }
    })
    // Each change waits until both what is always allowed and, by the rules before, the other has gone on.
    for (let change = 0; change < 40; change++) {
      const isNarrow = change % 2 === 0
      const { applied } = await gateway.reload(isNarrow ? NARROW : WIDE)
      expect(applied).toEqual(['auth.acl'])
      const [before, other] = [accepted.length, refused.length]
      await eventually(() => accepted.length > before + 50 && (!isNarrow || refused.length > other), { intervalMs: 1 })
    }
    isOver = true
    await Promise.all(publishing)
    expect(refused.length).toBeGreaterThan(0)
    expect(refused.filter(payload => payload.startsWith('s'))).toEqual([])
    await eventually(() => heard.length >= accepted.length)
    expect(heard.toSorted()).toEqual(accepted.toSorted())
    expect(closed).toEqual([])
    // It lost the one that was not always allowed.
    expect([...gateway.broker.gateway.clients()].find(({ id }) => id === 'curious')?.subscriptions).toBe(1)
  })

  test('that took a subscription away tells the client when it asks again', async () => {
    await using gateway = await startGateway(WIDE)
    const client = await gateway.client('c')
    await client.subscribeAsync('private/1', { qos: 1 })
    await gateway.reload(NARROW)
    await expect(client.subscribeAsync('private/1', { qos: 1 })).rejects.toThrow('Not authorized')
    await gateway.reload(WIDE)
    await client.subscribeAsync('private/1', { qos: 1 })
  })
})
