import { describe } from 'vitest'
import { packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  connect5,
  connect311,
  DISCONNECT,
  puback,
  publish5,
  publish311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const RETAIN_AS_PUBLISHED = 0x08
const NO_LOCAL = 0x04
const options = (qos: number, flags: number): string => Buffer.from([qos | flags]).toString('hex')
/** SUBSCRIBE with a subscription identifier, written as the property's value. */
const subscribeAs = (identifier: string, packetId: string, filter: string, subscriptionOptions: string): Buffer => {
  const property = packet(0x0b, identifier).subarray(2)
  return packet(0x82, packetId, Buffer.from([1 + property.length, 0x0b]), property, text(filter), subscriptionOptions)
}

describe('Retain As Published', () => {
  transcript(
    'the retain flag is as published where the subscription wants that [MQTT-3.3.1-13], else clear [MQTT-3.3.1-12]',
    async ({ client, another }) => {
      await client
        .says(
          CONNECT_5,
          subscribe5('00 01', 'kept/zero', options(0, RETAIN_AS_PUBLISHED)),
          subscribe5('00 02', 'kept/one', options(1, RETAIN_AS_PUBLISHED)),
          subscribe5('00 03', 'clear/+', options(1, 0)),
        )
        .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'), suback5('00 03', '01'))
      const publisher = await another()
      await publisher
        .says(
          connect311('p'),
          publish311('kept/zero', 'a', 0x31),
          publish311('kept/zero', 'b', 0x30),
          publish311('kept/zero', 'c', 0x33, '00 01'),
        )
        .hears(CONNACK_311, puback('00 01'))
      await client.hears(
        publish5('kept/zero', 'a', 0x31),
        publish5('kept/zero', 'b', 0x30),
        publish5('kept/zero', 'c', 0x31),
      )
      await publisher
        .says(publish311('kept/one', 'a', 0x33, '00 02'), publish311('kept/one', 'b', 0x32, '00 03'))
        .hears(puback('00 02'), puback('00 03'))
      await client.hears(publish5('kept/one', 'a', 0x33, '00 01'), publish5('kept/one', 'b', 0x32, '00 02'))
      await publisher
        .says(publish311('clear/zero', 'a', 0x31), publish311('clear/one', 'b', 0x33, '00 04'))
        .hears(puback('00 04'))
      await client.hears(publish5('clear/zero', 'a', 0x30), publish5('clear/one', 'b', 0x32, '00 03'))
      await client.hearsNothing()
    },
  )
})

describe('overlapping subscriptions', () => {
  transcript(
    'one delivery with the highest QoS, whatever the order of the subscriptions [MQTT-3.3.4-2], 3.1.1 [MQTT-3.3.5-1]',
    async ({ client, another }) => {
      await client
        .says(CONNECT_5, subscribe5('00 01', 'a/+', '01'), subscribe5('00 02', 'a/#', '00'))
        .hears(CONNACK_5, suback5('00 01', '01'), suback5('00 02', '00'))
      const old = await another()
      await old
        .says(connect311('old'), subscribe311('00 01', 'a/#', '00'), subscribe311('00 02', 'a/+', '01'))
        .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '01'))
      const publisher = await another()
      await publisher
        .says(connect5('p'), publish5('a/b', 'one', 0x32, '00 01'), publish5('a/b', 'zero'))
        .hears(CONNACK_5, puback('00 01'))
      await client.hears(publish5('a/b', 'one', 0x32, '00 01'), publish5('a/b', 'zero'))
      await old.hears(publish311('a/b', 'one', 0x32, '00 01'), publish311('a/b', 'zero'))
      await client.hearsNothing()
      await old.hearsNothing()
    },
  )

  transcript(
    'a client’s own message comes if one subscription without No Local matches, else not [MQTT-3.8.3-3]',
    async ({ client }) => {
      await client
        .says(
          CONNECT_5,
          subscribe5('00 01', 'a/#', options(1, NO_LOCAL)),
          subscribe5('00 02', 'a/b', options(0, 0)),
          subscribe5('00 03', '+/+', options(0, NO_LOCAL)),
        )
        .hears(CONNACK_5, suback5('00 01', '01'), suback5('00 02', '00'), suback5('00 03', '00'))
      await client.says(publish5('a/b', 'heard')).hears(publish5('a/b', 'heard'))
      await client.says(publish5('a/c', 'x'), publish5('a/c', 'x', 0x32, '00 01')).hears(puback('00 01'))
      await client.hearsNothing()
    },
  )

  transcript('one of them with Retain As Published is enough', async ({ client, another }) => {
    await client
      .says(CONNECT_5, subscribe5('00 01', '#', options(0, RETAIN_AS_PUBLISHED)), subscribe5('00 02', 'a', '01'))
      .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
    const publisher = await another()
    await publisher.says(connect311('p'), publish311('a', 'x', 0x33, '00 01')).hears(CONNACK_311, puback('00 01'))
    await client.hears(publish5('a', 'x', 0x33, '00 01'))
  })
})

describe('subscription identifiers', () => {
  transcript(
    'a message carries those of all subscriptions that match, and no others [MQTT-3.3.4-3], [MQTT-3.3.4-4]',
    async ({ client, another }) => {
      await client
        .says(
          CONNECT_5,
          subscribeAs('01', '00 01', 'a/+', '01'),
          subscribeAs('ff ff ff 7f', '00 02', 'a/#', '00'),
          subscribe5('00 03', '#', '00'),
          subscribeAs('03', '00 04', 'b', '00'),
          subscribeAs('01', '00 05', 'c/#', '00'),
          subscribeAs('01', '00 06', 'c/d', '01'),
        )
        .hears(
          CONNACK_5,
          suback5('00 01', '01'),
          suback5('00 02', '00'),
          suback5('00 03', '00'),
          suback5('00 04', '00'),
          suback5('00 05', '00'),
          suback5('00 06', '01'),
        )
      const publisher = await another()
      await publisher
        .says(
          connect5('p'),
          publish5('a/b', 'q1', 0x32, '00 01'),
          publish5('a/b', 'q1', 0x32, '00 02', '05 02 00 00 00 63'),
          publish5('c/d', 'twice', 0x32, '00 03'),
          publish5('d', 'none', 0x32, '00 04'),
        )
        .hears(CONNACK_5, puback('00 01'), puback('00 02'), puback('00 03'), puback('00 04'))
      const both = '0b 01 0b ff ff ff 7f'
      await client.hears(
        publish5('a/b', 'q1', 0x32, '00 01', `07 ${both}`),
        publish5('a/b', 'q1', 0x32, '00 02', `0c ${both} 02 00 00 00 63`),
        publish5('c/d', 'twice', 0x32, '00 03', '04 0b 01 0b 01'),
        publish5('d', 'none'),
      )
      await publisher.says(
        publish5('a/b', 'q0', 0x30, '', '07 26 00 01 78 00 01 79'),
        publish5('a/b', 'q0'),
        publish5('a/c/d', 'one'),
        publish5('d', 'none'),
      )
      await client.hears(
        publish5('a/b', 'q0', 0x30, '', `0e ${both} 26 00 01 78 00 01 79`),
        publish5('a/b', 'q0', 0x30, '', `07 ${both}`),
        publish5('a/c/d', 'one', 0x30, '', '05 0b ff ff ff 7f'),
        publish5('d', 'none'),
      )
    },
  )

  transcript('replacing or ending a subscription changes them at once', async ({ client }) => {
    await client.says(CONNECT_5, subscribeAs('05', '00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client
      .says(publish5('a', '1', 0x32, '00 01'))
      .hears(publish5('a', '1', 0x32, '00 01', '02 0b 05'), puback('00 01'))
    await client.says(subscribeAs('06', '00 02', 'a', '01')).hears(suback5('00 02', '01'))
    await client
      .says(publish5('a', '2', 0x32, '00 02'))
      .hears(publish5('a', '2', 0x32, '00 02', '02 0b 06'), puback('00 02'))
    await client.says(subscribe5('00 03', 'a', '01')).hears(suback5('00 03', '01'))
    await client.says(publish5('a', '3', 0x32, '00 03')).hears(publish5('a', '3', 0x32, '00 03'), puback('00 03'))
    await client.says(subscribeAs('07', '00 04', '#', '01')).hears(suback5('00 04', '01'))
    await client.says(publish5('a', '4')).hears(publish5('a', '4', 0x30, '', '02 0b 07'))
    await client.says(packet(0xa2, '00 05 00', text('#'))).hears(packet(0xb0, '00 05 00 00'))
    await client.says(publish5('a', '5')).hears(publish5('a', '5'))
  })

  transcript('a subscription with No Local has no part in the client’s own messages', async ({ client, another }) => {
    await client
      .says(CONNECT_5, subscribeAs('01', '00 01', 'a', options(0, NO_LOCAL)), subscribeAs('02', '00 02', '#', '01'))
      .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
    await client
      .says(publish5('a', 'mine'), publish5('a', 'mine', 0x32, '00 01'))
      .hears(
        publish5('a', 'mine', 0x30, '', '02 0b 02'),
        publish5('a', 'mine', 0x32, '00 01', '02 0b 02'),
        puback('00 01'),
      )
    const publisher = await another()
    await publisher.says(connect5('p'), publish5('a', 'its')).hears(CONNACK_5)
    await client.hears(publish5('a', 'its', 0x30, '', '04 0b 01 0b 02'))
  })

  transcript('messages of a shared subscription carry that of the member they go to', async ({ client, another }) => {
    await client
      .says(CONNECT_5, subscribeAs('01', '00 01', '$share/g/a/+', '01'), subscribeAs('02', '00 02', '#', '00'))
      .hears(CONNACK_5, suback5('00 01', '01'), suback5('00 02', '00'))
    const other = await another()
    await other
      .says(connect5('c2'), subscribeAs('03', '00 01', '$share/g/a/+', '00'))
      .hears(CONNACK_5, suback5('00 01', '00'))
    const publisher = await another()
    await publisher.says(connect5('p'), publish5('a/b', '1')).hears(CONNACK_5)
    await other.hears(publish5('a/b', '1', 0x30, '', '02 0b 03'))
    await client.hears(publish5('a/b', '1', 0x30, '', '02 0b 02'))
    await other.says(DISCONNECT).hearsClose()
    await publisher.says(publish5('a/c', '2'), publish5('a/c', '3', 0x32, '00 01')).hears(puback('00 01'))
    await client.hears(
      publish5('a/c', '2', 0x30, '', '02 0b 01'),
      publish5('a/c', '2', 0x30, '', '02 0b 02'),
      publish5('a/c', '3', 0x32, '00 01', '02 0b 01'),
      publish5('a/c', '3', 0x30, '', '02 0b 02'),
    )
  })

  transcript('messages of a queue carry that of the subscription to it', async ({ client, broker }) => {
    await broker.core.queue('jobs', 'jobs/#')
    await client
      .says(CONNECT_5, subscribeAs('09', '00 01', '$queue/jobs', '01'), subscribeAs('08', '00 02', '#', '00'))
      .hears(CONNACK_5, suback5('00 01', '01'), suback5('00 02', '00'))
    await client
      .says(publish5('jobs/a', 'x', 0x32, '00 01'))
      .hears(publish5('jobs/a', 'x', 0x32, '00 01', '02 0b 09'), publish5('jobs/a', 'x', 0x30, '', '02 0b 08'))
  })

  transcript('more topics than are remembered, over a subscription with an identifier', async ({ client }) => {
    await client.says(CONNECT_5, subscribeAs('01', '00 01', '#', '00')).hears(CONNACK_5, suback5('00 01', '00'))
    const topics = Array.from({ length: 1030 }, (_, n) => `t/${n}`)
    await client
      .says(...topics.map(topic => publish5(topic, '')))
      .hears(...topics.map(topic => publish5(topic, '', 0x30, '', '02 0b 01')))
  })
})
