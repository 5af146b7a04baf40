import { describe, expect, test } from 'vitest'
import { decodePacketIds, PACKET_IDS, type PacketIdRecord } from '../../../src/core/session-ids.ts'
import { PLAIN_POLICY } from '../../../src/model/queue-policy.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { MqttUnderTest, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_311,
  connect311,
  hex16,
  KEPT_311,
  pubcomp,
  publish311,
  pubrec,
  pubrel,
  RESUMED_311,
  suback311,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const QOS2 = 0x34
const QOS2_DUP = 0x3c
/** What the disk knows of the packet ids of c1. */
async function onDisk({ core }: MqttUnderTest): Promise<PacketIdRecord | null> {
  const value = await core.store.getState(Buffer.concat([PACKET_IDS, Buffer.from('c1')]))
  return value === undefined ? null : decodePacketIds(value)
}

const gone = (broker: MqttUnderTest) => eventually(() => broker.server.client('c1') === undefined)
const send = ({ core }: MqttUnderTest, payload: string, qos: 1 | 2 = 2) =>
  core.router.publish(messageTo('a', payload, { qos }))

async function subscriber(client: WireClient): Promise<WireClient> {
  return client.says(KEPT_311, subscribe311('00 01', 'a', '02')).hears(CONNACK_311, suback311('00 01', '02'))
}

describe('QoS 2 from a client whose session outlives its connection', () => {
  transcript(
    'PUBREC and PUBCOMP leave when the disk knows the id, and no longer, though the message itself needs no disk',
    async ({ client, broker }) => {
      await client.says(KEPT_311).hears(CONNACK_311)
      broker.core.gate.holdCommits()
      await client.says(publish311('a', 'x', QOS2, '00 07'), publish311('a', 'y', QOS2, '00 08')).hearsNothing()
      broker.core.gate.releaseCommits()
      await client.hears(pubrec('00 07'), pubrec('00 08'))
      expect(await onDisk(broker)).toMatchObject({ held: [7, 8] })
      broker.core.gate.holdCommits()
      await client.says(pubrel('00 07')).hearsNothing()
      broker.core.gate.releaseCommits()
      await client.hears(pubcomp('00 07'))
      expect(await onDisk(broker)).toMatchObject({ held: [8] })
      await client.says(pubrel('00 08')).hears(pubcomp('00 08'))
      expect(await onDisk(broker)).toBeNull()
    },
  )

  transcript('one commit keeps the ids of all that come during the last one', async ({ client, broker }) => {
    await client.says(KEPT_311).hears(CONNACK_311)
    broker.core.gate.holdCommits()
    await client.says(publish311('a', 'x', QOS2, '00 01')).hearsNothing()
    const ids = Array.from({ length: 60 }, (_, n) => hex16(n + 2))
    await client.says(...ids.map(id => publish311('a', 'x', QOS2, id))).hearsNothing()
    const before = broker.core.store.nextCommit
    broker.core.gate.releaseCommits()
    await client.hears(pubrec('00 01'), ...ids.map(id => pubrec(id)))
    expect(broker.core.store.nextCommit - before).toBeLessThanOrEqual(2)
  })

  transcript(
    'an id is held over the end of the connection: a PUBLISH sent again is no new message [MQTT-4.3.3-10], 3.1.1 [MQTT-4.3.3-2]',
    async ({ client, another }) => {
      const other = await another()
      await other.says(connect311('s'), subscribe311('00 01', 'a', '00')).hears(CONNACK_311, suback311('00 01', '00'))
      await client.says(KEPT_311, publish311('a', '1', QOS2, '00 07')).hears(CONNACK_311, pubrec('00 07'))
      await other.hears(publish311('a', '1'))
      client.close()
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311)
      await again.says(publish311('a', '1', QOS2_DUP, '00 07')).hears(pubrec('00 07'))
      await again.says(pubrel('00 07')).hears(pubcomp('00 07'))
      await again.says(publish311('a', '2', QOS2, '00 07')).hears(pubrec('00 07'))
      await other.hears(publish311('a', '2'))
    },
  )

  transcript(
    'sent again on a new connection it is not acknowledged before the disk knows it either',
    async ({ client, another, broker }) => {
      const queue = await broker.core.queue('keep', 'keep')
      await client.says(KEPT_311).hears(CONNACK_311)
      broker.core.gate.holdCommits()
      await client.says(publish311('keep', 'x', QOS2, '00 07')).hearsNothing()
      client.close()
      await gone(broker)
      const again = await another()
      again.says(KEPT_311, publish311('keep', 'x', QOS2_DUP, '00 07'))
      await (await another()).says(connect311('other')).hears(CONNACK_311)
      expect(again.heardBytes).toBe(0)
      broker.core.gate.releaseCommits()
      await again.hears(RESUMED_311, pubrec('00 07'))
      await again.hearsNothing()
      expect(queue.ledger.accepted).toBe(1)
    },
  )

  transcript('a clean session forgets the ids, on disk too', async ({ client, another, broker }) => {
    await client.says(KEPT_311, publish311('a', '1', QOS2, '00 07')).hears(CONNACK_311, pubrec('00 07'))
    client.close()
    await gone(broker)
    const again = await another()
    await again.says(connect311('c1')).hears(CONNACK_311)
    await again.says(publish311('a', '1', QOS2_DUP, '00 07')).hears(pubrec('00 07'))
    expect(broker.server.counters.repeatedPublishes).toBe(0)
    await broker.core.schedule.flush()
    expect(await onDisk(broker)).toBeNull()
  })

  transcript(
    'more releases than may wait for the disk at once are all answered, in order',
    async ({ client, broker }) => {
      await client.says(KEPT_311).hears(CONNACK_311)
      const ids = Array.from({ length: 20 }, (_, n) => hex16(n + 1))
      await client.says(...ids.map(id => publish311('a', 'x', QOS2, id))).hears(...ids.map(id => pubrec(id)))
      client.says(...ids.map(id => pubrel(id)), ...ids.map(id => pubrel(id)))
      await client.hears(...ids.map(id => pubcomp(id)), ...ids.map(id => pubcomp(id)))
      await client.hearsNothing()
      expect(await onDisk(broker)).toBeNull()
    },
    { limits: { receiveMax: 4 } },
  )

  describe('to a queue with ack: upstream', () => {
    const upstream = { ...PLAIN_POLICY, ack: 'upstream', ackTimeoutMs: 3_600_000 } as const

    transcript(
      'the disk knows the id once the message is confirmed, and PUBREC follows',
      async ({ client, broker }) => {
        const queue = await broker.core.queue('control', 'control')
        queue.policy = upstream
        const taken: number[] = []
        queue.attach({ credit: 10, deliver: (_bytes, _at, position) => taken.push(position) })
        await client.says(KEPT_311, publish311('control', 'x', QOS2, '00 07')).hears(CONNACK_311)
        await broker.core.schedule.flush()
        await client.hearsNothing()
        // The message is nowhere on disk: with its id there, a crash now would lose it.
        expect(await onDisk(broker)).toBeNull()
        queue.settle(taken[0] ?? -1)
        await client.hears(pubrec('00 07'))
        expect(await onDisk(broker)).toMatchObject({ held: [7] })
      },
    )

    transcript(
      'refused after its connection is gone, it is a new message when it is sent again',
      async ({ client, another, broker }) => {
        const queue = await broker.core.queue('control', 'control')
        queue.policy = { ...upstream, ackTimeoutMs: 100 }
        queue.attach({ credit: 0, deliver: () => undefined })
        await client.says(KEPT_311, publish311('control', 'x', QOS2, '00 07')).hears(CONNACK_311)
        await eventually(() => queue.depth === 1)
        client.close()
        await gone(broker)
        const again = await another()
        await again.says(KEPT_311).hears(RESUMED_311)
        again.says(publish311('control', 'x', QOS2_DUP, '00 07'))
        await eventually(() => queue.ledger.accepted === 2)
        expect(queue.ledger.figures().dropped).toEqual({ ack_timeout: 1 })
      },
    )
  })
})

describe('QoS 2 to a client whose session outlives its connection', () => {
  transcript(
    'PUBLISH leaves when the disk knows its id, PUBREL when it knows of the PUBREC [MQTT-4.3.3-4]',
    async ({ client, broker }) => {
      await subscriber(client)
      broker.core.gate.holdCommits()
      const sent = send(broker, 'x')
      await client.hearsNothing()
      broker.core.gate.releaseCommits()
      await client.hears(publish311('a', 'x', QOS2, '00 01'))
      await sent
      expect(await onDisk(broker)).toEqual({ held: [], sent: [{ id: 1, position: 0 }], released: [] })
      broker.core.gate.holdCommits()
      await client.says(pubrec('00 01')).hearsNothing()
      broker.core.gate.releaseCommits()
      await client.hears(pubrel('00 01'))
      expect(await onDisk(broker)).toEqual({ held: [], sent: [], released: [1] })
      await client.says(pubcomp('00 01')).hearsNothing()
      await broker.core.schedule.flush()
      expect(await onDisk(broker)).toBeNull()
    },
  )

  transcript('what is not QoS 2 does not wait for the disk', async ({ client, broker }) => {
    await subscriber(client)
    broker.core.gate.holdCommits()
    const sent = [send(broker, '2'), send(broker, '1', 1)]
    await client.hears(publish311('a', '1', 0x32, '00 02'))
    broker.core.gate.releaseCommits()
    await client.hears(publish311('a', '2', QOS2, '00 01'))
    await Promise.all(sent)
  })

  transcript(
    'after a reconnect: PUBRELs again, in the order of the PUBRECs, PUBLISHes again with DUP, all under their ids [MQTT-4.4.0-1], [MQTT-4.3.3-3], [MQTT-4.3.3-5], [MQTT-4.3.3-6], [MQTT-4.6.0-1]',
    async ({ client, another, broker }) => {
      await subscriber(client)
      for (const payload of ['1', '2', '3', '4']) await send(broker, payload)
      for (const n of [1, 2, 3, 4]) await client.hears(publish311('a', `${n}`, QOS2, hex16(n)))
      await client.says(pubrec('00 03'), pubrec('00 01')).hears(pubrel('00 03'), pubrel('00 01'))
      client.close()
      await gone(broker)
      for (let n = 0; n < 2; n++) {
        const again = await another()
        await again.says(KEPT_311).hears(RESUMED_311)
        await again.hears(
          pubrel('00 03'),
          pubrel('00 01'),
          publish311('a', '2', QOS2_DUP, '00 02'),
          publish311('a', '4', QOS2_DUP, '00 04'),
        )
        await again.hearsNothing()
        again.close()
        await gone(broker)
      }
    },
  )

  transcript(
    'what was held back when the connection ended is sent on the next one',
    async ({ client, another, broker }) => {
      await subscriber(client)
      broker.core.gate.holdCommits()
      const sent = send(broker, 'x')
      await client.hearsNothing()
      client.close()
      await gone(broker)
      broker.core.gate.releaseCommits()
      await sent
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311, publish311('a', 'x', QOS2_DUP, '00 01'))
    },
  )

  transcript(
    'packets held back stay within limits.output_per_client, and all of them leave',
    async ({ client, broker }) => {
      await subscriber(client)
      broker.core.gate.holdCommits()
      const payload = 'x'.repeat(50_000)
      const sent = Array.from({ length: 20 }, () => send(broker, payload))
      await client.hearsNothing()
      expect(broker.server.client('c1')?.inFlight).toBeLessThan(6)
      broker.core.gate.releaseCommits()
      for (let n = 0; n < 20; n++) expect((await client.hearsPacket()).length).toBeGreaterThan(50_000)
      await Promise.all(sent)
    },
    { limits: { outputPerClientBytes: 200_000 } },
  )

  transcript(
    'a client that repeats a PUBREC and reads nothing piles up no answers',
    async ({ client, broker }) => {
      const { server } = broker
      await subscriber(client)
      await send(broker, 'x')
      await client.hears(publish311('a', 'x', QOS2, '00 01'))
      await client.says(pubrec('00 01')).hears(pubrel('00 01'))
      client.socket.pause()
      const storm = Buffer.concat(Array.from({ length: 25_000 }, () => pubrec('00 01')))
      const flood = setInterval(() => {
        if (client.socket.writableLength === 0) client.says(storm)
      }, 1)
      await eventually(() => (server.client('c1')?.outputBytes ?? 0) >= 100_000, { what: 'a full output' })
      const before = server.counters.bytesIn
      await eventually(() => server.counters.bytesIn > before + 1_000_000, { what: 'more PUBRECs' })
      clearInterval(flood)
      expect(server.client('c1')?.outputBytes).toBeLessThan(400_000)
    },
    { limits: { outputPerClientBytes: 100_000 } },
  )

  transcript(
    'a message of another source is not the session’s: after a crash only its id is known',
    async ({ client, broker }) => {
      await broker.core.queue('jobs', 'jobs')
      await broker.core.router.publish(messageTo('jobs', 'x'))
      await client
        .says(KEPT_311, subscribe311('00 01', '$queue/jobs', '02'))
        .hears(CONNACK_311, suback311('00 01', '02'), publish311('jobs', 'x', QOS2, '00 01'))
      expect(await onDisk(broker)).toEqual({ held: [], sent: [], released: [1] })
    },
  )

  transcript('a session that ends with its connection waits for no commit', async ({ client, broker }) => {
    await client.says(connect311('c1'), subscribe311('00 01', 'a', '02')).hears(CONNACK_311, suback311('00 01', '02'))
    broker.core.gate.holdCommits()
    await client.says(publish311('a', 'x', QOS2, '00 07')).hears(publish311('a', 'x', QOS2, '00 01'), pubrec('00 07'))
    await client.says(pubrec('00 01'), pubrel('00 07')).hears(pubrel('00 01'), pubcomp('00 07'))
    broker.core.gate.releaseCommits()
  })
})

describe('QoS 2 of a session that outlives its connection, after a power cut', () => {
  test('what the client has published and not released is not published again [MQTT-4.3.3-10], 3.1.1 [MQTT-4.3.3-2]', async () => {
    await using first = await MqttUnderTest.start()
    await first.core.queue('keep', 'a')
    const client = await first.client()
    await client.says(KEPT_311).hears(CONNACK_311)
    await client.says(publish311('a', '1', QOS2, '00 07'), publish311('a', '2', QOS2, '00 08'))
    await client.hears(pubrec('00 07'), pubrec('00 08'))
    await client.says(pubrel('00 08')).hears(pubcomp('00 08'))
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    const queue = await again.core.queue('keep', 'a')
    const back = await again.client()
    await back.says(KEPT_311).hears(RESUMED_311)
    await back.says(publish311('a', '1', QOS2_DUP, '00 07')).hears(pubrec('00 07'))
    expect(queue.depth).toBe(2)
    // Released before, so it is a new message.
    await back.says(publish311('a', '3', QOS2, '00 08')).hears(pubrec('00 08'))
    expect(queue.depth).toBe(3)
    await back.says(pubrel('00 07')).hears(pubcomp('00 07'))
  })

  test('what it has received is released, what it may have is sent again under its id, and no id is used twice [MQTT-4.4.0-1]', async () => {
    await using first = await MqttUnderTest.start({ limits: { inflight: 4 } })
    const client = await subscriber(await first.client())
    for (const payload of ['1', '2', '3']) await send(first, payload)
    for (const n of [1, 2, 3]) await client.hears(publish311('a', `${n}`, QOS2, hex16(n)))
    await client.says(pubrec('00 02')).hears(pubrel('00 02'))
    await send(first, '4')
    await client.hears(publish311('a', '4', QOS2, '00 04'))
    await send(first, '5')
    // Fewer than are in use: they stay in use all the same.
    await using again = await MqttUnderTest.start({ directory: await first.powerCut(), limits: { inflight: 2 } })
    const back = await again.client()
    await back.says(KEPT_311).hears(RESUMED_311, pubrel('00 02'))
    await back.hears(publish311('a', '1', QOS2_DUP, '00 01'))
    await back.hearsNothing()
    await back.says(pubcomp('00 02')).hears(publish311('a', '3', QOS2_DUP, '00 03'))
    await back.says(pubrec('00 01')).hears(pubrel('00 01'))
    await back.says(pubcomp('00 01')).hears(publish311('a', '4', QOS2_DUP, '00 04'))
    await back.says(pubrec('00 03'), pubrec('00 04')).hears(pubrel('00 03'), pubrel('00 04'))
    await back.says(pubcomp('00 03'), pubcomp('00 04'))
    const last = await back.hearsPacket()
    expect(last.subarray(-1).toString()).toBe('5')
    expect(last[0]).toBe(QOS2)
  })

  test('what is gone from its queue, and the client may have, is released before its id is used again', async () => {
    await using first = await MqttUnderTest.start()
    const client = await subscriber(await first.client())
    await send(first, '1')
    await client.hears(publish311('a', '1', QOS2, '00 01'))
    const directory = await first.powerCut()
    const sessionQueue = { messages: 1, bytes: 1024 ** 2, onFull: 'drop_oldest', qos0: false } as const
    await using again = await MqttUnderTest.start({ directory, limits: { sessionQueue } })
    await send(again, '2')
    const back = await again.client()
    await back.says(KEPT_311).hears(RESUMED_311, pubrel('00 01'), publish311('a', '2', QOS2, '00 02'))
  })
})
