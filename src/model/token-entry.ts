/** A token of the tokens file, by its SHA-256: it is random enough to need no costlier hash. Written as `$sha256$` and base64 without padding. */
export interface TokenEntry {
  readonly name: string
  readonly sha256: Buffer
  readonly groups: readonly string[]
}

export function formatTokenHash(sha256: Buffer): string {
  return `$sha256$${sha256.toString('base64').replaceAll('=', '')}`
}

/** Throws RangeError; the reason never repeats the text, which may be the token itself. */
export function parseTokenHash(text: string): Buffer {
  const [, hash] = /^\$sha256\$([A-Za-z0-9+/]{43})$/.exec(text) ?? []
  if (hash === undefined) throw new RangeError('this is no hash of a token')
  return Buffer.from(hash, 'base64')
}
