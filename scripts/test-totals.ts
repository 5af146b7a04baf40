/*
 * Counts what vitest wrote as JSON and prints it as the last line of CI: `N passed, N failed`.
 *
 *   node scripts/test-totals.ts RESULTS.json STATUS
 *
 * STATUS is the exit status of the run that wrote the file. Exits non-zero if anything failed, nothing ran, or the run itself failed.
 */
import { existsSync, readFileSync } from 'node:fs'
import * as z from 'zod/mini'

const results = z.object({
  testResults: z.array(z.object({ status: z.string(), assertionResults: z.array(z.object({ status: z.string() })) })),
})

export interface Totals {
  readonly passed: number
  readonly failed: number
}

/** A file that could not even be loaded counts as one failed test: it holds some, and none of them ran. */
export function countTests(json: unknown): Totals {
  let passed = 0
  let failed = 0
  for (const file of results.parse(json).testResults) {
    const inFile = file.assertionResults.filter(({ status }) => status === 'failed').length
    failed += inFile === 0 && file.status === 'failed' ? 1 : inFile
    passed += file.assertionResults.filter(({ status }) => status === 'passed').length
  }
  return { passed, failed }
}

if (import.meta.main) {
  const [file = '', status = '1'] = process.argv.slice(2)
  const { passed, failed } = existsSync(file)
    ? countTests(JSON.parse(readFileSync(file, 'utf8')))
    : { passed: 0, failed: 0 }
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = status === '0' && failed === 0 && passed > 0 ? 0 : 1
}
