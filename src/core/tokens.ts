import { createHash, timingSafeEqual } from 'node:crypto'
import type { TokenEntry } from '../model/token-entry.ts'
import type { Identity } from './access.ts'

/** The tokens of the tokens file, as it was read last. */
export class Tokens {
  #entries: readonly TokenEntry[] = []

  replace(entries: readonly TokenEntry[]): void {
    this.#entries = entries
  }

  /** Whose token this is; null: nobody's. Takes as long whichever it is. */
  find(token: string): Identity | null {
    const sha256 = createHash('sha256').update(token).digest()
    let found: TokenEntry | null = null
    for (const entry of this.#entries) if (timingSafeEqual(entry.sha256, sha256)) found = entry
    return found === null ? null : { user: found.name, groups: found.groups }
  }
}
