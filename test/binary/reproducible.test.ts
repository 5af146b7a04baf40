import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { BUILD_DEADLINE_MS } from '../support/executable.ts'
import { tempDir } from '../support/temp-dir.ts'

const PROJECT = resolve(import.meta.dirname, '../..')

const run = promisify(execFile)

/** Copies the project without its history, results and tests to `target` and builds it there. */
async function buildIn(target: string, environment: NodeJS.ProcessEnv): Promise<string> {
  const names = (await readdir(PROJECT)).filter(name => !['.git', 'dist', 'data', 'test'].includes(name))
  await run('cp', ['--archive', '--reflink=auto', ...names.map(name => join(PROJECT, name)), target])
  await run(process.execPath, ['scripts/build-binary.ts'], { cwd: target, env: { ...process.env, ...environment } })
  return readFile(join(target, 'dist/SHA256SUMS'), 'utf8')
}

test(
  'the same sources give the same executables, whatever the directory, the time and the environment',
  async () => {
    await using one = await tempDir()
    await using other = await tempDir()
    const first = await buildIn(one.path, {})
    const second = await buildIn(other.path, { TZ: 'Pacific/Auckland', LANG: 'C', HOME: other.path })
    expect(first).toMatch(/^[0-9a-f]{64} {2}sluice-linux-x64\n[0-9a-f]{64} {2}sluice-linux-arm64\n$/)
    expect(second).toBe(first)
  },
  BUILD_DEADLINE_MS,
)
