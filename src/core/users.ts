import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import { NOBODYS_HASH, type ScryptHash } from '../model/scrypt-hash.ts'
import type { UserEntry } from '../model/user-entry.ts'
import type { Identity } from './access.ts'

/** A user, which is also the identity of every client that has logged in as it. */
export class User implements Identity {
  readonly user: string
  readonly groups: readonly string[]
  readonly hash: ScryptHash
  /** Wall clock, milliseconds since 1970; null: not since this start. */
  lastLoginMs: number | null = null
  /** Stands for the password that was right; null: none has been given yet. */
  #proved: Buffer | null = null

  constructor({ name, hash, groups }: UserEntry, before: User | undefined) {
    this.user = name
    this.hash = hash
    this.groups = groups
    if (before?.hash.text !== hash.text) return
    this.lastLoginMs = before.lastLoginMs
    this.#proved = before.#proved
  }

  /** Whether this tag is of a password that was right before. */
  isProvedBy(tag: Buffer): boolean {
    return this.#proved !== null && timingSafeEqual(this.#proved, tag)
  }

  prove(tag: Buffer): void {
    this.#proved = tag
  }
}

/** The users of the users file, as it was read last. */
export class Users {
  /** Passwords that were right are remembered under it: it is of this process and nowhere on disk. */
  readonly #key = randomBytes(32)
  #byName: ReadonlyMap<string, User> = new Map()

  /** From now on there are these. Passwords that did not change stay proved. */
  replace(entries: readonly UserEntry[]): void {
    this.#byName = new Map(entries.map(entry => [entry.name, new User(entry, this.#byName.get(entry.name))]))
  }

  find(name: string): User | undefined {
    return this.#byName.get(name)
  }

  all(): Iterable<User> {
    return this.#byName.values()
  }

  /** Stands for a name and a password, and gives neither away. */
  tag(name: string, password: Buffer): Buffer {
    const nameBytes = Buffer.from(name)
    const length = Buffer.allocUnsafe(4)
    length.writeUInt32BE(nameBytes.length)
    return createHmac('sha256', this.#key).update(length).update(nameBytes).update(password).digest()
  }

  /** What a password given for that name is held against; for a name that is not there, something that costs the same. */
  hashFor(name: string): ScryptHash {
    return this.#byName.get(name)?.hash ?? this.#decoy
  }

  /** All hashes of a file are usually of one cost: the first one's. */
  get #decoy(): ScryptHash {
    const [first] = this.#byName.values()
    return first === undefined ? NOBODYS_HASH : { ...NOBODYS_HASH, options: first.hash.options }
  }
}
