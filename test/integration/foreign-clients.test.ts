import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import mqtt from 'mqtt'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import * as z from 'zod/mini'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { CertificateAuthority } from '../support/certificates.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

/** Clients we did not write, as a user has them: Debian's mosquitto-clients and python3-paho-mqtt, MQTT.js from npm. */

const run = promisify(execFile)
const TIMEOUT_S = '20'

let directory: TempDir
let broker: Broker
let port: number
let httpPort: number
/** Of the authority that has issued the gateway's certificate. */
let ca: string
let socketFile: string

beforeAll(async () => {
  directory = await tempDir()
  const authority = await CertificateAuthority.create(directory.path)
  ca = authority.cert
  const { cert, key } = await authority.issue('gateway', { alternativeNames: ['IP:127.0.0.1'] })
  socketFile = join(directory.path, 'mqtt.sock')
  const config = await loadConfig({
    file: null,
    env: {},
    set: [
      ...[`data_dir=${join(directory.path, 'data')}`, 'listeners.mqtt.port=0', 'http.port=0'],
      ...['listeners.ws.port=0', `listeners.unix.path=${socketFile}`],
      ...['listeners.wss.port=0', `listeners.wss.tls.cert=${cert}`, `listeners.wss.tls.key=${key}`],
    ],
  })
  broker = await Broker.start(config, { log: pino({ level: 'silent' }) })
  port = portOf('mqtt')
  httpPort = portOf('http')
})

afterAll(async () => {
  await broker.stop()
  await directory.remove()
})

const portOf = (listener: string) => broker.addresses.get(listener)?.port ?? expect.fail(`there is no ${listener}`)

/** Clients that have subscribed to something, as the API shows them. */
async function subscribers(): Promise<string[]> {
  const response = await fetch(`http://127.0.0.1:${httpPort}/api/v1/clients`)
  const clients = z.array(z.object({ id: z.string(), subscriptions: z.number() })).parse(await response.json())
  return clients.filter(client => client.subscriptions > 0).map(client => client.id)
}

/** Runs `during` once mosquitto_sub has subscribed; gives the lines it prints until it has `count` messages. */
async function mosquittoSub(args: readonly string[], count: number, during: () => Promise<unknown>): Promise<string[]> {
  const address = ['-h', '127.0.0.1', '-p', `${port}`, '-i', 'mosquitto-sub']
  const child = spawn('mosquitto_sub', [...address, '-v', '-C', `${count}`, '-W', TIMEOUT_S, ...args])
  const exited = once(child, 'close')
  const lines: string[] = []
  createInterface({ input: child.stdout }).on('line', line => lines.push(line))
  await eventually(async () => (await subscribers()).includes('mosquitto-sub'), { what: 'the subscription' })
  await during()
  const [status] = await exited
  expect(status).toBe(0)
  return lines
}

const mosquittoPub = (...args: string[]) => run('mosquitto_pub', ['-h', '127.0.0.1', '-p', `${port}`, ...args])

// Clients that know nothing of Sluice: 3.1.1 [MQTT-7.0.0-2].
describe('mosquitto_pub and mosquitto_sub', () => {
  for (const version of ['mqttv31', 'mqttv311', 'mqttv5']) {
    for (const qos of ['0', '1', '2']) {
      test(`${version}, QoS ${qos}`, async () => {
        const topic = `mosquitto/${version}/${qos}`
        const args = ['-V', version, '-q', qos]
        const lines = await mosquittoSub(['-t', 'mosquitto/+/#', ...args], 3, async () => {
          for (const text of ['one', 'two', 'three']) await mosquittoPub('-t', topic, '-m', text, ...args)
        })
        expect(lines).toEqual([`${topic} one`, `${topic} two`, `${topic} three`])
      })
    }
  }

  test('over the socket file', async () => {
    const lines = await mosquittoSub(['-t', 'unix/#'], 1, () =>
      run('mosquitto_pub', ['--unix', socketFile, '-t', 'unix/a', '-m', 'local', '-q', '1']),
    )
    expect(lines).toEqual(['unix/a local'])
  })

  test('a large message, from a 5.0 publisher with properties to a 3.1.1 subscriber', async () => {
    const text = 'x'.repeat(100_000)
    const lines = await mosquittoSub(['-t', 'large', '-V', 'mqttv311', '-q', '1'], 1, () =>
      mosquittoPub('-t', 'large', '-q', '1', '-V', 'mqttv5', '-D', 'publish', 'user-property', 'unit', 'C', '-m', text),
    )
    expect(lines).toEqual([`large ${text}`])
  })

  for (const version of ['mqttv311', 'mqttv5']) {
    test(`${version}: a session that was away gets what has come`, async () => {
      const session = ['-V', version, '-c', '-i', `away-${version}`, '-t', `away/${version}`, '-q', '1']
      const sub = (...args: string[]) =>
        run('mosquitto_sub', ['-h', '127.0.0.1', '-p', `${port}`, '-W', TIMEOUT_S, ...session, ...args])
      await sub('-E')
      for (const text of ['one', 'two']) await mosquittoPub('-t', `away/${version}`, '-m', text, '-q', '1')
      expect((await sub('-C', '2')).stdout).toBe('one\ntwo\n')
    })
  }

  test('a will of a killed client', async () => {
    const lines = await mosquittoSub(['-t', 'will/#'], 1, async () => {
      const mortal = spawn('mosquitto_sub', [
        ...['-h', '127.0.0.1', '-p', `${port}`, '-t', 'nothing', '-i', 'mortal'],
        ...['--will-topic', 'will/a', '--will-payload', 'gone'],
      ])
      await eventually(async () => (await subscribers()).includes('mortal'))
      mortal.kill('SIGKILL')
    })
    expect(lines).toEqual(['will/a gone'])
  })
})

describe('MQTT.js', () => {
  for (const [over, protocolVersion] of [
    ['mqtt', 4],
    ['mqtt', 5],
    ['ws', 3],
    ['ws', 4],
    ['ws', 5],
    ['wss', 5],
  ] as const) {
    test(`version ${protocolVersion} over ${over}: a thousand messages of each QoS, in order`, async () => {
      const address = over === 'mqtt' ? `mqtt://127.0.0.1:${port}` : `${over}://127.0.0.1:${portOf(over)}/mqtt`
      const options = {
        ...{ protocolVersion, ca: await readFile(ca) },
        ...(protocolVersion === 3 && { protocolId: 'MQIsdp' as const }),
      }
      const subscriber = await mqtt.connectAsync(address, { ...options, clientId: `js-sub-${protocolVersion}` })
      const publisher = await mqtt.connectAsync(address, { ...options, clientId: `js-pub-${protocolVersion}` })
      const received: string[][] = [[], [], []]
      subscriber.on('message', (topic, payload, { qos }) => {
        if (topic.endsWith(`/${qos}`)) received[qos]?.push(payload.toString())
      })
      const grants = await subscriber.subscribeAsync(`js${protocolVersion}/#`, { qos: 2 })
      expect(grants[0]?.qos).toBe(2)
      const expected = Array.from({ length: 1000 }, (_, n) => `${n}`)
      let answers: Promise<unknown>[] = []
      for (const text of expected) {
        for (const qos of [0, 1, 2] as const) {
          answers.push(publisher.publishAsync(`js${protocolVersion}/${qos}`, text, { qos }))
        }
        if (answers.length < 60) continue
        // MQTT.js does not look at the receive maximum it is told.
        await Promise.all(answers)
        answers = []
      }
      await Promise.all(answers)
      await eventually(() => received.every(texts => texts.length === 1000), { what: 'all messages' })
      expect(received).toEqual([expected, expected, expected])
      await Promise.all([subscriber.endAsync(), publisher.endAsync()])
    })
  }

  for (const protocolVersion of [4, 5] as const) {
    test(`version ${protocolVersion}: a session resumed without subscribing again`, async () => {
      const address = `mqtt://127.0.0.1:${port}`
      const topic = `js/away/${protocolVersion}`
      const options = {
        ...{ protocolVersion, clientId: `js-away-${protocolVersion}`, clean: false, resubscribe: false },
        ...(protocolVersion === 5 && { properties: { sessionExpiryInterval: 60 } }),
      }
      const leaving = await mqtt.connectAsync(address, options)
      await leaving.subscribeAsync(topic, { qos: 2 })
      await leaving.endAsync()
      const publisher = await mqtt.connectAsync(address)
      for (const qos of [1, 2] as const) await publisher.publishAsync(topic, `${qos}`, { qos })
      const back = mqtt.connect(address, options)
      const received: string[] = []
      back.on('message', (_topic, payload, { qos }) => received.push(`${payload} at ${qos}`))
      await eventually(() => received.length === 2, { what: 'what came meanwhile' })
      expect(received).toEqual(['1 at 1', '2 at 2'])
      await Promise.all([back.endAsync(), publisher.endAsync()])
    })
  }

  test('5.0: topic aliases both ways, and subscription identifiers', async () => {
    const address = `mqtt://127.0.0.1:${port}`
    const subscriber = await mqtt.connectAsync(address, { protocolVersion: 5, properties: { topicAliasMaximum: 3 } })
    const publisher = await mqtt.connectAsync(address, {
      protocolVersion: 5,
      autoUseTopicAlias: true,
      autoAssignTopicAlias: true,
    })
    const received: string[] = []
    let aliased = 0
    subscriber.on('message', (topic, payload, { properties }) => {
      received.push(`${topic} ${payload} ${[properties?.subscriptionIdentifier].flat().sort().join('+')}`)
      if (properties?.topicAlias !== undefined) aliased++
    })
    await subscriber.subscribeAsync('alias/#', { qos: 1, properties: { subscriptionIdentifier: 7 } })
    await subscriber.subscribeAsync('alias/+/odd', { qos: 0, properties: { subscriptionIdentifier: 9 } })
    const expected: string[] = []
    for (let n = 0; n < 100; n++) {
      const topic = `alias/${n % 5}/${n % 2 === 0 ? 'even' : 'odd'}`
      await publisher.publishAsync(topic, `${n}`, { qos: 1 })
      expected.push(`${topic} ${n} ${n % 2 === 0 ? '7' : '7+9'}`)
    }
    await eventually(() => received.length === expected.length, { what: 'all messages' })
    expect(received).toEqual(expected)
    expect(aliased).toBeGreaterThan(20)
    await Promise.all([subscriber.endAsync(), publisher.endAsync()])
  })

  test('5.0: request and response with their properties', async () => {
    const address = `mqtt://127.0.0.1:${port}`
    const service = await mqtt.connectAsync(address, { protocolVersion: 5 })
    const caller = await mqtt.connectAsync(address, { protocolVersion: 5 })
    service.on('message', (_topic, payload, { properties }) => {
      const { responseTopic = '', correlationData = Buffer.alloc(0), userProperties = {} } = properties ?? {}
      service.publish(responseTopic, `${payload}!`, { qos: 1, properties: { correlationData, userProperties } })
    })
    const answered = new Promise<mqtt.IPublishPacket>(resolve =>
      caller.on('message', (_topic, _payload, packet) => resolve(packet)),
    )
    await service.subscribeAsync('rpc/echo', { qos: 1 })
    await caller.subscribeAsync('rpc/reply', { qos: 1 })
    await caller.publishAsync('rpc/echo', 'hello', {
      qos: 1,
      properties: {
        responseTopic: 'rpc/reply',
        correlationData: Buffer.from('42'),
        userProperties: { lang: ['de', 'en'] },
      },
    })
    const { payload, properties } = await answered
    expect(payload.toString()).toBe('hello!')
    expect(properties?.correlationData?.toString()).toBe('42')
    expect({ ...properties?.userProperties }).toEqual({ lang: ['de', 'en'] })
    await Promise.all([service.endAsync(), caller.endAsync()])
  })
})

/** Subscribes, leaves, has a message published, and comes back to a session that is present. */
const PAHO_AWAY = `
import sys, time, paho.mqtt.client as mqtt
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes
version, port = {"311": mqtt.MQTTv311, "5": mqtt.MQTTv5}[sys.argv[1]], int(sys.argv[2])
topic, received, present, subscribed = "paho/away/" + sys.argv[1], [], [], []
def session():
    kwargs = {} if version == mqtt.MQTTv5 else {"clean_session": False}
    client = mqtt.Client(client_id="away" + sys.argv[1], protocol=version, **kwargs)
    client.on_connect = lambda c, u, flags, *rest: present.append(flags["session present"])
    client.on_subscribe = lambda *rest: subscribed.append(True)
    client.on_message = lambda c, u, message: received.append(message.payload)
    if version == mqtt.MQTTv5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 60
        client.connect("127.0.0.1", port, 60, clean_start=False, properties=properties)
    else:
        client.connect("127.0.0.1", port, 60)
    return client
def loop_until(client, condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        client.loop(0.1)
client = session()
loop_until(client, lambda: present)
client.subscribe(topic, 2)
loop_until(client, lambda: subscribed)
client.disconnect()
loop_until(client, lambda: not client.is_connected())
publisher = mqtt.Client(client_id="awaypub" + sys.argv[1])
publisher.connect("127.0.0.1", port, 60)
publisher.loop_start()
publisher.publish(topic, "kept", 2).wait_for_publish()
publisher.disconnect()
client = session()
loop_until(client, lambda: received)
assert (present, received) == ([0, 1], [b"kept"]), (present, received)
print("done")
`

/** Prints what it receives; publishes 200 messages of each QoS, waiting for each acknowledgement. */
const PAHO = `
import sys, paho.mqtt.client as mqtt
version, port = {"31": mqtt.MQTTv31, "311": mqtt.MQTTv311, "5": mqtt.MQTTv5}[sys.argv[1]], int(sys.argv[2])
transport, authorities = sys.argv[3:5]
topic = "paho/" + sys.argv[1]
received = []
def make(name):
    kwargs = {} if version == mqtt.MQTTv5 else {"clean_session": True}
    client = mqtt.Client(client_id=name + sys.argv[1], protocol=version, transport=transport, **kwargs)
    if authorities: client.tls_set(authorities)
    return client
subscriber, publisher = make("sub"), make("pub")
subscribed = []
subscriber.on_connect = lambda client, *rest: client.subscribe(topic + "/+", 2)
subscriber.on_subscribe = lambda *rest: subscribed.append(True)
subscriber.on_message = lambda client, data, message: received.append((message.topic, message.payload, message.qos))
subscriber.connect("127.0.0.1", port, 60)
while not subscribed: subscriber.loop(0.1)
publisher.connect("127.0.0.1", port, 60)
publisher.loop_start()
subscriber.loop_start()
for n in range(200): publisher.publish(topic + "/0", str(n), 0)
for n in range(200):
    publisher.publish(topic + "/1", str(n), 1).wait_for_publish()
    publisher.publish(topic + "/2", str(n), 2).wait_for_publish()
import time
deadline = time.monotonic() + 15
while len(received) < 600 and time.monotonic() < deadline: time.sleep(0.01)
for qos in (0, 1, 2):
    mine = [m for m in received if m[2] == qos]
    assert [m[1] for m in mine] == [str(n).encode() for n in range(200)], mine[:3]
    assert all(m[0] == topic + "/" + str(qos) for m in mine)
publisher.disconnect(); subscriber.disconnect()
print("done")
`

describe('paho', () => {
  for (const [version, over] of [
    ['31', 'mqtt'],
    ['311', 'mqtt'],
    ['5', 'mqtt'],
    ['311', 'ws'],
    ['5', 'ws'],
    ['5', 'wss'],
  ] as const) {
    test(`version ${version} over ${over}: 200 messages of each QoS, in order, each acknowledged`, async () => {
      const transport = [over === 'mqtt' ? 'tcp' : 'websockets', over === 'wss' ? ca : '']
      // Debian's own python: others on the machine may not have the package.
      const { stdout } = await run('/usr/bin/python3', ['-c', PAHO, version, `${portOf(over)}`, ...transport])
      expect(stdout.trim()).toBe('done')
    })
  }

  for (const version of ['311', '5']) {
    test(`version ${version}: a session that was away gets what has come`, async () => {
      const { stdout } = await run('/usr/bin/python3', ['-c', PAHO_AWAY, version, `${port}`])
      expect(stdout.trim()).toBe('done')
    })
  }
})
