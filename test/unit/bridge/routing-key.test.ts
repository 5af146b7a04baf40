import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileRoutingKey, ROUTING_KEY_BYTES } from '../../../src/bridge/routing-key.ts'

const escaped = compileRoutingKey({ template: '{topic}', codec: 'escaped', gateway: 'gw-1' })
const rabbitmq = compileRoutingKey({ template: '{topic}', codec: 'rabbitmq', gateway: 'gw-1' })

const UNESCAPED: Readonly<Record<string, string>> = { '%25': '%', '%2E': '.', '%2A': '*', '%23': '#' }
/** The inverse, as contract.md section 5 implies it. */
const topicOf = (key: string): string =>
  key
    .split('.')
    .map(word => word.replace(/%(?:25|2E|2A|23)/g, found => UNESCAPED[found] ?? found))
    .join('/')

describe('codec escaped', () => {
  test.each([
    ['sensors/dev-1/temperature', 'sensors.dev-1.temperature'],
    ['a.b/c', 'a%2Eb.c'],
    ['50%/*/#', '50%25.%2A.%23'],
    ['/leading//empty/', '.leading..empty.'],
    ['größe/温度', 'größe.温度'],
  ])('writes %s as %s', (topic, key) => {
    expect(escaped(topic, '', '')).toBe(key)
  })

  test('can be undone for any topic whose key fits', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 60 }), topic => {
        const key = escaped(topic, '', '')
        fc.pre(!key.includes('%sha256-'))
        expect(topicOf(key)).toBe(topic)
      }),
      { numRuns: 2000 },
    )
  })

  test('never contains a wildcard of AMQP within a word', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom('a', '.', '*', '#', '%', '/', '2', 'E'), maxLength: 40 }),
        topic => {
          expect(escaped(topic, '', '')).not.toMatch(/[*#]/)
          expect(topicOf(escaped(topic, '', ''))).toBe(topic)
        },
      ),
    )
  })
})

test('codec rabbitmq writes slashes as dots and leaves the rest, as the MQTT plugin of RabbitMQ 3.10 does', () => {
  expect(rabbitmq('sensors/dev-1/temperature', '', '')).toBe('sensors.dev-1.temperature')
  expect(rabbitmq('a.b/c%', '', '')).toBe('a.b.c%')
})

describe('a template', () => {
  const key = (template: string, topic = 'site/7/dev.1/t') =>
    compileRoutingKey({ template, codec: 'escaped', gateway: 'gw.1' })(topic, 'client/1', 'user#1')

  test.each([
    ['{topic}', 'site.7.dev%2E1.t'],
    ['{topic.0}', 'site'],
    ['{topic.2}', 'dev%2E1'],
    ['{topic.9}', ''],
    ['{topic.1+}', '7.dev%2E1.t'],
    ['{topic.9+}', ''],
    ['{client}', 'client%2F1'],
    ['{user}', 'user%231'],
    ['{gateway}', 'gw%2E1'],
    ['iot.{gateway}.{topic.1+}.end', 'iot.gw%2E1.7.dev%2E1.t.end'],
    ['constant', 'constant'],
  ])('%s gives %s', (template, expected) => {
    expect(key(template)).toBe(expected)
  })

  test('with a placeholder that does not exist is a mistake of ours: the configuration refuses it', () => {
    expect(() => key('{nonsense}')).toThrow(TypeError)
  })
})

describe('a key above 255 bytes', () => {
  const long = (levels: number, level = 'x'.repeat(20)) => Array.from({ length: levels }, () => level).join('/')

  test('keeps leading words and ends in the SHA-256 of the whole key', () => {
    const topic = long(30)
    const whole = topic.replaceAll('/', '.')
    const key = escaped(topic, '', '')
    const [words, hash] = key.split('%sha256-')
    expect(hash).toBe(createHash('sha256').update(whole).digest('hex'))
    expect(words).toMatch(/^(x{20}\.)+$/)
    expect(whole.startsWith(words ?? 'nothing')).toBe(true)
  })

  test('fits for any topic, is equal for equal topics and differs for different ones', () => {
    fc.assert(
      fc.property(
        fc.string({ unit: 'grapheme', minLength: 200, maxLength: 400 }),
        fc.string({ unit: 'grapheme', minLength: 200, maxLength: 400 }),
        (one, other) => {
          const key = escaped(one, '', '')
          expect(Buffer.byteLength(key)).toBeLessThanOrEqual(ROUTING_KEY_BYTES)
          expect(escaped(one, '', '')).toBe(key)
          if (one !== other) expect(escaped(other, '', '')).not.toBe(key)
        },
      ),
    )
  })

  test('of one long word is the hash alone', () => {
    expect(escaped('y'.repeat(256), '', '')).toMatch(/^%sha256-[0-9a-f]{64}$/)
  })

  test('begins at 256 bytes, not at 255', () => {
    expect(escaped('y'.repeat(255), '', '')).toBe('y'.repeat(255))
  })
})
