import fc from 'fast-check'
import { expect, test } from 'vitest'
import { crc32c } from '../../../src/store/crc32c.ts'

test.each([
  // RFC 3720 B.4
  ['32 bytes of zero', Buffer.alloc(32), 0x8a9136aa],
  ['32 bytes of ones', Buffer.alloc(32, 0xff), 0x62a8ab43],
  ['ascending bytes', Buffer.from(Array.from({ length: 32 }, (_, at) => at)), 0x46dd794e],
  ['descending bytes', Buffer.from(Array.from({ length: 32 }, (_, at) => 31 - at)), 0x113fdb5c],
  ['the digits', Buffer.from('123456789'), 0xe3069283],
  ['nothing', Buffer.alloc(0), 0],
])('CRC32C of %s is as published', (_, bytes, expected) => {
  expect(crc32c(bytes, 0, bytes.length)).toBe(expected)
})

test('a CRC taken in pieces is that of the whole, wherever it is cut and wherever it begins', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(200), fc.nat(40), (bytes, cutAt, shift) => {
      const cut = Math.min(cutAt, bytes.length)
      const moved = Buffer.concat([Buffer.alloc(shift, 7), bytes])
      const whole = crc32c(bytes, 0, bytes.length)
      expect(crc32c(bytes, cut, bytes.length, crc32c(bytes, 0, cut))).toBe(whole)
      expect(crc32c(moved, shift, moved.length)).toBe(whole)
    }),
  )
})
