import { describe, expect, test } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { MqttUnderTest, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_5,
  connect5,
  DISCONNECT,
  puback,
  pubcomp,
  publish5,
  pubrec,
  pubrel,
  RESUMED_5,
  suback5,
  subscribe5,
} from './packets.ts'

const FILTER = '$share/g/jobs/#'
/** CONNECT of a session that lasts a minute beyond the connection; flags 02: clean start. */
const lasting = (clientId: string, flags = '02'): Buffer => connect5(clientId, '05 11 00 00 00 3c', flags)
async function member(broker: MqttUnderTest, connect: Buffer, qos = '01'): Promise<WireClient> {
  const client = await broker.client()
  return client.says(connect, subscribe5('00 01', FILTER, qos)).hears(CONNACK_5, suback5('00 01', qos))
}

async function publishes(broker: MqttUnderTest, from: number, to: number, qos: 0 | 1 | 2 = 1): Promise<void> {
  for (let n = from; n < to; n++) await broker.core.router.publish(messageTo('jobs/a', `${n}`, { qos }))
}

const queueOf = (broker: MqttUnderTest) => [...broker.server.groupQueues()][0] ?? expect.fail('there is no group')

describe('a group with a member whose session outlives its connections', () => {
  test('is there after a restart, with what waited for it and what nobody had answered', async () => {
    await using first = await MqttUnderTest.start()
    const client = await member(first, lasting('c1'))
    await publishes(first, 0, 2)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '1', 0x32, '00 02'))
    await client.says(puback('00 01'), DISCONNECT).hearsClose()
    await publishes(first, 2, 3)
    await using again = await MqttUnderTest.start({ directory: await first.stop() })
    expect(queueOf(again)).toMatchObject({ isDurable: true, depth: 2 })
    await publishes(again, 3, 4)
    const other = await member(again, connect5('c2'))
    await other.hears(...['1', '2', '3'].map((n, at) => publish5('jobs/a', n, 0x32, `00 0${at + 1}`)))
    const back = await again.client()
    await back
      .says(lasting('c1', '00'))
      .hears(RESUMED_5)
      .then(() => back.hearsNothing())
  })

  test('loses nothing that was acknowledged to a power cut', async () => {
    await using first = await MqttUnderTest.start()
    await (await member(first, lasting('c1'))).says(DISCONNECT).hearsClose()
    await publishes(first, 0, 3)
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    const back = await again.client()
    await back.says(lasting('c1', '00'))
    await back.hears(RESUMED_5, ...['0', '1', '2'].map((n, at) => publish5('jobs/a', n, 0x32, `00 0${at + 1}`)))
  })

  test('is durable from then on, with what it had taken before', async () => {
    await using first = await MqttUnderTest.start()
    const early = await member(first, connect5('early', '03 21 00 01'))
    await publishes(first, 0, 3)
    await early.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    expect(queueOf(first).isDurable).toBe(false)
    const late = await member(first, connect5('late', '08 21 00 01 11 00 00 00 3c'))
    await late.hears(publish5('jobs/a', '1', 0x32, '00 01'))
    expect(queueOf(first)).toMatchObject({ isDurable: true, depth: 3 })
    await early.says(puback('00 01')).hears(publish5('jobs/a', '2', 0x32, '00 01'))
    await publishes(first, 3, 4)
    expect(queueOf(first).ledger.imbalance).toBe(0)
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    const back = await again.client()
    await back.says(lasting('late', '00')).hears(RESUMED_5)
    await back.hears(...['1', '2', '3'].map((n, at) => publish5('jobs/a', n, 0x32, `00 0${at + 1}`)))
    await back.says(puback('00 01'), puback('00 02'), puback('00 03')).hearsNothing()
    expect(queueOf(again).ledger.figures()).toMatchObject({ accepted: 4, settled: 4, queued: 0, in_flight: 0 })
  })

  test('completes QoS 2 with the client that had it, over a restart [MQTT-4.8.2-4]', async () => {
    await using first = await MqttUnderTest.start()
    const client = await member(first, lasting('c1'), '02')
    await publishes(first, 0, 1, 2)
    await client.hears(publish5('jobs/a', '0', 0x34, '00 01'))
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    const other = await member(again, connect5('c2'), '02')
    await other.hearsNothing()
    const back = await again.client()
    await back.says(lasting('c1', '00')).hears(RESUMED_5)
    const heard = await back.hearsPacket()
    expect([(heard[0] ?? 0) & 0xf6, heard.toString().at(-1)]).toEqual([0x34, '0'])
    const id = heard.subarray(10, 12).toString('hex')
    const packetId = `${id.slice(0, 2)} ${id.slice(2)}`
    await back.says(pubrec(packetId)).hears(pubrel(packetId))
    await back.says(pubcomp(packetId)).hearsNothing()
    await other.hearsNothing()
  })

  test('leaves to the others what a member could not be sent yet: its own messages were lost to the limit of its queue', async () => {
    const COUNT = 60
    const sessionQueue = { messages: COUNT, bytes: 8 * 1024 ** 2, onFull: 'drop_oldest' } as const
    // No output is ever full: what is not sent is still on the disk.
    const limits = { sessionQueue, outputPerClientBytes: 64 * 1024 ** 2 }
    await using broker = await MqttUnderTest.start({ limits })
    const client = await member(broker, lasting('c1'), '02')
    await client.says(subscribe5('00 02', 'own', '01')).hears(suback5('00 02', '01'))
    await client.says(DISCONNECT).hearsClose()
    for (let n = 0; n < COUNT; n++) {
      await broker.core.router.publish(messageTo('own', `${n}`.padEnd(40_000)))
      await broker.core.router.publish(messageTo('jobs/a', `${n}`, { qos: 2 }))
    }
    const back = await broker.client()
    await back.says(lasting('c1', '00')).hears(RESUMED_5)
    for (let n = 0; n < COUNT; n++) {
      const packet = await back.hearsPacket()
      expect([packet[0], packet.toString('utf8', 12).trim()]).toEqual([0x32, `${n}`])
      back.says(puback(`00 ${packet.toString('hex', 10, 11)}`))
    }
    for (let n = 0; n < COUNT; n++) {
      const packet = await back.hearsPacket()
      expect([packet[0], packet.toString('utf8', 13)]).toEqual([0x34, `${n}`])
    }
  })

  test('keeps a large message of QoS 2 until the member has room for it: it was lost beside one that was still unanswered', async () => {
    const sessionQueue = { messages: 100, bytes: 1000, onFull: 'drop_oldest' } as const
    await using broker = await MqttUnderTest.start({ limits: { sessionQueue } })
    const client = await member(broker, lasting('c1'), '02')
    for (const n of [0, 1]) await broker.core.router.publish(messageTo('jobs/a', `${n}`.padEnd(600), { qos: 2 }))
    for (const id of ['00 01', '00 02']) {
      const packet = await client.hearsPacket()
      expect([packet[0], packet.toString('utf8', 14).trim()]).toEqual([0x34, id === '00 01' ? '0' : '1'])
      await client.hearsNothing()
      await client.says(pubrec(id)).hears(pubrel(id))
      client.says(pubcomp(id))
    }
    await eventually(() => queueOf(broker).depth === 0)
    expect(queueOf(broker).ledger.figures()).toMatchObject({ accepted: 2, settled: 2, queued: 0 })
  })

  test('leaves nothing behind when its last member has ended', async () => {
    await using first = await MqttUnderTest.start()
    await (await member(first, lasting('c1'))).says(DISCONNECT).hearsClose()
    await publishes(first, 0, 3)
    expect(await first.server.endSession('c1')).toBe(true)
    await using again = await MqttUnderTest.start({ directory: await first.stop() })
    expect(again.server.groupCount).toBe(0)
    expect(again.core.keptSessions.groupNames()).toEqual([])
  })

  test('ends at a start that finds nobody with a part in it', async () => {
    await using first = await MqttUnderTest.start()
    await member(first, connect5('clean'))
    const kept = await member(first, lasting('c1'))
    await kept.says(DISCONNECT).hearsClose()
    // The group goes on with the clean session, and is still kept.
    expect(await first.server.endSession('c1')).toBe(true)
    await publishes(first, 0, 2)
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    expect([again.server.groupCount, again.core.keptSessions.groupNames()]).toEqual([0, []])
    const next = await member(again, lasting('c1'))
    await next.hearsNothing()
    await publishes(again, 2, 3)
    await next.hears(publish5('jobs/a', '2', 0x32, '00 01'))
    await eventually(() => queueOf(again).ledger.inFlight === 1)
  })
})

test('a group of clean sessions leaves nothing on the disk', async () => {
  await using first = await MqttUnderTest.start()
  await member(first, connect5('c1', '03 21 00 01'))
  await publishes(first, 0, 3)
  await using again = await MqttUnderTest.start({ directory: await first.stop() })
  expect([again.server.groupCount, again.core.keptSessions.groupNames()]).toEqual([0, []])
})
