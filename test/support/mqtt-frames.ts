/* What clients of all versions may say, as fast-check generators: whole conversations of valid packets. */
import fc from 'fast-check'
import { bytes, packet, text } from './wire.ts'

/** A client's packets in order, CONNECT first. */
export interface Conversation {
  readonly level: Level
  readonly frames: readonly Buffer[]
}

type Level = 3 | 4 | 5
type Frame = fc.Arbitrary<Buffer>

const MOST_FRAMES = 60
const TOPICS = ['a', 'a/b', 'a/b/c', '/', 'a//b', '$SYS/x', '\u{1f321}', 'retained']
const FILTERS = [
  'a',
  '#',
  '+',
  'a/+',
  'a/#',
  '+/b',
  '$SYS/#',
  '$share/g/a',
  '$queue/jobs',
  '$stream/history/first',
  'a#',
  '',
]

const byte = (max = 255): Frame => fc.integer({ min: 0, max }).map(value => Buffer.from([value]))
const u16 = (min = 0, max = 0xffff): Frame =>
  fc.integer({ min, max }).map(value => Buffer.from([value >> 8, value & 0xff]))
const packetId = u16(1, 70)
const sized = (content: Frame): Frame =>
  content.map(inner => Buffer.concat([Buffer.from([inner.length >> 8, inner.length & 0xff]), inner]))
const string = fc.oneof(
  fc.constantFrom(...TOPICS).map(text),
  fc.string({ unit: 'grapheme', maxLength: 12 }).map(value => text(value.replaceAll('\0', ''))),
)
const binary = sized(fc.uint8Array({ maxLength: 20 }).map(value => Buffer.from(value)))
const payload: Frame = fc.oneof(
  { weight: 9, arbitrary: fc.uint8Array({ maxLength: 40 }).map(value => Buffer.from(value)) },
  { weight: 1, arbitrary: fc.integer({ min: 100, max: 3000 }).map(length => Buffer.alloc(length, 'x')) },
)
const clientId = fc.oneof(fc.constantFrom('', 'c1', 'c2', 'c3', 'constructor', '__proto__').map(text), string)

const joined = (...parts: readonly Frame[]): Frame => fc.tuple(...parts).map(list => Buffer.concat(list))
const fixed = (hex: string): Frame => fc.constant(bytes(hex))

const PROPERTY: Readonly<Record<string, Frame>> = {
  '01': byte(1),
  '02': fc.constantFrom('00 00 00 00', '00 00 00 01', '00 00 ff ff').map(hex => bytes(hex)),
  '03': string,
  '08': fc.constantFrom('reply', 'a/b').map(text),
  '09': binary,
  '0b': byte(127),
  '11': fc.constantFrom('00 00 00 00', '00 00 00 01', 'ff ff ff ff').map(hex => bytes(hex)),
  '15': string,
  '16': binary,
  '17': byte(1),
  '18': fc.constantFrom('00 00 00 00', '00 00 00 01').map(hex => bytes(hex)),
  '19': byte(1),
  '1f': string,
  '21': u16(1),
  '22': u16(0, 20),
  '23': u16(1, 20),
  '26': joined(string, string),
  '27': fc.constantFrom('00 00 00 20', '00 00 01 00', '00 01 00 00', 'ff ff ff ff').map(hex => bytes(hex)),
}
const MESSAGE = ['01', '02', '03', '08', '09', '26', '26']

/** Some of these properties, with their length; without 5.0 nothing. */
function properties(level: Level, ids: readonly string[]): Frame {
  if (level < 5) return fixed('')
  const one = (id: string) => joined(fixed(id), PROPERTY[id] ?? fixed(''))
  return fc.subarray([...ids.keys()], { maxLength: Math.min(4, ids.length) }).chain(chosen =>
    fc
      .tuple(...chosen.map(n => one(ids[n] ?? '')))
      .map(list => Buffer.concat(list))
      .map(list => (list.length < 128 ? Buffer.concat([Buffer.from([list.length]), list]) : bytes('00'))),
  )
}

function connect(level: Level): Frame {
  const head = level === 3 ? bytes(text('MQIsdp'), '03') : bytes(text('MQTT'), `0${level}`)
  return fc
    .record({
      isClean: fc.boolean(),
      hasWill: fc.boolean(),
      willQos: fc.integer({ min: 0, max: 2 }),
      isWillRetained: fc.boolean(),
      hasUser: fc.boolean(),
      hasPassword: fc.boolean(),
    })
    .chain(({ isClean, hasWill, willQos, isWillRetained, hasUser, hasPassword }) => {
      const withPassword = hasPassword && (hasUser || level === 5)
      const flags =
        (isClean ? 2 : 0) |
        (hasWill ? 4 | (willQos << 3) | (isWillRetained ? 0x20 : 0) : 0) |
        (withPassword ? 0x40 : 0) |
        (hasUser ? 0x80 : 0)
      const will = joined(properties(level, ['18', ...MESSAGE]), fc.constantFrom(...TOPICS).map(text), sized(payload))
      return joined(
        fc.constant(Buffer.concat([head, Buffer.from([flags]), bytes('00 3c')])),
        properties(level, ['11', '17', '19', '21', '22', '26', '27']),
        clientId,
        ...(hasWill ? [will] : []),
        ...(hasUser ? [string] : []),
        ...(withPassword ? [binary] : []),
      ).map(body => packet(0x10, body))
    })
}

function publish(level: Level): Frame {
  return fc
    .record({ qos: fc.integer({ min: 0, max: 2 }), isRetained: fc.boolean(), isDup: fc.boolean() })
    .chain(({ qos, isRetained, isDup }) =>
      joined(
        fc.constantFrom(...TOPICS).map(text),
        ...(qos > 0 ? [packetId] : []),
        properties(level, [...MESSAGE, '23']),
        payload,
      ).map(body => packet(0x30 | (isDup && qos > 0 ? 8 : 0) | (qos << 1) | (isRetained ? 1 : 0), body)),
    )
}

/** PUBACK, PUBREC, PUBREL, PUBCOMP: in 5.0 with a reason and properties or without. */
function answer(level: Level, first: number): Frame {
  const short = packetId.map(id => packet(first, id))
  if (level < 5) return short
  const reason = fc.constantFrom(0x00, 0x10, 0x80, 0x83, 0x87, 0x92, 0x97).map(code => Buffer.from([code]))
  return fc.oneof(
    short,
    joined(packetId, reason).map(body => packet(first, body)),
    joined(packetId, reason, properties(level, ['1f', '26'])).map(body => packet(first, body)),
  )
}

function subscribe(level: Level): Frame {
  const options = fc
    .record({ qos: fc.integer({ min: 0, max: 2 }), rest: fc.integer({ min: 0, max: 11 }) })
    .map(({ qos, rest }) => Buffer.from([level === 5 ? qos | (rest << 2) : qos]))
  const one = joined(fc.constantFrom(...FILTERS).map(text), options)
  return joined(
    packetId,
    properties(level, ['0b', '26']),
    fc.array(one, { minLength: 1, maxLength: 4 }).map(Buffer.concat),
  ).map(body => packet(0x82, body))
}

function unsubscribe(level: Level): Frame {
  const filters = fc.array(fc.constantFrom(...FILTERS).map(text), { minLength: 1, maxLength: 4 }).map(Buffer.concat)
  return joined(packetId, properties(level, ['26']), filters).map(body => packet(0xa2, body))
}

function disconnect(level: Level): Frame {
  if (level < 5) return fixed('e0 00')
  const reason = fc.constantFrom(0x00, 0x04, 0x80).map(code => Buffer.from([code]))
  return fc.oneof(
    fixed('e0 00'),
    reason.map(code => packet(0xe0, code)),
    joined(reason, properties(level, ['11', '1f', '26'])).map(body => packet(0xe0, body)),
  )
}

function frame(level: Level): Frame {
  return fc.oneof(
    { weight: 10, arbitrary: publish(level) },
    { weight: 4, arbitrary: subscribe(level) },
    { weight: 2, arbitrary: unsubscribe(level) },
    ...[0x40, 0x50, 0x62, 0x70].map(first => ({ weight: 2, arbitrary: answer(level, first) })),
    { weight: 2, arbitrary: fixed('c0 00') },
    { weight: 1, arbitrary: disconnect(level) },
    ...(level === 5
      ? [{ weight: 1, arbitrary: properties(5, ['15', '16', '26']).map(list => packet(0xf0, '18', list)) }]
      : []),
  )
}

export const conversation: fc.Arbitrary<Conversation> = fc
  .constantFrom<Level>(3, 4, 5, 5)
  .chain(level =>
    fc
      .tuple(connect(level), fc.array(frame(level), { maxLength: MOST_FRAMES, size: 'max' }))
      .map(([first, rest]) => ({ level, frames: [first, ...rest] })),
  )
