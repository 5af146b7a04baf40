import { isIP } from 'node:net'
import { connect, type TLSSocket } from 'node:tls'
import { Failure } from './failure.ts'

/** What a connection over TLS is judged by. */
export interface TlsTrust {
  /** Authorities in PEM; null: those that Node knows. */
  readonly ca: Buffer | null
  /** The client's own certificate and key in PEM; null: it shows none. */
  readonly cert: Buffer | null
  readonly key: Buffer | null
  /** Whether the broker's certificate must be for its host. */
  readonly checksHost: boolean
}

/** A connection on its way. Throws Failure if the files are not what they should be. */
export function connectTls(
  { host, port, alpn }: { readonly host: string; readonly port: number; readonly alpn: string },
  { ca, cert, key, checksHost }: TlsTrust,
): TLSSocket {
  try {
    return connect({
      host,
      port,
      ALPNProtocols: [alpn],
      // An address is no name to ask for (RFC 6066 section 3).
      ...(isIP(host) === 0 && { servername: host }),
      ...(ca !== null && { ca }),
      ...(cert !== null && { cert }),
      ...(key !== null && { key }),
      ...(!checksHost && { checkServerIdentity: () => undefined }),
    }).setNoDelay()
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Failure(`TLS can't use the files of --cafile, --cert, --key: ${reason}.`, { cause })
  }
}
