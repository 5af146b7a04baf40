/*
 * The file `high-water`: what was committed last, kept outside of LevelDB, because LevelDB drops a damaged tail without a word and a mark kept
 * inside would vanish with the tail it guards.
 *
 * Invariants: it never claims a commit whose fdatasync has not returned; it may lag behind (by a few milliseconds; by up to a minute
 * after a power cut). Two slots, written in turn: a torn write spoils one of them.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md).
 *
 *   slot 0 at 0, slot 1 at 4096; each, little-endian:
 *   off size
 *     0   4  "SLHW"
 *     4   4  CRC32C of bytes 8..40
 *     8   2  version (1)
 *    10   6  last commit
 *    16   6  next record number
 *    22   6  unsettled entries in the whole store
 *    28   4  boot
 *    32   8  zero
 */
import { type FileHandle, open } from 'node:fs/promises'
import { readU48, writeU48 } from './bytes.ts'
import { crc32c } from './crc32c.ts'

const MAGIC = 0x5748_4c53
const VERSION = 1
const SLOT_BYTES = 40
const SLOT_SPACING = 4096
/** Between two writes at least: a thousand commits a second do not write a thousand marks. */
const WRITE_INTERVAL_MS = 10

export interface Mark {
  readonly commit: number
  readonly nextRecord: number
  readonly unsettled: number
  readonly boot: number
}

export class HighWater {
  readonly #file: FileHandle
  readonly #slot = Buffer.alloc(SLOT_BYTES)
  #mark: Mark | null
  #waiting: Mark | null = null
  #writing: Promise<void> | null = null
  /** Runs until the next mark may be written. */
  #pause: NodeJS.Timeout | null = null
  #isSynced = true
  #failure: unknown = null
  #slotNumber = 0

  private constructor(file: FileHandle, mark: Mark | null) {
    this.#file = file
    this.#mark = mark
  }

  /** Opens or creates the file. What can't be read counts as no mark: it only ever adds to what recovery knows. */
  static async open(path: string): Promise<HighWater> {
    const file = await open(path, 'r+').catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error
      return open(path, 'w+')
    })
    const bytes = Buffer.alloc(SLOT_SPACING + SLOT_BYTES)
    await file.read(bytes, 0, bytes.length, 0)
    const marks = [readSlot(bytes, 0), readSlot(bytes, SLOT_SPACING)]
    const newest = (marks[0]?.commit ?? -1) >= (marks[1]?.commit ?? -1) ? 0 : 1
    const highWater = new HighWater(file, marks[newest] ?? null)
    highWater.#slotNumber = 1 - newest
    return highWater
  }

  /** The newest mark: as found at start, later as noted. */
  get mark(): Mark | null {
    return this.#mark
  }

  /** The last write failed; null: none. Not fatal: the mark only lags behind. */
  get failure(): unknown {
    return this.#failure
  }

  /** Writes this mark at once, or `WRITE_INTERVAL_MS` after the one before; a newer one overtakes one that waits. */
  note(mark: Mark): void {
    this.#mark = mark
    this.#waiting = mark
    this.#isSynced = false
    if (this.#pause === null) this.#write()
  }

  /** Writes what waits, and fsync, if something was written since the last one. */
  async sync(): Promise<void> {
    if (this.#waiting !== null) this.#write()
    await this.#writing
    if (this.#isSynced) return
    this.#isSynced = true
    await this.#file.sync()
  }

  async close(): Promise<void> {
    try {
      await this.sync()
    } finally {
      if (this.#pause !== null) clearTimeout(this.#pause)
      await this.#file.close()
    }
  }

  #write(): void {
    this.#writing ??= this.#writeAll()
    this.#pause ??= setTimeout(() => {
      this.#pause = null
      if (this.#waiting !== null) this.#write()
    }, WRITE_INTERVAL_MS)
  }

  async #writeAll(): Promise<void> {
    try {
      while (this.#waiting !== null) {
        const mark = this.#waiting
        this.#waiting = null
        const slot = this.#slot
        slot.writeUInt32LE(MAGIC, 0)
        slot.writeUInt16LE(VERSION, 8)
        writeU48(slot, mark.commit, 10)
        writeU48(slot, mark.nextRecord, 16)
        writeU48(slot, mark.unsettled, 22)
        slot.writeUInt32LE(mark.boot, 28)
        slot.writeUInt32LE(crc32c(slot, 8, SLOT_BYTES), 4)
        await this.#file.write(slot, 0, SLOT_BYTES, this.#slotNumber * SLOT_SPACING)
        this.#slotNumber = 1 - this.#slotNumber
        this.#failure = null
      }
    } catch (error) {
      this.#failure = error
    } finally {
      this.#writing = null
    }
  }
}

function readSlot(bytes: Buffer, at: number): Mark | null {
  const slot = bytes.subarray(at, at + SLOT_BYTES)
  if (slot.readUInt32LE(0) !== MAGIC || slot.readUInt32LE(4) !== crc32c(slot, 8, SLOT_BYTES)) return null
  if (slot.readUInt16LE(8) !== VERSION) return null
  return {
    commit: readU48(slot, 10),
    nextRecord: readU48(slot, 16),
    unsettled: readU48(slot, 22),
    boot: slot.readUInt32LE(28),
  }
}
