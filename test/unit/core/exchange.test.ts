import { describe, expect, it } from 'vitest'
import type { Binding } from '../../../src/core/binding.ts'
import { Exchange, type ExchangeKind, type Headers } from '../../../src/core/exchange.ts'
import type { HeadersMatch, HeaderValue } from '../../../src/core/exchanges/headers.ts'
import { MQTT_DIALECT } from '../../../src/core/topic-tree.ts'

const bindingOf = (pattern: string, headers?: Binding['headers']): Binding => ({
  pattern,
  destination: { live: null, queue: null },
  maxQos: 2,
  note: 0,
  ...(headers === undefined ? {} : { headers }),
})

const exchangeOf = (kind: ExchangeKind, dialect = undefined as typeof MQTT_DIALECT | undefined): Exchange =>
  new Exchange({ name: 'x', kind, isDurable: true, isInternal: false, alternate: null }, dialect)

/** Patterns of the bindings a key goes over. */
function matched(exchange: Exchange, key: string, headers: Headers = new Map()): string[] {
  const found: string[] = []
  exchange.matcher.match(key, headers, ({ pattern }) => found.push(pattern))
  return found.toSorted()
}

function bound(exchange: Exchange, ...patterns: string[]): Exchange {
  for (const pattern of patterns) exchange.matcher.bind(bindingOf(pattern))
  return exchange
}

describe('a direct exchange', () => {
  it('takes the bindings whose key is the routing key, letter by letter', () => {
    const exchange = bound(exchangeOf('direct'), 'a.b', 'a.*', '#', '', 'A.B')
    expect(matched(exchange, 'a.b')).toEqual(['a.b'])
    expect(matched(exchange, 'a.*')).toEqual(['a.*'])
    expect(matched(exchange, '')).toEqual([''])
    expect(matched(exchange, '__proto__')).toEqual([])
  })
})

describe('a fanout exchange', () => {
  it('takes every binding whatever the key', () => {
    expect(matched(bound(exchangeOf('fanout'), 'a', '', 'b'), 'anything')).toEqual(['', 'a', 'b'])
  })
})

describe('a topic exchange', () => {
  it.each([
    ['a.b', ['#', 'a.#', 'a.#.b', 'a.*', 'a.b']],
    ['a', ['#', 'a.#']],
    ['a.x.y.b', ['#', 'a.#', 'a.#.b']],
    ['', ['#']],
    ['a/b', ['#']],
  ])('takes %j over the patterns of AMQP, # in the middle too', (key, patterns) => {
    expect(matched(bound(exchangeOf('topic'), '#', 'a.#', 'a.#.b', 'a.*', 'a.b', '+'), key)).toEqual(patterns)
  })

  it('reads filters in the dialect of MQTT where it is told so', () => {
    const exchange = bound(exchangeOf('topic', MQTT_DIALECT), '#', 'a/+', 'a.b', 'a/*')
    expect(matched(exchange, 'a/b')).toEqual(['#', 'a/+'])
    expect(matched(exchange, '$SYS/b')).toEqual([])
  })
})

describe('a headers exchange', () => {
  const headers = new Map<string, HeaderValue>([
    ['site', 'A'],
    ['kind', 'alarm'],
    ['x-zone', '7'],
  ])
  const values: Record<string, Record<string, HeaderValue>> = {
    'both found': { site: 'A', kind: 'alarm' },
    'one of two found': { site: 'A', kind: 'reading' },
    'none found': { site: 'B' },
    'found, and an x- one that is not': { site: 'A', 'x-zone': '8' },
    'not found, and an x- one that is': { site: 'B', 'x-zone': '7' },
    'only an x- one that is found': { 'x-zone': '7' },
    'only an x- one that is not': { 'x-zone': '8' },
    'present whatever its value': { site: null },
    'absent whatever its value': { line: null },
    'of another type': { 'x-zone': 7, site: true },
    nothing: {},
    'a name of Object’s own': { constructor: 'A' },
  }
  const expected: Record<HeadersMatch, string[]> = {
    all: [
      'both found',
      'found, and an x- one that is not',
      'only an x- one that is found',
      'only an x- one that is not',
      'present whatever its value',
      'nothing',
    ],
    any: ['both found', 'one of two found', 'found, and an x- one that is not', 'present whatever its value'],
    'all-with-x': ['both found', 'only an x- one that is found', 'present whatever its value', 'nothing'],
    'any-with-x': [
      'both found',
      'one of two found',
      'found, and an x- one that is not',
      'not found, and an x- one that is',
      'only an x- one that is found',
      'present whatever its value',
    ],
  }

  it.each(Object.keys(expected) as HeadersMatch[])('with x-match %s', match => {
    const exchange = exchangeOf('headers')
    for (const [pattern, wanted] of Object.entries(values)) {
      exchange.matcher.bind(bindingOf(pattern, { match, values: new Map(Object.entries(wanted)) }))
    }
    expect(matched(exchange, 'ignored', headers)).toEqual(expected[match].toSorted())
  })

  it('takes everything over a binding without arguments', () => {
    expect(matched(bound(exchangeOf('headers'), 'plain'), 'k')).toEqual(['plain'])
  })
})

describe.each(['direct', 'topic', 'fanout', 'headers'] as const)('every exchange, a %s one too,', kind => {
  it('lets go of that very binding and of no other with the same key', () => {
    const { matcher } = exchangeOf(kind)
    const [one, other] = [bindingOf('a'), bindingOf('a')]
    matcher.bind(one)
    matcher.bind(other)
    expect(matcher.size).toBe(2)
    expect(matcher.unbind(one)).toBe(true)
    expect(matcher.unbind(one)).toBe(false)
    const found: Binding[] = []
    matcher.match('a', new Map(), binding => found.push(binding))
    expect(found).toHaveLength(1)
    expect(found[0]).toBe(other)
    expect(matcher.size).toBe(1)
  })
})
