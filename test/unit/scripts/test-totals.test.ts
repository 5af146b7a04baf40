import { execFile } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { countTests } from '../../../scripts/test-totals.ts'
import { tempDir } from '../../support/temp-dir.ts'

const SCRIPT = join(import.meta.dirname, '../../../scripts/test-totals.ts')
const file = (status: string, ...tests: string[]) => ({
  status,
  assertionResults: tests.map(outcome => ({ status: outcome })),
})

test('passed and failed tests are counted, and a file that could not be loaded as one failed', () => {
  const testResults = [file('passed', 'passed', 'passed'), file('failed', 'passed', 'failed', 'failed'), file('failed')]
  expect(countTests({ testResults })).toEqual({ passed: 3, failed: 3 })
})

test.each([
  [{ testResults: [file('passed', 'passed')] }, '0', '1 passed, 0 failed', 0],
  [{ testResults: [file('failed', 'passed', 'failed')] }, '1', '1 passed, 1 failed', 1],
  // Everything passed, and still the run failed: an error outside of any test.
  [{ testResults: [file('passed', 'passed')] }, '1', '1 passed, 0 failed', 1],
  [{ testResults: [] }, '0', '0 passed, 0 failed', 1],
  [null, '1', '0 passed, 0 failed', 1],
])('%j after a run with status %s prints %j, status %i', async (results, runStatus, line, expected) => {
  await using folder = await tempDir()
  const path = join(folder.path, 'results.json')
  if (results !== null) await writeFile(path, JSON.stringify(results))
  const { status, stdout } = await new Promise<{ status: number | null; stdout: string }>(resolve => {
    const child = execFile(process.execPath, [SCRIPT, path, runStatus], (_error, output) =>
      resolve({ status: child.exitCode, stdout: output }),
    )
  })
  expect({ status, stdout }).toEqual({ status: expected, stdout: `${line}\n` })
})
