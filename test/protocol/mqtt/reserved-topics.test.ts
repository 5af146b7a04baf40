import { describe, expect } from 'vitest'
import { messageTo } from '../../support/messages.ts'
import { bytes, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_311,
  connect5,
  connect311,
  disconnect5,
  publish5,
  publish311,
  suback5,
  subscribe5,
} from './packets.ts'
import { transcript } from './transcript.ts'

const TOPIC = '$SYS/broker/uptime'
/** Without reason strings. */
const CONNECT = connect5('c1', '02 17 00')

describe('below $SYS/ only the gateway speaks', () => {
  transcript('a 5.0 client is told with 0x87, and nobody hears the message', async ({ client, broker }) => {
    await client
      .says(CONNECT, subscribe5('00 01', '$SYS/#', '01'), publish5(TOPIC, 'x', 0x33, '00 01'))
      .hears(CONNACK_5, suback5('00 01', '01'), bytes('40 03 00 01 87'))
    await client.hearsNothing()
    expect(broker.core.retained.messages).toBe(0)
  })

  transcript('at QoS 0 its connection is closed with 0x87', async ({ client }) => {
    await client.says(CONNECT, publish5('a', 'x'), publish5(TOPIC, 'x')).hears(CONNACK_5)
    await client.hears(disconnect5('87')).then(heard => heard.hearsClose())
  })

  transcript('the connection of a 3.1.1 client is closed: 3.1.1 [MQTT-3.3.5-2]', async ({ client, another }) => {
    await client.says(CONNECT_311, publish311(TOPIC, 'x', 0x32, '00 01')).hears(CONNACK_311)
    await client.hearsClose()
    const other = await another()
    await other.says(connect311('c2'), publish311(TOPIC, 'x')).hears(CONNACK_311)
    await other.hearsClose()
  })

  transcript('a will that is to go there is refused with the connection', async ({ client, another }) => {
    client.says(connect5('c1', '00', '06', bytes('00'), text(TOPIC), text('x')))
    expect((await client.hearsPacket()).subarray(2, 4)).toEqual(bytes('00 87'))
    await client.hearsClose()
    const other = await another()
    await other.says(connect311('c2', '06', text(TOPIC), text('x'))).hears(packet(0x20, '00 05'))
    await other.hearsClose()
  })

  transcript('nor does a message come there from another exchange or over HTTP', async ({ client, broker }) => {
    const { declarations, router } = broker.core
    await declarations.bind(
      { source: 'amq.fanout', destination: { kind: 'exchange', name: 'mqtt' }, key: '', headers: null },
      'api',
    )
    await client.says(CONNECT, subscribe5('00 01', '$SYS/#', '00')).hears(CONNACK_5, suback5('00 01', '00'))
    expect(await router.publish(messageTo('$SYS.broker.uptime', 'x', { exchange: 'amq.fanout' }))).toEqual({
      isRouted: false,
    })
    await expect(router.publish(messageTo(TOPIC, 'x'))).rejects.toMatchObject({ code: 'NOT_AUTHORIZED' })
    await client.hearsNothing()
  })
})
