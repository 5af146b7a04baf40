/*
 * MQTT over TLS. Connections come from a TcpListener, wait for their turn (`Handshakes`), and are handed on when their handshake is done. Only loaded where a
 * listener has TLS.
 *
 * Certificate, key, authorities and list of revoked certificates may change while it runs (`reload`). Established connections go on, except those whose client
 * certificate does not hold any more. Sessions are resumed only where no client certificates are asked for: OpenSSL would not judge them anew.
 */
import { constants, X509Certificate } from 'node:crypto'
import { createServer, type SecureContextOptions, type Server, type TLSSocket } from 'node:tls'
import { BrokerError } from '../model/error.ts'
import { hasNewsAbove, isRevoked } from '../model/revocation.ts'
import { expiryWarnings, type TlsFiles } from '../model/tls-files.ts'
import { LimitedLog } from '../telemetry/limited-log.ts'
import { certificateUser, type UserFrom } from './certificate-user.ts'
import type { Handshake, Handshakes } from './handshakes.ts'
import type { Accept, Accepted, Listener, ListenerCounters, ListenerOptions, Peer, PortOptions } from './listener.ts'
import { TcpListener, type TcpSocket, tell } from './tcp.ts'

/** With forward secrecy and authenticated, all of them; the first three are of TLS 1.3. Processors without instructions for AES ask for ChaCha20 first and get it. */
const CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'TLS_AES_256_GCM_SHA384',
  'ECDHE-ECDSA-AES128-GCM-SHA256',
  'ECDHE-RSA-AES128-GCM-SHA256',
  'ECDHE-ECDSA-CHACHA20-POLY1305',
  'ECDHE-RSA-CHACHA20-POLY1305',
  'ECDHE-ECDSA-AES256-GCM-SHA384',
  'ECDHE-RSA-AES256-GCM-SHA384',
].join(':')

/** Longest way from a client's certificate up to its authority. */
const CHAIN_MAX = 10

export interface TlsOptions extends ListenerOptions, PortOptions {
  /** Reads and examines the files; throws BrokerError with what is wrong with which. */
  readonly readFiles: () => TlsFiles
  /** What stands in the configuration beside them. */
  readonly clientCert: 'none' | 'optional' | 'required'
  readonly userFrom: UserFrom
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3'
  /** Protocol of ALPN; clients that offer others only are refused, those that offer none are not. */
  readonly alpn: string
  readonly handshakes: Handshakes
  readonly monotonicMs: () => number
}

/** A connection from its arrival to its end. */
interface Connection extends Handshake {
  readonly raw: TcpSocket
  /** By which it was judged last: when its handshake began, or they changed since. */
  files: TlsFiles
  /** Its handshake has succeeded or failed. */
  isOver: boolean
  established: { readonly socket: TLSSocket; readonly accepted: Accepted } | null
}

export class TlsListener implements Listener {
  readonly #options: TlsOptions
  readonly #tcp: TcpListener
  /** For failed handshakes: whoever scans ports must not fill the log. */
  readonly #limitedLog: LimitedLog
  readonly #server: Server
  /** Those that are open. */
  readonly #connections = new Set<Connection>()
  /** By the socket below TLS; Node tells of a failed handshake when that is closed already. */
  readonly #byRaw = new WeakMap<object, Connection>()
  #files: TlsFiles
  /** Those of `#files.ca`. */
  #authorities: readonly X509Certificate[]
  /** Why the files as they are now are not the ones in use; null: they are. */
  #reloadFault: string | null = null
  #accept: Accept = () => null

  /** Certificates taken into use since the start, and how often new ones were refused. */
  readonly reloads = { done: 0, refused: 0 }

  /** Throws BrokerError TLS_FILES_INVALID. */
  constructor(options: TlsOptions) {
    this.#options = options
    this.#tcp = new TcpListener({ ...options, reads: 'nothing' })
    this.#limitedLog = new LimitedLog(options.log, options.monotonicMs)
    this.#files = options.readFiles()
    this.#authorities = certificatesOf(this.#files)
    const { clientCert, alpn } = options
    this.#server = takenByOpenSsl(() =>
      createServer({
        requestCert: clientCert !== 'none',
        // With `optional`, a certificate that does not hold is refused in #secured.
        rejectUnauthorized: clientCert === 'required',
        ALPNProtocols: [alpn],
        ...this.#contextOptions(this.#files),
      }),
    )
    this.#server.on('secureConnection', socket => this.#secured(socket))
    this.#server.on('tlsClientError', (error, socket) => this.#failed(socket, error))
  }

  get counters(): ListenerCounters {
    return this.#tcp.counters
  }

  start(accept: Accept): Promise<void> {
    this.#accept = accept
    return this.#tcp.start(raw => this.#arrived(raw))
  }

  stop(): Promise<void> {
    return this.#tcp.stop()
  }

  address(): { readonly host: string; readonly port: number } {
    return this.#tcp.address()
  }

  get name(): string {
    return this.#options.name
  }

  /** When the certificate in use ends, milliseconds since 1970. */
  get certUntilMs(): number {
    return this.#files.certUntilMs
  }

  health(nowMs: number): readonly string[] {
    const path = `listeners.${this.name}`
    const warnings = expiryWarnings(path, this.#files, nowMs)
    if (this.#reloadFault !== null) warnings.push(`${path}.tls: the old files stay in use: ${this.#reloadFault}`)
    return warnings
  }

  /** Besides, ends connections whose client certificate the new files do not let in. */
  reload(): void {
    const { name: listener, log, readFiles } = this.#options
    let files: TlsFiles
    try {
      files = readFiles()
      if (isSame(files, this.#files)) {
        this.#reloadFault = null
        return
      }
      takenByOpenSsl(() => this.#server.setSecureContext(this.#contextOptions(files)))
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      this.reloads.refused++
      this.#reloadFault = error.message
      log.error({ listener, reason: this.#reloadFault }, 'new certificates are not taken, the old ones stay in use')
      return
    }
    this.#files = files
    this.#authorities = certificatesOf(files)
    this.#reloadFault = null
    this.reloads.done++
    let ended = 0
    for (const connection of this.#connections) {
      const { established } = connection
      if (established === null) continue
      const why = this.#objection(established.socket, connection.files)
      connection.files = files
      if (why === null) continue
      ended++
      established.accepted.dismiss(why)
    }
    log.info({ listener, until: new Date(files.certUntilMs).toISOString(), ended }, 'new certificates are in use')
  }

  #arrived(raw: TcpSocket): void {
    const { handshakes, name: listener } = this.#options
    const address = raw.remoteAddress ?? ''
    const connection: Connection = {
      raw,
      address,
      files: this.#files,
      isOver: false,
      established: null,
      begin: () => {
        connection.files = this.#files
        this.#server.emit('connection', raw)
      },
      expire: () => {
        this.#fail(connection, 'timeout', 'the handshake took too long')
      },
    }
    if (!handshakes.enter(connection)) {
      this.counters.refused.connections++
      this.#limitedLog.write('warn', { listener, address }, 'a connection is refused: limits.tls_clients is reached')
      raw.destroy()
      return
    }
    this.#connections.add(connection)
    this.#byRaw.set(raw, connection)
    // Before the handshake there is no other listener.
    raw.on('error', () => undefined)
    raw.once('close', () => {
      this.#connections.delete(connection)
      handshakes.leave(connection)
    })
  }

  /** A handshake has succeeded. */
  #secured(socket: TLSSocket): void {
    const connection = this.#connectionOf(socket)
    if (connection === undefined) {
      socket.destroy()
      return
    }
    connection.isOver = true
    const { handshakes, clientCert, userFrom } = this.#options
    const { raw } = connection
    const certificate = clientCert === 'none' ? undefined : socket.getPeerX509Certificate()
    const why = certificate === undefined ? null : this.#judge(connection, socket)
    if (why !== null) {
      this.#fail(connection, reasonOf(why), `the client certificate is refused: ${why}`)
      return
    }
    handshakes.complete(connection)
    const peer: Peer = {
      ...raw.peer,
      isEncrypted: true,
      certificateUser: certificate === undefined ? null : certificateUser(certificate, userFrom),
    }
    const shown = tell(socket, { address: raw.remoteAddress, port: raw.remotePort })
    const accepted = this.#accept(Object.assign(shown, { peer }))
    if (accepted !== null) connection.established = { socket, accepted }
  }

  /** Why a client certificate does not let its owner in; null: it does. */
  #judge({ files }: Connection, socket: TLSSocket): string | null {
    if (!socket.authorized) return String(socket.authorizationError)
    // OpenSSL has judged it by the files with which the handshake began.
    return files === this.#files ? null : this.#objection(socket, files)
  }

  /** A handshake has failed, by fault of the client or because it went away. */
  #failed(socket: TLSSocket, error: Error): void {
    const connection = this.#connectionOf(socket)
    if (connection === undefined || connection.isOver) return
    const code = socket.authorizationError?.toString() ?? ('code' in error ? String(error.code) : '')
    this.#fail(connection, reasonOf(code), code === '' ? error.message : `${code}: ${error.message}`)
  }

  #fail(connection: Connection, reason: string, why: string): void {
    const { handshakes, name: listener } = this.#options
    connection.isOver = true
    handshakes.fail(connection, reason)
    this.counters.refused.handshake++
    this.#limitedLog.write('warn', { listener, address: connection.address, reason: why }, 'a TLS handshake failed')
    connection.raw.destroy()
  }

  #connectionOf(socket: TLSSocket): Connection | undefined {
    // The socket below it, which Node does not document. Without it nobody is let in.
    const raw: unknown = Reflect.get(socket, '_parent')
    return typeof raw === 'object' && raw !== null ? this.#byRaw.get(raw) : undefined
  }

  #contextOptions({ cert, key, ca, crl }: TlsFiles): SecureContextOptions {
    const { minVersion, clientCert } = this.#options
    const secureOptions = constants.SSL_OP_NO_RENEGOTIATION | constants.SSL_OP_PRIORITIZE_CHACHA
    return {
      cert,
      key,
      ...(ca.length > 0 && { ca: [...ca] }),
      ...(crl.length > 0 && { crl: [...crl] }),
      minVersion,
      ciphers: CIPHERS,
      honorCipherOrder: true,
      secureOptions: clientCert === 'none' ? secureOptions : secureOptions | constants.SSL_OP_NO_TICKET,
    }
  }

  /**
   * Why a client certificate that held under the files of before does not hold under those in use; null: it does, or there is none. Node does not tell which certificates a
   * client sent besides its own: where its authority is not in `ca`, whatever may concern that ends it.
   */
  #objection(socket: TLSSocket, before: TlsFiles): string | null {
    if (this.#options.clientCert === 'none') return null
    const own = socket.getPeerX509Certificate()
    if (own === undefined) return null
    const { ca, revocations } = this.#files
    const hasLess = before.ca.some(authority => !ca.includes(authority))
    // From the client's own certificate up to an authority that nobody is above.
    let certificate = own
    for (let height = 0; height < CHAIN_MAX; height++) {
      if (isRevoked(certificate, revocations)) return 'CERT_REVOKED'
      const issued = certificate
      // Signatures were judged in the handshake; that of another authority under the same name was not.
      const authority = this.#authorities.find(
        candidate => issued.checkIssued(candidate) && (!hasLess || issued.verify(candidate.publicKey)),
      )
      if (authority === undefined) break
      if (authority.checkIssued(authority)) return null
      certificate = authority
    }
    if (!hasLess && !hasNewsAbove(own, before.revocations, revocations)) return null
    return 'UNABLE_TO_GET_ISSUER_CERT'
  }
}

function isSame(a: TlsFiles, b: TlsFiles): boolean {
  return a.cert.equals(b.cert) && a.key.equals(b.key) && a.ca.join() === b.ca.join() && a.crl.join() === b.crl.join()
}

const certificatesOf = ({ ca }: TlsFiles): X509Certificate[] => ca.map(block => new X509Certificate(block))

/** What OpenSSL says against files that fit one another, such as `error:0A00018E:SSL routines::ca md too weak`, as TLS_FILES_INVALID. */
function takenByOpenSsl<T>(use: () => T): T {
  try {
    return use()
  } catch (cause) {
    if (!(cause instanceof Error) || !('code' in cause)) throw cause
    throw new BrokerError('TLS_FILES_INVALID', `OpenSSL does not take the files of a TLS listener: ${cause.message}`, {
      cause,
    })
  }
}

/** The few words failures are counted by, from codes of OpenSSL and Node. */
function reasonOf(code: string): string {
  if (code === 'CERT_REVOKED') return 'revoked'
  if (code === 'CERT_HAS_EXPIRED' || code === 'CERT_NOT_YET_VALID') return 'expired'
  if (/PEER_DID_NOT_RETURN_A_CERTIFICATE/.test(code)) return 'no_certificate'
  if (/^(?:CERT_|CRL_|UNABLE_TO_|SELF_SIGNED|DEPTH_ZERO|INVALID_|PATH_LENGTH)/.test(code)) return 'untrusted'
  if (/^ERR_SSL_.*ALERT/.test(code)) return 'refused_by_client'
  if (/UNSUPPORTED_PROTOCOL|VERSION_TOO_LOW/.test(code)) return 'version'
  if (/WRONG_VERSION_NUMBER|HTTP_REQUEST|HTTPS_PROXY_REQUEST|RECORD|PACKET_LENGTH|UNEXPECTED_MESSAGE/.test(code))
    return 'not_tls'
  if (/NO_SHARED_CIPHER|NO_SUITABLE/.test(code)) return 'no_cipher'
  if (/APPLICATION_PROTOCOL/.test(code)) return 'alpn'
  if (code === 'ECONNRESET' || code === 'EPIPE') return 'closed'
  return 'other'
}
