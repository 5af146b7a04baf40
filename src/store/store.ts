/*
 * The store: what must survive, in two LevelDBs. docs/storage-format.md describes every byte.
 *
 * Invariants
 *   - commit() resolves only after fdatasync of log/ has returned: whoever acknowledges after it acknowledges what a power cut can't take.
 *   - log/ decides, state/ follows: it receives the operations of the deltas, in order, without sync, at the latest before it is read. What several
 *     commits change in between it receives once.
 *   - An I/O error breaks a LevelDB handle for good: both are closed, opened again with all checks of a start, and the commit is written again
 *     unless it turns out to be there. Nobody who waits for it notices more than the time.
 *   - Nothing is written while nothing happens.
 *
 * Operations: open → (commit | segments | state reads)* → close; checkpoints on the way (checkpoint.ts).
 */
import { readFileSync } from 'node:fs'
import { access, constants, mkdir, realpath } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { BrokerError } from '../model/error.ts'
import type { Logger } from '../telemetry/log.ts'
import { type BootRecord, encodeBoot, MAX_BOOTS, newEpoch, trustOf } from './boot.ts'
import { bitmapBytes, countBits } from './bytes.ts'
import { FlushError, flushToTables, writeCheckpoint } from './checkpoint.ts'
import { CrashCount } from './crash-count.ts'
import { closeDatabase, type OpenedDatabase, openDatabase } from './database.ts'
import { encodeDelta } from './delta.ts'
import { DiskGuard } from './disk-guard.ts'
import { checkFormat } from './format.ts'
import { HighWater } from './high-water.ts'
import {
  BOOT_PART,
  bootKey,
  isOwnStateKey,
  logKey,
  parseSegmentIndexKey,
  prefixRange,
  segmentIndexKey,
  segmentIndexRange,
} from './keys.ts'
import { type CreateLevel, createLevel, isNoSpace, levelErrorCode, rootMessage } from './level.ts'
import { Quarantine } from './quarantine.ts'
import { Reclaim } from './reclaim.ts'
import { type Recovered, type RecoveryReport, recover } from './recovery.ts'
import { References } from './references.ts'
import { readSegmentHeader, SegmentEncoder } from './segment.ts'
import { decodeIndexEntry, encodeIndexEntry, type IndexEntry, unsettledOf } from './segment-index.ts'
import { type IndexedSegment, loadSegments } from './segment-reader.ts'
import { lastBefore, type Probe, readIndex } from './segment-search.ts'
import { SharedBodies } from './shared-bodies.ts'
import { State } from './state.ts'
import {
  ABSENT,
  type Commit,
  type LoadedSegment,
  type SegmentInfo,
  type SegmentMarks,
  type SegmentRef,
  type StateChange,
} from './types.ts'

export interface StoreOptions {
  /** The data directory. */
  readonly directory: string
  /** Gateway id, kept in the boot record. */
  readonly gateway: string
  /** Limit for all files of the data directory. */
  readonly diskBytes: number
  /** Free bytes of the file system below which new messages are refused. */
  readonly diskFreeMinBytes: number
  readonly log: Logger
  readonly wallMs: () => number
  readonly monotonicMs: () => number
}

export type StoreRefusal = 'DISK_FULL' | 'STORE_UNAVAILABLE' | 'STOPPING'

/** A checkpoint is due after so many commits, bytes written to log/, keys to delete there, or this long after the first commit behind the last one. */
const CHECKPOINT_COMMITS = 8192
const CHECKPOINT_BYTES = 64 * 1024 * 1024
const CHECKPOINT_DELETES = 16_384
const CHECKPOINT_MS = 60_000
/** So many starts in a row that did not end in order make the next one look at every block. */
const SUSPECT_CRASHES = 2
/** How far state/ may lag behind, bytes of keys and values: they stay in memory until it is read or a checkpoint is due. */
const MAX_UNAPPLIED_BYTES = 128 * 1024
/** So many damaged records of state/ are named in the log; what follows only counts as damage. */
const NAMED_DAMAGES = 100
const REOPEN_FIRST_MS = 250
const REOPEN_MAX_MS = 5000

interface Databases {
  readonly log: OpenedDatabase
  readonly stateDatabase: OpenedDatabase
  readonly state: State
}

type Phase =
  | { readonly kind: 'open'; readonly databases: Databases }
  | { readonly kind: 'reopening'; readonly done: Promise<void> }
  | { readonly kind: 'closing' }

/** What a commit is going to be, once written. */
interface Outcome {
  /** For log/. */
  readonly operations: LogPut[]
  readonly nextRecord: number
  readonly unsettled: number
  readonly bytes: number
  readonly changes: readonly StateChange[]
  readonly deletable: readonly Buffer[]
  readonly deletableBytes: number
}

/** The part of a boot record's commit that other commits don't have. */
interface BootWrite {
  readonly record: BootRecord
  readonly changes: readonly StateChange[]
  readonly deletable: readonly Buffer[]
}

interface LogPut {
  readonly type: 'put'
  readonly key: Buffer
  readonly value: Buffer
}

const NO_NAME = Buffer.alloc(0)

/** Until the store has been opened. */
const NOTHING_FOUND: RecoveryReport = {
  isFirstStart: true,
  replayedCommits: 0,
  lostCommits: 0,
  lostRecords: 0,
  lostByQueue: new Map(),
  missingRecords: 0,
  isStateRebuilt: false,
  queueNames: new Map(),
  quarantined: [],
  findings: [],
  durationMs: 0,
}

export class Store {
  readonly #options: StoreOptions
  readonly #createLevel: CreateLevel
  readonly #storeDirectory: string
  readonly #quarantine: Quarantine
  readonly #guard: DiskGuard
  readonly #highWater: HighWater
  readonly #encoder = new SegmentEncoder()
  readonly #names = new Map<number, Buffer>()
  readonly #boots = new Map<number, BootRecord>()
  readonly #abort = new AbortController()
  readonly #counters = { commits: 0, acceptedBytes: 0, lastSyncMs: 0 }
  readonly #writtenBefore = processWrittenBytes()
  /** Per queue the first segment that may still be there: reads begin here and not among the remains of deleted keys. */
  readonly #firstSegments = new Map<number, SegmentRef>()

  #phase: Phase = { kind: 'closing' }
  #recovery: RecoveryReport
  #boot: BootRecord
  /** Number of the commit that wrote it. */
  #bootCommit = 0
  #isDamaged = false
  /** Keys of damaged records in state/ that the log has. */
  readonly #namedDamages = new Set<string>()
  #isCommitting = false
  /** The attempt under way or the last one; never rejects. */
  #committing: Promise<void> = Promise.resolve()
  /** I/O errors since the last commit that came through: the pause before reopening grows with them. */
  #failures = 0
  /** Damage is likely: look at every block before opening. */
  #isSuspect = false
  #crashCount: CrashCount | null = null
  #closed: Promise<void> | null = null
  #lastRefusal: StoreRefusal | null = null
  #lastCommit = 0
  #nextRecord = 0
  #unsettled = 0
  /** What the commits have changed since the last state batch, the youngest value by key. */
  readonly #unapplied = new Map<string, StateChange>()
  #unappliedBytes = 0
  /** The state batch under way or done last, and whether all so far came through; never rejects. */
  #stateWrite: Promise<boolean> = Promise.resolve(true)
  #checkpointing: Promise<void> | null = null
  #checkpointTimer: NodeJS.Timeout | null = null
  #deltas: number[] = []
  #deletable: Buffer[] = []
  #deletableBytes = 0
  #bytesSinceCheckpoint = 0
  #proven = 0
  readonly #reclaim = new Reclaim()

  /** `refusal` may have changed. */
  onRefusalChange: (() => void) | null = null

  private constructor(options: StoreOptions, create: CreateLevel, quarantine: Quarantine, highWater: HighWater) {
    this.#options = options
    this.#createLevel = create
    this.#storeDirectory = join(options.directory, 'store')
    this.#quarantine = quarantine
    this.#highWater = highWater
    this.#guard = new DiskGuard({
      directory: options.directory,
      ballastPath: join(this.#storeDirectory, 'ballast'),
      diskBytes: options.diskBytes,
      diskFreeMinBytes: options.diskFreeMinBytes,
      monotonicMs: options.monotonicMs,
      onChange: () => this.#noteRefusal(),
    })
    this.#recovery = NOTHING_FOUND
    const { wallMs, monotonicMs, gateway } = options
    this.#boot = { boot: 0, epoch: newEpoch(), gateway, wallOffsetMs: wallMs() - monotonicMs(), clock: 0 }
  }

  /**
   * Opens the store of a data directory, creating it if there is none, and writes the boot record of this process start. Throws BrokerError
   * STORE_LOCKED, STORE_UNWRITABLE or STORE_FORMAT_UNKNOWN; damage never keeps it from starting: see `recovery`.
   */
  static async open(options: StoreOptions, create: CreateLevel = createLevel): Promise<Store> {
    const startedAt = options.monotonicMs()
    const directory = await prepareDirectory(options.directory)
    const resolved = { ...options, directory }
    const highWater = await openHighWater(directory)
    const quarantine = new Quarantine(join(directory, 'quarantine'), options.wallMs)
    const store = new Store(resolved, create, quarantine, highWater)
    try {
      await store.#start(startedAt)
      return store
    } catch (error) {
      await store.#abandon()
      throw error
    }
  }

  /** What was found at start and what was done. */
  get recovery(): RecoveryReport {
    return this.#recovery
  }

  /** This process start. */
  get boot(): BootRecord {
    return this.#boot
  }

  /** Every start it knows, this one included, oldest first. */
  boots(): readonly BootRecord[] {
    return [...this.#boots.values()].sort((a, b) => a.boot - b.boot)
  }

  /** Of this or an earlier start; undefined: unknown, or more than 4,096 starts ago. */
  bootRecord(boot: number): BootRecord | undefined {
    return this.#boots.get(boot)
  }

  /** Sets right how wall time follows from the monotonic clock of this start. What is returned belongs into a commit, which makes it durable. */
  correctBoot({ wallOffsetMs, clock }: Pick<BootRecord, 'wallOffsetMs' | 'clock'>): StateChange {
    this.#boot = { ...this.#boot, wallOffsetMs, clock }
    this.#boots.set(this.#boot.boot, this.#boot)
    return { key: bootKey(this.#boot.boot), value: encodeBoot(this.#boot, this.#bootCommit) }
  }

  /** Why new durable messages can't be taken now; null: they can. */
  get refusal(): StoreRefusal | null {
    if (this.#phase.kind === 'closing') return 'STOPPING'
    if (this.#phase.kind === 'reopening') return 'STORE_UNAVAILABLE'
    return this.#guard.isFull ? 'DISK_FULL' : null
  }

  /** Something of the store was found damaged, at start or since. */
  get isDamaged(): boolean {
    return this.#isDamaged
  }

  /** The number the next commit will carry. */
  get nextCommit(): number {
    return this.#lastCommit + 1
  }

  get counters(): { commits: number; acceptedBytes: number; writtenBytes: number; lastSyncMs: number } {
    return { ...this.#counters, writtenBytes: Math.max(0, processWrittenBytes() - this.#writtenBefore) }
  }

  /** Disk space as last looked at: at start, and at most a second after the youngest commit. */
  get disk(): { freeBytes: number; usedBytes: number } {
    return this.#guard.space
  }

  /** Gives a queue's number its name, which is written into its segments, so that log/ can be understood alone. */
  nameQueue(queue: number, name: string): void {
    this.#names.set(queue, Buffer.from(name))
  }

  /**
   * Writes a commit as a whole. Resolves when fdatasync of log/ has returned. One at a time; the commit and its buffers must stay untouched until
   * then. Rejects only with BrokerError STOPPING, when the store is closed while it waits.
   */
  async commit(commit: Commit): Promise<void> {
    if (this.#isCommitting) throw new TypeError('a commit is under way: one at a time')
    for (const { key } of commit.changes) {
      if (isOwnStateKey(key) && !key.equals(bootKey(this.#boot.boot)))
        throw new TypeError(`state key ${key.toString('latin1', 0, 1)}… belongs to the store itself`)
    }
    this.#isCommitting = true
    try {
      await this.#write(commit, null)
      this.#counters.commits++
      this.#counters.acceptedBytes += commit.acceptedBytes
      this.#guard.noteCommit()
    } finally {
      this.#isCommitting = false
    }
  }

  /**
   * Segments of a queue behind `after` (null: from its beginning), oldest first: one always, then up to 1,024 while their bytes stay within
   * `maxBytes`; [] at the end. Sees everything committed. Damaged entries are counted, not returned.
   */
  segments(queue: number, after: SegmentRef | null, maxBytes: number): Promise<LoadedSegment[]> {
    return this.#read(async databases => {
      let behind = after
      for (;;) {
        const found = await this.#indexedSegments(databases.state, queue, behind, maxBytes)
        if (found.length === 0) return []
        const loaded = await loadSegments(databases.log.level, queue, found, this.#quarantine)
        if (loaded.every(segment => segment.damaged === 0)) return loaded
        const confirmed = await this.#confirmDamage(databases.state, queue, loaded)
        if (confirmed.length > 0) return confirmed
        behind = found.at(-1)?.ref ?? behind
      }
    })
  }

  /** What the index knows of the segments that `segments` would read, without reading them. */
  segmentInfos(queue: number, after: SegmentRef | null, maxBytes: number): Promise<SegmentInfo[]> {
    return this.#read(async ({ state }) => {
      const found = await this.#indexedSegments(state, queue, after, maxBytes)
      return found.map(({ ref, entry }) => ({
        ref,
        first: entry.first,
        end: entry.first + entry.count,
        unsettled: unsettledOf(entry),
        bytes: entry.bytes,
      }))
    })
  }

  /** Behind which segment to read on to meet `position` and all that follows, without scanning; null: from the beginning. */
  seekPosition(queue: number, position: number): Promise<SegmentRef | null> {
    return this.#seek(
      queue,
      () =>
        ({ entry }) =>
          entry.first <= position,
    )
  }

  /**
   * The same for the first record of which `isBefore` says no; it must say yes for all up to some place and no for all behind. Reads one segment for each
   * halving: 2 log2(n) for a place n commits behind the first. `isBefore` gets records in stored form beginning at `at`.
   */
  seekRecord(queue: number, isBefore: (bytes: Buffer, at: number) => boolean): Promise<SegmentRef | null> {
    return this.#seek(queue, ({ log }) => async segment => {
      const [loaded] = await loadSegments(log.level, queue, [segment], this.#quarantine)
      const at = loaded?.offsets.find(offset => offset !== ABSENT)
      return loaded === undefined || at === undefined ? null : isBefore(loaded.bytes, at)
    })
  }

  #seek(queue: number, probe: (databases: Databases) => Probe): Promise<SegmentRef | null> {
    return this.#read(async databases => {
      const found = await lastBefore(databases.state, queue, this.#bounds(queue), probe(databases))
      return found === null ? null : justBefore(found.ref)
    })
  }

  /** The newest segment of a queue that holds something unsettled, and the position behind it; null: none. */
  lastSegment(queue: number): Promise<{ ref: SegmentRef; end: number } | null> {
    return this.#read(async ({ state }) => {
      const found = await state.last(this.#bounds(queue))
      const key = found === null ? null : parseSegmentIndexKey(found[0])
      const entry = found === null ? null : decodeIndexEntry(found[1])
      if (key === null || entry === null) return null
      return { ref: { commit: key.commit, part: key.part }, end: entry.first + entry.count }
    })
  }

  /** How the oldest segment of a queue calls it; null: there is none, or it cannot be read. */
  nameOf(queue: number): Promise<string | null> {
    return this.#read(async ({ log, state }) => {
      const [oldest] = await this.#indexedSegments(state, queue, null, 1)
      if (oldest === undefined) return null
      const key = logKey(oldest.ref.commit, queue, oldest.ref.part)
      const value = await log.level.get(key)
      return value === undefined ? null : (readSegmentHeader(key, value)?.name ?? null)
    })
  }

  /** What the index promises of a queue, counted entry by entry: for a start after damage, when the queue's own figures can't be relied on. */
  async unsettled(queue: number): Promise<{ messages: number; bytes: number }> {
    let messages = 0
    let bytes = 0
    for await (const [, value] of this.#pages(segmentIndexRange(queue))) {
      const entry = decodeIndexEntry(value)
      if (entry === null) continue
      messages += unsettledOf(entry)
      bytes += entry.bytes
    }
    return { messages, bytes }
  }

  /** One of core's own records; undefined: none. */
  getState(key: Buffer): Promise<Buffer | undefined> {
    return this.#read(({ state }) => state.get(key))
  }

  /** Core's own records whose keys begin with `prefix`, in key order, read a page at a time. */
  readState(prefix: Buffer): AsyncGenerator<readonly [Buffer, Buffer]> {
    return this.#pages(prefixRange(prefix))
  }

  async *#pages({ gte, lt }: { gte: Buffer; lt: Buffer }): AsyncGenerator<readonly [Buffer, Buffer]> {
    let from = gte
    for (;;) {
      const lower = from
      const { entries, last } = await this.#read(({ state }) => state.page({ gte: lower, lt }))
      yield* entries
      if (last === null) return
      from = Buffer.concat([last, Buffer.from([0])])
    }
  }

  /** Waits for the commit under way, makes a checkpoint, releases the directory. Idempotent. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  async #close(): Promise<void> {
    const phase = this.#phase
    this.#phase = { kind: 'closing' }
    this.#noteRefusal()
    if (this.#checkpointTimer !== null) clearTimeout(this.#checkpointTimer)
    await this.#guard.stop()
    this.#abort.abort()
    if (phase.kind === 'reopening') await phase.done
    if (phase.kind === 'open') {
      await this.#committing
      await this.#checkpointing
      try {
        if (this.#hasNewCommits) await this.#checkpoint(phase.databases)
      } catch (error) {
        // Nothing is lost by it: the next start replays what this checkpoint would have saved it.
        this.#options.log.warn({ err: error }, 'no checkpoint at close')
      }
      await closeBoth(phase.databases)
    }
    try {
      await this.#highWater.close()
      await this.#crashCount?.end()
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the high-water mark could not be synced at close')
    }
  }

  /** Undoes a start that failed. */
  async #abandon(): Promise<void> {
    await this.#committing
    if (this.#phase.kind === 'open') await closeBoth(this.#phase.databases)
    this.#phase = { kind: 'closing' }
    this.#abort.abort()
    await this.#guard.stop()
    // The error that ended the start is the one to tell.
    await Promise.allSettled([this.#crashCount?.cancel(), this.#highWater.close()])
  }

  async #start(startedAt: number): Promise<void> {
    const { log, monotonicMs } = this.#options
    const isFirstStart = this.#highWater.mark === null && (await isMissing(join(this.#storeDirectory, 'log')))
    const crashCount = await this.#countStart()
    this.#isSuspect = crashCount >= SUSPECT_CRASHES
    let opened: { databases: Databases; recovered: Recovered }
    try {
      opened = await this.#openDatabases()
    } catch (error) {
      if (!isNoSpace(error) || !(await this.#guard.releaseBallast())) throw unwritable(this.#options.directory, error)
      opened = await this.#openDatabases().catch((again: unknown) => {
        throw unwritable(this.#options.directory, again)
      })
    }
    this.#phase = { kind: 'open', databases: opened.databases }
    this.#recovery = reportOf(opened.recovered, isFirstStart, this.#quarantine.paths, monotonicMs() - startedAt)
    for (const { record } of opened.recovered.boots.values()) this.#boots.set(record.boot, record)
    const boot = opened.recovered.lastBoot + 1
    const clock = trustOf(this.#boot.wallOffsetMs, this.#boots.values())
    this.#boot = { ...this.#boot, boot, clock }
    this.#bootCommit = this.nextCommit
    await Promise.all([
      this.#write({ segments: [], marks: [], changes: [], acceptedBytes: 0 }, this.#bootWrite(opened.recovered)),
      this.#guard.check(),
    ])
    this.#boots.set(boot, this.#boot)
    log.info(
      { commit: this.#lastCommit, boot, replayed: this.#recovery.replayedCommits, lost: this.#recovery.lostRecords },
      'store open',
    )
  }

  /** Starts before this one that did not end in order. */
  async #countStart(): Promise<number> {
    try {
      this.#crashCount = await CrashCount.begin(join(this.#storeDirectory, 'running'))
      return this.#crashCount.before
    } catch (error) {
      if (isNoSpace(error)) return 0 // the databases come first; they have the ballast to give up
      throw unwritable(this.#options.directory, error)
    }
  }

  #bootWrite({ boots }: Recovered): BootWrite {
    const forgotten = [...boots.keys()].sort((a, b) => a - b).slice(0, Math.max(0, boots.size + 1 - MAX_BOOTS))
    const deletable: Buffer[] = []
    const changes: StateChange[] = []
    for (const boot of forgotten) {
      const commit = boots.get(boot)?.commit
      if (commit !== undefined) deletable.push(logKey(commit, 0, BOOT_PART))
      changes.push({ key: bootKey(boot), value: null })
      this.#boots.delete(boot)
    }
    return { record: this.#boot, changes, deletable }
  }

  /** Opens both databases, checks their format, brings state/ up to log/; used at start and after I/O errors. */
  async #openDatabases(): Promise<{ databases: Databases; recovered: Recovered }> {
    const common = {
      storeDirectory: this.#storeDirectory,
      quarantine: this.#quarantine,
      createLevel: this.#createLevel,
      isSuspect: this.#isSuspect,
    }
    // Side by side: most of it is waiting for the disk.
    const [log, stateDatabase] = await bothOrNeither(
      openDatabase({ ...common, name: 'log' }),
      openDatabase({ ...common, name: 'state' }),
    )
    try {
      await checkFormat('log', log)
      await checkFormat('state', stateDatabase)
      const recovered = await recover(log, stateDatabase, this.#highWater.mark)
      this.#adopt(recovered)
      this.#isSuspect = false
      return { databases: { log, stateDatabase, state: new State(stateDatabase.level, this.#noteDamage) }, recovered }
    } catch (error) {
      await closeBoth({ log, stateDatabase })
      throw error
    }
  }

  readonly #noteDamage = (key: Buffer): void => {
    this.#isDamaged = true
    const name = key.toString('hex')
    if (this.#namedDamages.size === NAMED_DAMAGES || this.#namedDamages.has(name)) return
    this.#namedDamages.add(name)
    this.#options.log.error({ key: name }, 'damaged record in state/: it is left out')
  }

  #adopt(recovered: Recovered): void {
    this.#lastCommit = recovered.lastCommit
    this.#nextRecord = recovered.nextRecord
    this.#unsettled = recovered.unsettled
    this.#deltas = recovered.deltas
    this.#deletable = recovered.deletable
    this.#deletableBytes = 0
    this.#proven = recovered.proven
    this.#bytesSinceCheckpoint = 0
    this.#stateWrite = Promise.resolve(true)
    this.#unapplied.clear()
    this.#unappliedBytes = 0
    this.#firstSegments.clear()
    if (recovered.findings.length > 0) this.#isDamaged = true
    for (const finding of recovered.findings) this.#options.log.warn(finding)
  }

  async #ready(): Promise<Databases> {
    for (;;) {
      const phase = this.#phase
      if (phase.kind === 'open') return phase.databases
      if (phase.kind === 'closing') throw new BrokerError('STOPPING', 'The store is closed: the gateway is stopping')
      await phase.done
    }
  }

  /** Runs a read; if the databases are closed under it or break, once more on the reopened ones. */
  async #read<T>(operation: (databases: Databases) => Promise<T>): Promise<T> {
    for (;;) {
      const databases = await this.#ready()
      try {
        if (!(await this.#applyState(databases))) continue
        return await operation(databases)
      } catch (error) {
        if (!isStorageError(error)) throw error
        this.#fail(databases, error)
      }
    }
  }

  async #write(commit: Commit, boot: BootWrite | null): Promise<void> {
    const number = this.#lastCommit + 1
    for (;;) {
      const databases = await this.#ready()
      // An earlier attempt had reached the disk before it failed; recovery has found it and brought state/ up to it.
      if (this.#lastCommit >= number) return
      // Marks are computed from the index, so it has to be there.
      const needsState = commit.marks.length > 0 || this.#unappliedBytes > MAX_UNAPPLIED_BYTES
      if (needsState && !(await this.#applyState(databases))) continue
      const committing = this.#attempt(databases, commit, number, boot)
      this.#committing = committing.catch(() => undefined)
      try {
        await committing
        this.#failures = 0
        return
      } catch (error) {
        if (!isStorageError(error)) throw error
        this.#fail(databases, error)
      }
    }
  }

  async #attempt(databases: Databases, commit: Commit, number: number, boot: BootWrite | null): Promise<void> {
    const outcome = await this.#encode(databases.state, commit, number, boot)
    const startedAt = this.#options.monotonicMs()
    // An array and not a chained batch: that one's native memory is freed only when the garbage collector comes by (15 MB while filling).
    await databases.log.level.batch(outcome.operations, { sync: true })
    this.#counters.lastSyncMs = this.#options.monotonicMs() - startedAt
    this.#highWater.note({
      commit: number,
      nextRecord: outcome.nextRecord,
      unsettled: outcome.unsettled,
      boot: this.#boot.boot,
    })
    // No await from here on: a checkpoint must see the commit and what it changes together.
    this.#lastCommit = number
    this.#nextRecord = outcome.nextRecord
    this.#unsettled = outcome.unsettled
    for (const change of outcome.changes) this.#noteUnapplied(change)
    this.#deltas.push(number)
    for (const key of outcome.deletable) this.#deletable.push(key)
    this.#deletableBytes += outcome.deletableBytes
    this.#bytesSinceCheckpoint += outcome.bytes
    this.#scheduleCheckpoint(databases)
  }

  #noteUnapplied(change: StateChange): void {
    const key = change.key.toString('latin1')
    this.#unappliedBytes += bytesOf(change) - bytesOf(this.#unapplied.get(key))
    this.#unapplied.set(key, change)
  }

  /** Brings state/ up to the last commit. False: that failed, these databases are not to be used any more. */
  #applyState(databases: Databases): Promise<boolean> {
    if (this.#unapplied.size > 0) {
      const changes = [...this.#unapplied.values()]
      this.#unapplied.clear()
      this.#unappliedBytes = 0
      this.#stateWrite = this.#writeState(databases, changes, this.#stateWrite)
    }
    return this.#stateWrite
  }

  async #writeState(databases: Databases, changes: readonly StateChange[], before: Promise<boolean>): Promise<boolean> {
    if (!(await before)) return false
    try {
      await databases.state.apply(changes)
      return true
    } catch (error) {
      this.#fail(databases, error)
      return false
    }
  }

  /** What the commit writes to log/ and what follows from it. */
  async #encode(state: State, commit: Commit, number: number, boot: BootWrite | null): Promise<Outcome> {
    const bodies = new SharedBodies()
    const operations: LogPut[] = []
    this.#encoder.reset()
    const changes: StateChange[] = []
    const written = new Map<string, IndexEntry>()
    const references = new References(state)
    let nextRecord = this.#nextRecord
    let bytes = 0
    for (const write of commit.segments) {
      if (countBits(write.present, write.count) === 0) continue
      const key = logKey(number, write.queue, write.part)
      const encoded = this.#encoder.encode(key, write, this.#names.get(write.queue) ?? NO_NAME, nextRecord, bodies)
      operations.push({ type: 'put', key: key, value: encoded.value })
      bytes += encoded.value.length
      const entry: IndexEntry = {
        first: write.first,
        count: write.count,
        present: encoded.present,
        bytes: encoded.recordBytes,
        firstRecord: nextRecord,
        bodyParts: encoded.bodyParts,
        settled:
          encoded.present === write.count
            ? null
            : Uint8Array.from(write.present.subarray(0, bitmapBytes(write.count)), byte => ~byte),
      }
      const indexKey = segmentIndexKey(write.queue, { commit: number, part: write.part })
      changes.push({ key: indexKey, value: encodeIndexEntry(entry) })
      if (commit.marks.length > 0) written.set(indexKey.toString('latin1'), entry)
      for (const part of encoded.bodyParts) references.add(number, part, 1)
      nextRecord += encoded.present
    }
    for (const [at, part] of bodies.finish().entries()) {
      operations.push({ type: 'put', key: logKey(number, 0, at + 1), value: part })
      bytes += part.length
    }
    const deletable: Buffer[] = boot === null ? [] : [...boot.deletable]
    const { settledNow, deletableBytes } = await this.#mark(
      state,
      commit.marks,
      written,
      changes,
      deletable,
      references,
    )
    await references.finish(changes, deletable)
    if (boot !== null) {
      changes.push(...boot.changes)
      const own = { key: bootKey(boot.record.boot), value: encodeBoot(boot.record, number) }
      changes.push(own)
      operations.push(this.#bootPut(own.value))
    }
    for (const change of commit.changes) {
      changes.push(change)
      // The only one that commits may bring: this start's boot record, corrected.
      if (change.value !== null && isOwnStateKey(change.key)) operations.push(this.#bootPut(change.value))
    }
    const records = nextRecord - this.#nextRecord
    const unsettled = Math.max(0, this.#unsettled + records - settledNow)
    const deltaKey = logKey(number, 0, 0)
    const delta = encodeDelta(deltaKey, {
      firstRecord: this.#nextRecord,
      records,
      unsettled,
      boot: this.#boot.boot,
      changes,
    })
    operations.push({ type: 'put', key: deltaKey, value: delta })
    return { operations, nextRecord, unsettled, bytes: bytes + delta.length, changes, deletable, deletableBytes }
  }

  /** The same key each time: log/ tells of each start once. */
  #bootPut(record: Buffer): LogPut {
    const value = Buffer.alloc(4 + record.length)
    value.writeUInt32LE(this.#boot.boot)
    record.copy(value, 4)
    return { type: 'put', key: logKey(this.#bootCommit, 0, BOOT_PART), value }
  }

  /** Turns marks into index entries; how many entries they settle, how many bytes become deletable. A mark of a segment the index no longer knows changes nothing. */
  async #mark(
    state: State,
    marks: readonly SegmentMarks[],
    written: ReadonlyMap<string, IndexEntry>,
    changes: StateChange[],
    deletable: Buffer[],
    references: References,
  ): Promise<{ settledNow: number; deletableBytes: number }> {
    let settledNow = 0
    let deletableBytes = 0
    if (marks.length === 0) return { settledNow, deletableBytes }
    const keys = marks.map(({ queue, ref }) => segmentIndexKey(queue, ref))
    const values = await state.getMany(keys)
    for (const [at, { queue, ref, settled, isComplete }] of marks.entries()) {
      const key = keys[at] ?? NO_NAME
      const value = values[at]
      const entry = value === undefined ? written.get(key.toString('latin1')) : decodeIndexEntry(value)
      if (entry === undefined || entry === null) continue
      settledNow += unsettledOf(entry)
      if (isComplete) {
        changes.push({ key, value: null })
        deletable.push(logKey(ref.commit, queue, ref.part))
        deletableBytes += entry.bytes
        for (const part of entry.bodyParts) references.add(ref.commit, part, -1)
      } else {
        const marked: IndexEntry = { ...entry, settled }
        settledNow -= unsettledOf(marked)
        changes.push({ key, value: encodeIndexEntry(marked) })
      }
    }
    return { settledNow, deletableBytes }
  }

  async #indexedSegments(
    state: State,
    queue: number,
    after: SegmentRef | null,
    maxBytes: number,
  ): Promise<IndexedSegment[]> {
    const all = this.#bounds(queue)
    const bounds = after === null ? all : { gt: segmentIndexKey(queue, after), lt: all.lt }
    const found = await readIndex(state, bounds, maxBytes)
    const start = found[0]
    if (after === null && start !== undefined) this.#firstSegments.set(queue, start.ref)
    return found
  }

  /** Of the index keys of a queue, without the remains of deleted ones. */
  #bounds(queue: number): { gte: Buffer; lt: Buffer } {
    const { gte, lt } = segmentIndexRange(queue)
    const first = this.#firstSegments.get(queue)
    return { gte: first === undefined ? gte : segmentIndexKey(queue, first), lt }
  }

  /** Damaged segments that the index has forgotten meanwhile were settled and deleted while being read: they are left out. */
  async #confirmDamage(state: State, queue: number, loaded: LoadedSegment[]): Promise<LoadedSegment[]> {
    const keys = loaded.map(({ ref }) => segmentIndexKey(queue, ref))
    const entries = await state.getMany(keys)
    return loaded.filter((segment, at) => {
      if (segment.damaged === 0) return true
      if (entries[at] === undefined) return false
      this.#isDamaged = true
      this.#options.log.error(
        { queue, commit: segment.ref.commit, part: segment.ref.part, records: segment.damaged },
        'damaged segment: its unreadable records are lost',
      )
      return true
    })
  }

  #scheduleCheckpoint(databases: Databases): void {
    const isDue =
      this.#deltas.length > CHECKPOINT_COMMITS ||
      this.#bytesSinceCheckpoint >= CHECKPOINT_BYTES ||
      this.#deletable.length >= CHECKPOINT_DELETES
    if (isDue) {
      this.#runCheckpoint(databases)
    } else if (this.#checkpointTimer === null && this.#phase.kind === 'open') {
      this.#checkpointTimer = setTimeout(() => this.#runCheckpoint(databases), CHECKPOINT_MS)
      this.#checkpointTimer.unref()
    }
  }

  #runCheckpoint(databases: Databases): void {
    if (this.#checkpointTimer !== null) clearTimeout(this.#checkpointTimer)
    this.#checkpointTimer = null
    if (this.#checkpointing !== null || this.#phase.kind !== 'open' || this.#phase.databases !== databases) return
    this.#checkpointing = this.#checkpoint(databases)
      .catch((error: unknown) => this.#fail(databases, error))
      .finally(() => {
        this.#checkpointing = null
      })
  }

  get #hasNewCommits(): boolean {
    return this.#deltas.length > 1 || this.#deletable.length > 0
  }

  async #checkpoint(databases: Databases): Promise<void> {
    const { log, state } = databases
    const commit = this.#lastCommit
    const deltas = this.#deltas
    const deletable = this.#deletable
    const deletableBytes = this.#deletableBytes
    this.#deletableBytes = 0
    this.#deltas = [commit]
    this.#deletable = []
    this.#bytesSinceCheckpoint = 0
    const numbers = { nextRecord: this.#nextRecord, unsettled: this.#unsettled }
    if (!(await this.#applyState(databases))) return
    await writeCheckpoint(state, { commit, proven: this.#proven, ...numbers })
    await flushToTables(state.level)
    const batch = log.level.batch()
    for (const delta of deltas) if (delta < commit) batch.del(logKey(delta, 0, 0))
    for (const key of deletable) batch.del(key)
    await batch.write({ sync: true })
    this.#proven = commit
    this.#reclaim.note(deletable, deletableBytes)
    if (!this.#isClosing) await this.#reclaim.run(log.level, state)
    await writeCheckpoint(state, { commit, proven: commit, ...numbers })
    await this.#highWater.sync()
  }

  /** The databases broke: closes them and opens them again until that works. */
  #fail(databases: Databases, error: unknown): void {
    if (this.#phase.kind !== 'open' || this.#phase.databases !== databases) return
    if (levelErrorCode(error) === 'LEVEL_CORRUPTION') this.#isSuspect = true
    this.#options.log.error({ err: error }, `store unavailable, reopening it: ${rootMessage(error)}`)
    if (this.#checkpointTimer !== null) clearTimeout(this.#checkpointTimer)
    this.#checkpointTimer = null
    const done = this.#reopen(databases)
    this.#phase = { kind: 'reopening', done }
    this.#noteRefusal()
  }

  /** Never rejects; ends when the databases are open or the store is closed. */
  async #reopen(broken: Databases): Promise<void> {
    await this.#committing
    await this.#checkpointing
    await this.#stateWrite
    await closeBoth(broken)
    let waitMs = Math.min(REOPEN_FIRST_MS * 2 ** this.#failures, REOPEN_MAX_MS)
    this.#failures++
    for (;;) {
      await delay(waitMs, undefined, { signal: this.#abort.signal }).catch(() => undefined)
      if (this.#isClosing) return
      try {
        const { databases } = await this.#openDatabases()
        if (this.#isClosing) return await closeBoth(databases)
        this.#phase = { kind: 'open', databases }
        this.#options.log.info({ commit: this.#lastCommit }, 'store open again')
        this.#noteRefusal()
        this.#guard.noteCommit()
        return
      } catch (error) {
        const hasRoomNow = isNoSpace(error) && (await this.#guard.releaseBallast())
        waitMs = hasRoomNow ? 0 : Math.min(Math.max(waitMs * 2, REOPEN_FIRST_MS), REOPEN_MAX_MS)
        this.#options.log.warn(`store still unavailable: ${rootMessage(error)}`)
      }
    }
  }

  /** As a property read anew after each await. */
  get #isClosing(): boolean {
    return this.#phase.kind === 'closing'
  }

  #noteRefusal(): void {
    const refusal = this.refusal
    if (refusal === this.#lastRefusal) return
    this.#lastRefusal = refusal
    this.onRefusalChange?.()
  }
}

/** Reading on behind it begins with the segment at `ref`. */
const justBefore = ({ commit, part }: SegmentRef): SegmentRef =>
  part > 0 ? { commit, part: part - 1 } : { commit: commit - 1, part: 0xffff }

function bytesOf(change: StateChange | undefined): number {
  return change === undefined ? 0 : change.key.length + (change.value?.length ?? 0)
}

/** If one can't be opened the other is closed again, and the error of the first that failed thrown. */
async function bothOrNeither(
  ...opening: [Promise<OpenedDatabase>, Promise<OpenedDatabase>]
): Promise<[OpenedDatabase, OpenedDatabase]> {
  try {
    return await Promise.all(opening)
  } catch (error) {
    for (const outcome of await Promise.allSettled(opening)) {
      if (outcome.status === 'fulfilled') await closeDatabase(outcome.value)
    }
    throw error
  }
}

async function closeBoth({ log, stateDatabase }: Pick<Databases, 'log' | 'stateDatabase'>): Promise<void> {
  // A handle that broke may fail to close as well; its lock is released all the same.
  await Promise.allSettled([closeDatabase(stateDatabase), closeDatabase(log)])
}

/** An error of the disk or of LevelDB, as opposed to a mistake in our own code. */
function isStorageError(error: unknown): boolean {
  return levelErrorCode(error) !== null || error instanceof FlushError || (error instanceof Error && 'syscall' in error)
}

/** Creates the directories and makes sure they can be written to; returns the real path of the data directory. */
async function prepareDirectory(directory: string): Promise<string> {
  try {
    await mkdir(join(directory, 'store'), { recursive: true })
    await access(join(directory, 'store'), constants.W_OK | constants.X_OK)
    return await realpath(directory)
  } catch (error) {
    throw unwritable(directory, error)
  }
}

async function openHighWater(directory: string): Promise<HighWater> {
  try {
    return await HighWater.open(join(directory, 'store', 'high-water'))
  } catch (error) {
    throw unwritable(directory, error)
  }
}

function unwritable(directory: string, cause: unknown): unknown {
  if (cause instanceof BrokerError || !isStorageError(cause)) return cause
  const advice = isNoSpace(cause)
    ? 'free some space'
    : 'check its owner and permissions, and that the file system is not read-only'
  return new BrokerError(
    'STORE_UNWRITABLE',
    `Data directory ${directory} can't be written to: ${rootMessage(cause)}; ${advice}`,
    {
      cause,
      facts: { directory },
    },
  )
}

async function isMissing(path: string): Promise<boolean> {
  return access(path).then(
    () => false,
    () => true,
  )
}

function reportOf(
  recovered: Recovered,
  isFirstStart: boolean,
  quarantined: readonly string[],
  durationMs: number,
): RecoveryReport {
  const {
    replayedCommits,
    lostCommits,
    lostRecords,
    lostByQueue,
    missingRecords,
    isStateRebuilt,
    queueNames,
    findings,
  } = recovered
  return {
    isFirstStart,
    replayedCommits,
    lostCommits,
    lostRecords,
    lostByQueue,
    missingRecords,
    isStateRebuilt,
    queueNames,
    quarantined: [...quarantined],
    findings,
    durationMs,
  }
}

/** Bytes this process has caused to be written to block devices; 0 where the system doesn't say. */
function processWrittenBytes(): number {
  try {
    return Number(/^write_bytes: (\d+)/m.exec(readFileSync('/proc/self/io', 'latin1'))?.[1] ?? 0)
  } catch {
    return 0 // not Linux, or /proc is hidden: the figure is then absent, nothing else depends on it
  }
}
