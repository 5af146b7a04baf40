import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { readVarint, varintEnd } from '../../../../src/protocol/mqtt/properties.ts'
import { varintBytes, writeVarint } from '../../../../src/protocol/mqtt/publish-frame.ts'
import { decodeText, isText } from '../../../../src/protocol/mqtt/text.ts'
import { isTopicAt, readFilter } from '../../../../src/protocol/mqtt/topic.ts'

test('variable byte integers come back as they were written, in the fewest bytes', () => {
  fc.assert(
    fc.property(fc.nat(268_435_455), value => {
      const bytes = Buffer.alloc(8, 0xff)
      const end = writeVarint(bytes, 1, value)
      expect(end - 1).toBe(varintBytes(value))
      expect(varintEnd(bytes, 1, 8)).toBe(end)
      expect(readVarint(bytes, 1)).toBe(value)
    }),
  )
})

test('a topic is found where it stands and nowhere else', () => {
  const topic = Buffer.from('a/b')
  const bytes = Buffer.from('xa/by')
  expect(isTopicAt(topic, bytes, 1, 4)).toBe(true)
  expect(isTopicAt(topic, bytes, 0, 3)).toBe(false)
  expect(isTopicAt(topic, bytes, 1, 5)).toBe(false)
})

describe('text', () => {
  test('agrees with a strict decoder on any bytes, but for U+0000', () => {
    const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 12 }), part => {
        const bytes = Buffer.from(part)
        let expected: string | null
        try {
          expected = strict.decode(bytes)
        } catch {
          // Not valid UTF-8.
          expected = null
        }
        if (expected?.includes('\0') === true) expected = null
        expect(decodeText(bytes, 0, bytes.length)).toBe(expected)
      }),
      { numRuns: 2000 },
    )
  })

  test('keeps U+FEFF where it stands [MQTT-1.5.4-3]', () => {
    expect(decodeText(Buffer.from('\ufeffa\ufeff'), 0, 7)).toBe('\ufeffa\ufeff')
  })

  test('finds U+0000 behind letters of several bytes', () => {
    const bytes = Buffer.from('ä\0')
    expect(isText(bytes, 0, 2)).toBe(true)
    expect(isText(bytes, 0, 3)).toBe(false)
  })
})

test('levels and bytes of a filter are counted up to their limits', () => {
  const limits = { topicBytes: 8, topicLevels: 3 }
  expect(readFilter('a/b/c', limits)).toEqual({ kind: 'topics' })
  expect(readFilter('a/b/c/d', limits)).toMatchObject({ kind: 'refused', reason: 0x8f })
  expect(readFilter('äöüß', limits)).toEqual({ kind: 'topics' })
  expect(readFilter('äöüßa', limits)).toMatchObject({ kind: 'refused', reason: 0x8f })
})
