import { FileWatch } from './config/file-watch.ts'
import { readTokensFile, readUsersFile } from './config/users-file.ts'
import { Tokens } from './core/tokens.ts'
import { Users } from './core/users.ts'
import { BrokerError } from './model/error.ts'
import type { Logger } from './telemetry/log.ts'

/** What is known of those who may log in, which follows a file. Loaded only where there is one. */
class WatchedFile<Known extends { replace(entries: readonly Entry[]): void }, Entry> {
  readonly known: Known
  /** `users file`. */
  readonly what: string
  /** Why the file is not taken as it is now; null: it is. */
  problem: string | null = null
  /** Called when it has changed. */
  onChange: (() => void) | null = null
  readonly #file: string
  readonly #read: (file: string) => Promise<Entry[]>
  readonly #log: Logger
  readonly #watch: FileWatch

  private constructor({ known, what, file, read, log }: WatchedParts<Known, Entry>) {
    this.known = known
    this.what = what
    this.#file = file
    this.#read = read
    this.#log = log
    this.#watch = new FileWatch([file], {
      onChange: () => this.#readAgain(),
      onError: error =>
        log.error({ err: error, file }, `changes of the ${what} are not noticed any more; restart the gateway`),
    })
  }

  /** Rejects with CONFIG_NOT_FOUND or CONFIG_INVALID. */
  static async open<Known extends { replace(entries: readonly Entry[]): void }, Entry>(
    parts: WatchedParts<Known, Entry>,
  ): Promise<WatchedFile<Known, Entry>> {
    const watched = new WatchedFile(parts)
    // Before it is read, so that no change is missed.
    await watched.#watch.start()
    try {
      parts.known.replace(await parts.read(parts.file))
    } catch (error) {
      await watched.stop()
      throw error
    }
    return watched
  }

  stop(): Promise<void> {
    return this.#watch.stop()
  }

  async #readAgain(): Promise<void> {
    const file = this.#file
    try {
      const entries = await this.#read(file)
      this.known.replace(entries)
      this.problem = null
      this.#log.info({ file, entries: entries.length }, `the ${this.what} has changed and is in force`)
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      this.problem = error.message
      this.#log.error({ file, reason: error.message }, `the ${this.what} is not taken: all stays as it was`)
      return
    }
    this.onChange?.()
  }
}

interface WatchedParts<Known, Entry> {
  readonly known: Known
  readonly what: string
  readonly file: string
  readonly read: (file: string) => Promise<Entry[]>
  readonly log: Logger
}

export const openUsers = (file: string, log: Logger) =>
  WatchedFile.open({ known: new Users(), what: 'users file', file, read: readUsersFile, log })

export const openTokens = (file: string, log: Logger) =>
  WatchedFile.open({ known: new Tokens(), what: 'tokens file', file, read: readTokensFile, log })
