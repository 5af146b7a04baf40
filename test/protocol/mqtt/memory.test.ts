import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { bytes, type MqttUnderTest, PINGREQ, PINGRESP, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  connect5,
  connect311,
  disconnect5,
  hearsDisconnect,
  hex16,
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

const MIB = 1024 ** 2
const KIB = 1024

/** So many seconds of the gateway's own clockwork. */
function seconds(broker: MqttUnderTest, count: number): void {
  for (let second = 0; second < count; second++) broker.core.topology.expire()
}

/** Subscribes a new session that outlives its connection, and leaves. */
async function leaveSession(client: WireClient, clientId: string, filter: string): Promise<void> {
  await client
    .says(connect311(clientId, '00'), subscribe311('00 01', filter, '01'))
    .hears(CONNACK_311, suback311('00 01', '01'))
  client.close()
}

describe('limits.memory', () => {
  transcript('what waits for sessions that are away is on disk and takes no memory', async ({ another, broker }) => {
    for (let n = 0; n < 100; n++) await leaveSession(await another(), `away${n}`, 'a')
    const publisher = await another()
    await publisher.says(connect311('publisher')).hears(CONNACK_311)
    for (let n = 1; n <= 5; n++) await publisher.says(publish311('a', `${n}`, 0x32, hex16(n))).hears(puback(hex16(n)))
    await eventually(() => broker.core.memory.usedBytes === 0, { what: 'memory that is given back' })
    const back = await another()
    await back.says(connect311('away7', '00')).hears(RESUMED_311)
    for (let n = 1; n <= 5; n++) await back.hears(publish311('a', `${n}`, 0x32, hex16(n)))
  })

  transcript(
    'a queue that is full while its client is away drops its oldest from disk, a little at a time',
    async ({ another, broker }) => {
      await leaveSession(await another(), 'away', 'a')
      const publisher = await another()
      await publisher.says(connect311('publisher')).hears(CONNACK_311)
      for (let n = 1; n <= 20; n++)
        await publisher.says(publish311('a', `${n}`, 0x32, hex16(n))).hears(puback(hex16(n)))
      await eventually(() => broker.core.topology.unlistedDropped.get('overflow') === 15, { what: 'the drops' })
      await eventually(() => broker.core.memory.usedBytes === 0, { what: 'memory that is given back' })
      const back = await another()
      await back.says(connect311('away', '00')).hears(RESUMED_311)
      for (let n = 16; n <= 20; n++) await back.hears(publish311('a', `${n}`, 0x32, hex16(n - 15)))
    },
    { limits: { sessionQueue: { messages: 5, bytes: MIB, onFull: 'drop_oldest' } } },
  )

  transcript(
    'a message of QoS 0 that memory has no room for is dropped for those it has none for, and counted',
    async ({ another, broker }) => {
      for (let n = 0; n < 20; n++) {
        const frozen = await another()
        await frozen
          .says(connect311(`frozen${n}`), subscribe311('00 01', 'a', '00'))
          .hears(CONNACK_311, suback311('00 01', '00'))
        frozen.socket.pause()
      }
      const publisher = await another()
      await publisher.says(connect311('publisher')).hears(CONNACK_311)
      const message = publish311('a', 'x'.repeat(512 * KIB))
      // Three of them fit what the kernel takes for a client.
      for (let n = 0; n < 12; n++) publisher.says(message)
      await eventually(() => broker.server.counters.droppedBy.memory_full > 0, { what: 'a drop' })
      expect(broker.core.memory.usedBytes).toBeLessThanOrEqual(2.5 * MIB + 64 * KIB)
    },
    { memoryBytes: 2 * MIB, limits: { outputPerClientBytes: 8 * MIB } },
  )

  transcript(
    'a message of QoS 1 that memory has no room for in all queues it goes to is refused',
    async ({ another, broker }) => {
      for (let n = 0; n < 10; n++) await leaveSession(await another(), `away${n}`, 'large')
      const v5 = await another()
      await v5.says(connect5('v5')).hears(CONNACK_5)
      await v5.says(publish5('large', 'x'.repeat(300 * KIB), 0x32, '00 01'))
      const refusal = await v5.hearsPacket()
      expect([refusal[0], refusal[4]]).toEqual([0x40, 0x97])
      expect(refusal.toString()).toContain('memory')
      // Smaller ones go on.
      await v5.says(publish5('large', 'small', 0x32, '00 02')).hears(puback('00 02'))
      const v3 = await another()
      await v3.says(connect311('v3')).hears(CONNACK_311)
      v3.says(publish311('large', 'x'.repeat(300 * KIB), 0x32, '00 01'))
      await v3.hearsClose()
      expect(broker.core.memory.usedBytes).toBeLessThan(2 * MIB)
    },
    { memoryBytes: 2 * MIB, limits: { refuseDisconnectAfterMs: 300 } },
  )

  transcript(
    'who acknowledges nothing loses what waits for it, oldest first, and nobody else waits longer for that than two seconds',
    async ({ another, broker }) => {
      const stuck = await another()
      await stuck
        .says(connect311('stuck'), subscribe311('00 01', 'a', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'))
      const healthy = await another()
      await healthy
        .says(connect311('healthy'), subscribe311('00 01', 'a', '00'))
        .hears(CONNACK_311, suback311('00 01', '00'))
      const publisher = await another()
      await publisher.says(connect311('publisher')).hears(CONNACK_311)
      const payload = 'x'.repeat(64 * KIB)
      for (let n = 1; n <= 40; n++) publisher.says(publish311('a', payload, 0x32, hex16(n)))
      await eventually(() => broker.core.memory.isPressed, { what: 'the limit' })
      await publisher.hears(puback(hex16(1)))
      seconds(broker, 2)
      for (let n = 2; n <= 40; n++) {
        await publisher.hears(puback(hex16(n)))
        if (broker.core.memory.isPressed) seconds(broker, 2)
      }
      for (let n = 1; n <= 40; n++) await healthy.hears(publish311('a', payload))
      expect(broker.core.topology.unlistedDropped.get('overflow')).toBeGreaterThan(0)
      expect(broker.server.clientCount).toBe(3)
    },
    { memoryBytes: MIB, limits: { inflight: 2 } },
  )

  transcript(
    'clients that hold most of it for five seconds are closed, the others and their publishers go on',
    async ({ another, broker }) => {
      const hoarders: WireClient[] = []
      for (let n = 0; n < 4; n++) {
        const hoarder = await another()
        hoarders.push(
          await hoarder
            .says(connect5(`hoarder${n}`), subscribe5('00 01', 'a', '01'))
            .hears(CONNACK_5, suback5('00 01', '01')),
        )
      }
      const healthy = await another()
      await healthy.says(connect5('healthy'), subscribe5('00 01', 'a', '00')).hears(CONNACK_5, suback5('00 01', '00'))
      const publisher = await another()
      await publisher.says(connect5('publisher')).hears(CONNACK_5)
      const payload = 'x'.repeat(32 * KIB)
      const count = 16
      for (let n = 1; n <= count; n++) publisher.says(publish5('a', payload, 0x32, hex16(n)))
      await eventually(() => broker.core.memory.isPressed, { what: 'the limit' })
      await eventually(() => {
        seconds(broker, 5)
        return broker.server.counters.slowClients > 0
      })
      // The largest among equals: not all of them.
      expect(broker.server.counters.slowClients).toBeLessThan(4)
      for (let n = 1; n <= count; n++) {
        if (broker.core.memory.isPressed) seconds(broker, 5)
        expect((await publisher.hearsPacket())[0]).toBe(0x40)
      }
      await healthy.says(PINGREQ)
      await eventually(() => healthy.heardBytes > 32 * KIB)
      expect(broker.server.client('healthy')).toBeDefined()
    },
    { memoryBytes: MIB },
  )

  transcript(
    'many sessions that come back at once are read in turn, within the limit, and each gets all',
    async ({ another, broker }) => {
      const sessions = 24
      const messages = 4
      for (let n = 0; n < sessions; n++) await leaveSession(await another(), `away${n}`, `to/${n}`)
      const publisher = await another()
      await publisher.says(connect311('publisher')).hears(CONNACK_311)
      const payload = 'x'.repeat(60 * KIB)
      for (let n = 0; n < sessions; n++) {
        for (let m = 1; m <= messages; m++) {
          await publisher.says(publish311(`to/${n}`, payload, 0x32, hex16(m))).hears(puback(hex16(m)))
        }
      }
      await eventually(() => broker.core.memory.usedBytes === 0, { what: 'memory that is given back' })
      let most = 0
      const returned = Array.from({ length: sessions }, async (_, n) => {
        const back = await another()
        await back.says(connect311(`away${n}`, '00')).hears(RESUMED_311)
        for (let m = 1; m <= messages; m++) {
          await back.hears(publish311(`to/${n}`, payload, 0x32, hex16(m)))
          most = Math.max(most, broker.core.memory.usedBytes)
          back.says(puback(hex16(m)))
        }
      })
      await Promise.all(returned)
      expect(most).toBeLessThan(2.5 * MIB)
      await eventually(() => broker.core.memory.usedBytes === 0, { what: 'memory that is given back' })
    },
    { memoryBytes: MIB },
  )

  transcript(
    'the keep alive of a paused publisher rests; one that is paused too long is closed and told so',
    async ({ another, broker }) => {
      const publisher = await another()
      await publisher.says(connect5('publisher')).hears(CONNACK_5)
      broker.core.memory.take(2 * MIB)
      publisher.says(publish5('a', '1', 0x32, '00 01'))
      await hearsDisconnect(publisher, 0x97)
      const other = await another()
      await other.says(connect5('other')).hears(CONNACK_5)
      other.says(publish5('a', '1', 0x32, '00 01'), PINGREQ)
      broker.core.memory.give(2 * MIB)
      await other.hears(bytes('40 03 00 01 10'), PINGRESP)
      other.says(disconnect5('00'))
      await other.hearsClose()
    },
    { memoryBytes: MIB, limits: { refuseDisconnectAfterMs: 400 } },
  )
})
