import { describe, expect } from 'vitest'
import { bytes, packet, text } from '../../support/wire.ts'
import { CONNACK_311, CONNECT_311, connect311, puback, publish311, suback311, subscribe311 } from './packets.ts'
import { transcript } from './transcript.ts'

describe('PUBLISH and delivery, 3.1.1', () => {
  transcript('a QoS 0 message reaches its subscribers as the same bytes, in order', async ({ client, another }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'a/+', '00')).hears(CONNACK_311, suback311('00 01', '00'))
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    publisher.says(publish311('a/b', 'hi'), publish311('b/b', 'no'), publish311('a/b', ''), publish311('a/c', 'ho'))
    await client.hears(publish311('a/b', 'hi'), publish311('a/b', ''), publish311('a/c', 'ho'))
    await client.hearsNothing()
  })

  transcript(
    'QoS 1 is acknowledged, delivered with a packet id of ours, and settled by PUBACK',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_311, subscribe311('00 01', 'a/#', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      const publisher = await another()
      await publisher.says(connect311('p')).hears(CONNACK_311)
      await publisher.says(publish311('a/b', 'hi', 0x32, '12 34')).hears(puback('12 34')) // 3.1.1 [MQTT-4.3.2-2]
      await client.hears(publish311('a/b', 'hi', 0x32, '00 01'))
      expect(broker.server.client('c1')).toMatchObject({ inFlight: 1, queued: 0 })
      await client.says(puback('00 01')).hearsNothing()
      expect(broker.server.client('c1')).toMatchObject({ inFlight: 0, queued: 0, sent: 1 })
    },
  )

  transcript('a message at the lower of published and granted QoS', async ({ client, another }) => {
    await client
      .says(
        CONNECT_311,
        subscribe311('00 01', 'zero', '00'),
        subscribe311('00 02', 'one', '01'),
        subscribe311('00 03', 'two', '02'),
      )
      .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '01'), suback311('00 03', '02'))
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    publisher.says(publish311('zero', 'x', 0x32, '00 09'), publish311('zero', 'y', 0x32, '00 0a'))
    await client.hears(publish311('zero', 'x'), publish311('zero', 'y'))
    publisher.says(publish311('one', 'x'), publish311('two', 'y', 0x32, '00 0b'))
    await client.hears(publish311('one', 'x'), publish311('two', 'y', 0x32, '00 01'))
  })

  transcript('overlapping subscriptions deliver once, with the highest QoS [MQTT-3.3.4-2]', async ({ client }) => {
    await client
      .says(CONNECT_311, subscribe311('00 01', 'a/#', '00'), subscribe311('00 02', 'a/b', '01'))
      .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '01'))
    await client
      .says(publish311('a/b', 'x', 0x32, '00 07'))
      .hears(publish311('a/b', 'x', 0x32, '00 01'), puback('00 07'))
    await client.says(puback('00 01')).hearsNothing()
  })

  transcript(
    'the retain and DUP flags of the publisher do not travel: 3.1.1 [MQTT-3.3.1-9], [MQTT-3.3.1-3]',
    async ({ client }) => {
      await client
        .says(CONNECT_311, subscribe311('00 01', 'a', '00'), subscribe311('00 02', 'b', '01'))
        .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '01'))
      await client.says(publish311('a', 'x', 0x31)).hears(publish311('a', 'x'))
      await client.says(publish311('b', 'y', 0x3b, '00 07')).hears(publish311('b', 'y', 0x32, '00 01'), puback('00 07'))
    },
  )

  transcript('packet ids in flight are never used twice, and rest before they come again', async ({ client }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    const one = publish311('a', 'x', 0x32, '00 07')
    await client.says(one).hears(publish311('a', 'x', 0x32, '00 01'), puback('00 07'))
    await client.says(one).hears(publish311('a', 'x', 0x32, '00 02'), puback('00 07'))
    await client.says(puback('00 01'), one).hears(puback('00 07'), publish311('a', 'x', 0x32, '00 03'))
    await client.says(puback('00 03'), puback('00 02')).hearsNothing()
    await client.says(one).hears(publish311('a', 'x', 0x32, '00 04'), puback('00 07'))
  })

  transcript(
    'no more than limits.inflight messages are in flight; each PUBACK lets the next one out',
    async ({ client, another }) => {
      await client.says(CONNECT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      const publisher = await another()
      await publisher.says(connect311('p')).hears(CONNACK_311)
      for (const n of ['01', '02', '03', '04']) {
        await publisher.says(publish311('a', n, 0x32, `00 ${n}`)).hears(puback(`00 ${n}`))
      }
      await client.hears(publish311('a', '01', 0x32, '00 01'), publish311('a', '02', 0x32, '00 02'))
      await client.hearsNothing()
      await client.says(puback('00 02')).hears(publish311('a', '03', 0x32, '00 02'))
      await client.says(puback('00 01')).hears(publish311('a', '04', 0x32, '00 01'))
    },
    { limits: { inflight: 2 } },
  )

  transcript('acknowledgements of what is not in flight change nothing', async ({ client, broker }) => {
    await client.says(CONNECT_311, puback('00 01')).hears(CONNACK_311)
    await client.says(subscribe311('00 01', 'a', '01')).hears(suback311('00 01', '01'))
    await client.says(puback('00 01'), puback('ff ff')).hearsNothing()
    expect(broker.server.counters.unknownAcks).toBe(3)
  })

  transcript('a message nobody subscribed to is acknowledged', async ({ client }) => {
    await client.says(CONNECT_311, publish311('a', 'x', 0x32, '00 07')).hears(CONNACK_311, puback('00 07'))
  })

  transcript('one byte at a time makes no difference', async ({ client }) => {
    const said = Buffer.concat([
      CONNECT_311,
      subscribe311('00 01', 'a/#', '01'),
      publish311('a/b', 'x'.repeat(200), 0x32, '00 07'),
      publish311('a/b', 'y'),
    ])
    for (const byte of said) client.socket.write(Buffer.from([byte]))
    await client.hears(
      CONNACK_311,
      suback311('00 01', '01'),
      publish311('a/b', 'x'.repeat(200), 0x32, '00 01'),
      puback('00 07'),
      publish311('a/b', 'y'),
    )
  })

  transcript('a packet of exactly limits.packet passes, one byte more does not', async ({ client, another }) => {
    const header = 1 + 3 + 2 + 1
    await client.says(CONNECT_311, subscribe311('00 01', 'a', '00')).hears(CONNACK_311, suback311('00 01', '00'))
    const largest = publish311('a', 'x'.repeat(1024 ** 2 - header))
    expect(largest.length).toBe(1024 ** 2)
    await client.says(largest).hears(largest)
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    await publisher.says(publish311('a', 'x'.repeat(1024 ** 2 - header + 1)).subarray(0, 100)).hearsClose()
    await client.hearsNothing()
  })

  const closing: [string, Buffer][] = [
    ['QoS 3 [MQTT-3.3.1-4]', publish311('a', 'x', 0x36, '00 01')],
    ['DUP with QoS 0 [MQTT-3.3.1-2]', publish311('a', 'x', 0x38)],
    ['packet id 0: 3.1.1 [MQTT-2.3.1-1]', publish311('a', 'x', 0x32, '00 00')],
    ['no packet id', packet(0x32, text('a'))],
    ['half a packet id', packet(0x32, text('a'), '01')],
    ['a topic longer than the packet', packet(0x30, '00 05', 'a')],
    ['no topic length', packet(0x30, '00')],
    ['nothing at all', packet(0x30)],
    ['an empty topic [MQTT-4.7.3-1]', publish311('', 'x')],
    ['a wildcard + [MQTT-3.3.2-2], [MQTT-4.7.0-1]', publish311('a/+', 'x')],
    ['a wildcard # [MQTT-3.3.2-2]', publish311('a/#', 'x')],
    ['U+0000: 3.1.1 [MQTT-1.5.3-2]', publish311('a\0', 'x')],
    ['broken UTF-8: 3.1.1 [MQTT-1.5.3-1]', packet(0x30, '00 02 c3 28', 'x')],
    ['an overlong encoding: 3.1.1 [MQTT-1.5.3-1]', packet(0x30, '00 02 c0 af', 'x')],
    ['a surrogate: 3.1.1 [MQTT-1.5.3-1]', packet(0x30, '00 03 ed a0 80', 'x')],
    ['129 levels', publish311('/'.repeat(128), 'x')],
    ['PUBACK with a wrong length', bytes('40 03 00 01 00')],
    ['PUBACK with flags', bytes('42 02 00 01')],
    ['PINGREQ with a body', bytes('c0 01 00')],
    ['PINGREQ with flags', bytes('c1 00')],
    ['DISCONNECT with flags [MQTT-3.14.1-1]', bytes('e1 00')],
    [
      'SUBSCRIBE with flags 0 [MQTT-3.8.1-1]',
      Buffer.concat([bytes('80'), subscribe311('00 01', 'a', '00').subarray(1)]),
    ],
    ['SUBSCRIBE without a filter: 3.1.1 [MQTT-3.8.3-3]', packet(0x82, '00 01')],
    ['SUBSCRIBE with packet id 0', subscribe311('00 00', 'a', '00')],
    ['SUBSCRIBE with QoS 3: 3.1.1 [MQTT-3.8.3-4]', subscribe311('00 01', 'a', '03')],
    ['SUBSCRIBE with reserved bits: 3.1.1 [MQTT-3.8.3-4]', subscribe311('00 01', 'a', '04')],
    ['SUBSCRIBE without options', packet(0x82, '00 01', text('a'))],
    ['SUBSCRIBE with U+0000', subscribe311('00 01', 'a\0', '00')],
    ['UNSUBSCRIBE without a filter [MQTT-3.10.3-2]', packet(0xa2, '00 01')],
    ['UNSUBSCRIBE with flags 0 [MQTT-3.10.1-1]', packet(0xa0, '00 01', text('a'))],
    ['a packet only a server sends: CONNACK', CONNACK_311],
    ['a packet only a server sends: SUBACK', suback311('00 01', '00')],
    ['a packet only a server sends: PINGRESP', bytes('d0 00')],
    ['packet type 0', bytes('00 00')],
    ['packet type 15', bytes('f0 00')],
    ['a remaining length of five bytes', bytes('30 80 80 80 80 01')],
  ]
  for (const [what, said] of closing) {
    transcript(`closes the connection: ${what}`, async ({ client, broker }) => {
      await client.says(CONNECT_311).hears(CONNACK_311)
      await client.says(said).hearsClose()
      expect(broker.server.counters.protocolErrors).toBe(1)
      expect(broker.server.clientCount).toBe(0)
    })
  }

  transcript('what came before a faulty packet in the same chunk still counts', async ({ client, another }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'a', '00')).hears(CONNACK_311, suback311('00 01', '00'))
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    publisher.says(publish311('a', '1'), publish311('a', '2'), publish311('a', '3', 0x38))
    await client.hears(publish311('a', '1'), publish311('a', '2'))
  })
})
