import { chmod, copyFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readConfig } from '../../../src/config/load.ts'
import { CertificateAuthority, type KeyPair } from '../../support/certificates.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

const DAY_MS = 86_400_000

let folder: TempDir
let authority: CertificateAuthority
let server: KeyPair
beforeAll(async () => {
  folder = await tempDir()
  authority = await CertificateAuthority.create(folder.path)
  server = await authority.issue('server')
})
afterAll(() => folder.remove())

/** What `sluice check` says of a file with these keys of `tls`, relative to its folder. */
async function check(tls: Readonly<Record<string, string>>) {
  const file = join(folder.path, 'sluice.yaml')
  const lines = Object.entries(tls).map(([key, value]) => `      ${key}: ${value}\n`)
  await writeFile(file, `listeners:\n  mqtts:\n    tls:\n${lines.join('')}`)
  const { config, problems } = await readConfig({ file, env: {}, set: [] })
  return {
    config,
    problems: problems.map(
      ({ line, path, message }) => `${line} ${path}: ${message.replaceAll(`${folder.path}/`, '')}`,
    ),
    warnings: config?.warnings.map(warning => warning.replaceAll(`${folder.path}/`, '')),
  }
}

const own = { cert: 'ca/server.pem', key: 'ca/server-key.pem' }

test('paths of files start at the folder of the configuration, and all that is right passes without a word', async () => {
  const { config, problems, warnings } = await check({
    ...own,
    client_cert: 'required',
    ca: 'ca/ca.pem',
    crl: 'ca/crl.pem',
  })
  expect(problems).toEqual([])
  expect(warnings).toEqual([])
  expect(config?.listeners.mqtts).toMatchObject({
    host: '127.0.0.1',
    port: 8883,
    tls: { cert: server.cert, minVersion: 'TLSv1.2' },
  })
  expect(config?.effective).toMatchObject({ listeners: { mqtts: { tls: { key: server.key } } } })
})

describe('what is wrong is told with the option, its line, and what to do', () => {
  beforeAll(async () => {
    await writeFile(join(folder.path, 'notes.txt'), 'nothing of this is PEM')
    await writeFile(join(folder.path, 'broken.pem'), '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    await writeFile(join(folder.path, 'broken-crl.pem'), '-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n')
    await writeFile(
      join(folder.path, 'locked.pem'),
      '-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n',
    )
    await authority.issue('other')
  })
  test.each([
    [{ ...own, cert: 'none.pem' }, '4 listeners.mqtts.tls.cert: none.pem: there is no such file'],
    [{ ...own, cert: 'ca' }, '4 listeners.mqtts.tls.cert: ca: it is not a file'],
    [
      { ...own, cert: 'notes.txt' },
      '4 listeners.mqtts.tls.cert: notes.txt: there is no certificate in it (BEGIN CERTIFICATE)',
    ],
    [
      { ...own, key: 'notes.txt' },
      '5 listeners.mqtts.tls.key: notes.txt: there is no private key in it (BEGIN PRIVATE KEY)',
    ],
    [
      { ...own, key: 'locked.pem' },
      '5 listeners.mqtts.tls.key: locked.pem: it is locked by a passphrase, which nobody is there to enter; write it unlocked, readable by the gateway only',
    ],
    [
      { ...own, key: 'ca/other-key.pem' },
      '5 listeners.mqtts.tls.key: ca/other-key.pem: it does not belong to the certificate in ca/server.pem; name the key that one was made for',
    ],
    [
      { ...own, client_cert: 'required', ca: 'ca/ca.pem', crl: 'notes.txt' },
      '8 listeners.mqtts.tls.crl: notes.txt: there is no list of revoked certificates in it (BEGIN X509 CRL)',
    ],
    [
      { ...own, client_cert: 'required', ca: 'ca/ca.pem', crl: 'broken-crl.pem' },
      '8 listeners.mqtts.tls.crl: broken-crl.pem: it is empty',
    ],
    [
      { ...own, client_cert: 'optional' },
      "6 listeners.mqtts.tls.client_cert: certificates can't be judged without their authorities; set ca",
    ],
    [
      { ...own, ca: 'ca/ca.pem' },
      '6 listeners.mqtts.tls.ca: no client is asked for a certificate; set client_cert to optional or required, or leave this out',
    ],
    [
      { cert: 'ca/server.pem' },
      '3 listeners.mqtts.tls.key: this is missing; accepted is a file; a relative path starts at the folder of the configuration file',
    ],
  ])('%j', async (tls, problem) => {
    expect((await check(tls)).problems).toEqual([problem])
  })

  test('a certificate that is none', async () => {
    expect((await check({ ...own, cert: 'broken.pem' })).problems).toEqual([
      expect.stringMatching(/^4 listeners\.mqtts\.tls\.cert: broken\.pem: it can't be read: error:/),
    ])
  })
})

test('a certificate that is over or soon will be, a list that is over, and a key everybody can read are worth a warning', async () => {
  const issue = (name: string, days: number) =>
    authority.issue(name, {
      validFrom: new Date(Date.now() - 90 * DAY_MS),
      validUntil: new Date(Date.now() + days * DAY_MS),
    })
  await issue('old', -1)
  await issue('soon', 3)
  await issue('fresh', 20)
  const warningsFor = async (name: string) =>
    (await check({ cert: `ca/${name}.pem`, key: `ca/${name}-key.pem` })).warnings
  expect(await warningsFor('fresh')).toEqual([])
  expect(await warningsFor('old')).toEqual([
    expect.stringMatching(
      /^listeners\.mqtts\.tls\.cert: the certificate expired on \d{4}-\d\d-\d\d, clients refuse it; renew it$/,
    ),
  ])
  expect(await warningsFor('soon')).toEqual([expect.stringMatching(/the certificate expires on/)])
  await copyFile(join(folder.path, 'ca/fresh-key.pem'), join(folder.path, 'open-key.pem'))
  await chmod(join(folder.path, 'open-key.pem'), 0o644)
  expect((await check({ cert: 'ca/fresh.pem', key: 'open-key.pem' })).warnings).toEqual([
    'listeners.mqtts.tls.key: every user of this machine can read open-key.pem; chmod 640 it',
  ])
})

test('RSA keys of less than 2048 bits are refused by their size', async () => {
  await authority.issue('weak', { rsaBits: 1024 })
  // OpenSSL would say `ee key too small`, and nothing of the file.
  expect((await check({ cert: 'ca/weak.pem', key: 'ca/weak-key.pem' })).problems).toEqual([
    '4 listeners.mqtts.tls.cert: ca/weak.pem: its RSA key has 1024 bits and needs 2048',
  ])
})
