import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { copyFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connect, type TLSSocket } from 'node:tls'
import pino from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { connect5, publish5, subscribe5 } from '../protocol/mqtt/packets.ts'
import { CertificateAuthority, type KeyPair } from '../support/certificates.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'
import { bytes } from '../support/wire.ts'

let folder: TempDir
let authority: CertificateAuthority
let server: KeyPair
beforeAll(async () => {
  folder = await tempDir()
  authority = await CertificateAuthority.create(folder.path)
  server = await authority.issue('server', { alternativeNames: ['IP:127.0.0.1'] })
})
afterAll(() => folder.remove())

/** A gateway that listens with TLS. */
async function startGateway(...tls: string[]) {
  const directory = await tempDir()
  const config = await loadConfig({
    file: null,
    env: {},
    set: [
      ...[`data_dir=${directory.path}`, 'listeners.mqtt.port=0', 'http.port=0', 'listeners.mqtts.port=0'],
      ...[`listeners.mqtts.tls.cert=${server.cert}`, `listeners.mqtts.tls.key=${server.key}`],
      ...tls.map(option => `listeners.mqtts.tls.${option}`),
    ],
  })
  const broker = await Broker.start(config, { log: pino({ level: 'silent' }) })
  const [mqtts, http] = [broker.addresses.get('mqtts'), broker.addresses.get('http')]
  if (mqtts === undefined || http === undefined) throw new TypeError('both are configured')
  return {
    broker,
    reload: () => broker.reload(config),
    async client(clientId: string, pair?: KeyPair): Promise<TLSSocket> {
      const own = pair === undefined ? {} : { cert: readFileSync(pair.cert), key: readFileSync(pair.key) }
      const socket = connect({ port: mqtts.port, host: '127.0.0.1', ca: readFileSync(authority.cert), ...own })
      socket.write(connect5(clientId))
      const [connack] = await once(socket, 'data')
      expect(connack[0]).toBe(0x20)
      return socket
    },
    async metric(line: string): Promise<number> {
      const text = await (await fetch(`http://${http.host}:${http.port}/metrics`)).text()
      const found = text.split('\n').find(candidate => candidate.startsWith(`${line} `))
      return Number(found?.split(' ').at(-1))
    },
    async [Symbol.asyncDispose]() {
      await broker.stop()
      await directory.remove()
    },
  }
}

test('messages pass between TLS and TLS, small ones and large ones', async () => {
  await using gateway = await startGateway()
  const subscriber = await gateway.client('subscriber')
  subscriber.write(subscribe5('00 01', 'a', '00'))
  expect((await once(subscriber, 'data'))[0][0]).toBe(0x90)
  const publisher = await gateway.client('publisher')
  const payloads = [10, 1000, 16_384, 100_000, 1].map((length, n) => String(n).repeat(length))
  const frames = payloads.map(payload => publish5('a', payload, 0x30, ''))
  let heard: Buffer = Buffer.alloc(0)
  subscriber.on('data', chunk => {
    heard = Buffer.concat([heard, chunk])
  })
  for (const frame of frames) publisher.write(frame)
  const whole = Buffer.concat(frames)
  await eventually(() => heard.length >= whole.length)
  expect(heard.equals(whole)).toBe(true)
  expect(await gateway.metric('sluice_tls_clients')).toBe(2)
  expect(await gateway.metric('sluice_tls_handshakes_total{result="ok"}')).toBe(2)
  expect(gateway.broker.gateway.health()).toEqual({ status: 'ok', reasons: [] })
  subscriber.destroy()
  publisher.destroy()
})

test('a client whose certificate is revoked hears 0x87, and its neighbour nothing', async () => {
  const revoking = await CertificateAuthority.create(folder.path, 'revoking')
  const [good, bad] = [await revoking.issue('good'), await revoking.issue('bad')]
  const crl = join(folder.path, 'revoked.pem')
  await copyFile(revoking.crl, crl)
  await using gateway = await startGateway('client_cert=required', `ca=${revoking.cert}`, `crl=${crl}`)
  const [kept, ended] = [await gateway.client('kept', good), await gateway.client('ended', bad)]
  await revoking.revoke(bad)
  await copyFile(revoking.crl, crl)
  // Nobody tells the gateway: it watches the file.
  const farewell = once(ended, 'data')
  expect((await farewell)[0]).toEqual(bytes('e0 02 87 00'))
  await once(ended, 'close')
  kept.write(bytes('c0 00'))
  expect((await once(kept, 'data'))[0]).toEqual(bytes('d0 00'))
  expect(await gateway.metric('sluice_tls_reloads_total{listener="mqtts",result="done"}')).toBe(1)
  kept.destroy()
})

test('a certificate that ends soon degrades health, and so do new files that cannot be used', async () => {
  const soon = await authority.issue('soon', { validUntil: new Date(Date.now() + 3 * 86_400_000) })
  const place = { cert: join(folder.path, 'place.pem'), key: join(folder.path, 'place-key.pem') }
  await copyFile(soon.cert, place.cert)
  await copyFile(soon.key, place.key)
  await using gateway = await startGateway(`cert=${place.cert}`, `key=${place.key}`)
  const reasons = () => gateway.broker.gateway.health().reasons
  expect(reasons()).toEqual([expect.stringMatching(/^listeners\.mqtts\.tls\.cert: the certificate expires on/)])
  await copyFile(server.key, place.key)
  gateway.reload()
  expect(reasons()).toEqual([
    expect.stringMatching(/the certificate expires on/),
    expect.stringMatching(/^listeners\.mqtts\.tls: the old files stay in use: .*place-key\.pem: it does not belong/),
  ])
  await copyFile(server.cert, place.cert)
  gateway.reload()
  expect(reasons()).toEqual([])
})
