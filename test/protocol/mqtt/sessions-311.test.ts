import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { bytes, type MqttUnderTest, packet, text } from '../../support/wire.ts'
import {
  CONNACK_311,
  CONNECT_311,
  connect311,
  DISCONNECT,
  KEPT_311,
  puback,
  pubcomp,
  publish311,
  pubrec,
  pubrel,
  RESUMED_311,
  suback311,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const send = (broker: MqttUnderTest, topic: string, payload: string) =>
  broker.core.router.publish(messageTo(topic, payload))
const gone = (broker: MqttUnderTest) => eventually(() => broker.server.clientCount === 0)

describe('a 3.1.1 session without the clean session flag', () => {
  transcript('begins with session present 0: 3.1.1 [MQTT-3.2.2-3]', async ({ client }) => {
    await client.says(KEPT_311).hears(CONNACK_311)
  })

  transcript(
    'goes on with its subscriptions and session present 1: 3.1.1 [MQTT-3.1.2-4], [MQTT-3.2.2-2]',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a/+', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      await client.says(DISCONNECT).hearsClose()
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311)
      await send(broker, 'a/b', 'x')
      await again.hears(publish311('a/b', 'x', 0x32, '00 01'))
      expect(broker.server.client('c1')?.filters).toMatchObject([{ filter: 'a/+', qos: 1 }])
    },
  )

  transcript(
    'gets the QoS 1 messages that came while it was away, in order, and none of QoS 0: 3.1.1 [MQTT-3.1.2-5]',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      await client.says(DISCONNECT).hearsClose()
      for (const payload of ['1', '2', '3']) await send(broker, 'a', payload)
      await broker.core.router.publish(messageTo('a', 'not kept', { qos: 0 }))
      expect(broker.server.counters.droppedBy.not_connected).toBe(1)
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311)
      await again.hears(
        publish311('a', '1', 0x32, '00 01'),
        publish311('a', '2', 0x32, '00 02'),
        publish311('a', '3', 0x32, '00 03'),
      )
      await again.hearsNothing()
    },
  )

  transcript(
    'is sent again what it left unanswered, first, in order, under the old packet ids, with DUP: 3.1.1 [MQTT-4.4.0-1], [MQTT-4.6.0-1], [MQTT-3.3.1-1]; [MQTT-4.6.0-1]',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      for (const payload of ['1', '2', '3']) await send(broker, 'a', payload)
      await client.hears(
        publish311('a', '1', 0x32, '00 01'),
        publish311('a', '2', 0x32, '00 02'),
        publish311('a', '3', 0x32, '00 03'),
      )
      await client.says(puback('00 02')).hearsNothing()
      client.close()
      await gone(broker)
      await send(broker, 'a', '4')
      for (let n = 0; n < 2; n++) {
        const again = await another()
        await again.says(KEPT_311).hears(RESUMED_311)
        await again.hears(publish311('a', '1', 0x3a, '00 01'), publish311('a', '3', 0x3a, '00 03'))
        await again.hears(publish311('a', '4', n === 0 ? 0x32 : 0x3a, '00 04'))
        await again.hearsNothing()
        again.close()
        await gone(broker)
      }
    },
  )

  transcript(
    'QoS 2: PUBRELs without PUBCOMP come again, in order, then the messages without PUBREC: 3.1.1 [MQTT-4.4.0-1]; [MQTT-4.3.3-3], [MQTT-4.3.3-6]',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a', '02')).hears(CONNACK_311, suback311('00 01', '02'))
      for (const payload of ['1', '2', '3']) await broker.core.router.publish(messageTo('a', payload, { qos: 2 }))
      await client.hears(
        publish311('a', '1', 0x34, '00 01'),
        publish311('a', '2', 0x34, '00 02'),
        publish311('a', '3', 0x34, '00 03'),
      )
      await client.says(pubrec('00 03'), pubrec('00 01')).hears(pubrel('00 03'), pubrel('00 01'))
      client.close()
      await gone(broker)
      const again = await another()
      await again
        .says(KEPT_311)
        .hears(RESUMED_311, pubrel('00 03'), pubrel('00 01'), publish311('a', '2', 0x3c, '00 02'))
      await again.says(pubcomp('00 03'), pubcomp('00 01'), pubrec('00 02')).hears(pubrel('00 02'))
      await again.says(pubcomp('00 02')).hearsNothing()
      expect(broker.server.client('c1')).toMatchObject({ inFlight: 0, queued: 0 })
    },
  )

  transcript(
    'an answer that came after the end of the connection counts for nothing',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      for (const payload of ['1', '2']) await send(broker, 'a', payload)
      await client.hears(publish311('a', '1', 0x32, '00 01'), publish311('a', '2', 0x32, '00 02'))
      client.close()
      await gone(broker)
      const again = await another()
      await again.says(KEPT_311, puback('00 02')).hears(RESUMED_311)
      await again.hears(publish311('a', '1', 0x3a, '00 01'), publish311('a', '2', 0x3a, '00 02'))
      await again.says(puback('00 01'), puback('00 02')).hearsNothing()
      expect(broker.server.client('c1')?.inFlight).toBe(0)
    },
  )

  transcript(
    'ends with a clean session: nothing of it is left: 3.1.1 [MQTT-3.1.2-6]',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      await send(broker, 'a', '1')
      await client.hears(publish311('a', '1', 0x32, '00 01'))
      await client.says(DISCONNECT).hearsClose()
      const clean = await another()
      await clean.says(CONNECT_311).hears(CONNACK_311)
      expect((await send(broker, 'a', '2')).isRouted).toBe(false)
      await clean.says(DISCONNECT).hearsClose()
      const again = await another()
      await again.says(KEPT_311).hears(CONNACK_311)
      await again.hearsNothing()
    },
  )

  transcript('is taken over by another connection: 3.1.1 [MQTT-3.1.4-2]', async ({ client, another, broker }) => {
    await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await send(broker, 'a', '1')
    await client.hears(publish311('a', '1', 0x32, '00 01'))
    const again = await another()
    await again.says(KEPT_311).hears(RESUMED_311)
    await again.hears(publish311('a', '1', 0x3a, '00 01'))
    await client.hearsClose()
    expect(broker.server.clientCount).toBe(1)
  })

  transcript('UNSUBSCRIBE holds for later connections', async ({ client, another, broker }) => {
    await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(packet(0xa2, '00 02', text('a'))).hears(packet(0xb0, '00 02'))
    await client.says(DISCONNECT).hearsClose()
    const again = await another()
    await again.says(KEPT_311).hears(RESUMED_311)
    expect((await send(broker, 'a', '1')).isRouted).toBe(false)
    expect(broker.server.client('c1')?.filters).toEqual([])
  })

  transcript('3.1 keeps one too, and has no flag to say so', async ({ client, another, broker }) => {
    const old = packet(0x10, text('MQIsdp'), '03', '00', '00 00', text('old'))
    await client.says(old, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    await send(broker, 'a', '1')
    const again = await another()
    await again.says(old).hears(CONNACK_311, publish311('a', '1', 0x32, '00 01'))
  })

  transcript(
    'ends with its connection where limits.session_expiry_max is 0s',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      await client.says(DISCONNECT).hearsClose()
      expect((await send(broker, 'a', '1')).isRouted).toBe(false)
      const again = await another()
      await again.says(KEPT_311).hears(CONNACK_311)
    },
    { limits: { sessionExpiryMaxMs: 0 } },
  )

  transcript(
    'one more than limits.sessions is refused, a clean one and one that is known are not',
    async ({ client, another }) => {
      await client.says(KEPT_311).hears(CONNACK_311)
      await client.says(DISCONNECT).hearsClose()
      const further = await another()
      await further.says(connect311('c2', '00')).hears(bytes('20 02 00 03'))
      await further.hearsClose()
      const clean = await another()
      await clean.says(connect311('c2')).hears(CONNACK_311)
      const known = await another()
      await known.says(KEPT_311).hears(RESUMED_311)
      const anew = await another()
      await anew.says(CONNECT_311).hears(CONNACK_311)
      const freed = await another()
      await freed.says(connect311('c3', '00')).hears(CONNACK_311)
    },
    { limits: { sessions: 1 } },
  )

  transcript(
    'with limits.session_queue.qos0 messages of QoS 0 wait, too, and stay in their order',
    async ({ client, another, broker }) => {
      const say = (payload: string, qos: 0 | 1) => broker.core.router.publish(messageTo('a', payload, { qos }))
      await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      await say('1', 0)
      await client.hears(publish311('a', '1'))
      await client.says(DISCONNECT).hearsClose()
      await say('2', 0)
      await say('3', 1)
      await say('4', 0)
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311)
      await again.hears(publish311('a', '2'), publish311('a', '3', 0x32, '00 01'), publish311('a', '4'))
      await again.says(puback('00 01')).hearsNothing()
      expect(broker.server.client('c1')).toMatchObject({ queued: 0, inFlight: 0 })
      // A subscription of QoS 0 needs the queue as well; a session that ends with its connection does not.
      await again.says(subscribe311('00 02', 'a', '00')).hears(suback311('00 02', '00'))
      await again.says(DISCONNECT).hearsClose()
      await say('5', 1)
      const once = await another()
      await once.says(KEPT_311).hears(RESUMED_311, publish311('a', '5'))
    },
    { limits: { sessionQueueQos0: true } },
  )

  transcript(
    'over the limits of its queue the oldest go, and their packet ids are free again',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      for (const payload of ['1', '2']) await send(broker, 'a', payload)
      await client.hears(publish311('a', '1', 0x32, '00 01'), publish311('a', '2', 0x32, '00 02'))
      client.close()
      await gone(broker)
      for (const payload of ['3', '4', '5']) await send(broker, 'a', payload)
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311)
      await again.hears(publish311('a', '4', 0x32, '00 03'), publish311('a', '5', 0x32, '00 04'))
      await again.says(puback('00 03'), puback('00 04')).hearsNothing()
      expect(broker.server.client('c1')?.inFlight).toBe(0)
    },
    { limits: { sessionQueue: { messages: 2, bytes: 1024 ** 2, onFull: 'drop_oldest' } } },
  )
})

describe('what a session consumes', () => {
  transcript(
    '$queue: messages go back when the connection ends, nothing of them stays in the session; the next one consumes again',
    async ({ client, another, broker }) => {
      const queue = await broker.core.queue('jobs', 'jobs')
      await send(broker, 'jobs', '1')
      await client
        .says(KEPT_311, subscribe311('00 01', '$queue/jobs', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'))
      await client.hears(publish311('jobs', '1', 0x32, '00 01'))
      await client.says(DISCONNECT).hearsClose()
      expect(queue.consumerCount).toBe(0)
      expect(queue.ledger.figures()).toMatchObject({ queued: 1, in_flight: 0 })
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311, publish311('jobs', '1', 0x32, '00 02'))
      await again.says(puback('00 01')).hearsNothing()
      expect(queue.ledger.inFlight).toBe(1)
      await again.says(puback('00 02')).hearsNothing()
      expect(queue.depth).toBe(0)
    },
  )

  transcript(
    '$queue: one that is gone when the client comes back can be subscribed to again when it is there',
    async ({ client, another, broker }) => {
      const { topology } = broker.core
      const spec = { name: 'jobs', origin: 'api', qos0: 'buffer', isDurable: false } as const
      const limits = { messages: 10, bytes: 10_000, ageMs: 1000, onFull: 'reject' } as const
      await topology.declareQueue({ ...spec, limits })
      await client
        .says(KEPT_311, subscribe311('00 01', '$queue/jobs', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'))
      await client.says(DISCONNECT).hearsClose()
      await topology.deleteQueue('jobs')
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311)
      await again.says(subscribe311('00 01', '$queue/jobs', '01')).hears(suback311('00 01', '80'))
      await topology.declareQueue({ ...spec, limits })
      await again.says(subscribe311('00 01', '$queue/jobs', '01')).hears(suback311('00 01', '01'))
      await broker.core.router.publish(messageTo('jobs', '1', { exchange: '' }))
      await again.hearsPacket()
    },
  )

  transcript('$stream: the end of the session forgets the cursor', async ({ client, another, broker }) => {
    await broker.core.stream('h', 'h')
    await send(broker, 'h', '1')
    await client
      .says(KEPT_311, subscribe311('00 01', '$stream/h/first', '01'))
      .hears(CONNACK_311, suback311('00 01', '01'))
    await client.hears(publish311('h', '1', 0x32, '00 01'))
    await client.says(puback('00 01'), DISCONNECT).hearsClose()
    const clean = await another()
    await clean.says(CONNECT_311).hears(CONNACK_311)
    await clean.says(DISCONNECT).hearsClose()
    const again = await another()
    await again
      .says(KEPT_311, subscribe311('00 01', '$stream/h/first', '01'))
      .hears(CONNACK_311, suback311('00 01', '01'))
    await again.hears(publish311('h', '1', 0x32, '00 01'))
  })
})
