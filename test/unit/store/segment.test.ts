import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { recordBytes, recordSeq } from '../../../src/model/message.ts'
import { countBits, hasBit } from '../../../src/store/bytes.ts'
import { decodeDelta, encodeDelta } from '../../../src/store/delta.ts'
import { logKey } from '../../../src/store/keys.ts'
import {
  checkRecord,
  readBodyParts,
  readSegmentEntries,
  readSegmentHeader,
  SegmentEncoder,
} from '../../../src/store/segment.ts'
import { decodeIndexEntry, encodeIndexEntry, unsettledOf } from '../../../src/store/segment-index.ts'
import { offsetOf, partOf, SharedBodies } from '../../../src/store/shared-bodies.ts'
import { sealValue, unsealValue } from '../../../src/store/state.ts'
import { ABSENT } from '../../../src/store/types.ts'
import { bitmapOf, recordOf, segmentOf } from '../../support/store-kit.ts'

const KEY = logKey(7, 3, 1)
const NAME = Buffer.from('telemetry')

function encode(records: (Buffer | null)[], { isShared = false, note = 9 } = {}) {
  const bodies = new SharedBodies()
  const write = segmentOf({ queue: 3, first: 100, records, isShared, note })
  const encoded = new SegmentEncoder().encode(KEY, write, NAME, 55, bodies)
  return { ...encoded, value: Buffer.from(encoded.value), bodies: bodies.finish() }
}

const entries = fc.array(fc.option(fc.nat(3000), { nil: null }), { minLength: 1, maxLength: 40 })

describe('a segment', () => {
  test('comes back with every entry that was present, its note and its record, whatever was left out', () => {
    fc.assert(
      fc.property(entries, fc.boolean(), (lengths, isShared) => {
        const records = lengths.map((length, seq) => (length === null ? null : recordOf(seq, 1, length)))
        const { value, present, bodies } = encode(records, { isShared })
        const header = readSegmentHeader(KEY, value)
        expect(header).toMatchObject({
          queue: 3,
          name: 'telemetry',
          first: 100,
          count: records.length,
          present,
          firstRecord: 55,
        })
        if (header === null) return
        const read = readSegmentEntries(value, header, null)
        for (const [entry, record] of records.entries()) {
          const offset = read.offsets[entry] ?? 0
          if (record === null) {
            expect(offset).toBe(ABSENT)
            continue
          }
          const part = read.parts?.[entry] ?? 0
          const bytes = part === 0 ? value : (bodies[part - 1] ?? Buffer.alloc(0))
          expect(part > 0).toBe(isShared)
          expect(checkRecord(bytes, offset, read.lengths[entry] ?? 0)).toBe(true)
          expect(bytes.subarray(offset + 8, offset + record.length)).toEqual(record.subarray(8))
          expect(recordBytes(bytes, offset)).toBe(record.length)
          expect(read.notes[entry]).toBe(9)
        }
      }),
    )
  })

  test('does not hand out what is settled', () => {
    const { value } = encode([recordOf(0, 1), recordOf(1, 1), recordOf(2, 1)])
    const header = readSegmentHeader(KEY, value)
    if (header === null) throw new Error('no header')
    const { offsets, lengths } = readSegmentEntries(value, header, bitmapOf(3, [1]))
    expect([...offsets].map(offset => offset !== ABSENT)).toEqual([true, false, true])
    expect(recordSeq(value, offsets[2] ?? 0)).toBe(2)
    expect(lengths[1]).toBe(0)
  })

  test('with one bit flipped loses no more than the record the bit is in, and never returns a changed one', () => {
    const records = [recordOf(0, 1, 40), recordOf(1, 1, 300), recordOf(2, 1, 20)]
    const { value } = encode(records)
    const sound = readSegmentHeader(KEY, value)
    if (sound === null) throw new Error('no header')
    for (let bit = 0; bit < value.length * 8; bit++) {
      const damaged = Buffer.from(value)
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const header = readSegmentHeader(KEY, damaged)
      if (bit >> 3 < sound.headerBytes) {
        expect(header).toBeNull()
        continue
      }
      if (header === null) throw new Error(`bit ${bit} of a record broke the header`)
      const { offsets, lengths } = readSegmentEntries(damaged, header, null)
      const intact = records.filter((record, entry) => {
        const offset = offsets[entry] ?? 0
        if (!checkRecord(damaged, offset, lengths[entry] ?? 0)) return false
        expect(damaged.subarray(offset + 8, offset + record.length)).toEqual(record.subarray(8))
        return true
      })
      expect(intact.length).toBeGreaterThanOrEqual(2)
    }
  })

  test('stored under another key is not taken for sound', () => {
    expect(readSegmentHeader(logKey(7, 4, 1), encode([recordOf(0, 1)]).value)).toBeNull()
  })

  test('cut anywhere is damaged, not a crash', () => {
    const { value } = encode([recordOf(0, 1, 40), recordOf(1, 1, 40)])
    for (let length = 0; length < value.length; length++) {
      const cut = value.subarray(0, length)
      const header = readSegmentHeader(KEY, cut)
      if (header === null) continue
      const { offsets, lengths } = readSegmentEntries(cut, header, null)
      expect([0, 1].every(entry => checkRecord(cut, offsets[entry] ?? 0, lengths[entry] ?? 0))).toBe(false)
    }
  })

  test('larger than the memory kept between commits is encoded all the same, beside others of its commit', () => {
    const encoder = new SegmentEncoder()
    const bodies = new SharedBodies()
    const large = recordOf(1, 1, 700_000)
    const first = encoder.encode(KEY, segmentOf({ queue: 3, first: 0, records: [recordOf(0, 1)] }), NAME, 0, bodies)
    const second = encoder.encode(
      KEY,
      segmentOf({ queue: 3, first: 1, records: [large, recordOf(2, 1)] }),
      NAME,
      1,
      bodies,
    )
    for (const [{ value }, count] of [[first, 1] as const, [second, 2] as const]) {
      const header = readSegmentHeader(KEY, value)
      if (header === null) throw new Error('no header')
      const { offsets, lengths } = readSegmentEntries(value, header, null)
      expect([...offsets].filter((offset, entry) => checkRecord(value, offset, lengths[entry] ?? 0))).toHaveLength(
        count,
      )
    }
  })
})

describe('shared bodies', () => {
  test('are kept once for all segments of a commit', () => {
    const bodies = new SharedBodies()
    const record = recordOf(5, 1)
    const place = bodies.place(record, 0)
    expect(bodies.place(Buffer.concat([Buffer.alloc(3), record]), 3)).toBe(place)
    expect(bodies.finish().map(part => part.length)).toEqual([record.length])
  })

  test('do not mix up different bytes under the same id', () => {
    const bodies = new SharedBodies()
    bodies.place(recordOf(5, 1, 100), 0)
    expect(bodies.place(recordOf(5, 1, 101), 0)).toBeNull()
    expect(bodies.place(recordOf(5, 2, 101), 0)).not.toBeNull()
  })

  test('begin a new part at 256 KiB, and a record larger than that gets its own', () => {
    const bodies = new SharedBodies()
    const places = [1, 2, 3, 4].map(seq => bodies.place(recordOf(seq, 1, seq === 3 ? 400_000 : 150_000), 0) ?? 0)
    expect(places.map(partOf)).toEqual([1, 2, 3, 4])
    expect(places.map(offsetOf)).toEqual([0, 0, 0, 0])
    const write = segmentOf({
      queue: 3,
      first: 0,
      records: [recordOf(2, 1, 150_000), recordOf(4, 1, 150_000)],
      isShared: true,
    })
    const { value } = new SegmentEncoder().encode(KEY, write, NAME, 0, bodies)
    const header = readSegmentHeader(KEY, value)
    expect(header === null ? [] : readBodyParts(value, header)).toEqual([2, 4])
  })
})

describe('a delta', () => {
  const change = fc.record({
    key: fc.uint8Array({ minLength: 1, maxLength: 30 }).map(bytes => Buffer.from(bytes)),
    value: fc.option(
      fc.uint8Array({ maxLength: 60 }).map(bytes => Buffer.from(bytes)),
      { nil: null },
    ),
  })
  const delta = fc.record({
    firstRecord: fc.nat(),
    records: fc.nat(1000),
    unsettled: fc.nat(),
    boot: fc.nat(),
    changes: fc.array(change, { maxLength: 20 }),
  })

  test('comes back as it was', () => {
    fc.assert(
      fc.property(delta, value => {
        expect(decodeDelta(KEY, encodeDelta(KEY, value))).toEqual(value)
      }),
    )
  })

  test('with any bit flipped is damaged', () => {
    const bytes = encodeDelta(KEY, {
      firstRecord: 5,
      records: 2,
      unsettled: 9,
      boot: 1,
      changes: [{ key: Buffer.from('lx'), value: Buffer.from('v') }],
    })
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const damaged = Buffer.from(bytes)
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(decodeDelta(KEY, damaged)).toBeNull()
    }
    for (let length = 0; length < bytes.length; length++) expect(decodeDelta(KEY, bytes.subarray(0, length))).toBeNull()
  })
})

describe('an index entry', () => {
  const entry = fc.integer({ min: 1, max: 200 }).chain(count =>
    fc.record({
      first: fc.maxSafeNat().map(n => n % 2 ** 47),
      count: fc.constant(count),
      present: fc.nat(count),
      bytes: fc.nat(),
      firstRecord: fc.nat(),
      bodyParts: fc.array(fc.nat(0xffff), { maxLength: 4 }),
      settled: fc.option(fc.uint8Array({ minLength: (count + 7) >> 3, maxLength: (count + 7) >> 3 }), { nil: null }),
    }),
  )

  test('comes back as it was, and counts what is left', () => {
    fc.assert(
      fc.property(entry, value => {
        const read = decodeIndexEntry(encodeIndexEntry(value))
        expect(
          read === null ? null : { ...read, settled: read.settled === null ? null : new Uint8Array(read.settled) },
        ).toEqual(value)
        const settled = value.settled
        let left = 0
        for (let at = 0; at < value.count; at++) if (settled !== null && !hasBit(settled, at)) left++
        expect(unsettledOf(value)).toBe(settled === null ? value.present : left)
      }),
    )
  })

  test('of the wrong length is damaged', () => {
    expect(decodeIndexEntry(Buffer.alloc(25))).toBeNull()
    expect(decodeIndexEntry(Buffer.alloc(27))).toBeNull()
  })
})

test('bits beyond the count of a bitmap do not count', () => {
  expect([0, 1, 7, 8, 9, 15].map(count => countBits(Uint8Array.of(0xff, 0xff), count))).toEqual([0, 1, 7, 8, 9, 15])
})

test('a value of state/ under another key, or with a bit flipped, is damaged', () => {
  const key = Buffer.from('l1')
  const sealed = sealValue(key, Buffer.from('value'))
  expect(unsealValue(key, sealed)).toEqual(Buffer.from('value'))
  expect(unsealValue(Buffer.from('l2'), sealed)).toBeNull()
  for (let bit = 0; bit < sealed.length * 8; bit++) {
    const damaged = Buffer.from(sealed)
    damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    expect(unsealValue(key, damaged)).toBeNull()
  }
  expect(unsealValue(key, Buffer.alloc(3))).toBeNull()
})
