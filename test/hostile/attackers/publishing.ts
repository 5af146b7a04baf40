/* Those that attack with messages. */
import { setTimeout as delay } from 'node:timers/promises'
import { packet, text } from '../../support/packet-bytes.ts'
import { type Attacker, connect, isToldReason } from '../attacker.ts'

const RECEIVE_MAXIMUM = 64
const PACKET_IDS = 65_535

const u16 = (value: number) => Buffer.from([value >> 8, value & 0xff])

export const publishing: readonly Attacker[] = [
  {
    name: 'large-messages',
    does: 'messages of nearly 1 MiB as fast as they are taken, and a subscriber to them that reads nothing',
    answer: 'messages like any other; QoS 0 to the subscriber is dropped and counted (output_full)',
    async attack(arena) {
      const reader = await arena.client('large-reader')
      reader.says(packet(0x82, '00 01', text('large'), '00'))
      await reader.hears(0x90, 'SUBACK', 4)
      reader.socket.pause()
      const foe = await arena.client('large')
      const message = packet(0x30, text('large'), Buffer.alloc(1_000_000))
      await arena.floods(foe, () => message)
      if (foe.isClosed) throw new Error('the connection was closed')
    },
  },
  {
    name: 'qos2-unfinished',
    does: 'QoS 2 messages that are never released',
    answer: '5.0: more than limits.receive_max open at once is 0x93 and closed',
    async attack(arena) {
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`unreleased-${n % 100}`, { version: 5 })
        for (let id = 1; id <= RECEIVE_MAXIMUM + 1; id++) foe.says(packet(0x34, text('q'), u16(id), '00', 'x'))
        await isToldReason(foe, 0x93)
      }
    },
  },
  {
    name: 'packet-ids',
    does: '3.1.1: QoS 2 messages under all 65,535 packet ids, none released, over and over',
    answer: 'each is answered with PUBREC; what comes again under its id is a repetition, and published once',
    async attack(arena) {
      const foe = await arena.client('packet-ids')
      let id = 0
      await arena.floods(foe, () =>
        Buffer.concat(
          Array.from({ length: 500 }, () => {
            id = (id % PACKET_IDS) + 1
            return packet(0x34, text('ids'), u16(id), 'x')
          }),
        ),
      )
      if (foe.isClosed) throw new Error('the connection was closed')
    },
  },
  {
    name: 'acknowledgements-unread',
    does: 'QoS 1 as fast as it is taken, and no PUBACK is read',
    answer: 'closed when 64 KiB of answers wait behind a full output',
    async attack(arena) {
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`unread-${n % 10}`)
        foe.socket.pause()
        const batch = Buffer.concat(
          Array.from({ length: 1_000 }, (_, i) => packet(0x32, text('unread'), u16(i + 1), 'x')),
        )
        await arena.floods(foe, () => batch)
        foe.reset()
      }
    },
  },
  {
    name: 'wills',
    does: '500 clients a second that leave a will of 10,000 bytes and are gone',
    answer: 'each will is published, like any message',
    async attack(arena) {
      const payload = Buffer.alloc(10_000)
      const heir = await arena.client('heir')
      heir.says(packet(0x82, '00 01', text('wills/#'), '00'))
      await heir.hears(0x90, 'SUBACK', 4)
      const done = await arena.atRate(500, async n => {
        const foe = await arena.connect()
        foe.says(connect(`testator-${n % 200}`, { will: { topic: `wills/${n % 200}`, payload, isRetained: false } }))
        await foe.hears(0x20, 'CONNACK')
        foe.reset()
      })
      await delay(100)
      if (heir.heardBytes < (done / 2) * 10_000) throw new Error(`${heir.heardBytes} bytes of ${done} wills`)
    },
  },
  {
    name: 'user-properties',
    does: 'messages with 100,000 user properties, and a subscriber to them',
    answer: 'forwarded as they are, within limits.packet',
    async attack(arena) {
      const foe = await arena.client('properties', { version: 5 })
      const from = 2 + (foe.heard[1] ?? 0)
      foe.says(packet(0x82, '00 01', '00', text('p'), '00'))
      await foe.hears(0x90, 'SUBACK', from)
      const properties = Buffer.concat(Array<Buffer>(100_000).fill(Buffer.from([0x26, 0, 1, 0x61, 0, 1, 0x62])))
      const length = Buffer.from([
        (properties.length & 0x7f) | 0x80,
        ((properties.length >> 7) & 0x7f) | 0x80,
        properties.length >> 14,
      ])
      const message = packet(0x30, text('p'), length, properties)
      await arena.floods(foe, () => message)
      if (foe.isClosed) throw new Error(`the connection was closed: ${foe.heard.subarray(-4).toString('hex')}`)
      if (foe.heardBytes < properties.length) throw new Error('nothing was forwarded')
    },
  },
  {
    name: 'subscribe-properties',
    does: 'SUBSCRIBE with 100,000 user properties, again and again',
    answer: 'each is answered: such properties mean nothing here',
    async attack(arena) {
      const foe = await arena.client('subscribe-properties', { version: 5 })
      const from = 2 + (foe.heard[1] ?? 0)
      const properties = Buffer.concat(Array<Buffer>(100_000).fill(Buffer.from([0x26, 0, 1, 0x61, 0, 1, 0x62])))
      const length = Buffer.from([
        (properties.length & 0x7f) | 0x80,
        ((properties.length >> 7) & 0x7f) | 0x80,
        properties.length >> 14,
      ])
      const subscribe = packet(0x82, '00 01', length, properties, text('p'), '00')
      await arena.floods(foe, () => subscribe)
      await foe.hears(0x90, 'SUBACK', from)
    },
  },
  {
    name: 'below-sys',
    does: 'messages below $SYS/, where the gateway itself speaks',
    answer: '5.0: 0x87 and closed',
    async attack(arena) {
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`sys-${n % 100}`, { version: 5 })
        foe.says(packet(0x31, text('$SYS/broker/uptime'), '00', 'forever'))
        await isToldReason(foe, 0x87)
      }
    },
  },
  {
    name: 'retained-flood',
    does: 'retained messages under ever new topics, as fast as they are taken',
    answer: 'limits.retained are kept; beyond, QoS 0 is delivered and not retained, counted',
    async attack(arena) {
      const foe = await arena.client('retained-flood')
      const payload = Buffer.alloc(1_000)
      let topics = 0
      await arena.pursue(
        () =>
          arena.floods(foe, () =>
            Buffer.concat(Array.from({ length: 100 }, () => packet(0x31, text(`f/${topics++}`), payload))),
          ),
        async () => (await arena.metric('sluice_retained_dropped_total')) > 0,
        'a message that is not retained',
      )
      if (foe.isClosed) throw new Error('the connection was closed')
    },
  },
]
