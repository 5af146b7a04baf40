import fc from 'fast-check'
import mqttPacket from 'mqtt-packet'
import { describe, expect, test } from 'vitest'
import {
  type ConnectPacket,
  readConnect,
  readSubscribe,
  readUnsubscribe,
} from '../../../../src/protocol/mqtt/control-packet.ts'
import { FrameReader, PacketType, UnfinishedPackets } from '../../../../src/protocol/mqtt/frame.ts'
import { Property, PropertyScan } from '../../../../src/protocol/mqtt/properties.ts'

/** The body of a packet as another implementation writes it. */
function body(packet: Buffer): { bytes: Buffer; at: number; end: number } {
  const reader = new FrameReader(1024 ** 2, new UnfinishedPackets(1024 ** 2), error => expect.fail(error.message))
  reader.push(packet)
  expect(reader.next()).toBe(true)
  return { bytes: reader.bytes, at: reader.body, end: reader.end }
}

const name = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 40 }).filter(text => !text.includes('\0'))
const topic = name.filter(text => !/[+#]/.test(text))
const word = fc.nat(0xffff)
const payload = fc.uint8Array({ maxLength: 100 }).map(part => Buffer.from(part))

describe('what mqtt-packet writes is read', () => {
  test('CONNECT of 3.1.1 and 5.0', () => {
    fc.assert(
      fc.property(
        fc.record({
          version: fc.constantFrom(4 as const, 5 as const),
          clean: fc.boolean(),
          keepalive: word,
          clientId: name,
          user: fc.option(name),
          will: fc.option(
            fc.record({ topic, payload, qos: fc.constantFrom(0 as const, 1 as const), retain: fc.boolean() }),
          ),
          receiveMaximum: fc.integer({ min: 1, max: 0xffff }),
          sessionExpiryInterval: fc.nat(),
        }),
        given => {
          const { version, clean, keepalive, clientId, user, will, receiveMaximum, sessionExpiryInterval } = given
          const packet = mqttPacket.generate({
            cmd: 'connect',
            protocolId: 'MQTT',
            protocolVersion: version,
            clean,
            keepalive,
            clientId,
            ...(user !== null && { username: user, password: Buffer.from('secret') }),
            ...(will !== null && { will }),
            ...(version === 5 && { properties: { receiveMaximum, sessionExpiryInterval } }),
          })
          const { bytes, at, end } = body(packet)
          const read: ConnectPacket = readConnect(bytes, at, end)
          expect(read).toMatchObject({ version, isClean: clean, keepAliveS: keepalive, clientId, user })
          if (version === 5) expect(read).toMatchObject({ receiveMaximum, sessionExpiryS: sessionExpiryInterval })
          if (will === null) expect(read.will).toBeNull()
          else expect(read.will).toMatchObject({ ...will, properties: Buffer.alloc(0), expiryMs: null })
        },
      ),
    )
  })

  test('SUBSCRIBE and UNSUBSCRIBE', () => {
    const version = fc.constantFrom(4 as const, 5 as const)
    const filters = fc.array(fc.record({ topic: name, qos: fc.constantFrom(0 as const, 1 as const, 2 as const) }), {
      minLength: 1,
    })
    fc.assert(
      fc.property(
        version,
        filters,
        fc.integer({ min: 1, max: 0xffff }),
        (protocolVersion, subscriptions, messageId) => {
          const subscribe = mqttPacket.generate({ cmd: 'subscribe', messageId, subscriptions }, { protocolVersion })
          let { bytes, at, end } = body(subscribe)
          expect(readSubscribe(bytes, at, end, protocolVersion)).toEqual({
            packetId: messageId,
            requests: subscriptions.map(({ topic: filter, qos }) => ({
              filter,
              qos,
              isNoLocal: false,
              isRetainAsPublished: false,
              retainHandling: 0,
              identifier: 0,
            })),
          })
          const unsubscriptions = subscriptions.map(({ topic: filter }) => filter)
          const unsubscribe = mqttPacket.generate(
            { cmd: 'unsubscribe', messageId, unsubscriptions },
            { protocolVersion },
          )
          ;({ bytes, at, end } = body(unsubscribe))
          expect(readUnsubscribe(bytes, at, end, protocolVersion)).toEqual({
            packetId: messageId,
            filters: unsubscriptions,
          })
        },
      ),
    )
  })

  test('properties of a PUBLISH', () => {
    fc.assert(
      fc.property(
        fc.record({
          expiry: fc.nat(),
          type: name,
          response: topic,
          data: payload,
          key: name,
          value: name,
          pfi: fc.boolean(),
        }),
        ({ expiry, type, response, data, key, value, pfi }) => {
          const packet = mqttPacket.generate(
            {
              cmd: 'publish',
              topic: 't',
              qos: 0,
              dup: false,
              retain: false,
              payload: '',
              properties: {
                payloadFormatIndicator: pfi,
                messageExpiryInterval: expiry,
                contentType: type,
                responseTopic: response,
                correlationData: data,
                userProperties: { [key]: value },
              },
            },
            { protocolVersion: 5 },
          )
          const { bytes, at, end } = body(packet)
          const propertiesAt = at + 3 + ((bytes[at + 3] ?? 0) > 0x7f ? 2 : 1)
          const scan = new PropertyScan()
          scan.scan(bytes, propertiesAt, end, PacketType.publish)
          expect(scan.number(Property.messageExpiryInterval, -1)).toBe(expiry)
          expect(scan.number(Property.payloadFormatIndicator, -1)).toBe(pfi ? 1 : 0)
          expect(scan.text(Property.contentType)).toBe(type)
          expect(scan.text(Property.responseTopic)).toBe(response)
          expect(scan.has(Property.correlationData)).toBe(true)
          expect(scan.has(Property.topicAlias)).toBe(false)
          expect(scan.number(Property.topicAlias, -1)).toBe(-1)
        },
      ),
    )
  })
})
