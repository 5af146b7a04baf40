import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const PROJECT = join(import.meta.dirname, '../..')

/** What `npm run static` does, one by one; layers and documents have tests of their own. */
test.each([
  ['the code is formatted and linted', ['biome', 'check', '.']],
  ['the types hold', ['tsc', '-p', '.']],
  ['nothing is left lying about', ['node', 'scripts/tidy.ts']],
])('%s', async (_what, [program = '', ...args]) => {
  const output = await new Promise<string>(resolve => {
    execFile(join(PROJECT, 'node_modules/.bin', program), args, { cwd: PROJECT }, (error, stdout, stderr) =>
      resolve(error === null ? '' : `${stdout}${stderr}`),
    )
  })
  expect(output).toBe('')
})
