/*
 * The users file: who may log in, by name.
 *
 *     meter-7:  { password: "$scrypt$ln=14,r=8,p=1$…$…", groups: [ meters ] }
 *     operator: { password: "$scrypt$ln=14,r=8,p=1$…$…", groups: [ admin ] }
 *
 * `sluice passwd` writes it. Read as strictly as the configuration: every problem with its line, and nothing of a file that has one.
 */
import * as z from 'zod/mini'
import { BrokerError } from '../model/error.ts'
import { configuredName, userName } from '../model/names.ts'
import { parseScryptHash } from '../model/scrypt-hash.ts'
import type { UserEntry } from '../model/user-entry.ts'
import { readConfigFile } from './file.ts'
import { describeIssue, sortProblems } from './load.ts'
import { listOf, optional, required, section, text } from './option.ts'
import { type ConfigProblem, formatProblems } from './problem.ts'
import { readTree } from './tree.ts'

/** A larger file is refused: it is read while the gateway works. */
const USERS_MAX = 10_000
const GROUPS_MAX = 100

const group = text<string>('group', '1 to 64 letters, digits, _ and -', configuredName)
const name = text<string>('user name', '1 to 255 bytes without control characters', userName)
const hash = text('password hash', 'a hash that `sluice passwd` has made', parseScryptHash, 'secret')

const usersFile = section(
  z.record(
    name.schema,
    z.strictObject({
      password: required(hash, 'Hash of the password.'),
      groups: optional(listOf(group, { min: 0, max: GROUPS_MAX }), 'For rules of `auth.acl`, and for HTTP.', {
        absent: 'none',
      }),
    }),
  ),
  'Users by name.',
)

/** Everybody in the file. Rejects with CONFIG_NOT_FOUND, or with CONFIG_INVALID that lists every problem. */
export async function readUsersFile(file: string): Promise<UserEntry[]> {
  const { users, problems } = await examineUsersFile(file)
  if (problems.length === 0) return users
  const facts = { problems: problems.length }
  throw new BrokerError('CONFIG_INVALID', formatProblems(file, problems), { facts })
}

/** Everybody in the file and all that is wrong with it. Rejects like `readUsersFile` if it can't be read or is not YAML. */
export async function examineUsersFile(file: string): Promise<{ users: UserEntry[]; problems: ConfigProblem[] }> {
  const whenMissing = (reason: string): string =>
    `The users file ${file} can't be read: ${reason}. Make it with sluice passwd, or correct auth.users_file.`
  const { values, problems: found, locate } = await readConfigFile(file, {}, whenMissing)
  const problems = [...found]
  const parsed = z.safeParse(usersFile, values ?? {}, { reportInput: true })
  if (!parsed.success) {
    const tree = readTree(usersFile)
    for (const issue of parsed.error.issues) problems.push(...describeIssue(tree, issue, locate))
  }
  const entries = Object.entries(parsed.data ?? {})
  if (entries.length > USERS_MAX) {
    problems.push({ ...locate([], 'value'), path: '', message: `${entries.length} users are more than ${USERS_MAX}` })
  }
  const users = entries.map(([key, { password, groups }]) => ({ name: key, hash: password, groups: groups ?? [] }))
  return { users, problems: sortProblems(problems) }
}
