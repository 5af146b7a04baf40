import { mkdir, readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { describe, expect, test } from 'vitest'
import { type Mount, outputUnder } from '../support/mount-namespace.ts'
import { tempDir } from '../support/temp-dir.ts'

const PROBE = resolve(import.meta.dirname, '../support/addon-probe.ts')

/** Names of four directories, in the order they are tried. */
const NAMES = ['shm', 'runtime', 'tmp', 'data'] as const

/** Runs the loader over four directories, some of them spoilt, and tells what happened and what is left in them. */
async function load(spoilt: Partial<Record<(typeof NAMES)[number], string>>, { hideProc = false } = {}) {
  await using parent = await tempDir()
  const directories = NAMES.map(name => join(parent.path, name))
  for (const directory of directories) await mkdir(directory)
  const mounts: Mount[] = Object.entries(spoilt).map(([name, options]) => ({
    directory: join(parent.path, name),
    options,
  }))
  if (hideProc) mounts.push({ directory: '/proc', options: 'ro' })
  // ls sees the mounts too: they belong to the namespace.
  const script = '"$0" "$@"; for directory; do case $directory in /*) ls -A "$directory";; esac; done'
  const output = await outputUnder(mounts, ['sh', '-c', script, process.execPath, PROBE, ...directories])
  const [line = '', ...left] = output.trimEnd().split('\n')
  const told: { opens?: boolean; mappedFrom?: string | null; unnamed?: boolean; error?: string } = JSON.parse(line)
  const leftOutside = (await Promise.all(directories.map(directory => readdir(directory)))).flat()
  return {
    ...told,
    mappedFrom: told.mappedFrom?.replace(`${parent.path}/`, ''),
    left: [...left.filter(name => !name.endsWith('.ts')), ...leftOutside],
  }
}

describe('the loader of the native addon', () => {
  test('loads from an unnamed file in the first directory, and leaves nothing behind', async () => {
    expect(await load({})).toEqual({ opens: true, mappedFrom: 'shm', unnamed: true, left: [] })
  })

  test('goes on to the next directory when the first is mounted noexec', async () => {
    expect(await load({ shm: 'noexec' })).toEqual({ opens: true, mappedFrom: 'runtime', unnamed: true, left: [] })
  })

  test('goes on when a directory is read-only', async () => {
    expect(await load({ shm: 'ro', runtime: 'noexec' })).toEqual({
      opens: true,
      mappedFrom: 'tmp',
      unnamed: true,
      left: [],
    })
  })

  test('goes on when a directory has no room for it', async () => {
    expect(await load({ shm: 'size=64k' })).toEqual({ opens: true, mappedFrom: 'runtime', unnamed: true, left: [] })
  })

  test('uses the data directory when it alone is writable and allows executing', async () => {
    expect(await load({ shm: 'noexec', runtime: 'noexec', tmp: 'ro' })).toEqual({
      opens: true,
      mappedFrom: 'data',
      unnamed: true,
      left: [],
    })
  })

  test('uses a named file where /proc cannot be had, and unlinks it', async () => {
    expect(await load({}, { hideProc: true })).toEqual({ opens: true, mappedFrom: undefined, unnamed: false, left: [] })
  })

  test('uses a named file in the last directory when nothing else works, and unlinks it', async () => {
    expect(await load({ shm: 'noexec', runtime: 'ro', tmp: 'noexec' }, { hideProc: true })).toEqual({
      opens: true,
      mappedFrom: undefined,
      unnamed: false,
      left: [],
    })
  })

  test('says of each place why it is of no use, and what to do, when nothing allows executing', async () => {
    const { error, left } = await load({ shm: 'noexec', runtime: 'ro', tmp: 'size=64k', data: 'noexec' })
    expect(error).toMatch(
      /shm \(mounted noexec\), \S*runtime \(EROFS\), \S*tmp \(ENOSPC\), \S*data \(mounted noexec\)\. Set TMPDIR/,
    )
    expect(left).toEqual([])
  })
})
