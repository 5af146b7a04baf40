/*
 * The files that listeners and upstreams with TLS name: read and examined together, by `sluice check`, at the start, and whenever they change or are needed again. Only loaded where something has TLS.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs'
import { BrokerError } from '../model/error.ts'
import { parseRevocationList, type RevocationList } from '../model/revocation.ts'
import { expiryWarnings, type TlsFiles } from '../model/tls-files.ts'
import type { TlsConfig, UpstreamConfig } from './schema.ts'

/** More than any list of revoked certificates a gateway could hold. */
const FILE_BYTES_MAX = 16 * 1024 * 1024
/** What OpenSSL takes at its security level 2, which Debian sets. */
const RSA_BITS_MIN = 2048
/** The mode bits that let every user of the machine read or write. */
const OTHERS = 0o006

type FileOption = 'cert' | 'key' | 'ca' | 'crl'

/** Reads and examines them. Throws BrokerError TLS_FILES_INVALID with the option at fault, its file, why, and what to do. */
export function readTlsFiles(tls: TlsConfig): TlsFiles {
  const { cert, key, certificate } = readPair(tls.cert, tls.key)
  const ca = tls.ca === null ? [] : certificateBlocks(readAuthorities(tls.ca))
  const crl = tls.crl === null ? [] : pemBlocks(readPem('crl', tls.crl), 'X509 CRL')
  const revocations = tls.crl === null ? [] : inFile('crl', tls.crl, () => readLists(crl))
  return { cert, key, ca, crl, certUntilMs: certificate.validToDate.getTime(), revocations }
}

/** What an upstream with TLS needs, as its files are now. Throws as readTlsFiles. */
export function readUpstreamTls({ ca, cert, key }: UpstreamConfig['tls']): {
  readonly ca: Buffer | null
  readonly client: { readonly cert: Buffer; readonly key: Buffer } | null
} {
  const pair = cert === null || key === null ? null : readPair(cert, key)
  return {
    ca: ca === null ? null : readAuthorities(ca),
    client: pair === null ? null : { cert: pair.cert, key: pair.key },
  }
}

/** A certificate and the key that belongs to it. */
function readPair(certFile: string, keyFile: string): { cert: Buffer; key: Buffer; certificate: X509Certificate } {
  const cert = readPem('cert', certFile)
  const certificate = inFile('cert', certFile, () => readCertificates(certificateBlocks(cert))[0])
  const key = readPem('key', keyFile)
  const privateKey = inFile('key', keyFile, () => readKey(key))
  if (!certificate.checkPrivateKey(privateKey)) {
    throw invalid(
      'key',
      keyFile,
      `it does not belong to the certificate in ${certFile}; name the key that one was made for`,
    )
  }
  return { cert, key, certificate }
}

function readAuthorities(file: string): Buffer {
  const ca = readPem('ca', file)
  inFile('ca', file, () => readCertificates(certificateBlocks(ca)))
  return ca
}

/** What works and yet needs somebody's attention, a sentence each. `listener` is its path in the configuration. */
export function tlsWarnings(listener: string, tls: TlsConfig, files: TlsFiles, nowMs: number): string[] {
  const warnings = expiryWarnings(listener, files, nowMs)
  const mode = statMode(tls.key)
  if ((mode & OTHERS) !== 0) {
    warnings.push(`${listener}.tls.key: every user of this machine can read ${tls.key}; chmod 640 it`)
  }
  return warnings
}

function readPem(option: FileOption, file: string): Buffer {
  return inFile(option, file, () => {
    const descriptor = openSync(file, 'r')
    try {
      const stat = fstatSync(descriptor)
      if (!stat.isFile()) throw new RangeError('it is not a file')
      if (stat.size > FILE_BYTES_MAX) throw new RangeError(`it has more than ${FILE_BYTES_MAX} bytes`)
      return readFileSync(descriptor)
    } finally {
      closeSync(descriptor)
    }
  })
}

function statMode(file: string): number {
  const descriptor = openSync(file, 'r')
  try {
    return fstatSync(descriptor).mode
  } finally {
    closeSync(descriptor)
  }
}

/** At least one; each can be read and has a key of enough bits. */
function readCertificates(blocks: readonly string[]): [X509Certificate, ...X509Certificate[]] {
  const [first, ...more] = blocks.map(block => new X509Certificate(block))
  if (first === undefined) throw new RangeError('there is no certificate in it (BEGIN CERTIFICATE)')
  for (const certificate of [first, ...more]) {
    const { asymmetricKeyType, asymmetricKeyDetails } = certificate.publicKey
    const bits = asymmetricKeyDetails?.modulusLength
    if (asymmetricKeyType === 'rsa' && bits !== undefined && bits < RSA_BITS_MIN) {
      throw new RangeError(`its RSA key has ${bits} bits and needs ${RSA_BITS_MIN}`)
    }
  }
  return [first, ...more]
}

function readKey(pem: Buffer): KeyObject {
  const text = pem.toString('latin1')
  if (text.includes('ENCRYPTED')) {
    throw new RangeError(
      'it is locked by a passphrase, which nobody is there to enter; write it unlocked, readable by the gateway only',
    )
  }
  if (!text.includes('PRIVATE KEY-----')) throw new RangeError('there is no private key in it (BEGIN PRIVATE KEY)')
  return createPrivateKey(pem)
}

function readLists(blocks: readonly string[]): readonly RevocationList[] {
  if (blocks.length === 0) throw new RangeError('there is no list of revoked certificates in it (BEGIN X509 CRL)')
  return blocks.map(block => parseRevocationList(Buffer.from(block.split('-----')[2] ?? '', 'base64')))
}

/** All blocks with that label (RFC 7468), without what stands between them. */
function pemBlocks(pem: Buffer, label: string): string[] {
  const block = new RegExp(`-----BEGIN ${label}-----[A-Za-z0-9+/=\\s]*-----END ${label}-----`, 'g')
  return pem.toString('latin1').match(block) ?? []
}

const certificateBlocks = (pem: Buffer): string[] => pemBlocks(pem, 'CERTIFICATE')

/** Whatever is wrong with a file, in one sentence with its name. */
function inFile<T>(option: FileOption, file: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (error instanceof RangeError) throw invalid(option, file, error.message, error)
    if (!(error instanceof Error) || !('code' in error)) throw error
    if (error.code === 'ENOENT') throw invalid(option, file, 'there is no such file', error)
    if (error.code === 'EACCES') throw invalid(option, file, 'the gateway may not read it', error)
    // Of OpenSSL, for what is neither PEM nor DER: `error:0480006C:PEM routines::no start line`.
    throw invalid(option, file, `it can't be read: ${error.message}`, error)
  }
}

function invalid(option: FileOption, file: string, reason: string, cause?: unknown): BrokerError {
  return new BrokerError('TLS_FILES_INVALID', `${file}: ${reason}`, { cause, facts: { option, file } })
}
