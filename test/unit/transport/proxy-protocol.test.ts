import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { PROXY_HEADER_BYTES_MAX, readProxyHeader } from '../../../src/transport/proxy-protocol.ts'

const SIGNATURE = Buffer.from('0d0a0d0a000d0a515549540a', 'hex')

/** A header of version 2: version and command, family and transport, the rest in hexadecimal. */
function v2(command: number, family: number, rest: string, announced = rest.length / 2): Buffer {
  const head = Buffer.from([command, family, announced >> 8, announced & 0xff])
  return Buffer.concat([SIGNATURE, head, Buffer.from(rest, 'hex')])
}

const TCP4 = 'c0000207 0a000001 d431 075b'.replaceAll(' ', '')
const TCP6 = `20010db8${'0'.repeat(23)}7${'0'.repeat(31)}1d431075b`

const WHOLE: readonly (readonly [string, Buffer, unknown])[] = [
  [
    'version 1, IPv4',
    Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 54321 1883\r\n'),
    { kind: 'client', address: '192.0.2.7', port: 54_321 },
  ],
  [
    'version 1, IPv6 in capitals and with zeroes written out',
    Buffer.from('PROXY TCP6 2001:DB8:0:0:0:0:0:7 2001:db8::1 54321 1883\r\n'),
    { kind: 'client', address: '2001:db8::7', port: 54_321 },
  ],
  [
    'version 1, the longest line of all',
    Buffer.from(`PROXY UNKNOWN ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}ffff 65535 65535\r\n`),
    { kind: 'unknown' },
  ],
  ['version 1, unknown', Buffer.from('PROXY UNKNOWN\r\n'), { kind: 'unknown' }],
  ['version 1, unknown with nonsense behind it', Buffer.from('PROXY UNKNOWN \0\n\r,\r\n'), { kind: 'unknown' }],
  ['version 2, IPv4', v2(0x21, 0x11, TCP4), { kind: 'client', address: '192.0.2.7', port: 54_321 }],
  ['version 2, IPv6', v2(0x21, 0x21, TCP6), { kind: 'client', address: '2001:db8::7', port: 54_321 }],
  [
    'version 2 with a TLV: the TLS version and name of a certificate',
    v2(0x21, 0x11, `${TCP4}20000f0100000000210003544c53220001aa`),
    { kind: 'client', address: '192.0.2.7', port: 54_321 },
  ],
  ['version 2, LOCAL without addresses', v2(0x20, 0x00, ''), { kind: 'proxy' }],
  ['version 2, LOCAL with addresses and a family that does not exist', v2(0x20, 0xff, TCP4), { kind: 'proxy' }],
  ['version 2, AF_UNSPEC', v2(0x21, 0x00, 'aabb'), { kind: 'unknown' }],
  ['version 2, a unix socket', v2(0x21, 0x31, '00'.repeat(216)), { kind: 'unknown' }],
  ['version 2, the longest', v2(0x21, 0x00, '00'.repeat(4096)), { kind: 'unknown' }],
]

const WRONG: readonly (readonly [string, Buffer])[] = [
  ['MQTT', Buffer.from('100c00044d5154540402003c0000', 'hex')],
  ['small letters', Buffer.from('proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n')],
  ['two spaces', Buffer.from('PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n')],
  ['a space behind the ports', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n')],
  ['no family', Buffer.from('PROXY \r\n')],
  ['a family of its own', Buffer.from('PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n')],
  ['IPv6 called TCP4', Buffer.from('PROXY TCP4 ::1 ::1 1 2\r\n')],
  ['IPv4 called TCP6', Buffer.from('PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n')],
  ['a leading zero in an address', Buffer.from('PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n')],
  ['a zone', Buffer.from('PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n')],
  ['a name', Buffer.from('PROXY TCP4 localhost 10.0.0.1 1 2\r\n')],
  ['a leading zero in a port', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n')],
  ['a port too high', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 1 65536\r\n')],
  ['a negative port', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 -1 2\r\n')],
  ['a port that is missing', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n')],
  ['hexadecimal', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 0x1 2\r\n')],
  ['107 bytes without an end', Buffer.from(`PROXY UNKNOWN ${'x'.repeat(93)}`)],
  ['an end behind 107 bytes', Buffer.from(`PROXY UNKNOWN ${'x'.repeat(92)}\r\n`)],
  ['LF alone', Buffer.from('PROXY TCP4 192.0.2.7 10.0.0.1 1 2\nPROXY\r\n')],
  ['version 1 of the binary form', v2(0x11, 0x11, TCP4)],
  ['a command that does not exist', v2(0x22, 0x11, TCP4)],
  ['a family that does not exist', v2(0x21, 0x41, TCP4)],
  ['a transport that does not exist', v2(0x21, 0x13, TCP4)],
  ['UDP', v2(0x21, 0x12, TCP4)],
  ['too short for IPv4', v2(0x21, 0x11, TCP4.slice(2))],
  ['IPv4 addresses called IPv6', v2(0x21, 0x21, TCP4)],
  ['more than anybody has to say', v2(0x21, 0x11, TCP4, 4097)],
  ['the signature with one bit wrong', Buffer.from('0d0a0d0a000d0a515549550a', 'hex')],
]

describe('what is a header', () => {
  for (const [name, header, told] of WHOLE) {
    test(`${name}: whole at its last byte and not before`, () => {
      for (let length = 0; length < header.length; length++) {
        expect(readProxyHeader(header.subarray(0, length))).toBeNull()
      }
      expect(readProxyHeader(header)).toEqual({ told, bytes: header.length })
      expect(readProxyHeader(Buffer.concat([header, header]))).toEqual({ told, bytes: header.length })
    })
  }
})

describe('what is none', () => {
  for (const [name, sent] of WRONG) {
    test(name, () => {
      expect(() => readProxyHeader(sent)).toThrow(RangeError)
    })
  }
})

test('whatever is sent, it is a header, becomes one within the most bytes a header has, or is refused as such', () => {
  const beginnings = [Buffer.alloc(0), Buffer.from('PROXY '), Buffer.from('PROXY TCP4 '), SIGNATURE, v2(0x21, 0x11, '')]
  const sent = fc.tuple(fc.constantFrom(...beginnings), fc.uint8Array({ maxLength: 300 }))
  fc.assert(
    fc.property(sent, ([beginning, noise]) => {
      const bytes = Buffer.concat([beginning, noise])
      try {
        const header = readProxyHeader(bytes)
        if (header === null) expect(bytes.length).toBeLessThan(PROXY_HEADER_BYTES_MAX)
        else expect(header.bytes).toBeLessThanOrEqual(bytes.length)
      } catch (error) {
        expect(error).toBeInstanceOf(RangeError)
      }
    }),
  )
})
