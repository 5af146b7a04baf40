import { join } from 'node:path'
import pino from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Broker } from '../../../src/broker.ts'
import { MqttClient } from '../../../src/cli/mqtt-client.ts'
import { type MqttOptions, readAddress } from '../../../src/cli/mqtt-options.ts'
import { loadConfig } from '../../../src/config/load.ts'
import { CertificateAuthority, type KeyPair } from '../../support/certificates.ts'
import { eventually } from '../../support/eventually.ts'
import { runSluice } from '../../support/run-sluice.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

let folder: TempDir
let authority: CertificateAuthority
let device: KeyPair
let gateway: Broker
let port: number
beforeAll(async () => {
  folder = await tempDir()
  authority = await CertificateAuthority.create(folder.path)
  const server = await authority.issue('server', { alternativeNames: ['DNS:gateway.example'] })
  device = await authority.issue('device-7')
  const tls = { ...server, ca: authority.cert, client_cert: 'required' }
  const config = await loadConfig({
    file: null,
    env: {},
    set: [
      ...[`data_dir=${join(folder.path, 'data')}`, 'listeners.mqtt.port=0', 'http.port=0', 'listeners.mqtts.port=0'],
      ...['listeners.ws.port=0', 'listeners.wss.port=0'],
      ...['mqtts', 'wss'].flatMap(name =>
        Object.entries(tls).map(([key, value]) => `listeners.${name}.tls.${key}=${value}`),
      ),
    ],
  })
  gateway = await Broker.start(config, { log: pino({ level: 'silent' }) })
  port = portOf('mqtts')
})
afterAll(async () => {
  await gateway.stop()
  await folder.remove()
})

const portOf = (listener: string) => gateway.addresses.get(listener)?.port ?? expect.fail(`there is no ${listener}`)

const PLAIN: MqttOptions = { host: '127.0.0.1', protocol: 5, qos: 1 }

test('the port is 1883, with TLS 8883, unless one is given', () => {
  const ports = [
    {},
    { tls: true },
    { url: 'mqtt://hub' },
    { url: 'mqtts://hub' },
    { url: 'mqtts://hub:99' },
    { cafile: authority.cert, port: 98 },
    { url: 'ws://hub' },
    { url: 'wss://hub' },
  ] as const
  expect(ports.map(options => readAddress({ ...PLAIN, ...options }, 'pub').port)).toEqual([
    1883, 8883, 1883, 8883, 99, 98, 80, 443,
  ])
})

test('pub and sub pass messages over TLS, and show their certificate', async () => {
  const common = ['-h', '127.0.0.1', '-p', `${port}`, '--cafile', authority.cert, '--cert', device.cert]
  const args = [...common, '--key', device.key, '--insecure', '-t', 'over/tls', '-q', '1']
  const sub = runSluice(['sub', ...args, '-C', '1', '-W', '20', '-v'])
  await eventually(() => [...gateway.gateway.clients()].some(client => client.subscriptions === 1), {
    deadlineMs: 20_000,
  })
  expect(await runSluice(['pub', ...args, '-m', 'hello'])).toMatchObject({ status: 0, stderr: '' })
  expect(await sub).toMatchObject({ status: 0, stdout: 'over/tls hello\n' })
})

test('a message goes over WebSocket, with TLS and without, in each version', async () => {
  const heard: string[] = []
  const own = { cafile: authority.cert, cert: device.cert, key: device.key, insecure: true } as const
  const places = [{ url: `ws://127.0.0.1:${portOf('ws')}` }, { url: `wss://127.0.0.1:${portOf('wss')}/mqtt`, ...own }]
  for (const place of places) {
    for (const protocol of [3, 4, 5] as const) {
      const address = readAddress({ ...PLAIN, ...place, protocol }, 'sub')
      const client = await MqttClient.connect(address, ({ payload }) => {
        heard.push(payload.toString())
        return 'taken'
      })
      await client.subscribe(['over/ws'], 1)
      await client.publish({ topic: 'over/ws', payload: Buffer.alloc(70_000, 'x'), qos: 1, retain: false })
      await eventually(() => heard.pop()?.length === 70_000)
      await client.end()
    }
  }
})

test('a path that is no WebSocket is told', async () => {
  const address = readAddress({ ...PLAIN, url: `ws://127.0.0.1:${portOf('ws')}/other` }, 'pub')
  await expect(MqttClient.connect(address, () => 'taken')).rejects.toThrow('Unexpected server response: 404')
})

test('what is wrong with a certificate is told with what to do', async () => {
  const visit = (options: Partial<MqttOptions>) =>
    MqttClient.connect(readAddress({ ...PLAIN, port, ...options }, 'pub'), () => 'taken')
  const { cert: cafile } = authority
  await expect(visit({ tls: true })).rejects.toThrow(
    'nobody known has signed its certificate; --cafile names the authority',
  )
  await expect(visit({ cafile })).rejects.toThrow(
    'its certificate is for other hosts; --insecure takes it all the same',
  )
  await expect(visit({ cafile, insecure: true })).rejects.toThrow('TLS failed: tlsv13 alert certificate required')
})

test('a certificate without its key, and a file that is not there, are refused before connecting', () => {
  expect(() => readAddress({ ...PLAIN, cert: device.cert }, 'pub')).toThrow(/--cert and --key belong together/)
  expect(() => readAddress({ ...PLAIN, cafile: '/none' }, 'pub')).toThrow(/The file of --cafile can't be read/)
})
