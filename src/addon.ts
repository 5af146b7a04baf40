import { randomBytes } from 'node:crypto'
import { closeSync, constants, mkdirSync, openSync, unlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isExecutable, readAsset } from './assets.ts'
import { BrokerError } from './model/error.ts'

/*
 * classic-level's native addon in the executable.
 *
 * The dynamic linker loads from files only, and only where the file system allows executing. So the addon is written to an
 * unnamed file (O_TMPFILE) in the first directory that will have it and loaded as /proc/self/fd/N: nothing is left behind,
 * however the process ends. Where unnamed files or /proc don't exist a named file is used, and unlinked as soon as it is loaded.
 *
 * It is loaded on first use and not on import: commands that open no database don't pay for it, and the last place to try,
 * the data directory, is known only once the configuration has been read.
 */

/** open(2); Node has no name for it. It contains O_DIRECTORY, which is another bit on arm64 than on x64. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

type Addon = Readonly<Record<string, unknown>>

let loaded: Addon | null = null

/**
 * Makes LevelDB ready to be opened; to be called before the first database is. The executable loads its native addon, from
 * `dataDirectory` (made if missing) when no temporary directory allows executing. In the sources classic-level finds its own
 * file and there is nothing to do. Throws STORE_UNAVAILABLE saying why each place was of no use.
 */
export function prepareAddon({ dataDirectory }: { dataDirectory: string }): void {
  if (isExecutable)
    loaded ??= loadAddon({
      bytes: readAsset('classic-level.node'),
      directories: [...temporaryDirectories(), dataDirectory],
    })
}

/** Directories to try before the data directory, best first: memory before disk. */
function temporaryDirectories(): string[] {
  const runtimeDirectory = process.env.XDG_RUNTIME_DIR
  return ['/dev/shm', ...(runtimeDirectory ? [runtimeDirectory] : []), tmpdir()]
}

/** Loads an addon from the first of `directories` where that is possible. Its exports, or STORE_UNAVAILABLE. */
export function loadAddon({ bytes, directories }: { bytes: Uint8Array; directories: readonly string[] }): Addon {
  const reasons = new Map<string, string>()
  for (const load of [loadUnnamed, loadNamed]) {
    for (const directory of directories) {
      try {
        return load(bytes, directory)
      } catch (error) {
        // The first reason is the plainer one.
        if (!reasons.has(directory)) reasons.set(directory, explain(error))
      }
    }
  }
  const places = [...reasons].map(([directory, reason]) => `${directory} (${reason})`).join(', ')
  throw new BrokerError(
    'STORE_UNAVAILABLE',
    `LevelDB can't be loaded: its native library needs a directory that is writable and allows executing, and none of these is: ${places}. ` +
      'Set TMPDIR to such a directory, or mount one of these without noexec.',
  )
}

/**
 * What classic-level gets in the executable when it requires its binding (scripts/build-binary.ts). The first use of a function
 * loads the addon and copies its functions into this object, so that later uses are plain property reads.
 */
export const binding: object = Object.create(
  new Proxy(
    {},
    {
      get(_target, name) {
        loaded ??= loadAddon({ bytes: readAsset('classic-level.node'), directories: temporaryDirectories() })
        Object.setPrototypeOf(binding, null)
        Object.defineProperties(binding, Object.getOwnPropertyDescriptors(loaded))
        return Reflect.get(binding, name)
      },
    },
  ),
)

function loadUnnamed(bytes: Uint8Array, directory: string): Addon {
  mkdirSync(directory, { recursive: true })
  const descriptor = openSync(directory, O_TMPFILE | constants.O_RDWR, 0o700)
  try {
    writeFileSync(descriptor, bytes)
    // The descriptor stays open for good: the linker knows libraries by path, and a reused number would name this one.
    return load(`/proc/self/fd/${descriptor}`)
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
}

function loadNamed(bytes: Uint8Array, directory: string): Addon {
  const file = join(directory, `.sluice-${randomBytes(8).toString('hex')}.node`)
  const descriptor = openSync(file, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o700)
  try {
    try {
      writeFileSync(descriptor, bytes)
    } finally {
      closeSync(descriptor)
    }
    return load(file)
  } finally {
    unlinkSync(file)
  }
}

function load(file: string): Addon {
  const module: { exports: Addon } = { exports: {} }
  process.dlopen(module, file)
  return module.exports
}

function explain(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // What glibc says when mmap(2) with PROT_EXEC is refused.
  if (error.message.includes('failed to map segment')) return 'mounted noexec'
  return 'code' in error && typeof error.code === 'string' && error.code !== 'ERR_DLOPEN_FAILED'
    ? error.code
    : error.message
}
