import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { accessWith } from '../../support/users.ts'
import { bytes, PINGREQ, PINGRESP, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  CONNECT_311,
  connect5,
  connect311,
  DISCONNECT,
  disconnect5,
  publish5,
  publish311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const returnCode = (code: string) => bytes('20 02 00', code)
const refusedWith = (packet: Buffer, code: number) => {
  expect(packet[0]).toBe(0x20)
  expect(packet[2]).toBe(0)
  expect(packet[3]).toBe(code)
}

describe('CONNECT', () => {
  transcript('3.1 is accepted', async ({ client, broker }) => {
    await client.says(packet(0x10, text('MQIsdp'), '03', '02', '00 3c', text('old'))).hears(CONNACK_311)
    expect(broker.server.client('old')).toMatchObject({ version: '3.1', keepAliveS: 60, user: null })
  })

  transcript('3.1.1 is accepted, pinged and left', async ({ client, broker }) => {
    await client.says(CONNECT_311).hears(CONNACK_311)
    await client.says(PINGREQ).hears(PINGRESP) // [MQTT-3.12.4-1]
    await client.says(DISCONNECT).hearsClose()
    expect(broker.server.clientCount).toBe(0)
  })

  transcript('5.0 is told what there is and what is not', async ({ client }) => {
    await client.says(CONNECT_5).hears(CONNACK_5)
    await client.says(DISCONNECT).hearsClose()
  })

  transcript('an empty client id is given one: 3.1.1 [MQTT-3.1.3-6]', async ({ client, broker }) => {
    await client.says(connect311('')).hears(CONNACK_311)
    expect([...broker.server.clients()][0]?.id).toMatch(/^auto-/)
  })

  transcript(
    'an empty client id is given one and told: 5.0 [MQTT-3.1.3-6], [MQTT-3.2.2-16]',
    async ({ client, broker }) => {
      const connack = await client.says(connect5('')).hearsPacket()
      const id = [...broker.server.clients()][0]?.id ?? ''
      expect(connack.includes(bytes('12', text(id)))).toBe(true)
    },
  )

  transcript('an empty client id without clean session is rejected: 3.1.1 [MQTT-3.1.3-8]', async ({ client }) => {
    await client.says(connect311('', '00')).hears(returnCode('02'))
    await client.hearsClose()
  })

  transcript(
    'an unknown protocol level gets return code 1: 3.1.1 [MQTT-3.1.2-2]; a later one 0x84 [MQTT-3.1.2-2]',
    async ({ client, another }) => {
      await client.says(packet(0x10, text('MQTT'), '03', '02', '00 00', text('c'))).hears(returnCode('01'))
      await client.hearsClose()
      const bridge = await another()
      await bridge.says(packet(0x10, text('MQTT'), '84', '02', '00 00', text('c'))).hears(returnCode('01'))
      const future = await another()
      refusedWith(
        await future.says(packet(0x10, text('MQTT'), '06', '02', '00 00', '00', text('c'))).hearsPacket(),
        0x84,
      )
    },
  )

  const silentlyClosed: [string, Buffer][] = [
    ['another protocol name [MQTT-3.1.2-1]', packet(0x10, text('MQTX'), '04', '02', '00 00', text('c'))],
    ['the reserved flag [MQTT-3.1.2-3]', connect311('c', '03')],
    ['reserved bits of the first byte: 3.1.1 [MQTT-2.2.2-2]', Buffer.concat([bytes('11'), CONNECT_311.subarray(1)])],
    ['a will of QoS 3: 3.1.1 [MQTT-3.1.2-14]', connect311('c', '1e', text('w'), text('x'))],
    ['will QoS without a will: 3.1.1 [MQTT-3.1.2-13]', connect311('c', '0a')],
    ['will retain without a will: 3.1.1 [MQTT-3.1.2-15]', connect311('c', '22')],
    ['a password without a user name: 3.1.1 [MQTT-3.1.2-22]', connect311('c', '42', text('secret'))],
    ['U+0000 in the client id: 3.1.1 [MQTT-1.5.3-2]', connect311('a\0b')],
    [
      'broken UTF-8 in the client id: 3.1.1 [MQTT-1.5.3-1]',
      packet(0x10, text('MQTT'), '04', '02', '00 00', '00 02 c3 28'),
    ],
    [
      'a surrogate in the client id: 3.1.1 [MQTT-1.5.3-1]',
      packet(0x10, text('MQTT'), '04', '02', '00 00', '00 03 ed a0 80'),
    ],
    ['U+0000 in the user name', connect311('c', '82', text('a\0'))],
    ['a wildcard in the will topic', connect311('c', '06', text('a/+'), text('x'))],
    ['bytes behind the end', connect311('c', '02', bytes('00'))],
    ['an end that comes too early', packet(0x10, text('MQTT'), '04', '02', '00 00', '00 09', 'c')],
    ['another packet first [MQTT-3.1.0-1]', publish311('a', 'b')],
    ['an announced length over the limit before CONNECT', bytes('10 ff ff ff 7f 00 04')],
    ['a remaining length of five bytes', bytes('10 ff ff ff ff 01')],
  ]
  for (const [what, said] of silentlyClosed) {
    transcript(`closed without an answer in 3.1.1: ${what}`, async ({ client, broker }) => {
      await client.says(said).hearsClose()
      expect(broker.server.clientCount).toBe(0)
    })
  }

  const refused5: [string, number, Buffer][] = [
    ['the reserved flag [MQTT-3.1.2-3]', 0x81, connect5('c', '00', '03')],
    ['broken UTF-8 in the client id', 0x81, packet(0x10, text('MQTT'), '05', '02', '00 00', '00', '00 02 c3 28')],
    ['a property twice', 0x82, connect5('c', '06 21 00 01 21 00 01')],
    ['a property of another packet', 0x81, connect5('c', '03 23 00 01')],
    ['an unknown property', 0x81, connect5('c', '02 7e 01')],
    ['receive maximum 0', 0x82, connect5('c', '03 21 00 00')],
    ['maximum packet size 0', 0x82, connect5('c', '05 27 00 00 00 00')],
    ['request problem information 2', 0x82, connect5('c', '02 17 02')],
    ['authentication data without a method', 0x82, connect5('c', '04 16 00 01 61')],
    ['an authentication method', 0x8c, connect5('c', '04 15 00 01 61')],
    ['properties longer than the packet', 0x81, connect5('c', '7f')],
    ['a will topic with a wildcard', 0x90, connect5('c', '00', '06', bytes('00'), text('w/#'), text('x'))],
    [
      'a will with a wildcard in its response topic',
      0x82,
      connect5('c', '00', '06', bytes('04 08 00 01 23'), text('w'), text('x')),
    ],
  ]
  for (const [what, code, said] of refused5) {
    transcript(`refused with 0x${code.toString(16)} in 5.0: ${what}`, async ({ client }) => {
      refusedWith(await client.says(said).hearsPacket(), code)
      await client.hearsClose()
    })
  }

  transcript('a second CONNECT ends the connection [MQTT-3.1.0-2]', async ({ client, another }) => {
    await client.says(CONNECT_311, CONNECT_311).hears(CONNACK_311)
    await client.hearsClose()
    const modern = await another()
    await modern.says(CONNECT_5, CONNECT_5).hears(CONNACK_5, disconnect5('82'))
    await modern.hearsClose()
  })

  transcript(
    'nobody is let in where anonymous clients are not allowed [MQTT-3.1.4-2]',
    async ({ client, another }) => {
      await client.says(CONNECT_311).hears(returnCode('05'))
      await client.hearsClose()
      refusedWith(await (await another()).says(connect5('c2')).hearsPacket(), 0x87)
    },
    { authenticator: accessWith() },
  )

  transcript(
    'one client too many is told so, a returning one is not too many',
    async ({ client, another }) => {
      await client.says(CONNECT_311).hears(CONNACK_311)
      await (await another()).says(connect311('c2')).hears(returnCode('03'))
      refusedWith(await (await another()).says(connect5('c3')).hearsPacket(), 0x97)
      await (await another()).says(CONNECT_311).hears(CONNACK_311)
    },
    { limits: { clients: 1 } },
  )

  transcript(
    'a client id in use is taken over, the old connection is told [MQTT-3.1.4-3]',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_5).hears(CONNACK_5)
      await (await another()).says(CONNECT_5).hears(CONNACK_5)
      await client.hears(disconnect5('8e'))
      await client.hearsClose()
      expect(broker.server.clientCount).toBe(1)
      expect(broker.server.counters.takenOver).toBe(1)
    },
  )

  transcript('a kicked client is told and gone', async ({ client, broker }) => {
    await client.says(CONNECT_5).hears(CONNACK_5)
    expect(broker.server.kick('c1')).toBe(true)
    expect(broker.server.kick('c1')).toBe(false)
    await client.hears(disconnect5('98'))
    await client.hearsClose()
  })

  transcript('a stopping gateway says so to 5.0 and closes all', async ({ client, another, broker }) => {
    await client.says(CONNECT_5).hears(CONNACK_5)
    const old = await another()
    await old.says(connect311('c2')).hears(CONNACK_311)
    await broker.server.stop()
    await client.hears(disconnect5('8b'))
    await client.hearsClose()
    await old.hearsClose()
    await (await another()).hearsClose()
  })

  transcript('names that mean something to JavaScript are names like others', async ({ client, another, broker }) => {
    for (const name of ['constructor', '__proto__', 'hasOwnProperty', 'toString']) {
      const one = await another()
      await one.says(connect311(name), subscribe311('00 01', name, '01')).hears(CONNACK_311, suback311('00 01', '01'))
      await client.says(CONNECT_311).hears(CONNACK_311)
      client.says(publish311(name, 'x'), DISCONNECT)
      await one.hears(publish311(name, 'x'))
      expect(broker.server.client(name)?.filters).toMatchObject([{ filter: name, qos: 1 }])
      await client.hearsClose()
      client = await another()
    }
  })
})

describe('keep alive', () => {
  transcript(
    'a silent client is closed after one and a half times its keep alive [MQTT-3.1.2-22]',
    async ({ client, broker }) => {
      const since = performance.now()
      await client
        .says(packet(0x10, text('MQTT'), '05', '02', '00 01', '00', text('c1')))
        .hears(CONNACK_5, disconnect5('8d'))
      expect(performance.now() - since).toBeGreaterThanOrEqual(1490)
      await client.hearsClose()
      expect(broker.server.counters.keepAliveTimeouts).toBe(1)
    },
  )

  transcript(
    'a 5.0 client that asks for more than is granted is told, and held to it [MQTT-3.1.2-21]',
    async ({ client, broker }) => {
      const connack = await client.says(CONNECT_5).hearsPacket()
      expect(connack.includes(bytes('13 00 05'))).toBe(true)
      expect(broker.server.client('c1')?.keepAliveS).toBe(5)
    },
    { limits: { keepAliveMaxMs: 5000 } },
  )
})

describe('wills', () => {
  transcript('a will is published when the connection breaks [MQTT-3.1.2-8]', async ({ client, another }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'w', '00')).hears(CONNACK_311, suback311('00 01', '00'))
    const mortal = await another()
    await mortal.says(connect311('m', '06', text('w'), text('gone'))).hears(CONNACK_311)
    mortal.socket.resetAndDestroy()
    await client.hears(publish311('w', 'gone'))
  })

  transcript(
    'a DISCONNECT takes the will with it [MQTT-3.1.2-10], [MQTT-3.14.4-3]',
    async ({ client, another, broker }) => {
      await client.says(CONNECT_311, subscribe311('00 01', 'w', '00')).hears(CONNACK_311, suback311('00 01', '00'))
      const mortal = await another()
      await mortal.says(connect311('m', '06', text('w'), text('gone')), DISCONNECT).hears(CONNACK_311)
      await mortal.hearsClose()
      await eventually(() => broker.server.clientCount === 1)
      await client.hearsNothing()
    },
  )

  transcript(
    'DISCONNECT with will message publishes it: 5.0, with its properties but the will delay [MQTT-3.1.3-9]',
    async ({ client, another }) => {
      await client.says(CONNECT_5, subscribe5('00 01', 'w', '01')).hears(CONNACK_5, suback5('00 01', '01'))
      const mortal = await another()
      const willProperties = bytes('18 00 00 00 3c', '26 00 01 61 00 01 62')
      const length = Buffer.from([willProperties.length])
      const said = connect5('m', '00', '0e', length, willProperties, text('w'), text('gone'))
      await mortal.says(said).hears(CONNACK_5)
      mortal.says(bytes('e0 01 04'))
      await client.hears(publish5('w', 'gone', 0x32, '00 01', '07 26 00 01 61 00 01 62'))
    },
  )

  transcript('a client that breaks the protocol has its will published', async ({ client, another }) => {
    await client.says(CONNECT_311, subscribe311('00 01', 'w', '00')).hears(CONNACK_311, suback311('00 01', '00'))
    const mortal = await another()
    await mortal.says(connect311('m', '26', text('w'), text('gone')), bytes('f0 00')).hears(CONNACK_311)
    await client.hears(publish311('w', 'gone'))
  })
})
