import { describe, expect } from 'vitest'
import type { Stream } from '../../../src/core/stream.ts'
import { PropertiesTag } from '../../../src/model/message.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { mqtt5PropertyBytes } from '../../support/mqtt5-publish.ts'
import { type MqttUnderTest, packet, text, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  CONNECT_311,
  connect5,
  connect311,
  hearsRefusal,
  KEPT_311,
  puback,
  publish5,
  publish311,
  RESUMED_311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const id = (n: number): string => `00 ${n.toString(16).padStart(2, '0')}`
/** Appends messages `0`, `1`, … to the stream `h`, which is bound to h/#. */
async function fill(broker: MqttUnderTest, count: number, from = 0): Promise<Stream> {
  const stream = broker.core.streams.find('h') ?? (await broker.core.stream('h', 'h/#'))
  for (let n = from; n < from + count; n++) await broker.core.router.publish(messageTo('h/a', `${n}`))
  return stream
}

/** Says SUBSCRIBE and hears the messages `first` to `last` behind SUBACK. */
async function reads(client: WireClient, from: string, first: number, last: number): Promise<void> {
  await client.says(subscribe311('00 01', `$stream/h/${from}`, '01')).hears(suback311('00 01', '01'))
  for (let n = first; n <= last; n++) await client.hears(publish311('h/a', `${n}`, 0x32, id(n - first + 1)))
  await client.hearsNothing()
}

describe('$stream/NAME/FROM', () => {
  for (const [from, first] of [
    ['first', 0],
    ['last', 4],
    ['next', 5],
    ['2', 2],
    ['99', 5],
    ['2000-01-01T00:00:00Z', 0],
  ] as const) {
    transcript(`from ${from}`, async ({ client, broker }) => {
      await fill(broker, 5)
      await client.says(CONNECT_311).hears(CONNACK_311)
      await reads(client, from, first, 4)
      await fill(broker, 1, 5)
      await client.hears(publish311('h/a', '5', 0x32, id(6 - first)))
    })
  }

  transcript('from a time that has not come: nothing of what is there', async ({ client, broker }) => {
    await fill(broker, 5)
    await client.says(CONNECT_311).hears(CONNACK_311)
    await reads(client, '2999-12-31T23:59:59.999Z', 5, 4)
  })

  for (const filter of [
    '$stream',
    '$stream/',
    '$stream/h',
    '$stream/h/',
    '$stream/h/-1',
    '$stream/h/1.5',
    '$stream/h/now',
    '$stream/h/2026-11-26T08:00:00',
    '$stream/h/2026-06-31T08:00:00Z',
    '$stream/+/first',
    '$stream/#',
    '$stream//first',
    '$stream/none/first',
    '$stream/jobs/first',
    '$queue/h',
  ]) {
    transcript(`${filter} is refused`, async ({ client, another, broker }) => {
      await fill(broker, 1)
      await broker.core.queue('jobs', 'jobs')
      await client.says(CONNECT_311, subscribe311('00 01', filter, '01')).hears(CONNACK_311, suback311('00 01', '80'))
      const modern = await another()
      await modern.says(connect5('c2'), subscribe5('00 01', filter, '01')).hears(CONNACK_5)
      await hearsRefusal(modern, 0x8f)
      expect(broker.server.client('c2')?.filters).toEqual([])
    })
  }

  transcript('each reader gets everything; a stream keeps it', async ({ client, another, broker }) => {
    const stream = await fill(broker, 3)
    await client.says(CONNECT_311).hears(CONNACK_311)
    const other = await another()
    await other.says(connect311('c2')).hears(CONNACK_311)
    await reads(client, 'first', 0, 2)
    await client.says(puback('00 01'), puback('00 02'), puback('00 03'))
    await reads(other, 'first', 0, 2)
    expect(stream.ledger.queued).toBe(3)
    expect(broker.server.client('c2')?.filters).toMatchObject([{ filter: '$stream/h/first', qos: 1 }])
  })

  transcript('no more than the receive maximum at once', async ({ client, broker }) => {
    await fill(broker, 5)
    await client.says(connect5('c1', '03 21 00 02'), subscribe5('00 01', '$stream/h/first', '01'))
    await client.hears(CONNACK_5, suback5('00 01', '01'))
    await client.hears(publish5('h/a', '0', 0x32, '00 01'), publish5('h/a', '1', 0x32, '00 02'))
    await client.hearsNothing()
    await client.says(puback('00 01')).hears(publish5('h/a', '2', 0x32, '00 01'))
  })

  transcript('a stream and a session share the window', async ({ client, broker }) => {
    await fill(broker, 200)
    await client.says(connect5('c1', '03 21 00 02'), subscribe5('00 01', 'own', '01'))
    await client.hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(subscribe5('00 02', '$stream/h/first', '01')).hears(suback5('00 02', '01'))
    await client.hears(publish5('h/a', '0', 0x32, '00 01'), publish5('h/a', '1', 0x32, '00 02'))
    for (const payload of ['x', 'y']) await broker.core.router.publish(messageTo('own', payload))
    const heard: string[] = []
    for (let round = 0; round < 2; round++) {
      client.says(puback('00 01'), puback('00 02'))
      for (let n = 0; n < 2; n++) heard.push((await client.hearsPacket()).toString('utf8', 4, 7))
    }
    expect(heard.sort()).toEqual(['h/a', 'h/a', 'own', 'own'])
  })

  transcript('expired messages and those too large for the client are passed over', async ({ client, broker }) => {
    await fill(broker, 0)
    await broker.core.router.publish(
      messageTo('h/a', 'late', {
        expiryMs: 1,
        propertiesTag: PropertiesTag.mqtt5,
        properties: mqtt5PropertyBytes({ messageExpiryInterval: 1 }),
      }),
    )
    await broker.core.router.publish(messageTo('h/a', 'x'.repeat(100)))
    await broker.core.router.publish(messageTo('h/a', 'y'))
    const since = performance.now()
    await eventually(() => performance.now() > since + 2)
    await client.says(connect5('c1', '05 27 00 00 00 20'), subscribe5('00 01', '$stream/h/first', '01'))
    await client.hears(CONNACK_5, suback5('00 01', '01'), publish5('h/a', 'y', 0x32, '00 01'))
  })
})

describe('the cursor', () => {
  transcript(
    'belongs to the session: a later connection goes on reading, and subscribing again ignores FROM',
    async ({ client, another, broker }) => {
      await fill(broker, 4)
      await client.says(KEPT_311).hears(CONNACK_311)
      await reads(client, 'first', 0, 3)
      // The third is not settled, so it comes again, and what was settled behind it too.
      await client.says(puback('00 01'), puback('00 02'), puback('00 04')).hearsNothing()
      client.close()
      await eventually(() => broker.server.clientCount === 0)
      const again = await another()
      await again.says(KEPT_311).hears(RESUMED_311)
      await again.hears(publish311('h/a', '2', 0x32, id(5)), publish311('h/a', '3', 0x32, id(6)))
      await again.says(subscribe311('00 01', '$stream/h/first', '01')).hears(suback311('00 01', '01'))
      await again.hearsNothing()
    },
  )

  transcript('of 5.0 is kept if a session expiry was asked for', async ({ client, another, broker }) => {
    await fill(broker, 2)
    const kept = connect5('c1', '05 11 00 00 00 3c', '00')
    const subscribe = subscribe5('00 01', '$stream/h/first', '00')
    await client.says(kept).hearsPacket()
    await client.says(subscribe).hears(suback5('00 01', '00'), publish5('h/a', '0'), publish5('h/a', '1'))
    client.close()
    await eventually(() => broker.server.clientCount === 0)
    await fill(broker, 1, 2)
    const again = await another()
    await again.says(kept).hearsPacket()
    await again.hears(publish5('h/a', '2'))
    await again.says(subscribe).hears(suback5('00 01', '00'))
    await again.hearsNothing()
  })

  transcript('ends with a clean session', async ({ client, another, broker }) => {
    await fill(broker, 1)
    await client.says(KEPT_311).hears(CONNACK_311)
    await reads(client, 'first', 0, 0)
    await client.says(puback('00 01')).hearsNothing()
    for (let n = 0; n < 2; n++) {
      const clean = await another()
      await clean.says(CONNECT_311).hears(CONNACK_311)
      await reads(clean, 'first', 0, 0)
      await clean.says(puback('00 01')).hearsNothing()
    }
  })

  transcript('ends with UNSUBSCRIBE and its last answer', async ({ client, broker }) => {
    const stream = await fill(broker, 2)
    await client.says(KEPT_311).hears(CONNACK_311)
    await reads(client, 'first', 0, 1)
    await client.says(packet(0xa2, '00 02', text('$stream/h/first'))).hears(packet(0xb0, '00 02'))
    expect(stream.readerCount).toBe(1)
    await client.says(puback('00 01'), puback('00 02')).hearsNothing()
    expect(stream.readerCount).toBe(0)
    await client.says(subscribe311('00 03', '$stream/h/last', '01')).hears(suback311('00 03', '01'))
    await client.hears(publish311('h/a', '1', 0x32, '00 03'))
  })

  transcript('of a refused message moves: a stream takes nothing back', async ({ client, broker }) => {
    await fill(broker, 1)
    await client.says(CONNECT_5, subscribe5('00 01', '$stream/h/first', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.hears(publish5('h/a', '0', 0x32, '00 01'))
    await client.says(packet(0x40, '00 01', '83')).hearsNothing()
    expect(broker.server.client('c1')?.inFlight).toBe(0)
  })

  transcript('is one: a second place in the same stream is refused', async ({ client, broker }) => {
    await fill(broker, 1)
    await client.says(CONNECT_5, subscribe5('00 01', '$stream/h/next', '01')).hears(CONNACK_5, suback5('00 01', '01'))
    await client.says(subscribe5('00 02', '$stream/h/first', '01'))
    expect(await hearsRefusal(client, 0x83)).toContain('$stream/h/next')
    await client.says(subscribe5('00 03', '$stream/h/next', '00')).hears(suback5('00 03', '00'))
    expect(broker.server.client('c1')?.filters).toMatchObject([{ filter: '$stream/h/next', qos: 0 }])
  })
})
