import { expect, test } from 'vitest'
import { nearestWord } from '../../../src/config/nearest.ts'

test.each([
  ['prot', 'port'],
  ['PORT', 'port'],
  ['hots', 'host'],
  ['listners', 'listeners'],
  ['hostname', 'host'],
  ['commit', 'commit_interval'],
  ['x', null],
  ['completely', null],
  ['', null],
])('%j probably means %j', (word, expected) => {
  expect(nearestWord(word, ['host', 'port', 'listeners', 'commit_interval'])).toBe(expected)
})
