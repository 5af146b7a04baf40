import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  isOwnStateKey,
  logKey,
  parseLogKey,
  parseReferencesKey,
  parseSegmentIndexKey,
  prefixRange,
  referencesKey,
  StatePrefix,
  segmentIndexKey,
  segmentIndexRange,
} from '../../../src/store/keys.ts'

const place = fc.record({
  commit: fc.maxSafeNat(),
  queue: fc.nat(0xffff_ffff),
  part: fc.nat(0xffff),
})

test('keys come back as what they were made of', () => {
  fc.assert(
    fc.property(place, ({ commit, queue, part }) => {
      expect(parseLogKey(logKey(commit, queue, part))).toEqual({ commit, queue, part })
      expect(parseSegmentIndexKey(segmentIndexKey(queue, { commit, part }))).toEqual({ commit, queue, part })
      expect(parseReferencesKey(referencesKey(commit, part))).toEqual({ commit, part })
    }),
  )
})

test('order of bytes is order in time: by commit, then queue, then part', () => {
  fc.assert(
    fc.property(place, place, (a, b) => {
      const numeric = a.commit - b.commit || a.queue - b.queue || a.part - b.part
      expect(Math.sign(logKey(a.commit, a.queue, a.part).compare(logKey(b.commit, b.queue, b.part)))).toBe(
        Math.sign(numeric),
      )
    }),
  )
})

test('the range of a queue holds all its segments and none of its neighbours', () => {
  const { gte, lt } = segmentIndexRange(0xff)
  const isInside = (queue: number, commit: number) => {
    const key = segmentIndexKey(queue, { commit, part: 0xffff })
    return key.compare(gte) >= 0 && key.compare(lt) < 0
  }
  expect([
    isInside(0xff, 0),
    isInside(0xff, Number.MAX_SAFE_INTEGER),
    isInside(0xfe, Number.MAX_SAFE_INTEGER),
    isInside(0x100, 0),
  ]).toEqual([true, true, false, false])
})

test('bytes that are no key are not taken for one', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 20 }), bytes => {
      const key = Buffer.from(bytes)
      const parsed = parseLogKey(key)
      if (parsed !== null) expect(logKey(parsed.commit, parsed.queue, parsed.part)).toEqual(key)
    }),
  )
})

test("core's prefixes differ from each other and from the store's own", () => {
  const prefixes = Object.values(StatePrefix)
  expect(new Set(prefixes).size).toBe(prefixes.length)
  for (const prefix of prefixes) expect(isOwnStateKey(Buffer.from([prefix]))).toBe(false)
})

test('a prefix that ends in 255 bytes still has an end', () => {
  expect(prefixRange(Buffer.from([1, 0xff, 0xff])).lt).toEqual(Buffer.from([2]))
})
