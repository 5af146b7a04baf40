import { describe, expect } from 'vitest'
import { bytes, packet, text, type WireClient } from '../../support/wire.ts'
import {
  connect5,
  connect311,
  hearsDisconnect,
  hearsRefusedConnack,
  letIn,
  puback,
  publish5,
  publish311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const sized = (content: Buffer) => Buffer.concat([Buffer.from([content.length >> 8, content.length & 0xff]), content])
/** Bytes with their length in front, as one byte. */
const listed = (content: Buffer) => Buffer.concat([Buffer.from([content.length]), content])

const BAD_STRINGS: readonly (readonly [string, Buffer])[] = [
  ['a broken sequence', bytes('61 c3 28')],
  ['a sequence cut short', bytes('61 c3')],
  ['a surrogate', bytes('61 ed a0 80')],
  ['an overlong encoding', bytes('61 c0 af')],
  ['a code point above U+10FFFF', bytes('f4 90 80 80')],
  ['U+0000', bytes('61 00 62')],
  ['U+0000 behind other characters than ASCII', bytes('c3 a9 00')],
]

/** CONNECT packets, by the string in them. */
const IN_CONNECT: readonly (readonly [string, 4 | 5, (bad: Buffer) => Buffer])[] = [
  ['client identifier [MQTT-3.1.3-4]', 4, bad => packet(0x10, text('MQTT'), '04 02 00 00', sized(bad))],
  ['will topic: 3.1.1 [MQTT-3.1.3-10]', 4, bad => connect311('c', '06', sized(bad), text('gone'))],
  ['user name: 3.1.1 [MQTT-3.1.3-11]', 4, bad => connect311('c', '82', sized(bad))],
  ['client identifier [MQTT-3.1.3-4]', 5, bad => packet(0x10, text('MQTT'), '05 02 00 00 00', sized(bad))],
  ['will topic [MQTT-3.1.3-11]', 5, bad => connect5('c', '00', '06', bytes('00'), sized(bad), text('gone'))],
  ['user name [MQTT-3.1.3-12]', 5, bad => connect5('c', '00', '82', sized(bad))],
  ['authentication method', 5, bad => connect5With(Buffer.concat([bytes('15'), sized(bad)]))],
  ['name of a user property [MQTT-1.5.7-1]', 5, bad => connect5With(pair(sized(bad), text('v')))],
  ['value of a user property [MQTT-1.5.7-1]', 5, bad => connect5With(pair(text('n'), sized(bad)))],
  ['content type of the will [MQTT-3.3.2-19]', 5, bad => willWith(Buffer.concat([bytes('03'), sized(bad)]))],
  ['response topic of the will [MQTT-3.3.2-13]', 5, bad => willWith(Buffer.concat([bytes('08'), sized(bad)]))],
  ['user property of the will [MQTT-1.5.7-1]', 5, bad => willWith(pair(sized(bad), text('v')))],
]

const pair = (name: Buffer, value: Buffer) => Buffer.concat([bytes('26'), name, value])
const connect5With = (properties: Buffer) => packet(0x10, text('MQTT'), '05 02 00 00', listed(properties), text('c'))
const willWith = (properties: Buffer) =>
  packet(0x10, text('MQTT'), '05 06 00 00 00', text('c'), listed(properties), text('w'), text('gone'))

/** Other packets, by the string in them. */
const AFTERWARDS: readonly (readonly [string, 4 | 5, (bad: Buffer) => Buffer])[] = [
  ['topic [MQTT-3.3.2-1]', 4, bad => packet(0x30, sized(bad), 'x')],
  ['filter of SUBSCRIBE [MQTT-3.8.3-1]', 4, bad => packet(0x82, '00 01', sized(bad), '00')],
  ['filter of UNSUBSCRIBE [MQTT-3.10.3-1]', 4, bad => packet(0xa2, '00 01', sized(bad))],
  ['topic [MQTT-3.3.2-1]', 5, bad => packet(0x30, sized(bad), '00', 'x')],
  ['filter of SUBSCRIBE [MQTT-3.8.3-1]', 5, bad => packet(0x82, '00 01 00', sized(bad), '00')],
  ['filter of UNSUBSCRIBE [MQTT-3.10.3-1]', 5, bad => packet(0xa2, '00 01 00', sized(bad))],
  ['response topic [MQTT-3.3.2-13]', 5, bad => publishWith(Buffer.concat([bytes('08'), sized(bad)]))],
  ['content type [MQTT-3.3.2-19]', 5, bad => publishWith(Buffer.concat([bytes('03'), sized(bad)]))],
  ['name of a user property [MQTT-1.5.7-1]', 5, bad => publishWith(pair(sized(bad), text('v')))],
  ['value of a user property [MQTT-1.5.7-1]', 5, bad => publishWith(pair(text('n'), sized(bad)))],
  ['reason string of PUBACK', 5, bad => packet(0x40, '00 01 00', listed(Buffer.concat([bytes('1f'), sized(bad)])))],
  ['reason string of DISCONNECT', 5, bad => packet(0xe0, '00', listed(Buffer.concat([bytes('1f'), sized(bad)])))],
  ['user property of SUBSCRIBE', 5, bad => packet(0x82, '00 01', listed(pair(sized(bad), text('v'))), text('a'), '00')],
  ['user property of UNSUBSCRIBE', 5, bad => packet(0xa2, '00 01', listed(pair(text('n'), sized(bad))), text('a'))],
]

const publishWith = (properties: Buffer) => packet(0x30, text('a'), listed(properties), 'x')

const versionName = (version: 4 | 5) => (version === 5 ? '5.0' : '3.1.1')

async function opened(client: WireClient, version: 4 | 5): Promise<WireClient> {
  await letIn(client, version === 5 ? connect5('') : connect311(''))
  return client
}

describe('strings [MQTT-1.5.4-1], [MQTT-1.5.4-2], [MQTT-4.7.3-2]', () => {
  for (const [where, version, said] of IN_CONNECT) {
    transcript(`what is no string as ${where} ends the connection, ${versionName(version)}`, async ({ another }) => {
      for (const [what, bad] of BAD_STRINGS) {
        const client = (await another()).says(said(bad))
        if (version === 5) await hearsRefusedConnack(client, 0x81, what)
        else await client.hearsClose()
      }
    })
  }

  for (const [where, version, said] of AFTERWARDS) {
    transcript(`what is no string as ${where} ends the connection, ${versionName(version)}`, async ({ another }) => {
      for (const [what, bad] of BAD_STRINGS) {
        const client = (await opened(await another(), version)).says(said(bad))
        if (version === 5) await hearsDisconnect(client, 0x81, what)
        else await client.hearsClose()
      }
    })
  }

  transcript('correlation data are bytes, not a string', async ({ client }) => {
    await opened(client, 5)
    await client.says(subscribe5('00 01', 'a', '00')).hears(suback5('00 01', '00'))
    for (const [, bad] of BAD_STRINGS) {
      const said = publishWith(Buffer.concat([bytes('09'), sized(bad)]))
      await client.says(said).hears(said)
    }
  })

  transcript('a password and a payload are bytes, not strings', async ({ client }) => {
    await letIn(client, connect311('c', 'c2', text('u'), sized(bytes('00 ff c3'))))
    await client.says(subscribe311('00 01', 'a', '00')).hears(suback311('00 01', '00'))
    const said = packet(0x30, text('a'), '00 ff c3 28')
    await client.says(said).hears(said)
  })

  transcript('U+FEFF stays where it stands, in topic, filter and property [MQTT-1.5.4-3]', async ({ client }) => {
    const topic = '\ufeffa/\ufeff'
    await opened(client, 5)
    await client.says(subscribe5('00 01', topic, '00')).hears(suback5('00 01', '00'))
    client.says(publish5('a/', 'no'), publish5('a/\ufeff', 'no'))
    const said = packet(0x30, text(topic), listed(Buffer.concat([bytes('03'), text('\ufefft')])), 'x')
    await client.says(said).hears(said)
  })

  transcript('topics are compared as they are, without normalization [MQTT-4.7.3-4]', async ({ client }) => {
    const composed = 'caf\u00e9'
    const decomposed = 'cafe\u0301'
    await opened(client, 4)
    await client.says(subscribe311('00 01', composed, '00')).hears(suback311('00 01', '00'))
    await client.says(subscribe311('00 02', 'A//b ', '00')).hears(suback311('00 02', '00'))
    client.says(publish311(decomposed, 'no'), publish311(composed, 'yes'))
    client.says(...['a//b ', 'A/b ', 'A//b', 'A//b/', '/A//b '].map(topic => publish311(topic, 'no')))
    client.says(publish311('A//b ', 'yes'))
    await client.hears(publish311(composed, 'yes'), publish311('A//b ', 'yes'))
  })

  transcript(
    'topic and filter have up to 65,535 bytes where limits.topic permits [MQTT-4.7.3-3]',
    async ({ client }) => {
      const longest = 'x'.repeat(65_535)
      await opened(client, 4)
      await client.says(subscribe311('00 01', longest, '00')).hears(suback311('00 01', '00'))
      await client.says(publish311(longest, 'x')).hears(publish311(longest, 'x'))
    },
    { limits: { topicBytes: 65_535 } },
  )

  transcript(
    'characters that should not be used are let through: control characters, non-characters',
    async ({ client }) => {
      const topic = 'a\u0001\u007f\u009f\ufffe\ufdd0'
      await opened(client, 5)
      await client.says(subscribe5('00 01', topic, '01')).hears(suback5('00 01', '01'))
      client.says(publish5(topic, 'x', 0x32, '00 07'))
      await client.hears(publish5(topic, 'x', 0x32, '00 01'), puback('00 07'))
      expect(client.isClosed).toBe(false)
    },
  )
})
