import { describe, expect, it } from 'vitest'
import { type Place, Slabs } from '../../../src/core/slabs.ts'
import { decodeRecord, encodeRecord, recordBytes } from '../../../src/model/message.ts'
import { messageTo } from '../../support/messages.ts'

function put(slabs: Slabs, text: string): Place {
  const record = encodeRecord(messageTo('t', text), { seq: 1, boot: 1, acceptedAt: 0, clock: 0 })
  const place = slabs.reserve(record.length)
  record.copy(place.slab.bytes, place.at)
  return place
}

const read = ({ slab, at }: Place): string => decodeRecord(slab.bytes, at).payload.toString()

describe('Slabs', () => {
  it('values that change all the time, a few lasting ones among them, do not pile up in memory', () => {
    const slabs = new Slabs()
    const kept = new Map<string, Place>()
    const keep = (key: string, text: string): void => {
      const before = kept.get(key)
      if (before !== undefined) slabs.release(before)
      kept.set(key, put(slabs, text))
      if (slabs.isSparse) for (const place of kept.values()) slabs.move(place)
    }
    for (let n = 0; n < 50_000; n++) {
      keep(`changing ${n % 100}`, `${n} ${'x'.repeat(n % 2000)}`)
      if (n % 1000 === 0) keep(`lasting ${n}`, `${n}`)
      if (n % 500 === 0) keep('large', `${n} ${'x'.repeat(100_000)}`)
      expect(slabs.held).toBeLessThanOrEqual(2 * slabs.live + 2 * 1024 ** 2)
    }
    expect(slabs.live).toBe([...kept.values()].reduce((sum, { slab, at }) => sum + recordBytes(slab.bytes, at), 0))
    for (let n = 0; n < 50_000; n += 1000) expect(kept.get(`lasting ${n}`)).toSatisfy(place => read(place) === `${n}`)
    for (let n = 49_900; n < 50_000; n++) {
      expect(kept.get(`changing ${n % 100}`)).toSatisfy(place => read(place).startsWith(`${n} `))
    }
    for (const place of kept.values()) slabs.release(place)
    expect(slabs.live).toBe(0)
    expect(slabs.held).toBeLessThanOrEqual(64 * 1024)
  })
})
