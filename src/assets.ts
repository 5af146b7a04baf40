import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { getRawAsset, isSea } from 'node:sea'

/** What the executable carries beside its JavaScript. scripts/build-binary.ts puts it there. */
export type AssetName =
  | typeof BUNDLE_NAME
  | 'build.json'
  | 'classic-level.node'
  | 'code-cache'
  | 'stack-files.json'
  | 'stack-lines'

/** The bundled JavaScript, under the name V8 shows in stack traces. */
export const BUNDLE_NAME = 'sluice.cjs'

export type Architecture = 'x64' | 'arm64'

/** What a build is made of; the runtime tells its own version. */
export interface Build {
  readonly version: string
  /** Short commit hash; a `+` behind it when the work tree differed from the commit; `unknown` outside a git repository. */
  readonly commit: string
  readonly classicLevel: string
  readonly levelDb: string
}

/** Whether this process is the executable, and not Node running the sources. */
export const isExecutable = isSea()

/**
 * An asset of the executable, as a view of the executable's own mapped pages: it costs no memory and MUST NOT be written to.
 * In the sources only classic-level's native addon exists as a file.
 */
export function readAsset(name: AssetName): Uint8Array {
  if (isExecutable) return new Uint8Array(getRawAsset(name))
  if (name === 'classic-level.node') return readFileSync(addonFile(process.arch === 'arm64' ? 'arm64' : 'x64'))
  throw new TypeError(`${name} exists only in the executable`)
}

/** Where classic-level's prebuilt addon for glibc lies in the sources. */
export function addonFile(architecture: Architecture): string {
  const file = architecture === 'arm64' ? 'linux-arm64/classic-level.armv8.node' : 'linux-x64/classic-level.node'
  return join(projectDirectory(), 'node_modules/classic-level/prebuilds', file)
}

/** What this process was built from. In the sources it asks git, which takes a few milliseconds. */
export function readBuild(): Build {
  if (isExecutable) return JSON.parse(Buffer.from(readAsset('build.json')).toString())
  const directory = projectDirectory()
  const classicLevel = join(directory, 'node_modules/classic-level')
  const sources = JSON.parse(readFileSync(join(classicLevel, 'package.json'), 'utf8'))
  const header = readFileSync(join(classicLevel, 'deps/leveldb/leveldb-1.20/include/leveldb/db.h'), 'utf8')
  const major = /kMajorVersion = (\d+)/.exec(header)?.[1]
  const minor = /kMinorVersion = (\d+)/.exec(header)?.[1]
  return {
    version: JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')).version,
    commit: readCommit(directory),
    classicLevel: sources.version,
    levelDb: `${major}.${minor}`,
  }
}

function projectDirectory(): string {
  return join(import.meta.dirname, '..')
}

function readCommit(directory: string): string {
  // Loaded here, because the executable never gets here and a gateway has no other use for it.
  const { execFileSync } = process.getBuiltinModule('node:child_process')
  const git = (...args: string[]) =>
    execFileSync('git', ['-C', directory, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    return git('rev-parse', '--short=12', 'HEAD') + (git('status', '--porcelain') === '' ? '' : '+')
  } catch {
    // No git, or not a repository: a source archive.
    return 'unknown'
  }
}
