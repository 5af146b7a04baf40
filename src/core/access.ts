/*
 * Who may connect. A protocol asks an `Authenticator` once per connection, before anything of the client counts.
 */

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

const ANONYMOUS: Login = { kind: 'accepted', identity: { user: null, groups: [] } }

/** The rules of `auth` in the configuration. */
export class Access implements Authenticator {
  readonly #anonymous: AnonymousRule

  constructor({ anonymous }: { anonymous: AnonymousRule }) {
    this.#anonymous = anonymous
  }

  login({ user, certificateUser, isLocal }: Credentials): Login {
    if (certificateUser !== null) return certified(certificateUser, user)
    if (this.#anonymous === 'everybody' || (this.#anonymous === 'local' && isLocal)) return ANONYMOUS
    return { kind: 'refused', reason: 'anonymous', why: 'anonymous clients are not allowed' }
  }
}

/** The certificate is the proof: a password is not asked for, and a name given besides must be the same. */
function certified(certificateUser: string, user: string | null): Login {
  if (user !== null && user !== certificateUser) {
    return { kind: 'refused', reason: 'bad-credentials', why: 'the user name is not that of the certificate' }
  }
  return { kind: 'accepted', identity: { user: certificateUser, groups: [] } }
}
