import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { readUsersFile } from '../../../src/config/users-file.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { cheapHash, userLine } from '../../support/users.ts'

async function read(text: string): Promise<Awaited<ReturnType<typeof readUsersFile>>> {
  await using directory = await tempDir()
  const file = join(directory.path, 'users.yaml')
  await writeFile(file, text)
  return await readUsersFile(file)
}

/** What is said of it, without the directory. */
async function faultsOf(text: string): Promise<string> {
  try {
    await read(text)
  } catch (error) {
    if (error instanceof Error) return error.message.replaceAll(/\S*\/users\.yaml/g, 'users.yaml')
  }
  throw new Error('the file was taken')
}

describe('a users file', () => {
  test('names users with their hashes and groups', async () => {
    const users = await read(
      `# meters\n${userLine('meter-7', 'a', 'meters', 'all')}operator: { password: "${cheapHash('b')}" }\n`,
    )
    expect(users.map(({ name, groups, hash }) => [name, groups, hash.text])).toEqual([
      ['meter-7', ['meters', 'all'], cheapHash('a')],
      ['operator', [], cheapHash('b')],
    ])
  })

  test('may be empty', async () => {
    expect(await read('')).toEqual([])
    expect(await read('# nobody yet\n')).toEqual([])
  })

  test('has odd names', async () => {
    const users = await read(userLine('constructor', 'a') + userLine('Zähler 7/a', 'b'))
    expect(users.map(({ name }) => name)).toEqual(['constructor', 'Zähler 7/a'])
  })

  const good = userLine('good', 'a')
  const faults: [string, string, string][] = [
    [
      'a password that is not hashed',
      `${good}bad: { password: hunter2 }`,
      'users.yaml:2:18: bad.password: this is no password hash; accepted is a hash that `sluice passwd` has made',
    ],
    [
      'a number',
      'bad: { password: 1234 }',
      'users.yaml:1:18: bad.password: a number is not accepted here; accepted is a hash that `sluice passwd` has made',
    ],
    [
      'no password',
      'bad: { groups: [a] }',
      'users.yaml:1:1: bad.password: this is missing; accepted is a hash that `sluice passwd` has made',
    ],
    [
      'an unknown key',
      `bad: { password: "${cheapHash('a')}", group: a }`,
      'bad.group: unknown key "group" (did you mean "groups"?); accepted here: password, groups',
    ],
    ['a user twice', `${good}${good}`, 'users.yaml:2:1: "good" is given twice'],
    ['a key that would change the prototype', userLine('__proto__', 'a'), 'unknown key "__proto__"'],
    ['a group with odd letters', `bad: { password: "${cheapHash('a')}", groups: ["a b"] }`, 'bad.groups.0: '],
    [
      'a hash that takes too much memory',
      `bad: { password: "${cheapHash('a').replace('ln=2,r=1', 'ln=20,r=8')}" }`,
      'to check this hash takes more than 64 MiB',
    ],
    [
      'a short key',
      `bad: { password: "$scrypt$ln=2,r=1,p=1$YWFhYWFhYWFhYWE$YWFh" }`,
      'the key of a hash has 16 to 64 bytes',
    ],
    ['a list', '- meter', 'users.yaml:1:1'],
  ]
  test.each(faults)('with %s is refused, with its place', async (_, text, fault) => {
    expect(await faultsOf(text)).toContain(fault)
  })

  test('with a password in the clear does not show it in the error', async () => {
    expect(await faultsOf('bad: { password: hunter2 }')).not.toContain('hunter2')
    expect(await faultsOf('bad: { password: 774411 }')).not.toContain('774411')
  })

  test('names all its mistakes, in order', async () => {
    const text = await faultsOf('a: { password: x }\nb: { password: y }\nc: 3')
    expect(text.split('\n').map(line => /:(\d+):/.exec(line)?.[1])).toEqual([undefined, '1', '2', '3'])
  })

  test('that is not there says what to do', async () => {
    await expect(readUsersFile('/nowhere/users.yaml')).rejects.toMatchObject({
      code: 'CONFIG_NOT_FOUND',
      message: expect.stringMatching(/^The file \/nowhere\/users\.yaml can't be read: .*sluice passwd/),
    })
  })
})
