import { rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { Broker } from '../../src/broker.ts'
import { MqttClient } from '../../src/cli/mqtt-client.ts'
import { loadConfig } from '../../src/config/load.ts'
import { eventually } from '../support/eventually.ts'
import { tempDir } from '../support/temp-dir.ts'
import { userLine } from '../support/users.ts'

async function startGateway(users: string) {
  const directory = await tempDir()
  const file = join(directory.path, 'users.yaml')
  await writeFile(file, users)
  await writeFile(join(directory.path, 'sluice.yaml'), 'auth: { users_file: users.yaml }\n')
  const set = [`data_dir=${join(directory.path, 'data')}`, 'listeners.mqtt.port=0', 'http.port=0', 'clock.trust=never']
  const config = await loadConfig({ file: join(directory.path, 'sluice.yaml'), env: {}, set })
  const broker = await Broker.start(config, { log: pino({ level: 'silent' }) })
  const [mqtt, http] = [broker.addresses.get('mqtt'), broker.addresses.get('http')]
  if (mqtt === undefined || http === undefined) throw new TypeError('a running gateway has both listeners')
  return {
    /** As editors do: a new file, renamed over the old one. */
    async rewrite(text: string) {
      await writeFile(`${file}.new`, text)
      await rename(`${file}.new`, file)
    },
    connect: (user: string | null, password: string | null, clientId = `c-${user}`) =>
      MqttClient.connect({ host: mqtt.host, port: mqtt.port, user, password, version: 5, clientId }, () => 'taken'),
    health: () => broker.gateway.health(),
    connected: () => [...broker.gateway.clients()].map(({ id }) => id),
    metric: async (name: string) => {
      const text = await (await fetch(`http://${http.host}:${http.port}/metrics`)).text()
      return Number(
        text
          .split('\n')
          .find(line => line.startsWith(`${name} `))
          ?.slice(name.length + 1),
      )
    },
    async [Symbol.asyncDispose]() {
      await broker.stop()
      await directory.remove()
    },
  }
}

const STAYS = userLine('stays', 'a', 'meters')
const GOES = userLine('goes', 'b')
const CHANGES = userLine('changes', 'c')

test('a users file that changes under load drops only those who are gone or have another password', async () => {
  await using gateway = await startGateway(STAYS + GOES + CHANGES)
  const [stays, goes, changes] = [
    await gateway.connect('stays', 'a'),
    await gateway.connect('goes', 'b'),
    await gateway.connect('changes', 'c'),
  ]
  let published = 0
  let isOver = false
  const load = (async () => {
    while (!isOver) {
      await stays.publish({ topic: 'meters/1', payload: Buffer.from('x'), qos: 1, retain: false })
      published++
    }
  })()
  for (let n = 0; n < 3; n++) {
    await gateway.rewrite(STAYS + GOES + CHANGES + userLine(`more-${n}`, 'm'))
    const client = await eventually(() => gateway.connect(`more-${n}`, 'm'))
    await client.end()
  }
  expect(gateway.connected()).toHaveLength(3)
  await gateway.rewrite(userLine('changes', 'other') + userLine('stays', 'a', 'alarms'))
  expect((await goes.closed)?.message).toMatch(/0x87/)
  expect((await changes.closed)?.message).toMatch(/0x87/)
  const before = published
  await eventually(() => published > before + 100)
  isOver = true
  await load
  expect(gateway.connected()).toEqual(['c-stays'])
  await expect(gateway.connect('goes', 'b')).rejects.toThrow(/password/i)
  await expect(gateway.connect('changes', 'c')).rejects.toThrow(/password/i)
  await (await gateway.connect('changes', 'other')).end()
  await stays.end()
  expect(await gateway.metric('sluice_logins_refused_total{reason="bad-credentials"}')).toBeGreaterThanOrEqual(2)
})

test('nobody throws another user out by its client id, the same user takes over [MQTT-3.1.3-8]', async () => {
  await using gateway = await startGateway(STAYS + GOES)
  const stays = await gateway.connect('stays', 'a', 'press-1')
  await expect(gateway.connect('goes', 'b', 'press-1')).rejects.toThrow(/another user|0x85/i)
  await expect(gateway.connect(null, null, 'press-1')).rejects.toThrow(/another user|0x85/i)
  await stays.publish({ topic: 'a', payload: Buffer.from('x'), qos: 1, retain: false })
  const again = await gateway.connect('stays', 'a', 'press-1')
  expect((await stays.closed)?.message).toMatch(/0x8e/)
  await again.end()
  await eventually(() => gateway.connected().length === 0)
  await (await gateway.connect('goes', 'b', 'press-1')).end()
})

test('a users file with mistakes is not taken, and health says so until it is right', async () => {
  await using gateway = await startGateway(STAYS)
  const stays = await gateway.connect('stays', 'a')
  await gateway.rewrite(`${STAYS}new: { password: in the clear }\n`)
  await eventually(() => gateway.health().reasons.length > 0)
  expect(gateway.health()).toEqual({
    status: 'degraded',
    reasons: [expect.stringMatching(/^users file: .*users\.yaml:2:18: new\.password: this is no password hash/)],
  })
  expect(gateway.connected()).toEqual(['c-stays'])
  await (await gateway.connect('stays', 'a')).end()
  await gateway.rewrite(STAYS + GOES)
  await eventually(() => gateway.health().status === 'ok')
  await (await gateway.connect('goes', 'b')).end()
  await stays.closed
})

test('clients on this machine without a name are let in beside users while every listener is on loopback', async () => {
  await using gateway = await startGateway(STAYS)
  await (await gateway.connect(null, null)).end()
  await expect(gateway.connect('stays', 'wrong')).rejects.toThrow(/password/i)
  await expect(gateway.connect('nobody', 'a')).rejects.toThrow(/password/i)
})

test('a users file with mistakes keeps the gateway from starting', async () => {
  await expect(startGateway('bad: {}\n')).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: expect.stringMatching(/users\.yaml:1:1: bad\.password: this is missing/),
  })
})
