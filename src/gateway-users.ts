import { FileWatch } from './config/file-watch.ts'
import { readUsersFile } from './config/users-file.ts'
import { Users } from './core/users.ts'
import { BrokerError } from './model/error.ts'
import type { Logger } from './telemetry/log.ts'

/** The users of a running gateway, which follow their file. Loaded only where there is one. */
export class WatchedUsers {
  readonly users = new Users()
  /** Why the file is not taken as it is now; null: it is. */
  problem: string | null = null
  /** Called when the users have changed. */
  onChange: (() => void) | null = null
  readonly #file: string
  readonly #log: Logger
  readonly #watch: FileWatch

  private constructor(file: string, log: Logger) {
    this.#file = file
    this.#log = log
    this.#watch = new FileWatch([file], {
      onChange: () => this.#readAgain(),
      onError: error =>
        log.error({ err: error, file }, 'changes of the users file are not noticed any more; restart the gateway'),
    })
  }

  /** Rejects with CONFIG_NOT_FOUND or CONFIG_INVALID. */
  static async open(file: string, log: Logger): Promise<WatchedUsers> {
    const watched = new WatchedUsers(file, log)
    // Before it is read, so that no change is missed.
    await watched.#watch.start()
    try {
      watched.users.replace(await readUsersFile(file))
    } catch (error) {
      await watched.stop()
      throw error
    }
    return watched
  }

  /** Looks at the file now, as if it had changed. */
  check(): Promise<void> {
    return this.#watch.check()
  }

  stop(): Promise<void> {
    return this.#watch.stop()
  }

  async #readAgain(): Promise<void> {
    const file = this.#file
    try {
      const entries = await readUsersFile(file)
      this.users.replace(entries)
      this.problem = null
      this.#log.info({ file, users: entries.length }, 'the users file has changed and is in force')
    } catch (error) {
      if (!(error instanceof BrokerError)) throw error
      this.problem = error.message
      this.#log.error({ file, reason: error.message }, 'the users file is not taken: users stay as they were')
      return
    }
    this.onChange?.()
  }
}
