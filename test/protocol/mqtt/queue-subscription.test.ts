import { describe, expect } from 'vitest'
import type { Queue } from '../../../src/core/queue.ts'
import { PropertiesTag } from '../../../src/model/message.ts'
import { PLAIN_POLICY } from '../../../src/model/queue-policy.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { mqtt5PropertyBytes } from '../../support/mqtt5-publish.ts'
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

/** PUBACK of 5.0 with a reason code. */
const answer = (packetId: string, reason: string): Buffer => packet(0x40, packetId, reason)
const unsubscribe5 = (packetId: string, filter: string): Buffer => packet(0xa2, packetId, '00', text(filter))
const unsuback5 = (packetId: string, code: string): Buffer => packet(0xb0, packetId, '00', code)

/** Puts messages `0`, `1`, … into the queue `jobs`, which is bound to jobs/#. */
async function fill(broker: Pick<MqttUnderTest, 'core'>, count: number): Promise<Queue> {
  const queue = broker.core.topology.has('jobs')
    ? broker.core.topology.queue('jobs')
    : await broker.core.queue('jobs', 'jobs/#')
  await Promise.all(Array.from({ length: count }, (_, n) => broker.core.router.publish(messageTo('jobs/a', `${n}`))))
  return queue
}

async function consumer311(client: WireClient, clientId = 'c1', qos = '01'): Promise<WireClient> {
  return client
    .says(connect311(clientId), subscribe311('00 01', '$queue/jobs', qos))
    .hears(CONNACK_311, suback311('00 01', qos))
}

async function consumer5(client: WireClient, connect = CONNECT_5, qos = '01'): Promise<WireClient> {
  return client.says(connect, subscribe5('00 01', '$queue/jobs', qos)).hears(CONNACK_5, suback5('00 01', qos))
}

describe('$queue/NAME', () => {
  transcript('delivers what waits, under its own topic; PUBACK settles', async ({ client, broker }) => {
    const queue = await fill(broker, 2)
    await consumer311(client)
    await client.hears(publish311('jobs/a', '0', 0x32, '00 01'), publish311('jobs/a', '1', 0x32, '00 02'))
    expect(queue.ledger.figures()).toMatchObject({ queued: 0, in_flight: 2, settled: 0 })
    await client.says(puback('00 01'), puback('00 02')).hearsNothing()
    expect(queue.ledger.figures()).toMatchObject({ queued: 0, in_flight: 0, settled: 2 })
  })

  transcript(
    'delivers messages whose routing keys are no topics under topics a client can take [MQTT-3.3.2-2]',
    async ({ client, broker: { core } }) => {
      await fill({ core }, 0)
      const binding = { key: '', destination: { kind: 'queue', name: 'jobs' }, headers: null } as const
      await core.declarations.bind({ ...binding, source: 'amq.fanout' }, 'api')
      const publish = (key: string) => core.router.publish({ ...messageTo(key, '-'), exchange: 'amq.fanout' })
      await Promise.all(['', 'a.+.c#', 'a.b'].map(publish))
      await consumer311(client)
      await client.hears(
        publish311('amq/fanout', '-', 0x32, '00 01'),
        publish311('a/%2B/c%23', '-', 0x32, '00 02'),
        publish311('a/b', '-', 0x32, '00 03'),
      )
    },
  )

  transcript('delivers what comes later, whoever publishes it', async ({ client, another, broker }) => {
    await fill(broker, 0)
    await consumer311(client)
    const publisher = await another()
    await publisher.says(connect311('p'), publish311('jobs/b', 'x', 0x32, '00 09')).hears(CONNACK_311)
    await client.hears(publish311('jobs/b', 'x', 0x32, '00 01'))
    await client.says(puback('00 01')).hearsNothing()
    await publisher.hears(puback('00 09'))
  })

  transcript('a message published at QoS 0 comes at the QoS of the subscription', async ({ client, broker }) => {
    const queue = await fill(broker, 0)
    await broker.core.router.publish(messageTo('jobs/a', 'x', { qos: 0 }))
    await consumer311(client, 'c1', '01')
    await client.hears(publish311('jobs/a', 'x', 0x32, '00 01'))
    expect(queue.ledger.inFlight).toBe(1)
  })

  transcript('at QoS 0 a message is settled when it is sent', async ({ client, broker }) => {
    const queue = await fill(broker, 3)
    await consumer311(client, 'c1', '00')
    await client.hears(publish311('jobs/a', '0'), publish311('jobs/a', '1'), publish311('jobs/a', '2'))
    expect(queue.ledger.figures()).toMatchObject({ settled: 3, queued: 0, in_flight: 0 })
    expect(broker.server.counters.messagesOut).toEqual([3, 0, 0])
    expect(broker.server.client('c1')).toMatchObject({ sent: 3, inFlight: 0 })
  })

  transcript(
    'at QoS 0 what a full output has no room for stays in the queue',
    async ({ client, broker }) => {
      const queue = await fill(broker, 0)
      const payload = 'x'.repeat(100_000)
      for (let n = 0; n < 100; n++) await broker.core.router.publish(messageTo('jobs/a', payload))
      client.socket.pause()
      client.says(CONNECT_311, subscribe311('00 01', '$queue/jobs', '00'))
      await eventually(() => queue.ledger.settled > 0 && broker.server.client('c1')?.outputBytes !== 0)
      expect(queue.ledger.queued).toBeGreaterThan(0)
      client.socket.resume()
      await eventually(() => queue.ledger.settled === 100)
      await eventually(() => client.heardBytes > 100 * 100_000)
    },
    { limits: { outputPerClientBytes: 200_000 } },
  )

  transcript('several clients compete: each message goes to one, in turn', async ({ client, another, broker }) => {
    const queue = await fill(broker, 0)
    await consumer311(client, 'c1')
    const other = await consumer311(await another(), 'c2')
    await fill(broker, 4)
    await client.hears(publish311('jobs/a', '0', 0x32, '00 01'), publish311('jobs/a', '2', 0x32, '00 02'))
    await other.hears(publish311('jobs/a', '1', 0x32, '00 01'), publish311('jobs/a', '3', 0x32, '00 02'))
    expect(queue.consumerCount).toBe(2)
  })

  transcript('a worker that takes one at a time leaves the rest to others', async ({ client, another, broker }) => {
    await fill(broker, 0)
    await consumer5(client, connect5('slow', '03 21 00 01'))
    const quick = await consumer311(await another(), 'quick')
    await fill(broker, 4)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await quick.hears(
      publish311('jobs/a', '1', 0x32, '00 01'),
      publish311('jobs/a', '2', 0x32, '00 02'),
      publish311('jobs/a', '3', 0x32, '00 03'),
    )
    await client.hearsNothing()
  })

  transcript('PUBACK with 0x83 gives the message back, to whoever is next', async ({ client, another, broker }) => {
    const queue = await fill(broker, 0)
    await consumer5(client)
    const other = await consumer311(await another(), 'c2')
    await fill(broker, 1)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await client.says(answer('00 01', '83')).hearsNothing()
    // A new packet and no retransmission of the other's: DUP 0.
    await other.hears(publish311('jobs/a', '0', 0x32, '00 01'))
    await other.says(puback('00 01')).hearsNothing()
    expect(queue.ledger.figures()).toMatchObject({ settled: 1, queued: 0, in_flight: 0 })
  })

  transcript(
    'PUBACK with another failure is an attempt: tried again, given up in the end',
    async ({ client, broker }) => {
      const queue = await fill(broker, 0)
      queue.policy = { ...PLAIN_POLICY, maxAttempts: 2, retry: { firstMs: 1, maxMs: 1, waiting: 10 } }
      await fill(broker, 1)
      await consumer5(client)
      await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
      await client.says(answer('00 01', '80')).hears(publish5('jobs/a', '0', 0x32, '00 02'))
      await client.says(answer('00 02', '97')).hearsNothing()
      expect(queue.ledger.figures()).toMatchObject({ settled: 0, queued: 0, dropped: { delivery_limit: 1 } })
    },
  )

  transcript('0x83 is not counted as an attempt, the end of the connection is', async ({ client, another, broker }) => {
    const queue = await fill(broker, 1)
    queue.policy = { ...PLAIN_POLICY, maxAttempts: 1 }
    await consumer5(client)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await client.says(answer('00 01', '83')).hears(publish5('jobs/a', '0', 0x32, '00 02'))
    client.close()
    await eventually(() => queue.consumerCount === 0)
    expect(queue.ledger.figures()).toMatchObject({ queued: 0, dropped: { delivery_limit: 1 } })
    await (await consumer311(await another())).hearsNothing()
  })

  transcript('an exclusive queue takes one consumer', async ({ client, another, broker }) => {
    const queue = await fill(broker, 0)
    queue.policy = { ...PLAIN_POLICY, isExclusive: true }
    await consumer311(client)
    const modern = await another()
    await modern.says(connect5('c2'), subscribe5('00 01', '$queue/jobs', '01')).hears(CONNACK_5)
    expect(await hearsRefusal(modern, 0x97)).toContain('exclusive')
    expect(broker.server.client('c2')?.filters).toEqual([])
    client.close()
    await eventually(() => queue.consumerCount === 0)
    await modern.says(subscribe5('00 02', '$queue/jobs', '01')).hears(suback5('00 02', '01'))
  })

  transcript('a single active consumer: the next one waits for its end', async ({ client, another, broker }) => {
    const queue = await fill(broker, 0)
    queue.policy = { ...PLAIN_POLICY, hasSingleActiveConsumer: true }
    await consumer311(client, 'c1')
    const next = await consumer311(await another(), 'c2')
    await fill(broker, 2)
    await client.hears(publish311('jobs/a', '0', 0x32, '00 01'), publish311('jobs/a', '1', 0x32, '00 02'))
    await next.hearsNothing()
    client.close()
    await next.hears(publish311('jobs/a', '0', 0x32, '00 01'), publish311('jobs/a', '1', 0x32, '00 02'))
  })

  for (const reason of ['00', '10']) {
    transcript(`PUBACK with 0x${reason}, which is no failure, settles`, async ({ client, broker }) => {
      const queue = await fill(broker, 1)
      await consumer5(client)
      await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
      await client.says(packet(0x40, '00 01', reason, '00')).hearsNothing()
      expect(queue.ledger.settled).toBe(1)
    })
  }

  transcript('a queue that is not there is refused and not made', async ({ client, another, broker }) => {
    await client
      .says(CONNECT_311, subscribe311('00 01', '$queue/none', '01'))
      .hears(CONNACK_311, suback311('00 01', '80'))
    const modern = await another()
    await modern.says(connect5('c2'), subscribe5('00 01', '$queue/none', '01')).hears(CONNACK_5)
    expect(await hearsRefusal(modern, 0x8f)).toContain('there is no queue none')
    expect(broker.core.topology.has('none')).toBe(false)
    expect(broker.server.client('c1')?.filters).toEqual([])
  })

  transcript('names may have slashes, as in AMQP', async ({ client, broker }) => {
    await broker.core.queue('a/b', 'x')
    await client
      .says(CONNECT_311, subscribe311('00 01', '$queue/a/b', '01'))
      .hears(CONNACK_311, suback311('00 01', '01'))
  })

  transcript('No Local is refused: it would lose messages for the other consumers', async ({ client, broker }) => {
    await fill(broker, 1)
    await client.says(CONNECT_5, subscribe5('00 01', '$queue/jobs', '05')).hears(CONNACK_5)
    await hearsRefusal(client, 0x83)
    await client.hearsNothing()
  })

  transcript('a session’s subscriptions list it with its QoS', async ({ client, broker }) => {
    await fill(broker, 0)
    await consumer311(client)
    expect(broker.server.client('c1')?.filters).toMatchObject([{ filter: '$queue/jobs', qos: 1 }])
    await client.says(subscribe311('00 02', '$queue/jobs', '00')).hears(suback311('00 02', '00'))
    expect(broker.server.client('c1')?.filters).toMatchObject([{ filter: '$queue/jobs', qos: 0 }])
    expect(broker.core.topology.queue('jobs').consumerCount).toBe(1)
    await fill(broker, 1)
    await client.hears(publish311('jobs/a', '0'))
  })

  transcript(
    'a message that has expired is not delivered, one that will says what is left',
    async ({ client, broker }) => {
      const queue = await fill(broker, 0)
      const publisher = (expiryMs: number, payload: string) =>
        broker.core.router.publish(
          messageTo('jobs/a', payload, {
            expiryMs,
            propertiesTag: PropertiesTag.mqtt5,
            properties: mqtt5PropertyBytes({ messageExpiryInterval: 60 }),
          }),
        )
      await publisher(1, 'late')
      await publisher(60_000, 'soon')
      const since = performance.now()
      await eventually(() => performance.now() > since + 2)
      await consumer5(client)
      await client.hears(publish5('jobs/a', 'soon', 0x32, '00 01', '05 02 00 00 00 3c'))
      expect(queue.ledger.figures()).toMatchObject({ expired: 1, in_flight: 1 })
    },
  )

  transcript('a message larger than the client takes is rejected [MQTT-3.1.2-25]', async ({ client, broker }) => {
    const queue = await fill(broker, 0)
    await broker.core.router.publish(messageTo('jobs/a', 'x'.repeat(100)))
    await broker.core.router.publish(messageTo('jobs/a', 'y'))
    await consumer5(client, connect5('c1', '05 27 00 00 00 20'))
    await client.hears(publish5('jobs/a', 'y', 0x32, '00 01'))
    expect(queue.ledger.figures().dropped).toEqual({ rejected: 1 })
  })
})

describe('the end of a consumer', () => {
  transcript(
    'a connection lost in mid-flight gives back what it had, in place',
    async ({ client, another, broker }) => {
      const queue = await fill(broker, 3)
      await consumer311(client)
      await client.hears(
        publish311('jobs/a', '0', 0x32, '00 01'),
        publish311('jobs/a', '1', 0x32, '00 02'),
        publish311('jobs/a', '2', 0x32, '00 03'),
      )
      await client.says(puback('00 02')).hearsNothing()
      client.close()
      await eventually(() => queue.consumerCount === 0)
      expect(queue.ledger.figures()).toMatchObject({ settled: 1, queued: 2, in_flight: 0 })
      const other = await consumer311(await another(), 'c2')
      await other.hears(publish311('jobs/a', '0', 0x32, '00 01'), publish311('jobs/a', '2', 0x32, '00 02'))
    },
  )

  transcript('DISCONNECT leaves nothing in the session', async ({ client, another, broker }) => {
    const queue = await fill(broker, 1)
    await consumer311(client)
    await client.hears(publish311('jobs/a', '0', 0x32, '00 01'))
    await client.says(DISCONNECT).hearsClose()
    expect(queue.ledger.figures()).toMatchObject({ queued: 1, in_flight: 0 })
    const again = await another()
    await again.says(CONNECT_311).hears(CONNACK_311)
    await again.says(puback('00 01')).hearsNothing()
    expect(queue.ledger.queued).toBe(1)
    expect(broker.server.counters.unknownAcks).toBe(1)
  })

  transcript(
    'UNSUBSCRIBE takes nothing more; what was sent may still be answered [MQTT-3.10.4-3]',
    async ({ client, broker }) => {
      const queue = await fill(broker, 2)
      await consumer5(client)
      await client.hears(publish5('jobs/a', '0', 0x32, '00 01'), publish5('jobs/a', '1', 0x32, '00 02'))
      await client.says(unsubscribe5('00 05', '$queue/jobs')).hears(unsuback5('00 05', '00'))
      expect(broker.server.client('c1')).toMatchObject({ filters: [], inFlight: 2 })
      await fill(broker, 1)
      await client.says(puback('00 01')).hearsNothing()
      expect(queue.consumerCount).toBe(1)
      await client.says(answer('00 02', '83')).hearsNothing()
      expect(queue.consumerCount).toBe(0)
      expect(queue.ledger.figures()).toMatchObject({ settled: 1, queued: 2, in_flight: 0 })
      await client.says(unsubscribe5('00 06', '$queue/jobs')).hears(unsuback5('00 06', '11'))
    },
  )

  transcript('subscribing again before the last answer goes on as the same consumer', async ({ client, broker }) => {
    const queue = await fill(broker, 1)
    await consumer5(client)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
    await client.says(unsubscribe5('00 05', '$queue/jobs')).hears(unsuback5('00 05', '00'))
    await client.says(subscribe5('00 06', '$queue/jobs', '01')).hears(suback5('00 06', '01'))
    expect(queue.consumerCount).toBe(1)
    await fill(broker, 1)
    await client.hears(publish5('jobs/a', '0', 0x32, '00 02'))
    await client.says(puback('00 01'), puback('00 02')).hearsNothing()
    expect(queue.ledger.settled).toBe(2)
    expect(queue.consumerCount).toBe(1)
  })
})

describe('one window for all sources', () => {
  transcript(
    'the receive maximum holds over session and queues together [MQTT-3.3.4-9]',
    async ({ client, broker }) => {
      await fill(broker, 5)
      await broker.core.queue('more', 'more')
      for (let n = 0; n < 5; n++) await broker.core.router.publish(messageTo('more', `${n}`))
      await client
        .says(connect5('c1', '03 21 00 03'), subscribe5('00 01', 'own', '01'))
        .hears(CONNACK_5, suback5('00 01', '01'))
      await client.says(subscribe5('00 02', '$queue/jobs', '01')).hears(suback5('00 02', '01'))
      await client.says(subscribe5('00 03', '$queue/more', '01'))
      for (const n of [1, 2, 3]) await client.hears(publish5('jobs/a', `${n - 1}`, 0x32, hex16(n)))
      await client.hears(suback5('00 03', '01'))
      await broker.core.router.publish(messageTo('own', 'x'))
      await client.hearsNothing()
      expect(broker.server.client('c1')).toMatchObject({ inFlight: 3, queued: 1 })
    },
  )

  transcript('a busy source takes its share and no more while others wait', async ({ client, broker }) => {
    await client
      .says(connect5('c1', '03 21 00 04'), subscribe5('00 01', 'own', '01'))
      .hears(CONNACK_5, suback5('00 01', '01'))
    await fill(broker, 1000)
    await client.says(subscribe5('00 02', '$queue/jobs', '01')).hears(suback5('00 02', '01'))
    for (let n = 0; n < 4; n++) await client.hears(publish5('jobs/a', `${n}`, 0x32, hex16(n + 1)))
    for (let n = 0; n < 8; n++) await broker.core.router.publish(messageTo('own', `own ${n}`))
    const received = { own: 0, jobs: 0 }
    for (let round = 0; round < 4; round++) {
      await client.says(...[1, 2, 3, 4].map(n => puback(hex16(n))))
      for (let n = 0; n < 4; n++) {
        if ((await client.hearsPacket()).includes('own ')) received.own++
        else received.jobs++
      }
    }
    expect(received).toEqual({ own: 8, jobs: 8 })
  })

  transcript('with room for one message, sources take turns', async ({ client, broker }) => {
    for (const name of ['a', 'b', 'idle', 'c']) await broker.core.queue(name, name)
    for (let n = 0; n < 20; n++) {
      for (const name of ['a', 'b', 'c']) await broker.core.router.publish(messageTo(name, `${n}`))
    }
    await client.says(connect5('c1', '03 21 00 01')).hears(CONNACK_5)
    const filters = ['$queue/a', '$queue/b', '$queue/idle', '$queue/c']
    await client
      .says(packet(0x82, '00 01 00', ...filters.flatMap(filter => [text(filter), '01'])))
      .hears(packet(0x90, '00 01 00', '01 01 01 01'))
    let order = ''
    for (let n = 0; n < 12; n++) {
      order += (await client.hearsPacket()).toString('utf8', 4, 5)
      client.says(puback('00 01'))
    }
    expect(order).toBe('abcabcabcabc')
  })

  transcript('a queue emptied at QoS 0 leaves the window to the others', async ({ client, broker }) => {
    await fill(broker, 100)
    await client
      .says(connect5('c1', '03 21 00 01'), subscribe5('00 01', 'own', '01'))
      .hears(CONNACK_5, suback5('00 01', '01'))
    await broker.core.router.publish(messageTo('own', 'x'))
    await client.hears(publish5('own', 'x', 0x32, '00 01'))
    await client.says(subscribe5('00 02', '$queue/jobs', '00')).hears(suback5('00 02', '00'))
    for (let n = 0; n < 100; n++) await client.hears(publish5('jobs/a', `${n}`))
    await client.hearsNothing()
  })
})

describe('hostile consumers', () => {
  transcript('PUBACKs of unknown ids and second ones change nothing', async ({ client, broker }) => {
    const queue = await fill(broker, 1)
    await consumer311(client)
    await client.hears(publish311('jobs/a', '0', 0x32, '00 01'))
    await client.says(puback('00 01'), puback('00 01'), puback('00 02'), puback('ff ff')).hearsNothing()
    expect(queue.ledger.figures()).toMatchObject({ settled: 1, queued: 0, in_flight: 0 })
    expect(queue.ledger.imbalance).toBe(0)
    expect(broker.server.counters.unknownAcks).toBe(3)
  })

  transcript(
    'a reason code PUBACK does not have ends the connection, the message goes back',
    async ({ client, broker }) => {
      const queue = await fill(broker, 1)
      await consumer5(client)
      await client.hears(publish5('jobs/a', '0', 0x32, '00 01'))
      await client.says(answer('00 01', '8f')).hears(disconnect5('81'))
      await client.hearsClose()
      expect(queue.ledger.figures()).toMatchObject({ queued: 1, in_flight: 0 })
    },
  )

  transcript(
    'a thousand subscriptions to queues: all within the limit, none beyond',
    async ({ client, broker }) => {
      for (let n = 0; n < 1000; n++) await broker.core.queue(`q${n}`, `q/${n}`)
      await client.says(CONNECT_5).hears(CONNACK_5)
      const filters = Array.from({ length: 1001 }, (_, n) => [text(`$queue/q${n % 1000}`), Buffer.from([1])]).flat()
      const codes = Buffer.alloc(1001, 1)
      codes.fill(0x97, 900, 1000)
      await client.says(packet(0x82, '00 01 00', ...filters))
      await hearsRefusal(client, ...codes)
      expect(broker.server.client('c1')?.filters).toHaveLength(900)
      await broker.core.router.publish(messageTo('q/899', 'x'))
      await client.hears(publish5('q/899', 'x', 0x32, '00 01'))
      client.close()
      await eventually(() => broker.core.topology.queue('q0').consumerCount === 0)
      expect(broker.core.topology.queue('q899').ledger.queued).toBe(1)
    },
    { limits: { subscriptionsPerSession: 900 } },
  )

  transcript('the consumer after the last one a queue can have is refused with 0x97', async ({ client, broker }) => {
    const queue = await fill(broker, 0)
    const crowd = Array.from({ length: 255 }, () => ({ credit: 0, deliver: () => undefined }))
    for (const consumer of crowd) queue.attach(consumer)
    await client.says(CONNECT_5, subscribe5('00 01', '$queue/jobs', '01')).hears(CONNACK_5)
    expect(await hearsRefusal(client, 0x97)).toContain('255 consumers')
    for (const consumer of crowd.slice(1)) queue.detach(consumer)
    await client.says(subscribe5('00 02', '$queue/jobs', '01')).hears(suback5('00 02', '01'))
  })
})
