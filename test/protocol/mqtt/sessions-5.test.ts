import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { bytes, type MqttUnderTest, packet } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNECT_5,
  connect5,
  connect311,
  DISCONNECT,
  puback,
  publish5,
  publish311,
  RESUMED_5,
  RESUMED_311,
  suback5,
  subscribe5,
} from './packets.ts'
import { transcript } from './transcript.ts'

/** CONNECT of 5.0 with a session expiry in seconds (four bytes in hexadecimal); flags 00: no clean start. */
const expiring = (seconds: string, flags = '00') => connect5('c1', `05 11 ${seconds}`, flags)
const MINUTE = '00 00 00 3c'
const send = (broker: MqttUnderTest, topic: string, payload: string) =>
  broker.core.router.publish(messageTo(topic, payload))
const gone = (broker: MqttUnderTest) => eventually(() => broker.server.clientCount === 0)

describe('a 5.0 session', () => {
  transcript(
    'outlives its connection by its session expiry interval [MQTT-3.1.2-23], [MQTT-3.1.2-5], [MQTT-3.2.2-3]',
    async ({ client, another, broker }) => {
      await client.says(expiring(MINUTE), subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
      await send(broker, 'a', '1')
      await client.hears(publish5('a', '1', 0x32, '00 01'))
      client.close()
      await gone(broker)
      await send(broker, 'a', '2')
      const again = await another()
      await again.says(expiring(MINUTE)).hears(RESUMED_5)
      await again.hears(publish5('a', '1', 0x3a, '00 01'), publish5('a', '2', 0x32, '00 02')) // [MQTT-4.4.0-1], [MQTT-3.3.1-1]
    },
  )

  transcript('without an interval ends with its connection [MQTT-3.1.2-6]', async ({ client, another, broker }) => {
    const unclean = connect5('c1', '00', '00')
    await client.says(unclean, subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    expect((await send(broker, 'a', '1')).isRouted).toBe(false)
    const again = await another()
    await again.says(unclean).hears(CONNACK_5)
  })

  transcript(
    'begun with clean start is kept all the same, and a clean start ends it [MQTT-3.1.2-4], [MQTT-3.1.4-4], [MQTT-3.2.2-2]',
    async ({ client, another, broker }) => {
      await client.says(expiring(MINUTE, '02'), subscribe5('00 01', 'a', '01'))
      await client.hears(CONNACK_5, suback5('00 01', '01'))
      await client.says(DISCONNECT).hearsClose()
      const again = await another()
      await again.says(expiring(MINUTE)).hears(RESUMED_5)
      const anew = await another()
      await anew.says(expiring(MINUTE, '02')).hears(CONNACK_5)
      await again.hears(packet(0xe0, '8e', '00')) // [MQTT-3.1.4-3]
      expect((await send(broker, 'a', '1')).isRouted).toBe(false)
    },
  )

  transcript('ends when its interval has passed [MQTT-4.1.0-2]', async ({ client, another, broker }) => {
    await client.says(expiring('00 00 00 01'), subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    expect((await send(broker, 'a', '1')).isRouted).toBe(true)
    await eventually(() => broker.server.sessionCount === 0)
    expect((await send(broker, 'a', '2')).isRouted).toBe(false)
    const again = await another()
    await again.says(expiring('00 00 00 01')).hears(CONNACK_5)
  })

  transcript('does not end while its connection lasts [MQTT-4.1.0-1]', async ({ client, another, broker }) => {
    await client.says(expiring('00 00 00 02'), subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    const again = await another()
    await again.says(expiring('00 00 00 02')).hears(RESUMED_5)
    // Another one's time begins later.
    const other = await another()
    await other.says(connect5('c2', '05 11 00 00 00 02')).hears(CONNACK_5)
    await other.says(DISCONNECT).hearsClose()
    await eventually(() => broker.server.sessionCount === 1)
    await send(broker, 'a', '1')
    await again.hears(publish5('a', '1', 0x32, '00 01'))
  })

  transcript('DISCONNECT may shorten the interval, to nothing too', async ({ client, broker }) => {
    await client.says(expiring(MINUTE), subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(packet(0xe0, '00', '05 11 00 00 00 00')).hearsClose()
    expect(broker.server.sessionCount).toBe(0)
    expect((await send(broker, 'a', '1')).isRouted).toBe(false)
  })

  transcript('DISCONNECT may not give an interval where there was none', async ({ client, broker }) => {
    await client.says(CONNECT_5).hears(CONNACK_5)
    await client.says(packet(0xe0, '00', '05', '11', MINUTE)).hears(packet(0xe0, '82', '00'))
    await client.hearsClose()
    expect(broker.server.sessionCount).toBe(0)
  })

  transcript('takes the interval of its latest CONNECT', async ({ client, another, broker }) => {
    await client.says(expiring(MINUTE)).hears(CONNACK_5)
    await client.says(DISCONNECT).hearsClose()
    const again = await another()
    await again.says(connect5('c1', '00', '00')).hears(RESUMED_5)
    await again.says(DISCONNECT).hearsClose()
    expect(broker.server.sessionCount).toBe(0)
  })

  transcript(
    'asks for more than limits.session_expiry_max and is told what it gets',
    async ({ client, another }) => {
      for (const [seconds, from] of [
        ['ff ff ff ff', client],
        ['00 00 00 3d', await another()],
      ] as const) {
        const connack = await from.says(expiring(seconds, '02')).hearsPacket()
        expect(connack.includes(bytes('11', MINUTE))).toBe(true)
      }
    },
    { limits: { sessionExpiryMaxMs: 60_000 } },
  )

  transcript('is resumed by a client that speaks 3.1.1 now', async ({ client, another, broker }) => {
    await client.says(expiring(MINUTE), subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(DISCONNECT).hearsClose()
    await send(broker, 'a', '1')
    const old = await another()
    await old.says(connect311('c1', '00')).hears(RESUMED_311, publish311('a', '1', 0x32, '00 01'))
  })

  transcript(
    'is sent again no more at once than the receive maximum of the new connection (5.0 section 4.9)',
    async ({ client, another, broker }) => {
      await client.says(expiring(MINUTE), subscribe5('00 01', 'a', '01')).hears(CONNACK_5, suback5('00 01', '01'))
      for (const payload of ['1', '2', '3']) await send(broker, 'a', payload)
      await client.hears(
        publish5('a', '1', 0x32, '00 01'),
        publish5('a', '2', 0x32, '00 02'),
        publish5('a', '3', 0x32, '00 03'),
      )
      client.close()
      await gone(broker)
      await send(broker, 'a', '4')
      const again = await another()
      await again.says(connect5('c1', `08 11 ${MINUTE} 21 00 02`, '00')).hears(RESUMED_5)
      await again.hears(publish5('a', '1', 0x3a, '00 01'), publish5('a', '2', 0x3a, '00 02'))
      await again.hearsNothing()
      await again.says(puback('00 02')).hears(publish5('a', '3', 0x3a, '00 03'))
      await again.says(puback('00 01'), puback('00 03')).hears(publish5('a', '4', 0x32, '00 04'))
    },
  )

  transcript(
    'one more than limits.sessions is refused with 0x97',
    async ({ client, another }) => {
      await client.says(expiring(MINUTE)).hears(CONNACK_5)
      const further = await another()
      const connack = await further.says(connect5('c2', `05 11 ${MINUTE}`)).hearsPacket()
      expect(connack[3]).toBe(0x97)
    },
    { limits: { sessions: 1 } },
  )
})
