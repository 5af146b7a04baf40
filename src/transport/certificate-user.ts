/** What of a certificate names the user; the words of `tls.user_from`. */
export type UserFrom = 'cn' | 'san_dns' | 'san_email' | 'san_uri' | 'none'

/** Names of kinds as Node writes them into `subjectAltName`. */
const ALTERNATIVE_NAMES = { san_dns: 'DNS', san_email: 'email', san_uri: 'URI' } as const

/** One name of the list, at the place reached: `DNS:localhost`, or in quotes, as JSON, what could be taken for more than one. */
const ALTERNATIVE_NAME = /(?:^|, )([A-Za-z ]+):("(?:[^"\\\p{Cc}]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"|[^,"]*)(?=, |$)/uy

/** What of Node's X509Certificate is looked at. */
interface Named {
  readonly subjectAltName: string | undefined
  toLegacyObject(): { readonly subject: { readonly CN?: string | string[] | undefined } }
}

/** The user a certificate stands for; null: it names none, or more than one, or one that is no user name. */
export function certificateUser(certificate: Named, from: UserFrom): string | null {
  if (from === 'none') return null
  const names = from === 'cn' ? commonNames(certificate) : alternativeNames(certificate, ALTERNATIVE_NAMES[from])
  const [name, ...more] = names
  return name === undefined || more.length > 0 || !isUserName(name) ? null : name
}

function commonNames(certificate: Named): readonly string[] {
  // Unlike `subject`, this does not have to be taken apart: a name with a line break in it stays one.
  const { CN: names } = certificate.toLegacyObject().subject
  if (names === undefined) return []
  return typeof names === 'string' ? [names] : names
}

function alternativeNames({ subjectAltName }: Named, kind: string): readonly string[] {
  if (subjectAltName === undefined) return []
  const names: string[] = []
  ALTERNATIVE_NAME.lastIndex = 0
  while (ALTERNATIVE_NAME.lastIndex < subjectAltName.length) {
    const found = ALTERNATIVE_NAME.exec(subjectAltName)
    // A list that can't be read names nobody.
    if (found === null) return []
    const [, foundKind, name = ''] = found
    if (foundKind === kind) names.push(name.startsWith('"') ? JSON.parse(name) : name)
  }
  return names
}

/** As MQTT would take it in CONNECT: UTF-8 of at most 65,535 bytes without control characters. */
function isUserName(name: string): boolean {
  return name !== '' && !/\p{Cc}/u.test(name) && name.isWellFormed() && Buffer.byteLength(name) <= 65_535
}
