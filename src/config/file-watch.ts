/*
 * Notices when the content of files changes. Their folders are watched, not they themselves: editors and `sluice passwd` write a new file and rename it over the old one.
 */
import { createHash } from 'node:crypto'
import { type FSWatcher, watch } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename, dirname, resolve } from 'node:path'

/** Several events belong to one change, and a file that is being written is not looked at yet. */
const SETTLE_MS = 100

export class FileWatch {
  readonly #files: readonly string[]
  readonly #onChange: () => Promise<void>
  readonly #onError: (error: Error) => void
  readonly #watchers: FSWatcher[] = []
  #content: string | null = null
  #timer: NodeJS.Timeout | null = null
  #looking: Promise<void> = Promise.resolve()
  #isStopped = false

  /** `onError` hears why changes are not noticed any more; `check` still finds them. */
  constructor(
    files: readonly string[],
    { onChange, onError }: { onChange: () => Promise<void>; onError: (error: Error) => void },
  ) {
    this.#files = files.map(file => resolve(file))
    this.#onChange = onChange
    this.#onError = onError
  }

  /** From here on changes are noticed; whoever reads the files does so after this. */
  async start(): Promise<void> {
    const names = new Set(this.#files.map(file => basename(file)))
    for (const folder of new Set(this.#files.map(file => dirname(file)))) {
      try {
        const watcher = watch(folder, (_, name) => {
          // Kubernetes swaps a link called `..data`, whatever the files behind it are called.
          if (name === null || names.has(name) || name.startsWith('..')) this.#settle()
        })
        watcher.on('error', this.#onError)
        this.#watchers.push(watcher)
      } catch (error) {
        if (!(error instanceof Error)) throw error
        this.#onError(error)
      }
    }
    this.#content = await this.#read()
  }

  /** Looks at once; resolves when what has changed has been dealt with. */
  check(): Promise<void> {
    this.#looking = this.#looking.then(() => this.#look())
    return this.#looking
  }

  async stop(): Promise<void> {
    this.#isStopped = true
    for (const watcher of this.#watchers) watcher.close()
    if (this.#timer !== null) clearTimeout(this.#timer)
    await this.#looking
  }

  #settle(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#timer = null
      void this.check()
    }, SETTLE_MS)
  }

  async #look(): Promise<void> {
    if (this.#isStopped) return
    const content = await this.#read()
    if (content === this.#content) return
    this.#content = content
    await this.#onChange()
  }

  /** What stands for the content of all files; one that can't be read has none. */
  async #read(): Promise<string> {
    const hash = createHash('sha256')
    for (const file of this.#files) {
      const bytes = await readFile(file).catch(() => null)
      hash.update(bytes === null ? 'none' : `${bytes.length}:`)
      if (bytes !== null) hash.update(bytes)
    }
    return hash.digest('hex')
  }
}
