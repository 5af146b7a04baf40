import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { type MqttUnderTest, packet, text, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  CONNECT_311,
  connect5,
  connect311,
  DISCONNECT,
  disconnect5,
  hearsRefusal,
  puback,
  pubcomp,
  publish5,
  publish311,
  pubrec,
  pubrel,
  RESUMED_5,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const FILTER = '$share/g/jobs/#'

/** A member of the group, with at most `receiveMaximum` messages unanswered. */
async function member(client: WireClient, clientId: string, qos = '01', receiveMaximum = '00 40'): Promise<WireClient> {
  return client
    .says(connect5(clientId, `03 21 ${receiveMaximum}`), subscribe5('00 01', FILTER, qos))
    .hears(CONNACK_5, suback5('00 01', qos))
}

async function publishes(broker: MqttUnderTest, from: number, to: number, qos: 0 | 1 | 2 = 1): Promise<void> {
  for (let n = from; n < to; n++) await broker.core.router.publish(messageTo('jobs/a', `${n}`, { qos }))
}

const refuse = (packetId: string, reason: string): Buffer => packet(0x40, packetId, reason)
const unsubscribe5 = (packetId: string, filter: string): Buffer => packet(0xa2, packetId, '00', text(filter))
const unsuback5 = (packetId: string, code: string): Buffer => packet(0xb0, packetId, '00', code)

describe('$share/GROUP/FILTER', () => {
  for (const filter of ['$share', '$share/', '$share//a', '$share/g', '$share/g/']) {
    transcript(
      `${filter} is refused: it needs a ShareName and a filter [MQTT-4.8.2-1], [MQTT-4.8.2-2]`,
      refusesAs(filter, 0x8f),
    )
  }
  for (const filter of ['$share/g+/a', '$share/+/a', '$share/#/a', '$share/g#/a']) {
    transcript(`${filter} is refused: no wildcard in a ShareName [MQTT-4.8.2-2]`, refusesAs(filter, 0x8f))
  }
  for (const filter of ['$share/g/a#', '$share/g/#/a', '$share/g/$share/h/a', `$share/g/${'/'.repeat(128)}`]) {
    transcript(`${filter.slice(0, 20)} is refused: that is no filter of topics`, refusesAs(filter, 0x8f))
  }
  for (const filter of ['$share/g/$queue/jobs', '$share/g/$stream/history/first']) {
    transcript(`${filter} is refused: it is not for groups`, refusesAs(filter, 0x9e))
  }

  transcript('each message goes to one member, in turn', async ({ client, another, broker }) => {
    await member(client, 'c1')
    const other = await member(await another(), 'c2')
    await publishes(broker, 0, 4)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '2', 0x32, '00 02'))
    await other.hears(publish5('jobs/a', '1', 0x32, '00 01'), publish5('jobs/a', '3', 0x32, '00 02'))
    await client.hearsNothing()
    await other.hearsNothing()
  })

  transcript('members of 3.1, 3.1.1 and 5.0 share', async ({ client, another, broker }) => {
    await client.says(CONNECT_311, subscribe311('00 01', FILTER, '01')).hears(CONNACK_311, suback311('00 01', '01'))
    const oldest = await another()
    await oldest.says(packet(0x10, text('MQIsdp'), '03 02 00 00', text('c0')), subscribe311('00 01', FILTER, '01'))
    await oldest.hears(CONNACK_311, suback311('00 01', '01'))
    const modern = await member(await another(), 'c2')
    await publishes(broker, 0, 3)
    await client.hears(publish311('jobs/a', '0', 0x32, '00 01'))
    await oldest.hears(publish311('jobs/a', '1', 0x32, '00 01'))
    await modern.hears(publish5('jobs/a', '2', 0x32, '00 01'))
  })

  transcript('other groups and plain subscriptions get each message too', async ({ client, another, broker }) => {
    await member(client, 'c1')
    const others: WireClient[] = []
    for (const filter of ['$share/h/jobs/#', '$share/g/jobs/+', 'jobs/#']) {
      const other = await another()
      await other.says(connect5(filter), subscribe5('00 01', filter, '01')).hears(CONNACK_5, suback5('00 01', '01'))
      others.push(other)
    }
    await publishes(broker, 0, 1)
    for (const one of [client, ...others]) await one.hears(publish5('jobs/a', '0', 0x32, '00 01'))
  })

  transcript('a session gets a message for its own subscription and its share of it', async ({ client, broker }) => {
    await member(client, 'c1')
    await client.says(subscribe5('00 02', 'jobs/a', '01')).hears(suback5('00 02', '01'))
    await publishes(broker, 0, 1)
    const heard = [await client.hearsPacket(), await client.hearsPacket()].map(one => one.toString('hex'))
    const sent = ['00 01', '00 02'].map(id => publish5('jobs/a', '0', 0x32, id).toString('hex'))
    expect(heard.sort()).toEqual(sent)
    await client.hearsNothing()
  })

  transcript('the granted QoS of each member is respected [MQTT-4.8.2-3]', async ({ client, another, broker }) => {
    await member(client, 'c1', '00')
    const other = await member(await another(), 'c2', '01')
    await publishes(broker, 0, 2, 1)
    await client.hears(publish5('jobs/a', '0'))
    await other.hears(publish5('jobs/a', '1', 0x32, '00 01'))
  })

  transcript('QoS 0 goes to members in turn, and is not raised [MQTT-4.8.2-3]', async ({ client, another, broker }) => {
    await member(client, 'c1')
    const other = await member(await another(), 'c2', '00')
    await publishes(broker, 0, 4, 0)
    await other.hears(publish5('jobs/a', '0'), publish5('jobs/a', '2'))
    await client.hears(publish5('jobs/a', '1'), publish5('jobs/a', '3'))
  })

  transcript('a burst of QoS 0 is dealt out in equal parts, in order', async ({ client, another }) => {
    await member(client, 'c1')
    const other = await member(await another(), 'c2')
    const burst = Array.from({ length: 10 }, (_, n) => publish5('jobs/a', `${n}`))
    await (await another()).says(connect5('p'), ...burst)
    await other.hears(...burst.slice(0, 5))
    await client.hears(...burst.slice(5))
    await client.hearsNothing()
    await other.hearsNothing()
  })

  transcript('in a group that wants QoS 0 only, QoS 1 comes at QoS 0 [MQTT-4.8.2-3]', async ({ client, another }) => {
    await member(client, 'c1', '00')
    const publisher = await another()
    await publisher.says(connect5('p'), publish5('jobs/a', 'x', 0x32, '00 09')).hears(CONNACK_5, puback('00 09'))
    await client.hears(publish5('jobs/a', 'x'))
  })

  transcript('who has no credit does not stop the others', async ({ client, another, broker }) => {
    await member(client, 'c1', '01', '00 01')
    const other = await member(await another(), 'c2')
    await publishes(broker, 0, 4)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await other.hears(...['1', '2', '3'].map((n, at) => publish5('jobs/a', n, 0x32, `00 0${at + 1}`)))
  })

  transcript('what nobody has credit for waits, in order', async ({ client, another, broker }) => {
    await member(client, 'c1', '01', '00 01')
    const other = await member(await another(), 'c2', '01', '00 01')
    await publishes(broker, 0, 4)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await other.hears(publish5('jobs/a', '1', 0x32, '00 01')).then(() => other.hearsNothing())
    await client.hearsNothing()
    await client.says(puback('00 01')).hears(publish5('jobs/a', '2', 0x32, '00 01'))
    await other.says(puback('00 01')).hears(publish5('jobs/a', '3', 0x32, '00 01'))
  })

  for (const [how, end] of [
    ['disconnects', (one: WireClient) => one.says(DISCONNECT)],
    ['vanishes', (one: WireClient) => one.close()],
  ] as const) {
    transcript(`what a member that ${how} has not answered goes to another`, async ({ client, another, broker }) => {
      await member(client, 'c1')
      const other = await member(await another(), 'c2', '01', '00 01')
      await publishes(broker, 0, 3)
      await client.hears(publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '2', 0x32, '00 02'))
      await other.hears(publish5('jobs/a', '1', 0x32, '00 01'))
      await client.says(puback('00 01')).hearsNothing()
      end(client)
      // A new PUBLISH of another client: DUP is 0 [MQTT-3.3.1-3].
      await other.says(puback('00 01')).hears(publish5('jobs/a', '2', 0x32, '00 01'))
      await other.says(puback('00 01')).hearsNothing()
    })
  }

  transcript('a refused message is discarded, and sent to nobody else [MQTT-4.8.2-6]', async scene => {
    const { client, another, broker } = scene
    await member(client, 'c1')
    const other = await member(await another(), 'c2', '01', '00 01')
    await publishes(broker, 0, 2)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await other.hears(publish5('jobs/a', '1', 0x32, '00 01'))
    await client.says(refuse('00 01', '83')).hearsNothing()
    await other.says(refuse('00 01', '80')).hearsNothing()
    await client.hearsNothing()
  })

  transcript('No Local on a shared subscription is a protocol error [MQTT-3.8.3-4]', async ({ client, another }) => {
    const both = packet(0x82, '00 01 00', text('jobs/#'), '01', text(FILTER), '05')
    await client.says(CONNECT_5, both).hears(CONNACK_5, disconnect5('82'))
    await client.hearsClose()
    const publisher = await another()
    // Nothing of that SUBSCRIBE has been done: nobody subscribes (0x10).
    await publisher.says(connect5('p'), publish5('jobs/a', 'x', 0x32, '00 09'))
    await publisher.hears(CONNACK_5, packet(0x40, '00 09 10'))
  })

  transcript('what a client publishes itself is shared like all else', async ({ client }) => {
    await member(client, 'c1')
    await client.says(publish5('jobs/a', 'x', 0x32, '00 09'))
    await client.hears(publish5('jobs/a', 'x', 0x32, '00 01'), puback('00 09'))
  })

  transcript('after UNSUBSCRIBE a member gets nothing more, and may answer', async ({ client, another, broker }) => {
    await member(client, 'c1', '01', '00 01')
    const other = await member(await another(), 'c2', '01', '00 01')
    await publishes(broker, 0, 3)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await client.says(unsubscribe5('00 02', FILTER)).hears(unsuback5('00 02', '00')) // [MQTT-3.10.4-3]
    await client.says(unsubscribe5('00 03', FILTER)).hears(unsuback5('00 03', '11'))
    await client.says(puback('00 01')).hearsNothing()
    await publishes(broker, 3, 4, 0)
    await other.hears(publish5('jobs/a', '1', 0x32, '00 01'), publish5('jobs/a', '3'))
    await other.says(puback('00 01')).hears(publish5('jobs/a', '2', 0x32, '00 01'))
    await client.hearsNothing()
  })

  transcript('who comes back before it has answered goes on as a member', async ({ client, broker }) => {
    await member(client, 'c1')
    await publishes(broker, 0, 1)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await client.says(unsubscribe5('00 02', FILTER), subscribe5('00 03', FILTER, '00'))
    await client.hears(unsuback5('00 02', '00'), suback5('00 03', '00'))
    await publishes(broker, 1, 2)
    await client.hears(publish5('jobs/a', '1'))
    await client.says(puback('00 01')).hearsNothing()
  })

  transcript('with its last member the group ends, and what waits for it', async ({ client, another, broker }) => {
    await member(client, 'c1', '01', '00 01')
    await publishes(broker, 0, 2)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01')).then(() => client.says(DISCONNECT).hearsClose())
    const publisher = await another()
    await publisher.says(connect5('p'), publish5('jobs/a', 'x', 0x32, '00 09'))
    await publisher.hears(CONNACK_5, packet(0x40, '00 09 10'))
    const later = await member(await another(), 'c2')
    await later.hearsNothing()
    expect(broker.core.memory.usedBytes).toBe(0)
  })

  transcript(
    'a group whose queue is full loses its oldest messages',
    async ({ client, broker }) => {
      await member(client, 'c1', '01', '00 01')
      await publishes(broker, 0, 6)
      await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
      await client.says(puback('00 01')).hears(publish5('jobs/a', '4', 0x32, '00 01'))
      await client.says(puback('00 01')).hears(publish5('jobs/a', '5', 0x32, '00 01'))
      expect([...broker.core.topology.unlistedDropped]).toEqual([['overflow', 3]])
    },
    { limits: { sessionQueue: { messages: 3, bytes: 2 ** 20, onFull: 'drop_oldest' } } },
  )

  transcript(
    'there are as many groups as there may be queues',
    async ({ client, another }) => {
      const filters = packet(
        0x82,
        '00 01 00',
        ...['$share/a/x', '$share/b/x', '$share/b/x'].flatMap(f => [text(f), '01']),
      )
      await client.says(CONNECT_5, filters).hears(CONNACK_5)
      expect(await hearsRefusal(client, 1, 0x97, 0x97)).toContain('limits.queues')
      const other = await another()
      await other.says(connect311('c2'), subscribe311('00 01', '$share/a/x', '01'))
      await other.hears(CONNACK_311, suback311('00 01', '01'))
      await other.says(subscribe311('00 02', '$share/b/x', '01')).hears(suback311('00 02', '80'))
      await client.says(DISCONNECT).hearsClose()
      await other.says(DISCONNECT).hearsClose()
      const last = await another()
      await last.says(connect311('c3'), subscribe311('00 01', '$share/b/x', '01'))
      await last.hears(CONNACK_311, suback311('00 01', '01'))
    },
    { limits: { declared: { queues: 1, exchanges: 1, bindings: 1 } } },
  )

  transcript('a group has 255 members at most', async ({ another }) => {
    for (let n = 0; n < 255; n++) await member(await another(), `c${n}`)
    const one = await another()
    await one.says(connect5('one'), subscribe5('00 01', FILTER, '01')).hears(CONNACK_5)
    expect(await hearsRefusal(one, 0x97)).toContain('255')
  })

  transcript('$SYS topics may be shared', async ({ client }) => {
    await client.says(CONNECT_5, subscribe5('00 01', '$share/g/$SYS/broker/#', '01'))
    await client.hears(CONNACK_5, suback5('00 01', '01'))
  })
})

describe('$share/GROUP/FILTER at QoS 2', () => {
  transcript(
    'each member completes what it got, at the lower QoS [MQTT-4.8.2-3]',
    async ({ client, another, broker }) => {
      await member(client, 'c1', '02')
      const other = await member(await another(), 'c2', '01')
      await publishes(broker, 0, 2, 2)
      await client.hears(publish5('jobs/a', '0', 0x34, '00 01'))
      await other.hears(publish5('jobs/a', '1', 0x32, '00 01'))
      await publishes(broker, 2, 3, 1)
      await client.hears(publish5('jobs/a', '2', 0x32, '00 02'))
      await client.says(pubrec('00 01')).hears(pubrel('00 01'))
      await client.says(pubcomp('00 01'), puback('00 02')).hearsNothing()
      expect(depths(broker)).toEqual([1])
    },
  )

  transcript(
    'is completed by the same client when it comes back [MQTT-4.8.2-4]',
    async ({ client, another, broker }) => {
      await client.says(lasting('c1'), subscribe5('00 01', FILTER, '02')).hears(CONNACK_5, suback5('00 01', '02'))
      const other = await member(await another(), 'c2', '02')
      await publishes(broker, 0, 2, 2)
      await client.hears(publish5('jobs/a', '0', 0x34, '00 01'))
      await other.hears(publish5('jobs/a', '1', 0x34, '00 01'))
      client.close()
      await eventually(() => broker.server.clientCount === 1)
      // What comes meanwhile is for those who are there.
      await publishes(broker, 2, 3, 2)
      await other.hears(publish5('jobs/a', '2', 0x34, '00 02')).then(() => other.hearsNothing())
      const again = await another()
      await again.says(lasting('c1', '00')).hears(RESUMED_5, publish5('jobs/a', '0', 0x3c, '00 01'))
      await again.says(pubrec('00 01')).hears(pubrel('00 01'))
      await again.says(pubcomp('00 01')).hearsNothing()
    },
  )

  transcript(
    'goes to nobody else when the session ends before it is complete [MQTT-4.8.2-5]',
    async ({ client, another, broker }) => {
      await member(client, 'c1', '02')
      const other = await member(await another(), 'c2', '02')
      await publishes(broker, 0, 1, 2)
      await publishes(broker, 1, 2, 1)
      await publishes(broker, 2, 3, 2)
      await client.hears(publish5('jobs/a', '0', 0x34, '00 01'), publish5('jobs/a', '2', 0x34, '00 02'))
      await other.hears(publish5('jobs/a', '1', 0x32, '00 01'))
      client.close()
      await eventually(() => broker.server.clientCount === 1)
      await other.says(puback('00 01')).hearsNothing()
    },
  )

  transcript('a refused message is discarded [MQTT-4.8.2-6]', async ({ client, another, broker }) => {
    await member(client, 'c1', '02')
    const other = await member(await another(), 'c2', '02')
    await publishes(broker, 0, 1, 2)
    await client.hears(publish5('jobs/a', '0', 0x34, '00 01'))
    await client.says(pubrec('00 01', '83')).hearsNothing()
    client.close()
    await eventually(() => broker.server.clientCount === 1)
    await other.hearsNothing()
  })

  transcript('carries the identifier of this subscription and no other', async ({ client, another, broker }) => {
    const identified = (packetId: string, id: string, filter: string) =>
      packet(0x82, packetId, '02 0b', id, text(filter), '02')
    await client.says(CONNECT_5, identified('00 01', '07', FILTER), identified('00 02', '08', 'jobs/#'))
    await client.hears(CONNACK_5, suback5('00 01', '02'), suback5('00 02', '02'))
    const publisher = await another()
    const endsOf = async (): Promise<string[]> =>
      [await client.hearsPacket(), await client.hearsPacket()].map(one => one.subarray(-9).toString('hex')).sort()
    await publisher.says(connect5('p'), publish5('jobs/a', 'x', 0x34, '00 01', '05 02 00 00 00 64')).hears(CONNACK_5)
    expect(await endsOf()).toEqual(['070b07020000006478', '070b08020000006478'])
    // The same of a message that came without properties.
    await publishes(broker, 0, 1, 2)
    expect((await endsOf()).map(end => end.slice(-8))).toEqual(['020b0730', '020b0830'])
  })
})

describe('a member that is away', () => {
  transcript('keeps the group, and what comes waits for whoever comes first', async ({ client, another, broker }) => {
    await client.says(lasting('c1'), subscribe5('00 01', FILTER, '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    await publishes(broker, 0, 2, 1)
    await publishes(broker, 2, 3, 0)
    expect(depths(broker)).toEqual([2])
    expect(broker.server.counters.droppedBy).toMatchObject({ output_full: 0, not_connected: 1 })
    const again = await another()
    await again
      .says(lasting('c1', '00'))
      .hears(RESUMED_5, publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '1', 0x32, '00 02'))
    await again.hearsNothing()
  })

  transcript('leaves to others what it has not answered at QoS 1', async ({ client, another, broker }) => {
    await client.says(lasting('c1'), subscribe5('00 01', FILTER, '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await publishes(broker, 0, 2)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '1', 0x32, '00 02'))
    client.close()
    const other = await member(await another(), 'c2')
    await other.hears(publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '1', 0x32, '00 02'))
    const again = await another()
    await again.says(lasting('c1', '00')).hears(RESUMED_5)
    await again.hearsNothing()
    await publishes(broker, 2, 3)
    await other.says(puback('00 01'), puback('00 02')).hearsNothing()
    await again.hears(publish5('jobs/a', '2', 0x32, '00 03'))
  })

  transcript('does not hold up the others, nor take from them', async ({ client, another, broker }) => {
    await client.says(lasting('c1'), subscribe5('00 01', FILTER, '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    const other = await member(await another(), 'c2')
    await publishes(broker, 0, 2, 1)
    await publishes(broker, 2, 4, 0)
    await other.hears(publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '1', 0x32, '00 02'))
    await other.hears(publish5('jobs/a', '2'), publish5('jobs/a', '3'))
    expect(broker.server.counters.droppedBy).toMatchObject({ output_full: 0, not_connected: 0 })
  })

  transcript('ends the group when its session ends', async ({ client, another, broker }) => {
    await client.says(lasting('c1'), subscribe5('00 01', FILTER, '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    await publishes(broker, 0, 2)
    expect(broker.server.groupCount).toBe(1)
    await (await another()).says(lasting('c1')).hears(CONNACK_5)
    expect(broker.server.groupCount).toBe(0)
  })
})

/** CONNECT of a session that lasts a minute beyond the connection; flags 02: clean start. */
const lasting = (clientId: string, flags = '02'): Buffer => connect5(clientId, '05 11 00 00 00 3c', flags)
/** What waits or is in flight in the groups there are. */
const depths = (broker: MqttUnderTest): number[] => [...broker.server.groupQueues()].map(({ depth }) => depth)

/** In 3.1.1 with the one code there is, in 5.0 with this reason; the connection stays. */
function refusesAs(filter: string, reason: number) {
  return async ({ client, another }: { client: WireClient; another: () => Promise<WireClient> }): Promise<void> => {
    await client.says(CONNECT_311, subscribe311('00 01', filter, '01')).hears(CONNACK_311, suback311('00 01', '80'))
    await client.hearsNothing()
    const modern = await another()
    await modern.says(connect5('c2'), subscribe5('00 01', filter, '01')).hears(CONNACK_5)
    await hearsRefusal(modern, reason)
    await modern.hearsNothing()
  }
}
