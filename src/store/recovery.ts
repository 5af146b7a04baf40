/*
 * Brings state/ up to log/ when the store is opened, and finds out what is missing.
 *
 * Invariants
 *   - What log/ holds decides; state/ is either exactly what the deltas add up to, or built anew from log/.
 *   - Nothing that may still be needed is deleted here.
 *   - Reported loss is never smaller than real loss: where it can't be known exactly it is an upper bound.
 *
 * Operations: read the checkpoint → decide whether state/ can be believed → else index all segments in log/ → replay deltas in order,
 * looking for gaps in commit and record numbers → compare the end with the high-water mark.
 */
import { type BootRecord, decodeBoot } from './boot.ts'
import { type Checkpoint, flushToTables, readCheckpoint, writeCheckpoint } from './checkpoint.ts'
import type { OpenedDatabase } from './database.ts'
import { type Delta, decodeDelta } from './delta.ts'
import type { Mark } from './high-water.ts'
import {
  BOOT_PART,
  BOOT_RANGE,
  bootKey,
  type LogKey,
  logKey,
  parseBootKey,
  parseLogKey,
  parseReferencesKey,
  parseSegmentIndexKey,
  REFERENCES_RANGE,
  STATE_CHECKPOINT_KEY,
  segmentIndexKey,
  segmentIndexRange,
} from './keys.ts'
import { type Db, levelErrorCode } from './level.ts'
import { referencesChange } from './references.ts'
import { readBodyParts, readSegmentHeader, type SegmentHeader } from './segment.ts'
import { decodeIndexEntry, encodeIndexEntry, unsettledOf } from './segment-index.ts'
import { State } from './state.ts'
import type { StateChange } from './types.ts'

/** What was found when the store was opened and what was done about it. Plain data. */
export interface RecoveryReport {
  /** Nothing was there before. */
  readonly isFirstStart: boolean
  /** Commits applied to state/ again. */
  readonly replayedCommits: number
  readonly lostCommits: number
  /** Records of lost commits: in no queue any more. An upper bound. */
  readonly lostRecords: number
  /** Of those, by queue number, where a later segment of the queue shows it. An upper bound. */
  readonly lostByQueue: ReadonlyMap<number, number>
  /** Unsettled records that the index promises and log/ lacks: they come back as `damaged` when their queue is read. Counted only after log/ was found damaged. */
  readonly missingRecords: number
  /** state/ was built anew from log/: settled marks within segments are gone (redelivery), core's own records as far as they could not be read. */
  readonly isStateRebuilt: boolean
  /** Queue number → name, learned from segments; only when state/ was rebuilt. */
  readonly queueNames: ReadonlyMap<number, string>
  /** Where damaged files were set aside. */
  readonly quarantined: readonly string[]
  /** One sentence per finding, as logged. */
  readonly findings: readonly string[]
  readonly durationMs: number
}

export interface Recovered {
  readonly lastCommit: number
  readonly nextRecord: number
  readonly unsettled: number
  readonly lastBoot: number
  readonly boots: ReadonlyMap<number, { record: BootRecord; commit: number }>
  /** Commits whose deltas are in log/, ascending. */
  readonly deltas: number[]
  /** Log keys to delete after the next checkpoint. */
  readonly deletable: Buffer[]
  readonly proven: number
  readonly replayedCommits: number
  readonly lostCommits: number
  readonly lostRecords: number
  readonly lostByQueue: Map<number, number>
  readonly missingRecords: number
  readonly isStateRebuilt: boolean
  readonly queueNames: Map<number, string>
  readonly findings: string[]
}

const PAGE_ENTRIES = 1000
const PAGE_BYTES = 1024 * 1024
const MAX_BATCH_CHANGES = 2000

export async function recover(
  log: OpenedDatabase,
  stateDatabase: OpenedDatabase,
  mark: Mark | null,
): Promise<Recovered> {
  const recovery = new Recovery(log, stateDatabase, mark)
  return recovery.run()
}

/** How far the replay has come. */
class Progress {
  changes: StateChange[] = []
  /** Commit that should come next; null: no sound delta yet. */
  expected: number | null = null
  /** Record number behind the last sound delta. */
  nextRecord = 0
  /** Position behind the last segment of each queue. */
  readonly ends = new Map<number, number>()
  /** The last gap: how many records it cost, and which queues have shown a segment since. */
  gap: { readonly records: number; readonly seen: Set<number> } | null = null
  /** Segments since the last sound delta, which lost theirs. */
  orphanCommit = 0
  orphanRecords = 0
  readonly orphanReferences = new Map<number, number>()

  /** All segments of the orphaned commit are known: writes down how often its shared bodies are referred to. */
  finishOrphans(): void {
    for (const [part, count] of this.orphanReferences)
      this.changes.push(referencesChange(this.orphanCommit, part, count))
    this.orphanReferences.clear()
  }

  beginAfterGap(records: number): void {
    this.gap = { records, seen: new Set() }
    this.orphanCommit = 0
    this.orphanRecords = 0
  }
}

class Recovery {
  readonly #log: Db
  readonly #state: State
  readonly #isLogFresh: boolean
  readonly #logFault: string | null
  readonly #isStateFresh: boolean
  readonly #stateFault: string | null
  readonly #mark: Mark | null
  readonly #findings: string[] = []
  /** Of records in state/. */
  readonly #damagedKeys = new Set<string>()
  readonly #deltas: number[] = []
  readonly #deletable: Buffer[] = []
  readonly #lostByQueue = new Map<number, number>()
  readonly #queueNames = new Map<number, string>()
  /** Commits that lost their deltas: first and last of each row of them. */
  readonly #lostRanges: [number, number][] = []
  #lostCommits = 0
  #lostRecords = 0
  #replayed = 0
  #lastCommit = 0
  #lastBoot = 0
  /** Record number behind the last record known to be in log/; null: not known yet. */
  #nextRecord: number | null = null
  #unsettled = 0
  #damagedSegments = 0

  constructor(log: OpenedDatabase, state: OpenedDatabase, mark: Mark | null) {
    this.#log = log.level
    this.#state = new State(state.level, key => this.#damagedKeys.add(key.toString('hex')))
    this.#isLogFresh = log.isFresh
    const isLogMissing = log.isFresh && (!state.isFresh || mark !== null)
    this.#logFault = log.fault ?? (isLogMissing ? 'it was not there' : null)
    this.#isStateFresh = state.isFresh
    this.#stateFault = state.fault
    this.#mark = mark
  }

  async run(): Promise<Recovered> {
    if (this.#logFault !== null) this.#findings.push(`log/ was damaged: ${this.#logFault}`)
    if (this.#stateFault !== null) this.#findings.push(`state/ was damaged: ${this.#stateFault}`)
    const checkpoint = await readCheckpoint(this.#state)
    const scanFrom = checkpoint?.proven ?? 0
    const firstDelta = await this.#firstDelta(scanFrom)
    const doubt = this.#doubt(checkpoint, firstDelta)
    if (doubt !== null) {
      this.#findings.push(`state/ is built anew from log/: ${doubt}`)
      await this.#rebuild()
    } else if (checkpoint !== null) {
      this.#lastCommit = checkpoint.proven
      this.#unsettled = checkpoint.unsettled
    }
    await this.#replay(doubt === null ? scanFrom : 0)
    this.#compareWithMark(checkpoint)
    let missingRecords = 0
    if (doubt !== null || this.#logFault !== null || this.#lostRanges.length > 0) {
      const verified = await this.#verifyIndex()
      missingRecords = verified.missing
      this.#unsettled = verified.unsettled
    }
    if (doubt !== null && (this.#logFault !== null || this.#damagedSegments > 0)) this.#boundLoss()
    if (missingRecords > 0) this.#findings.push(`${missingRecords} records in the index are missing in log/`)
    const boots = await this.#readBoots()
    if (this.#damagedKeys.size > 0) this.#findings.push(`${this.#damagedKeys.size} records in state/ are damaged`)
    const nextRecord = Math.max(this.#nextRecord ?? 0, checkpoint?.nextRecord ?? 0, this.#mark?.nextRecord ?? 0)
    const lastCommit = Math.max(this.#lastCommit, checkpoint?.commit ?? 0, this.#mark?.commit ?? 0)
    if (doubt !== null) {
      await flushToTables(this.#state.level)
      await writeCheckpoint(this.#state, { commit: lastCommit, proven: 0, nextRecord, unsettled: this.#unsettled })
    }
    return {
      lastCommit,
      nextRecord,
      unsettled: this.#unsettled,
      lastBoot: Math.max(this.#lastBoot, this.#mark?.boot ?? 0, ...boots.keys()),
      boots,
      deltas: this.#deltas,
      deletable: this.#deletable,
      proven: doubt === null ? scanFrom : 0,
      replayedCommits: this.#replayed,
      lostCommits: this.#lostCommits,
      lostRecords: this.#lostRecords,
      lostByQueue: this.#lostByQueue,
      missingRecords,
      isStateRebuilt: doubt !== null,
      queueNames: this.#queueNames,
      findings: this.#findings,
    }
  }

  /** Why state/ can't be believed; null: it can. */
  #doubt(checkpoint: Checkpoint | null, firstDelta: number | null): string | null {
    if (this.#isLogFresh && this.#isStateFresh && this.#logFault === null && this.#stateFault === null) return null
    if (this.#stateFault !== null) return 'it was damaged'
    if (this.#isStateFresh) return 'it was not there'
    // Without a checkpoint record it holds only what deltas that are all still in log/ have put there: the first one has the number 1.
    if (checkpoint === null) return firstDelta === 1 ? null : 'it has no checkpoint record'
    // Up to `proven` it is complete, so where the next delta is there too, none is missing, even if that of the checkpoint is lost.
    if (firstDelta !== null && Math.max(checkpoint.commit, checkpoint.proven + 1) < firstDelta) {
      return `it is as of commit ${checkpoint.commit}, log/ needs ${firstDelta} or later`
    }
    return null
  }

  /** The first commit at or behind `from` whose delta is in log/ and sound: a damaged one vouches for nothing, and the replay passes over it. */
  async #firstDelta(from: number): Promise<number | null> {
    for await (const key of this.#logKeys(from)) {
      if (key.queue === 0 && key.part === 0 && key.commit > 0 && (await this.#readDelta(key.commit)) !== null)
        return key.commit
    }
    return null
  }

  /** null: it is not there, or damaged. */
  async #readDelta(commit: number): Promise<Delta | null> {
    const key = logKey(commit, 0, 0)
    const value = await readOrNull(this.#log, key)
    return value === null ? null : decodeDelta(key, value)
  }

  /** Indexes every segment in log/. Core's own records in state/ stay, as far as they are there. */
  async #rebuild(): Promise<void> {
    await this.#state.apply([{ key: STATE_CHECKPOINT_KEY, value: null }])
    // From here on a crash leaves no checkpoint record, so the next start begins anew.
    await flushToTables(this.#state.level)
    await this.#state.level.clear(segmentIndexRange(null))
    await this.#state.level.clear(REFERENCES_RANGE)
    let changes: StateChange[] = []
    let references = new Map<number, number>()
    let commit = 0
    const finishCommit = () => {
      for (const [part, count] of references) changes.push(referencesChange(commit, part, count))
      references = new Map()
    }
    for await (const [key, value] of this.#logEntries()) {
      const parsed = parseLogKey(key)
      if (parsed === null || parsed.commit === 0) continue
      if (parsed.commit !== commit) {
        finishCommit()
        commit = parsed.commit
        if (changes.length >= MAX_BATCH_CHANGES) {
          await this.#state.apply(changes)
          changes = []
        }
      }
      if (parsed.queue === 0) {
        const boot = parsed.part === BOOT_PART ? bootChange(value) : null
        if (boot !== null) changes.push(boot)
        continue
      }
      const header = readSegmentHeader(key, value)
      if (header === null) {
        this.#damagedSegments++
        continue
      }
      this.#noteName(parsed.queue, header)
      changes.push(this.#indexChange(header, parsed, value, references))
    }
    finishCommit()
    await this.#state.apply(changes)
    if (this.#damagedSegments > 0) this.#findings.push(`${this.#damagedSegments} segments in log/ can't be read`)
  }

  #indexChange(
    header: SegmentHeader,
    { commit, queue, part }: LogKey,
    value: Buffer,
    references: Map<number, number>,
  ): StateChange {
    const bodyParts = readBodyParts(value, header)
    for (const bodyPart of bodyParts) references.set(bodyPart, (references.get(bodyPart) ?? 0) + 1)
    const { first, count, present, firstRecord, recordBytes } = header
    const settled = header.presentBitmap === null ? null : Uint8Array.from(header.presentBitmap, byte => ~byte)
    this.#nextRecord = Math.max(this.#nextRecord ?? 0, firstRecord + present)
    const entry = { first, count, present, bytes: recordBytes, firstRecord, bodyParts, settled }
    return { key: segmentIndexKey(queue, { commit, part }), value: encodeIndexEntry(entry) }
  }

  /** Applies the deltas behind `from` in order and looks for gaps; up to it state/ holds them. */
  async #replay(from: number): Promise<void> {
    const progress = new Progress()
    for await (const key of this.#logKeys(from)) {
      const isDelta = key.queue === 0 && key.part === 0
      // Before the first delta lie segments of commits that state/ knows.
      if (key.commit === 0 || (progress.expected === null && !isDelta)) continue
      if (isDelta) await this.#replayDelta(key.commit, from, progress)
      else if (key.queue !== 0 && key.commit >= (progress.expected ?? 0)) await this.#adoptOrphan(key, progress)
      if (progress.changes.length >= MAX_BATCH_CHANGES) {
        await this.#state.apply(progress.changes)
        progress.changes = []
      }
    }
    progress.finishOrphans()
    await this.#state.apply(progress.changes)
    const { expected, orphanCommit, orphanRecords } = progress
    if (expected !== null && orphanRecords > 0) {
      this.#findings.push(
        `commits ${expected} to ${orphanCommit} have lost their deltas; ${orphanRecords} of their records are kept`,
      )
      this.#lostCommits += orphanCommit - expected + 1
      this.#lastCommit = orphanCommit
      this.#unsettled += orphanRecords
    }
  }

  async #replayDelta(commit: number, applied: number, progress: Progress): Promise<void> {
    const delta = await this.#readDelta(commit)
    if (delta === null) return // the next sound delta, or the high-water mark, shows what that cost
    if (progress.expected !== null && commit > progress.expected) {
      progress.finishOrphans()
      const lost = Math.max(0, delta.firstRecord - progress.nextRecord - progress.orphanRecords)
      this.#findings.push(
        `commits ${progress.expected} to ${commit - 1} are missing or damaged in log/: ${lost} records`,
      )
      this.#lostCommits += commit - progress.expected
      this.#lostRanges.push([progress.expected, commit - 1])
      this.#lostRecords += lost
      progress.beginAfterGap(lost)
    }
    progress.expected = commit + 1
    progress.nextRecord = delta.firstRecord + delta.records
    this.#deltas.push(commit)
    this.#lastCommit = commit
    this.#lastBoot = Math.max(this.#lastBoot, delta.boot)
    this.#nextRecord = Math.max(this.#nextRecord ?? 0, progress.nextRecord)
    this.#unsettled = delta.unsettled
    if (commit <= applied) return
    this.#replayed++
    for (const change of delta.changes) {
      progress.changes.push(change)
      await this.#noteChange(commit, change, progress)
    }
  }

  /** Puts a segment whose commit lost its delta into the index. */
  async #adoptOrphan(key: LogKey, progress: Progress): Promise<void> {
    const bytes = logKey(key.commit, key.queue, key.part)
    const value = await readOrNull(this.#log, bytes)
    const header = value === null ? null : readSegmentHeader(bytes, value)
    if (value === null || header === null) return
    if (key.commit !== progress.orphanCommit) progress.finishOrphans()
    progress.orphanCommit = key.commit
    progress.orphanRecords += header.present
    progress.ends.set(key.queue, header.first + header.count)
    this.#noteName(key.queue, header)
    progress.changes.push(this.#indexChange(header, key, value, progress.orphanReferences))
  }

  /** Follows what a replayed operation means: log keys that became deletable; how far each queue reached. */
  async #noteChange(commit: number, { key, value }: StateChange, progress: Progress): Promise<void> {
    const segment = parseSegmentIndexKey(key)
    if (value === null) {
      if (segment !== null) this.#deletable.push(logKey(segment.commit, segment.queue, segment.part))
      const references = parseReferencesKey(key)
      if (references !== null) this.#deletable.push(logKey(references.commit, 0, references.part))
      return
    }
    const entry = segment === null ? null : decodeIndexEntry(value)
    if (segment === null || entry === null || segment.commit !== commit) return
    const { gap, ends } = progress
    if (gap !== null && !gap.seen.has(segment.queue)) {
      gap.seen.add(segment.queue)
      const end = ends.get(segment.queue) ?? (await this.#endBefore(segment))
      const lost = end === null ? 0 : Math.min(Math.max(0, entry.first - end), gap.records)
      if (lost > 0) this.#lostByQueue.set(segment.queue, (this.#lostByQueue.get(segment.queue) ?? 0) + lost)
    }
    ends.set(segment.queue, entry.first + entry.count)
  }

  /** Where the queue ended in state/ before this segment. */
  async #endBefore({ queue, commit, part }: LogKey): Promise<number | null> {
    const { gte } = segmentIndexRange(queue)
    const found = await this.#state.last({ gte, lt: segmentIndexKey(queue, { commit, part }) })
    const entry = found === null ? null : decodeIndexEntry(found[1])
    return entry === null ? null : entry.first + entry.count
  }

  #compareWithMark(checkpoint: Checkpoint | null): void {
    const mark = this.#mark
    if (mark === null) {
      if (checkpoint !== null || this.#deltas.length > 0)
        this.#findings.push('the high-water mark is missing: a lost tail would not be noticed')
      return
    }
    // With no delta left in log/, state/ itself is the only witness of how far it came.
    const lastCommit = this.#deltas.length > 0 || this.#lastCommit > 0 ? this.#lastCommit : 0
    if (mark.commit <= lastCommit) return
    const nextRecord = this.#nextRecord ?? (this.#deltas.length > 0 ? 0 : (checkpoint?.nextRecord ?? 0))
    const commits = mark.commit - lastCommit
    const records = Math.max(0, mark.nextRecord - nextRecord)
    this.#lostCommits += commits
    this.#lostRanges.push([lastCommit + 1, mark.commit])
    // What was in the store at that commit is the most that can have been lost, if that is less.
    this.#lostRecords += Math.min(records, Math.max(mark.unsettled, 0))
    this.#findings.push(
      `the last ${commits} commits (to ${mark.commit}) are missing in log/: at most ${Math.min(records, mark.unsettled)} records`,
    )
  }

  /** Sums up the index and counts the unsettled records whose segments log/ lacks. */
  async #verifyIndex(): Promise<{ missing: number; unsettled: number }> {
    let { gte } = segmentIndexRange(null)
    const { lt } = segmentIndexRange(null)
    let missing = 0
    let unsettled = 0
    const isLogSuspect = this.#logFault !== null || this.#lostRanges.length > 0
    for (;;) {
      const { entries, last } = await this.#state.page({ gte, lt }, PAGE_ENTRIES)
      if (last === null) return { missing, unsettled }
      for (const [key, value] of entries) {
        const at = parseSegmentIndexKey(key)
        const entry = decodeIndexEntry(value)
        if (at === null || entry === null) continue
        const left = unsettledOf(entry)
        unsettled += left
        if (!isLogSuspect || (await readOrNull(this.#log, logKey(at.commit, at.queue, at.part))) !== null) continue
        missing += left
        // Of a commit that is known to be lost: state/ knows what it held, and it comes back as damaged. It must not be counted twice.
        if (this.#lostRanges.some(([first, last]) => at.commit >= first && at.commit <= last))
          this.#lostRecords = Math.max(0, this.#lostRecords - left)
      }
      gte = Buffer.concat([last, Buffer.from([0])])
    }
  }

  /** Both sides were damaged: only the high-water mark knows how much there was. */
  #boundLoss(): void {
    if (this.#mark === null || this.#lostRecords >= this.#mark.unsettled) return
    this.#findings.push(`log/ and state/ were both damaged: up to ${this.#mark.unsettled} records may be lost`)
    this.#lostRecords = this.#mark.unsettled
  }

  async #readBoots(): Promise<Map<number, { record: BootRecord; commit: number }>> {
    const boots = new Map<number, { record: BootRecord; commit: number }>()
    let gte = BOOT_RANGE.gte
    for (;;) {
      const { entries, last } = await this.#state.page({ gte, lt: BOOT_RANGE.lt }, PAGE_ENTRIES)
      if (last === null) return boots
      for (const [key, value] of entries) {
        const boot = parseBootKey(key)
        const decoded = boot === null ? null : decodeBoot(boot, value)
        if (boot !== null && decoded !== null) boots.set(boot, decoded)
      }
      gte = Buffer.concat([last, Buffer.from([0])])
    }
  }

  #noteName(queue: number, { name }: SegmentHeader): void {
    if (name !== '') this.#queueNames.set(queue, name)
  }

  /** Keys of log/ in order from commit `from` on. */
  async *#logKeys(from: number): AsyncGenerator<LogKey> {
    let gte = logKey(from, 0, 0)
    let limit = PAGE_ENTRIES
    for (;;) {
      const { items, failed } = await nextKeys(this.#log, gte, limit)
      for (const key of items) {
        const parsed = parseLogKey(key)
        if (parsed !== null) yield parsed
      }
      const last = items.at(-1)
      if (last !== undefined) gte = Buffer.concat([last, Buffer.from([0])])
      if (failed && limit > 1) limit = 1
      else if (last === undefined) return
    }
  }

  /** Entries of log/ in order. */
  async *#logEntries(): AsyncGenerator<[Buffer, Buffer]> {
    for await (const { commit, queue, part } of this.#logKeys(0)) {
      const key = logKey(commit, queue, part)
      const value = await readOrNull(this.#log, key)
      if (value !== null) yield [key, value]
      else if (queue !== 0) this.#damagedSegments++
    }
  }
}

/**
 * One page of keys. LevelDB skips a damaged block and reports it only at the end, when a page read at once is lost with it: then the caller goes on
 * with pages of one.
 */
async function nextKeys(level: Db, gte: Buffer, limit: number): Promise<{ items: Buffer[]; failed: boolean }> {
  const iterator = level.keys({ gte, limit, fillCache: false, highWaterMarkBytes: PAGE_BYTES })
  try {
    return { items: await iterator.nextv(limit), failed: false }
  } catch (error) {
    if (levelErrorCode(error) === null) throw error
    return { items: [], failed: true }
  } finally {
    await iterator.close()
  }
}

/** null: not there, or LevelDB can't read it. */
async function readOrNull(level: Db, key: Buffer): Promise<Buffer | null> {
  try {
    return (await level.get(key, { fillCache: false })) ?? null
  } catch (error) {
    if (levelErrorCode(error) === null) throw error
    return null
  }
}

function bootChange(value: Buffer): StateChange | null {
  if (value.length < 4) return null
  const boot = value.readUInt32LE(0)
  const record = value.subarray(4)
  return decodeBoot(boot, record) === null ? null : { key: bootKey(boot), value: record }
}
