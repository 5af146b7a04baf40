import { describe, expect } from 'vitest'
import { PLAIN_POLICY } from '../../../src/model/queue-policy.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { bytes, packet, text, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  CONNECT_311,
  connect5,
  connect311,
  disconnect5,
  hex16,
  puback,
  pubcomp,
  publish5,
  publish311,
  pubrec,
  pubrel,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const QOS2 = 0x34
const QOS2_DUP = 0x3c
/** A subscriber of 3.1.1 at this QoS. */
async function subscriber(client: WireClient, filter: string, qos = '02', clientId = 's'): Promise<WireClient> {
  return client
    .says(connect311(clientId), subscribe311('00 01', filter, qos))
    .hears(CONNACK_311, suback311('00 01', qos))
}

describe('QoS 2 from a client', () => {
  transcript(
    'PUBLISH, PUBREC, PUBREL, PUBCOMP, all with one packet id [MQTT-4.3.3-8], [MQTT-4.3.3-11], [MQTT-2.2.1-5], 3.1.1 [MQTT-4.3.3-2], 3.1.1 [MQTT-2.3.1-6]',
    async ({ client, another }) => {
      const other = await subscriber(await another(), 'a', '00')
      await client.says(CONNECT_311).hears(CONNACK_311)
      await client.says(publish311('a', 'x', QOS2, '12 34')).hears(pubrec('12 34'))
      await other.hears(publish311('a', 'x'))
      await client.says(pubrel('12 34')).hears(pubcomp('12 34'))
      await client.hearsNothing()
    },
  )

  transcript('the same in 5.0, where PUBREC says that nobody has subscribed', async ({ client }) => {
    await client.says(CONNECT_5).hears(CONNACK_5)
    await client.says(publish5('a', 'x', QOS2, '00 07')).hears(pubrec('00 07', '10'))
    await client.says(pubrel('00 07')).hears(pubcomp('00 07'))
    await client.says(subscribe5('00 01', 'a', '00')).hears(suback5('00 01', '00'))
    await client.says(publish5('a', 'y', QOS2, '00 07')).hears(publish5('a', 'y'), pubrec('00 07'))
    await client.says(pubrel('00 07', '00')).hears(pubcomp('00 07'))
  })

  transcript('each byte by itself', async ({ client }) => {
    await client.says(CONNECT_311).hears(CONNACK_311)
    for (const [said, heard] of [
      [publish311('a', 'x', QOS2, '00 01'), pubrec('00 01')],
      [pubrel('00 01'), pubcomp('00 01')],
    ] as const) {
      for (const byte of said) client.says(Buffer.from([byte]))
      await client.hears(heard)
    }
  })

  transcript(
    'a PUBLISH with an id that is held is answered and not published again, with DUP or without [MQTT-4.3.3-10], [MQTT-3.3.1-3], 3.1.1 [MQTT-4.3.3-2]',
    async ({ client, another, broker }) => {
      const other = await subscriber(await another(), 'a', '00')
      await client.says(CONNECT_311).hears(CONNACK_311)
      await client.says(publish311('a', '1', QOS2, '00 01')).hears(pubrec('00 01'))
      await client.says(publish311('a', '1', QOS2_DUP, '00 01')).hears(pubrec('00 01'))
      await client.says(publish311('a', '1', QOS2, '00 01')).hears(pubrec('00 01'))
      await other.hears(publish311('a', '1'))
      await other.hearsNothing()
      expect(broker.server.counters.repeatedPublishes).toBe(2)
      // After PUBCOMP the id stands for something new [MQTT-4.3.3-12].
      await client.says(pubrel('00 01')).hears(pubcomp('00 01'))
      await client.says(publish311('a', '2', QOS2, '00 01')).hears(pubrec('00 01'))
      await other.hears(publish311('a', '2'))
    },
  )

  transcript('repeated within one run it is one message as well', async ({ client, another }) => {
    const other = await subscriber(await another(), 'a', '00')
    await client.says(CONNECT_311).hears(CONNACK_311)
    await client
      .says(
        publish311('a', '1', QOS2, '00 01'),
        publish311('a', '2', QOS2, '00 02'),
        publish311('a', '1', QOS2, '00 01'),
        publish311('a', '3', QOS2, '00 03'),
      )
      .hears(pubrec('00 01'), pubrec('00 02'), pubrec('00 01'), pubrec('00 03'))
    await other.hears(publish311('a', '1'), publish311('a', '2'), publish311('a', '3'))
    await other.hearsNothing()
  })

  transcript(
    'the first PUBLISH of a connection may be one with DUP: it is new [MQTT-4.3.3-9]',
    async ({ client, another }) => {
      const other = await subscriber(await another(), 'a', '00')
      await client.says(CONNECT_311, publish311('a', 'x', QOS2_DUP, '00 01')).hears(CONNACK_311, pubrec('00 01'))
      await other.hears(publish311('a', 'x'))
    },
  )

  transcript(
    'PUBACKs and PUBRECs leave in order of arrival, each when its message is safe [MQTT-4.6.0-2], [MQTT-4.6.0-3]',
    async ({ client, broker }) => {
      await broker.core.queue('keep', 'keep/#')
      await client.says(CONNECT_311).hears(CONNACK_311)
      broker.core.gate.holdCommits()
      client.says(
        publish311('a', 'x', QOS2, '00 01'),
        publish311('keep/a', 'x', QOS2, '00 02'),
        publish311('a', 'x', 0x32, '00 03'),
        publish311('a', 'x', QOS2, '00 04'),
        // Sent again before its PUBREC: it waits for that.
        publish311('keep/a', 'x', QOS2_DUP, '00 02'),
      )
      await client.hears(pubrec('00 01'))
      // An answer that waits for nothing does not wait behind them.
      await client.says(pubrel('00 01')).hears(pubcomp('00 01'))
      await client.hearsNothing()
      broker.core.gate.releaseCommits()
      await client.hears(pubrec('00 02'), puback('00 03'), pubrec('00 04'), pubrec('00 02'))
    },
  )

  transcript('PUBREL between the messages of a run: all are published, in order', async ({ client, another }) => {
    const other = await subscriber(await another(), 'a', '00')
    await client.says(CONNECT_311).hears(CONNACK_311)
    await client.says(publish311('a', '0', QOS2, '00 01')).hears(pubrec('00 01'))
    await client
      .says(
        publish311('a', '1', QOS2, '00 02'),
        pubrel('00 01'),
        publish311('a', '2', QOS2, '00 01'),
        publish311('a', '3', QOS2, '00 03'),
      )
      .hears(pubcomp('00 01'), pubrec('00 02'), pubrec('00 01'), pubrec('00 03'))
    await other.hears(...['0', '1', '2', '3'].map(n => publish311('a', n)))
  })

  transcript('PUBREL of an unknown id is answered; 5.0 says 0x92', async ({ client, another }) => {
    await client.says(CONNECT_311, pubrel('00 09')).hears(CONNACK_311, pubcomp('00 09'))
    const modern = await another()
    await modern.says(connect5('m'), pubrel('00 09')).hears(CONNACK_5, pubcomp('00 09', '92'))
    await modern.says(pubrel('00 09', '92 00')).hears(pubcomp('00 09', '92'))
  })

  transcript(
    'in 5.0 a message counts against the receive maximum until its PUBCOMP [MQTT-3.3.4-7]',
    async ({ client }) => {
      await client.says(CONNECT_5).hearsPacket()
      await client
        .says(...[1, 2, 3].map(n => publish5('a', 'x', QOS2, hex16(n))))
        .hears(...[1, 2, 3].map(n => pubrec(hex16(n), '10')))
      // Three are open: one of them again is none too many, a PUBREL makes room, and so does a PUBACK.
      await client.says(publish5('a', 'x', QOS2_DUP, '00 02')).hears(pubrec('00 02'))
      await client.says(pubrel('00 01')).hears(pubcomp('00 01'))
      await client.says(publish5('a', 'x', 0x32, '00 04')).hears(packet(0x40, '00 04 10'))
      await client.says(publish5('a', 'x', QOS2, '00 05')).hears(pubrec('00 05', '10'))
      await client.says(publish5('a', 'x', QOS2, '00 06')).hears(disconnect5('93'))
      await client.hearsClose()
    },
    { limits: { receiveMax: 3 } },
  )

  transcript(
    '3.1.1, which knows no receive maximum, may have as many unreleased as it has ids',
    async ({ client, another }) => {
      const other = await subscriber(await another(), 'a', '00')
      await client.says(CONNECT_311).hears(CONNACK_311)
      const ids = Array.from({ length: 1000 }, (_, n) => hex16(n + 1))
      client.says(...ids.map(id => publish311('a', 'x', QOS2, id)))
      await client.hears(...ids.map(id => pubrec(id)))
      await client.says(...ids.map(id => pubrel(id))).hears(...ids.map(id => pubcomp(id)))
      await other.hears(...ids.map(() => publish311('a', 'x')))
    },
    { limits: { receiveMax: 4 } },
  )

  const unreadable: [string, Buffer, string][] = [
    ['packet id 0 [MQTT-2.2.1-3]', publish5('a', 'x', QOS2, '00 00'), '81'],
    ['no packet id [MQTT-2.2.1-3]', packet(QOS2, text('a')), '81'],
    ['PUBREL of packet id 0', pubrel('00 00'), '81'],
    ['PUBREC of packet id 0', pubrec('00 00'), '81'],
    ['PUBCOMP of packet id 0', pubcomp('00 00'), '81'],
    ['PUBREL without an id', packet(0x62, ''), '81'],
    ['PUBREL with half an id', packet(0x62, '00'), '81'],
    ['PUBREL with a reason it does not have [MQTT-3.6.2-1]', pubrel('00 01', '10'), '81'],
    ['PUBREC with a reason it does not have [MQTT-3.5.2-1]', pubrec('00 01', '92'), '81'],
    ['PUBCOMP with a reason it does not have [MQTT-3.7.2-1]', pubcomp('00 01', '80'), '81'],
    ['PUBREL with a property it does not have', pubrel('00 01', '00 02 01 00'), '81'],
    ['PUBREL with two reason strings', pubrel('00 01', '00 08 1f 00 01 61 1f 00 01 62'), '82'],
    ['PUBREL with bytes behind its properties', pubrel('00 01', '00 00 00'), '81'],
  ]
  for (const [what, said, reason] of unreadable) {
    transcript(`ends the connection: ${what}`, async ({ client, another }) => {
      await client.says(CONNECT_5).hears(CONNACK_5)
      await client.says(said).hears(disconnect5(reason))
      await client.hearsClose()
      const old = await another()
      await old.says(CONNECT_311, said).hears(CONNACK_311)
      await old.hearsClose()
    })
  }

  transcript('acknowledgements of 3.1.1 have no reason', async ({ client }) => {
    await client.says(CONNECT_311, pubrel('00 01', '00')).hears(CONNACK_311)
    await client.hearsClose()
  })

  transcript('reason strings and user properties are read and ignored', async ({ client }) => {
    const properties = '00 0b 1f 00 01 61 26 00 01 62 00 01 63'
    await client
      .says(CONNECT_5, pubrel('00 01', properties), pubrec('00 02', properties), pubcomp('00 03', properties))
      .hears(CONNACK_5, pubcomp('00 01', '92'), pubrel('00 02', '92'))
    await client.hearsNothing()
  })
})

describe('QoS 2 that is refused', () => {
  const ONE_MESSAGE = { ...WIDE_LIMITS, messages: 1 }

  transcript(
    '5.0: PUBREC with the reason ends it, and the id is free for a new message [MQTT-4.3.3-9], [MQTT-4.4.0-2]',
    async ({ client, broker }) => {
      const queue = await broker.core.queue('small', 'small', ONE_MESSAGE)
      await client.says(connect5('c1', '02 17 00')).hears(CONNACK_5)
      await client
        .says(...[1, 2, 3].map(n => publish5('small', `${n}`, QOS2, hex16(n))))
        .hears(pubrec('00 01'), pubrec('00 02', '97'), pubrec('00 03', '97'))
      await client.says(pubrel('00 02')).hears(pubcomp('00 02', '92'))
      await queue.purge()
      await client.says(publish5('small', 'again', QOS2_DUP, '00 02')).hears(pubrec('00 02'))
      expect(queue.ledger.accepted).toBe(2)
      expect(broker.server.counters.repeatedPublishes).toBe(0)
    },
  )

  transcript('refused and repeated within one run it is tried again', async ({ client, broker }) => {
    const queue = await broker.core.queue('small', 'small', ONE_MESSAGE)
    await client.says(connect5('c1', '02 17 00')).hears(CONNACK_5)
    await client
      .says(...[1, 2, 2].map(n => publish5('small', `${n}`, QOS2, hex16(n))))
      .hears(pubrec('00 01'), pubrec('00 02', '97'), pubrec('00 02', '97'))
    expect(queue.ledger.accepted).toBe(1)
  })

  transcript('a reason string goes with it where it is wanted', async ({ client, broker }) => {
    await broker.core.queue('small', 'small', { ...WIDE_LIMITS, messages: 0 })
    await client.says(CONNECT_5, publish5('small', '1', QOS2, '00 01')).hears(CONNACK_5)
    const refused = await client.hearsPacket()
    expect(refused[0]).toBe(0x50)
    expect(refused.subarray(2, 5)).toEqual(bytes('00 01 97'))
    expect(refused.toString()).toContain('a queue this message must go to is full')
  })

  transcript('no reason string larger than the client takes [MQTT-3.5.2-2]', async ({ client, broker }) => {
    await broker.core.queue('small', 'small', { ...WIDE_LIMITS, messages: 0 })
    await client
      .says(connect5('c1', '05 27 00 00 00 20'), publish5('small', '1', QOS2, '00 01'))
      .hears(CONNACK_5, pubrec('00 01', '97'))
  })

  transcript('3.1.1: it is held until there is room, and is one message', async ({ client, broker }) => {
    const queue = await broker.core.queue('small', 'small', ONE_MESSAGE)
    await client.says(CONNECT_311).hears(CONNACK_311)
    await client
      .says(
        publish311('small', '1', QOS2, '00 01'),
        publish311('small', '2', QOS2, '00 02'),
        publish311('small', '2', QOS2_DUP, '00 02'),
      )
      .hears(pubrec('00 01'))
    await eventually(() => broker.server.counters.refusedPublishes.size > 0)
    await queue.purge()
    await client.hears(pubrec('00 02'), pubrec('00 02'))
    expect(queue.ledger.accepted).toBe(2)
  })

  transcript('an upstream that does not confirm in time frees the id in 5.0', async ({ client, broker }) => {
    const queue = await broker.core.queue('control', 'control')
    queue.policy = { ...PLAIN_POLICY, ack: 'upstream', ackTimeoutMs: 50 }
    queue.attach({ credit: 0, deliver: () => undefined })
    await client.says(connect5('c1', '02 17 00'), publish5('control', 'x', QOS2, '00 01')).hears(CONNACK_5)
    await client.hears(pubrec('00 01', '97'))
    await client.says(pubrel('00 01')).hears(pubcomp('00 01', '92'))
  })
})

describe('QoS 2 to a client', () => {
  transcript(
    'PUBLISH, PUBREC, PUBREL, PUBCOMP, all with one packet id [MQTT-4.3.3-1], [MQTT-4.3.3-2], [MQTT-4.3.3-4], 3.1.1 [MQTT-4.3.3-1]',
    async ({ client, another, broker }) => {
      await subscriber(client, 'a')
      const publisher = await another()
      await publisher.says(connect311('p'), publish311('a', 'x', QOS2, '00 77')).hears(CONNACK_311, pubrec('00 77'))
      await client.hears(publish311('a', 'x', QOS2, '00 01'))
      expect(broker.server.client('s')).toMatchObject({ inFlight: 1 })
      await client.says(pubrec('00 01')).hears(pubrel('00 01'))
      // The message is the client's, the id is still in use.
      expect(broker.server.client('s')).toMatchObject({ inFlight: 1 })
      await client.says(pubcomp('00 01')).hearsNothing()
      expect(broker.server.client('s')).toMatchObject({ inFlight: 0 })
      expect(broker.server.counters.messagesOut).toEqual([0, 0, 1])
    },
  )

  transcript('a message is delivered at the lower of its QoS and that granted [MQTT-3.8.4-8]', async scene => {
    const { client, another } = scene
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    const subscribers = await Promise.all(
      ['00', '01', '02'].map(async qos => subscriber(await another(), 'a', qos, `s${qos}`)),
    )
    await subscriber(client, 'b')
    publisher.says(publish311('a', '2', QOS2, '00 01'), publish311('a', '1', 0x32, '00 02'), publish311('a', '0'))
    await publisher.hears(pubrec('00 01'), puback('00 02'))
    const heard = [
      [publish311('a', '2'), publish311('a', '1'), publish311('a', '0')],
      [publish311('a', '2', 0x32, '00 01'), publish311('a', '1', 0x32, '00 02'), publish311('a', '0')],
      [publish311('a', '2', QOS2, '00 01'), publish311('a', '1', 0x32, '00 02'), publish311('a', '0')],
    ]
    // QoS 0 goes by the shortest way and may come first.
    const sorted = (packets: Buffer[]) => packets.map(one => one.toString('hex')).sort()
    for (const [n, one] of subscribers.entries()) {
      const came = [await one.hearsPacket(), await one.hearsPacket(), await one.hearsPacket()]
      expect(sorted(came)).toEqual(sorted(heard[n] ?? []))
    }
  })

  transcript('PUBRELs leave in the order of PUBRECs [MQTT-4.6.0-4]', async ({ client, another }) => {
    await subscriber(client, 'a')
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    for (const n of [1, 2, 3]) await publisher.says(publish311('a', `${n}`, QOS2, hex16(n))).hears(pubrec(hex16(n)))
    for (const n of [1, 2, 3]) await client.hears(publish311('a', `${n}`, QOS2, hex16(n)))
    await client
      .says(pubrec('00 03'), pubrec('00 01'), pubrec('00 02'))
      .hears(pubrel('00 03'), pubrel('00 01'), pubrel('00 02'))
  })

  transcript('PUBREC again, PUBCOMP again, answers to another QoS', async ({ client, another, broker }) => {
    await subscriber(client, 'a')
    const publisher = await another()
    await publisher.says(connect311('p'), publish311('a', '1', QOS2, '00 01')).hears(CONNACK_311, pubrec('00 01'))
    await publisher.says(publish311('a', '2', 0x32, '00 02')).hears(puback('00 02'))
    await client.hears(publish311('a', '1', QOS2, '00 01'), publish311('a', '2', 0x32, '00 02'))
    // Neither ends the other's handshake.
    await client.says(puback('00 01'), pubcomp('00 01'), pubcomp('00 02')).hearsNothing()
    expect(broker.server.client('s')).toMatchObject({ inFlight: 2 })
    await client.says(pubrec('00 01'), pubrec('00 01')).hears(pubrel('00 01'), pubrel('00 01'))
    await client.says(pubcomp('00 01'), pubcomp('00 01'), puback('00 02')).hearsNothing()
    expect(broker.server.client('s')).toMatchObject({ inFlight: 0 })
    expect(broker.server.counters.unknownAcks).toBe(4)
  })

  transcript('PUBREC of an unknown id is answered with PUBREL; 5.0 says 0x92', async ({ client, another }) => {
    await client.says(CONNECT_311, pubrec('00 09')).hears(CONNACK_311, pubrel('00 09'))
    const modern = await another()
    await modern.says(connect5('m'), pubrec('ff ff')).hears(CONNACK_5, pubrel('ff ff', '92'))
    // A refusal of nothing needs no answer.
    await modern.says(pubrec('ff ff', '80')).hearsNothing()
  })

  transcript('PUBREC that refuses ends it: no PUBREL, not sent again [MQTT-4.4.0-2]', async ({ client, another }) => {
    await client
      .says(connect5('s', '03 21 00 01'), subscribe5('00 01', 'a', '02'))
      .hears(CONNACK_5, suback5('00 01', '02'))
    const publisher = await another()
    await publisher.says(connect311('p')).hears(CONNACK_311)
    for (const n of [1, 2]) await publisher.says(publish311('a', `${n}`, QOS2, hex16(n))).hears(pubrec(hex16(n)))
    await client.hears(publish5('a', '1', QOS2, '00 01'))
    await client.says(pubrec('00 01', '97')).hears(publish5('a', '2', QOS2, '00 01'))
  })

  transcript(
    'an id counts against the receive maximum of the client until PUBCOMP [MQTT-3.3.4-9], [MQTT-4.3.3-5]',
    async ({ client, another }) => {
      await client
        .says(connect5('s', '03 21 00 02'), subscribe5('00 01', 'a', '02'))
        .hears(CONNACK_5, suback5('00 01', '02'))
      const publisher = await another()
      await publisher.says(connect311('p')).hears(CONNACK_311)
      for (const n of [1, 2, 3]) await publisher.says(publish311('a', `${n}`, QOS2, hex16(n))).hears(pubrec(hex16(n)))
      await client.hears(publish5('a', '1', QOS2, '00 01'), publish5('a', '2', QOS2, '00 02'))
      await client.says(pubrec('00 01'), pubrec('00 02')).hears(pubrel('00 01'), pubrel('00 02'))
      await client.hearsNothing()
      await client.says(pubcomp('00 02')).hears(publish5('a', '3', QOS2, '00 02'))
    },
  )

  transcript('message expiry does not break off what has been sent [MQTT-4.3.3-7]', async ({ client, another }) => {
    await client.says(connect5('s'), subscribe5('00 01', 'a', '02')).hears(CONNACK_5, suback5('00 01', '02'))
    const publisher = await another()
    await publisher
      .says(connect5('p'), publish5('a', 'x', QOS2, '00 01', '05 02 00 00 00 01'))
      .hears(CONNACK_5, pubrec('00 01'))
    await client.hears(publish5('a', 'x', QOS2, '00 01', '05 02 00 00 00 01'))
    const since = performance.now()
    await eventually(() => performance.now() > since + 1100)
    await publisher.says(pubrel('00 01')).hears(pubcomp('00 01')) // [MQTT-4.3.3-13]
    await client.says(pubrec('00 01')).hears(pubrel('00 01'))
    await client.says(pubcomp('00 01')).hearsNothing()
  })

  transcript(
    'a storm of PUBRECs and PUBRELs is answered, and a client that reads no answers is closed',
    async scene => {
      const { client, broker } = scene
      await client.says(CONNECT_5).hears(CONNACK_5)
      client.socket.pause()
      const storm = Buffer.concat(
        Array.from({ length: 20_000 }, (_, n) => [pubrec(hex16(n + 1)), pubrel(hex16(n + 1))]).flat(),
      )
      // As long as it takes: sockets take a few megabytes before anything piles up here.
      const flood = setInterval(() => client.says(storm), 1)
      await eventually(() => broker.server.counters.slowClients === 1, { what: 'the close' })
      clearInterval(flood)
      client.socket.resume()
      await eventually(() => client.isClosed)
      expect(broker.core.memory.usedBytes).toBe(0)
      await subscriber(await scene.another(), 'a')
    },
  )
})

describe('$queue/NAME at QoS 2', () => {
  async function consumer(client: WireClient): Promise<WireClient> {
    return client.says(CONNECT_5, subscribe5('00 01', '$queue/jobs', '02')).hears(CONNACK_5, suback5('00 01', '02'))
  }

  transcript(
    'PUBREC settles, whatever QoS the message was published at; after that nothing of the queue waits for the client',
    async ({ client, another, broker }) => {
      const queue = await broker.core.queue('jobs', 'jobs/#')
      await broker.core.router.publish(messageTo('jobs/a', '0', { qos: 0 }))
      await broker.core.router.publish(messageTo('jobs/a', '1'))
      await consumer(client)
      await client.hears(publish5('jobs/a', '0', QOS2, '00 01'), publish5('jobs/a', '1', QOS2, '00 02'))
      expect(queue.ledger.figures()).toMatchObject({ in_flight: 2, settled: 0 })
      await client.says(pubrec('00 01')).hears(pubrel('00 01'))
      expect(queue.ledger.figures()).toMatchObject({ in_flight: 1, settled: 1 })
      client.close()
      await eventually(() => queue.consumerCount === 0)
      expect(queue.ledger.figures()).toMatchObject({ queued: 1, settled: 1 })
      await (await consumer(await another())).hears(publish5('jobs/a', '1', QOS2, '00 01'))
    },
  )

  transcript('PUBREC with 0x83 gives it back, with another failure it is an attempt', async ({ client, broker }) => {
    const queue = await broker.core.queue('jobs', 'jobs/#')
    queue.policy = { ...PLAIN_POLICY, maxAttempts: 1 }
    await broker.core.router.publish(messageTo('jobs/a', '0'))
    await consumer(client)
    await client.hears(publish5('jobs/a', '0', QOS2, '00 01'))
    await client.says(pubrec('00 01', '83')).hears(publish5('jobs/a', '0', QOS2, '00 02'))
    await client.says(pubrec('00 02', '80')).hearsNothing()
    expect(queue.ledger.figures()).toMatchObject({ settled: 0, queued: 0, dropped: { delivery_limit: 1 } })
    expect(broker.server.client('c1')).toMatchObject({ inFlight: 0 })
  })

  transcript('UNSUBSCRIBE in mid-handshake: the rest of it is still answered', async ({ client, broker }) => {
    const queue = await broker.core.queue('jobs', 'jobs/#')
    await broker.core.router.publish(messageTo('jobs/a', '0'))
    await consumer(client)
    await client.hears(publish5('jobs/a', '0', QOS2, '00 01'))
    await client.says(packet(0xa2, '00 05', '00', text('$queue/jobs'))).hears(packet(0xb0, '00 05', '00 00'))
    await client.says(pubrec('00 01')).hears(pubrel('00 01'))
    expect(queue.consumerCount).toBe(0)
    await client.says(pubcomp('00 01')).hearsNothing()
    expect(broker.server.client('c1')).toMatchObject({ inFlight: 0 })
  })
})

describe('a will of QoS 2', () => {
  transcript('is published at QoS 2', async ({ client, another }) => {
    await subscriber(client, 'w')
    const mortal = await another()
    await mortal.says(connect311('m', '16', text('w'), text('gone'))).hears(CONNACK_311)
    mortal.close()
    await client.hears(publish311('w', 'gone', QOS2, '00 01'))
  })
})
