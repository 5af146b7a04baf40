/*
 * Who may connect. A protocol asks an `Authenticator` once per connection, before anything of the client counts.
 *
 * What is known at once is answered at once: a certificate, a client that needs no proof, a password that was right before. Any other password waits for its turn
 * (password-checks.ts), and the answer to a wrong one waits longer the more of them come from an address, until that is banned (address-gate.ts). A name that is not there is
 * treated like a wrong password, to the millisecond as far as that goes: nobody learns which names there are.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { AddressGate } from './address-gate.ts'
import { PasswordChecks } from './password-checks.ts'
import type { Tokens } from './tokens.ts'
import { User, type Users } from './users.ts'

/** What is known of a client that wants in. */
export interface Credentials {
  readonly clientId: string
  /** As it calls itself; null: it gave no name. */
  readonly user: string | null
  readonly password: Buffer | null
  /** The user its TLS certificate names; null: it showed none. */
  readonly certificateUser: string | null
  /** Without port; empty: it has none. */
  readonly address: string
  /** It is on this machine. */
  readonly isLocal: boolean
}

/** Who a client has proved to be. */
export interface Identity {
  /** Null: nobody in particular; a name it may have given was not checked. */
  readonly user: string | null
  readonly groups: readonly string[]
}

/**
 * `bad-credentials`: user name or password is wrong, and which is not said; `anonymous`: it would have to say who it is; `banned`: too many failed from its address;
 * `busy`: too many wait to be checked, it may come again.
 */
export type LoginRefusal = 'bad-credentials' | 'anonymous' | 'banned' | 'busy'

export type Login =
  | { readonly kind: 'accepted'; readonly identity: Identity }
  /** `why` is for the log and for the client. */
  | { readonly kind: 'refused'; readonly reason: LoginRefusal; readonly why: string }

export interface Authenticator {
  /** Answers at once what it knows at once. A promise always resolves. */
  login(credentials: Credentials): Login | Promise<Login>
}

/** Who gets in without proof: `local` are clients on this machine. */
export type AnonymousRule = 'everybody' | 'local' | 'nobody'

const REFUSALS: Readonly<Record<LoginRefusal, Login>> = {
  'bad-credentials': { kind: 'refused', reason: 'bad-credentials', why: 'user name or password is wrong' },
  anonymous: { kind: 'refused', reason: 'anonymous', why: 'anonymous clients are not allowed' },
  banned: { kind: 'refused', reason: 'banned', why: 'too many wrong passwords came from this address' },
  busy: {
    kind: 'refused',
    reason: 'busy',
    why: 'limits.login_queue is reached: too many clients are logging in; try again',
  },
}

const ANONYMOUS: Identity = { user: null, groups: [] }

/** The rules of `auth` in the configuration. */
export class Access implements Authenticator {
  /** Logins since start. */
  accepted = 0
  readonly refused: Record<LoginRefusal, number> = { 'bad-credentials': 0, anonymous: 0, banned: 0, busy: 0 }

  /** For clients that come from now on. */
  anonymous: AnonymousRule
  readonly #users: Users | null
  readonly #tokens: Tokens | null
  readonly #gate: AddressGate
  readonly #checks: PasswordChecks
  readonly #wallMs: () => number

  constructor({
    anonymous,
    users,
    tokens,
    gate,
    loginQueue,
    wallMs,
  }: {
    anonymous: AnonymousRule
    /** Null: there is no users file, and names are not checked. */
    users: Users | null
    /** Null: there is no tokens file. */
    tokens: Tokens | null
    gate: AddressGate
    /** Passwords that may wait to be checked, `limits.login_queue`. */
    loginQueue: number
    wallMs: () => number
  }) {
    this.anonymous = anonymous
    this.#users = users
    this.#tokens = tokens
    this.#gate = gate
    this.#checks = new PasswordChecks(loginQueue)
    this.#wallMs = wallMs
  }

  get waiting(): number {
    return this.#checks.waiting
  }

  login(credentials: Credentials): Login | Promise<Login> {
    const { user, password, certificateUser, isLocal } = credentials
    if (certificateUser !== null) return this.#certified(certificateUser, user)
    if (this.#users !== null && user !== null) {
      return this.#byPassword(this.#users, { ...credentials, user, password: password ?? NO_PASSWORD })
    }
    const isWelcome = this.anonymous === 'everybody' || (this.anonymous === 'local' && isLocal)
    return isWelcome ? this.#accept(ANONYMOUS) : this.#refuse('anonymous')
  }

  /** Whether there is anybody who could prove to be somebody, by password or token. */
  get hasCredentials(): boolean {
    return this.#users !== null || this.#tokens !== null
  }

  /** Whose token this is. */
  byToken(token: string, address: string): Login | Promise<Login> {
    const identity = this.#tokens?.find(token) ?? null
    if (identity !== null) return this.#accept(identity)
    return this.#refuseGuess(address, token)
  }

  /** The certificate is the proof: a password is not asked for, and a name given besides must be the same. The users file need not know it; if it does, its groups count. */
  #certified(certificateUser: string, user: string | null): Login {
    if (user !== null && user !== certificateUser) return this.#refuse('bad-credentials')
    const known = this.#users?.find(certificateUser)
    if (known !== undefined) known.lastLoginMs = this.#wallMs()
    return this.#accept({ user: certificateUser, groups: known?.groups ?? [] })
  }

  #byPassword(users: Users, { user: name, password, address }: Named): Login | Promise<Login> {
    const tag = users.tag(name, password)
    const user = users.find(name)
    if (user?.isProvedBy(tag)) return this.#acceptUser(user)
    if (this.#gate.isBanned(address)) return this.#refuse('banned')
    const guess = tag.toString('latin1')
    const checked = this.#checks.check(guess, {
      password,
      hash: () => (this.#gate.isBanned(address) ? null : users.hashFor(name)),
    })
    if (checked === null) return this.#refuse('busy')
    return checked.then(right => {
      // The file may have been read again meanwhile.
      const found = users.find(name)
      if (found !== undefined && found.hash.text === right?.text) {
        found.prove(tag)
        return this.#acceptUser(found)
      }
      return this.#refuseGuess(address, guess)
    })
  }

  /** Counts against the address, and takes its time. */
  async #refuseGuess(address: string, guess: string): Promise<Login> {
    if (this.#gate.isBanned(address)) return this.#refuse('banned')
    await delay(this.#gate.failed(address, guess), undefined, { ref: false })
    return this.#refuse('bad-credentials')
  }

  #acceptUser(user: User): Login {
    user.lastLoginMs = this.#wallMs()
    return this.#accept(user)
  }

  #accept(identity: Identity): Login {
    this.accepted++
    return { kind: 'accepted', identity }
  }

  #refuse(reason: LoginRefusal): Login {
    this.refused[reason]++
    return REFUSALS[reason]
  }

  /** Who somebody who has logged in is by now; null: the user is gone, or has another password. */
  review(identity: Identity): Identity | null {
    if (this.#users === null || identity.user === null) return identity
    const user = this.#users.find(identity.user)
    if (identity instanceof User) return user?.hash.text === identity.hash.text ? user : null
    return user === undefined ? identity : { user: identity.user, groups: user.groups }
  }
}

const NO_PASSWORD = Buffer.alloc(0)

/** Credentials with a name. */
interface Named extends Credentials {
  readonly user: string
  readonly password: Buffer
}
