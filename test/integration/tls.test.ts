import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import mqtt, { type MqttClient } from 'mqtt'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { CertificateAuthority, type KeyPair } from '../support/certificates.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

/** TLS as clients have it that we did not write: OpenSSL of mosquitto's clients and of paho, MQTT.js. */

const run = promisify(execFile)

let folder: TempDir
let authority: CertificateAuthority
let device: KeyPair
/** The files the gateway has, which are replaced while it runs. */
let place: KeyPair & { readonly ca: string; readonly crl: string }
let gateway: Broker
let port: number

beforeAll(async () => {
  folder = await tempDir()
  authority = await CertificateAuthority.create(folder.path)
  device = await authority.issue('device-7')
  const own = (name: string) => join(folder.path, name)
  place = { cert: own('cert.pem'), key: own('key.pem'), ca: own('authorities.pem'), crl: own('revoked.pem') }
  await putServer('server')
  await copyFile(authority.cert, place.ca)
  await copyFile(authority.crl, place.crl)
  const tls = { ...place, client_cert: 'required' }
  const config = await loadConfig({
    file: null,
    env: {},
    set: [
      ...[`data_dir=${join(folder.path, 'data')}`, 'listeners.mqtt.port=0', 'http.port=0', 'listeners.mqtts.port=0'],
      ...Object.entries(tls).map(([key, value]) => `listeners.mqtts.tls.${key}=${value}`),
    ],
  })
  gateway = await Broker.start(config, { log: pino({ level: 'silent' }) })
  port = gateway.addresses.get('mqtts')?.port ?? expect.fail('there is no TLS listener')
})

afterAll(async () => {
  await gateway.stop()
  await folder.remove()
})

/** Gives the gateway a new certificate and key. */
async function putServer(name: string): Promise<void> {
  const pair = await authority.issue(name, { alternativeNames: ['IP:127.0.0.1'] })
  await copyFile(pair.cert, place.cert)
  await copyFile(pair.key, place.key)
}

/** Who has subscribed to something. */
const subscribers = () => [...gateway.gateway.clients()].filter(client => client.subscriptions > 0).map(({ id }) => id)

const mosquitto = (...more: string[]) => [
  ...['-h', '127.0.0.1', '-p', `${port}`, '--cafile', authority.cert, '--cert', device.cert, '--key', device.key],
  ...more,
]

const PAHO = `
import sys, ssl, paho.mqtt.client as mqtt
port, ca, cert, key = int(sys.argv[1]), *sys.argv[2:]
received = []
def connect(name):
    client = mqtt.Client(client_id=name)
    client.tls_set(ca, cert, key)
    client.connect("127.0.0.1", port, 60)
    client.loop_start()
    return client
subscriber = connect("paho-sub")
subscriber.on_message = lambda c, u, message: received.append(message.payload)
subscribed = []
subscriber.on_subscribe = lambda *rest: subscribed.append(True)
subscriber.subscribe("paho/#", 2)
import time
def wait_for(condition):
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
wait_for(lambda: subscribed)
publisher = connect("paho-pub")
for n in range(100):
    publisher.publish("paho/a", str(n), 1 + n % 2).wait_for_publish(15)
wait_for(lambda: len(received) == 100)
assert sorted(received, key=int) == [str(n).encode() for n in range(100)], received
print("done")
`

describe('clients of others', () => {
  for (const version of ['tlsv1.2', 'tlsv1.3']) {
    test(`mosquitto_pub and mosquitto_sub, ${version}`, async () => {
      const [id, topic] = [`mosquitto-${version}`, `mosquitto/${version}`]
      const args = mosquitto('--tls-version', version, '-t', topic, '-q', '2')
      const sub = spawn('mosquitto_sub', [...args, '-i', id, '-C', '2', '-W', '20'])
      const [said, ended] = [text(sub.stdout), once(sub, 'close')]
      await eventually(() => subscribers().includes(id), { what: 'the subscription' })
      const large = 'x'.repeat(100_000)
      for (const message of ['small', large]) await run('mosquitto_pub', [...args, '-m', message])
      expect(await ended).toEqual([0, null])
      expect(await said).toBe(`small\n${large}\n`)
    })
  }

  test('mosquitto_pub without a certificate is refused', async () => {
    const args = ['-h', '127.0.0.1', '-p', `${port}`, '--cafile', authority.cert, '-t', 'a', '-m', 'b']
    await expect(run('mosquitto_pub', args)).rejects.toThrow()
  })

  test('paho, a hundred messages of QoS 1 and 2', async () => {
    const args = ['-c', PAHO, `${port}`, authority.cert, device.cert, device.key]
    expect((await run('/usr/bin/python3', args, { timeout: 60_000 })).stdout).toBe('done\n')
  })
})

/** MQTT.js, which does not come back by itself. */
function connect(clientId: string, pair: KeyPair): MqttClient {
  const [ca, cert, key] = [readFileSync(authority.cert), readFileSync(pair.cert), readFileSync(pair.key)]
  const options = { clientId, ca, cert, key, reconnectPeriod: 0, protocolVersion: 5 } as const
  return mqtt.connect(`mqtts://127.0.0.1:${port}`, options)
}

/** `closed` counts how often its connection ended. */
async function open(clientId: string, pair: KeyPair) {
  const client = connect(clientId, pair)
  await new Promise<void>(connected => client.once('connect', () => connected()))
  const state = { client, closed: 0, reason: -1 }
  client.on('close', () => state.closed++)
  client.on('disconnect', packet => {
    state.reason = packet.reasonCode ?? 0
  })
  client.on('error', () => undefined)
  return state
}

test('certificate, key, authorities and revoked certificates change under load: nobody who is allowed is dropped, nothing is lost', async () => {
  const [publisherCount, rounds] = [8, 3]
  const subscriber = await open('subscriber', device)
  const received: string[] = []
  subscriber.client.on('message', (_topic, payload) => received.push(payload.toString()))
  await subscriber.client.subscribeAsync('load/#', { qos: 1 })
  const publishers = await Promise.all(Array.from({ length: publisherCount }, (_, n) => open(`publisher-${n}`, device)))
  let isOver = false
  const load = publishers.map(async ({ client }, n) => {
    const sent: string[] = []
    while (!isOver) {
      sent.push(`${n}/${sent.length}`)
      await client.publishAsync(`load/${n}`, sent.at(-1) ?? '', { qos: 1 })
    }
    return sent
  })
  const more = await CertificateAuthority.create(folder.path, 'more')
  for (let round = 0; round < rounds; round++) {
    const pair = await authority.issue(`victim-${round}`)
    const victim = await open(`victim-${round}`, pair)
    await putServer(`renewed-${round}`)
    await writeFile(
      place.ca,
      Buffer.concat([authority, more].slice(0, 1 + (round % 2)).map(({ cert }) => readFileSync(cert))),
    )
    await authority.revoke(pair)
    await copyFile(authority.crl, place.crl)
    await eventually(() => victim.closed === 1, { what: 'the end of a revoked client' })
    expect(victim.reason).toBe(0x87)
    const again = connect('again', pair).on('error', () => undefined)
    await new Promise<void>(closed => again.once('close', closed))
    expect([...gateway.gateway.clients()].map(({ id }) => id)).not.toContain('again')
    const next = await open('next', device)
    await next.client.endAsync()
  }
  isOver = true
  const sent = (await Promise.all(load)).flat()
  await eventually(() => received.length >= sent.length, { what: 'the last message' })
  expect(received.toSorted()).toEqual(sent.toSorted())
  expect([subscriber, ...publishers].map(({ closed }) => closed)).toEqual(Array(1 + publisherCount).fill(0))
  expect(gateway.gateway.health().reasons).toEqual([])
  await Promise.all([subscriber, ...publishers].map(({ client }) => client.endAsync()))
})
