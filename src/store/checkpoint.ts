/*
 * A checkpoint: from here on log/ need not remember what state/ knows.
 *
 * Why it is more than a number: LevelDB may lose the unsynced end of an *older* write-ahead file although a later write came through, so
 * "applied up to N" written into state/ can be there after a power cut while something before it is missing. Hence
 *   1. state/ gets the record {commit N, proven M};
 *   2. its memtable is forced into synced tables, and it is checked that this has happened;
 *   3. only then one synced batch in log/ deletes the deltas before N and the segments and bodies that were settled up to N.
 * Delta N stays: the first delta in log/ tells which state/ it needs. M is the checkpoint before, whose third step is known to be done; at start
 * everything behind M is replayed, and state/ is believed only if its N is not older than the first sound delta in log/, or that is the one behind M.
 *
 * WARNING: on-disk format. state/ key 'c', little-endian: commit N (6), proven M (6), next record number (6), unsettled entries in the whole store (6).
 */
import { readdir } from 'node:fs/promises'
import { readU48, writeU48 } from './bytes.ts'
import { STATE_CHECKPOINT_KEY } from './keys.ts'
import type { Db } from './level.ts'
import type { State } from './state.ts'

/** Behind every key of state/: compacting this range touches no table, but flushes the memtable first (DBImpl::CompactRange, TEST_CompactMemTable). */
const BEHIND_ALL = Buffer.from([0xff])

export interface Checkpoint {
  readonly commit: number
  readonly proven: number
  readonly nextRecord: number
  readonly unsettled: number
}

export async function readCheckpoint(state: State): Promise<Checkpoint | null> {
  const value = await state.get(STATE_CHECKPOINT_KEY)
  if (value === undefined || value.length !== 24) return null
  return {
    commit: readU48(value, 0),
    proven: readU48(value, 6),
    nextRecord: readU48(value, 12),
    unsettled: readU48(value, 18),
  }
}

export function writeCheckpoint(state: State, checkpoint: Checkpoint): Promise<void> {
  const value = Buffer.alloc(24)
  writeU48(value, checkpoint.commit, 0)
  writeU48(value, checkpoint.proven, 6)
  writeU48(value, checkpoint.nextRecord, 12)
  writeU48(value, checkpoint.unsettled, 18)
  return state.apply([{ key: STATE_CHECKPOINT_KEY, value }])
}

/** Resolves when everything written to this database so far is in synced tables; rejects if LevelDB could not do it. */
export async function flushToTables(level: Db): Promise<void> {
  const before = await logFiles(level.location)
  await level.compactRange(BEHIND_ALL, BEHIND_ALL)
  // compactRange hides its errors; but a write-ahead file is only removed once its memtable is in a synced table.
  const after = new Set(await logFiles(level.location))
  if (before.some(file => after.has(file))) throw new FlushError(level.location)
}

/** LevelDB did not flush: treated like any other I/O error of the store. */
export class FlushError extends Error {
  constructor(location: string) {
    super(`LevelDB did not write ${location} to its tables`)
    this.name = 'FlushError'
  }
}

async function logFiles(location: string): Promise<string[]> {
  return (await readdir(location)).filter(file => file.endsWith('.log'))
}
