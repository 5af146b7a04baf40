import { describe, expect, it } from 'vitest'
import { MemoryBudget } from '../../../src/core/memory.ts'
import { SEGMENT_BYTES, Segment } from '../../../src/core/segment.ts'
import { recordPayloadAt, recordPrefix, recordSeq } from '../../../src/model/message.ts'
import { messageTo } from '../../support/messages.ts'

const prefix = recordPrefix(messageTo('a/b', ''))

function put(segment: Segment, seq: number, payload: Buffer): void {
  const acceptance = { seq, boot: 1, acceptedAt: seq, clock: 2 } as const
  segment.append(prefix, acceptance, 0, payload, 0, payload.length, 0, seq & 0xff, seq, 0)
}

describe('Segment', () => {
  it('keeps every record while it grows from the smallest size to the largest', () => {
    for (const payload of [Buffer.alloc(0), Buffer.alloc(300, 'x')]) {
      const segment = Segment.open(1, new MemoryBudget(1024 ** 2), 0)
      const length = prefix.bytes.length + payload.length
      let count = 0
      while (segment.fits(length)) put(segment, ++count, payload)
      expect(segment.count).toBe(count)
      expect(segment.live).toBe(count)
      expect(segment.used).toBe(count * length)
      expect(segment.bytes.length).toBe(SEGMENT_BYTES)
      for (let i = 0; i < count; i++) {
        const at = segment.offsetAt(i)
        expect(recordSeq(segment.bytes, at)).toBe(i + 1)
        expect(segment.bytes.subarray(recordPayloadAt(segment.bytes, at), at + length).equals(payload)).toBe(true)
        expect([segment.notes[i], segment.tickets[i]]).toEqual([(i + 1) & 0xff, i + 1])
      }
      segment.release()
    }
  })

  it('begins with room for what it expects, in memory that another of that size gave back', () => {
    const memory = new MemoryBudget(1024 ** 2)
    const first = Segment.open(1, memory, 100_000)
    const { bytes, offsets } = first
    expect(bytes.length).toBeGreaterThanOrEqual(100_000)
    put(first, 1, Buffer.from('old'))
    first.release()
    expect(memory.usedBytes).toBe(0)
    const second = Segment.open(7, memory, 90_000)
    expect(second.bytes).toBe(bytes)
    expect(second.offsets).toBe(offsets)
    expect([second.count, second.live, second.used, second.end]).toEqual([0, 0, 0, 7])
    put(second, 2, Buffer.from('new'))
    expect([second.count, second.live, second.statusAt(0)]).toEqual([1, 1, 0])
    second.release()
  })

  it('holds exactly its record when that is larger than a segment', () => {
    const memory = new MemoryBudget(4 * 1024 ** 2)
    const segment = Segment.open(1, memory, 0)
    put(segment, 1, Buffer.alloc(2 * SEGMENT_BYTES))
    expect(segment.bytes.length).toBe(segment.used)
    expect(memory.usedBytes).toBe(segment.heldBytes)
    expect(segment.fits(1)).toBe(false)
    segment.release()
    expect(memory.usedBytes).toBe(0)
  })

  it('splits into two that hold the same entries as before', () => {
    const memory = new MemoryBudget(1024 ** 2)
    const segment = Segment.open(1, memory, 0)
    for (let seq = 1; seq <= 500; seq++) put(segment, seq, Buffer.from(`payload ${seq}`))
    const rest = segment.splitAt(200)
    expect([segment.first, segment.end, rest.first, rest.end]).toEqual([1, 201, 201, 501])
    expect([segment.live, rest.live]).toEqual([200, 300])
    expect(recordSeq(rest.bytes, rest.offsetAt(0))).toBe(201)
    expect(recordSeq(rest.bytes, rest.offsetAt(299))).toBe(500)
    expect(memory.usedBytes).toBe(segment.heldBytes + rest.heldBytes)
  })
})
