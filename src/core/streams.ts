import { BrokerError } from '../model/error.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Clock } from './clock.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { decodeDefinitionRecord, encodeDefinitionRecord } from './definition-record.ts'
import { EMPTY_FIGURES, withQueued } from './ledger.ts'
import { decodeLedgerRecord, ledgerKey } from './ledger-record.ts'
import type { MemoryBudget } from './memory.ts'
import { numberBytes, type Origin } from './queue-definition.ts'
import { Registry } from './registry.ts'
import type { RoutingTable } from './routing-table.ts'
import { cursorPrefix, decodeCursor, type StoredStream, Stream, type StreamOptions } from './stream.ts'
import { replayStream, type StreamReplayed, type StreamReplayOptions } from './stream-replay.ts'
import type { Tickets } from './tickets.ts'
import type { Topology } from './topology.ts'

export interface StreamSpec extends StreamOptions {
  readonly origin: Origin
}

/** A stream's definition as kept in the store. */
interface StreamDefinition extends StreamSpec {
  readonly number: number
}

const STREAM_DEFINITIONS = Buffer.from([StatePrefix.definition, 's'.charCodeAt(0)])

/** The streams there are and their definitions, kept in the store. Names and numbers are common to queues and streams. */
export class Streams {
  readonly #store: Store
  readonly #schedule: CommitSchedule
  readonly #tickets: Tickets
  readonly #memory: MemoryBudget
  readonly #clock: Clock
  readonly #topology: Topology
  readonly #ageMs: (bytes: Buffer, at: number) => number
  readonly #configured: ReadonlySet<string>
  readonly #streams: Registry<Stream, StreamDefinition>

  constructor({
    store,
    schedule,
    tickets,
    memory,
    clock,
    table,
    topology,
    ageMs,
    configured,
  }: {
    store: Store
    schedule: CommitSchedule
    tickets: Tickets
    memory: MemoryBudget
    clock: Clock
    table: RoutingTable
    topology: Topology
    /** How long ago a record entered its queue. */
    ageMs: (bytes: Buffer, at: number) => number
    /** Names the configuration will declare. */
    configured: readonly string[]
  }) {
    this.#store = store
    this.#schedule = schedule
    this.#tickets = tickets
    this.#memory = memory
    this.#clock = clock
    this.#streams = new Registry('stream', table)
    this.#topology = topology
    this.#ageMs = ageMs
    this.#configured = new Set(configured)
  }

  /** Brings back every stream the store knows, then the queues: what is a stream is not taken for a queue whose definition was lost. */
  async load(): Promise<void> {
    for await (const [, value] of this.#store.readState(STREAM_DEFINITIONS)) {
      const definition = decodeDefinition(value)
      await this.#open(definition)
    }
    const numbers = new Set([...this.#streams.definitions()].map(({ number }) => number))
    await this.#topology.load((number, name) => numbers.has(number) || this.#configured.has(name))
  }

  /**
   * A stream by this name: the one that is there, with the retention of `spec`, or a new one. Resolves when its definition is durable.
   * @throws BrokerError DECLARATION_MISMATCH if a queue has this name.
   */
  async declare(spec: StreamSpec): Promise<Stream> {
    const { name } = spec
    this.checkName(name)
    this.#streams.noteDeclared(name)
    const known = this.#streams.definitionOf(name)
    const stream = this.#streams.find(name)
    const definition = { number: known?.number ?? this.#numberFor(name), ...spec }
    if (known !== undefined && stream !== undefined) {
      if (encodeDefinitionRecord(known).equals(encodeDefinitionRecord(definition))) return stream
      stream.retention = spec.retention
      stream.ack = spec.ack
      this.#streams.redefine(definition)
      await this.#keep(definition)
      return stream
    }
    const opened = await this.#open(definition)
    await this.#keep(definition)
    return opened
  }

  /** @throws BrokerError DECLARATION_MISMATCH if a queue has this name. */
  checkName(name: string): void {
    if (this.#topology.has(name)) this.#streams.refuseTaken(name)
  }

  /** Segments name their queue: so a stream whose definition was lost to damage finds its messages again. */
  #numberFor(name: string): number {
    return this.#topology.foundStreams.get(name) ?? this.#topology.newNumber()
  }

  async #open(definition: StreamDefinition): Promise<Stream> {
    const { name, number } = definition
    this.#store.nameQueue(number, name)
    const stream = new Stream(
      definition,
      {
        number,
        store: this.#store,
        schedule: this.#schedule,
        tickets: this.#tickets,
        memory: this.#memory,
        monotonicMs: this.#clock.monotonicMs,
        ageMs: this.#ageMs,
        ledgerKey: ledgerKey(number),
      },
      await this.#stored(number),
    )
    this.#topology.reserve(number, name)
    this.#streams.add(stream, definition)
    return stream
  }

  async #stored(number: number): Promise<StoredStream> {
    const value = await this.#store.getState(ledgerKey(number))
    const record = value === undefined ? null : decodeLedgerRecord(value)
    const lane = record?.lanes[0]
    const last = await this.#store.lastSegment(number)
    const [oldest] = await this.#store.segmentInfos(number, null, 1)
    const isCounted = record === null || this.#store.recovery.isStateRebuilt
    const counted = isCounted ? await this.#store.unsettled(number) : null
    const figures = record?.figures ?? EMPTY_FIGURES
    const nextPosition = Math.max(lane?.next ?? 0, last?.end ?? 0)
    const cursors = new Map<string, number>()
    for await (const [key, cursor] of this.#store.readState(cursorPrefix(number))) {
      const decoded = decodeCursor(key, cursor)
      if (decoded !== null) cursors.set(...decoded)
    }
    return {
      figures: counted === null ? figures : withQueued(figures, counted.messages),
      bytes: counted?.bytes ?? lane?.bytes ?? 0,
      nextPosition,
      last: last?.ref ?? null,
      first: oldest?.first ?? nextPosition,
      cursors,
      owed: record?.owed ?? 0,
    }
  }

  /**
   * Says whether a stream may be deleted now.
   * @throws BrokerError STREAM_NOT_FOUND; QUEUE_IN_USE if the configuration declares it or somebody reads it.
   */
  checkDeletable(name: string): void {
    this.#streams.checkDeletable(name, 'readers', this.stream(name).readerCount)
  }

  /**
   * Deletes a stream with its messages and cursors; no binding may lead to it any more but the default exchange's. Resolves when that is durable.
   * @throws BrokerError as checkDeletable, or STOPPING: then it is still there after the next start, perhaps with fewer messages.
   */
  async delete(name: string): Promise<void> {
    this.checkDeletable(name)
    const stream = this.stream(name)
    // Hidden, so that nobody can publish to it or read it while it is emptied.
    const definition = this.#streams.hide(name)
    // All of it is durably gone before its definition goes: otherwise messages would come back with nobody to own them.
    await stream.empty()
    this.#streams.forget(name)
    await Promise.all([
      this.#schedule.change({ key: definitionKey(definition.number), value: null }),
      this.#schedule.change({ key: ledgerKey(definition.number), value: null }),
    ])
    this.#topology.release(name)
  }

  /** Forgets what is over age or bytes; called every few seconds. */
  retain(): void {
    for (const stream of this.#streams.all()) stream.retain()
  }

  /** For an orderly stop: nothing is acknowledged unwritten any more, and the last commit says so. */
  settleUp(): void {
    for (const stream of this.#streams.all()) stream.settleUp()
  }

  /** Those in use and orphans. */
  all(): Iterable<Stream> {
    return this.#streams.all()
  }

  get count(): number {
    return this.#streams.size
  }

  originOf(name: string): Origin {
    return this.#streams.originOf(name)
  }

  /** Left over from an earlier configuration: kept, and forgetting by age, until it is deleted or declared again. */
  isOrphan(name: string): boolean {
    return this.#streams.isOrphan(name)
  }

  find(name: string): Stream | undefined {
    return this.#streams.find(name)
  }

  /** @throws BrokerError STREAM_NOT_FOUND */
  stream(name: string): Stream {
    const stream = this.#streams.find(name)
    if (stream === undefined) {
      throw new BrokerError('STREAM_NOT_FOUND', `there is no stream ${name}; \`sluice stream\` lists those there are`, {
        facts: { stream: name },
      })
    }
    return stream
  }

  /** Sends a range of a stream into an exchange (core/stream-replay.ts). @throws BrokerError STREAM_NOT_FOUND, STOPPING */
  async replay(name: string, options: StreamReplayOptions): Promise<StreamReplayed> {
    return replayStream(this.stream(name), options, { mover: this.#topology.mover, schedule: this.#schedule })
  }

  #keep(definition: StreamDefinition): Promise<void> {
    return this.#schedule.change({ key: definitionKey(definition.number), value: encodeDefinitionRecord(definition) })
  }
}

function decodeDefinition(value: Buffer): StreamDefinition {
  const { retention, ...definition } = decodeDefinitionRecord<KeptStream>(value)
  return { ...definition, retention: { ...retention, ageMs: retention.ageMs ?? Number.POSITIVE_INFINITY } }
}

type KeptStream = Omit<StreamDefinition, 'retention'> & {
  readonly retention: { readonly bytes: number; readonly ageMs: number | null }
}

function definitionKey(stream: number): Buffer {
  return Buffer.concat([STREAM_DEFINITIONS, numberBytes(stream)])
}
