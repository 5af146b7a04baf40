import fc from 'fast-check'
import { describe, expect } from 'vitest'
import { bytes, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  connect5,
  connect311,
  DISCONNECT,
  disconnect5,
  hex16,
  puback,
  publish5,
  publish311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const alias = (n: number): string => `23 ${hex16(n)}`
/** PUBLISH of QoS 0 with a topic alias; the topic may be empty. */
const aliased = (topic: string, n: number, payload: string): Buffer =>
  publish5(topic, payload, 0x30, '', `03 ${alias(n)}`)
/** CONNECT of a client that takes so many aliases. */
const taking = (clientId: string, most: number, more = ''): Buffer =>
  connect5(
    clientId,
    bytes(Buffer.from([3 + bytes(more).length]), `22 ${hex16(most)}`, more)
      .toString('hex')
      .replace(/..(?=.)/g, '$& '),
  )

describe('topic aliases of clients', () => {
  transcript(
    'an alias stands for its topic until it is given to another, in every QoS and version of the receiver [MQTT-3.3.2-12]',
    async ({ client, another }) => {
      await client
        .says(CONNECT_5, subscribe5('00 01', 'a/#', '01'), subscribe5('00 02', 'z', '00'))
        .hears(CONNACK_5, suback5('00 01', '01'), suback5('00 02', '00'))
      const old = await another()
      await old.says(connect311('old'), subscribe311('00 01', '#', '00')).hears(CONNACK_311, suback311('00 01', '00'))
      const publisher = await another()
      publisher.says(
        connect5('p'),
        aliased('a/b', 16, '1'),
        aliased('', 16, '2'),
        publish5('a/b', '3'),
        aliased('', 16, '4'),
        aliased('a/c', 16, '5'),
        aliased('a/b', 1, '6'),
        aliased('', 16, '7'),
        aliased('', 1, '8'),
        aliased('', 16, '9'),
        aliased('z', 16, 'a'),
        publish5('', 'b', 0x32, '00 01', `03 ${alias(1)}`),
        publish5('', 'c', 0x3a, '00 02', `03 ${alias(1)}`),
      )
      const heard: [string, string][] = [
        ['a/b', '1'],
        ['a/b', '2'],
        ['a/b', '3'],
        ['a/b', '4'],
        ['a/c', '5'],
        ['a/b', '6'],
        ['a/c', '7'],
        ['a/b', '8'],
        ['a/c', '9'],
        ['z', 'a'],
      ]
      await publisher.hears(CONNACK_5, puback('00 01'), puback('00 02'))
      await client.hears(
        ...heard.map(([topic, payload]) => publish5(topic, payload)),
        publish5('a/b', 'b', 0x32, '00 01'),
        publish5('a/b', 'c', 0x32, '00 02'),
      )
      await old.hears(
        ...[...heard, ['a/b', 'b'], ['a/b', 'c']].map(([topic = '', payload = '']) => publish311(topic, payload)),
      )
    },
  )

  transcript('the alias goes, the other properties stay, wherever it stood', async ({ client, another }) => {
    await client
      .says(CONNECT_5, subscribe5('00 01', 'zero', '00'), subscribe5('00 02', 'one', '01'))
      .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
    const publisher = await another()
    const user = '26 00 01 61 00 01 62'
    const type = '03 00 01 74'
    const without = `0b ${user} ${type}`
    const expiring = `10 ${user} 02 00 00 00 63 ${type}`
    await publisher
      .says(
        connect5('p'),
        publish5('zero', 'x', 0x30, '', `0e ${alias(1)} ${user} ${type}`),
        publish5('', 'x', 0x30, '', `0e ${user} ${alias(1)} ${type}`),
        publish5('zero', 'x', 0x30, '', `0e ${user} ${type} ${alias(1)}`),
        publish5('one', 'x', 0x32, '00 01', `0e ${user} ${type} ${alias(2)}`),
        publish5('', 'x', 0x32, '00 02', `13 ${user} 02 00 00 00 63 ${alias(2)} ${type}`),
      )
      .hears(CONNACK_5, puback('00 01'), puback('00 02'))
    await client.hears(
      publish5('zero', 'x', 0x30, '', without),
      publish5('zero', 'x', 0x30, '', without),
      publish5('zero', 'x', 0x30, '', without),
      publish5('one', 'x', 0x32, '00 01', without),
      publish5('one', 'x', 0x32, '00 02', expiring),
    )
  })

  transcript(
    'their topics count towards limits.session_state until the connection ends',
    async ({ client, broker }) => {
      const { state } = broker.server
      const long = 'x'.repeat(60_000)
      await client.says(CONNECT_5, aliased(long, 1, ''), aliased(long, 2, '')).hears(CONNACK_5)
      await client.hearsNothing()
      expect(state.used).toBeGreaterThan(2 * long.length)
      await client.says(aliased('a', 1, ''), aliased('a', 2, '')).hearsNothing()
      expect(state.used).toBe(0)
      await client.says(aliased(long, 1, ''), DISCONNECT).hearsClose()
      expect(state.used).toBe(0)
    },
    { limits: { topicBytes: 65_535 } },
  )

  transcript('another connection knows nothing of them [MQTT-3.3.2-7]', async ({ client, another }) => {
    await client.says(CONNECT_5, aliased('a', 1, 'x')).hears(CONNACK_5)
    await client.hearsNothing()
    const again = await another()
    await again.says(CONNECT_5).hears(CONNACK_5)
    await again.says(aliased('', 1, 'x')).hears(disconnect5('82'))
    await again.hearsClose()
  })

  const refused: [string, string, Buffer][] = [
    ['94', 'alias 0 [MQTT-3.3.2-8]', aliased('a', 0, '')],
    ['94', 'alias 0 without a topic [MQTT-3.3.2-8]', aliased('', 0, '')],
    ['94', 'an alias above the maximum [MQTT-3.3.2-9], [MQTT-3.2.2-17]', aliased('a', 17, '')],
    ['94', 'an alias above the maximum without a topic [MQTT-3.3.2-9]', aliased('', 65_535, '')],
    ['82', 'an alias that stands for nothing', aliased('', 2, '')],
    ['82', 'two aliases', publish5('a', '', 0x30, '', `06 ${alias(1)} ${alias(1)}`)],
    ['82', 'no topic and no alias', publish5('', '', 0x30, '', '04 03 00 01 74')],
    ['81', 'half an alias', publish5('', '', 0x30, '', '02 23 00')],
    ['81', 'properties that end behind the packet', publish5('', '', 0x30, '', '04 23 00 01')],
    ['81', 'no packet identifier', packet(0x32, '00 00 00')],
    ['81', 'QoS 3', publish5('', '', 0x36, '00 01', `03 ${alias(1)}`)],
  ]
  for (const [reason, what, said] of refused) {
    transcript(`disconnected with 0x${reason}: ${what}`, async ({ client }) => {
      await client.says(CONNECT_5, aliased('a', 1, '')).hears(CONNACK_5)
      await client.says(said).hears(disconnect5(reason))
      await client.hearsClose()
    })
  }

  transcript(
    'with limits.topic_aliases 0 none is announced, and none taken [MQTT-3.2.2-18]',
    async ({ client }) => {
      await client
        .says(CONNECT_5)
        .hears(packet(0x20, '00 00 10', '21 00 40', '25 01', '27 00 10 00 00', '28 01', '29 01', '2a 01'))
      await client.says(aliased('a', 1, '')).hears(disconnect5('94'))
      await client.hearsClose()
    },
    { limits: { topicAliases: 0 } },
  )

  transcript('whatever a client does with them, its messages come to their topics', async ({ client, another }) => {
    await client.says(CONNECT_5, subscribe5('00 01', '#', '00')).hears(CONNACK_5, suback5('00 01', '00'))
    const topic = fc.constantFrom('a', 'b', 'c/d', 'long/er/topic', 'ä', 'f', 'g')
    const message = fc.record({ topic, alias: fc.integer({ min: 0, max: 4 }), isFull: fc.boolean() })
    const publisher = await another()
    await publisher.says(connect5('p')).hears(CONNACK_5)
    const standsFor = new Map<number, string>()
    await fc.assert(
      fc.asyncProperty(fc.array(message, { minLength: 1, maxLength: 30 }), async messages => {
        const expected: Buffer[] = []
        for (const { topic: wanted, alias: n, isFull } of messages) {
          const known = standsFor.get(n)
          if (n === 0) {
            publisher.says(publish5(wanted, 'x'))
            expected.push(publish5(wanted, 'x'))
          } else if (isFull || known === undefined) {
            publisher.says(aliased(wanted, n, 'x'))
            standsFor.set(n, wanted)
            expected.push(publish5(wanted, 'x'))
          } else {
            publisher.says(aliased('', n, 'x'))
            expected.push(publish5(known, 'x'))
          }
        }
        await client.hears(...expected)
      }),
      { numRuns: 50 },
    )
  })
})

describe('topic aliases towards clients', () => {
  transcript(
    'a topic sent again gets one, as many as the client takes [MQTT-3.1.2-26], [MQTT-3.3.2-11]',
    async ({ client, another }) => {
      await client.says(taking('c1', 2), subscribe5('00 01', '#', '01')).hears(CONNACK_5, suback5('00 01', '01'))
      const publisher = await another()
      await publisher
        .says(
          connect311('p'),
          ...[1, 2, 3].map(n => publish311('first', `${n}`)),
          publish311('one', '4', 0x32, '00 01'),
          publish311('first', '5', 0x32, '00 02'),
          publish311('second', '6', 0x32, '00 03'),
          publish311('second', '7'),
        )
        .hears(CONNACK_311, puback('00 01'), puback('00 02'), puback('00 03'))
      await client.hears(
        publish5('first', '1'),
        aliased('first', 1, '2'),
        aliased('', 1, '3'),
        publish5('one', '4', 0x32, '00 01'),
        publish5('', '5', 0x32, '00 02', `03 ${alias(1)}`),
        publish5('second', '6', 0x32, '00 03'),
        aliased('second', 2, '7'),
      )
      publisher.says(...[1, 2, 3].map(n => publish311('third', `${n}`)), publish311('second', '8'))
      await client.hears(...[1, 2, 3].map(n => publish5('third', `${n}`)), aliased('', 2, '8'))
    },
  )

  transcript('no alias for a client that takes none [MQTT-3.1.2-27]', async ({ client, another }) => {
    await client.says(CONNECT_5, subscribe5('00 01', '#', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    const zero = await another()
    await zero.says(taking('c2', 0), subscribe5('00 01', '#', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    const said = [1, 2, 3].map(n => publish5('topic', `${n}`))
    await client.says(...said).hears(...said)
    await zero.hears(...said)
  })

  transcript(
    'no alias for a topic above 1 KiB',
    async ({ client }) => {
      await client.says(taking('c1', 2), subscribe5('00 01', '#', '00')).hears(CONNACK_5, suback5('00 01', '00'))
      const longest = 'x'.repeat(1024)
      const longer = 'x'.repeat(1025)
      await client
        .says(publish5(longest, '1'), publish5(longest, '2'), publish5(longer, '1'), publish5(longer, '2'))
        .hears(publish5(longest, '1'), aliased(longest, 1, '2'), publish5(longer, '1'), publish5(longer, '2'))
    },
    { limits: { topicBytes: 65_535 } },
  )

  transcript(
    'no more than limits.topic_aliases, whatever the client takes',
    async ({ client }) => {
      await client.says(taking('c1', 65_535), subscribe5('00 01', '#', '00'))
      await client.hearsPacket()
      await client.hears(suback5('00 01', '00'))
      const twice = (topic: string) => [publish5(topic, '1'), publish5(topic, '2')]
      await client
        .says(...twice('first'), ...twice('second'))
        .hears(publish5('first', '1'), aliased('first', 1, '2'), ...twice('second'))
    },
    { limits: { topicAliases: 1 } },
  )

  transcript('beside other properties, and subscription identifiers', async ({ client }) => {
    await client
      .says(taking('c1', 1), packet(0x82, '00 01', '02 0b 05', text('topic'), '00'))
      .hears(CONNACK_5, suback5('00 01', '00'))
    const user = '26 00 01 61 00 01 62'
    const said = publish5('topic', 'x', 0x30, '', `07 ${user}`)
    await client
      .says(said, said, said)
      .hears(
        publish5('topic', 'x', 0x30, '', `09 0b 05 ${user}`),
        publish5('topic', 'x', 0x30, '', `0c ${alias(1)} 0b 05 ${user}`),
        publish5('', 'x', 0x30, '', `0c ${alias(1)} 0b 05 ${user}`),
      )
  })

  transcript('an alias that would make a packet too large for the client is not set by it', async ({ client }) => {
    await client.says(taking('c1', 1, '27 00 00 00 1e'), subscribe5('00 01', 'topic', '00')).hears(CONNACK_5)
    await client.hears(suback5('00 01', '00'))
    const large = publish5('topic', 'x'.repeat(20))
    expect(large.length).toBe(30)
    await client.says(large, large, publish5('topic', 'x'), publish5('topic', 'y'.repeat(22)))
    await client.hears(large, large, aliased('topic', 1, 'x'), aliased('', 1, 'y'.repeat(22)))
  })

  transcript('a client that follows them knows the topic of every message', async ({ client, another }) => {
    await client.says(taking('c1', 3), subscribe5('00 01', '#', '00')).hears(CONNACK_5, suback5('00 01', '00'))
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    const topic = fc.constantFrom('a', 'b/c', 'topic/1', 'topic/2', 'topic/3', 'topic/4', 'topic/5')
    const standsFor = new Map<number, string>()
    await fc.assert(
      fc.asyncProperty(fc.array(topic, { minLength: 1, maxLength: 20 }), async topics => {
        publisher.says(...topics.map(name => publish311(name, 'x')))
        for (const name of topics) {
          const heard = await client.hearsPacket()
          const length = heard.readUInt16BE(2)
          const said = heard.toString('utf8', 4, 4 + length)
          const n = heard[4 + length] === 0 ? 0 : heard.readUInt16BE(6 + length)
          expect(n).toBeLessThanOrEqual(3)
          if (n !== 0 && said !== '') standsFor.set(n, said)
          expect(said === '' ? standsFor.get(n) : said).toBe(name)
        }
      }),
      { numRuns: 50 },
    )
  })
})
