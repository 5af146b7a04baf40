import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../../src/model/error.ts'
import { clientId, configuredName, exchangeName, queueName, topicFilter, topicName } from '../../../src/model/names.ts'

const LONG = 'x'.repeat(65_536)

describe('topic filters', () => {
  test.each([
    '#',
    '+',
    'a/b',
    'sensors/+/temperature',
    'sensors/#',
    '/',
    '/a',
    'a/',
    '+/+',
    '$SYS/#',
    'a b/ü',
    'a/+/#',
  ])('%j is valid', text => {
    expect(topicFilter(text)).toBe(text)
  })

  test.each([
    ['', /must not be empty/],
    ['a/#/b', /# must fill the last level/],
    ['a#', /# must fill the last level/],
    ['a+/b', /\+ must fill its whole level/],
    ['a\u0000b', /U\+0000/],
    ['a\ud800', /well-formed Unicode/],
    [LONG, /longer than 65535 bytes/],
    ['$share/g/a', /does not select topics/],
    ['$queue/jobs', /does not select topics/],
  ])('%j is refused', (text, reason) => {
    expect(() => topicFilter(text)).toThrow(reason)
  })
})

test('a topic to publish to has no wildcards [MQTT-3.3.2-2]', () => {
  expect(topicName('sensors/7/temperature')).toBe('sensors/7/temperature')
  for (const text of ['a/+', '#', 'a#b', '']) expect(() => topicName(text)).toThrow(BrokerError)
})

test('queues and exchanges have names of up to 255 bytes without control characters', () => {
  for (const name of [queueName, exchangeName]) {
    expect(name('orders.ü')).toBe('orders.ü')
    expect(name('x'.repeat(255))).toHaveLength(255)
    expect(() => name('ü'.repeat(128))).toThrow(/longer than 255 bytes/)
    expect(() => name('a\nb')).toThrow(/control characters/)
    expect(() => name('')).toThrow(/empty/)
  }
})

test('a client id is any text MQTT carries, except none', () => {
  expect(clientId('constructor')).toBe('constructor')
  expect(() => clientId('')).toThrow(/empty/)
})

test.each(['central', 'hub-2', 'A_b', '0'])('%j names an upstream or route', text => {
  expect(configuredName(text)).toBe(text)
})

test.each(['', '__proto__', '-a', 'a.b', 'a/b', 'ü', 'a'.repeat(65)])('%j does not', text => {
  expect(() => configuredName(text)).toThrow(/beginning with a letter or digit/)
})

test('a hostile name is shown short and escaped', () => {
  expect(() => topicName(`\u001b[2J${LONG}#`)).toThrow(
    expect.objectContaining({ message: expect.not.stringContaining('\u001b') }),
  )
  try {
    topicName(`${LONG}#`)
  } catch (error) {
    expect(error).toMatchObject({ code: 'NAME_INVALID' })
    expect(String(error).length).toBeLessThan(200)
  }
})
