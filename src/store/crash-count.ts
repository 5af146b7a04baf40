import { readFile, rm, writeFile } from 'node:fs/promises'

/** A process that has lived so long did not die of its store. */
const HEALTHY_MS = 10 * 60_000

/**
 * The file `running`: how many starts in a row did not end in an orderly stop. Damage in a large table may make LevelDB end the process
 * (an assertion in a compaction) before anybody can look; after two such ends the next start looks at everything first.
 */
export class CrashCount {
  readonly #path: string
  readonly #timer: NodeJS.Timeout
  /** Starts before this one that were not stopped in order, since the last one that was. */
  readonly before: number

  private constructor(path: string, before: number) {
    this.#path = path
    this.before = before
    this.#timer = setTimeout(() => {
      // Should this fail, the next start looks more closely than it need.
      writeFile(this.#path, '0').catch(() => undefined)
    }, HEALTHY_MS)
    this.#timer.unref()
  }

  /** Reads the count and counts this start. */
  static async begin(path: string): Promise<CrashCount> {
    const found = await readFile(path, 'latin1').catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return ''
      throw error
    })
    const before = /^\d{1,6}$/.test(found) ? Number(found) : 0
    await writeFile(path, String(before + 1))
    return new CrashCount(path, before)
  }

  /** This start never came to work and does not count; perhaps another process is at work here. */
  async cancel(): Promise<void> {
    clearTimeout(this.#timer)
    await (this.before === 0 ? rm(this.#path, { force: true }) : writeFile(this.#path, String(this.before)))
  }

  /** An orderly stop. */
  async end(): Promise<void> {
    clearTimeout(this.#timer)
    await rm(this.#path, { force: true })
  }
}
