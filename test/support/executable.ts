import { execFile } from 'node:child_process'
import { copyFile, mkdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { executableName } from '../../scripts/build-binary.ts'
import type { Architecture } from '../../src/assets.ts'

const PROJECT = resolve(import.meta.dirname, '../..')
const CACHE = join(PROJECT, '.cache/executables')

/** Building both takes ten seconds on an idle machine; fetching the other runtime comes once. */
export const BUILD_DEADLINE_MS = 180_000

/** What `sluice --version` of these executables names as commit, whatever the work tree is at. */
export const BUILD_COMMIT = 'under-test'

const run = promisify(execFile)

let building: Promise<unknown> | null = null

/**
 * The executable of this architecture or another, built from the sources as they are when a test file first asks. Test files wait for each
 * other's build.
 */
export async function builtExecutable(
  architecture: Architecture = process.arch === 'arm64' ? 'arm64' : 'x64',
): Promise<string> {
  building ??= buildExecutables()
  await building
  return join(CACHE, executableName(architecture))
}

async function buildExecutables(): Promise<void> {
  await mkdir(CACHE, { recursive: true })
  const build = [process.execPath, 'scripts/build-binary.ts', '--if-needed', '--out', CACHE, '--commit', BUILD_COMMIT]
  await run('flock', [`${CACHE}/lock`, ...build], { cwd: PROJECT })
}

/** A copy of the executable alone in `directory`. */
export async function placeExecutable(directory: string, architecture?: Architecture): Promise<string> {
  const target = join(directory, 'sluice')
  await copyFile(await builtExecutable(architecture), target)
  return target
}

/** The environment of a machine that has neither Node nor anything else in PATH. */
export const BARE_ENVIRONMENT: NodeJS.ProcessEnv = { PATH: '/nonexistent', HOME: '/nonexistent' }
