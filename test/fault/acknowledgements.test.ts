import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { startRabbit } from '../../scripts/peers.ts'
import { TcpProxy } from '../../scripts/tcp-proxy.ts'
import { eventually } from '../support/eventually.ts'
import { tempDir } from '../support/temp-dir.ts'
import { collectUpstream } from '../support/upstream-collector.ts'
import { MqttUnderTest, packet, text, WireClient } from '../support/wire.ts'
import { Gateway, imbalance } from './support/gateway.ts'

const CONNECT = packet(0x10, text('MQTT'), '04 02 00 00', text('sensor'))
const CONNACK = packet(0x20, '00 00')

function publish(topic: string, id: number): Buffer {
  return packet(0x32, text(topic), Buffer.from([id >> 8, id & 0xff]), 'reading')
}

function puback(id: number): Buffer {
  return packet(0x40, Buffer.from([id >> 8, id & 0xff]))
}

describe('while the commit is held back', () => {
  test('no PUBACK leaves; afterwards they leave in order of arrival', async () => {
    await using gateway = await MqttUnderTest.start()
    const { core } = gateway
    await core.queue('kept', 'kept/#')
    const client = await gateway.client()
    await client.says(CONNECT).hears(CONNACK)
    core.gate.holdCommits()
    client.says(publish('kept/a', 7), publish('kept/b', 3), publish('kept/a', 9))
    await client.hearsNothing()
    // One that nobody wants is safe at once, and yet waits for those before it.
    client.says(publish('unwanted', 5), publish('kept/a', 1))
    await client.hearsNothing()
    core.gate.releaseCommits()
    await client.hears(puback(7), puback(3), puback(9), puback(5), puback(1))
    await client.hearsNothing()
  })

  test('no PUBACK leaves on any connection', async () => {
    await using gateway = await MqttUnderTest.start()
    const { core } = gateway
    await core.queue('kept', 'kept/#')
    const [first, second] = [await gateway.client(), await gateway.client()]
    await first.says(CONNECT).hears(CONNACK)
    await second.says(packet(0x10, text('MQTT'), '04 02 00 00', text('another'))).hears(CONNACK)
    core.gate.holdCommits()
    first.says(publish('kept/a', 1))
    await first.hearsNothing()
    second.says(publish('kept/a', 1))
    await second.hearsNothing()
    core.gate.releaseCommits()
    await first.hears(puback(1))
    await second.hears(puback(1))
  })

  test('a client that goes away unanswered leaves its message behind, which is kept like any other', async () => {
    await using gateway = await MqttUnderTest.start()
    const { core } = gateway
    const queue = await core.queue('kept', 'kept/#')
    const client = await gateway.client()
    await client.says(CONNECT).hears(CONNACK)
    await client.says(publish('kept/a', 1)).hears(puback(1))
    core.gate.holdCommits()
    client.says(publish('kept/a', 2))
    await client.hearsNothing()
    client.close()
    core.gate.releaseCommits()
    await eventually(() => queue.depth === 2)
    expect(queue.ledger.imbalance).toBe(0)
  })
})

describe('with upstreams', () => {
  const NAMES = ['first', 'second', 'third'] as const

  /** A route to each port, and a store that writes nothing for ten seconds as long as it doesn't know how quick the consumers are. */
  async function routesTo(directory: string, ports: readonly number[]): Promise<Gateway> {
    const gateway = await Gateway.start({
      directory: join(directory, 'gateway'),
      config: {
        store: { commit_interval: '10s' },
        upstreams: Object.fromEntries(
          NAMES.map((name, n) => [name, { urls: [`amqp://guest:guest@127.0.0.1:${ports[n]}`] }]),
        ),
        routes: Object.fromEntries(
          NAMES.map(name => [name, { from: [`${name}/#`], upstream: name, exchange: { name: 'telemetry' } }]),
        ),
      },
    })
    await eventually(async () => (await gateway.upstreams()).every(({ state }) => state === 'forwarding'), {
      deadlineMs: 30_000,
      what: 'links that forward',
    })
    return gateway
  }

  async function writtenBytes(gateway: Gateway): Promise<number> {
    return (await gateway.metrics()).get('sluice_store_accepted_bytes_total') ?? Number.NaN
  }

  /** Sent upstream, and confirmed or not. */
  async function reaches(gateway: Gateway, name: string, expected: { unconfirmed: number; confirmed: number }) {
    await eventually(
      async () => {
        const upstream = (await gateway.upstreams()).find(candidate => candidate.name === name)
        return upstream?.unconfirmed === expected.unconfirmed && upstream.confirmed === expected.confirmed
      },
      { what: `${name} with ${JSON.stringify(expected)}`, deadlineMs: 20_000 },
    )
  }

  test('PUBACK leaves when the upstream has confirmed that message and all earlier ones, not before, and nothing was written', {
    timeout: 120_000,
  }, async () => {
    await using directory = await tempDir()
    await using rabbit = await startRabbit({ directory: join(directory.path, 'rabbitmq') })
    await using upstream = await collectUpstream(rabbit.url, 'telemetry')
    await using link = await TcpProxy.start({ port: rabbit.port })
    await using gateway = await routesTo(directory.path, [link.port, rabbit.port, rabbit.port])
    const client = await WireClient.connect(gateway.mqttPort)
    await client.says(CONNECT).hears(CONNACK)

    link.hold()
    client.says(publish('first/a', 1), publish('second/a', 2))
    await reaches(gateway, 'first', { unconfirmed: 1, confirmed: 0 })
    await reaches(gateway, 'second', { unconfirmed: 0, confirmed: 1 })
    await client.hearsNothing()
    link.heal()
    await client.hears(puback(1), puback(2))

    rabbit.freeze()
    client.says(publish('third/a', 3))
    await reaches(gateway, 'third', { unconfirmed: 1, confirmed: 0 })
    await client.hearsNothing()
    rabbit.thaw()
    await client.hears(puback(3))
    expect(await writtenBytes(gateway)).toBe(0)

    // By now it knows how quick that consumer is: one that takes longer is not waited for, the disk is.
    rabbit.freeze()
    await client.says(publish('second/a', 4)).hears(puback(4))
    expect(await writtenBytes(gateway)).toBeGreaterThan(0)
    rabbit.thaw()

    await eventually(async () => (await gateway.queues()).every(({ depth }) => depth === 0))
    expect(upstream.payloads).toHaveLength(4)
    for (const queue of await gateway.queues()) expect(imbalance(queue)).toBe(0)
    client.close()
    expect(await gateway.stop()).toBe(0)
  })
})
