import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatDuration, formatSize, parseDuration, parseSize } from '../../../src/model/quantity.ts'

describe('durations', () => {
  test.each([
    ['250ms', 250],
    ['30s', 30_000],
    ['1.5s', 1500],
    ['5m', 300_000],
    ['1h', 3_600_000],
    ['7d', 604_800_000],
    ['30 s', 30_000],
    [' 30s ', 30_000],
    ['0s', 0],
    ['0', 0],
    ['0.1s', 100],
  ])('%j is %i ms', (text, expected) => {
    expect(parseDuration(text)).toBe(expected)
  })

  test.each(['30', '', 's', '-1s', '1e3s', '30sec', '30 S', '1h30m', 'NaN s', '1,5s', '0x10s', '٣s'])(
    '%j is refused with what is accepted',
    text => {
      expect(() => parseDuration(text)).toThrow(
        /is not a duration; accepted is a number with a unit \(ms, s, m, h, d\)/,
      )
    },
  )

  test('half of a millisecond and more than can be counted exactly are refused', () => {
    expect(() => parseDuration('0.5ms')).toThrow(/too fine or too large/)
    expect(() => parseDuration('999999999999d')).toThrow(/too fine or too large/)
  })

  test('every duration is read back from its text', () => {
    fc.assert(
      fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER }), durationMs => {
        expect(parseDuration(formatDuration(durationMs))).toBe(durationMs)
      }),
    )
  })

  test('the text uses the largest unit that fits exactly', () => {
    expect([0, 250, 90_000, 3_600_000, 604_800_000].map(formatDuration)).toEqual(['0', '250ms', '90s', '1h', '7d'])
  })
})

describe('sizes', () => {
  test.each([
    ['64MiB', 67_108_864],
    ['128B', 128],
    ['1.5KiB', 1536],
    ['2GiB', 2_147_483_648],
    ['0', 0],
  ])('%j is %i bytes', (text, expected) => {
    expect(parseSize(text)).toBe(expected)
  })

  test.each(['64', '64MB', '64mib', '1.0001B', '-1B', '1 000B'])('%j is refused', text => {
    expect(() => parseSize(text)).toThrow(/accepted is a number with a unit \(B, KiB, MiB, GiB, TiB\)/)
  })

  test('every size is read back from its text', () => {
    fc.assert(
      fc.property(fc.nat({ max: Number.MAX_SAFE_INTEGER }), bytes => {
        expect(parseSize(formatSize(bytes))).toBe(bytes)
      }),
    )
  })
})
