/*
 * Lists of revoked certificates (CRL, RFC 5280 section 5). That a list is signed by who it says is for OpenSSL to check, which refuses revoked
 * certificates in handshakes; here is read what a gateway has to know beside that: until when the list holds, and whether a certificate let in before stands on it now.
 */
import { DerTag, type DerValue, derValues, readDer } from './der.ts'

export interface RevocationList {
  /** Name of the authority, as DER. */
  readonly issuer: Buffer
  /** When the next list was promised, milliseconds since 1970; OpenSSL believes this one no longer. null: it holds for ever. */
  readonly nextUpdateMs: number | null
  /** Serial numbers, as upper-case hexadecimal without leading zeros. */
  readonly serials: ReadonlySet<string>
}

/** A certificate on the way up from a client's own. */
export interface CheckedCertificate {
  /** As DER. */
  readonly raw: Buffer
  readonly serialNumber: string
}

/** Reads a CRL. Throws RangeError with the reason if it is none. */
export function parseRevocationList(der: Buffer): RevocationList {
  const [list] = derValues(der, readDer(der, 0))
  if (list === undefined) throw new RangeError('it is empty')
  const fields = [...derValues(der, list)]
  // The version is there in lists of version 2 only.
  const first = fields[0]?.tag === DerTag.integer ? 1 : 0
  const issuer = fields[first + 1]
  const thisUpdate = fields[first + 2]
  if (issuer?.tag !== DerTag.sequence || thisUpdate === undefined || !isTime(thisUpdate)) {
    throw new RangeError('it is no list of revoked certificates')
  }
  const nextUpdate = fields[first + 3]
  const hasNextUpdate = nextUpdate !== undefined && isTime(nextUpdate)
  const revoked = fields[first + (hasNextUpdate ? 4 : 3)]
  const serials = new Set<string>()
  if (revoked?.tag === DerTag.sequence) {
    for (const entry of derValues(der, revoked)) {
      const [serial] = derValues(der, entry)
      if (serial?.tag === DerTag.integer) serials.add(serialText(der.toString('hex', serial.content, serial.end)))
    }
  }
  return {
    issuer: Buffer.from(der.subarray(issuer.start, issuer.end)),
    nextUpdateMs: hasNextUpdate ? readTime(der, nextUpdate) : null,
    serials,
  }
}

/** Whether one of the lists names the certificate. */
export function isRevoked({ raw, serialNumber }: CheckedCertificate, lists: readonly RevocationList[]): boolean {
  if (lists.length === 0) return false
  const issuer = issuerOf(raw)
  const serial = serialText(serialNumber)
  return lists.some(list => list.serials.has(serial) && list.issuer.equals(issuer))
}

/**
 * Whether the lists name certificates that they did not name before, other than those its own authority has issued: one of them may be above it, which nobody knows who
 * has the certificate alone.
 */
export function hasNewsAbove(
  { raw }: CheckedCertificate,
  before: readonly RevocationList[],
  now: readonly RevocationList[],
): boolean {
  const own = issuerOf(raw)
  return now
    .filter(({ issuer }) => !issuer.equals(own))
    .some(({ issuer, serials }) => {
      const known = before.filter(list => list.issuer.equals(issuer))
      return [...serials].some(serial => !known.some(list => list.serials.has(serial)))
    })
}

/** Name of who issued a certificate, as DER (RFC 5280 section 4.1). */
function issuerOf(der: Buffer): Buffer {
  const [certificate] = derValues(der, readDer(der, 0))
  if (certificate === undefined) throw new RangeError('it is empty')
  const fields = [...derValues(der, certificate)]
  // Version (not in version 1), serial number, algorithm, issuer.
  const issuer = fields[fields[0]?.tag === DerTag.context0 ? 3 : 2]
  if (issuer === undefined) throw new RangeError('it is no certificate')
  return der.subarray(issuer.start, issuer.end)
}

const serialText = (hex: string): string => hex.toUpperCase().replace(/^0+(?=.)/, '')

const isTime = ({ tag }: DerValue): boolean => tag === DerTag.utcTime || tag === DerTag.generalizedTime

/** `YYMMDDHHMMSSZ`, where years from 50 on are of the last century, or `YYYYMMDDHHMMSSZ` (RFC 5280 section 5.1.2.4). */
function readTime(der: Buffer, { tag, content, end }: DerValue): number {
  const text = der.toString('latin1', content, end)
  const year = tag === DerTag.generalizedTime ? '' : Number(text.slice(0, 2)) >= 50 ? '19' : '20'
  const time = /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(year + text)
  if (time === null) throw new RangeError('a time in it is none')
  const [, y, month, day, hour, minute, second] = time
  return Date.parse(`${y}-${month}-${day}T${hour}:${minute}:${second}Z`)
}
