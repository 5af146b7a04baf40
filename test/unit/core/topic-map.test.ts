import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { TopicMap, type TopicWalk } from '../../../src/core/topic-map.ts'
import { MQTT_DIALECT, TopicTree } from '../../../src/core/topic-tree.ts'

interface Value {
  readonly topic: string
}

const ALL_STEPS = Number.MAX_SAFE_INTEGER

function mapOf(...topics: readonly string[]): TopicMap<Value> {
  const map = new TopicMap<Value>()
  for (const topic of topics) map.set(topic, { topic })
  return map
}

function rest(walk: TopicWalk<Value>, steps = ALL_STEPS): string[] {
  const found: string[] = []
  while (!walk.isDone) {
    const value = walk.next(steps)
    if (value !== null) found.push(value.topic)
  }
  return found
}

const matched = (map: TopicMap<Value>, filter: string, steps?: number): string[] =>
  rest(
    map.walk(filter, () => true),
    steps,
  ).sort()

/** What matching means is said by the tree that routes messages. */
function matches(filter: string, topic: string): boolean {
  const tree = new TopicTree<null>(MQTT_DIALECT)
  tree.add(filter, null)
  let isMatched = false
  tree.match(topic, () => {
    isMatched = true
  })
  return isMatched
}

const level = fc.constantFrom('a', 'b', 'ab', '', '$x', '__proto__')
const topics = fc
  .array(level, { minLength: 1, maxLength: 5 })
  .map(levels => levels.join('/'))
  .filter(topic => topic !== '')
const filters = fc
  .tuple(fc.array(fc.oneof(level, fc.constant('+')), { minLength: 1, maxLength: 5 }), fc.boolean())
  .map(([levels, isMulti]) => (isMulti ? [...levels.slice(1), '#'] : levels).join('/'))
  .filter(filter => filter !== '')

describe('TopicMap', () => {
  it.each([
    ['sport/tennis/player1/#', 'sport/tennis/player1', true],
    ['sport/tennis/player1/#', 'sport/tennis/player1/score/wimbledon', true],
    ['sport/#', 'sport', true],
    ['sport/#', 'sports', false],
    ['sport/tennis/+', 'sport/tennis/player1/ranking', false],
    ['sport/+', 'sport', false],
    ['sport/+', 'sport/', true],
    ['+/+', '/finance', true],
    ['+', '/finance', false],
    ['#', '$SYS/broker', false],
    ['+/broker', '$SYS/broker', false],
    ['$SYS/#', '$SYS/broker/load', true],
  ])('filter %s and topic %s: %s [MQTT-4.7.1-2], 3.1.1 [MQTT-4.7.1-3], [MQTT-4.7.2-1]', (filter, topic, expected) => {
    expect(matched(mapOf(topic), filter)).toEqual(expected ? [topic] : [])
  })

  it('finds exactly the topics whose messages a subscription would get, also after removals', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(topics, { maxLength: 20 }),
        fc.array(filters, { maxLength: 8 }),
        fc.infiniteStream(fc.boolean()),
        (held, sought, keep) => {
          const map = mapOf(...held)
          const left = held.filter(topic => keep.next().value || !map.delete(topic))
          expect(map.size).toBe(left.length)
          expect([...map.values()].map(({ topic }) => topic).sort()).toEqual([...left].sort())
          for (const topic of held) expect(map.get(topic)?.topic).toBe(left.includes(topic) ? topic : undefined)
          for (const filter of sought) {
            expect(matched(map, filter, 1)).toEqual(left.filter(topic => matches(filter, topic)).sort())
          }
        },
      ),
      { numRuns: 1000 },
    )
  })

  it('a walk that pauses finds each topic once that is there all the time, whatever comes and goes', () => {
    const change = fc.record({ after: fc.nat({ max: 12 }), topic: topics, isRemoved: fc.boolean() })
    fc.assert(
      fc.property(fc.uniqueArray(topics, { maxLength: 20 }), filters, fc.array(change), (held, filter, changes) => {
        const map = mapOf(...held)
        const touched = new Set(changes.map(({ topic }) => topic))
        const walk = map.walk(filter, ({ topic }) => !touched.has(topic))
        const found: string[] = []
        for (let step = 0; !walk.isDone; step++) {
          const value = walk.next(1)
          if (value !== null) found.push(value.topic)
          for (const { after, topic, isRemoved } of changes) {
            if (after !== step) continue
            if (isRemoved) map.delete(topic)
            else map.set(topic, { topic })
          }
        }
        const there = held.filter(topic => !touched.has(topic) && matches(filter, topic))
        expect(found.sort()).toEqual(there.sort())
      }),
      { numRuns: 1000 },
    )
  })

  it('no filter makes a walk visit a node twice, however many wildcards it has and however deep the topics are', () => {
    const map = mapOf()
    for (let n = 0; n < 2000; n++) {
      const topic = `${n % 10}/${Array.from({ length: 100 }, (_, level) => (level === n % 50 ? 'b' : 'a')).join('/')}/${n}`
      map.set(topic, { topic })
    }
    const plus = Array.from({ length: 101 }, () => '+').join('/')
    for (const [filter, found] of [
      [`${plus}/#`, 2000],
      [`${plus}/+/+`, 0],
      [`+/+/+/a/${plus}/#`, 0],
      ['#', 2000],
    ] as const) {
      const walk = map.walk(filter, () => true)
      expect(rest(walk)).toHaveLength(found)
      // Each node once, and once more to leave it.
      expect(walk.visited).toBeLessThan(2 * 2 * 2000 + 10)
    }
  })

  it('keeps no trace of what was removed: topics as deep as they may be cost two nodes each', () => {
    const map = mapOf('a/b/c')
    const deep = Array.from({ length: 128 }, () => 'x')
    for (let levels = 1; levels <= deep.length; levels++) {
      const topic = deep.slice(0, levels).join('/')
      map.set(topic, { topic })
    }
    for (let levels = 1; levels < deep.length; levels++) map.delete(deep.slice(0, levels).join('/'))
    let steps = 0
    const walk = map.walk('x/#', () => true)
    for (; !walk.isDone; steps++) walk.next(1)
    expect(steps).toBeLessThan(10)
  })
})
