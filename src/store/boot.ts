import { closeSync, openSync, readSync } from 'node:fs'
import { readU48, writeU48 } from './bytes.ts'

/** One process start. Wall time of a record = its accepted-at + the offset of its boot. */
export interface BootRecord {
  readonly boot: number
  /** 10 random base32 characters, never a counter: a cloned card must not repeat message ids. */
  readonly epoch: string
  readonly gateway: string
  readonly wallOffsetMs: number
  /** How far the wall clock was trusted: 0 unknown, 1 estimated, 2 synced. */
  readonly clock: 0 | 1 | 2
}

/** The program is younger than this: a clock that shows an earlier time is wrong. */
const EARLIEST_MS = Date.UTC(2026, 0, 1)

/** How far a clock is trusted that no time service vouches for: not at all if it shows a time that is known to be past. */
export function trustOf(wallMs: number, earlier: Iterable<BootRecord>): 0 | 1 {
  if (wallMs < EARLIEST_MS) return 0
  for (const { clock, wallOffsetMs } of earlier) if (clock === 2 && wallMs < wallOffsetMs) return 0
  return 1
}

/** Starts remembered; records accepted more starts ago than that keep their bytes but lose the epoch of their id. */
export const MAX_BOOTS = 4096

const EPOCH_BYTES = 10
const BASE32 = 'abcdefghijklmnopqrstuvwxyz234567'

export function newEpoch(): string {
  let epoch = ''
  for (const byte of randomBytes(EPOCH_BYTES)) epoch += BASE32[byte & 31]
  return epoch
}

/** From the kernel, as node:crypto has them: loading that would take each start several milliseconds. */
function randomBytes(count: number): Buffer {
  const bytes = Buffer.alloc(count)
  const descriptor = openSync('/dev/urandom', 'r')
  try {
    readSync(descriptor, bytes)
  } finally {
    closeSync(descriptor)
  }
  return bytes
}

/*
 * WARNING: on-disk format. Little-endian: commit that wrote it first (6), wall offset in milliseconds (8, IEEE double), clock (1), epoch (10, ASCII), gateway (UTF-8, rest).
 */
const FIXED_BYTES = 25

export function encodeBoot(record: BootRecord, commit: number): Buffer {
  const gateway = Buffer.from(record.gateway)
  const value = Buffer.alloc(FIXED_BYTES + gateway.length)
  writeU48(value, commit, 0)
  value.writeDoubleLE(record.wallOffsetMs, 6)
  value[14] = record.clock
  value.write(record.epoch, 15, EPOCH_BYTES, 'latin1')
  gateway.copy(value, FIXED_BYTES)
  return value
}

/** null: damaged. */
export function decodeBoot(boot: number, value: Buffer): { record: BootRecord; commit: number } | null {
  const clock = value[14]
  if (value.length < FIXED_BYTES || (clock !== 0 && clock !== 1 && clock !== 2)) return null
  const record = {
    boot,
    epoch: value.toString('latin1', 15, FIXED_BYTES),
    gateway: value.toString('utf8', FIXED_BYTES),
    wallOffsetMs: value.readDoubleLE(6),
    clock,
  } as const
  return { record, commit: readU48(value, 0) }
}
