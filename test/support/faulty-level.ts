import { ClassicLevel } from 'classic-level'
import type { CreateLevel, LevelSettings } from '../../src/store/level.ts'

/** What goes wrong with a write: nothing; it fails; it is done and reported as failed; flushing silently does nothing. */
export type Fault = 'none' | 'fails' | 'fails after writing' | 'does not flush'

/**
 * A disk whose faults a test decides on. `create` goes into Store.open. As with LevelDB, a handle on which a write has failed fails every later one
 * until the database is opened again.
 */
export class FaultyDisk {
  /** Asked before each write and flush. */
  next: (database: 'log' | 'state', what: 'batch' | 'flush' | 'open') => Fault = () => 'none'
  /** Writes and flushes so far. */
  writes = 0
  /** Writes to log/ that a power cut could take back. */
  unsyncedLogWrites = 0
  /** Awaited before values of log/ are read, with how many these are. */
  beforeRead: (values: number) => Promise<void> = () => Promise.resolve()

  readonly create: CreateLevel = (location, settings) => new FaultyLevel(location, settings, this)

  ask(location: string, what: 'batch' | 'flush' | 'open'): Fault {
    this.writes++
    return this.next(location.endsWith('state') ? 'state' : 'log', what)
  }
}

/** The methods an abstract-level database implements; ClassicLevel's types leave them out. */
type Implementation = (...values: unknown[]) => Promise<unknown>
const classicOpen: Implementation = Reflect.get(ClassicLevel.prototype, '_open')
const classicBatch: Implementation = Reflect.get(ClassicLevel.prototype, '_batch')
const classicGetMany: Implementation = Reflect.get(ClassicLevel.prototype, '_getMany')

const isSynced = (options: unknown): boolean =>
  typeof options === 'object' && options !== null && 'sync' in options && options.sync === true

class FaultyLevel extends ClassicLevel<Buffer, Buffer> {
  readonly #disk: FaultyDisk
  #isBroken = false

  constructor(location: string, settings: LevelSettings, disk: FaultyDisk) {
    super(location, settings)
    this.#disk = disk
  }

  async _open(options: unknown): Promise<void> {
    if (this.#disk.ask(this.location, 'open') !== 'none') throw noSpace()
    await Reflect.apply(classicOpen, this, [options])
  }

  async _batch(operations: unknown, options: unknown): Promise<void> {
    if (this.#isBroken) throw noSpace()
    if (this.location.endsWith('log') && !isSynced(options)) this.#disk.unsyncedLogWrites++
    const fault = this.#disk.ask(this.location, 'batch')
    this.#isBroken = fault !== 'none'
    if (fault === 'fails') throw noSpace()
    await Reflect.apply(classicBatch, this, [operations, options])
    if (this.#isBroken) throw noSpace()
  }

  async _getMany(keys: unknown[], options: unknown): Promise<unknown> {
    if (this.location.endsWith('log')) await this.#disk.beforeRead(keys.length)
    return Reflect.apply(classicGetMany, this, [keys, options])
  }

  override async compactRange(start: Buffer, end: Buffer): Promise<void> {
    if (this.#disk.ask(this.location, 'flush') === 'none') await super.compactRange(start, end)
  }
}

function noSpace(): Error {
  return Object.assign(new Error('IO error: 000042.log: No space left on device'), { code: 'LEVEL_IO_ERROR' })
}
