import { X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { isRevoked, parseRevocationList } from '../../../src/model/revocation.ts'
import { CertificateAuthority } from '../../support/certificates.ts'
import { tempDir } from '../../support/temp-dir.ts'

const derOf = (pem: string): Buffer => Buffer.from(pem.replaceAll(/-----.*-----|\s/g, ''), 'base64')

test('a list names what its authority has revoked, and nothing of another authority with the same number', async () => {
  await using directory = await tempDir()
  const authority = await CertificateAuthority.create(directory.path)
  const stranger = await CertificateAuthority.create(directory.path, 'stranger')
  const empty = parseRevocationList(derOf(await readFile(authority.crl, 'utf8')))
  expect(empty.serials.size).toBe(0)
  // Thirty days, as the authority of tests promises.
  expect(empty.nextUpdateMs).toBeGreaterThan(Date.now() + 29 * 86_400_000)
  expect(empty.nextUpdateMs).toBeLessThan(Date.now() + 31 * 86_400_000)

  const [good, bad] = [await authority.issue('good'), await authority.issue('bad')]
  await authority.revoke(bad)
  const lists = [parseRevocationList(derOf(await readFile(authority.crl, 'utf8')))]
  const certificate = async (file: string) => new X509Certificate(await readFile(file))
  expect(isRevoked(await certificate(bad.cert), lists)).toBe(true)
  expect(isRevoked(await certificate(good.cert), lists)).toBe(false)
  const { raw } = await certificate((await stranger.issue('same')).cert)
  const { serialNumber } = await certificate(bad.cert)
  expect(isRevoked({ raw, serialNumber }, lists)).toBe(false)
})

test('whatever else is in the file is refused with a reason, and never read beyond its end', async () => {
  await using directory = await tempDir()
  const authority = await CertificateAuthority.create(directory.path)
  await authority.revoke(await authority.issue('bad'))
  const whole = derOf(await readFile(authority.crl, 'utf8'))
  const read = (bytes: Buffer): void => {
    try {
      parseRevocationList(bytes)
    } catch (error) {
      expect(error).toBeInstanceOf(RangeError)
    }
  }
  for (let length = 0; length < whole.length; length++) {
    expect(() => parseRevocationList(whole.subarray(0, length))).toThrow(RangeError)
  }
  fc.assert(
    fc.property(fc.nat(whole.length - 1), fc.nat(255), (at, byte) => {
      const damaged = Buffer.from(whole)
      damaged[at] = byte
      read(damaged)
    }),
  )
  fc.assert(fc.property(fc.uint8Array({ maxLength: 64 }), bytes => read(Buffer.from(bytes))))
})
