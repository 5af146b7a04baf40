import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { FrameReader, UnfinishedPackets } from '../../../../src/protocol/mqtt/frame.ts'
import { ProtocolError } from '../../../../src/protocol/mqtt/protocol-error.ts'
import { bytes, packet } from '../../../support/wire.ts'

const roomy = () => new UnfinishedPackets(16 * 1024 ** 2)
const throws = (error: Error): never => {
  throw error
}

/** All frames in the chunks, as copies. */
function read(reader: FrameReader, chunks: readonly Buffer[]): Buffer[] {
  const frames: Buffer[] = []
  for (const chunk of chunks) {
    reader.push(chunk)
    do {
      while (reader.next()) {
        expect(reader.first).toBe(reader.bytes[reader.start])
        frames.push(Buffer.from(reader.bytes.subarray(reader.start, reader.end)))
      }
    } while (reader.nextSource())
  }
  return frames
}

function cut(stream: Buffer, at: readonly number[]): Buffer[] {
  const cuts = [...new Set(at.map(n => n % (stream.length + 1)))].sort((a, b) => a - b)
  return [0, ...cuts].map((from, n) => stream.subarray(from, cuts[n] ?? stream.length))
}

const PACKETS = [
  bytes('c0 00'),
  packet(0x30, '00 01', 'a', 'x'.repeat(200)),
  packet(0x32, '00 01', 'b', '00 07', 'y'.repeat(20_000)),
  bytes('c0 00'),
  bytes('30 81 00 00'),
]

describe('finding frames', () => {
  test('cut at every byte, the frames are the same', () => {
    const stream = Buffer.concat([...PACKETS.slice(0, 2), ...PACKETS.slice(3)])
    for (let at = 0; at <= stream.length; at++) {
      expect(read(new FrameReader(1024, roomy(), throws), cut(stream, [at]))).toEqual([
        ...PACKETS.slice(0, 2),
        ...PACKETS.slice(3),
      ])
    }
  })

  test('cut anywhere, any number of times, the frames are the same and next to nothing is held at the end', () => {
    const stream = Buffer.concat(PACKETS)
    fc.assert(
      fc.property(fc.array(fc.nat(stream.length), { maxLength: 40 }), cuts => {
        const incomplete = roomy()
        const reader = new FrameReader(1024 ** 2, incomplete, throws)
        expect(read(reader, cut(stream, cuts))).toEqual(PACKETS)
        expect(incomplete.used).toBeLessThanOrEqual(1024)
        reader.close()
        expect(incomplete.used).toBe(0)
      }),
    )
  })

  test('a caller that stops in between goes on where it stopped', () => {
    const reader = new FrameReader(1024, roomy(), throws)
    reader.push(Buffer.concat([bytes('c0 00'), bytes('e0 00'), bytes('c0 00')]))
    expect(reader.next() && reader.first).toBe(0xc0)
    expect(reader.next() && reader.first).toBe(0xe0)
    reader.rewind(reader.start)
    expect(reader.next() && reader.first).toBe(0xe0)
    expect(reader.next() && reader.first).toBe(0xc0)
    expect(reader.next()).toBe(false)
    expect(reader.nextSource()).toBe(false)
  })

  test('a caller that goes on later finds everything unread, whatever has become of the chunk', () => {
    const stream = Buffer.concat(PACKETS)
    for (const [first, stopAfter] of [
      [0, 1],
      [1, 0],
      [1, 1],
      [1, 2],
    ] as const) {
      const reader = new FrameReader(1024 ** 2, roomy(), throws)
      const frames: Buffer[] = []
      const readOn = (until: number) => {
        do {
          while (frames.length < until && reader.next()) {
            frames.push(Buffer.from(reader.bytes.subarray(reader.start, reader.end)))
          }
          if (frames.length === until) return
        } while (reader.nextSource())
      }
      const chunk = Buffer.from(stream.subarray(first))
      reader.push(stream.subarray(0, first))
      readOn(PACKETS.length)
      reader.push(chunk)
      readOn(stopAfter)
      reader.keep()
      chunk.fill(0xff)
      readOn(stopAfter + 1)
      reader.keep()
      readOn(PACKETS.length)
      expect(frames).toEqual(PACKETS)
    }
  })

  test('a large packet in small pieces is held in memory of its own size, whatever length it announces', () => {
    const incomplete = roomy()
    const reader = new FrameReader(1024 ** 2, incomplete, throws)
    expect(read(reader, [bytes('30 fc ff 3f')])).toEqual([])
    expect(incomplete.used).toBeLessThan(100)
    for (let n = 0; n < 1000; n++) read(reader, [Buffer.alloc(10)])
    expect(incomplete.used).toBeGreaterThan(10_000)
    expect(incomplete.used).toBeLessThan(25_000)
    reader.close()
    expect(incomplete.used).toBe(0)
  })

  test('a packet over the limit is refused as soon as its length is known', () => {
    for (const chunks of [[bytes('30 80 08')], [bytes('30'), bytes('80'), bytes('08')]]) {
      expect(() => read(new FrameReader(1024, roomy(), throws), chunks)).toThrow(ProtocolError)
    }
    expect(read(new FrameReader(1024, roomy(), throws), [bytes('30 fd 07')])).toEqual([])
  })

  test('a remaining length of five bytes is malformed, wherever it is cut', () => {
    const said = bytes('30 80 80 80 80 01')
    for (let at = 1; at < said.length; at++) {
      expect(() => read(new FrameReader(1024 ** 2, roomy(), throws), cut(said, [at]))).toThrow('remaining length')
    }
  })

  test('unfinished packets of all connections together stay under their limit', () => {
    const unfinished = new UnfinishedPackets(10_000)
    const open = bytes('30 ff 7f')
    const ended: number[] = []
    const reader = (n: number) => new FrameReader(1024 ** 2, unfinished, () => ended.push(n))
    const [small, large, late, greedy] = [reader(0), reader(1), reader(2), reader(3)]
    read(small, [open, Buffer.alloc(1500)])
    read(large, [open, Buffer.alloc(7000)])
    // Whoever holds most has to go, and not whoever comes last.
    read(late, [open, Buffer.alloc(4000)])
    expect(ended).toEqual([1])
    expect(() => read(greedy, [open, Buffer.alloc(5000)])).toThrow('unfinished packets')
    expect(ended).toEqual([1])
    expect(unfinished.used).toBeLessThanOrEqual(10_000)
    for (const each of [small, large, late, greedy]) each.close()
    expect(unfinished.used).toBe(0)
  })
})
