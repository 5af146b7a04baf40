/*
 * The users file: who may log in, by name; and the tokens file: what may be shown over HTTP instead, by the name of whoever has it.
 *
 *     meter-7:    { password: "$scrypt$ln=14,r=8,p=1$…$…", groups: [ meters ] }
 *     prometheus: { token: "$sha256$…", groups: [ viewer ] }
 *
 * `sluice passwd` writes them. Read as strictly as the configuration: every problem with its line, and nothing of a file that has one.
 */
import * as z from 'zod/mini'
import { BrokerError } from '../model/error.ts'
import { configuredName, userName } from '../model/names.ts'
import { parseScryptHash } from '../model/scrypt-hash.ts'
import { parseTokenHash, type TokenEntry } from '../model/token-entry.ts'
import type { UserEntry } from '../model/user-entry.ts'
import { readConfigFile } from './file.ts'
import { describeIssue, sortProblems } from './load.ts'
import { listOf, optional, required, section, text } from './option.ts'
import { type ConfigProblem, formatProblems } from './problem.ts'
import { readTree } from './tree.ts'

/** A larger file is refused: it is read while the gateway works. */
const ENTRIES_MAX = 5_000
const GROUPS_MAX = 100

const group = text<string>('group', '1 to 64 letters, digits, _ and -', configuredName)
const name = text<string>('user name', '1 to 255 bytes without control characters', userName)
const hash = text('password hash', 'a hash that `sluice passwd` has made', parseScryptHash, 'secret')

const tokenHash = text('token hash', 'a hash that `sluice passwd --token` has made', parseTokenHash, 'secret')

const groups = optional(listOf(group, { min: 0, max: GROUPS_MAX }), 'For rules of `auth.acl`, and for HTTP.', {
  absent: 'none',
})

const usersFile = section(
  z.record(name.schema, z.strictObject({ password: required(hash, 'Hash of the password.'), groups })),
  'Users by name.',
)

const tokensFile = section(
  z.record(name.schema, z.strictObject({ token: required(tokenHash, 'Hash of the token.'), groups })),
  'Tokens by name.',
)

/** Everybody in the users file. Rejects with CONFIG_NOT_FOUND, or with CONFIG_INVALID that lists every problem. */
export async function readUsersFile(file: string): Promise<UserEntry[]> {
  return withoutProblems(file, await examineUsersFile(file))
}

/** All tokens of the tokens file. Rejects like `readUsersFile`. */
export async function readTokensFile(file: string): Promise<TokenEntry[]> {
  return withoutProblems(file, await examineTokensFile(file))
}

/** What a file has, and all that is wrong with it. */
export interface Examined<Entry> {
  readonly entries: Entry[]
  readonly problems: ConfigProblem[]
}

/** Everybody in the file and all that is wrong with it. Rejects like `readUsersFile` if it can't be read or is not YAML. */
export async function examineUsersFile(file: string): Promise<Examined<UserEntry>> {
  const { found, problems } = await examine(usersFile, file, 'auth.users_file')
  const entries = found.map(([key, { password, groups }]) => ({ name: key, hash: password, groups: groups ?? [] }))
  return { entries, problems }
}

export async function examineTokensFile(file: string): Promise<Examined<TokenEntry>> {
  const { found, problems } = await examine(tokensFile, file, 'http.tokens_file')
  const entries = found.map(([key, { token, groups }]) => ({ name: key, sha256: token, groups: groups ?? [] }))
  return { entries, problems }
}

async function examine<Value>(
  schema: z.ZodMiniType<Record<string, Value>>,
  file: string,
  option: string,
): Promise<{ found: [string, Value][]; problems: ConfigProblem[] }> {
  const whenMissing = (reason: string): string =>
    `The file ${file} can't be read: ${reason}. Make it with sluice passwd, or correct ${option}.`
  const { values, problems, locate } = await readConfigFile(file, {}, whenMissing)
  const all = [...problems]
  const parsed = z.safeParse(schema, values ?? {}, { reportInput: true })
  if (!parsed.success) {
    const tree = readTree(schema)
    for (const issue of parsed.error.issues) all.push(...describeIssue(tree, issue, locate))
  }
  const found = Object.entries(parsed.data ?? {})
  if (found.length > ENTRIES_MAX) {
    all.push({ ...locate([], 'value'), path: '', message: `${found.length} entries are more than ${ENTRIES_MAX}` })
  }
  return { found, problems: sortProblems(all) }
}

function withoutProblems<Entry>(file: string, { entries, problems }: Examined<Entry>): Entry[] {
  if (problems.length === 0) return entries
  const facts = { problems: problems.length }
  throw new BrokerError('CONFIG_INVALID', formatProblems(file, problems), { facts })
}
