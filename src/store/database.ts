/*
 * Opens one of the two LevelDBs, whatever state it is in.
 *
 * Invariants: a path is never opened twice in one process (the failed second open would release the first one's lock); a directory that is not
 * empty is never opened with createIfMissing (with CURRENT lost LevelDB would start anew and delete the tables); nothing damaged is changed
 * before a copy has been made.
 */
import { cp, link, mkdir, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { ClassicLevel } from 'classic-level'
import { BrokerError } from '../model/error.ts'
import { type CreateLevel, type Db, isNoSpace, levelErrorCode, levelSettings, rootMessage } from './level.ts'
import { findFault } from './level-files.ts'
import type { Quarantine } from './quarantine.ts'

export type DatabaseName = 'log' | 'state'

export interface DatabaseOptions {
  readonly name: DatabaseName
  /** `<data directory>/store` */
  readonly storeDirectory: string
  readonly quarantine: Quarantine
  readonly createLevel: CreateLevel
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
  // Every value in state/ matters and it is small; log/ may be gigabytes and its values carry CRCs of their own.
  const fault = await findFault(location, { everyBlock: options.name === 'state' })
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
 * never written to again, and repair writes anew what it changes.
 */
async function repair(options: DatabaseOptions, location: string, fault: string): Promise<OpenedDatabase> {
  await probeLock(options, location)
  const copy = `${location}.repair`
  await rm(copy, { recursive: true, force: true })
  await copyDirectory(location, copy)
  const isRepaired = await repairCopy(options, copy)
  const kept = await options.quarantine.moveDatabase(location, options.name)
  if (!isRepaired) {
    await rm(copy, { recursive: true, force: true })
    const level = await openLevel(options, location, { createIfMissing: true })
    return { level, location, isFresh: true, fault: `${fault}; repair failed, the damaged database is kept at ${kept}` }
  }
  await rm(join(copy, 'lost'), { recursive: true, force: true })
  await rename(copy, location)
  const level = await openLevel(options, location, { createIfMissing: false })
  return {
    level,
    location,
    isFresh: false,
    fault: `${fault}; repaired from a copy, the damaged database is kept at ${kept}`,
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

async function copyDirectory(from: string, to: string): Promise<void> {
  await mkdir(to)
  for (const file of await readdir(from)) {
    if (file === 'LOCK' || file === 'lost' || file.startsWith('LOG')) continue
    // A log file may still be cut or overwritten by whoever looks at the quarantine; only tables are immutable for certain.
    if (!/\.(ldb|sst)$/.test(file)) await cp(join(from, file), join(to, file))
    else await link(join(from, file), join(to, file)).catch(() => cp(join(from, file), join(to, file)))
  }
}

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
