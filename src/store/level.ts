import { ClassicLevel } from 'classic-level'
import { Level } from 'level'

/** One LevelDB with bytes on both sides. */
export type Db = ClassicLevel<Buffer, Buffer>

/** Makes a database object for a directory, not yet open; tests hand in one whose disk fails on demand. */
export type CreateLevel = (location: string, settings: LevelSettings) => Db

export interface LevelSettings {
  readonly keyEncoding: 'buffer'
  readonly valueEncoding: 'buffer'
  readonly createIfMissing: boolean
  readonly compression: boolean
  readonly writeBufferSize: number
  readonly cacheSize: number
  readonly maxOpenFiles: number
  readonly maxFileSize: number
}

/** Small on purpose: tables are mapped, so more or larger ones would show in the resident set of a 512 MB board. */
export const levelSettings = (isCompressed: boolean, createIfMissing: boolean): LevelSettings => ({
  keyEncoding: 'buffer',
  valueEncoding: 'buffer',
  createIfMissing,
  compression: isCompressed,
  writeBufferSize: 2 * 1024 * 1024,
  cacheSize: 1024 * 1024,
  maxOpenFiles: 64,
  maxFileSize: 1024 * 1024,
})

/** `level` is classic-level wherever Node runs; its types promise only what browsers have too. */
export const createLevel: CreateLevel = (location, settings) => {
  const level = new Level<Buffer, Buffer>(location, settings)
  if (!(level instanceof ClassicLevel)) throw new TypeError('level is not LevelDB here')
  return level
}

/** The code LevelDB gave, wherever in the chain of causes it is; null: not an error of LevelDB. */
export function levelErrorCode(error: unknown): string | null {
  let found: string | null = null
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if ('code' in cause && typeof cause.code === 'string' && cause.code.startsWith('LEVEL_')) found = cause.code
  }
  return found
}

/** True if the disk had no room, for LevelDB's errors (which carry it in the text only) and Node's own. */
export function isNoSpace(error: unknown): boolean {
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (/ENOSPC|EDQUOT|No space left on device|Disk quota exceeded/.test(cause.message)) return true
  }
  return false
}

/** The innermost message: the one that says what the operating system or LevelDB found. */
export function rootMessage(error: unknown): string {
  let message = String(error)
  for (let cause = error; cause instanceof Error; cause = cause.cause) message = cause.message
  return message
}
