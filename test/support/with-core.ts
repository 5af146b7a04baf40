import pino from 'pino'
import { type Clock, systemClock } from '../../src/core/clock.ts'
import { CommitSchedule, type CommitStore } from '../../src/core/commit-schedule.ts'
import { Declarations, type DeclaredLimits } from '../../src/core/declarations.ts'
import { Identities } from '../../src/core/identity.ts'
import { MemoryBudget } from '../../src/core/memory.ts'
import type { MessageAddress } from '../../src/core/mover.ts'
import type { Queue, QueueLimits } from '../../src/core/queue.ts'
import { Retained, type RetainedLimits } from '../../src/core/retained.ts'
import { Router } from '../../src/core/router.ts'
import { RoutingTable } from '../../src/core/routing-table.ts'
import { KeptSessions } from '../../src/core/sessions.ts'
import type { Retention, Stream, StreamAck } from '../../src/core/stream.ts'
import { Streams } from '../../src/core/streams.ts'
import { Tickets } from '../../src/core/tickets.ts'
import { Topology } from '../../src/core/topology.ts'
import { MQTT_EXCHANGE } from '../../src/model/message.ts'
import { type CreateLevel, createLevel } from '../../src/store/level.ts'
import { Store } from '../../src/store/store.ts'
import type { Commit } from '../../src/store/types.ts'
import { WIDE_LIMITS } from './messages.ts'

const KEEP_ALL: Retention = { ageMs: 365 * 86_400_000, bytes: 4 * 1024 ** 3 }

interface CoreLimits {
  readonly memoryBytes: number
  readonly limits: Partial<DeclaredLimits>
  readonly retained: RetainedLimits
  readonly sessionQueue: QueueLimits
}

/** The real store with a gate before its commits: what a slow or stuck disk looks like to everything above. */
class GatedStore implements CommitStore {
  readonly #store: Store
  #gate: Promise<void> = Promise.resolve()
  #open: () => void = () => undefined
  #writing: Promise<void> = Promise.resolve()

  constructor(store: Store) {
    this.#store = store
  }

  get nextCommit(): number {
    return this.#store.nextCommit
  }

  holdCommits(): void {
    this.#gate = new Promise(open => {
      this.#open = open
    })
  }

  releaseCommits(): void {
    this.#open()
  }

  /** Nothing is being written, and nothing will be until releaseCommits. */
  async stillness(): Promise<void> {
    this.holdCommits()
    await this.#writing
    // A read of state waits for what the last commit wrote there.
    await this.#store.getState(Buffer.from('l'))
  }

  async commit(commit: Commit): Promise<void> {
    await this.#gate
    this.#writing = this.#store.commit(commit)
    await this.#writing
  }
}

/** Store and core of a gateway on a directory, without listeners: for tests of what queues and acknowledgements promise. */
export class CoreUnderTest {
  readonly store: Store
  readonly gate: GatedStore
  readonly schedule: CommitSchedule
  readonly topology: Topology
  readonly streams: Streams
  readonly keptSessions: KeptSessions
  readonly declarations: Declarations
  readonly retained: Retained
  readonly router: Router
  readonly memory: MemoryBudget
  readonly identities: Identities

  private constructor(store: Store, clock: Clock, { memoryBytes, limits, retained, sessionQueue }: CoreLimits) {
    this.store = store
    this.gate = new GatedStore(store)
    this.memory = new MemoryBudget(memoryBytes)
    const tickets = new Tickets()
    const { memory } = this
    this.schedule = new CommitSchedule({
      store: this.gate,
      tickets,
      bufferedMs: 50,
      monotonicMs: clock.monotonicMs,
    })
    const table = new RoutingTable()
    this.identities = new Identities(
      () => store.boot,
      boot => store.bootRecord(boot),
      clock,
    )
    const ageMs = (bytes: Buffer, at: number): number => this.identities.waitedMs(bytes, at)
    this.topology = new Topology({ store, schedule: this.schedule, tickets, memory, clock, table, ageMs })
    this.streams = new Streams({
      store,
      schedule: this.schedule,
      tickets,
      memory,
      clock,
      table,
      topology: this.topology,
      ageMs,
      configured: [],
    })
    this.keptSessions = new KeptSessions({
      store,
      schedule: this.schedule,
      tickets,
      topology: this.topology,
      identities: this.identities,
      clock,
      queueLimits: sessionQueue,
    })
    this.declarations = new Declarations({
      store,
      schedule: this.schedule,
      table,
      topology: this.topology,
      streams: this.streams,
      limits: { queues: 5000, exchanges: 1000, bindings: 20_000, ...limits },
      log: pino({ level: 'silent' }),
    })
    this.retained = new Retained({ store, schedule: this.schedule, memory, ageMs, limits: retained })
    this.router = new Router({
      table,
      tickets,
      schedule: this.schedule,
      memory,
      retained: this.retained,
      clock,
      boot: store.boot.boot,
      trust: () => store.boot.clock,
      commitIntervalMs: 50,
      refusal: () => store.refusal,
    })
  }

  static async open(
    directory: string,
    {
      clock = systemClock,
      memoryBytes = 64 * 1024 ** 2,
      limits = {},
      retained = { messages: 100_000, bytes: 32 * 1024 ** 2 },
      sessionQueue = { ...WIDE_LIMITS, messages: 10_000, onFull: 'drop_oldest' },
      disk = createLevel,
    }: { clock?: Clock; disk?: CreateLevel } & Partial<CoreLimits> = {},
  ): Promise<CoreUnderTest> {
    const options = {
      directory,
      gateway: 'gw-test',
      diskBytes: 8 * 1024 ** 3,
      diskFreeMinBytes: 1024 ** 2,
      log: pino({ level: 'silent' }),
      wallMs: clock.wallMs,
      monotonicMs: clock.monotonicMs,
    }
    const store = await Store.open(options, disk)
    const core = new CoreUnderTest(store, clock, { memoryBytes, limits, retained, sessionQueue })
    await core.keptSessions.load()
    await core.streams.load()
    await core.retained.load()
    await core.declarations.load()
    return core
  }

  /** A durable queue bound to a filter. */
  async queue(
    name: string,
    pattern: string,
    limits: QueueLimits = WIDE_LIMITS,
    deadLetter: MessageAddress | null = null,
  ): Promise<Queue> {
    const queue = await this.topology.declareQueue({ name, origin: 'config', limits, qos0: 'buffer', deadLetter })
    this.router.bind(MQTT_EXCHANGE, { pattern, destination: { live: null, queue }, maxQos: 2, note: 0 })
    return queue
  }

  /** A stream bound to a filter. */
  async stream(
    name: string,
    pattern: string,
    retention: Retention = KEEP_ALL,
    ack: StreamAck = 'fsync',
  ): Promise<Stream> {
    const stream = await this.streams.declare({ name, origin: 'config', retention, ack })
    this.router.bind(MQTT_EXCHANGE, { pattern, destination: { live: null, queue: stream }, maxQos: 2, note: 0 })
    return stream
  }

  async close(): Promise<void> {
    this.topology.settleUp()
    this.streams.settleUp()
    await this.schedule.stop()
    await this.store.close()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }
}
