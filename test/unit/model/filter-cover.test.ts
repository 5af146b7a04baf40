import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { covers, filterLevels, overlaps } from '../../../src/model/filter-cover.ts'

/** Whether a filter matches a topic, level by level, as section 4.7 of the standard says. */
function matches(filter: string, topic: string): boolean {
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  const levels = topic.split('/')
  const patterns = filter.split('/')
  for (const [at, pattern] of patterns.entries()) {
    if (pattern === '#') return levels.length >= at
    if (levels[at] === undefined || (pattern !== '+' && pattern !== levels[at])) return false
  }
  return levels.length === patterns.length
}

/** Everything of one to `depth` levels, each of them one of these. */
function allOf(words: readonly string[], depth: number): string[] {
  let texts = [...words]
  const all = [...texts]
  for (let levels = 1; levels < depth; levels++) {
    texts = texts.flatMap(text => words.map(word => `${text}/${word}`))
    all.push(...texts)
  }
  return all.filter(text => text !== '')
}

const isFilter = (text: string): boolean => !/#\//.test(text)
const coversText = (pattern: string, filter: string): boolean => covers(filterLevels(pattern), filterLevels(filter))
const overlapsText = (a: string, b: string): boolean => overlaps(filterLevels(a), filterLevels(b))

// A word that no filter has stands for all of those; topics are a level deeper than filters, so that "and everything below" shows.
const WORDS = ['a', '', '$a']
const TOPICS = allOf([...WORDS, 'other'], 4)
const FILTERS = allOf([...WORDS, '+', '#'], 3).filter(isFilter)

describe('filters against each other', () => {
  it.each([
    ['sensors/#', 'sensors', true],
    ['sensors/#', 'sensors/+/temperature', true],
    ['sensors/+', 'sensors/#', false],
    ['sensors/+', 'sensors', false],
    ['sensors/+/#', 'sensors/#', false],
    ['+/#', '#', true],
    ['#', '+/#', true],
    ['#', '+', true],
    ['+', '#', false],
    ['#', '$SYS/#', false],
    ['+/broker', '$SYS/broker', false],
    ['$SYS/#', '$SYS/broker/+', true],
    ['a/+', 'a/$b', true],
    ['a', 'a/', false],
    ['+', '/', false],
    ['/+/#', '/#', true],
  ])('%s covers %s: %s [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1]', (pattern, filter, expected) => {
    expect(coversText(pattern, filter)).toBe(expected)
  })

  it.each([
    ['private/#', '#', true],
    ['private/#', '+', true],
    ['private/#', '+/+', true],
    ['a/+/c', 'a/b/+', true],
    ['a/+/c', 'a/b', false],
    ['#', '$SYS/#', false],
    ['+/x', '$SYS/x', false],
    ['a/b/#', 'a/#', true],
    ['a/b', 'a/c', false],
    ['/#', '+', false],
  ])('%s overlaps %s: %s', (a, b, expected) => {
    expect(overlapsText(a, b)).toBe(expected)
    expect(overlapsText(b, a)).toBe(expected)
  })

  it('agree with the topics they match, for all filters of three levels', () => {
    const matched = new Map(FILTERS.map(filter => [filter, TOPICS.filter(topic => matches(filter, topic))]))
    const wrong: string[] = []
    for (const [a, ofA] of matched) {
      const isOfA = new Set(ofA)
      for (const [b, ofB] of matched) {
        if (coversText(a, b) !== ofB.every(topic => isOfA.has(topic))) wrong.push(`${a} covers ${b}`)
        if (overlapsText(a, b) !== ofB.some(topic => isOfA.has(topic))) wrong.push(`${a} overlaps ${b}`)
      }
    }
    expect(wrong).toEqual([])
  })

  it('agree with the topics they match, for any deeper ones', () => {
    const words = fc.constantFrom('a', 'b', '', '$a')
    const filters = fc
      .array(fc.oneof(words, fc.constantFrom('+', '#')), { minLength: 1, maxLength: 6 })
      .map(levels => levels.join('/'))
      .filter(text => text !== '' && isFilter(text))
    const topics = fc
      .array(words, { minLength: 1, maxLength: 7 })
      .map(levels => levels.join('/'))
      .filter(text => text !== '')
    fc.assert(
      fc.property(filters, filters, topics, (a, b, topic) => {
        const [isOfA, isOfB] = [matches(a, topic), matches(b, topic)]
        if (coversText(a, b) && isOfB) expect(isOfA).toBe(true)
        if (isOfA && isOfB) expect(overlapsText(a, b)).toBe(true)
        expect(coversText(a, topic)).toBe(isOfA)
      }),
      { numRuns: 5000 },
    )
  })
})
