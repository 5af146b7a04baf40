import { expect, test } from 'vitest'
import { certificateUser, type UserFrom } from '../../../src/transport/certificate-user.ts'

/** A certificate as Node shows it. */
const certificate = ({ names, commonName }: { names?: string; commonName?: string | string[] }) => ({
  subjectAltName: names,
  toLegacyObject: () => ({ subject: { CN: commonName } }),
})

test.each<[string, UserFrom, string | null]>([
  ['DNS:device-7', 'san_dns', 'device-7'],
  ['email:device-7@site.example, DNS:device-7, URI:urn:device:7, IP Address:10.0.0.7', 'san_dns', 'device-7'],
  ['email:device-7@site.example, DNS:device-7, URI:urn:device:7', 'san_uri', 'urn:device:7'],
  ['DNS:device-7, DNS:device-8', 'san_dns', null],
  ['IP Address:10.0.0.7', 'san_dns', null],
  // Node quotes what could be taken for the end of a name: it names one user, and not admin.
  ['URI:"urn:x, DNS:admin"', 'san_dns', null],
  ['URI:"urn:x, DNS:admin"', 'san_uri', 'urn:x, DNS:admin'],
  ['DNS:"a\\u0000b"', 'san_dns', null],
  ['DNS:"line\\nbreak"', 'san_dns', null],
  // What is none of these forms names nobody.
  ['DNS:device-7, nonsense', 'san_dns', null],
  ['DNS:"device-7', 'san_dns', null],
  ['DNS:"a\\x41"', 'san_dns', null],
  ['DNS:', 'san_dns', null],
  ['', 'san_dns', null],
])('alternative names %j give for %s the user %j', (names, from, user) => {
  expect(certificateUser(certificate({ names }), from)).toBe(user)
})

test.each<[string | string[] | undefined, string | null]>([
  ['device-7', 'device-7'],
  ['Gerät 7', 'Gerät 7'],
  ['admin\nCN=guest', null],
  ['admin\0', null],
  ['x'.repeat(65_536), null],
  [['admin', 'guest'], null],
  [undefined, null],
  ['', null],
])('the common name %j gives the user %j', (commonName, user) => {
  expect(certificateUser(certificate(commonName === undefined ? {} : { commonName }), 'cn')).toBe(user)
})

test('a certificate without alternative names, or one that is not asked, names nobody', () => {
  expect(certificateUser(certificate({ commonName: 'device-7' }), 'san_dns')).toBeNull()
  expect(certificateUser(certificate({ commonName: 'device-7', names: 'DNS:device-7' }), 'none')).toBeNull()
})
