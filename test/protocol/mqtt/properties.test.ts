import { describe, expect } from 'vitest'
import { bytes, packet, text, type WireClient } from '../../support/wire.ts'
import { connect5, hearsDisconnect, hearsRefusedConnack, letIn } from './packets.ts'
import { type Scene, transcript } from './transcript.ts'

/** A packet with these properties. */
interface Kind {
  readonly name: string
  readonly isFirst: boolean
  readonly says: (properties: Buffer) => Buffer
}

const listed = (properties: Buffer) => Buffer.concat([Buffer.from([properties.length]), properties])

const KINDS = {
  CONNECT: {
    name: 'CONNECT',
    isFirst: true,
    says: properties => packet(0x10, text('MQTT'), '05 02 00 00', listed(properties), text('c')),
  },
  will: {
    name: 'the will',
    isFirst: true,
    says: properties =>
      packet(0x10, text('MQTT'), '05 06 00 00 00', text('c'), listed(properties), text('w'), text('x')),
  },
  PUBLISH: { name: 'PUBLISH', isFirst: false, says: properties => packet(0x30, text('a'), listed(properties), 'x') },
  PUBACK: { name: 'PUBACK', isFirst: false, says: properties => packet(0x40, '00 01 00', listed(properties)) },
  PUBREC: { name: 'PUBREC', isFirst: false, says: properties => packet(0x50, '00 01 00', listed(properties)) },
  PUBREL: { name: 'PUBREL', isFirst: false, says: properties => packet(0x62, '00 01 00', listed(properties)) },
  PUBCOMP: { name: 'PUBCOMP', isFirst: false, says: properties => packet(0x70, '00 01 00', listed(properties)) },
  SUBSCRIBE: {
    name: 'SUBSCRIBE',
    isFirst: false,
    says: properties => packet(0x82, '00 01', listed(properties), text('a'), '00'),
  },
  UNSUBSCRIBE: {
    name: 'UNSUBSCRIBE',
    isFirst: false,
    says: properties => packet(0xa2, '00 01', listed(properties), text('a')),
  },
  DISCONNECT: { name: 'DISCONNECT', isFirst: false, says: properties => packet(0xe0, '00', listed(properties)) },
} as const satisfies Record<string, Kind>
type KindName = keyof typeof KINDS

/** Table 2-4: identifier, a value of its type, and the packets of clients it belongs into. */
const PROPERTIES: readonly (readonly [id: string, value: string, kinds: readonly KindName[]])[] = [
  ['01', '01', ['PUBLISH', 'will']],
  ['02', '00 00 00 0a', ['PUBLISH', 'will']],
  ['03', '00 01 61', ['PUBLISH', 'will']],
  ['08', '00 01 61', ['PUBLISH', 'will']],
  ['09', '00 01 61', ['PUBLISH', 'will']],
  ['0b', '01', ['PUBLISH', 'SUBSCRIBE']],
  ['11', '00 00 00 00', ['CONNECT', 'DISCONNECT']],
  ['12', '00 01 61', []],
  ['13', '00 01', []],
  ['15', '00 01 61', ['CONNECT']],
  ['16', '00 01 61', ['CONNECT']],
  ['17', '01', ['CONNECT']],
  ['18', '00 00 00 0a', ['will']],
  ['19', '01', ['CONNECT']],
  ['1a', '00 01 61', []],
  ['1c', '00 01 61', []],
  ['1f', '00 01 61', ['PUBACK', 'PUBREC', 'PUBREL', 'PUBCOMP', 'DISCONNECT']],
  ['21', '00 01', ['CONNECT']],
  ['22', '00 01', ['CONNECT']],
  ['23', '00 01', ['PUBLISH']],
  ['24', '01', []],
  ['25', '01', []],
  ['27', '00 00 01 00', ['CONNECT']],
  ['28', '01', []],
  ['29', '01', []],
  ['2a', '01', []],
]
const UNASSIGNED = ['00', '04', '0a', '0c', '14', '1b', '20', '2b', '7f', '80 01', 'ff']

async function hears(client: WireClient, kind: Kind, reason: number, what: string): Promise<void> {
  if (kind.isFirst) await hearsRefusedConnack(client, reason, what)
  else await hearsDisconnect(client, reason, what)
}

async function says({ another }: Scene, kind: Kind, properties: Buffer): Promise<WireClient> {
  const client = await another()
  if (!kind.isFirst) await letIn(client, connect5(''))
  return client.says(kind.says(properties))
}

describe('properties', () => {
  for (const [name, kind] of Object.entries(KINDS) as [KindName, Kind][]) {
    transcript(`${kind.name} with a property of another packet, or of none, is malformed`, async scene => {
      const foreign = PROPERTIES.filter(([, , kinds]) => !kinds.includes(name)).map(([id, value]) => bytes(id, value))
      for (const property of [...foreign, ...UNASSIGNED.map(id => bytes(id, '00 00 00 00'))]) {
        await hears(await says(scene, kind, property), kind, 0x81, property.toString('hex'))
      }
    })

    transcript(`${kind.name} with a property twice is a protocol error`, async scene => {
      for (const [id, value, kinds] of PROPERTIES) {
        if (!kinds.includes(name)) continue
        await hears(await says(scene, kind, bytes(id, value, id, value)), kind, 0x82, id)
      }
    })

    transcript(`${kind.name} whose property ends behind the properties is malformed`, async scene => {
      const whole = PROPERTIES.filter(([, , kinds]) => kinds.includes(name)).map(([id, value]) => bytes(id, value))
      for (const property of [...whole, bytes('26 00 01 61 00 01 62')]) {
        for (let length = 1; length < property.length; length++) {
          const cut = property.subarray(0, length)
          await hears(await says(scene, kind, cut), kind, 0x81, cut.toString('hex'))
        }
      }
    })
  }

  transcript('only user properties may come more than once, of one name too', async ({ client }) => {
    const twice = bytes('26 00 01 61 00 01 62 26 00 01 61 00 01 62')
    await letIn(client, KINDS.CONNECT.says(twice))
    client.says(KINDS.PUBLISH.says(twice), KINDS.PUBACK.says(twice))
    await client.says(KINDS.SUBSCRIBE.says(twice)).hears(bytes('90 04 00 01 00 00'))
    await client.says(KINDS.UNSUBSCRIBE.says(twice)).hears(bytes('b0 04 00 01 00 00'))
    await client.says(KINDS.DISCONNECT.says(twice)).hearsClose()
  })

  const OVERLONG: readonly (readonly [string, Buffer])[] = [
    ['a properties length', packet(0x30, text('a'), '80 00', 'x')],
    ['a subscription identifier', packet(0x82, '00 01', '03 0b 81 00', text('a'), '00')],
    ['a remaining length', Buffer.concat([bytes('c0 80 00')])],
    ['a remaining length in four bytes', Buffer.concat([bytes('30 84 80 80 00'), text('a'), bytes('00')])],
  ]
  for (const [what, said] of OVERLONG) {
    transcript(`${what} in more bytes than it needs is malformed [MQTT-1.5.5-1]`, async ({ client }) => {
      await letIn(client, connect5('c'))
      await hearsDisconnect(client.says(said), 0x81)
    })
  }

  transcript('the length of no properties is 0, not left out [MQTT-2.2.2-1]', async ({ client, another }) => {
    const connack = await letIn(client, connect5('c'))
    expect(connack.length).toBeGreaterThan(4)
    await client.says(packet(0x82, '00 01 00', text('a'), '01')).hears(bytes('90 04 00 01 00 01'))
    await client
      .says(packet(0x32, text('a'), '00 07 00', 'x'))
      .hears(packet(0x32, text('a'), '00 01 00', 'x'), bytes('40 02 00 07'))
    await hearsDisconnect(client.says(packet(0x30, text('a'))), 0x81)
    await hearsRefusedConnack((await another()).says(packet(0x10, text('MQTT'), '05 02 00 00')), 0x81)
  })
})
