import { execFile } from 'node:child_process'
import { mkdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const DAY_MS = 86_400_000

const NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']

/** Files in PEM. */
export interface KeyPair {
  readonly cert: string
  readonly key: string
}

export interface Subject {
  /** Default: the name the files have. */
  readonly commonName?: string
  /** Subject alternative names as openssl writes them: `DNS:localhost`, `IP:127.0.0.1`, `email:a@b.c`, `URI:urn:x`. Default: none. */
  readonly alternativeNames?: readonly string[]
  /** Default: not RSA, but a key on the curve P-256. */
  readonly rsaBits?: number
  readonly validFrom?: Date
  readonly validUntil?: Date
}

/** What `openssl ca` needs, with everything in one directory. */
const CONFIGURATION = `
[ca]
default_ca = authority
[authority]
database = index.txt
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_crl_days = 30
policy = policy
copy_extensions = copy
unique_subject = no
[policy]
commonName = supplied
[req]
distinguished_name = subject
x509_extensions = authority_extensions
[subject]
commonName = name
[authority_extensions]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf_extensions]
basicConstraints = CA:false
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
`

/** A certificate authority of a test, made by the command `openssl` in a directory of its own below the given one. */
export class CertificateAuthority {
  readonly #folder: string
  /** Its own certificate. */
  readonly cert: string
  /** Its list of revoked certificates; empty until `revoke`. */
  readonly crl: string

  private constructor(folder: string) {
    this.#folder = folder
    this.cert = join(folder, 'ca.pem')
    this.crl = join(folder, 'crl.pem')
  }

  static async create(directory: string, name = 'ca'): Promise<CertificateAuthority> {
    const folder = join(directory, name)
    await mkdir(folder)
    await writeFile(join(folder, 'openssl.cnf'), CONFIGURATION)
    await writeFile(join(folder, 'index.txt'), '')
    const authority = new CertificateAuthority(folder)
    await authority.#openssl(
      ...['req', '-x509', '-config', 'openssl.cnf', '-days', '30', '-subj', `/CN=${name}`],
      ...[...NEW_KEY, '-noenc', '-keyout', 'ca-key.pem', '-out', 'ca.pem'],
    )
    await authority.#writeCrl()
    return authority
  }

  /** A new key and a certificate for it; valid for 30 days from yesterday on unless told otherwise. */
  async issue(
    name: string,
    {
      commonName = name,
      alternativeNames = [],
      rsaBits,
      validFrom = new Date(Date.now() - DAY_MS),
      validUntil = new Date(Date.now() + 30 * DAY_MS),
    }: Subject = {},
  ): Promise<KeyPair> {
    const request = `${name}.csr`
    const names = alternativeNames.length === 0 ? [] : ['-addext', `subjectAltName=${alternativeNames.join(',')}`]
    const newKey = rsaBits === undefined ? NEW_KEY : ['-newkey', `rsa:${rsaBits}`]
    await this.#openssl(
      ...['req', '-new', '-config', 'openssl.cnf', '-subj', `/CN=${commonName}`, ...names],
      ...[...newKey, '-noenc', '-keyout', `${name}-key.pem`, '-out', request],
    )
    await this.#openssl(
      ...['ca', '-batch', '-notext', '-config', 'openssl.cnf', '-cert', 'ca.pem', '-keyfile', 'ca-key.pem'],
      ...['-extensions', 'leaf_extensions', '-startdate', asn1Time(validFrom), '-enddate', asn1Time(validUntil)],
      ...['-in', request, '-out', `${name}.pem`],
    )
    return { cert: join(this.#folder, `${name}.pem`), key: join(this.#folder, `${name}-key.pem`) }
  }

  /** An authority whose certificate this one has issued. */
  async subordinate(directory: string, name: string): Promise<CertificateAuthority> {
    const below = await CertificateAuthority.create(directory, name)
    await below.#openssl(
      ...['req', '-new', '-config', 'openssl.cnf', '-key', 'ca-key.pem', '-subj', `/CN=${name}`, '-out', 'ca.csr'],
    )
    await this.#openssl(
      ...['ca', '-batch', '-notext', '-config', 'openssl.cnf', '-cert', 'ca.pem', '-keyfile', 'ca-key.pem'],
      ...[
        '-extensions',
        'authority_extensions',
        '-days',
        '30',
        '-in',
        join(below.#folder, 'ca.csr'),
        '-out',
        below.cert,
      ],
    )
    await below.#writeCrl()
    return below
  }

  /** Puts a certificate on the list, which is replaced in one step. */
  async revoke({ cert }: Pick<KeyPair, 'cert'>): Promise<void> {
    await this.#openssl(
      ...['ca', '-config', 'openssl.cnf', '-cert', 'ca.pem', '-keyfile', 'ca-key.pem', '-revoke', cert],
    )
    await this.#writeCrl()
  }

  async #writeCrl(): Promise<void> {
    await this.#openssl(
      ...['ca', '-config', 'openssl.cnf', '-cert', 'ca.pem', '-keyfile', 'ca-key.pem', '-gencrl', '-out', 'next.pem'],
    )
    await rename(join(this.#folder, 'next.pem'), this.crl)
  }

  async #openssl(...args: string[]): Promise<void> {
    await run('openssl', args, { cwd: this.#folder })
  }
}

/** `20261126093000Z` */
function asn1Time(time: Date): string {
  return `${time.toISOString().slice(0, 19).replaceAll(/[-:T]/g, '')}Z`
}
