/*
 * Looks at the files of a LevelDB before it is opened. LevelDB opens with a damaged MANIFEST or write-ahead file without an error and with records
 * missing, and then deletes the tables it no longer knows; so damage has to be found first, while everything is still there.
 *
 * What a crash leaves is not damage: the torn end of a file that was being written, a table that was begun and is in no MANIFEST yet.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { readVersion, scanLogFile } from './level-manifest.ts'
import { hasFooter, isTableSound } from './level-table.ts'

/** Up to this size every block of the tables is checked at every start: a tenth of a second or two. */
const CHECKED_BYTES = 32 * 1024 * 1024

export const isTable = (file: string): boolean => /\.(ldb|sst)$/.test(file)

/** What is wrong with these files, in words; null: nothing that can be seen. Large tables are only looked at for size and footer, unless `isSuspect`. */
export async function findFault(location: string, { isSuspect }: { isSuspect: boolean }): Promise<string | null> {
  const files = await readdir(location)
  const current = await readFile(join(location, 'CURRENT'), 'latin1').catch(() => null)
  if (current === null) return 'CURRENT is missing'
  const manifest = /^(MANIFEST-\d{6,})\n$/.exec(current)?.[1]
  if (manifest === undefined) return 'CURRENT names no MANIFEST'
  if (!files.includes(manifest)) return `${manifest} is missing`
  const { records, isBroken } = scanLogFile(await readFile(join(location, manifest)))
  const version = records.length === 0 || isBroken ? null : readVersion(records)
  if (version === null) return `${manifest} is damaged`

  // A torn end is a write a power cut interrupted, if all that is needed without it is still there; LevelDB deletes nothing before that write is
  // on disk. Otherwise the MANIFEST has lost its end.
  const logs = new Map<number, string>()
  const tables = new Map<number, string>()
  for (const file of files) {
    if (file.endsWith('.log')) logs.set(Number.parseInt(file, 10), file)
    else if (isTable(file)) tables.set(Number.parseInt(file, 10), file)
  }
  if (version.logNumber !== 0 && !logs.has(version.logNumber)) return `write-ahead file ${version.logNumber} is missing`
  for (const [number, file] of logs) {
    if (number >= version.logNumber && scanLogFile(await readFile(join(location, file))).isBroken)
      return `${file} is damaged`
  }

  const totalBytes = [...version.tables.values()].reduce((sum, size) => sum + size, 0)
  const isThorough = isSuspect || totalBytes <= CHECKED_BYTES
  for (const [number, size] of version.tables) {
    const file = tables.get(number)
    if (file === undefined) return `table ${number} is missing`
    const path = join(location, file)
    if ((await stat(path)).size !== size || !(await (isThorough ? isTableSound(path) : hasFooter(path))))
      return `${file} is damaged`
  }
  return null
}
