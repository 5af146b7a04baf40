import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, realpath, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import type { Random } from '../../firmware-sim/random.ts'

/*
 * A disk that forgets at a power cut what was not synced: lossy-disk.c writes down what a process does below a directory, here is built what a power
 * cut would have left of it.
 *
 * What a file system promises, and nothing more:
 * - fsync and fdatasync make the file's contents safe, and the names in order up to the youngest change that concerned that file (a directory: all of them).
 * - Names (create, rename, unlink, …) survive in order: some first part of what is not safe, as with the journals of ext4, xfs, btrfs and f2fs.
 * - Contents that are not safe survive not at all, in part, or torn: none of them, a first part whose last write is cut at a sector, or any of
 *   the pages, the others being zero or what they were before.
 */

/** The same numbers in lossy-disk.c. */
const Kind = {
  open: 0,
  write: 1,
  truncate: 2,
  sync: 3,
  rename: 4,
  unlink: 5,
  link: 6,
  makeDirectory: 7,
  removeDirectory: 8,
} as const

const CREATED = 1
const EMPTIED = 2
const ENTRY_BYTES = 24
const SECTOR_BYTES = 512
const PAGE_BYTES = 4096

const run = promisify(execFile)

/** What the disk does with a sync: does it, or says so and doesn't. */
export type Syncs = 'honest' | 'ignored'

/** A change of a file's contents; `at`: number of its entry in the journal. */
type Change =
  | { readonly at: number; readonly kind: 'write'; readonly offset: number; readonly data: Buffer }
  | { readonly at: number; readonly kind: 'truncate'; readonly size: number }

class File {
  /** As of the last power cut; all of it is safe. */
  readonly before: Buffer
  readonly changes: Change[] = []
  /** Changes of entries before this one are safe. */
  safe = 0
  /** The name changes that concerned it: places among all of them. */
  readonly named: number[] = []

  constructor(before: Buffer) {
    this.before = before
  }
}

/** null: a directory. */
type Names = Map<string, File | null>

type NameChange = (names: Names) => void

/** The library for LD_PRELOAD, compiled into a directory of its own. */
async function compile(directory: string): Promise<string> {
  const library = join(directory, 'lossy-disk.so')
  const source = join(import.meta.dirname, 'lossy-disk.c')
  try {
    await run('cc', ['-shared', '-fPIC', '-O2', '-Wall', '-Werror', '-o', library, source, '-ldl', '-lpthread'])
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT')
      throw new Error('cc is missing: tests of power cuts need a C compiler; install gcc and libc6-dev', {
        cause: error,
      })
    throw error
  }
  return library
}

/** Environment of a process whose syncs below a directory take longer, and a way to be rid of what it needs. */
export async function slowDisk(
  directory: string,
  delayMs: number,
): Promise<{ environment: NodeJS.ProcessEnv } & AsyncDisposable> {
  const own = await mkdtemp(join(tmpdir(), 'sluice-slow-disk-'))
  return {
    environment: {
      LD_PRELOAD: await compile(own),
      LOSSY_DISK_DIRECTORY: directory,
      LOSSY_DISK_DELAY_US: String(delayMs * 1000),
    },
    [Symbol.asyncDispose]: () => rm(own, { recursive: true, force: true }),
  }
}

export class LossyDisk implements AsyncDisposable {
  readonly #directory: string
  readonly #own: string
  readonly #library: string
  readonly #syncs: Syncs
  /** What is safe on it: the directory as of the last power cut. */
  #safe: Names

  private constructor(directory: string, own: string, library: string, syncs: Syncs, safe: Names) {
    this.#directory = directory
    this.#own = own
    this.#library = library
    this.#syncs = syncs
    this.#safe = safe
  }

  /** Takes a directory, made if there is none, as it is: all of it counts as safe. */
  static async over(directory: string, syncs: Syncs): Promise<LossyDisk> {
    await mkdir(directory, { recursive: true })
    const real = await realpath(directory)
    const own = await mkdtemp(join(tmpdir(), 'sluice-lossy-disk-'))
    return new LossyDisk(real, own, await compile(own), syncs, await readNames(real))
  }

  /** For a process that works on this disk; to be added to its own. */
  get environment(): NodeJS.ProcessEnv {
    return {
      LD_PRELOAD: this.#library,
      LOSSY_DISK_DIRECTORY: this.#directory,
      LOSSY_DISK_JOURNAL: this.#journal,
      LOSSY_DISK_SYNC: this.#syncs,
    }
  }

  get #journal(): string {
    return join(this.#own, 'journal')
  }

  /** The power is cut; whoever worked on the disk must be dead. The directory then holds what is left; gives a few words on what that is. */
  async cutPower(random: Random): Promise<string> {
    const journal = await readFile(this.#journal).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return Buffer.alloc(0)
      throw error
    })
    const { changes, safeNames } = replay(journal, this.#safe)
    const kept = safeNames + Math.floor(random.next() * (changes.length - safeNames + 1))
    const names = new Map(this.#safe)
    for (const change of changes.slice(0, kept)) change(names)
    const survival = survivalOf(random)
    const left: Names = new Map()
    const contents = new Map<File, File>()
    for (const [path, file] of names) {
      if (file === null) {
        left.set(path, null)
        continue
      }
      // Two names of one file stay that.
      const found = contents.get(file) ?? new File(survival.contentsOf(file))
      contents.set(file, found)
      left.set(path, found)
    }
    this.#safe = left
    await this.#writeBack()
    await rm(this.#journal, { force: true })
    return `${survival.name}; ${kept - safeNames} of ${changes.length - safeNames} unsafe names`
  }

  async #writeBack(): Promise<void> {
    for (const name of await readdir(this.#directory)) await rm(join(this.#directory, name), { recursive: true })
    for (const [path, file] of this.#safe) {
      if (file === null) {
        await mkdir(path, { recursive: true })
      } else {
        await mkdir(dirname(path), { recursive: true })
        await writeFile(path, file.before)
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.#own, { recursive: true, force: true })
  }
}

async function readNames(directory: string): Promise<Names> {
  const names: Names = new Map([[directory, null]])
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name)
    names.set(path, entry.isDirectory() ? null : new File(await readFile(path)))
  }
  return names
}

/** Follows the journal. Gives the changes of names in order and how many of them are safe; changes of contents are noted in the files. */
function replay(journal: Buffer, safe: Names): { changes: NameChange[]; safeNames: number } {
  /** As the process saw them. */
  const names: Names = new Map(safe)
  const opened = new Map<number, File | null>()
  const changes: NameChange[] = []
  /** Of each change of names, the number of its entry. */
  const places: number[] = []
  let safeNames = 0
  const rename = (at: number, concerned: File | null, change: NameChange) => {
    change(names)
    concerned?.named.push(changes.length)
    changes.push(change)
    places.push(at)
  }
  let offset = 0
  for (let at = 0; offset < journal.length; at++) {
    const kind = journal.readUInt32LE(offset)
    const fd = journal.readInt32LE(offset + 4)
    const number = Number(journal.readBigUInt64LE(offset + 8))
    const pathBytes = journal.readUInt32LE(offset + 16)
    const dataBytes = journal.readUInt32LE(offset + 20)
    offset += ENTRY_BYTES
    const [path = '', to = ''] = journal.toString('utf8', offset, offset + pathBytes).split('\0')
    const data = journal.subarray(offset + pathBytes, offset + pathBytes + dataBytes)
    offset += pathBytes + dataBytes
    const file = opened.get(fd)
    switch (kind) {
      case Kind.open: {
        if (number === CREATED) {
          const created = new File(Buffer.alloc(0))
          rename(at, created, on => on.set(path, created))
        }
        const found = names.get(path)
        if (found === undefined) throw new Error(`the journal opens ${path}, which is not there`)
        if (number === EMPTIED) found?.changes.push({ at, kind: 'truncate', size: 0 })
        opened.set(fd, found)
        break
      }
      case Kind.write:
        file?.changes.push({ at, kind: 'write', offset: number, data })
        break
      case Kind.truncate:
        file?.changes.push({ at, kind: 'truncate', size: number })
        break
      case Kind.sync: {
        if (file === undefined) throw new Error('the journal syncs what is not open')
        if (file !== null) file.safe = Math.max(file.safe, number)
        const isSafe = (place: number) => (places[place] ?? number) < number
        const through = (file?.named ?? [...places.keys()]).findLast(isSafe) ?? -1
        safeNames = Math.max(safeNames, through + 1)
        break
      }
      case Kind.rename: {
        const moved = names.get(path) ?? null
        rename(at, moved, on => move(on, path, to))
        break
      }
      case Kind.link: {
        const linked = names.get(path) ?? null
        rename(at, linked, on => on.set(to, linked))
        break
      }
      case Kind.makeDirectory:
        rename(at, null, on => on.set(path, null))
        break
      case Kind.unlink:
      case Kind.removeDirectory:
        rename(at, null, on => on.delete(path))
        break
      default:
        throw new Error(`the journal has an entry of kind ${kind}`)
    }
  }
  return { changes, safeNames }
}

/** Renames a file, or a directory with all that is in it. */
function move(names: Names, from: string, to: string): void {
  for (const [path, file] of [...names]) {
    if (path !== from && !path.startsWith(`${from}/`)) continue
    names.delete(path)
    names.set(to + path.slice(from.length), file)
  }
}

interface Survival {
  readonly name: string
  readonly contentsOf: (file: File) => Buffer
}

/** One of the ways in which contents that are not safe survive. */
function survivalOf(random: Random): Survival {
  const choice = random.next()
  if (choice < 0.34) return { name: 'nothing unsafe', contentsOf: file => contentsOf(file, 0) }
  if (choice < 0.67) {
    return {
      name: 'a first part of what is unsafe',
      contentsOf: file => {
        const unsafe = file.changes.filter(({ at }) => at >= file.safe).length
        return contentsOf(file, random.next() * unsafe)
      },
    }
  }
  const share = random.between(0.1, 0.9)
  return {
    name: `${Math.round(share * 100)} % of unsafe pages`,
    contentsOf: file => {
      const fates = new Map<number, boolean>()
      return contentsOf(file, Number.POSITIVE_INFINITY, page => {
        const isKept = fates.get(page) ?? random.next() < share
        fates.set(page, isKept)
        return isKept
      })
    },
  }
}

/** What is left of a file: all that is safe; of the rest so many changes, the last one cut at a sector; and of these the pages that are kept. */
function contentsOf(file: File, unsafeChanges: number, isKept: (page: number) => boolean = () => true): Buffer {
  let size = file.before.length
  let bytes = Buffer.from(file.before)
  const put = (offset: number, data: Buffer) => {
    const end = offset + data.length
    if (end > bytes.length) bytes = Buffer.concat([bytes, Buffer.alloc(Math.max(bytes.length, end - bytes.length))])
    data.copy(bytes, offset)
    size = Math.max(size, end)
  }
  let left = unsafeChanges
  for (const change of file.changes) {
    const isSafe = change.at < file.safe
    if (!isSafe && left <= 0) break
    if (change.kind === 'truncate') {
      // What is written after a file was cut lies in blocks that the old file doesn't have: without the one the other is not there.
      if (!isSafe && (left < 1 || !isKept(0))) break
      bytes.fill(0, change.size)
      size = change.size
    } else if (isSafe) {
      put(change.offset, change.data)
    } else {
      const data = left < 1 ? upToSector(change, left) : change.data
      for (let from = 0; from < data.length; ) {
        const page = Math.floor((change.offset + from) / PAGE_BYTES)
        const to = Math.min(data.length, (page + 1) * PAGE_BYTES - change.offset)
        if (isKept(page)) put(change.offset + from, data.subarray(from, to))
        from = to
      }
    }
    if (!isSafe) left--
  }
  return bytes.subarray(0, size)
}

/** The first `share` of a write, ended where a sector ends. */
function upToSector({ offset, data }: { offset: number; data: Buffer }, share: number): Buffer {
  const end = Math.floor((offset + share * data.length) / SECTOR_BYTES) * SECTOR_BYTES
  return data.subarray(0, Math.max(0, end - offset))
}
