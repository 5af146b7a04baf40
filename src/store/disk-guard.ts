/*
 * Refuses new messages before the disk is full, and keeps a ballast file that is given up when LevelDB needs room to open at all.
 *
 * Limits: free bytes of the file system (`store.disk_free_min`), all bytes of the data directory (`store.disk`). Looked at once a second at
 * most, and only when something was committed, or while it refuses. It accepts again when a little more than the limit is free, so that it
 * does not change its mind with every message.
 */
import { readdir, rm, stat, statfs, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const BALLAST_BYTES = 4 * 1024 * 1024
const CHECK_INTERVAL_MS = 1000
/** Hysteresis: this share of the limit, at most 64 MiB, must be free beyond it before messages are accepted again. */
const RELIEF_SHARE = 0.05
const MAX_RELIEF_BYTES = 64 * 1024 * 1024

export interface DiskGuardOptions {
  readonly directory: string
  readonly ballastPath: string
  readonly diskBytes: number
  readonly diskFreeMinBytes: number
  readonly monotonicMs: () => number
  /** `isFull` has changed. */
  readonly onChange: () => void
}

export class DiskGuard {
  readonly #options: DiskGuardOptions
  #isFull = false
  #hasBallast = false
  #freeBytes = 0
  #usedBytes = 0
  #checkedAt = Number.NEGATIVE_INFINITY
  #checking: Promise<void> | null = null
  #timer: NodeJS.Timeout | null = null

  constructor(options: DiskGuardOptions) {
    this.#options = options
  }

  get isFull(): boolean {
    return this.#isFull
  }

  /** As last looked at: free in the file system, used by the data directory. */
  get space(): { freeBytes: number; usedBytes: number } {
    return { freeBytes: this.#freeBytes, usedBytes: this.#usedBytes }
  }

  /** Something was written: looks at the disk unless it did so within the last second. */
  noteCommit(): void {
    if (this.#options.monotonicMs() - this.#checkedAt >= CHECK_INTERVAL_MS) this.#look()
  }

  /** Looks at the disk now. */
  async check(): Promise<void> {
    const { directory, diskBytes, diskFreeMinBytes } = this.#options
    this.#checkedAt = this.#options.monotonicMs()
    const [free, used] = await Promise.all([freeBytes(directory), directoryBytes(directory)])
    this.#freeBytes = free
    this.#usedBytes = used
    const relief = this.#isFull ? RELIEF_SHARE : 0
    const freeFloor = diskFreeMinBytes + Math.min(diskFreeMinBytes * relief, MAX_RELIEF_BYTES)
    const usedCeiling = diskBytes - Math.min(diskBytes * relief, MAX_RELIEF_BYTES)
    this.#become(free < freeFloor || used > usedCeiling)
    const hasRoom = free >= diskFreeMinBytes + 2 * BALLAST_BYTES && used + 2 * BALLAST_BYTES <= usedCeiling
    if (!this.#isFull && hasRoom) await this.#restoreBallast()
  }

  /** Deletes the ballast file; true if there was one. */
  async releaseBallast(): Promise<boolean> {
    const { ballastPath } = this.#options
    const size = await sizeOf(ballastPath)
    await rm(ballastPath, { force: true })
    this.#hasBallast = false
    return size > 0
  }

  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer)
    this.#timer = null
    await this.#checking
  }

  #look(): void {
    this.#checking ??= this.check()
      // A disk that can't even be asked fails the next commit, which says so; until then the last answer stands.
      .catch(() => undefined)
      .finally(() => {
        this.#checking = null
      })
  }

  async #restoreBallast(): Promise<void> {
    if (this.#hasBallast) return
    const { ballastPath } = this.#options
    if ((await sizeOf(ballastPath)) !== BALLAST_BYTES) {
      await writeFile(ballastPath, Buffer.alloc(BALLAST_BYTES, 'ballast'))
    }
    this.#hasBallast = true
  }

  #become(isFull: boolean): void {
    if (isFull === this.#isFull) return
    this.#isFull = isFull
    if (isFull) {
      this.#timer = setInterval(() => this.#look(), CHECK_INTERVAL_MS)
      this.#timer.unref()
    } else if (this.#timer !== null) {
      clearInterval(this.#timer)
      this.#timer = null
    }
    this.#options.onChange()
  }
}

async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory)
  return bavail * bsize
}

/** 0 if there is no such file (any more). */
const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    () => 0,
  )

/** Bytes of all files below; what vanishes while looking (LevelDB deletes tables) counts nothing. */
async function directoryBytes(directory: string): Promise<number> {
  let sum = 0
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue
    sum += await sizeOf(join(entry.parentPath, entry.name))
  }
  return sum
}
