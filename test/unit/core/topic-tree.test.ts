import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AMQP_DIALECT, type Dialect, MQTT_DIALECT, TopicTree } from '../../../src/core/topic-tree.ts'

/** The definition of matching, word by word, without a tree. */
function matches(pattern: string, key: string, dialect: Dialect): boolean {
  const words = pattern.split(dialect.separator)
  if (dialect.hidden !== null && key.startsWith(dialect.hidden)) {
    if (words[0] === dialect.single || words[0] === dialect.multi) return false
  }
  const walk = (p: readonly string[], k: readonly string[]): boolean => {
    const [head, ...rest] = p
    if (head === undefined) return k.length === 0
    if (head === dialect.multi) return walk(rest, k) || (k.length > 0 && walk(p, k.slice(1)))
    if (k.length === 0) return false
    return (head === dialect.single || head === k[0]) && walk(rest, k.slice(1))
  }
  return walk(words, key.split(dialect.separator))
}

function matched(tree: TopicTree<string>, key: string): string[] {
  const found: string[] = []
  tree.match(key, value => found.push(value))
  return found.sort()
}

describe('TopicTree', () => {
  it.each([
    ['sport/tennis/player1/#', 'sport/tennis/player1', true],
    ['sport/tennis/player1/#', 'sport/tennis/player1/score/wimbledon', true],
    ['sport/#', 'sport', true],
    ['#', 'sport/tennis', true],
    ['sport/tennis/+', 'sport/tennis/player1', true],
    ['sport/tennis/+', 'sport/tennis/player1/ranking', false],
    ['sport/+', 'sport', false],
    ['sport/+', 'sport/', true],
    ['+/+', '/finance', true],
    ['/+', '/finance', true],
    ['+', '/finance', false],
    ['#', '$SYS/broker', false],
    ['+/broker', '$SYS/broker', false],
    ['$SYS/#', '$SYS/broker/load', true],
    ['$SYS/+', '$SYS/broker', true],
    ['a/constructor/__proto__', 'a/constructor/__proto__', true],
    ['a/+', 'a/__proto__', true],
  ])('MQTT filter %s and topic %s: %s [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1]', (filter, topic, expected) => {
    const tree = new TopicTree<string>(MQTT_DIALECT)
    tree.add(filter, filter)
    expect(matched(tree, topic)).toEqual(expected ? [filter] : [])
  })

  for (const [name, dialect] of [
    ['MQTT', MQTT_DIALECT],
    ['AMQP', AMQP_DIALECT],
  ] as const) {
    const word = fc.constantFrom('a', 'b', '', '$x')
    const patternWord = fc.oneof(word, fc.constantFrom(dialect.single, dialect.multi))
    const keys = fc.array(word, { minLength: 1, maxLength: 5 }).map(words => words.join(dialect.separator))
    const patterns = fc.array(patternWord, { minLength: 1, maxLength: 5 }).map(words => words.join(dialect.separator))

    it(`finds in ${name} dialect exactly the patterns that match, also after removals`, () => {
      fc.assert(
        fc.property(
          fc.uniqueArray(patterns, { maxLength: 12 }),
          fc.array(keys, { maxLength: 8 }),
          fc.infiniteStream(fc.boolean()),
          (held, sought, keep) => {
            const tree = new TopicTree<string>(dialect)
            for (const pattern of held) tree.add(pattern, pattern)
            const left = held.filter(pattern => keep.next().value || !tree.remove(pattern, pattern))
            expect(tree.size).toBe(left.length)
            for (const key of sought) {
              expect(matched(tree, key)).toEqual(left.filter(pattern => matches(pattern, key, dialect)).sort())
            }
          },
        ),
        { numRuns: 500 },
      )
    })
  }

  it('stays fast on patterns made to explode: `#` many times over', () => {
    const tree = new TopicTree<string>(AMQP_DIALECT)
    tree.add(Array.from({ length: 60 }, () => '#.a').join('.'), 'bomb')
    const started = performance.now()
    expect(matched(tree, Array.from({ length: 120 }, () => 'a').join('.'))).toEqual(['bomb'])
    expect(performance.now() - started).toBeLessThan(250)
  })

  it('removes only the value asked for and knows when it was not there', () => {
    const tree = new TopicTree<object>(MQTT_DIALECT)
    const one = {}
    const two = {}
    tree.add('a/+', one)
    tree.add('a/+', two)
    expect(tree.remove('a/+', one)).toBe(true)
    expect(tree.remove('a/+', one)).toBe(false)
    expect(tree.remove('a/#', two)).toBe(false)
    const found: object[] = []
    tree.match('a/b', value => found.push(value))
    expect(found).toEqual([two])
  })
})
