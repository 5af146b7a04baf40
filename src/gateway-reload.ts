import { differences, type Options, withChanges } from './config/differences.ts'
import type { Config } from './config/schema.ts'

/** What became of a configuration that was read again: options that are in force now, and those that are at the next start. */
export interface ReloadReport {
  readonly applied: readonly string[]
  readonly restart: readonly string[]
}

interface Taker {
  readonly options: readonly string[]
  readonly take: (config: Config) => void
}

/**
 * What of the configuration can be changed while the gateway runs. Parts say which options they take and how; what nobody takes waits for the next start, and is
 * told at each reload until then.
 */
export class Reload {
  readonly #takers: Taker[] = []
  /** What is in force, with secrets and without. */
  #options: Options
  #effective: Options

  constructor({ options, effective }: Config) {
    this.#options = options
    this.#effective = effective
  }

  /** In force, in the file's own keys, secrets masked. */
  get effective(): Options {
    return this.#effective
  }

  /** Calls `take` with a configuration in which one of these options, or one below them, is different. */
  on(options: readonly string[], take: (config: Config) => void): void {
    this.#takers.push({ options, take })
  }

  /** Takes over what can be. */
  take(config: Config): ReloadReport {
    const changed = differences(this.#options, config.options)
    const applied: string[] = []
    for (const { options, take } of this.#takers) {
      const taken = changed.filter(path => options.some(option => path === option || path.startsWith(`${option}.`)))
      if (taken.length === 0) continue
      take(config)
      applied.push(...taken)
    }
    this.#options = withChanges(this.#options, config.options, applied)
    this.#effective = withChanges(this.#effective, config.effective, applied)
    return { applied, restart: changed.filter(path => !applied.includes(path)) }
  }
}
