import fc from 'fast-check'
import { expect, test } from 'vitest'
import { readMqtt5Properties, withoutMessageExpiry } from '../../../src/model/mqtt5-properties.ts'
import { mqtt5PropertyBytes } from '../../support/mqtt5-publish.ts'

const read = (bytes: Buffer) => readMqtt5Properties(bytes, 0, bytes.length)

const ALL = mqtt5PropertyBytes({
  payloadFormatIndicator: true,
  messageExpiryInterval: 60,
  topicAlias: 3,
  responseTopic: 'replies/größe',
  correlationData: Buffer.from([0, 255]),
  userProperties: { a: ['1', '2'], b: '' },
  subscriptionIdentifier: 268_435_455,
  contentType: 'text/plain',
})

test('reads every property of a PUBLISH as mqtt-packet wrote it, user properties in order', () => {
  expect(read(ALL)).toEqual({
    payloadFormat: 1,
    messageExpiryAt: expect.any(Number),
    contentType: 'text/plain',
    responseTopic: 'replies/größe',
    correlationData: Buffer.from([0, 255]),
    userProperties: [
      ['a', '1'],
      ['a', '2'],
      ['b', ''],
    ],
  })
})

test('no bytes are no properties', () => {
  expect(read(Buffer.alloc(0))).toEqual({
    payloadFormat: null,
    messageExpiryAt: null,
    contentType: null,
    responseTopic: null,
    correlationData: null,
    userProperties: [],
  })
})

test('reads the stretch it is given and nothing around it', () => {
  const around = Buffer.concat([Buffer.from([0xff, 0xff]), ALL, Buffer.from([0xff])])
  expect(readMqtt5Properties(around, 2, 2 + ALL.length)).toEqual(read(ALL))
})

test('bytes cut anywhere are the properties before the cut, or null; never an exception, never a read beyond the end', () => {
  for (let end = 0; end < ALL.length; end++) {
    const cut = readMqtt5Properties(ALL, 0, end)
    expect(cut).toEqual(read(Buffer.from(ALL.subarray(0, end))))
  }
})

test('a property that no PUBLISH has makes all of it null', () => {
  expect(read(Buffer.from([0x11, 0, 0, 0, 1]))).toBeNull()
})

test('text that is not UTF-8 makes all of it null', () => {
  expect(read(Buffer.from([0x03, 0, 1, 0xff]))).toBeNull()
})

test('any bytes give properties or null', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), bytes => {
      const found = read(Buffer.from(bytes))
      if (found !== null) expect(found.userProperties.length).toBeLessThanOrEqual(bytes.length / 5)
    }),
    { numRuns: 2000 },
  )
})

test('takes the message expiry out and leaves every other byte', () => {
  const without = { payloadFormatIndicator: true, userProperties: { a: ['1', '2'] }, contentType: 'text/plain' }
  const bytes = withoutMessageExpiry(mqtt5PropertyBytes({ ...without, messageExpiryInterval: 60 }))
  expect(read(bytes)).toEqual(read(mqtt5PropertyBytes(without)))
  expect(withoutMessageExpiry(bytes)).toBe(bytes)
  const damaged = Buffer.from([0x02, 0, 0])
  expect(withoutMessageExpiry(damaged)).toBe(damaged)
})
