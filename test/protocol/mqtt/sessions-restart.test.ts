import { describe, expect, test } from 'vitest'
import { Clock as Trust } from '../../../src/model/message.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { bytes, MqttUnderTest, packet, text } from '../../support/wire.ts'
import {
  CONNACK_311,
  CONNECT_311,
  connect5,
  connect311,
  DISCONNECT,
  KEPT_311,
  puback,
  pubcomp,
  publish5,
  publish311,
  pubrec,
  pubrel,
  RESUMED_311,
  suback311,
  subscribe311,
} from './packets.ts'

const send = (broker: MqttUnderTest, topic: string, payload: string) =>
  broker.core.router.publish(messageTo(topic, payload))

describe('a session that outlives its connection outlives the gateway', () => {
  test('subscriptions, their options and what waits are there after a restart, and what is published before the client comes back [MQTT-3.1.2-23]', async () => {
    const first = await MqttUnderTest.start()
    const client = await first.client()
    await client.says(connect5('c1', '05 11 00 00 00 3c', '00')).hearsPacket()
    // Identifier 7; Retain As Published at QoS 1 for a, No Local at QoS 0 for b.
    await client.says(packet(0x82, '00 01', '02 0b 07', text('a'), '09', text('b'), '04')).hearsPacket()
    await client.says(packet(0x82, '00 02', '00', text('gone'), '01')).hearsPacket()
    await client.says(packet(0xa2, '00 03', '00', text('gone'))).hearsPacket()
    await client.says(DISCONNECT).hearsClose()
    await first.core.router.publish(messageTo('a', '1', { retain: true }))
    await using again = await MqttUnderTest.start({ directory: await first.stop() })
    await send(again, 'a', '2')
    expect((await send(again, 'gone', 'x')).isRouted).toBe(false)
    const back = await again.client()
    const connack = await back.says(connect5('c1', '05 11 00 00 00 3c', '00')).hearsPacket()
    expect(connack[2]).toBe(1)
    await back.hears(publish5('a', '1', 0x33, '00 01', '02 0b 07'), publish5('a', '2', 0x32, '00 02', '02 0b 07'))
    await back.says(puback('00 01'), puback('00 02')).hearsNothing()
    await again.core.router.publish(messageTo('b', 'own', { qos: 0, clientId: 'c1' }))
    await again.core.router.publish(messageTo('b', 'other', { qos: 0 }))
    await back.hears(publish5('b', 'other', 0x30, '', '02 0b 07'))
  })

  test('nothing acknowledged to a publisher is lost to it by a power cut while it is away', async () => {
    await using first = await MqttUnderTest.start()
    const client = await first.client()
    await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    const sender = await first.client()
    await sender.says(connect311('s')).hears(CONNACK_311)
    await sender.says(publish311('a', '1', 0x32, '00 01'), publish311('a', '2', 0x32, '00 02'))
    await sender.hears(puback('00 01'), puback('00 02'))
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    const back = await again.client()
    await back.says(KEPT_311).hears(RESUMED_311)
    await back.hears(publish311('a', '1', 0x32, '00 01'), publish311('a', '2', 0x32, '00 02'))
  })

  test('SUBACK promises what a power cut leaves, and so does UNSUBACK', async () => {
    await using first = await MqttUnderTest.start()
    const client = await first.client()
    await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await using subscribed = await MqttUnderTest.start({ directory: await first.powerCut() })
    expect((await send(subscribed, 'a', '1')).isRouted).toBe(true)
    await client.says(packet(0xa2, '00 02', text('a'))).hears(packet(0xb0, '00 02'))
    await using unsubscribed = await MqttUnderTest.start({ directory: await first.powerCut() })
    expect((await send(unsubscribed, 'a', '1')).isRouted).toBe(false)
    const back = await unsubscribed.client()
    await back.says(KEPT_311).hears(RESUMED_311)
  })

  test('what is promised leaves after its commit, and nothing else of the client is looked at before', async () => {
    await using broker = await MqttUnderTest.start()
    const client = await broker.client()
    broker.core.gate.holdCommits()
    client.says(KEPT_311, subscribe311('00 01', 'a', '01'), bytes('c0 00'))
    await eventually(() => broker.server.clientCount === 1)
    const clean = await broker.client()
    // A clean session waits for nobody.
    await clean.says(connect311('c2'), subscribe311('00 01', 'b', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    expect(client.heardBytes).toBe(0)
    broker.core.gate.releaseCommits()
    await client.hears(CONNACK_311)
    await client.hears(suback311('00 01', '01'), bytes('d0 00'))
  })

  test('a clean session that ends one says so when the disk has forgotten it', async () => {
    await using first = await MqttUnderTest.start()
    const client = await first.client()
    await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    for (let n = 0; n < 20; n++) await send(first, 'a', `${n}`)
    const clean = await first.client()
    await clean.says(CONNECT_311).hears(CONNACK_311)
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    expect((await send(again, 'a', 'x')).isRouted).toBe(false)
    expect(again.server.sessionCount).toBe(0)
    expect([...again.core.topology.queues()]).toEqual([])
    const back = await again.client()
    await back.says(KEPT_311).hears(CONNACK_311)
    await back.hearsNothing()
  })

  test('what it left unanswered comes again after a restart, under the old packet ids and with DUP: 3.1.1 [MQTT-4.4.0-1]', async () => {
    const first = await MqttUnderTest.start()
    const client = await first.client()
    await client.says(KEPT_311, subscribe311('00 01', 'a', '02')).hears(CONNACK_311, suback311('00 01', '02'))
    for (const [payload, qos] of [
      ['1', 1],
      ['2', 1],
      ['3', 2],
      ['4', 1],
    ] as const) {
      await first.core.router.publish(messageTo('a', payload, { qos }))
      await client.hears(publish311('a', payload, qos === 1 ? 0x32 : 0x34, `00 0${payload}`))
    }
    await client.says(puback('00 02')).hearsNothing()
    await using again = await MqttUnderTest.start({ directory: await first.stop() })
    await send(again, 'a', '5')
    const back = await again.client()
    await back.says(KEPT_311).hears(RESUMED_311)
    await back.hears(
      publish311('a', '1', 0x3a, '00 01'),
      publish311('a', '3', 0x3c, '00 03'),
      publish311('a', '4', 0x3a, '00 04'),
      publish311('a', '5', 0x32, '00 02'),
    )
    await back.says(puback('00 01'), puback('00 04'), puback('00 02'), pubrec('00 03')).hears(pubrel('00 03'))
    await back.says(pubcomp('00 03')).hearsNothing()
    expect(again.server.client('c1')).toMatchObject({ inFlight: 0, queued: 0 })
  })

  test('its queue is in no list and keeps its limits', async () => {
    const sessionQueue = { messages: 3, bytes: 1024 ** 2, onFull: 'drop_oldest' } as const
    const first = await MqttUnderTest.start({ limits: { sessionQueue } })
    const client = await first.client()
    await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    for (let n = 0; n < 3; n++) await send(first, 'a', `${n}`)
    await using again = await MqttUnderTest.start({ directory: await first.stop(), limits: { sessionQueue } })
    expect([...again.core.topology.queues()]).toEqual([])
    expect(again.core.topology.has('session:c1')).toBe(false)
    for (let n = 3; n < 5; n++) await send(again, 'a', `${n}`)
    const back = await again.client()
    await back.says(KEPT_311).hears(RESUMED_311)
    for (let n = 2; n < 5; n++) await back.hears(publish311('a', `${n}`, 0x32, `00 0${n - 1}`))
    await back.hearsNothing()
  })

  test('$queue and $stream subscriptions go on after a restart', async () => {
    const first = await MqttUnderTest.start()
    await first.core.queue('jobs', 'jobs')
    await first.core.stream('h', 'h')
    for (const payload of ['1', '2']) await send(first, 'h', payload)
    const client = await first.client()
    await client.says(KEPT_311, subscribe311('00 01', '$queue/jobs', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(subscribe311('00 02', '$stream/h/first', '01')).hears(suback311('00 02', '01'))
    await client.hears(publish311('h', '1', 0x32, '00 01'), publish311('h', '2', 0x32, '00 02'))
    await client.says(puback('00 01')).hearsNothing()
    await using again = await MqttUnderTest.start({ directory: await first.stop() })
    await again.core.queue('jobs', 'jobs')
    await again.core.stream('h', 'h')
    const back = await again.client()
    await back.says(KEPT_311).hears(RESUMED_311, publish311('h', '2', 0x32, '00 01'))
    await send(again, 'jobs', 'job')
    await back.hears(publish311('jobs', 'job', 0x32, '00 02'))
  })
})

describe('the time of a session over a restart', () => {
  const EXPIRING = connect5('c1', '05 11 00 00 00 3c', '00')

  /** A session of one minute that was left `awayMs` before the gateway stopped; the machine is off for `offMs` by its clock. */
  async function restarted({ awayMs, offMs, trust }: { awayMs: number; offMs: number; trust: Trust }) {
    let monotonic = 1_000_000
    let wall = 1_800_000_000_000
    const clock = { monotonicMs: () => monotonic, wallMs: () => wall }
    const synced = async (broker: MqttUnderTest) => {
      const { store, schedule } = broker.core
      await schedule.change(store.correctBoot({ wallOffsetMs: wall - monotonic, clock: trust }))
    }
    const first = await MqttUnderTest.start({ clock })
    await synced(first)
    const client = await first.client()
    await client.says(EXPIRING).hearsPacket()
    await client.says(DISCONNECT).hearsClose()
    await first.core.schedule.flush()
    monotonic += awayMs
    wall += awayMs
    const directory = await first.stop()
    wall += offMs
    monotonic = 500
    const again = await MqttUnderTest.start({ clock, directory })
    await synced(again)
    return again
  }

  const isResumed = async (broker: MqttUnderTest) => {
    const client = await broker.client()
    return (await client.says(EXPIRING).hearsPacket())[2] === 1
  }

  test('switched off counts where the clock was right at both ends', async () => {
    await using again = await restarted({ awayMs: 0, offMs: 61_000, trust: Trust.synced })
    expect(await isResumed(again)).toBe(false)
  })

  test('switched off counts as nothing where it was not: no clock that jumps ends a session', async () => {
    await using again = await restarted({ awayMs: 0, offMs: 50 * 365 * 86_400_000, trust: Trust.unknown })
    expect(await isResumed(again)).toBe(true)
  })
})
