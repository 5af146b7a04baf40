import type { RevocationList } from './revocation.ts'

/** A certificate that ends within this time is worth a warning: whoever renews them does it earlier. */
const EXPIRY_WARNING_MS = 14 * 86_400_000

/** What the files of a TLS listener hold, read together and found to fit one another. */
export interface TlsFiles {
  /** In PEM: the certificate, then those between it and an authority clients know. */
  readonly cert: Buffer
  readonly key: Buffer
  /** Authorities of client certificates, each in PEM. */
  readonly ca: readonly string[]
  /** Lists of revoked ones, each in PEM: OpenSSL reads one of a text only. */
  readonly crl: readonly string[]
  /** When the certificate ends, milliseconds since 1970. */
  readonly certUntilMs: number
  /** What `crl` says. */
  readonly revocations: readonly RevocationList[]
}

/** Which of them is over, or soon, a sentence each with what to do. `listener` is its path in the configuration. */
export function expiryWarnings(listener: string, { certUntilMs, revocations }: TlsFiles, nowMs: number): string[] {
  const warnings: string[] = []
  if (certUntilMs <= nowMs) {
    warnings.push(`${listener}.tls.cert: the certificate expired on ${day(certUntilMs)}, clients refuse it; renew it`)
  } else if (certUntilMs - nowMs <= EXPIRY_WARNING_MS) {
    warnings.push(`${listener}.tls.cert: the certificate expires on ${day(certUntilMs)}; renew it`)
  }
  for (const { nextUpdateMs } of revocations) {
    if (nextUpdateMs !== null && nextUpdateMs <= nowMs) {
      warnings.push(
        `${listener}.tls.crl: a list ended on ${day(nextUpdateMs)}, and every client certificate of its authority is refused; get the next one`,
      )
    }
  }
  return warnings
}

const day = (ms: number): string => new Date(ms).toISOString().slice(0, 10)
