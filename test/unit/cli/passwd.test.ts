import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readTokensFile, readUsersFile } from '../../../src/config/users-file.ts'
import { Tokens } from '../../../src/core/tokens.ts'
import { eventually } from '../../support/eventually.ts'
import { runSluice } from '../../support/run-sluice.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { accessWith, usersOf } from '../../support/users.ts'

const SLUICE = join(import.meta.dirname, '../../../scripts/sluice')

/** Whether the file lets this user in. */
async function letsIn(file: string, user: string, password: string): Promise<boolean> {
  const login = await accessWith({ users: usersOf(...(await readUsersFile(file))) }).login({
    clientId: 'c1',
    user,
    password: Buffer.from(password),
    certificateUser: null,
    address: '127.0.0.1',
    isLocal: true,
  })
  return login.kind === 'accepted'
}

describe.concurrent('sluice passwd', () => {
  test('prints the line of a user, with a hash of its own each time', async () => {
    const args = ['passwd', 'meter-7', '--groups', 'meters,hall-2', '--stdin']
    const [one, other] = await Promise.all([
      runSluice(args, { stdin: 's3cret\n' }),
      runSluice(args, { stdin: 's3cret\n' }),
    ])
    expect(one).toMatchObject({ status: 0, stderr: '' })
    expect(one.stdout).toMatch(
      /^meter-7: \{ password: "\$scrypt\$ln=14,r=8,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}", groups: \[ meters, hall-2 \] \}\n$/,
    )
    expect(other.stdout).not.toBe(one.stdout)
    await using directory = await tempDir()
    const file = join(directory.path, 'users.yaml')
    await writeFile(file, one.stdout)
    expect(await letsIn(file, 'meter-7', 's3cret')).toBe(true)
    expect(await letsIn(file, 'meter-7', 's3cret\n')).toBe(false)
  })

  test('makes the file, changes a user in it and deletes it, and nobody else can read it', async () => {
    await using directory = await tempDir()
    const file = join(directory.path, 'users.yaml')
    const passwd = (...args: string[]) => runSluice(['passwd', ...args, '--file', file], { stdin: args[0] ?? '' })
    expect(await passwd('meter', '--stdin', '--groups', 'meters')).toEqual({
      status: 0,
      stdout: `meter is added to ${file}\n`,
      stderr: '',
    })
    await writeFile(file, `# kept\n\n${await readFile(file, 'utf8')}`)
    expect(await passwd('door', '--stdin', '--json')).toMatchObject({ status: 0, stderr: '' })
    expect(await letsIn(file, 'door', 'door')).toBe(true)
    expect(await runSluice(['passwd', 'meter', '--stdin', '--file', file], { stdin: 'changed' })).toMatchObject({
      status: 0,
      stdout: `meter is changed in ${file}\n`,
    })
    expect(await letsIn(file, 'meter', 'changed')).toBe(true)
    expect((await readUsersFile(file)).map(({ name, groups }) => [name, groups])).toEqual([
      ['meter', ['meters']],
      ['door', []],
    ])
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(await passwd('meter', '--delete')).toMatchObject({ status: 0, stdout: `meter is deleted from ${file}\n` })
    expect(await passwd('meter', '--delete')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('has no user "meter"'),
    })
    expect(await readFile(file, 'utf8')).toMatch(/^# kept\n+door: \{ password: "[^"]*" \}\n$/)
  })

  test('refuses an empty password, a file with mistakes and an odd name, and leaves the file alone', async () => {
    await using directory = await tempDir()
    const file = join(directory.path, 'users.yaml')
    await writeFile(file, 'bad: {}\n')
    const at = (stdin: string, ...args: string[]) =>
      runSluice(['passwd', ...args, '--stdin', '--file', file], { stdin })
    expect(await at('x', 'meter')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('bad.password: this is missing'),
    })
    expect(await readFile(file, 'utf8')).toBe('bad: {}\n')
    await writeFile(file, '')
    expect(await at('\n', 'meter')).toMatchObject({
      status: 1,
      stderr: 'sluice: The password is empty; nothing was changed.\n',
    })
    expect(await at('x', 'a\nb')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('is not a valid user name'),
    })
    expect(await at('x', 'meter', '--groups', 'a b')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('is not a valid name'),
    })
    expect(await readFile(file, 'utf8')).toBe('')
    expect(await runSluice(['passwd', 'meter', '--file', file])).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('--stdin'),
    })
  })

  test('makes a token, shows it once, and keeps its hash', async () => {
    await using directory = await tempDir()
    const file = join(directory.path, 'tokens.yaml')
    const { status, stdout, stderr } = await runSluice([
      'passwd',
      'prometheus',
      '--token',
      '--groups',
      'viewer',
      '--file',
      file,
    ])
    expect({ status, stdout }).toEqual({ status: 0, stdout: `prometheus is added to ${file}\n` })
    const token = /: ([A-Za-z0-9_-]{43})\n$/.exec(stderr)?.[1] ?? ''
    const tokens = new Tokens()
    tokens.replace(await readTokensFile(file))
    expect(tokens.find(token)).toEqual({ user: 'prometheus', groups: ['viewer'] })
    expect(tokens.find(`${token}x`)).toBeNull()
    expect(await readFile(file, 'utf8')).not.toContain(token)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
  })

  test('asks twice on a terminal, shows nothing of it, and takes only what was typed alike', async () => {
    await using directory = await tempDir()
    const file = join(directory.path, 'users.yaml')
    const typed = async (...lines: string[]): Promise<string> => {
      // `script` gives it a terminal.
      const child = spawn('script', ['-qec', `${SLUICE} passwd meter --file ${file}`, '/dev/null'], {
        env: process.env,
      })
      let seen = ''
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        seen += text
      })
      const closed = once(child, 'close')
      for (const [index, line] of lines.entries()) {
        await eventually(() => seen.includes(index === 0 ? 'password for meter: ' : 'again: '))
        child.stdin.write(`${line}\r`)
      }
      await closed
      return seen
    }
    const seen = await typed('hunter3\u007f2', 'hunter2')
    expect(seen).toMatch(/meter is added to/)
    expect(seen).not.toMatch(/hunter/)
    expect(await letsIn(file, 'meter', 'hunter2')).toBe(true)
    expect(await typed('other', 'othre')).toMatch(/The two passwords differ/)
    expect(await typed('other\u0003')).toMatch(/Nothing was changed/)
    expect(await letsIn(file, 'meter', 'hunter2')).toBe(true)
  })
})
