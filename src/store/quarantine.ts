import { mkdir, readdir, rename, rm, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

/** Whole databases kept as evidence, oldest removed first: each may be as large as the store. */
const MAX_DATABASES = 4
/** Single damaged values kept per process start. */
const MAX_VALUES = 256

/** `<directory>/quarantine`: what was damaged is set aside here and never read again by Sluice. */
export class Quarantine {
  readonly directory: string
  /** Everything set aside by this process, newest last. */
  readonly paths: string[] = []
  readonly #wallMs: () => number
  #values = 0
  /** The move under way or the last one; never rejects. One at a time, as each counts what is there. */
  #moving: Promise<unknown> = Promise.resolve()

  constructor(directory: string, wallMs: () => number) {
    this.directory = directory
    this.#wallMs = wallMs
  }

  /** Moves a whole database here and returns where it is now. */
  moveDatabase(location: string, name: string): Promise<string> {
    const moved = this.#moving.then(() => this.#move(location, name))
    this.#moving = moved.catch(() => undefined)
    return moved
  }

  async #move(location: string, name: string): Promise<string> {
    await mkdir(this.directory, { recursive: true })
    const before = (await readdir(this.directory)).filter(entry => entry.startsWith('db-'))
    const ages = await Promise.all(
      before.map(async entry => ({ entry, at: (await stat(join(this.directory, entry))).ctimeMs })),
    )
    ages.sort((a, b) => a.at - b.at)
    for (const { entry } of ages.slice(0, Math.max(0, ages.length - MAX_DATABASES + 1))) {
      await rm(join(this.directory, entry), { recursive: true, force: true })
    }
    const target = await this.#freeName(`db-${name}-${stamp(this.#wallMs())}`)
    await rename(location, target)
    this.paths.push(target)
    return target
  }

  /** Keeps a copy of a damaged value; beyond 256 of them the copies are left out. A failure to write evidence is no reason to stop: false. */
  async keepValue(name: string, value: Buffer): Promise<boolean> {
    if (this.#values >= MAX_VALUES) return false
    this.#values++
    try {
      await mkdir(this.directory, { recursive: true })
      const target = join(this.directory, `value-${name}`)
      await writeFile(target, value)
      if (!this.paths.includes(target)) this.paths.push(target)
      return true
    } catch {
      return false // the caller reports the damage itself; the copy is for forensics only
    }
  }

  async #freeName(name: string): Promise<string> {
    const taken = new Set(await readdir(this.directory))
    for (let n = 0; ; n++) {
      const candidate = n === 0 ? name : `${name}-${n}`
      if (!taken.has(candidate)) return join(this.directory, candidate)
    }
  }
}

const stamp = (wallMs: number): string => new Date(wallMs).toISOString().replace(/[-:]|\.\d+/g, '')
