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

const PLAIN: MqttOptions = { host: '127.0.0.1', protocol: 5, qos: 1 }

test('the port is 1883, with TLS 8883, unless one is given', () => {
  const ports = [
    {},
    { tls: true },
    { url: 'mqtt://hub' },
    { url: 'mqtts://hub' },
    { url: 'mqtts://hub:99' },
    { cafile: authority.cert, port: 98 },
  ] as const
  expect(ports.map(options => readAddress({ ...PLAIN, ...options }, 'pub').port)).toEqual([
    1883, 8883, 1883, 8883, 99, 98,
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
