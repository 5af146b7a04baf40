import { execFile } from 'node:child_process'
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises'
import { delimiter, join, resolve } from 'node:path'
import { promisify } from 'node:util'
import { installPackage } from './peers.ts'

/*
 * Runs executables for linux-arm64 on this machine: as they are on arm64, by qemu's user emulation elsewhere. The C and C++
 * libraries they need come from Debian's arm64 packages, fetched by apt (which checks their signatures) and unpacked into
 * .cache/: the system learns of no second architecture.
 */

const CACHE = resolve(import.meta.dirname, '../.cache/arm64')
const EMULATOR = 'qemu-aarch64-static'
const PACKAGES = ['libc6', 'libgcc-s1', 'libstdc++6']

const run = promisify(execFile)

/** What to put in front of the path of an arm64 executable to run it here; fetches what is missing, or says what to do. */
export async function arm64Runner(): Promise<string[]> {
  if (process.arch === 'arm64') return []
  if (findInPath(EMULATOR) === null) await installPackage('qemu-user-static', line => process.stderr.write(`${line}\n`))
  const emulator = findInPath(EMULATOR)
  if (emulator === null)
    throw new Error(`${EMULATOR} not found; install it with: sudo apt-get install qemu-user-static`)
  return [emulator, '-L', await libraries()]
}

/** A directory that looks like the root of an arm64 system with the libraries in it. */
async function libraries(): Promise<string> {
  const root = join(CACHE, 'root')
  if (existsSync(join(root, 'lib/ld-linux-aarch64.so.1'))) return root
  await mkdir(CACHE, { recursive: true })
  const work = await mkdtemp(join(CACHE, 'fetch-'))
  try {
    await fetchPackages(work)
    for (const file of await readdir(work)) {
      if (file.endsWith('.deb')) await run('dpkg-deb', ['--extract', join(work, file), join(work, 'root')])
    }
    // Whoever was faster has made the same.
    await rename(join(work, 'root'), root).catch(error => {
      if (!existsSync(root)) throw error
    })
  } finally {
    await rm(work, { recursive: true, force: true })
  }
  return root
}

/** Downloads the packages into `directory`, with apt's state there too. */
async function fetchPackages(directory: string): Promise<void> {
  await mkdir(join(directory, 'lists/partial'), { recursive: true })
  await mkdir(join(directory, 'archives/partial'), { recursive: true })
  const options = Object.entries({
    'APT::Architecture': 'arm64',
    'APT::Architectures': 'arm64',
    'APT::Sandbox::User': '',
    'Dir::State::Lists': join(directory, 'lists'),
    'Dir::State::Status': '/dev/null',
    'Dir::Cache': directory,
  }).map(([name, value]) => `--option=${name}=${value}`)
  try {
    await run('apt-get', [...options, 'update'], { cwd: directory })
    await run('apt-get', [...options, 'download', ...PACKAGES], { cwd: directory })
  } catch (error) {
    throw new Error(`arm64 executables need Debian's ${PACKAGES.join(', ')} for arm64, which apt-get could not fetch`, {
      cause: error,
    })
  }
}

function findInPath(program: string): string | null {
  for (const directory of [...(process.env.PATH ?? '').split(delimiter), '/usr/bin']) {
    try {
      accessSync(join(directory, program), constants.X_OK)
      return join(directory, program)
    } catch {
      // Not there: the next one.
    }
  }
  return null
}
