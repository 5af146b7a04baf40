import { describe, expect } from 'vitest'
import { bytes, PINGREQ, PINGRESP, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNECT_5,
  connect5,
  disconnect5,
  hearsRefusal,
  puback,
  publish5,
  suback5,
  subscribe5,
} from './packets.ts'
import { transcript } from './transcript.ts'

/** CONNACK_5 with these properties, below 128 bytes in all. */
const connackWith = (...parts: (string | Buffer)[]): Buffer => {
  const properties = bytes(CONNACK_5.subarray(5), ...parts)
  return packet(0x20, '00 00', Buffer.from([properties.length]), properties)
}
/** A client that takes packets of so many bytes, below 256. */
const taking = (most: number): Buffer => connect5('c1', `05 27 00 00 00 ${Buffer.from([most]).toString('hex')}`)

describe('properties of CONNECT and CONNACK', () => {
  transcript(
    'Response Information for a client that asks for it, and for no other [MQTT-3.1.2-28]',
    async ({ client, another }) => {
      await client.says(connect5('a/+#%', '02 19 01')).hears(connackWith('1a', text('reply/a%2F%2B%23%25')))
      const not = await another()
      await not.says(connect5('c2', '02 19 00')).hears(CONNACK_5)
    },
  )

  transcript(
    'a keep alive that is not above the most stays as it is [MQTT-3.2.2-22]',
    async ({ client, broker }) => {
      await client.says(packet(0x10, text('MQTT'), '05', '02', '00 05', '00', text('c1'))).hears(CONNACK_5)
      expect(broker.server.client('c1')?.keepAliveS).toBe(5)
    },
    { limits: { keepAliveMaxMs: 5000 } },
  )

  transcript(
    'a reason string that would make CONNACK too large stays away [MQTT-3.2.2-19]',
    async ({ client, another }) => {
      const refused = (most: string) => connect5('c1', `0a 27 00 00 00 ${most} 15 00 02 73 61`)
      client.says(refused('ff'))
      const heard = await client.hearsPacket()
      expect(heard.subarray(0, 4)).toEqual(Buffer.from([0x20, heard.length - 2, 0, 0x8c]))
      expect(heard.length).toBeGreaterThan(10)
      const short = await another()
      await short.says(refused('05')).hears(packet(0x20, '00 8c 00'))
      await short.hearsClose()
      const none = await another()
      await none.says(refused('04')).hearsClose()
    },
  )

  transcript(
    'a client too small for CONNACK is refused with 0x95 [MQTT-3.1.2-24]',
    async ({ client, another, broker }) => {
      const { length } = CONNACK_5
      // 13 bytes hold what it has to know.
      await client.says(taking(12)).hears(packet(0x20, '00 95 00'))
      await client.hearsClose()
      expect(broker.server.clientCount).toBe(0)
      const fits = await another()
      await fits.says(taking(length)).hears(CONNACK_5)
      const filters = Array.from({ length: length - 5 }, (_, n) => bytes(text(`${n}`), '00'))
      await fits
        .says(packet(0x82, '00 01 00', ...filters))
        .hears(packet(0x90, '00 01 00', '00 '.repeat(length - 5).trim()))
      await fits.says(packet(0x82, '00 02 00', ...filters, text('x'), '00')).hears(disconnect5('95'))
      await fits.hearsClose()
    },
  )

  transcript(
    'an UNSUBACK larger than the client takes ends the connection with 0x95 [MQTT-3.1.2-24]',
    async ({ client }) => {
      await client.says(taking(30)).hears(CONNACK_5)
      await client
        .says(packet(0xa2, '00 01 00', ...Array.from({ length: 26 }, () => text('a'))))
        .hears(disconnect5('95'))
      await client.hearsClose()
    },
  )

  transcript(
    'without problem information no reason string but in CONNACK [MQTT-3.1.2-29]',
    async ({ client, another }) => {
      const asked = await another()
      await asked.says(CONNECT_5, subscribe5('00 01', 'a#', '00')).hears(CONNACK_5)
      await hearsRefusal(asked, 0x8f)
      await client
        .says(connect5('c1', '02 17 00'), subscribe5('00 01', 'a#', '00'))
        .hears(CONNACK_5, suback5('00 01', '8f'))
      await client.says(publish5('a', 'x', 0x30, '', '02 01 02')).hears(disconnect5('82'))
      const refused = await another()
      refused.says(connect5('c2', '07 17 00 15 00 02 73 61'))
      expect((await refused.hearsPacket()).length).toBeGreaterThan(10)
    },
  )

  transcript('a full receive maximum delays nothing but PUBLISH [MQTT-3.3.4-10]', async ({ client }) => {
    await client
      .says(connect5('c1', '03 21 00 01'), subscribe5('00 01', 'a', '01'))
      .hears(CONNACK_5, suback5('00 01', '01'))
    await client
      .says(publish5('a', '1', 0x32, '00 01'), publish5('a', '2', 0x32, '00 02'))
      .hears(publish5('a', '1', 0x32, '00 01'), puback('00 01'), puback('00 02'))
    await client.says(subscribe5('00 02', 'b', '00'), PINGREQ).hears(suback5('00 02', '00'), PINGRESP)
    await client.says(puback('00 01')).hears(publish5('a', '2', 0x32, '00 01'))
  })
})

describe('properties of PUBLISH', () => {
  const properties: [string, string][] = [
    ['payload format indicator 0 [MQTT-3.3.2-4]', '01 00'],
    ['payload format indicator 1 [MQTT-3.3.2-4]', '01 01'],
    ['response topic [MQTT-3.3.2-15]', '08 00 03 61 2f 62'],
    ['correlation data [MQTT-3.3.2-16]', '09 00 03 00 ff c3'],
    ['user properties [MQTT-3.3.2-17]', '26 00 00 00 00'],
    ['content type [MQTT-3.3.2-20]', '03 00 02 c3 a4'],
    [
      'all of them in the order they came',
      '03 00 00 26 00 01 62 00 01 31 01 01 09 00 00 26 00 01 61 00 00 08 00 01 72',
    ],
  ]
  for (const [what, property] of properties) {
    transcript(`forwarded as it is, at each QoS: ${what}`, async ({ client, another }) => {
      await client
        .says(CONNECT_5, subscribe5('00 01', 'zero', '00'), subscribe5('00 02', 'one', '01'))
        .hears(CONNACK_5, suback5('00 01', '00'), suback5('00 02', '01'))
      const publisher = await another()
      const length = Buffer.from([bytes(property).length]).toString('hex')
      const said = `${length} ${property}`
      // Not UTF-8: the indicator is the publisher's word, which nobody here checks.
      const payload = bytes('c3 28')
      const zero = packet(0x30, text('zero'), said, payload)
      await publisher
        .says(
          connect5('p'),
          zero,
          packet(0x32, text('zero'), '00 01', said, payload),
          packet(0x32, text('one'), '00 02', said, payload),
        )
        .hears(CONNACK_5, puback('00 01'), puback('00 02'))
      await client.hears(zero, zero, packet(0x32, text('one'), '00 01', said, payload))
    })
  }
})
