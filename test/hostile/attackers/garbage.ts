/* Those that say what nobody should. */
import { randomBytes } from 'node:crypto'
import { bytes, packet, text } from '../../support/packet-bytes.ts'
import { type Arena, type Attacker, connect, isToldReason } from '../attacker.ts'

const MEBIBYTE = 1024 ** 2

/** One after the other says it behind a CONNECT of 5.0 and is told why its connection ends. */
function refusedWith(reason: number, said: (n: number) => Buffer): (arena: Arena) => Promise<void> {
  return async arena => {
    for (let n = 0; !arena.isOver; n++) {
      const foe = await arena.client(`garbage-${n % 100}`, { version: 5 })
      foe.says(said(n))
      await isToldReason(foe, reason)
    }
  }
}

export const garbage: readonly Attacker[] = [
  {
    name: 'noise',
    does: '10 MB of noise on each of many connections',
    answer: 'each is closed with its first byte, without a word',
    async attack(arena) {
      const noise = Buffer.concat([Buffer.from([0xff]), randomBytes(10 * MEBIBYTE)])
      while (!arena.isOver) {
        const foe = await arena.connect()
        foe.says(noise)
        await foe.isCutOff('the end of the noise')
        foe.heardNothing()
      }
    },
  },
  {
    name: 'noise-behind-connect',
    does: '10 MB of noise from clients that were let in',
    answer: 'each is closed, 5.0 with the reason (0x81, 0x82, 0x95 or what else the noise happens to mean)',
    async attack(arena) {
      const noise = randomBytes(10 * MEBIBYTE)
      for (let n = 0; !arena.isOver; n++) {
        const foe = await arena.client(`noise-${n % 100}`, { version: 5 })
        foe.says(Buffer.concat([Buffer.from([(n % 15) << 4]), noise.subarray(n)]))
        await foe.isCutOff('the end of the noise')
      }
    },
  },
  {
    name: 'oversized-connect',
    does: 'a CONNECT of 65,000 bytes, again and again',
    answer: 'more than 16 KiB before it is known who it is: CONNACK 0x95 at the fixed header, and closed',
    async attack(arena) {
      while (!arena.isOver) {
        const foe = await arena.connect()
        foe.says(connect('x'.repeat(65_000), { version: 5 }))
        await foe.isCutOff('the refusal')
      }
    },
  },
  {
    name: 'unfinished-packets',
    does: '100 clients that each send all of a packet of 1 MiB but its last byte',
    answer: 'up to 16 MiB of them are held; whoever wants more is told 0x97 and closed',
    async attack(arena) {
      const body = Buffer.alloc(MEBIBYTE - 4)
      body.writeUInt16BE(1, 0)
      const almost = packet(0x30, body).subarray(0, -1)
      const foes = await Promise.all(
        Array.from({ length: 100 }, (_, n) => arena.client(`unfinished-${n}`, { version: 5 })),
      )
      let refused = 0
      for (const foe of foes) {
        foe.says(almost)
        foe.socket.once('close', () => {
          if (foe.heard.subarray(-4).toString('hex') === 'e0029700') refused++
        })
      }
      await arena.pass()
      if (refused < 50) throw new Error(`only ${refused} of 100 were refused`)
    },
  },
  {
    name: 'malformed-utf8',
    does: 'topics that are no UTF-8',
    answer: '0x81 and closed',
    attack: refusedWith(0x81, () => packet(0x30, '00 03 61 ff 62', '00')),
  },
  {
    name: 'auth-unasked',
    does: 'AUTH from clients that chose no method',
    answer: '0x82 and closed',
    attack: refusedWith(0x82, () => bytes('f0 00')),
  },
  {
    name: 'acknowledgements-of-nothing',
    does: 'PUBACK, PUBREC, PUBCOMP for messages nobody sent, as fast as they are taken',
    answer: 'counted (sluice_mqtt_unknown_acks_total); PUBREC is answered with PUBREL 0x92 in 5.0',
    async attack(arena) {
      const foe = await arena.client('acknowledges')
      const acks = Buffer.concat(
        Array.from({ length: 4_096 }, (_, n) => packet([0x40, 0x70][n % 2] ?? 0, Buffer.from([0x10, n & 0xff]))),
      )
      await arena.floods(foe, () => acks)
      if (foe.isClosed) throw new Error('the connection was closed')
      if ((await arena.metric('sluice_mqtt_unknown_acks_total')) === 0) throw new Error('nothing was counted')
    },
  },
  {
    name: 'pings',
    does: 'PINGREQ as fast as it is taken, the answers read',
    answer: 'each is answered',
    async attack(arena) {
      const foe = await arena.client('pings')
      const pings = Buffer.concat(Array<Buffer>(32_768).fill(bytes('c0 00')))
      await arena.floods(foe, () => pings)
      if (foe.isClosed) throw new Error('the connection was closed')
      if (foe.heardBytes < 65_536) throw new Error(`only ${foe.heardBytes} bytes of answers`)
    },
  },
  {
    name: 'prototype-names',
    does: 'clients, topics and properties called __proto__ and constructor',
    answer: 'names like any other',
    async attack(arena) {
      const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'prototype']
      for (let n = 0; !arena.isOver; n++) {
        const name = names[n % names.length] ?? ''
        const foe = await arena.client(name, { version: 5 })
        const property = Buffer.concat([bytes('26'), text(name), text(name)])
        foe.says(
          packet(0x82, '00 01', '00', text(`${name}/#`), '00'),
          packet(0x30, text(`${name}/${name}`), Buffer.from([property.length]), property, name),
        )
        const from = 2 + (foe.heard[1] ?? 0)
        await foe.hears(0x90, 'SUBACK', from)
        await foe.hears(0x30, 'its own message', from + 6)
        foe.reset()
      }
    },
  },
  {
    name: 'aliases',
    does: 'topic aliases beyond those there may be',
    answer: '0x94 and closed',
    attack: refusedWith(0x94, () => packet(0x30, text('a'), '03 23 ff ff', 'x')),
  },
]
