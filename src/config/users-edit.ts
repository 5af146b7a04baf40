/*
 * Changes to the text of a users or tokens file, made by `sluice passwd`: comments and everything else in it stay.
 */
import type { Document } from 'yaml'
import { BrokerError } from '../model/error.ts'

export interface UserChange {
  readonly name: string
  /** What the hash is of. */
  readonly key: 'password' | 'token'
  readonly hash: string
  /** Null: as they are; of a new user none. */
  readonly groups: readonly string[] | null
}

/** What became of the user. */
export type UserOutcome = 'added' | 'changed'

/** The file with a user or token added, or changed. `text` has been read without problems; empty: there is no file yet. */
export async function withUser(
  text: string,
  { name, key, hash, groups }: UserChange,
): Promise<{ text: string; outcome: UserOutcome }> {
  const { isMap, parseDocument, Scalar, YAMLMap } = await import('yaml')
  const document: Document = parseDocument(text)
  const secret = new Scalar(hash)
  secret.type = Scalar.QUOTE_DOUBLE
  const before = document.get(name)
  if (before !== undefined && !isMap(before)) {
    throw new BrokerError('CONFIG_INVALID', `${JSON.stringify(name)} is an alias in the file; write it out first.`)
  }
  const user = before ?? new YAMLMap()
  user.set(key, secret)
  if (groups !== null) user.set('groups', document.createNode(groups, { flow: true }))
  if (before === undefined) {
    user.flow = true
    document.contents ??= new YAMLMap()
    document.set(name, user)
  }
  return { text: written(document), outcome: before === undefined ? 'added' : 'changed' }
}

/** The file without a user; null: it is not in it. */
export async function withoutUser(text: string, name: string): Promise<string | null> {
  const { parseDocument } = await import('yaml')
  const document: Document = parseDocument(text)
  if (!document.delete(name)) return null
  return written(document)
}

/** One line for one user, however long its hash is. */
function written(document: Document): string {
  return document.toString({ lineWidth: 0 })
}
