/*
 * Looks at the files of a LevelDB before it is opened. LevelDB opens with a damaged MANIFEST or log file without an error and with records
 * missing, and then deletes the tables it no longer knows; so damage has to be found first, while everything is still there.
 *
 * Log files and MANIFEST: blocks of 32 KiB; records of masked CRC32C (4), length (2), type (1), data. Tables: level-table.ts.
 */
import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32c } from './crc32c.ts'
import { hasFooter, isTableSound, unmaskCrc } from './level-table.ts'

const BLOCK_BYTES = 32 * 1024
const RECORD_HEADER_BYTES = 7
const LAST_RECORD_TYPE = 4
/** Up to this size every block of the tables of log/ is checked at every start: a tenth of a second or two. */
const CHECKED_BYTES = 32 * 1024 * 1024

export const isTable = (file: string): boolean => /\.(ldb|sst)$/.test(file)

/**
 * What is wrong with these files, in words; null: nothing that can be seen. Large tables are only looked at for their footer, unless `isSuspect`.
 * A torn end of a log file is not reported: a power cut leaves one.
 */
export async function findFault(location: string, { isSuspect }: { isSuspect: boolean }): Promise<string | null> {
  const files = await readdir(location)
  const current = await readFile(join(location, 'CURRENT'), 'latin1').catch(() => null)
  if (current === null) return 'CURRENT is missing'
  const manifest = /^(MANIFEST-\d{6,})\n$/.exec(current)?.[1]
  if (manifest === undefined) return 'CURRENT names no MANIFEST'
  if (!files.includes(manifest)) return `${manifest} is missing`
  const { records, isBroken, isTorn } = scanLogFile(await readFile(join(location, manifest)))
  if (records === 0 || isBroken || isTorn) return `${manifest} is damaged`
  for (const file of files) {
    if (file.endsWith('.log') && scanLogFile(await readFile(join(location, file))).isBroken) return `${file} is damaged`
  }
  const tables = files.filter(isTable)
  const sizes = await Promise.all(tables.map(async file => (await stat(join(location, file))).size))
  const isThorough = isSuspect || sizes.reduce((sum, size) => sum + size, 0) <= CHECKED_BYTES
  for (const file of tables) {
    const path = join(location, file)
    if (!(await (isThorough ? isTableSound(path) : hasFooter(path)))) return `${file} is damaged`
  }
  return null
}

interface LogFileScan {
  readonly records: number
  /** A sound record lies behind a damaged one. */
  readonly isBroken: boolean
  /** It ends in something that is no record. */
  readonly isTorn: boolean
}

/** Walks the records of a log file or MANIFEST. */
function scanLogFile(bytes: Buffer): LogFileScan {
  let records = 0
  let isTorn = false
  let isBroken = false
  for (let block = 0; block < bytes.length; block += BLOCK_BYTES) {
    const end = Math.min(block + BLOCK_BYTES, bytes.length)
    let at = block
    while (at + RECORD_HEADER_BYTES <= end) {
      const length = bytes.readUInt16LE(at + 4)
      const type = bytes[at + 6] ?? 0
      const next = at + RECORD_HEADER_BYTES + length
      const isSound =
        type >= 1 &&
        type <= LAST_RECORD_TYPE &&
        next <= end &&
        unmaskCrc(bytes.readUInt32LE(at)) === crc32c(bytes, at + 6, next)
      if (!isSound) {
        isTorn = true
        break
      }
      if (isTorn) isBroken = true
      records++
      at = next
    }
    if (at < end && end - at < RECORD_HEADER_BYTES && end < block + BLOCK_BYTES) isTorn = true
  }
  return { records, isBroken, isTorn }
}
