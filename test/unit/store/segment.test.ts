import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { encodeRecord, recordBytes } from '../../../src/model/message.ts'
import { countBits, hasBit } from '../../../src/store/bytes.ts'
import { crc32c } from '../../../src/store/crc32c.ts'
import { decodeDelta, encodeDelta } from '../../../src/store/delta.ts'
import { logKey } from '../../../src/store/keys.ts'
import { decodeSegment, readBodyParts, readSegmentHeader, SegmentEncoder } from '../../../src/store/segment.ts'
import { decodeIndexEntry, encodeIndexEntry, unsettledOf } from '../../../src/store/segment-index.ts'
import { offsetOf, partOf, SharedBodies } from '../../../src/store/shared-bodies.ts'
import { sealValue, unsealValue } from '../../../src/store/state.ts'
import { ABSENT } from '../../../src/store/types.ts'
import { bitmapOf, MESSAGE, recordOf, segmentOf } from '../../support/store-kit.ts'

const KEY = logKey(7, 3, 1)
const NAME = Buffer.from('telemetry')

function encode(records: (Buffer | null)[], { isShared = false, note = 9 } = {}) {
  const bodies = new SharedBodies()
  const write = segmentOf({ queue: 3, first: 100, records, isShared, note })
  const encoded = new SegmentEncoder().encode(KEY, write, NAME, 55, bodies)
  return { ...encoded, value: Buffer.from(encoded.value), bodies: bodies.finish() }
}

/** What the value gives back: the records by entry, null where there is none; null if its header is damaged. */
function decode(
  value: Buffer,
  { settled = null, bodies = [] }: { settled?: Uint8Array | null; bodies?: readonly Buffer[] } = {},
) {
  const header = readSegmentHeader(KEY, value)
  if (header === null) return null
  const { bytes, offsets, notes, damaged } = decodeSegment(value, header, settled, part => bodies[part - 1])
  const records = [...offsets].map(offset =>
    offset === ABSENT ? null : bytes.subarray(offset, offset + recordBytes(bytes, offset)),
  )
  return { header, records, notes: [...notes], damaged, bytes }
}

/** A record as it comes back: with its CRC. */
function stored(record: Buffer | null): Buffer | null {
  if (record === null) return null
  const copy = Buffer.from(record)
  copy.writeUInt32LE(crc32c(copy, 8, copy.length), 4)
  return copy
}

const entries = fc.array(fc.option(fc.nat(3000), { nil: null }), { minLength: 1, maxLength: 40 })

describe('a segment', () => {
  test('comes back with every entry that was present, its note and its record, whatever was left out', () => {
    fc.assert(
      fc.property(entries, fc.boolean(), (lengths, isShared) => {
        const records = lengths.map((length, seq) => (length === null ? null : recordOf(seq, 1, length)))
        const { value, present, bodies } = encode(records, { isShared })
        const decoded = decode(value, { bodies })
        expect(decoded?.header).toMatchObject({
          name: 'telemetry',
          first: 100,
          count: records.length,
          present,
          firstRecord: 55,
        })
        expect(decoded?.records).toEqual(records.map(stored))
        expect(decoded?.notes).toEqual(records.map(record => (record === null ? 0 : 9)))
        expect(bodies.length > 0).toBe(isShared && present > 0)
      }),
    )
  })

  test('keeps what messages of one publisher have in common once, whoever else publishes in between', () => {
    const from = (publisher: number, seq: number) =>
      encodeRecord(
        {
          ...MESSAGE,
          clientId: `device-${publisher}-${'x'.repeat(50)}`,
          expiryMs: publisher === 0 ? 5000 : null,
          propertiesTag: 1,
          properties: Buffer.from(publisher === 1 ? [1, 0] : []),
          payload: Buffer.from(`${seq}`),
        },
        // Numbers that jump both ways, and by more than 32 bits.
        { seq: (seq * 0x1234_5678_9abc) % 2 ** 48, boot: 1 + (seq >> 3), acceptedAt: (seq % 3) * 2 ** 40, clock: 2 },
      )
    const records = Array.from({ length: 300 }, (_, seq) => from((seq * 7) % 5, seq))
    const { value } = encode(records)
    expect(decode(value)?.records).toEqual(records.map(stored))
    // 38 boots of 5 publishers, 130 bytes a head; 30 bytes a message.
    expect(value.length).toBeLessThan(38 * 5 * 130 + 300 * 30)
  })

  test('does not hand out what is settled, nor keep memory for it', () => {
    const { value } = encode([recordOf(0, 1), recordOf(1, 1, 5000), recordOf(2, 1)])
    const decoded = decode(value, { settled: bitmapOf(3, [1]) })
    expect(decoded?.records).toEqual([stored(recordOf(0, 1)), null, stored(recordOf(2, 1))])
    expect(decoded?.bytes.length).toBe(recordOf(0, 1).length + recordOf(2, 1).length)
  })

  test('with one bit flipped loses no more than the record the bit is in, and never returns a changed one', () => {
    const records = [recordOf(0, 1, 40), recordOf(1, 1, 300), recordOf(2, 1, 20)]
    const { value } = encode(records)
    const headerBytes = readSegmentHeader(KEY, value)?.headerBytes ?? 0
    for (let bit = 0; bit < value.length * 8; bit++) {
      const damaged = Buffer.from(value)
      damaged[bit >> 3] = (damaged[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const decoded = decode(damaged)
      if (bit >> 3 < headerBytes) {
        expect(decoded).toBeNull()
        continue
      }
      expect(decoded?.damaged).toBe(1)
      const intact = records.filter((record, entry) => {
        const found = decoded?.records[entry] ?? null
        if (found !== null) expect(found).toEqual(stored(record))
        return found !== null
      })
      expect(intact).toHaveLength(2)
    }
  })

  test('stored under another key is not taken for sound', () => {
    expect(readSegmentHeader(logKey(7, 4, 1), encode([recordOf(0, 1)]).value)).toBeNull()
  })

  test('cut anywhere is damaged, not a crash', () => {
    const { value } = encode([recordOf(0, 1, 40), recordOf(1, 1, 40)])
    for (let length = 0; length < value.length; length++) {
      const decoded = decode(value.subarray(0, length))
      if (decoded !== null) expect(decoded.damaged).toBeGreaterThan(0)
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
    expect(decode(first.value)?.records).toEqual([stored(recordOf(0, 1))])
    expect(decode(second.value)?.records).toEqual([stored(large), stored(recordOf(2, 1))])
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
