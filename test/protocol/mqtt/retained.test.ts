import { describe, expect, test } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { bytes, MqttUnderTest, packet, text, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  CONNECT_311,
  connect5,
  connect311,
  disconnect5,
  puback,
  publish5,
  publish311,
  RESUMED_311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const RETAIN = 0x31
const RETAIN_QOS1 = 0x33
const LITTLE_ROOM = { messages: 1, bytes: 1000 }

const keep = async (broker: MqttUnderTest, topic: string, payload: string, changes = {}): Promise<void> => {
  await broker.core.router.publish(messageTo(topic, payload, { retain: true, ...changes }))
}

/** Topics of the next `count` PUBLISH packets of 3.1.1, each with the retain flag, acknowledged where QoS 1 asks for it. */
async function hearsRetained(client: WireClient, count: number): Promise<string[]> {
  const topics: string[] = []
  for (let n = 0; n < count; n++) {
    const heard = await client.hearsPacket()
    expect(heard.readUInt8(0) & 0xf1).toBe(RETAIN)
    let at = 1
    while (heard.readUInt8(at) >= 0x80) at++
    const end = at + 3 + heard.readUInt16BE(at + 1)
    topics.push(heard.toString('utf8', at + 3, end))
    if ((heard.readUInt8(0) & 2) !== 0) client.says(packet(0x40, heard.subarray(end, end + 2)))
  }
  return topics
}

describe('retained messages, 3.1.1', () => {
  transcript(
    'a new subscription is sent the last one of its topic with the retain flag: 3.1.1 [MQTT-3.3.1-5], 3.1.1 [MQTT-3.3.1-6], 3.1.1 [MQTT-3.3.1-8]',
    async ({ client, another }) => {
      await client
        .says(
          connect311('p'),
          publish311('a/b', 'old', RETAIN_QOS1, '00 01'),
          publish311('a/b', 'new', RETAIN_QOS1, '00 02'),
        )
        .hears(CONNACK_311, puback('00 01'), puback('00 02'))
      const subscriber = await another()
      await subscriber
        .says(CONNECT_311, subscribe311('00 01', 'a/+', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'), publish311('a/b', 'new', RETAIN_QOS1, '00 01'))
      // What comes later comes as ever: 3.1.1 [MQTT-3.3.1-9].
      client.says(publish311('a/b', 'later', RETAIN))
      await subscriber.says(puback('00 01')).hears(publish311('a/b', 'later'))
    },
  )

  transcript(
    'QoS 0 takes the place of the one before, and is sent at QoS 0: 3.1.1 [MQTT-3.3.1-7]',
    async ({ client, another }) => {
      await client
        .says(connect311('p'), publish311('a', '1', RETAIN_QOS1, '00 01'), publish311('a', '2', RETAIN))
        .hears(CONNACK_311, puback('00 01'))
      await client.hearsNothing()
      const subscriber = await another()
      await subscriber
        .says(CONNECT_311, subscribe311('00 01', '#', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'), publish311('a', '2', RETAIN))
    },
  )

  transcript(
    'an empty one is delivered and removes it: 3.1.1 [MQTT-3.3.1-10], 3.1.1 [MQTT-3.3.1-11]; one that is not retained leaves it: 3.1.1 [MQTT-3.3.1-12]',
    async ({ client, another }) => {
      await client
        .says(CONNECT_311, publish311('a', 'x', RETAIN), publish311('a', 'passing'), subscribe311('00 01', 'a', '00'))
        .hears(CONNACK_311, suback311('00 01', '00'), publish311('a', 'x', RETAIN))
      await client.says(publish311('a', '', RETAIN)).hears(publish311('a', ''))
      const late = await another()
      await late.says(connect311('late'), subscribe311('00 01', 'a', '00')).hears(CONNACK_311, suback311('00 01', '00'))
      await late.hearsNothing()
    },
  )

  transcript(
    'subscribing again sends them again, and replaces the subscription: 3.1.1 [MQTT-3.8.4-3]',
    async ({ client, broker }) => {
      await keep(broker, 'a', 'x')
      await client
        .says(CONNECT_311, subscribe311('00 01', 'a', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'), publish311('a', 'x', RETAIN_QOS1, '00 01'))
      await client
        .says(puback('00 01'), subscribe311('00 02', 'a', '00'))
        .hears(suback311('00 02', '00'), publish311('a', 'x', RETAIN))
    },
  )

  transcript(
    'they outlive the session that published them: 3.1.1 [MQTT-3.1.2-7]',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_311, publish311('a', 'x', RETAIN_QOS1, '00 01')).hears(CONNACK_311, puback('00 01'))
      client.close()
      await eventually(() => broker.server.clientCount === 0)
      const again = await another()
      await again
        .says(CONNECT_311, subscribe311('00 01', 'a', '00'))
        .hears(CONNACK_311, suback311('00 01', '00'), publish311('a', 'x', RETAIN))
    },
  )

  transcript(
    'wildcards find those below, but none whose topic begins with $ [MQTT-4.7.2-1]',
    async ({ client, broker }) => {
      for (const topic of ['a', 'a/b', 'a/b/c', 'b', '$hidden/a']) await keep(broker, topic, 'x', { qos: 0 })
      client.says(CONNECT_311, subscribe311('00 01', 'a/#', '00'))
      await client.hears(CONNACK_311, suback311('00 01', '00'))
      expect((await hearsRetained(client, 3)).sort()).toEqual(['a', 'a/b', 'a/b/c'])
      await client.says(subscribe311('00 02', '#', '00')).hears(suback311('00 02', '00'))
      expect((await hearsRetained(client, 4)).sort()).toEqual(['a', 'a/b', 'a/b/c', 'b'])
      await client.says(subscribe311('00 03', '$hidden/#', '00')).hears(suback311('00 03', '00'))
      expect(await hearsRetained(client, 1)).toEqual(['$hidden/a'])
      await client.hearsNothing()
    },
  )

  transcript(
    'a will with Will Retain is retained [MQTT-3.1.2-15], 3.1.1 [MQTT-3.1.2-17]; one without is not [MQTT-3.1.2-14], 3.1.1 [MQTT-3.1.2-16]',
    async ({ client, another, broker }) => {
      const plain = await another()
      await client.says(connect311('w', '2e', text('will/kept'), text('gone'))).hears(CONNACK_311)
      await plain.says(connect311('v', '0e', text('will/passing'), text('gone'))).hears(CONNACK_311)
      client.close()
      plain.close()
      await eventually(() => broker.server.clientCount === 0 && broker.core.retained.messages === 1)
      const late = await another()
      await late
        .says(CONNECT_311, subscribe311('00 01', 'will/#', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'), publish311('will/kept', 'gone', RETAIN_QOS1, '00 01'))
    },
  )

  transcript(
    'beyond limits.retained a publish of QoS 1 is held back until there is room',
    async ({ client, broker }) => {
      await keep(broker, 'a', 'x')
      await client.says(CONNECT_311, publish311('b', 'x', RETAIN_QOS1, '00 01')).hears(CONNACK_311)
      await eventually(() => broker.core.router.counters.refused > 0)
      await keep(broker, 'a', '')
      await client.hears(puback('00 01'))
      expect(broker.core.retained.messages).toBe(1)
    },
    { retained: LITTLE_ROOM },
  )

  transcript(
    'a client that takes them slowly is sent all of them, at QoS 0 and 1, and none piles up for it',
    async ({ client, broker }) => {
      const payload = 'x'.repeat(1000)
      const topics = Array.from({ length: 2000 }, (_, n) => `t/${n}`).sort()
      await Promise.all(topics.map((topic, n) => keep(broker, topic, payload, { qos: n % 2 })))
      client.says(CONNECT_311)
      await client.hears(CONNACK_311)
      const { memory } = broker.core
      const before = memory.usedBytes
      let most = 0
      const watch = setInterval(() => {
        most = Math.max(most, memory.usedBytes - before)
      }, 1)
      for (const qos of ['00', '01']) {
        client.says(subscribe311('00 01', '#', qos))
        await client.hears(suback311('00 01', qos))
        expect((await hearsRetained(client, topics.length)).sort()).toEqual(topics)
      }
      clearInterval(watch)
      await client.hearsNothing()
      // Of 2 MiB that are sent, twice: blocks of the output, and two segments of the queue.
      expect(most).toBeLessThan(1024 * 1024)
      expect(broker.server.client('c1')).toMatchObject({ queued: 0, dropped: 0 })
    },
    {
      limits: {
        outputPerClientBytes: 64 * 1024,
        inflight: 20,
        sessionQueue: { messages: 30, bytes: 64 * 1024, onFull: 'drop_oldest' },
      },
    },
  )

  transcript(
    'a session that outlives its connection loses none: what was unanswered comes again, the rest follows [MQTT-4.4.0-1]',
    async ({ client, another, broker }) => {
      const topics = Array.from({ length: 50 }, (_, n) => `t/${n}`)
      for (const topic of topics) await keep(broker, topic, 'x')
      await client
        .says(connect311('s', '00'), subscribe311('00 01', 't/+', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'))
      const first = await client.hearsPacket()
      client.close()
      await eventually(() => broker.server.clientCount === 0)
      const again = await another()
      await again.says(connect311('s', '00')).hears(RESUMED_311)
      const repeated = await again.hearsPacket()
      expect(repeated.readUInt8(0)).toBe(first.readUInt8(0) | 8)
      expect(repeated.subarray(1)).toEqual(first.subarray(1))
      again.says(packet(0x40, repeated.subarray(repeated.length - 3, repeated.length - 1)))
      const rest = await hearsRetained(again, topics.length - 1)
      const repeatedTopic = repeated.toString('utf8', 4, repeated.length - 3)
      expect([repeatedTopic, ...rest].sort()).toEqual([...topics].sort())
      await again.hearsNothing()
    },
    { limits: { inflight: 4 } },
  )
})

describe('retained messages of a session that outlives its connection', () => {
  transcript(
    'what changed at QoS 0 while the client was away, and had not been sent, is sent as it is now',
    async ({ client, another, broker }) => {
      const topics = Array.from({ length: 20 }, (_, n) => `t/${n}`)
      for (const topic of topics) await keep(broker, topic, 'old', { qos: 1 })
      await client
        .says(connect311('s', '00'), subscribe311('00 01', 't/+', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'))
      await client.hearsPacket()
      client.close()
      await eventually(() => broker.server.clientCount === 0)
      for (const topic of topics) await keep(broker, topic, 'new', { qos: 0 })
      const again = await another()
      await again.says(connect311('s', '00')).hears(RESUMED_311)
      const repeated = await again.hearsPacket()
      again.says(packet(0x40, repeated.subarray(repeated.length - 5, repeated.length - 3)))
      const rest = Array.from({ length: topics.length - 1 }, () => again.hearsPacket())
      for (const heard of await Promise.all(rest)) expect(heard.subarray(-3).toString()).toBe('new')
      await again.hearsNothing()
    },
    { limits: { inflight: 1 } },
  )

  test('after a power cut it is sent all of them anew, unless it had them all', async () => {
    await using first = await MqttUnderTest.start({ limits: { inflight: 4 } })
    const topics = Array.from({ length: 50 }, (_, n) => `t/${n}`)
    for (const topic of topics) await keep(first, topic, 'x')
    const client = await first.client()
    await client
      .says(connect311('s', '00'), subscribe311('00 01', 't/+', '01'))
      .hears(CONNACK_311, suback311('00 01', '01'))
    await client.hearsPacket()
    await using second = await MqttUnderTest.start({ directory: await first.powerCut() })
    const back = await second.client()
    await back.says(connect311('s', '00')).hears(RESUMED_311)
    const heard = new Set<string>()
    while (heard.size < topics.length) {
      const publish = await back.hearsPacket()
      heard.add(publish.toString('utf8', 4, publish.length - 3))
      back.says(packet(0x40, publish.subarray(publish.length - 3, publish.length - 1)))
    }
    expect([...heard].sort()).toEqual([...topics].sort())
    await back.hearsNothing()
    await second.core.schedule.flush()
    await using third = await MqttUnderTest.start({ directory: await second.powerCut() })
    const again = await third.client()
    await again.says(connect311('s', '00')).hears(RESUMED_311)
    await again.hearsNothing()
  })
})

describe('retained messages, 5.0', () => {
  transcript(
    'retain handling 0 sends them with every subscription [MQTT-3.3.1-9], [MQTT-3.8.4-4]',
    async ({ client, broker }) => {
      await keep(broker, 'a', 'x')
      const sent = publish5('a', 'x', RETAIN)
      await client
        .says(CONNECT_5, subscribe5('00 01', 'a', '00'), subscribe5('00 02', 'a', '00'))
        .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '00'), sent)
      await client.says(subscribe5('00 03', 'a', '00')).hears(suback5('00 03', '00'), sent)
    },
  )

  transcript(
    'retain handling 1 sends them with a subscription that is new, and not with one that is not [MQTT-3.3.1-10]',
    async ({ client, broker }) => {
      await keep(broker, 'a', 'x')
      await client
        .says(CONNECT_5, subscribe5('00 01', 'a', '10'))
        .hears(CONNACK_5, suback5('00 01', '00'), publish5('a', 'x', RETAIN))
      await client.says(subscribe5('00 02', 'a', '10')).hears(suback5('00 02', '00'))
      await client.hearsNothing()
    },
  )

  transcript('retain handling 2 sends none [MQTT-3.3.1-11]', async ({ client, broker }) => {
    await keep(broker, 'a', 'x')
    await client.says(CONNECT_5, subscribe5('00 01', 'a', '20')).hears(CONNACK_5, suback5('00 01', '00'))
    await client.hearsNothing()
  })

  transcript(
    'it replaces the one before [MQTT-3.3.1-5]; an empty one is delivered and removes it [MQTT-3.3.1-6], [MQTT-3.3.1-7]; others leave it [MQTT-3.3.1-8]',
    async ({ client, another }) => {
      await client
        .says(CONNECT_5, publish5('a', '1', RETAIN), publish5('a', '2', RETAIN), publish5('a', '3'))
        .hears(CONNACK_5)
      await client.says(subscribe5('00 01', 'a', '00')).hears(suback5('00 01', '00'), publish5('a', '2', RETAIN))
      await client.says(publish5('a', '', RETAIN)).hears(publish5('a', ''))
      const late = await another()
      await late.says(connect5('late'), subscribe5('00 01', 'a', '00')).hears(CONNACK_5, suback5('00 01', '00'))
      await late.hearsNothing()
    },
  )

  transcript(
    'the lower QoS counts [MQTT-3.8.4-8], and properties come as they were, with what is left of the expiry [MQTT-3.3.2-6]',
    async ({ client, another }) => {
      const properties = '0c 26 00 01 61 00 01 62 02 00 00 00 64'
      await client
        .says(connect5('p'), publish5('a', 'x', RETAIN_QOS1, '00 01', properties))
        .hears(CONNACK_5, packet(0x40, '00 01 10'))
      const subscriber = await another()
      await subscriber
        .says(CONNECT_5, subscribe5('00 01', 'a', '01'))
        .hears(CONNACK_5, suback5('00 01', '01'), publish5('a', 'x', RETAIN_QOS1, '00 01', properties))
      await subscriber
        .says(puback('00 01'), subscribe5('00 02', 'a', '00'))
        .hears(suback5('00 02', '00'), publish5('a', 'x', RETAIN, '', properties))
    },
  )

  transcript('one whose time is over is not sent [MQTT-3.3.2-5]', async ({ client, broker }) => {
    await keep(broker, 'a', 'x', { expiryMs: 1 })
    await eventually(() => {
      broker.core.retained.expire()
      return broker.core.retained.messages === 0
    })
    await client.says(CONNECT_5, subscribe5('00 01', 'a', '00')).hears(CONNACK_5, suback5('00 01', '00'))
    await client.hearsNothing()
  })

  transcript(
    'with No Local the own ones are not sent, at either QoS [MQTT-3.8.3-3]; subscription identifiers are carried [MQTT-3.3.4-3]',
    async ({ client, broker }) => {
      for (const qos of [0, 1]) {
        await keep(broker, `own/${qos}`, 'x', { clientId: 'c1', qos })
        await keep(broker, `other/${qos}`, 'x', { clientId: 'c2', qos })
      }
      await client
        .says(CONNECT_5, packet(0x82, '00 01', '02 0b 07', text('+/0'), '05'))
        .hears(CONNACK_5, suback5('00 01', '01'), publish5('other/0', 'x', RETAIN, '', '02 0b 07'))
      await client
        .says(packet(0x82, '00 02', '02 0b 08', text('+/1'), '05'))
        .hears(suback5('00 02', '01'), publish5('other/1', 'x', RETAIN_QOS1, '00 01', '02 0b 08'))
      await client.hearsNothing()
    },
  )

  transcript('a shared subscription is sent none (section 4.8.2)', async ({ client, broker }) => {
    await keep(broker, 'a', 'x')
    await client.says(CONNECT_5, subscribe5('00 01', '$share/g/a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.hearsNothing()
  })

  transcript(
    'beyond limits.retained PUBACK says 0x97; QoS 0 is delivered',
    async ({ client, broker }) => {
      await keep(broker, 'a', 'x')
      // Without reason strings.
      await client
        .says(connect5('c1', '02 17 00'), subscribe5('00 01', 'b', '00'))
        .hears(CONNACK_5, suback5('00 01', '00'))
      await client.says(publish5('b', 'x', RETAIN_QOS1, '00 01')).hears(bytes('40 03 00 01 97'))
      await client.says(publish5('b', 'y', RETAIN)).hears(publish5('b', 'y'))
      expect(broker.core.retained).toMatchObject({ messages: 1, dropped: { limit: 1 } })
    },
    { retained: LITTLE_ROOM },
  )

  transcript('a subscription that ends is sent no more of them', async ({ client, broker }) => {
    const topics = Array.from({ length: 20 }, (_, n) => `t/${n}`)
    for (const topic of topics) await keep(broker, topic, 'x')
    await client
      .says(connect5('c1', '03 21 00 01'), subscribe5('00 01', 't/+', '01'))
      .hears(CONNACK_5, suback5('00 01', '01'))
    await client.hearsPacket()
    await client.says(packet(0xa2, '00 02', '00', text('t/+'))).hears(packet(0xb0, '00 02', '00 00'))
    await client.says(puback('00 01')).hearsNothing()
    await client.says(disconnect5('00')).hearsClose()
  })
})
