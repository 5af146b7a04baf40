/** Several URLs of one upstream, and TLS towards it, with a real RabbitMQ behind each. */
import { randomUUID } from 'node:crypto'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type RabbitPeer, startRabbit } from '../../scripts/peers.ts'
import { TcpProxy } from '../../scripts/tcp-proxy.ts'
import type { Login } from '../../src/bridge/upstream.ts'
import { readUpstreamTls } from '../../src/config/tls-files.ts'
import { arrivals, BridgeUnderTest, bindQueue } from '../support/bridge-kit.ts'
import { CertificateAuthority, type KeyPair } from '../support/certificates.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const BOOT_MS = 90_000
const DEADLINE_MS = 60_000
const NO_TLS = { ca: null, client: null }

let directory: TempDir
let authority: CertificateAuthority
let stranger: CertificateAuthority
let gateway: KeyPair
let rabbit: RabbitPeer
let tlsUrl: string
let exchange: string
let queue: string

beforeAll(async () => {
  directory = await tempDir()
  authority = await CertificateAuthority.create(directory.path)
  stranger = await CertificateAuthority.create(directory.path, 'stranger')
  const server = await authority.issue('hub', { alternativeNames: ['DNS:localhost'] })
  gateway = await authority.issue('gw-17')
  rabbit = await startRabbit({
    directory: join(directory.path, 'rabbitmq'),
    tls: { ca: authority.cert, ...server },
  })
  await rabbit.ctl(['add_user', 'gw-17', 'first'])
  await rabbit.ctl(['set_permissions', 'gw-17', '.*', '.*', '.*'])
  if (rabbit.tlsUrl === null) throw new TypeError('it was told to listen with TLS')
  tlsUrl = rabbit.tlsUrl
}, BOOT_MS)

afterAll(async () => {
  await rabbit.stop()
  await directory[Symbol.asyncDispose]()
}, BOOT_MS)

beforeEach(async () => {
  exchange = `ex-${randomUUID()}`
  queue = `q-${randomUUID()}`
  await bindQueue(rabbit.url, queue, exchange)
})

const start = (login: () => Login, options: Parameters<typeof BridgeUnderTest.start>[2] = {}) =>
  BridgeUnderTest.start(
    login,
    { telemetry: { from: 'sensors/#', exchange: { name: exchange, type: 'topic', declare: true } } },
    options,
  )

const urlThrough = ({ port }: TcpProxy): string => `amqp://guest:guest@127.0.0.1:${port}`

async function expectAll(bridge: BridgeUnderTest): Promise<void> {
  await bridge.settlesAll()
  const numbers = (await arrivals(rabbit.url, queue)).map(({ payload }) => Number(payload))
  expect(new Set(numbers)).toEqual(new Set(Array.from({ length: bridge.published }, (_, i) => i)))
}

describe('of several URLs', () => {
  test('the next one is used while the first is away, and the first again once it is back, without a message lost or repeated', {
    timeout: DEADLINE_MS,
  }, async () => {
    await using first = await TcpProxy.start({ port: rabbit.port })
    await using second = await TcpProxy.start({ port: rabbit.port })
    await using bridge = await start(() => ({ urls: [urlThrough(first), urlThrough(second)], tls: NO_TLS }))
    await bridge.reaches('forwarding')
    expect(bridge.status().url).toContain(String(first.port))
    await bridge.publish(100, 'sensors/a')
    await bridge.settlesAll()
    first.refuse()
    await eventually(() => bridge.status().url.includes(String(second.port)), { what: 'the second' })
    await bridge.reaches('forwarding')
    await bridge.publish(100, 'sensors/a')
    await bridge.settlesAll()
    first.heal()
    await bridge.publishUntil(() => {
      const { state, url } = bridge.status()
      return state === 'forwarding' && url.includes(String(first.port))
    }, 'sensors/a')
    await eventually(() => second.connections === 0, { what: 'the end of the second link' })
    await bridge.settlesAll()
    const found = await arrivals(rabbit.url, queue)
    expect(found).toHaveLength(bridge.published)
    expect(bridge.status().connects).toBe(3)
  })

  test('a black hole at the first is left for the second after its deadline', { timeout: DEADLINE_MS }, async () => {
    await using first = await TcpProxy.start({ port: rabbit.port })
    await using second = await TcpProxy.start({ port: rabbit.port })
    first.blackHole()
    const reconnect = { firstMs: 50, maxMs: 400, connectTimeoutMs: 500, handshakeTimeoutMs: 500, returnMs: 60_000 }
    await using bridge = await start(() => ({ urls: [urlThrough(first), urlThrough(second)], tls: NO_TLS }), {
      reconnect,
    })
    await bridge.reaches('forwarding', 3000)
    expect(bridge.status().url).toContain(String(second.port))
  })

  test('all that are away are tried in rounds, and any that comes back is found', {
    timeout: DEADLINE_MS,
  }, async () => {
    await using first = await TcpProxy.start({ port: rabbit.port })
    await using second = await TcpProxy.start({ port: rabbit.port })
    first.refuse()
    second.refuse()
    await using bridge = await start(() => ({ urls: [urlThrough(first), urlThrough(second)], tls: NO_TLS }))
    await eventually(() => first.accepted >= 3 && second.accepted >= 3, { what: 'three rounds' })
    await bridge.publish(50, 'sensors/a')
    second.heal()
    await bridge.reaches('forwarding', 10_000)
    await expectAll(bridge)
  })

  test('a look at the first that finds nobody disturbs nothing, and a stop does not wait for it', {
    timeout: DEADLINE_MS,
  }, async () => {
    await using first = await TcpProxy.start({ port: rabbit.port })
    await using second = await TcpProxy.start({ port: rabbit.port })
    first.refuse()
    const bridge = await start(() => ({ urls: [urlThrough(first), urlThrough(second)], tls: NO_TLS }))
    await bridge.reaches('forwarding')
    const { accepted } = first
    await eventually(() => first.accepted >= accepted + 2, { what: 'two looks' })
    first.blackHole()
    const lost = first.lostBytes['to-target']
    await eventually(() => first.lostBytes['to-target'] > lost, { what: 'a look into the black hole' })
    expect(bridge.status()).toMatchObject({ state: 'forwarding', connects: 1 })
    const startedMs = performance.now()
    await bridge[Symbol.asyncDispose]()
    expect(performance.now() - startedMs).toBeLessThan(1500)
  })
})

describe('with TLS', () => {
  const withUser = (): string => tlsUrl.replace('://', '://guest:guest@')

  test('messages arrive, and large ones whole', { timeout: DEADLINE_MS }, async () => {
    await using bridge = await start(() => ({
      urls: [withUser()],
      tls: readUpstreamTls({ ca: authority.cert, cert: null, key: null }),
    }))
    await bridge.reaches('forwarding')
    await bridge.publish(500, 'sensors/a')
    await bridge.publish(5, 'sensors/a', {}, 400_000)
    await bridge.settlesAll()
    const found = await arrivals(rabbit.url, queue)
    expect(found).toHaveLength(505)
    expect(found.filter(({ payload }) => payload.length === 400_000)).toHaveLength(5)
  })

  test('the upstream is not believed if another authority signed its certificate, or it is for another name', {
    timeout: DEADLINE_MS,
  }, async () => {
    const login = { urls: [withUser()], tls: readUpstreamTls({ ca: stranger.cert, cert: null, key: null }) }
    await using bridge = await start(() => login)
    await bridge.reaches('waiting')
    expect(bridge.status().lastError).toMatchObject({
      code: 'UPSTREAM_REFUSED',
      message: expect.stringMatching(/certificate.*Check tls\.ca/),
    })
    const elsewhere = {
      urls: [withUser().replace('localhost', '127.0.0.1')],
      tls: { ...login.tls, ca: readUpstreamTls({ ca: authority.cert, cert: null, key: null }).ca },
    }
    await using other = await start(() => elsewhere)
    await other.reaches('waiting')
    expect(other.status().lastError?.message).toMatch(/altnames|IP/)
  })

  test('a client certificate is the login (SASL EXTERNAL), and one that is replaced is used for the next link', {
    timeout: DEADLINE_MS,
  }, async () => {
    const files = {
      ca: authority.cert,
      cert: join(directory.path, 'own.pem'),
      key: join(directory.path, 'own-key.pem'),
    }
    const nobody = await authority.issue('nobody')
    const install = async ({ cert, key }: KeyPair) => {
      await copyFile(cert, files.cert)
      await copyFile(key, files.key)
    }
    await install(nobody)
    await using bridge = await start(() => ({ urls: [tlsUrl], tls: readUpstreamTls(files) }))
    await bridge.reaches('waiting')
    expect(bridge.status().lastError?.code).toBe('UPSTREAM_REFUSED')
    await install(gateway)
    await bridge.reaches('forwarding')
    await bridge.publish(20, 'sensors/a')
    await expectAll(bridge)
    expect(await rabbit.ctl(['list_connections', 'user', 'ssl'])).toMatch(/gw-17\s+true/)
  })

  test('a file that can not be read is said, and no link tried, until it can', { timeout: DEADLINE_MS }, async () => {
    const files = { ca: join(directory.path, 'not-yet.pem'), cert: null, key: null }
    await using bridge = await start(() => ({ urls: [withUser()], tls: readUpstreamTls(files) }))
    await bridge.reaches('waiting')
    expect(bridge.status().lastError).toMatchObject({
      code: 'TLS_FILES_INVALID',
      message: /not-yet\.pem: there is no such file/,
    })
    await copyFile(authority.cert, files.ca)
    await bridge.reaches('forwarding')
  })
})

test('a password that is changed on both sides is used for the next link', { timeout: DEADLINE_MS }, async () => {
  let password = 'first'
  await using bridge = await start(() => ({
    urls: [`amqp://gw-17:${password}@127.0.0.1:${rabbit.port}`],
    tls: NO_TLS,
  }))
  await bridge.reaches('forwarding')
  await rabbit.ctl(['change_password', 'gw-17', 'second'])
  await rabbit.ctl(['close_all_connections', 'for a new password'])
  await eventually(() => bridge.status().lastError?.code === 'UPSTREAM_REFUSED', { what: 'a refusal' })
  await bridge.publish(20, 'sensors/a')
  password = 'second'
  await bridge.reaches('forwarding')
  await expectAll(bridge)
})
