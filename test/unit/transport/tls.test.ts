import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { copyFile, writeFile } from 'node:fs/promises'
import { connect as connectTcp } from 'node:net'
import { join } from 'node:path'
import { type ConnectionOptions, connect, type TLSSocket } from 'node:tls'
import pino from 'pino'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { TlsConfig } from '../../../src/config/schema.ts'
import { readTlsFiles } from '../../../src/config/tls-files.ts'
import { Handshakes } from '../../../src/transport/handshakes.ts'
import type { Peer } from '../../../src/transport/listener.ts'
import { TlsListener } from '../../../src/transport/tls.ts'
import { CertificateAuthority, type KeyPair } from '../../support/certificates.ts'
import { eventually } from '../../support/eventually.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

const DAY_MS = 86_400_000

let directory: TempDir
let authority: CertificateAuthority
let stranger: CertificateAuthority
let server: KeyPair
let device: KeyPair
beforeAll(async () => {
  directory = await tempDir()
  authority = await CertificateAuthority.create(directory.path)
  stranger = await CertificateAuthority.create(directory.path, 'stranger')
  server = await authority.issue('server', { alternativeNames: ['DNS:localhost', 'IP:127.0.0.1'] })
  device = await authority.issue('device-7', { alternativeNames: ['email:device-7@site.example', 'URI:urn:device:7'] })
})
afterAll(() => directory.remove())

interface Limits {
  readonly atOnce?: number
  readonly clientsMax?: number
  readonly monotonicMs?: () => number
}

/** A listener whose connections answer what they hear. */
class ListenerUnderTest {
  readonly listener: TlsListener
  readonly handshakes: Handshakes
  readonly peers: Peer[] = []
  readonly dismissed: string[] = []
  readonly logged: { readonly msg: string; readonly reason?: string }[] = []

  private constructor(
    tls: Partial<TlsConfig>,
    { atOnce = 8, clientsMax = 500, monotonicMs = () => performance.now() }: Limits,
  ) {
    const whole: TlsConfig = {
      ...server,
      clientCert: 'none',
      ca: null,
      crl: null,
      userFrom: 'cn',
      minVersion: 'TLSv1.2',
      ...tls,
    }
    this.handshakes = new Handshakes({ atOnce, clientsMax, deadlineMs: 10_000, monotonicMs })
    this.listener = new TlsListener({
      ...whole,
      name: 'mqtts',
      host: '127.0.0.1',
      port: 0,
      alpn: 'mqtt',
      handshakes: this.handshakes,
      monotonicMs,
      readFiles: () => readTlsFiles(whole),
      log: pino({ level: 'info' }, { write: line => void this.logged.push(JSON.parse(line)) }),
    })
  }

  static async start(tls: Partial<TlsConfig> = {}, limits: Limits = {}): Promise<ListenerUnderTest> {
    const under = new ListenerUnderTest(tls, limits)
    await under.listener.start(socket => {
      if (socket.peer !== undefined) under.peers.push(socket.peer)
      socket.on('data', chunk => socket.write(chunk)).on('error', () => undefined)
      return {
        dismiss: why => {
          under.dismissed.push(why)
          socket.destroy()
        },
      }
    })
    return under
  }

  get port(): number {
    return this.listener.address().port
  }

  get failed(): Record<string, number> {
    return Object.fromEntries(this.handshakes.failed)
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.listener.stop()
  }
}

/** Resolves with the socket once an answer came through it, to the code of the error that ended it, or to `closed`. */
async function visit(port: number, options: ConnectionOptions = {}): Promise<TLSSocket | string> {
  const socket = connect({ port, host: '127.0.0.1', ca: readFileSync(authority.cert), ...options })
  return new Promise(resolve => {
    socket.on('error', error => resolve('code' in error ? String(error.code) : error.message))
    socket.on('close', () => resolve('closed'))
    socket.once('data', () => resolve(socket))
    socket.write('hello')
  })
}

async function visitor(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  const socket = await visit(port, options)
  if (typeof socket === 'string') throw new Error(`the connection ended: ${socket}`)
  return socket
}

const withCertificate = ({ cert, key }: KeyPair) => ({ cert: readFileSync(cert), key: readFileSync(key) })
const mutual = () => ({ clientCert: 'required', ca: authority.cert }) as const

test('a client that trusts the authority is heard, by TLS 1.2 and 1.3, with ALPN mqtt and without', async () => {
  await using under = await ListenerUnderTest.start()
  for (const options of [{ maxVersion: 'TLSv1.2' }, { minVersion: 'TLSv1.3' }, { ALPNProtocols: ['mqtt'] }] as const) {
    const socket = await visitor(under.port, options)
    expect(socket.getCipher().name).toMatch(/GCM|CHACHA20/)
    expect(socket.alpnProtocol).toBe('ALPNProtocols' in options ? 'mqtt' : false)
    socket.destroy()
  }
  expect(under.peers).toEqual(
    Array(3).fill({ listener: 'mqtts', isLocal: true, certificateUser: null, isEncrypted: true }),
  )
  await eventually(() => under.handshakes.clients === 0)
  expect(under.handshakes.completed).toBe(3)
})

test('a client that does not trust the authority hangs up, which is told as its refusal', async () => {
  await using under = await ListenerUnderTest.start()
  expect(await visit(under.port, { ca: readFileSync(stranger.cert) })).toBe('UNABLE_TO_VERIFY_LEAF_SIGNATURE')
  await eventually(() => under.handshakes.clients === 0)
  expect(under.peers.length + (under.handshakes.failed.get('closed') ?? 0)).toBe(1)
})

test.each([
  ['TLS 1.1', { maxVersion: 'TLSv1.1', minVersion: 'TLSv1', ciphers: 'DEFAULT@SECLEVEL=0' }, 'version'],
  ['ciphers without forward secrecy', { maxVersion: 'TLSv1.2', ciphers: 'AES128-SHA' }, 'no_cipher'],
  ['another protocol than MQTT', { ALPNProtocols: ['h2'] }, 'alpn'],
] as const)('%s is refused and counted', async (_, options, reason) => {
  await using under = await ListenerUnderTest.start()
  expect(await visit(under.port, options)).toBe('EPROTO')
  await eventually(() => under.handshakes.clients === 0)
  expect(under.failed).toEqual({ [reason]: 1 })
  expect(under.peers).toEqual([])
})

test('min_version TLSv1.3 refuses TLS 1.2', async () => {
  await using under = await ListenerUnderTest.start({ minVersion: 'TLSv1.3' })
  expect(await visit(under.port, { maxVersion: 'TLSv1.2' })).toBe('EPROTO')
  await eventually(() => under.failed.version === 1)
})

test('plain MQTT, HTTP and noise on the TLS port are closed, and counted as not TLS', async () => {
  await using under = await ListenerUnderTest.start()
  for (const bytes of [
    Buffer.from('100c00044d5154540402003c0000', 'hex'),
    Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    Buffer.alloc(5000, 0xee),
  ]) {
    const socket = connectTcp({ port: under.port, host: '127.0.0.1' }).on('error', () => undefined)
    socket.write(bytes)
    await once(socket.resume(), 'close')
  }
  await eventually(() => under.handshakes.clients === 0)
  expect(under.failed).toEqual({ not_tls: 3 })
})

test.each([
  ['the common name', 'cn', 'device-7'],
  ['the e-mail address', 'san_email', 'device-7@site.example'],
  ['the URI', 'san_uri', 'urn:device:7'],
  ['a name of another kind', 'san_dns', null],
  ['nothing', 'none', null],
] as const)('with user_from naming %s the certificate stands for its user', async (_, userFrom, user) => {
  await using under = await ListenerUnderTest.start({ ...mutual(), userFrom })
  ;(await visitor(under.port, withCertificate(device))).destroy()
  expect(under.peers).toMatchObject([{ certificateUser: user, isEncrypted: true }])
})

test('with client_cert: optional a client without a certificate is let in, one whose certificate does not hold is not', async () => {
  await using under = await ListenerUnderTest.start({ clientCert: 'optional', ca: authority.cert })
  ;(await visitor(under.port)).destroy()
  ;(await visitor(under.port, withCertificate(device))).destroy()
  expect(under.peers).toMatchObject([{ certificateUser: null }, { certificateUser: 'device-7' }])
  expect(await visit(under.port, withCertificate(await stranger.issue('device-7')))).toBe('closed')
  await eventually(() => under.failed.untrusted === 1)
  expect(under.peers.length).toBe(2)
})

test('with client_cert: required no certificate, one of a stranger, one that is over and a revoked one are refused, each with its reason', async () => {
  const revoked = await authority.issue('revoked')
  await authority.revoke(revoked)
  await using under = await ListenerUnderTest.start({ ...mutual(), crl: authority.crl })
  await visit(under.port)
  await visit(under.port, withCertificate(await stranger.issue('mallory')))
  const validUntil = new Date(Date.now() - DAY_MS)
  await visit(
    under.port,
    withCertificate(await authority.issue('old', { validFrom: new Date(Date.now() - 2 * DAY_MS), validUntil })),
  )
  await visit(under.port, withCertificate(revoked))
  await eventually(() => under.handshakes.clients === 0)
  expect(under.failed).toEqual({ no_certificate: 1, untrusted: 1, expired: 1, revoked: 1 })
  expect(under.peers).toEqual([])
  ;(await visitor(under.port, withCertificate(device))).destroy()
})

test('a certificate with two common names stands for nobody', async () => {
  const pair = await authority.issue('two', { commonName: 'admin/CN=guest' })
  await using under = await ListenerUnderTest.start(mutual())
  ;(await visitor(under.port, withCertificate(pair))).destroy()
  expect(under.peers).toMatchObject([{ certificateUser: null }])
})

test('half a handshake and then silence ends', async () => {
  let nowMs = 0
  await using under = await ListenerUnderTest.start({}, { atOnce: 2, monotonicMs: () => nowMs })
  const silent = connectTcp({ port: under.port, host: '127.0.0.1' }).on('error', () => undefined)
  // The beginning of a ClientHello.
  silent.write(Buffer.from('160301020001', 'hex'))
  await eventually(() => under.handshakes.clients === 1)
  nowMs = 10_000
  await once(silent.resume(), 'close')
  expect(under.failed).toEqual({ timeout: 1 })
})

test('200 handshakes at once take turns, and all get through', async () => {
  await using under = await ListenerUnderTest.start({}, { atOnce: 4 })
  const sockets = await Promise.all(Array.from({ length: 200 }, () => visitor(under.port)))
  expect(under.handshakes.completed).toBe(200)
  for (const socket of sockets) socket.destroy()
  await eventually(() => under.handshakes.clients === 0)
})

test('one connection more than tls_clients is closed before its handshake and counted', async () => {
  await using under = await ListenerUnderTest.start({}, { clientsMax: 2 })
  const [first] = [await visitor(under.port), await visitor(under.port)]
  expect(await visit(under.port)).toMatch(/closed|ECONNRESET/)
  expect(under.handshakes.refused).toBe(1)
  first.destroy()
  await eventually(() => under.handshakes.clients === 1)
  ;(await visitor(under.port)).destroy()
})

test('a scanner fills counters, not the log', async () => {
  await using under = await ListenerUnderTest.start({}, { monotonicMs: () => 0 })
  for (let n = 0; n < 120; n++) {
    const socket = connectTcp({ port: under.port, host: '127.0.0.1' }).on('error', () => undefined)
    socket.write('GET / HTTP/1.1\r\n\r\n')
    await once(socket.resume(), 'close')
  }
  await eventually(() => under.failed.not_tls === 120)
  expect(under.logged.filter(({ msg }) => msg === 'a TLS handshake failed').length).toBe(100)
})

test('a new certificate is used from the next handshake on, and who is connected stays', async () => {
  const place = { cert: join(directory.path, 'own.pem'), key: join(directory.path, 'own-key.pem') }
  const put = async (pair: KeyPair) => {
    await copyFile(pair.cert, place.cert)
    await copyFile(pair.key, place.key)
  }
  await put(server)
  await using under = await ListenerUnderTest.start(place)
  const before = await visitor(under.port)
  await put(await authority.issue('renewed', { commonName: 'renewed', alternativeNames: ['IP:127.0.0.1'] }))
  under.listener.reload()
  const after = await visitor(under.port)
  expect(after.getPeerX509Certificate()?.subject).toBe('CN=renewed')
  before.write('still here')
  expect(String((await once(before, 'data'))[0])).toBe('still here')
  expect(under.listener.reloads).toEqual({ done: 1, refused: 0 })

  // A key of another certificate: the new files are refused, the ones in use stay.
  await copyFile(device.key, place.key)
  under.listener.reload()
  expect(under.listener.health(Date.now())).toEqual([
    expect.stringMatching(/mqtts\.tls: the old files stay.*own-key\.pem: it does not belong to the certificate/),
  ])
  expect((await visitor(under.port)).getPeerX509Certificate()?.subject).toBe('CN=renewed')
  expect(under.logged.at(-1)?.msg).toMatch(/the old ones stay/)
  await writeFile(place.cert, 'no longer a certificate')
  under.listener.reload()
  expect(under.listener.health(Date.now())).toEqual([expect.stringMatching(/own\.pem: there is no certificate in it/)])
  expect(under.listener.reloads).toEqual({ done: 1, refused: 2 })
  await put(server)
  under.listener.reload()
  expect(under.listener.health(Date.now())).toEqual([])
})

test('a list that revokes a connected client ends it, and nobody else', async () => {
  const other = await CertificateAuthority.create(directory.path, 'revoking')
  const [good, bad] = [await other.issue('good'), await other.issue('bad')]
  await using under = await ListenerUnderTest.start({ clientCert: 'required', ca: other.cert, crl: other.crl })
  const [kept, ended] = [
    await visitor(under.port, withCertificate(good)),
    await visitor(under.port, withCertificate(bad)),
  ]
  await other.revoke(bad)
  under.listener.reload()
  await once(ended, 'close')
  expect(under.dismissed).toEqual(['CERT_REVOKED'])
  kept.write('still here')
  expect(String((await once(kept, 'data'))[0])).toBe('still here')
  await visit(under.port, withCertificate(bad))
  await eventually(() => under.failed.revoked === 1)
})

test('authorities that no longer hold end the clients they let in', async () => {
  const ca = join(directory.path, 'authorities.pem')
  await writeFile(ca, Buffer.concat([readFileSync(authority.cert), readFileSync(stranger.cert)]))
  await using under = await ListenerUnderTest.start({ clientCert: 'required', ca })
  const kept = await visitor(under.port, withCertificate(device))
  const ended = await visitor(under.port, withCertificate(await stranger.issue('other')))
  await copyFile(authority.cert, ca)
  under.listener.reload()
  await once(ended, 'close')
  expect(under.dismissed).toEqual(['UNABLE_TO_GET_ISSUER_CERT'])
  expect(kept.destroyed).toBe(false)
})

describe('a client below a subordinate authority', () => {
  let below: CertificateAuthority
  let chain: { cert: Buffer; key: Buffer }
  const [ca, crl] = ['chain-ca.pem', 'chain-crl.pem']
  const place = (name: string) => join(directory.path, name)
  const trust = (...authorities: CertificateAuthority[]) =>
    writeFile(place(ca), Buffer.concat(authorities.map(({ cert }) => readFileSync(cert))))
  const publish = () => writeFile(place(crl), Buffer.concat([authority, below].map(list => readFileSync(list.crl))))
  beforeEach(async context => {
    below = await authority.subordinate(directory.path, `below-${context.task.id}`)
    const leaf = await below.issue('leaf')
    chain = { cert: Buffer.concat([readFileSync(leaf.cert), readFileSync(below.cert)]), key: readFileSync(leaf.key) }
    await trust(authority)
    await publish()
  })
  const start = () => ListenerUnderTest.start({ clientCert: 'required', ca: place(ca), crl: place(crl) })
  const isHeard = async (client: TLSSocket) => {
    client.write('still here')
    expect(String((await once(client, 'data'))[0])).toBe('still here')
  }

  test('stays when others of its authority are revoked, and more authorities trusted', async () => {
    await using under = await start()
    const client = await visitor(under.port, chain)
    await below.revoke(await below.issue('somebody-else'))
    await publish()
    await trust(authority, stranger)
    under.listener.reload()
    await isHeard(client)
  })

  test('stays when others are revoked higher up, if its authority is among those trusted', async () => {
    await trust(authority, below)
    await using under = await start()
    const client = await visitor(under.port, chain)
    await authority.revoke(await authority.issue('somebody-else'))
    await publish()
    under.listener.reload()
    await isHeard(client)
  })

  for (const isTrusted of [true, false]) {
    test(`ends when that is revoked, ${isTrusted ? 'and known' : 'though it is not known'}`, async () => {
      await trust(...(isTrusted ? [authority, below] : [authority]))
      await using under = await start()
      const client = await visitor(under.port, chain)
      await authority.revoke(below)
      await publish()
      under.listener.reload()
      await once(client, 'close')
      expect(under.dismissed).toEqual([isTrusted ? 'CERT_REVOKED' : 'UNABLE_TO_GET_ISSUER_CERT'])
    })
  }

  test('ends when the authority above that is not trusted any more', async () => {
    await trust(authority, stranger)
    await using under = await start()
    const client = await visitor(under.port, chain)
    await trust(stranger)
    under.listener.reload()
    await once(client, 'close')
    expect(under.dismissed).toEqual(['UNABLE_TO_GET_ISSUER_CERT'])
  })
})

test('a session of a client with a certificate is never resumed: it would not be judged again', async () => {
  await using under = await ListenerUnderTest.start(mutual())
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const options = { ...withCertificate(device), maxVersion }
    const first = await visitor(under.port, options)
    const session = first.getSession()
    first.destroy()
    const second = await visitor(under.port, { ...options, ...(session !== undefined && { session }) })
    expect(second.isSessionReused()).toBe(false)
    second.destroy()
  }
})
