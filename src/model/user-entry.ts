import type { ScryptHash } from './scrypt-hash.ts'

/** A user as the users file has it. */
export interface UserEntry {
  readonly name: string
  readonly hash: ScryptHash
  readonly groups: readonly string[]
}
