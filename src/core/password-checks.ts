/*
 * Passwords against their hashes, one at a time: scrypt runs in the few threads in which LevelDB waits for the disk, and takes 16 MiB for each. After a site's power cut
 * everybody comes at once; who comes again with the same password while it waits, joins the check that is waiting.
 */
import { scrypt, timingSafeEqual } from 'node:crypto'
import type { ScryptHash } from '../model/scrypt-hash.ts'

/** One that waits or runs; asked for its hash when its turn comes, as the users may have changed. Null: it is not wanted any more. */
interface Check {
  readonly password: Buffer
  readonly hash: () => ScryptHash | null
  readonly outcome: PromiseWithResolvers<ScryptHash | null>
}

export class PasswordChecks {
  readonly #limit: number
  /** By what stands for name and password, in the order they came. */
  readonly #waiting = new Map<string, Check>()
  #isBusy = false

  /** `limit`: how many may wait, `limits.login_queue`. */
  constructor(limit: number) {
    this.#limit = limit
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** The hash the password is right for, when its turn has come; null: it is wrong. Null at once: too many wait. `tag` stands for name and password. */
  check(tag: string, { password, hash }: Pick<Check, 'password' | 'hash'>): Promise<ScryptHash | null> | null {
    const same = this.#waiting.get(tag)
    if (same !== undefined) return same.outcome.promise
    if (this.#waiting.size >= this.#limit) return null
    const outcome = Promise.withResolvers<ScryptHash | null>()
    this.#waiting.set(tag, { password, hash, outcome })
    if (!this.#isBusy) this.#next()
    return outcome.promise
  }

  #next(): void {
    const [first] = this.#waiting
    this.#isBusy = first !== undefined
    if (first === undefined) return
    const [tag, { password, hash, outcome }] = first
    const finish = (right: ScryptHash | null): void => {
      this.#waiting.delete(tag)
      outcome.resolve(right)
      this.#next()
    }
    const expected = hash()
    if (expected === null) {
      // Not by calling each other: thousands may be let go at once.
      setImmediate(finish, null)
      return
    }
    scrypt(password, expected.salt, expected.key.length, expected.options, (error, key) => {
      // No memory for it, most likely: nobody gets in by that.
      finish(error === null && timingSafeEqual(key, expected.key) ? expected : null)
    })
  }
}
