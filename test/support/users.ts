import { scryptSync } from 'node:crypto'
import { Access, type AnonymousRule } from '../../src/core/access.ts'
import { AddressGate } from '../../src/core/address-gate.ts'
import type { Tokens } from '../../src/core/tokens.ts'
import { Users } from '../../src/core/users.ts'
import { parseScryptHash } from '../../src/model/scrypt-hash.ts'
import type { UserEntry } from '../../src/model/user-entry.ts'

const SALT = Buffer.from('a salt for tests')

/** A hash that costs next to nothing to check. */
export function cheapHash(password: string): string {
  const key = scryptSync(password, SALT, 32, { N: 4, r: 1, p: 1 })
  const [salt, text] = [SALT, key].map(bytes => bytes.toString('base64').replaceAll('=', ''))
  return `$scrypt$ln=2,r=1,p=1$${salt}$${text}`
}

export const userEntry = (name: string, password: string, ...groups: string[]): UserEntry => ({
  name,
  hash: parseScryptHash(cheapHash(password)),
  groups,
})

/** A line of a users file. */
export const userLine = (name: string, password: string, ...groups: string[]): string =>
  `${JSON.stringify(name)}: { password: "${cheapHash(password)}", groups: [${groups.join(', ')}] }\n`

/** The rules of `auth` with the limits' defaults; nobody is let in without proof unless it is said. */
export function accessWith({
  anonymous = 'nobody',
  users = null,
  tokens = null,
  gate = new AddressGate({ connectionsPerS: 0, loginFailures: 10, banMs: 60_000 }, () => performance.now()),
  loginQueue = 1000,
}: {
  anonymous?: AnonymousRule
  users?: Users | null
  tokens?: Tokens | null
  gate?: AddressGate
  loginQueue?: number
} = {}): Access {
  return new Access({ anonymous, users, tokens, gate, loginQueue, wallMs: Date.now })
}

export function usersOf(...entries: UserEntry[]): Users {
  const users = new Users()
  users.replace(entries)
  return users
}
