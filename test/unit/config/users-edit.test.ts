import { describe, expect, test } from 'vitest'
import { withoutUser, withUser } from '../../../src/config/users-edit.ts'

const [OLD, NEW] = ['$scrypt$ln=14,r=8,p=1$b2xk$b2xk', '$scrypt$ln=14,r=8,p=1$bmV3$bmV3']
const FILE = `# Who may log in here.
meter-7: { password: "${OLD}", groups: [ meters ] } # the old one in hall 2

# people
operator:
  password: "${OLD}" # changed in May
  groups:
    - admin
`

describe('a users file keeps its comments', () => {
  test('when a password changes, in either form', async () => {
    const one = await withUser(FILE, { name: 'meter-7', key: 'password', hash: NEW, groups: null })
    expect(one).toEqual({
      outcome: 'changed',
      text: FILE.replace(`{ password: "${OLD}"`, `{ password: "${NEW}"`),
    })
    const other = await withUser(FILE, { name: 'operator', key: 'password', hash: NEW, groups: ['viewer'] })
    expect(other.text).toBe(
      FILE.replace(
        `password: "${OLD}" # changed in May\n  groups:\n    - admin`,
        `password: "${NEW}"\n  groups: [ viewer ]`,
      ),
    )
  })

  test('when a user is added, on one line', async () => {
    const { text, outcome } = await withUser(FILE, {
      name: 'Zähler: 8',
      key: 'password',
      hash: NEW,
      groups: ['meters', 'hall-2'],
    })
    expect(outcome).toBe('added')
    expect(text).toBe(`${FILE}"Zähler: 8": { password: "${NEW}", groups: [ meters, hall-2 ] }\n`)
  })

  test('when a user is deleted', async () => {
    expect(await withoutUser(FILE, 'operator')).toBe(FILE.slice(0, FILE.indexOf('\n# people')))
    expect(await withoutUser(FILE, 'nobody')).toBeNull()
  })

  test('and begins with the first user', async () => {
    for (const empty of ['', '# nobody yet\n']) {
      const { text, outcome } = await withUser(empty, { name: 'constructor', key: 'password', hash: NEW, groups: null })
      expect(outcome).toBe('added')
      expect(text).toContain(empty.trimEnd())
      expect(text).toMatch(/^constructor: \{ password: "\$scrypt\$[^"]*" \}\n$/m)
      expect(await withoutUser(text, 'constructor')).not.toBeNull()
    }
  })
})
