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
  hearsDisconnect,
  hearsRefusal,
  publish311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const INVALID_FILTERS = [
  'a#',
  'a+',
  '#/a',
  'a/#/b',
  '+a',
  'a/b+',
  '',
  '/'.repeat(128),
  '$queue',
  '$queue/',
  '$queue/jobs',
  '$queue/+',
  '$queue/#',
  '$queue/jobs/#',
  '$queue/\u0085',
  `$queue/${'q'.repeat(256)}`,
]

describe('SUBSCRIBE and UNSUBSCRIBE', () => {
  for (const filter of INVALID_FILTERS) {
    transcript(
      `the filter ${JSON.stringify(filter.slice(0, 20))} is refused, the connection stays`,
      async ({ client, another }) => {
        await client.says(CONNECT_311, subscribe311('00 01', filter, '00')).hears(CONNACK_311, suback311('00 01', '80'))
        await client.hearsNothing()
        const modern = await another()
        await modern.says(CONNECT_5, subscribe5('00 01', filter, '00')).hears(CONNACK_5)
        await hearsRefusal(modern, 0x8f)
        await modern.hearsNothing()
      },
    )
  }

  transcript(
    'no reason string for a client that wants none [MQTT-3.1.2-29] or cannot take it [MQTT-3.9.2-1]',
    async ({ client, another }) => {
      const refused = subscribe5('00 01', '$queue/jobs', '01')
      await client.says(connect5('c1', '02 17 00'), refused).hears(CONNACK_5, suback5('00 01', '8f'))
      const tiny = await another()
      await tiny.says(connect5('c2', '05 27 00 00 00 20'), refused).hears(CONNACK_5, suback5('00 01', '8f'))
    },
  )

  transcript('one code for each filter, in their order [MQTT-3.8.4-6]', async ({ client }) => {
    const said = packet(0x82, '00 05 00', text('a'), '00', text('b#'), '00', text('c/+/d'), '02', text('#'), '01')
    await client.says(CONNECT_5, said).hears(CONNACK_5)
    await hearsRefusal(client, 0, 0x8f, 2, 1)
  })

  transcript(
    'a subscription too many is refused, replacing one is not one more',
    async ({ client, another }) => {
      await client
        .says(
          CONNECT_311,
          subscribe311('00 01', 'a', '00'),
          subscribe311('00 02', 'b', '00'),
          subscribe311('00 03', 'a', '01'),
        )
        .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '80'), suback311('00 03', '01'))
      const modern = await another()
      await modern
        .says(CONNECT_5, subscribe5('00 01', 'a', '00'), subscribe5('00 02', 'b', '00'))
        .hears(CONNACK_5, suback5('00 01', '00'))
      await hearsRefusal(modern, 0x97)
    },
    { limits: { subscriptionsPerSession: 1 } },
  )

  transcript(
    '65,535 filters in one packet kept everybody waiting for 80 ms: more than 2,000 end the connection',
    async scene => {
      const filters = (count: number) =>
        Buffer.concat(Array.from({ length: count }, (_, n) => Buffer.concat([text(`f/${n}`), Buffer.of(0)])))
      const { client, another } = scene
      await client.says(CONNECT_5, packet(0x82, '00 01 00', filters(2_000))).hears(CONNACK_5)
      expect((await client.hearsPacket())[0]).toBe(0x90)
      await client.says(packet(0x82, '00 02 00', filters(2_001)))
      await hearsDisconnect(client, 0x97)
      const old = await another()
      await old
        .says(connect311('c2'), packet(0xa2, '00 01', ...Array<Buffer>(2_001).fill(text('f'))))
        .hears(CONNACK_311)
      await eventually(() => old.isClosed)
    },
  )

  transcript('subscribing again replaces the subscription [MQTT-3.8.4-3]', async ({ client }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(subscribe311('00 02', 'a', '00')).hears(suback311('00 02', '00'))
    await client.says(publish311('a', 'x', 0x32, '00 07')).hears(publish311('a', 'x'), bytes('40 02 00 07'))
    await client.hearsNothing()
  })

  transcript('after UNSUBSCRIBE nothing more comes', async ({ client, broker }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'a', '00')).hears(CONNACK_311, suback311('00 01', '00'))
    await client.says(packet(0xa2, '00 02', text('a'), text('never'))).hears(packet(0xb0, '00 02')) // [MQTT-3.10.4-5]
    await client.says(publish311('a', 'x')).hearsNothing()
    expect(broker.server.client('c1')?.filters).toEqual([])
  })

  transcript('UNSUBACK of 5.0 says which subscriptions there were [MQTT-3.11.3-1]', async ({ client }) => {
    await client.says(CONNECT_5, subscribe5('00 01', 'a', '00')).hears(CONNACK_5, suback5('00 01', '00'))
    await client.says(packet(0xa2, '00 02 00', text('a'), text('a'))).hears(packet(0xb0, '00 02 00', '00 11'))
  })

  transcript('# and + do not match topics that begin with $ [MQTT-4.7.2-1]', async ({ client }) => {
    await client
      .says(CONNECT_311, subscribe311('00 01', '#', '00'), subscribe311('00 02', '+/x', '00'))
      .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '00'))
    await client.says(publish311('$other/x', 'no'), publish311('a/x', 'yes')).hears(publish311('a/x', 'yes'))
    await client.hearsNothing()
  })

  transcript('a subscription ends with its connection', async ({ client, another, broker }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    await client.says(bytes('e0 00')).hearsClose()
    expect(broker.core.router.route('mqtt', 'a').isRouted).toBe(false)
    expect(broker.core.memory.usedBytes).toBe(0)
    const again = await another()
    await again.says(CONNECT_311).hears(CONNACK_311)
    await again.says(publish311('a', 'x')).hearsNothing()
  })
})
