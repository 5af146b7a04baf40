import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, test } from 'vitest'

const LOG = join(import.meta.dirname, '../../../src/telemetry/log.ts')

function runWith(level: string, script: string): string {
  const source = `import { createLogger } from ${JSON.stringify(LOG)}; const log = createLogger(${JSON.stringify(level)}); ${script}`
  return execFileSync(process.execPath, ['--input-type=module', '-e', source], { encoding: 'utf8' })
}

test('a line is on standard output before the next statement, even if the process dies there', () => {
  const output = runWith('info', "log.info({ queue: 'jobs' }, 'declared'); process.reallyExit(0)")
  expect(JSON.parse(output)).toEqual({
    level: 'info',
    time: expect.stringMatching(/^\d{4}-.*Z$/),
    queue: 'jobs',
    msg: 'declared',
  })
})

test('lines below the level are not written', () => {
  expect(runWith('warn', "log.info('no'); log.warn('yes')").trim().split('\n')).toHaveLength(1)
  expect(runWith('silent', "log.fatal('no')")).toBe('')
})
