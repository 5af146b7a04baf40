/*
 * Opens one of the two LevelDBs, whatever state it is in.
 *
 * Invariants: a path is never opened twice in one process (the failed second open would release the first one's lock); a directory that is not
 * empty is never opened with createIfMissing (with CURRENT lost LevelDB would start anew and delete the tables); nothing damaged is changed
 * before a copy has been made.
 */
import { cp, link, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { BrokerError } from '../model/error.ts'
import { decodeDelta } from './delta.ts'
import { parseLogKey } from './keys.ts'
import { type CreateLevel, type Db, isNoSpace, levelErrorCode, levelSettings, rootMessage } from './level.ts'
import { findFault, isTable } from './level-files.ts'
import { isTableSound, salvageTable } from './level-table.ts'
import { withoutGarbage } from './level-write-ahead.ts'
import type { Quarantine } from './quarantine.ts'
import { readSegmentHeader } from './segment.ts'
import { unsealValue } from './state.ts'

export type DatabaseName = 'log' | 'state'

export interface DatabaseOptions {
  readonly name: DatabaseName
  /** `<data directory>/store` */
  readonly storeDirectory: string
  readonly quarantine: Quarantine
  readonly createLevel: CreateLevel
  /** Check every block of every table before opening, however large. */
  readonly isSuspect: boolean
}

export interface OpenedDatabase {
  readonly level: Db
  readonly location: string
  /** Nothing was there, or nothing could be saved. */
  readonly isFresh: boolean
  /** What was wrong with it, in words; null: nothing. It was then repaired, or replaced by a fresh one. */
  readonly fault: string | null
}

const openLocations = new Set<string>()

/**
 * Opens the database; repairs a copy if it is damaged, starts a fresh one if that fails. Throws BrokerError STORE_LOCKED, or LevelDB's own
 * error if the disk has no room.
 */
export async function openDatabase(options: DatabaseOptions): Promise<OpenedDatabase> {
  const location = join(options.storeDirectory, options.name)
  if (openLocations.has(location)) throw locked(options)
  openLocations.add(location)
  try {
    return await openWhateverItIs(options, location)
  } catch (error) {
    openLocations.delete(location)
    throw error
  }
}

export async function closeDatabase({ level, location }: OpenedDatabase): Promise<void> {
  try {
    await level.close()
  } finally {
    openLocations.delete(location)
  }
}

async function openWhateverItIs(options: DatabaseOptions, location: string): Promise<OpenedDatabase> {
  const files = await readdir(location).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return []
    throw error
  })
  if (files.length === 0) {
    return {
      level: await openLevel(options, location, { createIfMissing: true }),
      location,
      isFresh: true,
      fault: null,
    }
  }
  await probeLock(options, location)
  const fault = await findFault(location, { isSuspect: options.isSuspect })
  if (fault !== null) return repair(options, location, fault)
  try {
    return {
      level: await openLevel(options, location, { createIfMissing: false }),
      location,
      isFresh: false,
      fault: null,
    }
  } catch (error) {
    if (error instanceof BrokerError || isNoSpace(error)) throw error
    return repair(options, location, rootMessage(error))
  }
}

/**
 * The damaged directory goes to quarantine; LevelDB's repair works on a copy of it, made of hard links where the file system has them: tables are
 * never written to again, and repair writes anew what it changes. Damaged tables and garbage in write-ahead files are kept from it (level-table.ts and
 * level-write-ahead.ts say why); what can be had of the tables is put back afterwards. That may bring back values that were deleted since: garbage to recovery, at worst a message once more.
 */
async function repair(options: DatabaseOptions, location: string, fault: string): Promise<OpenedDatabase> {
  await probeLock(options, location)
  const copy = `${location}.repair`
  await rm(copy, { recursive: true, force: true })
  const damagedTables = await copySoundFiles(location, copy)
  const isRepaired = await repairCopy(options, copy)
  const kept = await options.quarantine.moveDatabase(location, options.name)
  if (isRepaired) {
    await rm(join(copy, 'lost'), { recursive: true, force: true })
    await rename(copy, location)
  } else {
    await rm(copy, { recursive: true, force: true })
  }
  const level = await openLevel(options, location, { createIfMissing: !isRepaired })
  const tables = isRepaired ? damagedTables : (await readdir(kept)).filter(isTable)
  for (const table of tables) await putBack(options, level, join(kept, table))
  const outcome = isRepaired ? 'repaired' : 'LevelDB could not repair it, a fresh one was begun'
  return {
    level,
    location,
    isFresh: !isRepaired,
    fault: `${fault}; ${outcome}; the damaged database is kept at ${kept}`,
  }
}

async function repairCopy(options: DatabaseOptions, copy: string): Promise<boolean> {
  try {
    await ClassicLevel.repair(copy)
    const level = await openLevel(options, copy, { createIfMissing: false })
    await level.close()
    return true
  } catch (error) {
    if (isNoSpace(error)) throw error
    return false // beyond repair: the caller starts a fresh database and says so
  }
}

/** Copies all but damaged tables, whose names it returns, and garbage in write-ahead files. */
async function copySoundFiles(from: string, to: string): Promise<string[]> {
  const damaged: string[] = []
  await mkdir(to)
  for (const file of await readdir(from)) {
    const source = join(from, file)
    const target = join(to, file)
    if (file === 'LOCK' || file === 'lost' || file.startsWith('LOG')) continue
    if (file.endsWith('.log')) await writeFile(target, withoutGarbage(await readFile(source)))
    else if (!isTable(file)) await cp(source, target)
    else if (!(await isTableSound(source))) damaged.push(file)
    else await link(source, target).catch(() => cp(source, target)) // FAT knows no links
  }
  return damaged
}

/** Writes the values of a damaged table that the repaired database doesn't have. */
async function putBack({ name }: DatabaseOptions, level: Db, table: string): Promise<void> {
  for (const [key, value] of await salvageTable(table, name === 'log' ? isLogEntry : isStateEntry)) {
    if (!(await level.has(key))) await level.put(key, value)
  }
}

/** By the CRCs that deltas, segment headers and sealed values carry themselves; those of single records are checked when they are read. */
function isLogEntry(key: Buffer, value: Buffer): boolean {
  const place = parseLogKey(key)
  if (place === null) return false
  if (place.queue !== 0) return readSegmentHeader(key, value) !== null
  return place.part !== 0 || (place.commit === 0 ? isStateEntry(key, value) : decodeDelta(key, value) !== null)
}
const isStateEntry = (key: Buffer, value: Buffer): boolean => unsealValue(key, value) !== null

async function openLevel(
  options: DatabaseOptions,
  location: string,
  { createIfMissing }: { createIfMissing: boolean },
): Promise<Db> {
  const level = options.createLevel(location, levelSettings(options.name === 'log', createIfMissing))
  try {
    await level.open()
    return level
  } catch (error) {
    throw levelErrorCode(error) === 'LEVEL_LOCKED' ? locked(options, error) : error
  }
}

/** LevelDB takes the lock before it looks whether it may open at all: this asks for the lock and changes nothing. */
async function probeLock(options: DatabaseOptions, location: string): Promise<void> {
  const level = new ClassicLevel(location, { createIfMissing: false, errorIfExists: true })
  try {
    await level.open()
    await level.close()
  } catch (error) {
    // Any other answer ("exists", "does not exist") came after the lock was taken and given back.
    if (levelErrorCode(error) === 'LEVEL_LOCKED') throw locked(options, error)
  }
}

function locked({ storeDirectory }: DatabaseOptions, cause?: unknown): BrokerError {
  const directory = join(storeDirectory, '..')
  return new BrokerError(
    'STORE_LOCKED',
    `Data directory ${directory} is in use by another process: a gateway already runs on it. Stop that one, or give this one its own data_dir`,
    { cause, facts: { directory } },
  )
}
