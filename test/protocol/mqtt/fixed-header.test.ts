import { describe } from 'vitest'
import { bytes, packet, text } from '../../support/wire.ts'
import { connect5, connect311, hearsDisconnect, letIn } from './packets.ts'
import { transcript } from './transcript.ts'

interface Kind {
  /** First byte as it must be. */
  readonly first: number
  readonly body: Buffer
  /** In 5.0, where it differs. */
  readonly body5?: Buffer
}

const KINDS: Readonly<Record<string, Kind>> = {
  PUBACK: { first: 0x40, body: bytes('00 01') },
  PUBREC: { first: 0x50, body: bytes('00 01') },
  'PUBREL [MQTT-3.6.1-1]': { first: 0x62, body: bytes('00 01') },
  PUBCOMP: { first: 0x70, body: bytes('00 01') },
  'SUBSCRIBE [MQTT-3.8.1-1]': {
    first: 0x82,
    body: bytes('00 01', text('a'), '00'),
    body5: bytes('00 01 00', text('a'), '00'),
  },
  'UNSUBSCRIBE [MQTT-3.10.1-1]': { first: 0xa2, body: bytes('00 01', text('a')), body5: bytes('00 01 00', text('a')) },
  PINGREQ: { first: 0xc0, body: Buffer.alloc(0) },
  'DISCONNECT [MQTT-3.14.1-1]': { first: 0xe0, body: Buffer.alloc(0) },
}

const otherFlags = (first: number) =>
  Array.from({ length: 16 }, (_, flags) => (first & 0xf0) | flags).filter(other => other !== first)

describe('fixed header', () => {
  for (const [name, { first, body, body5 = body }] of Object.entries(KINDS)) {
    transcript(`${name} with other flags than its own ends the connection [MQTT-2.1.3-1]`, async ({ another }) => {
      for (const other of otherFlags(first)) {
        const old = await another()
        await letIn(old, connect311(''))
        await old.says(packet(other, body)).hearsClose()
        const modern = await another()
        await letIn(modern, connect5(''))
        await hearsDisconnect(modern.says(packet(other, body5)), 0x81, `first byte ${other}`)
      }
    })
  }

  transcript('CONNECT with flags is no CONNECT: closed without a word [MQTT-3.1.0-1]', async ({ another }) => {
    for (const connect of [connect311('c'), connect5('c')]) {
      for (const other of otherFlags(0x10)) {
        const said = Buffer.from(connect)
        said[0] = other
        await (await another()).says(said).hearsClose()
      }
    }
  })

  transcript('nothing but CONNECT comes first [MQTT-3.1.0-1]', async ({ another }) => {
    for (let type = 0; type < 16; type++) {
      if (type === 1) continue
      for (const flags of [0, 2]) await (await another()).says(packet((type << 4) | flags, '00 01')).hearsClose()
    }
  })

  transcript('packets that only a server sends end the connection', async ({ another }) => {
    for (const first of [0x20, 0x90, 0xb0, 0xd0]) {
      const old = await another()
      await letIn(old, connect311(''))
      await old.says(packet(first, '00 01 00')).hearsClose()
      const modern = await another()
      await letIn(modern, connect5(''))
      await hearsDisconnect(modern.says(packet(first, '00 01 00 00')), 0x82, `first byte ${first}`)
    }
  })

  transcript('after DISCONNECT nothing is looked at [MQTT-3.14.4-1]', async ({ another }) => {
    const witness = await another()
    await letIn(witness, connect311('witness'))
    await witness.says(packet(0x82, '00 01', text('#'), '00')).hears(bytes('90 03 00 01 00'))
    for (const connect of [connect311('c'), connect5('c')]) {
      for (const afterwards of [packet(0x30, text('a'), '00', 'x'), bytes('c0 00'), bytes('ff ff ff ff ff'), connect]) {
        const client = await another()
        await letIn(client, connect)
        await client.says(bytes('e0 00'), afterwards).hearsClose()
      }
    }
    await witness.hearsNothing()
  })
})
