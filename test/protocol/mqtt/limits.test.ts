import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { bytes, PINGREQ, PINGRESP, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  connect5,
  connect311,
  hearsDisconnect,
  hearsRefusal,
  hearsRefusedConnack,
  letIn,
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

const KIB = 1024
const unsubscribe311 = (packetId: string, filter: string): Buffer => packet(0xa2, packetId, text(filter))

describe('limits.topic', () => {
  const longest = 'x'.repeat(32)

  transcript(
    'a longer topic ends the connection (5.0: 0x90), a longer filter is refused (0x8F, 3.1.1: 0x80)',
    async ({ client, another }) => {
      await client.says(connect5('v5')).hears(CONNACK_5)
      client.says(subscribe5('00 01', `${longest}x`, '00'))
      expect(await hearsRefusal(client, 0x8f)).toContain('longer than 32 bytes')
      await client
        .says(subscribe5('00 02', longest, '00'), publish5(longest, 'yes'))
        .hears(suback5('00 02', '00'), publish5(longest, 'yes'))
      client.says(publish5(`${longest}x`, 'no'))
      await hearsDisconnect(client, 0x90)
      const v3 = await another()
      await v3
        .says(connect311('v3'), subscribe311('00 01', `${longest}x`, '00'))
        .hears(CONNACK_311, suback311('00 01', '80'))
      v3.says(publish311(`${longest}x`, 'no'))
      await v3.hearsClose()
    },
    { limits: { topicBytes: 32 } },
  )

  transcript(
    'a will to a longer topic is refused in CONNACK',
    async ({ client }) => {
      client.says(connect5('v5', '00', '06', Buffer.from([0]), text(`${longest}x`), text('gone')))
      await hearsRefusedConnack(client, 0x90)
    },
    { limits: { topicBytes: 32 } },
  )
})

describe('names', () => {
  transcript('a client identifier has up to 256 bytes (5.0: 0x85, 3.1.1: 2)', async ({ client, another }) => {
    await client.says(connect311('i'.repeat(256))).hears(CONNACK_311)
    const v3 = await another()
    await v3.says(connect311('i'.repeat(257))).hears(bytes('20 02 00 02'))
    await v3.hearsClose()
    const v5 = await another()
    v5.says(connect5('i'.repeat(257)))
    await hearsRefusedConnack(v5, 0x85)
  })

  transcript('a user name has up to 256 bytes (5.0: 0x86, 3.1.1: 4)', async ({ client, another }) => {
    await client.says(connect311('c1', '82', text('u'.repeat(256)))).hears(CONNACK_311)
    const v3 = await another()
    await v3.says(connect311('c2', '82', text('u'.repeat(257)))).hears(bytes('20 02 00 04'))
    await v3.hearsClose()
    const v5 = await another()
    v5.says(connect5('c3', '00', '82', text('u'.repeat(257))))
    await hearsRefusedConnack(v5, 0x86)
  })
})

describe('limits.session_state', () => {
  const deep = (n: number): string => `${n}${'/x'.repeat(20)}`

  transcript(
    'subscriptions beyond it are refused, the first ones of everybody else are not, and what ends makes room',
    async ({ client, another, broker }) => {
      // It wants no reason strings.
      await letIn(client, connect5('hoarder', '02 17 00'))
      let taken = 0
      for (let n = 0; ; n++) {
        client.says(subscribe5('00 01', deep(n), '00'))
        const heard = await client.hearsPacket()
        if (heard.at(-1) === 0x97) break
        taken++
      }
      expect(taken).toBeGreaterThan(8)
      expect(taken).toBeLessThan(16)
      expect(broker.server.state.used).toBeLessThanOrEqual(64 * KIB)
      expect(broker.server.state.refused).toBe(1)
      const other = await another()
      await other
        .says(connect311('other'), subscribe311('00 01', 'a', '01'), subscribe311('00 02', deep(99), '01'))
        .hears(CONNACK_311, suback311('00 01', '01'), suback311('00 02', '80'))
      client.close()
      await eventually(() => broker.server.state.used === 0, { what: 'room' })
      await other
        .says(subscribe311('00 03', deep(99), '01'), unsubscribe311('00 04', deep(99)))
        .hears(suback311('00 03', '01'), bytes('b0 02 00 04'))
      expect(broker.server.state.used).toBe(0)
    },
    { limits: { sessionStateBytes: 64 * KIB } },
  )

  transcript(
    'a subscription made again is not counted twice, and one that ends with its session is counted until then',
    async ({ client, another, broker }) => {
      await client.says(connect311('kept', '00')).hears(CONNACK_311)
      for (let n = 0; n < 3; n++) {
        await client.says(subscribe311('00 01', deep(1), '01')).hears(suback311('00 01', '01'))
      }
      const one = broker.server.state.used
      await client.says(subscribe311('00 02', deep(2), '01')).hears(suback311('00 02', '01'))
      expect(broker.server.state.used).toBeGreaterThan(one)
      expect(broker.server.state.used).toBeLessThan(3 * one + KIB)
      client.close()
      await eventually(() => broker.server.clientCount === 0)
      expect(broker.server.state.used).toBeGreaterThan(one)
      const back = await another()
      await back.says(connect311('kept', '00')).hears(RESUMED_311)
      back.close()
      await (await another()).says(connect311('kept')).hears(CONNACK_311)
      expect(broker.server.state.used).toBe(0)
    },
  )

  transcript(
    'a client whose will has no room is refused (5.0: 0x97, 3.1.1: 3)',
    async ({ client, another, broker }) => {
      const will = [text('w'), text('x'.repeat(14_000))]
      for (let n = 0; n < 4; n++) {
        await (await another()).says(connect311(`c${n}`, '06', ...will)).hears(CONNACK_311)
      }
      await client.says(connect311('v3', '06', ...will)).hears(bytes('20 02 00 03'))
      await client.hearsClose()
      const v5 = await another()
      v5.says(connect5('v5', '00', '06', Buffer.from([0]), ...will))
      await hearsRefusedConnack(v5, 0x97)
      await (await another()).says(connect311('small', '06', text('w'), text('gone'))).hears(CONNACK_311)
      expect(broker.server.clientCount).toBe(5)
    },
    { limits: { sessionStateBytes: 64 * KIB } },
  )

  transcript(
    'topic aliases beyond it end the connection (0x97), those of others are taken',
    async ({ client, another, broker }) => {
      const alias = (n: number, topic: string): Buffer =>
        publish5(topic, 'x', 0x30, '', `03 23 00 ${n.toString(16).padStart(2, '0')}`)
      await letIn(client, connect5('hoarder'))
      for (let n = 1; n <= 32; n++) client.says(alias(n, `${n}`.padEnd(1000, 'x')))
      await hearsDisconnect(client, 0x97)
      expect(broker.server.state.used).toBe(0)
      const other = await another()
      await letIn(other, connect5('other'))
      await other.says(alias(1, 'a/b'), alias(1, ''), PINGREQ).hears(PINGRESP)
    },
    { limits: { sessionStateBytes: 64 * KIB, topicAliases: 32 } },
  )
})

describe('limits.retained', () => {
  transcript(
    'the index that finds them counts: many empty-handed topics are too much, too',
    async ({ client, broker }) => {
      await client.says(connect5('c1')).hears(CONNACK_5)
      let refused = 0
      for (let n = 0; n < 100; n++) {
        client.says(publish5(`t/${n}`, 'x', 0x33, '00 01'))
        const heard = await client.hearsPacket()
        if (heard.length > 4 && heard[4] === 0x97) refused++
      }
      expect(broker.core.retained.messages).toBe(100 - refused)
      expect(broker.core.retained.messages).toBeLessThan(40)
      expect(broker.core.retained.bytes).toBeLessThanOrEqual(8 * KIB)
      expect(broker.core.memory.usedBytes).toBe(broker.core.retained.bytes)
      // What there is may change, and go.
      await client.says(publish5('t/0', 'y', 0x33, '00 01')).hears(bytes('40 03 00 01 10'))
      await client.says(publish5('t/0', '', 0x33, '00 01')).hears(bytes('40 03 00 01 10'))
      expect(broker.core.memory.usedBytes).toBe(broker.core.retained.bytes)
    },
    { retained: { messages: 1000, bytes: 8 * KIB } },
  )
})

describe('limits.keep_alive_max', () => {
  transcript(
    'a 5.0 client that asks for none is told, and closed after one and a half of it',
    async ({ client }) => {
      const connack = await letIn(client, connect5('v5'))
      expect(connack.includes(bytes('13 00 01'))).toBe(true)
      await hearsDisconnect(client, 0x8d)
    },
    { limits: { keepAliveMaxMs: 1000 } },
  )
})

describe('limits.receive_max', () => {
  transcript(
    'a 5.0 client that sends more is closed (0x93), one of 3.1.1 waits its turn',
    async ({ client, another, broker }) => {
      const v3 = await another()
      await v3
        .says(connect311('keeper', '00'), subscribe311('00 01', 'a', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'))
      v3.close()
      await eventually(() => broker.server.clientCount === 0)
      broker.core.gate.holdCommits()
      const sender = await another()
      await sender.says(connect311('sender')).hears(CONNACK_311)
      sender.says(
        publish311('a', '1', 0x32, '00 01'),
        publish311('a', '2', 0x32, '00 02'),
        publish311('a', '3', 0x32, '00 03'),
      )
      await eventually(() => broker.server.client('sender')?.received === 2)
      await letIn(client, connect5('v5'))
      client.says(
        publish5('a', '1', 0x32, '00 01'),
        publish5('a', '2', 0x32, '00 02'),
        publish5('a', '3', 0x32, '00 03'),
      )
      await hearsDisconnect(client, 0x93)
      broker.core.gate.releaseCommits()
      await sender.hears(puback('00 01'), puback('00 02'), puback('00 03'))
    },
    { limits: { receiveMax: 2 } },
  )
})

describe('limits.packet', () => {
  const padded = (version: string, bytes: number): Buffer =>
    packet(0x10, text('MQTT'), version, '02 00 00', version === '05' ? '00' : Buffer.alloc(0), text('c'.repeat(bytes)))

  transcript(
    'a CONNECT above 16 KiB is answered with 0x95 and not read; 3.1.1 has no word for that',
    async ({ client, another, broker }) => {
      client.says(padded('05', 20_000))
      await hearsRefusedConnack(client, 0x95)
      const inPieces = await another()
      for (const byte of padded('05', 20_000).subarray(0, 12)) inPieces.says(Buffer.from([byte]))
      await hearsRefusedConnack(inPieces, 0x95)
      const v3 = await another()
      await v3.says(padded('04', 20_000)).hearsClose()
      expect(broker.server.counters.limitsReached.get('packet')).toBe(3)
    },
  )

  transcript(
    'a client that takes very small packets only is let in with a short CONNACK, and not if it could not be told what it needs',
    async ({ client, another }) => {
      const taking = (most: string): Buffer => connect5('c1', `05 27 ${most}`)
      const short = packet(0x20, '00 00 08', '21 00 40', '27 00 10 00 00')
      await client.says(taking('00 00 00 0d')).hears(short)
      await hearsRefusedConnack((await another()).says(taking('00 00 00 0c')), 0x95)
    },
  )
})

describe('a limit that is reached', () => {
  transcript(
    'is counted by name',
    async ({ client, another, broker }) => {
      const { limitsReached } = broker.server.counters
      await client.says(connect311('c1')).hears(CONNACK_311)
      for (let n = 1; n <= 2; n++) {
        await client.says(subscribe311('00 01', `${n}`, '00')).hears(suback311('00 01', '00'))
      }
      await client.says(subscribe311('00 01', '3', '00')).hears(suback311('00 01', '80'))
      await client.says(subscribe311('00 01', 'a/b/c/d', '00')).hears(suback311('00 01', '80'))
      const session = await another()
      await session.says(connect311('kept', '00')).hears(CONNACK_311)
      await (await another()).says(connect311('kept2', '00')).hears(bytes('20 02 00 03'))
      await (await another()).says(connect311('c3')).hears(CONNACK_311)
      await (await another()).says(connect311('c4')).hears(bytes('20 02 00 03'))
      await (await another()).hearsClose()
      expect(Object.fromEntries(limitsReached)).toEqual({
        subscriptions_per_session: 1,
        topic_levels: 1,
        sessions: 1,
        clients: 1,
        connect_timeout: 1,
      })
    },
    { limits: { subscriptionsPerSession: 2, topicLevels: 3, sessions: 1, clients: 3, connectTimeoutMs: 300 } },
  )
})
