import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { bytes, packet, text } from '../../support/wire.ts'
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
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const USER_PROPERTIES = '15 26 00 01 62 00 01 31 26 00 01 61 00 01 32 26 00 01 62 00 01 33'

describe('PUBLISH and delivery, 5.0', () => {
  transcript(
    'properties travel as they are [MQTT-3.3.2-17], user properties in order [MQTT-3.3.2-18]',
    async ({ client }) => {
      await client
        .says(CONNECT_5, subscribe5('00 01', 'zero', '00'), subscribe5('00 02', 'one', '01'))
        .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
      const zero = publish5('zero', 'x', 0x30, '', USER_PROPERTIES)
      await client.says(zero).hears(zero)
      await client
        .says(publish5('one', 'x', 0x32, '00 07', USER_PROPERTIES))
        .hears(publish5('one', 'x', 0x32, '00 01', USER_PROPERTIES), puback('00 07'))
    },
  )

  transcript('versions meet: properties are left out for 3.1.1 and empty from it', async ({ client, another }) => {
    await client
      .says(CONNECT_5, subscribe5('00 01', 'zero', '00'), subscribe5('00 02', 'one', '01'))
      .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
    const old = await another()
    await old
      .says(connect311('old'), subscribe311('00 01', 'zero', '00'), subscribe311('00 02', 'one', '01'))
      .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '01'))

    client.says(publish5('zero', 'x', 0x30, '', USER_PROPERTIES))
    await old.hears(publish311('zero', 'x'))
    await client.hears(publish5('zero', 'x', 0x30, '', USER_PROPERTIES))
    old.says(publish311('zero', 'a'), publish311('zero', 'b'), publish311('one', 'c', 0x32, '00 05'))
    await old.hears(
      publish311('zero', 'a'),
      publish311('zero', 'b'),
      publish311('one', 'c', 0x32, '00 01'),
      puback('00 05'),
    )
    await client.hears(publish5('zero', 'a'), publish5('zero', 'b'), publish5('one', 'c', 0x32, '00 01'))
    client.says(publish5('one', 'd', 0x32, '00 06', USER_PROPERTIES))
    await old.hears(publish311('one', 'd', 0x32, '00 02'))
    await client.hears(publish5('one', 'd', 0x32, '00 02', USER_PROPERTIES), puback('00 06'))
  })

  transcript('a message nobody subscribed to is acknowledged with 0x10', async ({ client }) => {
    await client.says(CONNECT_5, publish5('a', 'x', 0x32, '00 07')).hears(CONNACK_5, packet(0x40, '00 07 10'))
  })

  transcript(
    'message expiry goes down while a message waits [MQTT-3.3.2-6], and ends it [MQTT-3.3.2-5]',
    async ({ client, another, broker }) => {
      await client
        .says(connect5('c1', '03 21 00 01'), subscribe5('00 01', 'a', '01'))
        .hears(CONNACK_5, suback5('00 01', '01'))
      const publisher = await another()
      await publisher.says(connect5('p')).hears(CONNACK_5)
      await publisher.says(publish5('a', '1', 0x32, '00 01')).hears(puback('00 01'))
      await publisher.says(publish5('a', '2', 0x32, '00 02', '05 02 00 00 00 01')).hears(puback('00 02'))
      await publisher
        .says(publish5('a', '3', 0x32, '00 03', '0c 26 00 01 61 00 01 62 02 00 00 00 64'))
        .hears(puback('00 03'))
      await client.hears(publish5('a', '1', 0x32, '00 01'))
      const since = performance.now()
      while (performance.now() - since < 1100) await publisher.hearsNothing()
      expect(broker.server.client('c1')?.queued).toBe(2)
      broker.core.topology.expire()
      expect(broker.server.client('c1')?.queued).toBe(1)
      await client
        .says(puback('00 01'))
        .hears(publish5('a', '3', 0x32, '00 01', '0c 26 00 01 61 00 01 62 02 00 00 00 63'))
      expect(broker.server.client('c1')?.queued).toBe(0)
    },
  )

  transcript('no more in flight than the receive maximum of the client [MQTT-3.3.4-9]', async ({ client, another }) => {
    await client
      .says(connect5('c1', '03 21 00 02'), subscribe5('00 01', 'a', '01'))
      .hears(CONNACK_5, suback5('00 01', '01'))
    const publisher = await another()
    await publisher.says(connect5('p')).hears(CONNACK_5)
    for (const n of ['01', '02', '03']) {
      await publisher.says(publish5('a', n, 0x32, `00 ${n}`)).hears(puback(`00 ${n}`))
    }
    await client.hears(publish5('a', '01', 0x32, '00 01'), publish5('a', '02', 0x32, '00 02'))
    await client.hearsNothing()
    // A PUBACK that refuses is one all the same [MQTT-4.4.0-2].
    await client.says(packet(0x40, '00 01 97 00')).hears(publish5('a', '03', 0x32, '00 01'))
  })

  transcript(
    'nothing larger than the maximum packet size of the client is sent [MQTT-3.1.2-24]',
    async ({ client, another, broker }) => {
      await client
        .says(connect5('c1', '05 27 00 00 00 20'), subscribe5('00 01', 'a', '00'), subscribe5('00 02', 'b', '01'))
        .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
      const publisher = await another()
      await publisher.says(connect5('p')).hears(CONNACK_5)
      const fits = 'x'.repeat(0x20 - 6)
      publisher.says(publish5('a', fits), publish5('a', `${fits}x`), publish5('a', 'y'))
      await client.hears(publish5('a', fits), publish5('a', 'y'))
      publisher.says(publish5('b', fits, 0x32, '00 01'), publish5('b', 'z', 0x32, '00 02'))
      await publisher.hears(puback('00 01'), puback('00 02'))
      await client.hears(publish5('b', 'z', 0x32, '00 01'))
      expect(broker.server.client('c1')).toMatchObject({ dropped: 1, queued: 0, inFlight: 1 })
    },
  )

  transcript(
    'no local: what the client publishes itself does not come back [MQTT-3.8.3-3]',
    async ({ client, another }) => {
      await client
        .says(CONNECT_5, subscribe5('00 01', 'a', '04'), subscribe5('00 02', 'b', '05'))
        .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
      await client.says(publish5('a', 'mine'), publish5('b', 'mine', 0x32, '00 01')).hears(puback('00 01'))
      const other = await another()
      await other.says(connect5('p'), publish5('a', 'its')).hears(CONNACK_5)
      await client.hears(publish5('a', 'its'))
      await other.says(publish5('b', 'its', 0x32, '00 02')).hears(puback('00 02'))
      await client.hears(publish5('b', 'its', 0x32, '00 01'))
    },
  )

  const closing: [string, string, Buffer][] = [
    ['81', 'QoS 3 [MQTT-3.3.1-4]', publish5('a', 'x', 0x36, '00 01')],
    ['81', 'DUP with QoS 0 [MQTT-3.3.1-2]', publish5('a', 'x', 0x38)],
    ['81', 'packet id 0 [MQTT-2.2.1-3]', publish5('a', 'x', 0x32, '00 00')],
    ['81', 'no properties length', packet(0x30, text('a'))],
    ['81', 'properties longer than the packet', publish5('a', '', 0x30, '', '05 26 00')],
    ['81', 'a properties length of five bytes', publish5('a', '', 0x30, '', '80 80 80 80 01')],
    ['81', 'an unknown property', publish5('a', '', 0x30, '', '02 7f 00')],
    ['81', 'property 0', publish5('a', '', 0x30, '', '02 00 00')],
    ['81', 'a property of another packet', publish5('a', '', 0x30, '', '05 11 00 00 00 01')],
    ['81', 'a property cut short', publish5('a', '', 0x30, '', '03 02 00 00')],
    ['82', 'message expiry twice', publish5('a', '', 0x30, '', '0a 02 00 00 00 01 02 00 00 00 01')],
    ['82', 'payload format indicator 2', publish5('a', '', 0x30, '', '02 01 02')],
    ['82', 'a subscription identifier [MQTT-3.3.4-6]', publish5('a', '', 0x30, '', '02 0b 01')],
    ['82', 'a wildcard in the response topic [MQTT-3.3.2-14]', publish5('a', '', 0x30, '', '06 08 00 03 61 2f 23')],
    ['81', 'broken UTF-8 in the content type', publish5('a', '', 0x30, '', '05 03 00 02 c3 28')],
    ['81', 'U+0000 in a user property', publish5('a', '', 0x30, '', '07 26 00 01 00 00 01 61')],
    ['82', 'an empty topic without an alias', publish5('', 'x')],
    ['90', 'a wildcard [MQTT-3.3.2-2]', publish5('a/+', 'x')],
    ['81', 'U+0000 in the topic [MQTT-1.5.4-2]', publish5('a\0', 'x')],
    ['81', 'broken UTF-8 in the topic [MQTT-1.5.4-1]', packet(0x30, '00 02 c3 28', '00')],
    ['90', '129 levels', publish5('/'.repeat(128), 'x')],
    ['95', 'a packet over the announced maximum [MQTT-3.2.2-15]', bytes('30 ff ff ff 7f 00')],
    ['82', 'AUTH without a method', bytes('f0 00')],
    ['82', 'a packet only a server sends', CONNACK_5],
    ['81', 'an unknown reason in PUBACK [MQTT-3.4.2-1]', packet(0x40, '00 01 55')],
    ['81', 'a foreign property in PUBACK', packet(0x40, '00 01 00 02 01 00')],
    ['81', 'an unknown reason in DISCONNECT', bytes('e0 01 8e')],
    ['82', 'a session expiry in DISCONNECT that CONNECT did not have', bytes('e0 07 00 05 11 00 00 00 05')],
    ['82', 'a subscription identifier twice', packet(0x82, '00 01', '04 0b 05 0b 06', text('a'), '00')],
    ['82', 'subscription identifier 0', packet(0x82, '00 01', '02 0b 00', text('a'), '00')],
    ['81', 'SUBSCRIBE with reserved bits [MQTT-3.8.3-5]', subscribe5('00 01', 'a', '40')],
    ['82', 'SUBSCRIBE with retain handling 3', subscribe5('00 01', 'a', '30')],
    ['82', 'SUBSCRIBE with QoS 3', subscribe5('00 01', 'a', '03')],
    ['82', 'No Local for a shared subscription [MQTT-3.8.3-4]', subscribe5('00 01', '$share/g/a', '04')],
    ['82', 'SUBSCRIBE without a filter [MQTT-3.8.3-2]', packet(0x82, '00 01 00')],
    ['82', 'UNSUBSCRIBE without a filter [MQTT-3.10.3-2]', packet(0xa2, '00 01 00')],
  ]
  for (const [reason, what, said] of closing) {
    transcript(`disconnected with 0x${reason}: ${what}`, async ({ client, broker }) => {
      await client.says(CONNECT_5).hears(CONNACK_5)
      await client.says(said).hears(disconnect5(reason))
      await client.hearsClose()
      expect(broker.server.counters.protocolErrors).toBe(1)
    })
  }

  transcript(
    'what came before a fault in the same run still counts, and is acknowledged',
    async ({ client, another }) => {
      await client.says(CONNECT_5, subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
      const publisher = await another()
      await publisher.says(connect5('p')).hears(CONNACK_5)
      publisher.says(
        publish5('a', '1', 0x32, '00 01'),
        publish5('a', '2', 0x32, '00 02'),
        publish5('a', '3', 0x32, '00 00'),
        publish5('a', '4', 0x32, '00 04'),
      )
      await client.hears(publish5('a', '1', 0x32, '00 01'), publish5('a', '2', 0x32, '00 02'))
      await client.hearsNothing()
      await publisher.hears(puback('00 01'), puback('00 02'), disconnect5('81'))
      await publisher.hearsClose()
    },
  )

  transcript('a topic that ends at the 128th level is fine', async ({ client }) => {
    const topic = '/'.repeat(127)
    await client.says(CONNECT_311, subscribe311('00 01', '#', '00')).hears(CONNACK_311, suback311('00 01', '00'))
    await client.says(publish311(topic, 'x')).hears(publish311(topic, 'x'))
  })

  transcript(
    'a publisher that limits.memory holds back for too long is disconnected with 0x97',
    async ({ client, broker }) => {
      const { memory } = broker.core
      await client.says(CONNECT_5).hears(CONNACK_5)
      memory.take(memory.limitBytes)
      await client.says(publish5('a', 'x'), publish5('a', 'y')).hears(disconnect5('97'))
      await client.hearsClose()
      memory.give(memory.limitBytes)
    },
    { limits: { refuseDisconnectAfterMs: 100 } },
  )

  transcript(
    'who holds most memory for an unfinished packet is disconnected with 0x97 when all together hold too much',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_5).hears(CONNACK_5)
      const greedy = await another()
      await greedy.says(connect5('greedy')).hears(CONNACK_5)
      // Most of a packet of 1 MiB, the largest there may be.
      const begun = Buffer.concat([bytes('30 fb ff 3f'), Buffer.alloc(1024 ** 2 - 100)])
      greedy.says(begun)
      for (let n = 0; n < 15; n++) {
        const other = await another()
        await other.says(connect5(`c${n}x`)).hears(CONNACK_5)
        other.says(begun.subarray(0, 1_040_000))
      }
      const bytesIn = begun.length + 15 * 1_040_000
      await eventually(() => broker.server.counters.bytesIn > bytesIn, { what: 'what the others have begun' })
      // One that comes last, with less, is not the one to go.
      client.says(begun.subarray(0, 600_000))
      await eventually(() => broker.server.counters.limitsReached.get('unfinished') === 1, { what: 'the answer' })
      expect(broker.server.client('c1')).toBeDefined()
      expect(broker.server.clientCount).toBe(16)
    },
  )
})
