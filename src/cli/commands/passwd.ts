import { createHash, randomBytes, scrypt } from 'node:crypto'
import { existsSync } from 'node:fs'
import { readFile, realpath } from 'node:fs/promises'
import { Command } from 'commander'
import { writeAtomically } from '../../config/atomic-file.ts'
import { type UserOutcome, withoutUser, withUser } from '../../config/users-edit.ts'
import { readTokensFile, readUsersFile } from '../../config/users-file.ts'
import { BrokerError } from '../../model/error.ts'
import { configuredName, userName } from '../../model/names.ts'
import { formatScryptHash, NOBODYS_HASH } from '../../model/scrypt-hash.ts'
import { formatTokenHash } from '../../model/token-entry.ts'
import { Failure } from '../failure.ts'
import { dressCommand, examples } from '../options.ts'
import { passwordFromInput, passwordFromTerminal } from '../password.ts'
import { printable, printJson } from '../print.ts'

interface PasswdOptions {
  readonly file?: string
  readonly groups?: string
  readonly stdin?: true
  readonly token?: true
  readonly delete?: true
  readonly json?: true
}

/** Nobody but the gateway has to read it. */
const FILE_MODE = 0o600
const TOKEN_BYTES = 32

/** `sluice passwd` */
export function command(): Command {
  return dressCommand(new Command('passwd'))
    .description(
      'Make the line of a user for the users file (auth.users_file), or put it there. Asks twice for the password. A running gateway takes the file when it changes.',
    )
    .argument('<user>', 'user name')
    .option('--file <file>', 'users file to change, made if it is not there; without it the line is printed')
    .option('--groups <groups>', 'groups of the user, separated by commas; without it those it has')
    .option('--stdin', 'take the password from the first line of standard input')
    .option('--token', 'make a token for HTTP instead of asking for a password; the file is that of http.tokens_file')
    .option('--delete', 'remove the user from the file')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples(
        'sluice passwd meter-7 --groups meters --file /etc/sluice/users.yaml',
        'sluice passwd meter-7 --stdin < secret >> users.yaml',
        'sluice passwd prometheus --token --groups viewer --file /etc/sluice/tokens.yaml',
        'sluice passwd meter-7 --delete --file /etc/sluice/users.yaml',
      ),
    )
    .action(passwd)
}

async function passwd(given: string, options: PasswdOptions): Promise<void> {
  const name = userName(given)
  if (options.delete) return remove(name, options)
  const groups = options.groups?.split(',').filter(group => group !== '') ?? null
  for (const group of groups ?? []) configuredName(group)
  const { file, json } = options
  // Before anybody types a password for nothing.
  const text = file === undefined ? '' : await readText(file, options)
  const { token, ...secret } = options.token ? newToken() : await newPassword(name, options)
  const changed = await withUser(text, { name, groups, ...secret })
  if (file !== undefined) await write(file, changed.text)
  if (json) {
    const outcome = file === undefined ? 'printed' : changed.outcome
    const line = file === undefined ? changed.text.trimEnd() : null
    printJson({ user: name, file: file ?? null, outcome, line, token })
    return
  }
  if (file === undefined) process.stdout.write(changed.text)
  else console.log(`${printable(name)} is ${said(changed.outcome)} ${file}`)
  if (token !== null) process.stderr.write(`the token, which is not shown again: ${token}\n`)
}

interface NewSecret {
  readonly key: 'password' | 'token'
  readonly hash: string
  /** The token itself. */
  readonly token: string | null
}

function newToken(): NewSecret {
  const token = randomBytes(TOKEN_BYTES).toString('base64url')
  return { key: 'token', hash: formatTokenHash(createHash('sha256').update(token).digest()), token }
}

async function newPassword(name: string, { stdin }: PasswdOptions): Promise<NewSecret> {
  const password = stdin ? await passwordFromInput() : await passwordFromTerminal(printable(name))
  return { key: 'password', hash: await hashOf(password), token: null }
}

const said = (outcome: UserOutcome): string => (outcome === 'added' ? 'added to' : 'changed in')

async function remove(name: string, options: PasswdOptions): Promise<void> {
  const { file, json } = options
  if (file === undefined) throw new Failure('--delete needs the users file: name it with --file.')
  const changed = await withoutUser(await readText(file, options), name)
  if (changed === null) throw new Failure(`${file} has no user ${JSON.stringify(name)}.`)
  await write(file, changed)
  if (json) printJson({ user: name, file, outcome: 'deleted', line: null, token: null })
  else console.log(`${printable(name)} is deleted from ${file}`)
}

/** Of a file without mistakes; empty if it is not there. */
async function readText(file: string, { token }: PasswdOptions): Promise<string> {
  if (!existsSync(file)) return ''
  await (token ? readTokensFile(file) : readUsersFile(file))
  return readFile(file, 'utf8')
}

async function write(file: string, text: string): Promise<void> {
  // A link stays one.
  const place = existsSync(file) ? await realpath(file) : file
  try {
    await writeAtomically(place, text, { mode: FILE_MODE })
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new BrokerError('CONFIG_INVALID', `${file} can't be written: ${reason}. Nothing was changed.`, { cause })
  }
}

/** With a salt of its own and the usual costs. */
async function hashOf(password: string): Promise<string> {
  const { salt, key, options } = NOBODYS_HASH
  const fresh = randomBytes(salt.length)
  const made = await new Promise<Buffer>((resolve, reject) =>
    scrypt(password, fresh, key.length, options, (error, derived) =>
      error === null ? resolve(derived) : reject(error),
    ),
  )
  return formatScryptHash(fresh, made)
}
