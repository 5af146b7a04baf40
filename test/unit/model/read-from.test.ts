import { expect, test } from 'vitest'
import { parseReadFrom } from '../../../src/model/read-from.ts'

test.each([
  ['first', 'first'],
  ['last', 'last'],
  ['next', 'next'],
  ['0', { sequence: 0 }],
  ['123456789012345', { sequence: 123_456_789_012_345 }],
  ['2026-07-01T12:00:00Z', { timeMs: Date.UTC(2026, 6, 1, 12) }],
  ['2026-07-01T12:00Z', { timeMs: Date.UTC(2026, 6, 1, 12) }],
  ['2026-07-01T12:00:00.250Z', { timeMs: Date.UTC(2026, 6, 1, 12, 0, 0, 250) }],
])('%s is a place to read from', (text, from) => expect(parseReadFrom(text)).toEqual(from))

test.each([
  '',
  'First',
  '-1',
  '1.5',
  '1234567890123456',
  'tomorrow',
  '2026-07-01',
  '2026-07-01T12:00:00',
  '2026-07-01T12:00:00+02:00',
  '2026-06-31T12:00:00Z',
  '2026-13-01T12:00:00Z',
  '2026-07-01T25:00:00Z',
  '__proto__',
])('%j is none', text => expect(parseReadFrom(text)).toBeNull())
