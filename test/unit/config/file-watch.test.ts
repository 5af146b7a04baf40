import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { FileWatch } from '../../../src/config/file-watch.ts'
import { eventually } from '../../support/eventually.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'

async function watching(
  directory: TempDir,
  ...names: string[]
): Promise<{ watch: FileWatch; changes: () => number; errors: Error[] } & AsyncDisposable> {
  let changes = 0
  const errors: Error[] = []
  const watch = new FileWatch(
    names.map(name => join(directory.path, name)),
    {
      onChange: async () => {
        changes++
      },
      onError: error => errors.push(error),
    },
  )
  await watch.start()
  return { watch, changes: () => changes, errors, [Symbol.asyncDispose]: () => watch.stop() }
}

test('a file written in place, replaced by rename, removed and made again is a change each time', async () => {
  await using directory = await tempDir()
  const file = join(directory.path, 'users.yaml')
  await writeFile(file, '1')
  await using watched = await watching(directory, 'users.yaml')
  await writeFile(file, '2')
  await eventually(() => watched.changes() === 1)
  await writeFile(`${file}.new`, '3')
  await rename(`${file}.new`, file)
  await eventually(() => watched.changes() === 2)
  await rm(file)
  await eventually(() => watched.changes() === 3)
  await writeFile(file, '3')
  await eventually(() => watched.changes() === 4)
})

test('several writes that follow one another, and other files, are one change or none', async () => {
  await using directory = await tempDir()
  const file = join(directory.path, 'a')
  await writeFile(file, '1')
  await using watched = await watching(directory, 'a', 'b')
  for (const text of ['2', '3', '4']) await writeFile(file, text)
  await writeFile(join(directory.path, 'other'), 'x')
  await eventually(() => watched.changes() === 1)
  await writeFile(file, '4')
  await watched.watch.check()
  expect(watched.changes()).toBe(1)
  await writeFile(join(directory.path, 'b'), 'new')
  await eventually(() => watched.changes() === 2)
})

test('a folder behind a link that is swapped, as Kubernetes does it, is a change', async () => {
  await using directory = await tempDir()
  const at = (name: string): string => join(directory.path, name)
  for (const [folder, text] of [
    ['v1', '1'],
    ['v2', '2'],
  ] as const) {
    await mkdir(at(folder))
    await writeFile(join(at(folder), 'users.yaml'), text)
  }
  await symlink('v1', at('..data'))
  await symlink('..data/users.yaml', at('users.yaml'))
  await using watched = await watching(directory, 'users.yaml')
  await symlink('v2', at('..next'))
  await rename(at('..next'), at('..data'))
  await eventually(() => watched.changes() === 1)
})

test('a folder that is not there is told, and a look finds what has changed all the same', async () => {
  await using directory = await tempDir()
  await using watched = await watching(directory, 'later/users.yaml')
  expect(watched.errors).toHaveLength(1)
  await mkdir(join(directory.path, 'later'))
  await writeFile(join(directory.path, 'later/users.yaml'), '1')
  await watched.watch.check()
  expect(watched.changes()).toBe(1)
})
