import { describe, expect } from 'vitest'
import { bytes, PINGREQ, packet, text } from '../../support/wire.ts'
import {
  CONNACK_311,
  connect5,
  connect311,
  hearsRefusedConnack,
  letIn,
  publish5,
  publish311,
  suback311,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const LETTERS = '0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'

/** CONNECT packets whose payload does not hold what their flags say, in the form of 3.1.1; flags as two digits. */
const MISFITS: readonly (readonly [string, string, readonly Buffer[]])[] = [
  ['a user name without its flag [MQTT-3.1.2-16]', '02', [text('c'), text('user')]],
  ['no user name with its flag [MQTT-3.1.2-17]', '82', [text('c')]],
  ['a password without its flag [MQTT-3.1.2-18]', '82', [text('c'), text('user'), text('password')]],
  ['no password with its flag [MQTT-3.1.2-19]', 'c2', [text('c'), text('user')]],
  ['no client identifier [MQTT-3.1.3-3]', '02', []],
  ['a client identifier cut short [MQTT-3.1.3-1]', '02', [bytes('00 09 63')]],
  ['half a length', '02', [bytes('00')]],
]
/** The same for wills; `PROPERTIES` stands where those of 5.0 are. */
const PROPERTIES = bytes('00')
const WILL_MISFITS: readonly (readonly [string, string, readonly Buffer[]])[] = [
  ['no will with its flag [MQTT-3.1.2-9]', '06', [text('c')]],
  ['a will topic and no will payload [MQTT-3.1.2-9]', '06', [text('c'), PROPERTIES, text('w')]],
  ['a will without its flag [MQTT-3.1.2-9]', '02', [text('c'), PROPERTIES, text('w'), text('gone')]],
  ['a will payload cut short', '06', [text('c'), PROPERTIES, text('w'), bytes('00 05 78')]],
]
/** Flags that contradict each other. */
const FLAGS: readonly (readonly [string, string])[] = [
  ['will QoS 1 without a will [MQTT-3.1.2-11]', '0a'],
  ['will QoS 2 without a will [MQTT-3.1.2-11]', '12'],
  ['will retain without a will [MQTT-3.1.2-13]', '22'],
  ['will QoS 3 [MQTT-3.1.2-12]', '1e'],
  ['will QoS 3 without a will [MQTT-3.1.2-12]', '1a'],
  ['the reserved flag [MQTT-3.1.2-3]', '03'],
]

const connect = (version: 4 | 5, flags: string, payload: readonly Buffer[]) =>
  packet(
    0x10,
    text('MQTT'),
    `0${version} ${flags} 00 00`,
    ...(version === 5 ? [bytes('00')] : []),
    ...payload.filter(part => version === 5 || part !== PROPERTIES),
  )

describe('what CONNECT must hold [MQTT-3.1.4-1]', () => {
  for (const [what, flags, payload] of [
    ...MISFITS,
    ...WILL_MISFITS,
    ...FLAGS.map(([name, flags]) => [name, flags, [text('c'), PROPERTIES, text('w'), text('gone')]] as const),
  ]) {
    transcript(`${what} ends the connection, in 3.1.1 without CONNACK: 3.1.1 [MQTT-3.1.4-1]`, async scene => {
      await scene.client.says(connect(4, flags, payload)).hearsClose()
      await hearsRefusedConnack((await scene.another()).says(connect(5, flags, payload)), 0x81)
      expect(scene.broker.server.clientCount).toBe(0)
    })
  }

  transcript('user name and password are read where both are there, however long', async ({ another, broker }) => {
    for (const user of ['', 'u', 'ü'.repeat(128)]) {
      await letIn(await another(), connect(4, 'c2', [text('old'), text(user), text('p'.repeat(1000))]))
      expect(broker.server.client('old')?.user).toBe(user)
      await letIn(await another(), connect(5, 'c2', [text('new'), text(user), text('')]))
      expect(broker.server.client('new')?.user).toBe(user)
    }
  })

  transcript('a password alone is fine in 5.0', async ({ client, broker }) => {
    await letIn(client, connect(5, '42', [text('c'), text('token')]))
    expect(broker.server.client('c')?.user).toBeNull()
  })

  transcript(
    'client identifiers of 1 to 23 letters and digits are accepted [MQTT-3.1.3-5]',
    async ({ another, broker }) => {
      const ids = [...LETTERS, LETTERS.slice(0, 23), LETTERS.slice(-23)]
      for (const id of ids) await letIn(await another(), connect311(id))
      for (const id of ids) expect(broker.server.client(id)?.id).toBe(id) // [MQTT-3.1.3-2]
      await letIn(await another(), connect5(LETTERS.slice(-23)))
    },
  )

  transcript('longer client identifiers, and other characters, are accepted too', async ({ another, broker }) => {
    for (const id of ['a'.repeat(256), 'sensor/1 #+', 'größe', '\u{1f321}']) {
      await letIn(await another(), connect311(id))
      expect(broker.server.client(id)?.id).toBe(id)
    }
  })

  transcript(
    'an assigned client identifier is new, told, and used like any [MQTT-3.1.3-7]',
    async ({ another, broker }) => {
      const first = await letIn(await another(), connect5(''))
      const second = await letIn(await another(), connect5(''))
      const ids = [...broker.server.clients()].map(({ id }) => id)
      expect(new Set(ids).size).toBe(2)
      for (const [n, connack] of [first, second].entries())
        expect(connack.includes(bytes('12', text(ids[n] ?? '')))).toBe(true)
      const claimant = await another()
      await letIn(claimant, connect5(ids[0] ?? ''))
      expect(broker.server.counters.takenOver).toBe(1)
    },
  )
})

describe('the answer to CONNECT', () => {
  transcript(
    'is CONNACK 0, once and before anything else [MQTT-3.2.0-1], [MQTT-3.2.0-2], [MQTT-3.1.4-5]',
    async ({ client }) => {
      const early = [PINGREQ, subscribe311('00 01', 'a', '00'), publish311('a', 'x')]
      await client.says(connect311('c'), ...early)
      await client.hears(CONNACK_311, bytes('d0 00'), suback311('00 01', '00'), publish311('a', 'x'))
      await client.hearsNothing()
    },
  )

  transcript(
    'has no flags but session present, and a reason of its table [MQTT-3.2.2-1], [MQTT-3.2.2-8]',
    async ({ another }) => {
      expect((await letIn(await another(), connect5('c')))[2]).toBe(0)
      const refused = await another()
      await hearsRefusedConnack(refused.says(connect5('c', '03 21 00 00')), 0x82) // [MQTT-3.2.2-6], [MQTT-3.2.2-7]
    },
  )

  transcript('of a client that is refused nothing is processed [MQTT-3.1.4-6]', async ({ client, another }) => {
    await letIn(client, connect311('witness'))
    await client.says(subscribe311('00 01', '#', '00')).hears(suback311('00 01', '00'))
    const refusals = [
      connect311('', '00'),
      connect311('c', '03'),
      connect5('c', '03 21 00 00'),
      packet(0x10, text('MQTT'), '06 02 00 00', '00', text('c')),
    ]
    for (const refused of refusals) {
      const other = await another()
      other.says(refused, publish311('a', 'x'), publish5('a', 'x'), PINGREQ)
      const answer = await other.hearsPacket()
      if (answer.length > 0) expect(answer[0]).toBe(0x20)
      await other.hearsClose()
    }
    await client.hearsNothing()
  })

  transcript(
    'to a refused identifier is 0x02, session present 0, and the close: 3.1.1 [MQTT-3.1.3-9]',
    async ({ client }) => {
      await client.says(connect311('', '00')).hears(bytes('20 02 00 02')) // 3.1.1 [MQTT-3.2.2-4], 3.1.1 [MQTT-3.1.3-7]
      await client.hearsClose() // 3.1.1 [MQTT-3.2.2-5]
    },
  )

  transcript('comes without a word where 3.1.1 has none for the reason: 3.1.1 [MQTT-3.2.2-6]', async ({ client }) => {
    await client.says(connect311('c', '06', text('a/#'), text('x'))).hearsClose()
  })

  transcript('another protocol name is not taken for MQTT [MQTT-3.1.2-1]', async ({ another }) => {
    for (const name of ['', 'mqtt', 'MQTTS', 'MQIsdq', 'HTTP', 'MQTT\u0020']) {
      await (await another()).says(packet(0x10, text(name), '04 02 00 00', text('c'))).hearsClose()
      await hearsRefusedConnack((await another()).says(packet(0x10, text(name), '05 02 00 00 00', text('c'))), 0x84)
    }
  })
})
