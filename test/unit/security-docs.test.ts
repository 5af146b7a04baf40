import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect, test } from 'vitest'
import { ATTACKERS } from '../hostile/attackers.ts'

const document = readFileSync(resolve(import.meta.dirname, '../../docs/security.md'), 'utf8')

test('docs/security.md says what each attacker does and what it is answered, as the table of the tests says it', () => {
  const rows = [...document.matchAll(/^\| ([a-z0-9-]+) \| (.+) \| (.+) \|$/gm)].map(([, ...cells]) => cells)
  const expected = ATTACKERS.map(({ name, does, answer }) => [name, does, answer])
  expect(rows).toEqual(expect.arrayContaining(expected))
})
