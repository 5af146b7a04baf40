import { describe, expect, test } from 'vitest'
import { HEADERS_BYTES, type Headers, Mapping } from '../../../src/bridge/mapping.ts'
import { NOTE_LIVE } from '../../../src/core/consumer.ts'
import { type Boot, Identities } from '../../../src/core/identity.ts'
import { Clock, encodeRecord, type Message, PropertiesTag } from '../../../src/model/message.ts'
import { messageTo } from '../../support/messages.ts'
import { mqtt5PropertyBytes } from '../../support/mqtt5-publish.ts'
import { PLAIN_ROUTE } from '../../support/plain-route.ts'

const BOOT_AT_MS = Date.UTC(2026, 0, 1)
let now = 0
const clock = { monotonicMs: () => now, wallMs: () => BOOT_AT_MS + now }
const boot: Boot = { boot: 7, epoch: 'abcdefghij', gateway: 'gw-1', wallOffsetMs: BOOT_AT_MS, clock: Clock.synced }
let known = boot
const identities = new Identities(
  () => known,
  () => undefined,
  clock,
)

function mapping(route: Partial<ConstructorParameters<typeof Mapping>[0]['route']> = {}): Mapping {
  return new Mapping({ route: { ...PLAIN_ROUTE, ...route }, identities })
}

/** Accepted 1,234 ms after the start of the boot. */
function publish(
  changes: Partial<Message>,
  {
    waitedMs = 0,
    note = NOTE_LIVE,
    failures = 0,
    key = 'sensors/dev-1/t',
    by = mapping(),
    trust = boot.clock,
    limit = HEADERS_BYTES,
  } = {},
) {
  now = 1234 + waitedMs
  known = { ...boot, clock: trust }
  const record = encodeRecord(messageTo(key, 'body', { clientId: 'dev-1', ...changes }), {
    seq: 42,
    boot: 7,
    acceptedAt: 1234,
    clock: Clock.unknown,
  })
  const { headers, ...publication } = by.publicationOf(record, 0, note, failures, limit)
  return { ...publication, headers: { ...headers } satisfies Headers }
}

const withProperties = (properties: Parameters<typeof mqtt5PropertyBytes>[0]): Partial<Message> => ({
  propertiesTag: PropertiesTag.mqtt5,
  properties: mqtt5PropertyBytes(properties),
})

test('a message of another exchange has its routing key written as a topic, beside one whose topic is written alike', () => {
  const by = mapping()
  const topicOf = (exchange: string) => publish({ exchange }, { key: 'a.b/c', by }).headers['x-mqtt-topic']
  expect([topicOf('mqtt'), topicOf('orders'), topicOf('mqtt')]).toEqual(['a.b/c', 'a/b.c', 'a.b/c'])
})

test('a live message of QoS 1 carries its id, origin and times, and no more', () => {
  expect(publish({})).toEqual({
    exchange: 'telemetry',
    routingKey: 'sensors.dev-1.t',
    messageId: 'gw-1/abcdefghij/42',
    appId: 'gw-1',
    timestamp: Math.floor((BOOT_AT_MS + 1234) / 1000),
    deliveryMode: 2,
    contentType: undefined,
    correlationId: undefined,
    expiration: undefined,
    headers: {
      'x-mqtt-topic': 'sensors/dev-1/t',
      'x-mqtt-qos': 1,
      'x-mqtt-client-id': 'dev-1',
      'x-sluice-ts-ms': BOOT_AT_MS + 1234,
      'x-sluice-clock': 'synced',
    },
  })
})

describe('one MQTT value, one place in AMQP', () => {
  const long = 'c'.repeat(256)
  test.each<[string, Partial<Message>, object]>([
    ['QoS 0 is not persistent', { qos: 0 }, { deliveryMode: 1, headers: { 'x-mqtt-qos': 0 } }],
    ['QoS 2 is persistent', { qos: 2 }, { deliveryMode: 2, headers: { 'x-mqtt-qos': 2 } }],
    ['retain', { retain: true }, { headers: { 'x-mqtt-retain': true } }],
    ['dup', { dup: true }, { headers: { 'x-mqtt-dup': true } }],
    ['user', { user: 'anna' }, { headers: { 'x-mqtt-user': 'anna' } }],
    ['expiry in milliseconds', { expiryMs: 60_000 }, { expiration: '60000' }],
    ['content type', withProperties({ contentType: 'text/plain' }), { contentType: 'text/plain' }],
    [
      'content type beyond ASCII',
      withProperties({ contentType: 'größe' }),
      { contentType: undefined, headers: { 'x-mqtt-content-type': 'größe' } },
    ],
    [
      'content type above 255 bytes',
      withProperties({ contentType: long }),
      { contentType: undefined, headers: { 'x-mqtt-content-type': long } },
    ],
    [
      'correlation data that is text',
      withProperties({ correlationData: Buffer.from('abc') }),
      { correlationId: 'abc' },
    ],
    [
      'correlation data that is not text',
      withProperties({ correlationData: Buffer.from([255, 0]) }),
      { correlationId: undefined, headers: { 'x-correlation-id': Buffer.from([255, 0]) } },
    ],
    [
      'correlation data above 255 bytes',
      withProperties({ correlationData: Buffer.from(long) }),
      { correlationId: undefined, headers: { 'x-correlation-id': Buffer.from(long) } },
    ],
    [
      'response topic',
      withProperties({ responseTopic: 'replies/1' }),
      { headers: { 'x-reply-to-topic': 'replies/1' } },
    ],
    ['payload format', withProperties({ payloadFormatIndicator: true }), { headers: { 'x-mqtt-pfi': 1 } }],
    [
      'user properties, repeated ones as an array',
      withProperties({ userProperties: { a: '1', b: ['2', '3', '4'] } }),
      { headers: { a: '1', b: ['2', '3', '4'] } },
    ],
  ])('%s', (_what, changes, expected) => {
    expect(publish(changes)).toMatchObject(expected)
  })

  test.each([
    [Clock.unknown, 'unknown'],
    [Clock.estimated, 'estimated'],
    [Clock.synced, 'synced'],
  ])('clock %i is told as %s', (trust, word) => {
    expect(publish({}, { trust }).headers['x-sluice-clock']).toBe(word)
  })
})

describe('a late message', () => {
  test('that was accepted while the link was down is marked, with the time it waited', () => {
    expect(publish({}, { note: 0, waitedMs: 70 }).headers).toMatchObject({
      'x-sluice-replay': true,
      'x-sluice-buffered-ms': 70,
    })
  })

  test('goes to the exchange and with the key suffix for late data, if the route has them; live messages do not', () => {
    const by = mapping({ late: { exchange: 'late', keySuffix: '.late' } })
    expect(publish({}, { by })).toMatchObject({ exchange: 'telemetry', routingKey: 'sensors.dev-1.t' })
    expect(publish({}, { by, note: 0 })).toMatchObject({ exchange: 'late', routingKey: 'sensors.dev-1.t.late' })
    const suffixed = mapping({ late: { exchange: null, keySuffix: '.late' } })
    expect(publish({}, { by: suffixed, note: 0 }).exchange).toBe('telemetry')
  })

  test('has a key of 255 bytes at most, suffix included', () => {
    const by = mapping({ late: { exchange: null, keySuffix: '.late' } })
    const key = 'x/'.repeat(126)
    expect(publish({}, { by, key }).routingKey).toHaveLength(252)
    expect(Buffer.byteLength(publish({}, { by, key, note: 0 }).routingKey)).toBeLessThanOrEqual(255)
  })

  test('that the upstream refused before says how often', () => {
    const by = mapping()
    expect(publish({}, { by, note: 0, failures: 2 }).headers).toMatchObject({ 'x-sluice-attempts': 2 })
    expect(publish({}, { by, note: 0 }).headers).not.toHaveProperty('x-sluice-attempts')
  })

  test('leaves no mark on the next live one of the same topic', () => {
    const by = mapping()
    publish(
      { user: 'u', retain: true, ...withProperties({ userProperties: { a: '1' } }) },
      { by, note: 0, waitedMs: 10 },
    )
    expect(Object.keys(publish({ user: 'u' }, { by }).headers).sort()).toEqual([
      'x-mqtt-client-id',
      'x-mqtt-qos',
      'x-mqtt-topic',
      'x-mqtt-user',
      'x-sluice-clock',
      'x-sluice-ts-ms',
    ])
  })

  test('has its expiry shortened by the time it waited, rounded up, and never below zero', () => {
    expect(publish({ expiryMs: 60_000 }, { waitedMs: 1000.5 }).expiration).toBe('59000')
    expect(publish({ expiryMs: 60_000 }, { waitedMs: 90_000 }).expiration).toBe('0')
  })
})

test('names are told apart although their bytes run together', () => {
  const by = mapping()
  expect(publish({ clientId: 'bc', user: 'd' }, { by, key: 'a' }).headers).toMatchObject({
    'x-mqtt-topic': 'a',
    'x-mqtt-client-id': 'bc',
  })
  expect(publish({ clientId: 'c', user: 'd' }, { by, key: 'ab' }).headers).toMatchObject({
    'x-mqtt-topic': 'ab',
    'x-mqtt-client-id': 'c',
  })
})

test('stays right when more topics pass than are kept', () => {
  const by = mapping()
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 3000; i++) expect(publish({}, { by, key: `t/${i}` }).routingKey).toBe(`t.${i}`)
  }
})

describe('a device can not', () => {
  test.each([
    'x-death',
    'x-first-death-queue',
    'x-sluice-replay',
    'x-sluice-anything',
    'x-mqtt-user',
    'x-mqtt-client-id',
    'x-correlation-id',
    'CC',
    'BCC',
  ])('set the header %s: it is left out, and counted', name => {
    const { headers } = publish(withProperties({ userProperties: { [name]: 'forged', fine: 'yes' } }))
    expect(Object.values(headers)).not.toContain('forged')
    expect(headers).toMatchObject({ fine: 'yes', 'x-sluice-omitted': 1 })
  })

  test('reach a prototype by a name', () => {
    const bytes = Buffer.concat(
      ['__proto__', '__proto__', 'constructor'].map(name => {
        const property = mqtt5PropertyBytes({ userProperties: { ['x'.repeat(name.length)]: 'v' } })
        property.write(name, 3)
        return property
      }),
    )
    const { headers } = publish({ propertiesTag: PropertiesTag.mqtt5, properties: bytes })
    expect(Object.entries(headers)).toContainEqual(['constructor', 'v'])
    expect(JSON.stringify({})).toBe('{}')
    expect(Reflect.get({}, '0')).toBeUndefined()
  })

  test('make a message that does not fit its frame: what is too much is left out, and counted', () => {
    const userProperties = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`key-${i}`, 'v'.repeat(1000)]))
    const { headers } = publish(withProperties({ userProperties }))
    const kept = Object.keys(headers).filter(name => name.startsWith('key-')).length
    expect(kept).toBeGreaterThan(50)
    expect(kept + Number(headers['x-sluice-omitted'])).toBe(100)
    const bytes = Object.entries(headers).reduce(
      (sum, [name, value]) => sum + name.length + String(value).length + 6,
      0,
    )
    expect(bytes).toBeLessThanOrEqual(HEADERS_BYTES)
  })

  test('make one by a topic of 65,535 bytes, nor by a name above 255', () => {
    const { headers, routingKey } = publish(withProperties({ userProperties: { ['n'.repeat(256)]: 'v' } }), {
      key: 'x'.repeat(65_535),
    })
    expect(headers).not.toHaveProperty('x-mqtt-topic')
    expect(headers).toMatchObject({ 'x-mqtt-client-id': 'dev-1', 'x-sluice-omitted': 2 })
    expect(Buffer.byteLength(routingKey)).toBeLessThanOrEqual(255)
  })

  test('make one by properties that are none: the message goes without them', () => {
    const { headers } = publish({ propertiesTag: PropertiesTag.mqtt5, properties: Buffer.from([0xff]) })
    expect(headers).toMatchObject({ 'x-mqtt-topic': 'sensors/dev-1/t', 'x-sluice-omitted': 1 })
  })
})
