import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext } from 'node:tls'
import { expect, test } from 'vitest'
import { CertificateAuthority } from '../../support/certificates.ts'
import { tempDir } from '../../support/temp-dir.ts'

test('an authority issues certificates for the names and times asked for, and lists those it revoked', async () => {
  await using directory = await tempDir()
  const authority = await CertificateAuthority.create(directory.path)
  const past = new Date('2020-02-03T04:05:06Z')
  const pair = await authority.issue('old', {
    commonName: 'device-7',
    alternativeNames: ['DNS:localhost', 'IP:127.0.0.1'],
    validFrom: new Date('2019-01-01T00:00:00Z'),
    validUntil: past,
  })
  const cert = new X509Certificate(await readFile(pair.cert))
  expect(cert.subject).toBe('CN=device-7')
  expect(cert.subjectAltName).toBe('DNS:localhost, IP Address:127.0.0.1')
  expect(cert.validToDate).toEqual(past)
  expect(cert.verify(new X509Certificate(await readFile(authority.cert)).publicKey)).toBe(true)

  const before = await readFile(authority.crl)
  await authority.revoke(pair)
  const [key, ca, crl] = await Promise.all([pair.key, authority.cert, authority.crl].map(path => readFile(path)))
  expect(crl).not.toEqual(before)
  // Throws unless key and certificate belong together and the list can be read.
  createSecureContext({ key, cert: cert.toString(), ca, crl })
})
