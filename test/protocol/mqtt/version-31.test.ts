/* MQTT 3.1 (protocol name MQIsdp, level 3): what it has of its own. */
import { describe, expect } from 'vitest'
import { bytes, packet, text } from '../../support/wire.ts'
import { CONNACK_311, connect311, letIn, puback, publish311, suback311, subscribe311 } from './packets.ts'
import { transcript } from './transcript.ts'

const connect31 = (clientId: string, flags = '02', ...payload: Buffer[]) =>
  packet(0x10, text('MQIsdp'), '03', flags, '00 00', text(clientId), ...payload)

describe('MQTT 3.1', () => {
  transcript('subscribes, publishes and is answered as in 3.1.1', async ({ client, another }) => {
    await client.says(connect31('old'), subscribe311('00 01', 'a/+', '01')).hears(CONNACK_311, suback311('00 01', '01'))
    const modern = await another()
    await letIn(modern, connect311('new'))
    await modern.says(publish311('a/b', 'x', 0x32, '00 09')).hears(puback('00 09'))
    await client.hears(publish311('a/b', 'x', 0x32, '00 01'))
    await client.says(puback('00 01'), publish311('a/c', 'y')).hears(publish311('a/c', 'y'))
    await client.says(packet(0xa2, '00 02', text('a/+'))).hears(bytes('b0 02 00 02'))
    await client.says(bytes('c0 00')).hears(bytes('d0 00'))
    await client.says(bytes('e0 00')).hearsClose()
  })

  transcript(
    'may set DUP on SUBSCRIBE and UNSUBSCRIBE it sends again, which 3.1.1 forbids',
    async ({ client, another }) => {
      await client.says(connect31('old')).hears(CONNACK_311)
      await client.says(packet(0x8a, '00 01', text('a'), '00')).hears(suback311('00 01', '00'))
      await client.says(packet(0xaa, '00 02', text('a'))).hears(bytes('b0 02 00 02'))
      await client.says(packet(0x80, '00 03', text('a'), '00')).hearsClose()
      const newer = await another()
      await letIn(newer, connect311('new'))
      await newer.says(packet(0x8a, '00 01', text('a'), '00')).hearsClose()
    },
  )

  transcript('may leave out user name and password its flags announce', async ({ client, another, broker }) => {
    await client.says(connect31('neither', 'c2')).hears(CONNACK_311)
    expect(broker.server.client('neither')?.user).toBeNull()
    await (await another()).says(connect31('user', 'c2', text('u'))).hears(CONNACK_311)
    expect(broker.server.client('user')?.user).toBe('u')
    await (await another()).says(connect31('both', 'c2', text('u'), text('p'))).hears(CONNACK_311)
    await (await another()).says(connect31('half', '82', bytes('00'))).hearsClose()
    await (await another()).says(connect311('strict', 'c2')).hearsClose()
  })

  transcript('has a client identifier, which may be longer than its 23 characters', async ({ client, another }) => {
    await client.says(connect31('x'.repeat(100))).hears(CONNACK_311)
    await (await another()).says(connect31('')).hears(bytes('20 02 00 02'))
  })

  transcript('is held to strings, flags and packet ids like 3.1.1', async ({ another }) => {
    const wrong = [
      publish311('a', 'x', 0x36, '00 01'),
      publish311('a', 'x', 0x32, '00 00'),
      publish311('a/#', 'x'),
      publish311('', 'x'),
      packet(0x30, '00 02 c3 28'),
      packet(0x82, '00 01', text('a'), '03'),
      packet(0x82, '00 00', text('a'), '00'),
      packet(0xc1),
      packet(0x20, '00 00'),
      connect31('again'),
    ]
    for (const [n, said] of wrong.entries()) {
      const client = await another()
      await client.says(connect31(`c${n}`)).hears(CONNACK_311)
      await client.says(said).hearsClose()
    }
  })

  transcript('is refused under another name or level', async ({ another }) => {
    for (const [name, level] of [
      ['MQIsdp', '04'],
      ['MQIsdp', '02'],
      ['MQTT', '03'],
    ] as const) {
      const client = await another()
      await client.says(packet(0x10, text(name), level, '02 00 00', text('c'))).hears(bytes('20 02 00 01'))
      await client.hearsClose()
    }
  })
})
