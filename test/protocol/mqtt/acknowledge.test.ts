import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect } from 'vitest'
import { PLAIN_POLICY } from '../../../src/model/queue-policy.ts'
import { eventually } from '../../support/eventually.ts'
import { WIDE_LIMITS } from '../../support/messages.ts'
import { bytes, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  CONNECT_311,
  connect311,
  disconnect5,
  hex16,
  puback,
  publish5,
  publish311,
  suback311,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const ONE_MESSAGE = { ...WIDE_LIMITS, messages: 1 }
describe('acknowledgement of what must be kept', () => {
  transcript('PUBACK leaves only after the message is stored', async ({ client, broker }) => {
    await broker.core.queue('keep', 'keep/#')
    await client.says(CONNECT_311).hears(CONNACK_311)
    broker.core.gate.holdCommits()
    await client.says(publish311('keep/a', 'x', 0x32, '00 07')).hearsNothing()
    await delay(120) // more than twice the commit interval: the commit is under way and held
    await client.hearsNothing()
    broker.core.gate.releaseCommits()
    await client.hears(puback('00 07'))
  })

  transcript(
    'PUBACKs leave in order of arrival: what is safe at once waits for what is not',
    async ({ client, broker }) => {
      await broker.core.queue('keep', 'keep/#')
      await client.says(CONNECT_311).hears(CONNACK_311)
      broker.core.gate.holdCommits()
      await client
        .says(
          publish311('a', 'x', 0x32, '00 01'),
          publish311('keep/a', 'x', 0x32, '00 02'),
          publish311('a', 'x', 0x32, '00 03'),
        )
        .hears(puback('00 01'))
      await client.hearsNothing()
      broker.core.gate.releaseCommits()
      await client.hears(puback('00 02'), puback('00 03'))
    },
  )

  transcript('a message its consumer has settled is acknowledged without any commit', async ({ client, broker }) => {
    const queue = await broker.core.queue('keep', 'keep/#')
    const taken: number[] = []
    queue.attach({ credit: 100, deliver: (_bytes, _at, position) => taken.push(position) })
    await client.says(CONNECT_311).hears(CONNACK_311)
    broker.core.gate.holdCommits()
    await client.says(publish311('keep/a', 'x', 0x32, '00 01'), publish311('keep/a', 'y', 0x32, '00 02')).hearsNothing()
    const [first = -1, second = -1] = taken
    queue.settle(second)
    await client.hearsNothing()
    queue.settle(first)
    await client.hears(puback('00 01'), puback('00 02'))
    broker.core.gate.releaseCommits()
  })

  transcript('another client is answered while one waits for the disk', async ({ client, another, broker }) => {
    await broker.core.queue('keep', 'keep/#')
    await client.says(CONNECT_311).hears(CONNACK_311)
    broker.core.gate.holdCommits()
    await client.says(publish311('keep/a', 'x', 0x32, '00 01')).hearsNothing()
    const other = await another()
    await other.says(connect311('c2'), publish311('a', 'x', 0x32, '00 01')).hears(CONNACK_311, puback('00 01'))
    broker.core.gate.releaseCommits()
    await client.hears(puback('00 01'))
  })

  transcript(
    'a 5.0 client over the receive maximum is disconnected with 0x93 [MQTT-3.3.4-7]',
    async ({ client, broker }) => {
      await broker.core.queue('keep', 'keep/#')
      const connack = await client.says(CONNECT_5).hearsPacket()
      expect(connack.includes(bytes('21 00 04'))).toBe(true)
      broker.core.gate.holdCommits()
      for (let n = 1; n <= 4; n++) client.says(publish5('keep/a', 'x', 0x32, hex16(n)))
      await client.hearsNothing()
      await client.says(publish5('keep/a', 'x', 0x32, hex16(5))).hears(disconnect5('93'))
      await client.hearsClose()
      broker.core.gate.releaseCommits()
    },
    { limits: { receiveMax: 4 } },
  )

  transcript(
    'a 3.1.1 client over the receive maximum is not read from until there is room',
    async ({ client, another, broker }) => {
      const queue = await broker.core.queue('keep', 'keep/#')
      await client.says(CONNECT_311).hears(CONNACK_311)
      broker.core.gate.holdCommits()
      for (let n = 1; n <= 10; n++) client.says(publish311('keep/a', 'x', 0x32, hex16(n)))
      await eventually(() => queue.depth === 4)
      await (await another()).says(connect311('c2')).hears(CONNACK_311)
      expect(queue.depth).toBe(4)
      broker.core.gate.releaseCommits()
      for (let n = 1; n <= 10; n++) await client.hears(puback(hex16(n)))
      await client.hearsNothing()
      expect(queue.depth).toBe(10)
    },
    { limits: { receiveMax: 4 } },
  )

  transcript(
    'more than a ring at once: a thousand messages of a 3.1.1 client are all answered in order',
    async ({ client, broker }) => {
      const queue = await broker.core.queue('keep', 'keep/#')
      await client.says(CONNECT_311).hears(CONNACK_311)
      const said: Buffer[] = []
      const answers: Buffer[] = []
      for (let n = 1; n <= 1000; n++) {
        said.push(publish311(n % 3 === 0 ? 'a' : 'keep/a', `${n}`, 0x32, hex16(n)))
        answers.push(puback(hex16(n)))
      }
      await client.says(...said).hears(...answers)
      expect(queue.depth).toBe(667)
    },
  )
})

describe('refusal before the acknowledgement', () => {
  transcript('5.0 gets 0x97 with a reason string, in order, and stays connected', async ({ client, broker }) => {
    const queue = await broker.core.queue('small', 'small', ONE_MESSAGE)
    await client.says(CONNECT_5).hears(CONNACK_5)
    client.says(publish5('small', '1', 0x32, '00 01'), publish5('small', '2', 0x32, '00 02'))
    await client.hears(puback('00 01'))
    const refused = await client.hearsPacket()
    expect(refused[0]).toBe(0x40)
    expect(refused.subarray(2, 5)).toEqual(bytes('00 02 97'))
    expect(refused.toString()).toContain('a queue this message must go to is full')
    await client.hearsNothing()
    expect(queue.ledger.accepted).toBe(1)
    expect(broker.server.counters.refusedPublishes.get('QUEUE_FULL')).toBe(1)
  })

  transcript(
    'no reason string for a client that wants none [MQTT-3.1.2-29] or cannot take it [MQTT-3.4.2-2]',
    async ({ client, another, broker }) => {
      await broker.core.queue('small', 'small', { ...WIDE_LIMITS, messages: 0 })
      const one = publish5('small', '1', 0x32, '00 01')
      await client
        .says(bytes('10 10 00 04', 'MQTT', '05 02 00 00 02 17 00 00 01 63'), one)
        .hears(CONNACK_5, bytes('40 03 00 01 97'))
      const tiny = await another()
      await tiny
        .says(bytes('10 13 00 04', 'MQTT', '05 02 00 00 05 27 00 00 00 20 00 01 64'), one)
        .hears(CONNACK_5, bytes('40 03 00 01 97'))
    },
  )

  transcript(
    'a 3.1.1 publish is held, not dropped: accepted as soon as there is room',
    async ({ client, another, broker }) => {
      const queue = await broker.core.queue('small', 'small', ONE_MESSAGE)
      await client.says(CONNECT_311).hears(CONNACK_311)
      await client
        .says(
          publish311('small', '1', 0x32, '00 01'),
          publish311('small', '2', 0x32, '00 02'),
          publish311('a', '3', 0x32, '00 03'),
        )
        .hears(puback('00 01'))
      const other = await another()
      await other.says(connect311('other'), publish311('a', 'x', 0x32, '00 01')).hears(CONNACK_311, puback('00 01'))
      expect(queue.ledger.accepted).toBe(1)
      const taken: number[] = []
      queue.attach({ credit: 10, deliver: (_bytes, _at, position) => taken.push(position) })
      queue.settle(taken[0] ?? -1)
      await client.hears(puback('00 02'), puback('00 03'))
      expect(queue.ledger.accepted).toBe(2)
    },
  )

  transcript(
    'a 3.1.1 client whose publish stays refused is disconnected, so that it sends it again: 3.1.1 [MQTT-4.8.0-2]',
    async ({ client, broker }) => {
      await broker.core.queue('small', 'small', ONE_MESSAGE)
      await client.says(CONNECT_311).hears(CONNACK_311)
      const since = performance.now()
      await client
        .says(publish311('small', '1', 0x32, '00 01'), publish311('small', '2', 0x32, '00 02'))
        .hears(puback('00 01'))
      await client.hearsClose()
      expect(performance.now() - since).toBeGreaterThan(590)
    },
    { limits: { refuseDisconnectAfterMs: 600 } },
  )

  transcript(
    'keep alive rests while a publish is held: the silence is the broker’s',
    async ({ client, broker }) => {
      const queue = await broker.core.queue('small', 'small', ONE_MESSAGE)
      await client.says(packet(0x10, text('MQTT'), '04 02 00 01', text('c1'))).hears(CONNACK_311)
      await client
        .says(publish311('small', '1', 0x32, '00 01'), publish311('small', '2', 0x32, '00 02'))
        .hears(puback('00 01'))
      await delay(2200) // keep alive is 1 s, so the client would be dead after 1.5 s
      const taken: number[] = []
      queue.attach({ credit: 10, deliver: (_bytes, _at, position) => taken.push(position) })
      queue.settle(taken[0] ?? -1)
      await client.hears(puback('00 02'))
    },
    {},
  )

  transcript(
    'a QoS 0 message a full queue cannot keep is dropped and counted, nobody waits',
    async ({ client, broker }) => {
      const queue = await broker.core.queue('small', 'small', ONE_MESSAGE)
      await client.says(CONNECT_311).hears(CONNACK_311)
      await client.says(publish311('small', '1'), publish311('small', '2'), publish311('small', '3')).hearsNothing()
      expect(queue.ledger.dropped.get('overflow')).toBe(2)
    },
  )

  transcript(
    'a subscriber is not refused: its queue drops its oldest and the publisher is acknowledged',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_311, subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      const publisher = await another()
      await publisher.says(connect311('p')).hears(CONNACK_311)
      for (let n = 1; n <= 5; n++) await publisher.says(publish311('a', `${n}`, 0x32, hex16(n))).hears(puback(hex16(n)))
      await client.hears(publish311('a', '1', 0x32, '00 01'))
      expect(broker.server.client('c1')).toMatchObject({ inFlight: 1, queued: 2 })
      await client.says(puback('00 01')).hears(publish311('a', '4', 0x32, '00 01'))
    },
    { limits: { inflight: 1, sessionQueue: { messages: 3, bytes: 1024 ** 2, onFull: 'drop_oldest' } } },
  )
})

describe('a queue with ack: upstream', () => {
  const upstream = (ackTimeoutMs: number) => ({ ...PLAIN_POLICY, ack: 'upstream', ackTimeoutMs }) as const
  const HOUR_MS = 3_600_000

  transcript('PUBACK leaves when its consumer has settled the message', async ({ client, broker }) => {
    const queue = await broker.core.queue('control', 'control')
    queue.policy = upstream(HOUR_MS)
    const taken: number[] = []
    queue.attach({ credit: 10, deliver: (_bytes, _at, position) => taken.push(position) })
    await client.says(CONNECT_311).hears(CONNACK_311)
    await client.says(publish311('control', 'x', 0x32, '00 01')).hearsNothing()
    await broker.core.schedule.flush()
    await client.hearsNothing()
    queue.settle(taken[0] ?? -1)
    await client.hears(puback('00 01'))
  })

  transcript('while nobody takes messages 5.0 gets 0x97 at once', async ({ client, broker }) => {
    const queue = await broker.core.queue('control', 'control')
    queue.policy = upstream(HOUR_MS)
    await client.says(CONNECT_5).hears(CONNACK_5)
    client.says(publish5('control', 'x', 0x32, '00 01'))
    const refused = await client.hearsPacket()
    expect(refused.subarray(2, 5)).toEqual(bytes('00 01 97'))
    expect(refused.toString()).toContain('the upstream cannot be reached')
    expect(queue.ledger.accepted).toBe(0)
  })

  transcript('and 3.1.1 is held until somebody does', async ({ client, broker }) => {
    const queue = await broker.core.queue('control', 'control')
    queue.policy = upstream(HOUR_MS)
    await client.says(CONNECT_311).hears(CONNACK_311)
    client.says(publish311('control', 'x', 0x32, '00 01'))
    await eventually(() => broker.server.counters.refusedPublishes.size > 0)
    expect(queue.ledger.accepted).toBe(0)
    const taken: number[] = []
    queue.attach({ credit: 10, deliver: (_bytes, _at, position) => taken.push(position) })
    await eventually(() => taken.length === 1)
    queue.settle(taken[0] ?? -1)
    await client.hears(puback('00 01'))
  })

  transcript('after ack_timeout 5.0 gets 0x97, in order, and stays connected', async ({ client, broker }) => {
    const queue = await broker.core.queue('control', 'control')
    queue.policy = upstream(50)
    queue.attach({ credit: 0, deliver: () => undefined })
    await client.says(CONNECT_5).hears(CONNACK_5)
    client.says(publish5('control', 'x', 0x32, '00 01'), publish5('other', 'y', 0x32, '00 02'))
    const refused = await client.hearsPacket()
    expect(refused.subarray(2, 5)).toEqual(bytes('00 01 97'))
    expect(refused.toString()).toContain('did not confirm the message in time')
    await client.hears(bytes('40 03 00 02 10'))
    expect(queue.depth).toBe(0)
    await client.says(bytes('c0 00')).hears(bytes('d0 00'))
  })

  transcript('and 3.1.1, which has no word for it, is disconnected and sends it again', async ({ client, broker }) => {
    const queue = await broker.core.queue('control', 'control')
    queue.policy = upstream(50)
    queue.attach({ credit: 0, deliver: () => undefined })
    await client.says(CONNECT_311).hears(CONNACK_311)
    client.says(publish311('control', 'x', 0x32, '00 01'))
    await client.hearsClose()
    expect(queue.depth).toBe(0)
  })
})
