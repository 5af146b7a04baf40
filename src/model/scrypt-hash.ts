/** A password hashed with scrypt (RFC 7914), written as `$scrypt$ln=14,r=8,p=1$SALT$KEY`: PHC string format, base64 without padding. */
export interface ScryptHash {
  /** As it is written. */
  readonly text: string
  readonly options: ScryptOptions
  readonly salt: Buffer
  readonly key: Buffer
}

/** Those of node:crypto's scrypt. */
export interface ScryptOptions {
  readonly N: number
  readonly r: number
  readonly p: number
  readonly maxmem: number
}

const FORM = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/

const NEW_SALT_BYTES = 16
const NEW_KEY_BYTES = 32

/** A file may ask for no more, so that no login takes the memory of a small gateway. */
const MEMORY_MAX_BYTES = 64 * 1024 ** 2
const P_MAX = 4

/** What new hashes are made with, and a hash of them that no password has: 16 MiB and some 40 ms of a PC's processor for each check. */
export const NOBODYS_HASH = parseScryptHash(formatScryptHash(Buffer.alloc(NEW_SALT_BYTES), Buffer.alloc(NEW_KEY_BYTES)))

/** A hash with the costs of NOBODYS_HASH, from a salt and a key as long as its own. */
export function formatScryptHash(salt: Buffer, key: Buffer): string {
  return `$scrypt$ln=14,r=8,p=1$${base64(salt)}$${base64(key)}`
}

/** Throws RangeError with what is wrong; the reason never repeats the text, which may be a password somebody forgot to hash. */
export function parseScryptHash(text: string): ScryptHash {
  const [, ln, r, p, salt, key] = FORM.exec(text) ?? []
  if (salt === undefined || key === undefined) throw new RangeError('this is no password hash')
  const options = optionsOf({ ln: Number(ln), r: Number(r), p: Number(p) })
  if (options.N < 2 || options.r < 1 || options.p < 1) throw new RangeError('ln, r and p of a hash are 1 or more')
  if (memoryBytes(options) > MEMORY_MAX_BYTES || options.p > P_MAX) {
    throw new RangeError(
      `to check this hash takes more than ${MEMORY_MAX_BYTES / 1024 ** 2} MiB, or its p is over ${P_MAX}`,
    )
  }
  const hash = { text, options, salt: Buffer.from(salt, 'base64'), key: Buffer.from(key, 'base64') }
  if (hash.salt.length < 8 || hash.salt.length > 64) throw new RangeError('the salt of a hash has 8 to 64 bytes')
  if (hash.key.length < 16 || hash.key.length > 64) throw new RangeError('the key of a hash has 16 to 64 bytes')
  return hash
}

function optionsOf({ ln, r, p }: { ln: number; r: number; p: number }): ScryptOptions {
  const options = { N: 2 ** ln, r, p }
  // Node counts a little more than the algorithm itself takes.
  return { ...options, maxmem: 2 * memoryBytes(options) }
}

function memoryBytes({ N, r }: { N: number; r: number }): number {
  return 128 * N * r
}

function base64(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}
