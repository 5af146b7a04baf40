/* What both versions ask of publishing, subscribing and delivering, played in both. */
import { describe, expect } from 'vitest'
import { eventually } from '../../support/eventually.ts'
import { type Level, Speaker } from '../../support/speaker.ts'
import { bytes, PINGREQ, PINGRESP, packet, text, type WireClient } from '../../support/wire.ts'
import { hearsDisconnect, letIn, puback } from './packets.ts'
import { type Scene, type Staging, transcript } from './transcript.ts'

const NAMES = { 3: '3.1', 4: '3.1.1', 5: '5.0' } as const

interface Play extends Scene {
  readonly say: Speaker
  /** A client that is let in under that name. */
  readonly enters: (name: string, properties?: string) => Promise<WireClient>
  /** SUBACK and UNSUBACK of this version; codes of UNSUBACK are for 5.0 only. */
  readonly suback: (id: string, codes: string) => Buffer
  readonly unsuback: (id: string, codes: string) => Buffer
}

function inBothVersions(name: string, play: (play: Play) => Promise<unknown>, staging?: Staging): void {
  for (const level of [4, 5] as const) inVersion(level, name, play, staging)
}

function inVersion(level: Level, name: string, play: (play: Play) => Promise<unknown>, staging?: Staging): void {
  const say = new Speaker(level, 't')
  const none = level === 5 ? '00' : ''
  const enters = async (scene: Scene, id: string, properties = '') => {
    const client = await scene.another()
    await letIn(client, say.connect(id, '02', properties))
    return client
  }
  transcript(
    `${name}, ${NAMES[level]}`,
    scene =>
      play({
        ...scene,
        say,
        enters: (id, properties) => enters(scene, id, properties),
        suback: (id, codes) => packet(0x90, id, bytes(none), bytes(codes)),
        unsuback: (id, codes) => packet(0xb0, id, ...(level === 5 ? [bytes('00'), bytes(codes)] : [])),
      }),
    staging,
  )
}

function publishQos(heard: Buffer): 0 | 1 | 2 {
  const qos = ((heard[0] ?? 0) >> 1) & 3
  if ((heard[0] ?? 0) >> 4 !== 3 || qos === 3) throw new Error(`no PUBLISH: ${heard.toString('hex')}`)
  return qos as 0 | 1 | 2
}

/** The packet id of a PUBLISH heard, which has this topic. */
const idOf = (heard: Buffer, topic: Buffer): number => heard.readUInt16BE(2 + topic.length)

describe('delivery', () => {
  inBothVersions(
    'a message goes to all whose filters match, and to nobody else [MQTT-4.5.0-1], [MQTT-3.3.2-3]',
    async ({ say, enters, suback }) => {
      const filters = ['a/b', 'a/+', 'a/#', '+/b', '#']
      const others = ['a', 'a/b/c', 'b/+', 'a/+/c', 'A/b']
      const clients = await Promise.all([...filters, ...others].map((_, n) => enters(`c${n}`)))
      for (const [n, filter] of [...filters, ...others].entries()) {
        await clients[n]?.says(say.subscribe('00 01', [filter, '00'])).hears(suback('00 01', '00'))
      }
      const publisher = await enters('p')
      await publisher.says(say.publish('a/b', 'x', 0x32, '00 09')).hears(puback('00 09'))
      for (const client of clients.slice(0, filters.length)) await client.hears(say.publish('a/b', 'x'))
      for (const client of clients) await client.hearsNothing()
    },
  )

  inBothVersions(
    'QoS 0 is answered with nothing, 1 with PUBACK, 2 with PUBREC [MQTT-3.3.4-1]',
    async ({ say, enters, suback }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['a', '00'])).hears(suback('00 01', '00'))
      await client.says(say.publish('a', '0')).hears(say.publish('a', '0'))
      await client.hearsNothing()
      // Owned first, acknowledged then, under the same packet id [MQTT-4.3.2-4] [MQTT-2.2.1-5].
      await client.says(say.publish('a', '1', 0x32, '12 34')).hears(say.publish('a', '1'), puback('12 34'))
      await client.says(say.publish('a', '2', 0x34, '12 34')).hears(say.publish('a', '2'), packet(0x50, '12 34'))
      await client.says(packet(0x62, '12 34')).hears(packet(0x70, '12 34'))
    },
  )

  inBothVersions(
    'QoS 0 is delivered with DUP 0 and without a packet id [MQTT-4.3.1-1], [MQTT-2.2.1-2]',
    async ({ say, enters, suback }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['a', '02'])).hears(suback('00 01', '02'))
      await client.says(say.publish('a', 'x')).hears(say.publish('a', 'x'))
      const other = await enters('o')
      await other.says(say.subscribe('00 01', ['a', '00'])).hears(suback('00 01', '00'))
      client.says(say.publish('a', 'y', 0x3a, '00 01'), say.publish('a', 'z', 0x3c, '00 02'))
      await other.hears(say.publish('a', 'y'), say.publish('a', 'z'))
    },
  )

  inBothVersions(
    'messages in flight have packet ids that nothing else in flight has, and DUP 0 [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.2-2], [MQTT-4.3.3-1], [MQTT-4.3.3-2]',
    async ({ say, enters, suback, broker }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['a', '02'])).hears(suback('00 01', '02'))
      const publisher = await enters('p')
      const most = 64
      for (let n = 1; n <= most + 1; n++) {
        const isTwo = n % 2 === 0
        publisher.says(say.publish('a', `${n}`, isTwo ? 0x34 : 0x32, `00 ${n.toString(16).padStart(2, '0')}`))
        if (isTwo) publisher.says(packet(0x62, `00 ${n.toString(16).padStart(2, '0')}`))
      }
      const ids = new Map<number, number>()
      for (let n = 1; n <= most; n++) {
        const heard = await client.hearsPacket()
        expect(heard[0]).toBe(n % 2 === 0 ? 0x34 : 0x32)
        ids.set(idOf(heard, say.topic('a')), n)
      }
      expect(ids.size).toBe(most)
      expect(ids.has(0)).toBe(false)
      await client.hearsNothing()
      // Unacknowledged until it is acknowledged [MQTT-4.3.2-3].
      expect(broker.server.client('tc')?.inFlight).toBe(most)
      const [[first] = [0]] = ids
      client.says(packet(0x40, Buffer.from([first >> 8, first & 0xff])))
      expect(idOf(await client.hearsPacket(), say.topic('a'))).toBe(first)
    },
  )

  inBothVersions(
    'after PUBACK its packet id stands for a new message, whatever DUP says [MQTT-4.3.2-5]',
    async ({ say, enters, suback }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['a', '00'])).hears(suback('00 01', '00'))
      for (const first of [0x32, 0x3a, 0x32]) {
        await client.says(say.publish('a', 'x', first, '00 07')).hears(say.publish('a', 'x'), puback('00 07'))
      }
    },
  )

  inBothVersions(
    'messages of one client to one topic arrive in their order, at each QoS [MQTT-4.6.0-5], [MQTT-4.6.0-6]',
    async ({ say, enters, suback }) => {
      const client = await enters('c')
      await client
        .says(say.subscribe('00 01', ['q0', '00'], ['q1', '01'], ['q2', '02']))
        .hears(suback('00 01', '00 01 02'))
      const publisher = await enters('p')
      const numbers = Array.from({ length: 30 }, (_, n) => n + 1)
      const id = (n: number, qos: number) => `0${qos} ${n.toString(16).padStart(2, '0')}`
      for (const n of numbers) {
        publisher.says(
          say.publish('q0', `${n}`),
          say.publish('q1', `${n}`, 0x32, id(n, 1)),
          say.publish('q2', `${n}`, 0x34, id(n, 2)),
        )
      }
      const heard: [number[], number[], number[]] = [[], [], []]
      while (heard[0].length + heard[1].length + heard[2].length < 3 * numbers.length) {
        const delivery = await client.hearsPacket()
        if (delivery[0] === 0x62) {
          client.says(packet(0x70, delivery.subarray(2)))
          continue
        }
        const qos = publishQos(delivery)
        const idAt = 2 + say.topic('q0').length
        const payloadAt = idAt + (qos > 0 ? 2 : 0) + (say.level === 5 ? 1 : 0)
        heard[qos].push(Number(delivery.toString('utf8', payloadAt)))
        if (qos > 0) client.says(packet(qos === 1 ? 0x40 : 0x50, delivery.subarray(idAt, idAt + 2)))
      }
      for (const qos of [0, 1, 2]) expect(heard[qos]).toEqual(numbers)
    },
  )

  inVersion(
    5,
    'with the quota used up nothing but PUBLISH above QoS 0 waits [MQTT-4.9.0-1], [MQTT-4.9.0-2], [MQTT-4.9.0-3], [MQTT-3.3.4-10]',
    async ({ say, enters, suback, unsuback }) => {
      const client = await enters('c', '21 00 01')
      await client.says(say.subscribe('00 01', ['a', '01'], ['z', '00'])).hears(suback('00 01', '01 00'))
      const publisher = await enters('p')
      await publisher.says(say.publish('a', '1', 0x32, '00 01')).hears(puback('00 01'))
      await publisher.says(say.publish('a', '2', 0x32, '00 02')).hears(puback('00 02'))
      await client.hears(say.publish('a', '1', 0x32, '00 01'))
      await client.hearsNothing()
      await publisher.says(say.publish('z', '0', 0x32, '00 03')).hears(puback('00 03'))
      await client.hears(say.publish('z', '0'))
      await client.says(say.subscribe('00 02', ['b', '01'])).hears(suback('00 02', '01'))
      await client.says(say.publish('c', 'x', 0x32, '00 03')).hears(packet(0x40, '00 03 10'))
      await client.says(say.publish('c', 'x', 0x34, '00 04')).hears(packet(0x50, '00 04 10'))
      await client.says(packet(0x62, '00 04')).hears(packet(0x70, '00 04'))
      await client.says(say.unsubscribe('00 03', 'b')).hears(unsuback('00 03', '00'))
      await client.says(PINGREQ).hears(PINGRESP)
      await client.says(puback('00 01')).hears(say.publish('a', '2', 0x32, '00 01'))
    },
  )

  const PROPERTIES: readonly (readonly [string, string])[] = [
    ['the payload format indicator [MQTT-3.3.2-4]', '01 01'],
    ['the response topic [MQTT-3.3.2-15]', '08 00 06 61 2f 24 2f c3 a9'],
    ['correlation data [MQTT-3.3.2-16]', '09 00 03 00 ff 80'],
    ['the content type [MQTT-3.3.2-20]', '03 00 03 61 2f 62'],
    ['user properties [MQTT-3.3.2-17]', '26 00 01 61 00 00 26 00 00 00 01 62'],
    [
      'user properties in their order [MQTT-3.3.2-18]',
      '26 00 01 62 00 01 31 26 00 01 61 00 01 32 26 00 01 62 00 01 31',
    ],
    ['all of them together', '26 00 01 61 00 01 62 03 00 01 74 01 00 09 00 01 78 26 00 01 61 00 01 62 08 00 01 72'],
  ]
  for (const [what, properties] of PROPERTIES) {
    inVersion(5, `${what}: forwarded as they came`, async ({ say, enters, suback }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['q0', '00'], ['q1', '01'])).hears(suback('00 01', '00 01'))
      const publisher = await enters('p')
      publisher.says(say.publish('q0', 'x', 0x30, '', properties), say.publish('q1', 'x', 0x32, '00 07', properties))
      await client.hears(
        say.publish('q0', 'x', 0x30, '', properties),
        say.publish('q1', 'x', 0x32, '00 01', properties),
      )
    })
  }

  inVersion(
    5,
    'a message that was sent does not expire while its client is away, one that was not does [MQTT-4.3.3-7], [MQTT-3.3.2-5]',
    async ({ say, another, enters, suback, broker }) => {
      const kept = '11 00 00 00 3c'
      const expiring = '02 00 00 00 01'
      const client = await another()
      await letIn(client, say.connect('c', '00', `${kept} 21 00 01`))
      await client.says(say.subscribe('00 01', ['a', '02'])).hears(suback('00 01', '02'))
      const publisher = await enters('p')
      for (const n of ['01', '02']) {
        await publisher.says(say.publish('a', n, 0x34, `00 ${n}`, expiring)).hears(packet(0x50, '00', n))
      }
      await client.hears(say.publish('a', '01', 0x34, '00 01', expiring))
      client.socket.resetAndDestroy()
      await eventually(() => broker.server.client('tc') === undefined)
      const sinceMs = performance.now()
      await eventually(() => performance.now() > sinceMs + 1100)
      broker.core.topology.expire()
      const again = await another()
      await letIn(again, say.connect('c', '00', kept))
      await again.hears(say.publish('a', '01', 0x3c, '00 01', expiring))
      await again.says(packet(0x50, '00 01')).hears(packet(0x62, '00 01'))
      await again.says(packet(0x70, '00 01')).hearsNothing()
    },
  )

  inBothVersions(
    'a client without a will leaves none: 3.1.1 [MQTT-3.1.2-12]',
    async ({ say, enters, suback, broker }) => {
      const witness = await enters('w')
      await witness.says(say.rawSubscribe('00 01', '#', '00')).hears(suback('00 01', '00'))
      const mortal = await enters('m')
      mortal.socket.resetAndDestroy()
      while (broker.server.clientCount > 1) await witness.hearsNothing()
      await witness.hearsNothing()
    },
  )

  inBothVersions(
    'a conversation arrives byte by byte, or all at once [MQTT-4.2-1]',
    async ({ say, another, suback }) => {
      const said = Buffer.concat([
        say.connect('c'),
        say.subscribe('00 01', ['a', '00']),
        say.publish('a', 'x', 0x32, '00 07'),
        PINGREQ,
      ])
      const answers = [suback('00 01', '00'), say.publish('a', 'x'), puback('00 07'), PINGRESP]
      const slow = await another()
      for (const byte of said) {
        slow.socket.write(Buffer.from([byte]))
        await new Promise(resolve => setImmediate(resolve))
      }
      expect((await slow.hearsPacket())[0]).toBe(0x20)
      await slow.hears(...answers)
      const fast = await another()
      await letIn(fast, said)
      await fast.hears(...answers)
    },
  )
})

describe('SUBSCRIBE and UNSUBSCRIBE, in both versions', () => {
  inBothVersions(
    'SUBACK has the packet id and one code for each filter, in their order [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-2.2.1-6], [MQTT-3.8.4-7], [MQTT-3.9.3-1]',
    async ({ say, enters, suback }) => {
      const client = await enters('c')
      for (const id of ['00 01', '00 01', 'ff ff', '12 34']) {
        await client
          .says(say.subscribe(id, ['a', '02'], ['b', '00'], ['c', '01'], ['a', '00']))
          .hears(suback(id, '02 00 01 00'))
      }
    },
  )

  inBothVersions(
    'several filters are taken one after the other, a bad one among them hinders none [MQTT-3.8.4-5], [MQTT-3.9.3-2], 3.1.1 [MQTT-3.9.3-2]',
    async ({ say, enters, suback }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['a', '01'], ['b', '00'], ['a', '00']))
      await client.hears(suback('00 01', '01 00 00'))
      await client.says(say.publish('a', 'x', 0x32, '00 07')).hears(say.publish('a', 'x'), puback('00 07'))
      await client.says(say.publish('b', 'x')).hears(say.publish('b', 'x'))
      await client.says(say.subscribe('00 02', ['x', '02'], ['a#', '00'], ['y', '01']))
      const heard = await client.hearsPacket()
      const codes = say.level === 5 ? bytes('02 8f 01') : bytes('02 80 01')
      expect(heard.subarray(-3)).toEqual(codes)
      await client.says(say.publish('y', 'x')).hears(say.publish('y', 'x'))
    },
  )

  inBothVersions(
    'UNSUBSCRIBE ends the subscription with that filter, character by character [MQTT-3.10.4-1]',
    async ({ say, enters, suback, unsuback }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['a/+', '00'], ['b', '00'])).hears(suback('00 01', '00 00'))
      await client.says(say.unsubscribe('00 02', 'a/b', 'A/+', 'a/#', 'B')).hears(unsuback('00 02', '11 11 11 11'))
      await client.says(say.publish('a/b', 'x')).hears(say.publish('a/b', 'x'))
      await client.says(say.unsubscribe('00 03', 'a/+')).hears(unsuback('00 03', '00')) // [MQTT-3.11.3-2]
      await client.says(say.publish('a/b', 'x'), say.publish('b', 'y')).hears(say.publish('b', 'y'))
    },
  )

  inBothVersions(
    'UNSUBACK comes with the packet id, whether or not there was a subscription [MQTT-3.10.4-4], [MQTT-3.10.4-5], [MQTT-2.2.1-6]',
    async ({ say, enters, suback, unsuback }) => {
      const client = await enters('c')
      await client.says(say.unsubscribe('ab cd', 'never')).hears(unsuback('ab cd', '11'))
      await client.says(say.subscribe('00 01', ['a', '00'], ['b', '00'])).hears(suback('00 01', '00 00'))
      // Several filters, one answer [MQTT-3.10.4-6].
      await client.says(say.unsubscribe('00 02', 'a', 'never', 'b', 'a')).hears(unsuback('00 02', '00 11 00 11'))
      await client.says(say.publish('a', 'x'), say.publish('b', 'x')).hearsNothing()
    },
  )

  inBothVersions(
    'after UNSUBSCRIBE nothing new is added; what is in flight is completed [MQTT-3.10.4-2], [MQTT-3.10.4-3]',
    async ({ say, enters, suback, unsuback, broker }) => {
      const client = await enters('c')
      await client.says(say.subscribe('00 01', ['a', '02'])).hears(suback('00 01', '02'))
      const publisher = await enters('p')
      await publisher.says(say.publish('a', '1', 0x32, '00 01')).hears(puback('00 01'))
      publisher.says(say.publish('a', '2', 0x34, '00 02'))
      await client.hears(say.publish('a', '1', 0x32, '00 01'), say.publish('a', '2', 0x34, '00 02'))
      await client.says(say.unsubscribe('00 02', 'a')).hears(unsuback('00 02', '00'))
      publisher.says(say.publish('a', '3', 0x32, '00 03'))
      await client.says(packet(0x50, '00 02')).hears(packet(0x62, '00 02'))
      client.says(packet(0x70, '00 02'), puback('00 01'))
      await client.hearsNothing()
      expect(broker.server.client('tc')).toMatchObject({ inFlight: 0, queued: 0 })
    },
  )
})

describe('the end of a connection', () => {
  inVersion(
    5,
    'DISCONNECT of the server has a reason of its table and no session expiry, is the last packet, and ends the connection [MQTT-3.14.2-1], [MQTT-3.14.2-2], [MQTT-3.14.4-1], [MQTT-3.14.4-2], [MQTT-4.13.2-1]',
    async ({ enters, say }) => {
      const client = await enters('c', '11 00 00 00 3c')
      client.says(packet(0x30, text('a/+'), '00'), PINGREQ, say.publish('a', 'x', 0x32, '00 01'))
      const heard = await client.hearsPacket()
      expect([heard[0], heard[2]]).toEqual([0xe0, 0x90])
      expect(heard.includes(0x11)).toBe(false)
      await client.hearsClose()
    },
  )

  inVersion(5, 'nobody is sent DISCONNECT who has not been let in [MQTT-3.14.0-1]', async ({ another, say }) => {
    for (const said of [PINGREQ, bytes('10 ff ff ff ff 01'), say.connect('c', '02', '23 00 01'), bytes('e0 00')]) {
      const client = (await another()).says(said)
      const heard = await client.hearsPacket()
      if (heard.length > 0) expect(heard[0]).toBe(0x20)
      await client.hearsClose()
    }
  })

  inVersion(5, 'a malformed packet and a protocol error have their reasons [MQTT-4.13.1-1]', async ({ enters }) => {
    await hearsDisconnect((await enters('a')).says(bytes('c0 01 00')), 0x81)
    await hearsDisconnect((await enters('b')).says(bytes('d0 00')), 0x82)
  })
})

describe('keep alive', () => {
  inVersion(
    5,
    'is what the client asked for where the server has no other wish [MQTT-3.2.2-22]',
    async ({ another, broker }) => {
      const asked = (keepAlive: string) => packet(0x10, text('MQTT'), '05 02', keepAlive, '00', text('c'))
      const connack = await letIn(await another(), asked('00 00'))
      expect(await letIn(await another(), asked('12 34'))).toEqual(connack)
      expect(broker.server.client('c')?.keepAliveS).toBe(0x1234)
    },
  )

  inBothVersions('0 asks for none, and gets none', async ({ enters, broker }) => {
    await enters('c')
    expect(broker.server.client('tc')?.keepAliveS).toBe(0)
  })
})
