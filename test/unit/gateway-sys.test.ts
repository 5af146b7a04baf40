import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { Broker } from '../../src/broker.ts'
import { type IncomingMessage, MqttClient } from '../../src/cli/mqtt-client.ts'
import { loadConfig } from '../../src/config/load.ts'
import type { Clock } from '../../src/core/clock.ts'
import { eventually } from '../support/eventually.ts'
import { tempDir } from '../support/temp-dir.ts'

async function startGateway(interval: string, clock?: Clock) {
  const directory = await tempDir()
  const set = [
    `data_dir=${directory.path}`,
    'listeners.mqtt.port=0',
    'http.port=0',
    'clock.trust=never',
    `gateway.sys_interval=${interval}`,
  ]
  const config = await loadConfig({ file: null, env: {}, set })
  const broker = await Broker.start(config, { log: pino({ level: 'silent' }), ...(clock !== undefined && { clock }) })
  const [mqtt, http] = [broker.addresses.get('mqtt'), broker.addresses.get('http')]
  if (mqtt === undefined || http === undefined) throw new TypeError('a running gateway has both listeners')
  return {
    async listen(clientId: string, ...filters: string[]) {
      const heard: IncomingMessage[] = []
      const options = { host: mqtt.host, port: mqtt.port, user: null, password: null, version: 5 as const, clientId }
      const client = await MqttClient.connect(options, message => {
        heard.push(message)
        return 'taken'
      })
      await client.subscribe(filters, 1)
      const last = (topic: string) => heard.findLast(message => message.topic === topic)?.payload.toString()
      return { client, heard, last }
    },
    async metric(name: string): Promise<number> {
      const text = await (await fetch(`http://${http.host}:${http.port}/metrics`)).text()
      return Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)?.[1])
    },
    async [Symbol.asyncDispose]() {
      await broker.stop()
      await directory.remove()
    },
  }
}

const message = (topic: string, qos: 0 | 1 = 1) => ({ topic, payload: Buffer.from('x'), qos, retain: false })

describe('$SYS/broker', () => {
  it('is sent at once, as retained, and again when a figure has changed', async () => {
    await using gateway = await startGateway('20ms')
    const { client, heard, last } = await gateway.listen('operator', '$SYS/#')
    await eventually(() => last('$SYS/broker/load/sockets/15min') !== undefined, { what: 'all figures' })
    const first = new Map(heard.filter(({ retain }) => retain).map(({ topic, payload }) => [topic, payload.toString()]))
    expect(first.get('$SYS/broker/version')).toMatch(/^sluice version \d+\.\d+\.\d+/)
    expect(first.get('$SYS/broker/uptime')).toMatch(/^\d+ seconds$/)
    expect(first.get('$SYS/broker/clients/connected')).toBe('1')
    expect(first.get('$SYS/broker/logins/accepted')).toBe('1')
    expect(first.get('$SYS/broker/logins/refused')).toBe('0')
    expect(first.get('$SYS/broker/subscriptions/count')).toBe('1')
    expect(first.get('$SYS/broker/retained messages/count')).toBe('0')
    expect(Number(first.get('$SYS/broker/bytes/received'))).toBeGreaterThan(0)
    expect([...first.values()].filter(text => text === '' || text === 'NaN')).toEqual([])

    const device = await gateway.listen('device', 'a')
    for (let n = 0; n < 5; n++) await device.client.publish({ ...message('a'), retain: true })
    await eventually(() => last('$SYS/broker/publish/messages/received') === '5')
    await eventually(() => last('$SYS/broker/publish/messages/sent') !== undefined)
    await eventually(() => last('$SYS/broker/clients/maximum') === '2')
    await eventually(() => last('$SYS/broker/retained messages/count') === '1')
    await eventually(() => last('$SYS/broker/store/messages/count') === '1')
    await device.client.end()
    await eventually(() => last('$SYS/broker/clients/connected') === '1')
    // The version does not change: it is in the first round, and never again.
    expect(heard.filter(({ topic }) => topic === '$SYS/broker/version').map(({ retain }) => retain)).toEqual([
      true,
      false,
    ])
    await client.end()
  })

  it('a load is what happened a minute, whether or not anybody has been looking', async () => {
    let nowMs = 1_000
    await using gateway = await startGateway('1d', {
      monotonicMs: () => nowMs,
      wallMs: () => 1_800_000_000_000 + nowMs,
    })
    const device = await gateway.listen('device', 'other')
    for (let n = 0; n < 600; n++) await device.client.publish(message('a', n === 599 ? 1 : 0))
    nowMs = 600_000
    const { last, client } = await gateway.listen('operator', '$SYS/broker/load/publish/received/+')
    await eventually(() => last('$SYS/broker/load/publish/received/15min') !== undefined)
    // 60 a minute for ten minutes; the mean over 15 has not come all the way.
    expect(Number(last('$SYS/broker/load/publish/received/1min'))).toBeCloseTo(60, 1)
    expect(Number(last('$SYS/broker/load/publish/received/15min'))).toBeCloseTo(60 * (1 - Math.exp(-10 / 15)), 1)
    await client.end()
    await device.client.end()
  })

  it('is hidden from wildcards [MQTT-4.7.2-1], writes nothing, and counts as nobody’s message', async () => {
    await using gateway = await startGateway('10ms')
    const everything = await gateway.listen('everything', '#', '+/broker/uptime')
    const { last } = await gateway.listen('operator', '$SYS/broker/bytes/+')
    await eventually(() => last('$SYS/broker/bytes/sent') !== undefined)
    const [written, before] = [await gateway.metric('sluice_store_commits_total'), last('$SYS/broker/bytes/sent')]
    await eventually(() => last('$SYS/broker/bytes/sent') !== before)
    expect(await gateway.metric('sluice_store_commits_total')).toBe(written)
    expect(await gateway.metric('sluice_messages_accepted_total')).toBe(0)
    expect(everything.heard).toEqual([])
  })

  it('is not there with sys_interval 0', async () => {
    await using gateway = await startGateway('0s')
    const { client, heard } = await gateway.listen('operator', '$SYS/#', 'done')
    await client.publish(message('done'))
    await eventually(() => heard.length > 0)
    expect(heard.map(({ topic }) => topic)).toEqual(['done'])
  })
})
