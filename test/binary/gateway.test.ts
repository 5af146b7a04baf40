import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { promisify } from 'node:util'
import { connectAsync } from 'mqtt'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { freePort } from '../../scripts/free-port.ts'
import { type RabbitPeer, startRabbit } from '../../scripts/peers.ts'
import { CertificateAuthority } from '../support/certificates.ts'
import { eventually, eventuallyPasses } from '../support/eventually.ts'
import { BARE_ENVIRONMENT, BUILD_DEADLINE_MS, placeExecutable } from '../support/executable.ts'
import { startGatewayProcess } from '../support/gateway-process.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'
import { collectUpstream } from '../support/upstream-collector.ts'

const run = promisify(execFile)
const SOURCES = [process.execPath, resolve(import.meta.dirname, '../../src/main.ts')]
const TEST_DEADLINE_MS = 60_000
const MESSAGES = 200
/** Three times the bar of docs/footprint.md, which is for an idle machine. */
const READY_MS = 270
const STARTS = 5

let place: TempDir
let rabbitPlace: TempDir
let executable: string
let rabbit: RabbitPeer

beforeAll(async () => {
  place = await tempDir()
  rabbitPlace = await tempDir()
  executable = await placeExecutable(place.path)
  rabbit = await startRabbit({ directory: rabbitPlace.path })
}, BUILD_DEADLINE_MS)

afterAll(async () => {
  await rabbit?.stop()
  await place.remove()
  await rabbitPlace.remove()
})

/** One route for everything below sensors/. */
function routeTo(amqpUrl: string, exchange: string): string {
  return [
    `upstreams: { central: { urls: [ "${amqpUrl}" ], reconnect: { first: 50ms, max: 200ms } } }`,
    `routes: { all: { from: [ "sensors/#" ], upstream: central, exchange: { name: ${exchange} }, order: strict } }`,
  ].join('\n')
}

async function nobodyThere(): Promise<string> {
  return `amqp://127.0.0.1:${await freePort()}`
}

/** Publishes at QoS 1 and resolves when all are acknowledged; the payloads. */
async function publishAll(mqttUrl: string, prefix: string): Promise<string[]> {
  const client = await connectAsync(mqttUrl)
  const payloads = Array.from({ length: MESSAGES }, (_, index) => `${prefix}-${index}`)
  await Promise.all(payloads.map(payload => client.publishAsync('sensors/a/b', payload, { qos: 1 })))
  await client.endAsync()
  return payloads
}

describe('the executable alone, without Node', () => {
  const alone = (directory: string, config: string) =>
    startGatewayProcess({ command: [executable], directory, config, environment: BARE_ENVIRONMENT })
  const sources = (directory: string, config: string) => startGatewayProcess({ command: SOURCES, directory, config })

  test('serves MQTT between clients and stops in order', { timeout: TEST_DEADLINE_MS }, async () => {
    await using directory = await tempDir()
    await using gateway = await alone(directory.path, '')
    const subscriber = await connectAsync(gateway.mqttUrl, { protocolVersion: 5 })
    const received: string[] = []
    subscriber.on('message', (topic, payload) => received.push(`${topic} ${payload}`))
    await subscriber.subscribeAsync('rooms/+/light', { qos: 1 })
    const publisher = await connectAsync(gateway.mqttUrl)
    await publisher.publishAsync('rooms/7/light', 'on', { qos: 1 })
    await publisher.publishAsync('rooms/7/light', 'off', { qos: 0 })
    await eventuallyPasses(() => expect(received).toEqual(['rooms/7/light on', 'rooms/7/light off']))
    await publisher.endAsync()
    await subscriber.endAsync()
    expect(await gateway.stop()).toBe(0)
  })

  test('serves and speaks TLS, and WebSocket over it', { timeout: TEST_DEADLINE_MS }, async () => {
    await using directory = await tempDir()
    const authority = await CertificateAuthority.create(directory.path)
    const { cert, key } = await authority.issue('gateway', { alternativeNames: ['IP:127.0.0.1'] })
    const [port, webSocketPort] = [String(await freePort()), String(await freePort())]
    const environment = {
      ...BARE_ENVIRONMENT,
      ...{ SLUICE_LISTENERS__MQTTS__PORT: port, SLUICE_LISTENERS__WSS__PORT: webSocketPort },
      ...{ SLUICE_LISTENERS__MQTTS__TLS__CERT: cert, SLUICE_LISTENERS__MQTTS__TLS__KEY: key },
      ...{ SLUICE_LISTENERS__WSS__TLS__CERT: cert, SLUICE_LISTENERS__WSS__TLS__KEY: key },
    }
    await using gateway = await startGatewayProcess({ command: [executable], directory: directory.path, environment })
    const subscriber = await connectAsync(`mqtts://127.0.0.1:${port}`, { ca: await readFile(authority.cert) })
    const received: string[] = []
    subscriber.on('message', (_topic, payload) => received.push(payload.toString()))
    await subscriber.subscribeAsync('over/tls')
    const message = ['--cafile', authority.cert, '-t', 'over/tls', '-q', '1']
    await run(executable, ['pub', '-p', port, ...message, '-m', 'hello'])
    await run(executable, ['pub', '--url', `wss://127.0.0.1:${webSocketPort}`, ...message, '-m', 'again'])
    await eventuallyPasses(() => expect(received).toEqual(['hello', 'again']))
    await subscriber.endAsync()
    expect(await gateway.stop()).toBe(0)
  })

  test('is soon there again', { timeout: TEST_DEADLINE_MS }, async () => {
    await using directory = await tempDir()
    const config = routeTo(await nobodyThere(), 'soon')
    const tookMs: number[] = []
    for (let start = 0; start < STARTS; start++) {
      const startedAt = performance.now()
      await using gateway = await alone(directory.path, config)
      tookMs.push(performance.now() - startedAt)
      await gateway.stop()
    }
    expect(Math.min(...tookMs)).toBeLessThan(READY_MS)
  })

  test('forwards to RabbitMQ', { timeout: TEST_DEADLINE_MS }, async () => {
    await using directory = await tempDir()
    await using upstream = await collectUpstream(rabbit.url, 'forwards')
    await using gateway = await alone(directory.path, routeTo(rabbit.url, 'forwards'))
    const published = await publishAll(gateway.mqttUrl, 'forwarded')
    await eventuallyPasses(() => expect(upstream.payloads).toEqual(published))
  })

  test('keeps what it acknowledged through SIGKILL while the upstream is away', {
    timeout: TEST_DEADLINE_MS,
  }, async () => {
    await using directory = await tempDir()
    await using upstream = await collectUpstream(rabbit.url, 'killed')
    const published: string[] = []
    for (const round of [1, 2, 3]) {
      await using gateway = await alone(directory.path, routeTo(await nobodyThere(), 'killed'))
      published.push(...(await publishAll(gateway.mqttUrl, `round-${round}`)))
      await gateway.kill()
    }
    await using gateway = await alone(directory.path, routeTo(rabbit.url, 'killed'))
    await eventuallyPasses(() => expect(new Set(upstream.payloads)).toEqual(new Set(published)))
    expect(await gateway.stop()).toBe(0)
  })

  test.each([
    ['the sources', 'the executable'],
    ['the executable', 'the sources'],
  ] as const)('a store written by %s is read by %s', { timeout: TEST_DEADLINE_MS }, async (writer, reader) => {
    const start = { 'the sources': sources, 'the executable': alone }
    const exchange = `handed-over-to-${reader.replace(' ', '-')}`
    await using directory = await tempDir()
    await using upstream = await collectUpstream(rabbit.url, exchange)
    const first = await start[writer](directory.path, routeTo(await nobodyThere(), exchange))
    const published = await publishAll(first.mqttUrl, 'handed-over')
    expect(await first.stop()).toBe(0)
    await using second = await start[reader](directory.path, routeTo(rabbit.url, exchange))
    await eventuallyPasses(() => expect(upstream.payloads).toEqual(published))
    await eventually(async () => (await fetch(`${second.httpUrl}/health/ready`)).ok)
  })
})
