import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { BUILD_DEADLINE_MS } from '../support/executable.ts'
import { tempDir } from '../support/temp-dir.ts'

const PROJECT = resolve(import.meta.dirname, '../..')

const run = promisify(execFile)

async function copy(source: string, names: readonly string[], target: string): Promise<void> {
  await run('cp', ['--archive', '--reflink=auto', ...names.map(name => join(source, name)), target])
}

/** Builds both executables of the project in `directory` and gives their checksums. */
async function buildIn(directory: string, environment: NodeJS.ProcessEnv): Promise<string> {
  await run(process.execPath, ['scripts/build-binary.ts'], { cwd: directory, env: { ...process.env, ...environment } })
  return readFile(join(directory, 'dist/SHA256SUMS'), 'utf8')
}

test(
  'the same sources give the same executables, whatever the directory, the time and the environment',
  async () => {
    await using one = await tempDir()
    await using other = await tempDir()
    // The copy is copied: somebody may be working on the sources.
    const names = (await readdir(PROJECT)).filter(name => !['.git', 'dist', 'data', 'test'].includes(name))
    await copy(PROJECT, names, one.path)
    await copy(one.path, names, other.path)
    const first = await buildIn(one.path, {})
    const second = await buildIn(other.path, { TZ: 'Pacific/Auckland', LANG: 'C', HOME: other.path })
    expect(first).toMatch(/^[0-9a-f]{64} {2}sluice-linux-x64\n[0-9a-f]{64} {2}sluice-linux-arm64\n$/)
    expect(second).toBe(first)
  },
  BUILD_DEADLINE_MS,
)
