import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { bytes, PINGREQ, type WireClient } from '../../support/wire.ts'
import { MULBERRY_SEED, noise } from './noise.ts'
import {
  CONNACK_311,
  CONNECT_5,
  CONNECT_311,
  connect311,
  puback,
  pubcomp,
  publish5,
  publish311,
  pubrec,
  pubrel,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { type Scene, transcript } from './transcript.ts'

/** The gateway still serves somebody who behaves. */
async function stillServes({ another }: Scene): Promise<void> {
  const client = await another()
  await client
    .says(connect311('well-behaved'), subscribe311('00 01', 'fine', '00'))
    .hears(CONNACK_311, suback311('00 01', '00'))
  await client.says(publish311('fine', 'yes')).hears(publish311('fine', 'yes'))
  client.close()
}

async function saysAndLeaves(client: WireClient, said: Buffer): Promise<void> {
  client.socket.end(said)
  await eventually(() => client.isClosed, { what: 'the close' })
}

describe('hostile clients', () => {
  transcript(`noise, seed ${MULBERRY_SEED}`, async scene => {
    const random = noise(MULBERRY_SEED)
    for (let round = 0; round < 150; round++) {
      const opening = round % 3 === 0 ? [] : [round % 3 === 1 ? CONNECT_311 : CONNECT_5]
      await saysAndLeaves(await scene.another(), Buffer.concat([...opening, random(1 + round * 7)]))
    }
    await eventually(() => scene.broker.server.clientCount === 0)
    expect(scene.broker.core.memory.usedBytes).toBe(0)
    await stillServes(scene)
  })

  const valid = [
    connect311('c1', 'c6', bytes('00 01 77 00 01 78 00 01 75 00 01 70')),
    Buffer.concat([
      CONNECT_311,
      subscribe311('00 01', 'a/+/#', '01'),
      publish311('a/b', 'x', 0x32, '00 07'),
      puback('00 01'),
    ]),
    Buffer.concat([
      CONNECT_311,
      publish311('a', 'x', 0x34, '00 07'),
      pubrel('00 07'),
      pubrec('00 01'),
      pubcomp('00 01'),
    ]),
    Buffer.concat([
      CONNECT_5,
      publish5('a', 'x', 0x34, '00 07'),
      pubrel('00 07', '00 00'),
      pubrec('00 01', '10 00'),
      pubcomp('00 01', '92 00'),
    ]),
    Buffer.concat([
      CONNECT_5,
      subscribe5('00 01', 'a/+/#', '01'),
      publish5('a/b', 'x', 0x32, '00 07', '05 02 00 00 00 09'),
    ]),
  ]
  for (const [n, packets] of valid.entries()) {
    transcript(`every byte of a valid conversation changed, one at a time: ${n + 1}`, async scene => {
      for (let at = 0; at < packets.length; at++) {
        const changes = [0x00, 0xff, (packets[at] ?? 0) ^ 0x80, (packets[at] ?? 0) + 1]
        const said = changes.map(value => {
          const mutated = Buffer.from(packets)
          mutated[at] = value
          return mutated
        })
        await Promise.all(said.map(async mutated => saysAndLeaves(await scene.another(), mutated)))
      }
      await eventually(() => scene.broker.server.clientCount === 0)
      // What one of them had retained stays.
      expect(scene.broker.core.memory.usedBytes).toBe(scene.broker.core.retained.bytes)
      await stillServes(scene)
    })
  }

  transcript('a large announced length costs no memory until the bytes come', async scene => {
    for (let n = 0; n < 100; n++) {
      const client = await scene.another()
      await client.says(connect311(`c${n}`), bytes('30 fc ff 3f 00 01 61')).hears(CONNACK_311)
    }
    await stillServes(scene)
  })

  transcript(
    'a subscriber that reads nothing loses QoS 0, counted, and delays nobody',
    async ({ client, another, broker }) => {
      await client
        .says(CONNECT_311, subscribe311('00 01', 'flood', '00'), subscribe311('00 02', 'kept', '01'))
        .hears(CONNACK_311, suback311('00 01', '00'), suback311('00 02', '01'))
      client.socket.pause()
      const reader = await another()
      await reader
        .says(connect311('reader'), subscribe311('00 01', 'flood', '00'))
        .hears(CONNACK_311, suback311('00 01', '00'))
      const publisher = await another()
      await publisher.says(connect311('p')).hears(CONNACK_311)
      const message = publish311('flood', 'x'.repeat(16_000))
      let said = 0
      while (broker.server.counters.droppedBy.output_full === 0) {
        publisher.says(message)
        await reader.hears(message)
        if (++said > 5000) throw new Error('nothing was dropped')
      }
      expect(broker.server.client('c1')?.outputBytes).toBeLessThan(128 * 1024)
      // Its queue waits while the output is full, and goes on when it has room.
      await publisher.says(publish311('kept', '1', 0x32, '00 01')).hears(puback('00 01'))
      expect(broker.server.client('c1')).toMatchObject({ queued: 1, inFlight: 0 })
      expect(broker.server.client('reader')).toMatchObject({ dropped: 0, sent: said })
      client.socket.resume()
      const sent = broker.server.client('c1')?.sent ?? 0
      expect(sent + (broker.server.client('c1')?.dropped ?? 0)).toBe(said)
      for (let n = 0; n < sent; n++) await client.hears(message)
      await client.hears(publish311('kept', '1', 0x32, '00 01'))
      await eventually(() => broker.server.client('c1')?.outputBytes === 0)
    },
    { limits: { outputPerClientBytes: 64 * 1024 } },
  )

  transcript(
    'a flood of PINGREQ from a client that reads nothing ends its connection',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_311).hears(CONNACK_311)
      client.socket.pause()
      const pings = Buffer.concat(Array<Buffer>(32_768).fill(PINGREQ))
      const deadline = performance.now() + 15_000
      while (broker.server.counters.slowClients === 0) {
        if (performance.now() > deadline) throw new Error('the client was not closed')
        if (!client.socket.write(pings)) await delay(1)
      }
      await eventually(() => broker.server.clientCount === 0)
      await eventually(() => broker.core.memory.usedBytes === 0)
      await (await another()).says(connect311('c2')).hears(CONNACK_311)
    },
    { limits: { outputPerClientBytes: 64 * 1024 } },
  )

  transcript(
    'publishers pause while memory is short and go on when it is relieved',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_311).hears(CONNACK_311)
      broker.core.memory.take(2 * 1024 ** 2)
      client.says(publish311('a', '1', 0x32, '00 01'), publish311('a', '2', 0x32, '00 02'), PINGREQ)
      const other = await another()
      await other.says(connect311('c2')).hears(CONNACK_311)
      await other.hearsNothing()
      expect(broker.server.client('c1')?.received).toBe(0)
      broker.core.memory.give(2 * 1024 ** 2)
      await client.hears(puback('00 01'), puback('00 02'), bytes('d0 00'))
    },
    { memoryBytes: 1024 ** 2 },
  )

  transcript('connections that say nothing do not keep others out', async scene => {
    for (let n = 0; n < 300; n++) await scene.another()
    await stillServes(scene)
  })

  transcript(
    'silent connections took every place for ten seconds at a time: a newcomer takes that of the one that has been silent longest',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_311).hears(CONNACK_311)
      const silent: WireClient[] = []
      for (let n = 0; n < 257; n++) silent.push(await another())
      await eventually(async () => {
        const newcomer = await another()
        await eventually(() => newcomer.says(connect311('c1')).heardBytes === 4 || newcomer.isClosed)
        return newcomer.heardBytes === 4
      })
      await eventually(() => silent[0]?.isClosed)
      expect(silent.filter(({ isClosed }) => isClosed).length).toBeLessThan(10)
      expect(broker.server.clientCount).toBe(1)
    },
    { limits: { clients: 1 } },
  )
})
