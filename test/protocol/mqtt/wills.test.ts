import { describe, expect, test } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { MqttUnderTest, packet, text, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_311,
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

/** CONNECT of 5.0 with the will `bye` to the topic `w`, at the QoS and with the retain flag that `flags` say. */
function withWill(
  clientId: string,
  { flags = '06', expiry = '00 00 00 00', delay = '00 00 00 00', properties = '' } = {},
) {
  const willProperties = packet(0, '18', delay, properties).subarray(1)
  return connect5(clientId, `05 11 ${expiry}`, flags, willProperties, text('w'), text('bye'))
}

/** A client of 5.0 that has subscribed to `w` with QoS 2 and Retain As Published. */
async function witness(client: WireClient): Promise<WireClient> {
  await client.says(connect5('witness')).hearsPacket()
  return client.says(subscribe5('00 01', 'w', '0a')).hears(suback5('00 01', '02'))
}

const WILL = publish5('w', 'bye')
const HOUR = '00 00 0e 10'

describe('a will', () => {
  transcript(
    'is published when the connection is lost [MQTT-3.1.2-8], 3.1.1 [MQTT-3.1.2-8]',
    async ({ client, another }) => {
      await witness(client)
      const lost = await another()
      await lost.says(connect311('c1', '06', text('w'), text('bye'))).hears(CONNACK_311)
      lost.close()
      await client.hears(WILL)
    },
  )

  transcript(
    'is discarded by a normal DISCONNECT [MQTT-3.14.4-3], 3.1.1 [MQTT-3.14.4-3]',
    async ({ client, another }) => {
      await witness(client)
      for (const connect of [connect311('c1', '06', text('w'), text('bye')), withWill('c2', { expiry: HOUR })]) {
        const leaving = await another()
        await leaving.says(connect).hearsPacket()
        await leaving.says(DISCONNECT).hearsClose()
      }
      await client.hearsNothing()
    },
  )

  transcript('is published by DISCONNECT with will message 0x04', async ({ client, another }) => {
    await witness(client)
    const leaving = await another()
    await leaving.says(withWill('c1')).hearsPacket()
    await leaving.says(disconnect5('04')).hearsClose()
    await client.hears(WILL)
  })

  transcript('is published after a protocol error', async ({ client, another }) => {
    await witness(client)
    const wrong = await another()
    await wrong.says(withWill('c1')).hearsPacket()
    wrong.says(packet(0x10, '00'))
    await client.hears(WILL)
  })

  for (const [qos, flags, first, id] of [
    [1, '0e', 0x32, '00 01'],
    [2, '16', 0x34, '00 01'],
  ] as const) {
    transcript(`goes out at its QoS, here ${qos} [MQTT-3.1.2-9]`, async ({ client, another }) => {
      await witness(client)
      const lost = await another()
      await lost.says(withWill('c1', { flags })).hearsPacket()
      lost.close()
      await client.hears(publish5('w', 'bye', first, id))
    })
  }

  transcript(
    'is retained if it asks to be [MQTT-3.1.2-15], with its properties in their order [MQTT-3.1.3-10]',
    async ({ client, another, broker }) => {
      const properties = '26 00 01 62 00 01 31 26 00 01 61 00 01 32'
      const lost = await another()
      await lost.says(withWill('c1', { flags: '26', properties })).hearsPacket()
      lost.close()
      await eventually(() => broker.core.retained.messages === 1)
      await client.says(connect5('late')).hearsPacket()
      await client.says(subscribe5('00 01', 'w', '00')).hears(suback5('00 01', '00'))
      await client.hears(publish5('w', 'bye', 0x31, '', `0e ${properties}`))
    },
  )

  transcript('is published once [MQTT-3.1.2-10]', async ({ client, another, broker }) => {
    await witness(client)
    const lost = await another()
    await lost.says(withWill('c1', { expiry: HOUR })).hearsPacket()
    lost.close()
    await client.hears(WILL)
    const back = await another()
    await back.says(connect5('c1', `05 11 ${HOUR}`, '00')).hearsPacket()
    back.close()
    await eventually(() => broker.server.clientCount === 1)
    await client.hearsNothing()
  })
})

describe('the will delay', () => {
  transcript(
    'ends with the session if that is sooner [MQTT-3.1.3-9]: a session without expiry',
    async ({ client, another }) => {
      await witness(client)
      const lost = await another()
      await lost.says(withWill('c1', { delay: HOUR })).hearsPacket()
      lost.close()
      await client.hears(WILL)
    },
  )

  transcript('ends with the session: its expiry, and a clean start', async ({ client, another, broker }) => {
    await witness(client)
    const expiring = await another()
    await expiring.says(withWill('c1', { delay: HOUR, expiry: '00 00 00 01' })).hearsPacket()
    expiring.close()
    await client.hears(WILL)
    const other = await another()
    await other.says(withWill('c2', { delay: HOUR, expiry: HOUR })).hearsPacket()
    other.close()
    await eventually(() => broker.server.clientCount === 1)
    await client.hearsNothing()
    const clean = await another()
    await clean.says(connect5('c2')).hearsPacket()
    await client.hears(WILL)
  })

  transcript('passes while the session waits', async ({ client, another, broker }) => {
    await witness(client)
    const lost = await another()
    await lost.says(withWill('c1', { delay: '00 00 00 01', expiry: HOUR })).hearsPacket()
    lost.close()
    await eventually(() => broker.server.clientCount === 1)
    await client.hears(WILL)
    expect(broker.server.sessionCount).toBe(2)
  })

  transcript(
    'is cut short by a client that comes back: nothing is published [MQTT-3.1.3-9]',
    async ({ client, another, broker }) => {
      await witness(client)
      const connect = withWill('c1', { delay: '00 00 00 02', expiry: HOUR, flags: '04' })
      const lost = await another()
      await lost.says(connect).hearsPacket()
      lost.close()
      await eventually(() => broker.server.clientCount === 1)
      const back = await another()
      expect((await back.says(connect).hearsPacket())[2]).toBe(1)
      // Another one's delay begins later, and only its will comes.
      const other = await another()
      await other
        .says(connect5('c2', '05 11 00 00 0e 10', '06', packet(0, '18 00 00 00 02').subarray(1), text('w'), text('2')))
        .hearsPacket()
      other.close()
      await client.hears(publish5('w', '2'))
      await client.hearsNothing()
    },
  )

  transcript(
    'holds when the connection is taken over: without one the will is published, with one it is not',
    async ({ client, another }) => {
      await witness(client)
      for (const [clientId, delay] of [
        ['c1', '00 00 00 00'],
        ['c2', HOUR],
      ] as const) {
        const taken = await another()
        await taken.says(withWill(clientId, { delay, expiry: HOUR })).hearsPacket()
        const taker = await another()
        await taker.says(connect5(clientId, `05 11 ${HOUR}`, '00')).hearsPacket()
        await taken.hears(packet(0xe0, '8e', '00'))
      }
      await client.hears(WILL)
      await client.hearsNothing()
    },
  )
})

describe('a will of a session that outlives its connection', () => {
  /** Subscribes to `w` beyond the restart. */
  async function keptWitness(broker: MqttUnderTest): Promise<void> {
    const client = await broker.client()
    await client.says(connect311('witness', '00')).hears(CONNACK_311)
    await client.says(subscribe311('00 01', 'w', '02')).hears(suback311('00 01', '02'))
    await client.says(DISCONNECT).hearsClose()
  }

  async function hearsWill(broker: MqttUnderTest): Promise<WireClient> {
    const client = await broker.client()
    await client.says(connect311('witness', '00')).hearsPacket()
    return client.hears(publish311('w', 'bye', 0x32, '00 01'))
  }

  const delayed = withWill('c1', { flags: '0c', expiry: HOUR, delay: '00 00 00 01' })

  test('is published after a power cut: the connection counts as closed at the start [MQTT-3.1.2-7]', async () => {
    await using first = await MqttUnderTest.start()
    await keptWitness(first)
    const client = await first.client()
    await client.says(delayed).hearsPacket()
    await using again = await MqttUnderTest.start({ directory: await first.powerCut() })
    await hearsWill(again)
    // And once.
    await using third = await MqttUnderTest.start({ directory: await again.powerCut() })
    const witnessed = await third.client()
    await witnessed.says(connect311('witness', '00')).hearsPacket()
    expect((await witnessed.hearsPacket()).subarray(2)).toEqual(publish311('w', 'bye', 0x32, '00 01').subarray(2))
    await witnessed.hearsNothing()
  })

  test('goes on waiting over a restart in order', async () => {
    const first = await MqttUnderTest.start()
    await keptWitness(first)
    const client = await first.client()
    await client.says(delayed).hearsPacket()
    client.close()
    await eventually(() => first.server.clientCount === 0)
    await using again = await MqttUnderTest.start({ directory: await first.stop() })
    await hearsWill(again)
  })

  test('is gone for good after a normal DISCONNECT, and after the client has come back', async () => {
    const first = await MqttUnderTest.start()
    await keptWitness(first)
    const leaving = await first.client()
    await leaving.says(delayed).hearsPacket()
    await leaving.says(DISCONNECT).hearsClose()
    const back = await first.client()
    const long = withWill('c2', { flags: '0c', expiry: HOUR, delay: HOUR })
    await back.says(long).hearsPacket()
    back.close()
    await eventually(() => first.server.clientCount === 0)
    const again = await first.client()
    await again.says(connect5('c2', `05 11 ${HOUR}`, '00')).hearsPacket()
    await again.says(DISCONNECT).hearsClose()
    await using second = await MqttUnderTest.start({ directory: await first.stop() })
    // A clean start ends these sessions, with whatever will they had.
    for (const clientId of ['c1', 'c2']) {
      const clean = await second.client()
      await clean.says(connect311(clientId)).hears(CONNACK_311)
    }
    const witnessed = await second.client()
    await witnessed.says(connect311('witness', '00')).hearsPacket()
    await witnessed.hearsNothing()
  })
})
