import { BrokerError } from '../model/error.ts'
import type { Commit, StateChange } from '../store/types.ts'
import type { Tickets } from './tickets.ts'

/** Slots of the wheel of deferred tickets, each so many milliseconds wide. */
const SLOT_MS = 4
const SLOTS = 512
/** How long a commit may wait for publishers that the one before has just acknowledged, as a share of what that one took, and at most. */
const GATHER_SHARE = 1 / 2
const GATHER_MAX_MS = 2
/** A ledger whose messages never needed the disk is written this often, and at stop. */
const LEDGER_INTERVAL_MS = 60_000

/** The store as the schedule sees it. */
export interface CommitStore {
  readonly nextCommit: number
  /** Resolves when the commit is durable; rejects only when the store is closed. */
  commit(commit: Commit): Promise<void>
}

/** A durable queue as the schedule sees it. */
export interface CommitSource {
  /** Adds what it has unwritten up to `throughTicket`, and its changed marks, to the commit. */
  prepareCommit(throughTicket: number, commit: Commit, commitNumber: number): void
  /** Whether a commit through this ticket would write a message, or (`withMarks`) marks; figures alone don't count. */
  isDueThrough(ticket: number, withMarks: boolean): boolean
  /** The commit it was part of has returned. */
  committed(): void
}

/**
 * Decides when what is in memory must be on disk (design.md section 2). A message is due at once if nobody can take it now or if
 * state must be kept; else after a while in which its consumer may settle it and spare the write. A commit starts when something
 * is due and none is running; it takes everything unsettled up to the youngest due message.
 *
 * Publishers with a window answer an acknowledgement with the next message. Would a commit start the moment the one before has returned, it
 * would take what came during that one and leave out what is on its way: two halves taking turns, each with an fdatasync of its own. So
 * while fewer tickets are open than at the last return, the next commit waits for them, for a fraction of what an fdatasync takes. A
 * message that comes when nothing was acknowledged just now waits for nobody.
 */
export class CommitSchedule {
  readonly #store: CommitStore
  readonly #tickets: Tickets
  readonly #bufferedMs: number
  readonly #monotonicMs: () => number
  readonly #dirty = new Set<CommitSource>()
  /** Without a change: somebody waits for what the next commit takes. */
  #changes: { change: StateChange | null; done: () => void; failed: (error: unknown) => void }[] = []
  #isDue = false
  #dueTicket = 0
  #isRunning = false
  #isStarting = false
  #isStopped = false
  /** The last commit: when it returned, how long it took, and how many tickets were open at that moment, its own included. */
  #returnedAtMs = 0
  #tookMs = 0
  #openAtReturn = 0
  /** Youngest ticket per wheel slot; the wheel turns with the monotonic clock. */
  readonly #wheel = new Float64Array(SLOTS)
  #wheelCount = 0
  #wheelTimer: NodeJS.Timeout | null = null
  #lastSlot = 0
  #bufferedTimer: NodeJS.Timeout | null = null
  /** Youngest ticket at the last turn of the buffered timer; tickets of QoS 0 begin at 0. */
  #bufferedThrough = -1
  #isMarksTurn = false
  #ledgerTimer: NodeJS.Timeout | null = null
  #idle: (() => void)[] = []

  constructor({
    store,
    tickets,
    bufferedMs,
    monotonicMs,
  }: {
    store: CommitStore
    tickets: Tickets
    /** `store.buffered_interval`: the longest that marks, ledgers and QoS 0 messages stay unwritten, milliseconds. */
    bufferedMs: number
    monotonicMs: () => number
  }) {
    this.#store = store
    this.#tickets = tickets
    this.#bufferedMs = bufferedMs
    this.#monotonicMs = monotonicMs
  }

  /** This queue has something unwritten: entries or marks. */
  touch(source: CommitSource): void {
    this.#dirty.add(source)
  }

  /** Everything up to `ticket` must be written now. */
  due(ticket: number): void {
    if (ticket > this.#dueTicket) this.#dueTicket = ticket
    this.#isDue = true
    this.#start()
  }

  /** Everything up to `ticket` must be safe in `delayMs` (at most about two seconds) at the latest. */
  deferred(ticket: number, delayMs: number): void {
    const now = this.#slotOf(this.#monotonicMs())
    if (this.#wheelCount === 0) this.#lastSlot = now
    const slot = Math.min(now + Math.max(1, Math.ceil(delayMs / SLOT_MS)), this.#lastSlot + SLOTS - 1)
    const index = slot % SLOTS
    if (this.#wheel[index] === 0) this.#wheelCount++
    this.#wheel[index] = ticket
    if (this.#wheelTimer === null) this.#armWheel(now)
  }

  /** What is unwritten may wait for store.buffered_interval: QoS 0 messages and settled marks. */
  buffered(): void {
    this.#bufferedTimer ??= setTimeout(() => this.#turnBuffered(), this.#bufferedMs / 2)
  }

  /**
   * Twice per interval: what had come by the turn before and is still not settled must be written. So nothing waits longer than the
   * interval, and what its consumer settles within half of it costs the card nothing. Marks are written every other turn.
   */
  #turnBuffered(): void {
    this.#bufferedTimer = null
    const through = this.#bufferedThrough
    this.#bufferedThrough = this.#tickets.divide()
    this.#isMarksTurn = !this.#isMarksTurn
    let isAnyLeft = false
    for (const source of this.#dirty) {
      if (source.isDueThrough(through, this.#isMarksTurn)) {
        this.due(through)
        return
      }
      isAnyLeft ||= source.isDueThrough(this.#bufferedThrough, true)
    }
    if (isAnyLeft) this.buffered()
  }

  /** Only figures changed: they may wait for a minute, so that a healthy link costs the card next to nothing. */
  figuresChanged(): void {
    this.#ledgerTimer ??= setTimeout(() => {
      this.#ledgerTimer = null
      if (this.#dirty.size > 0) this.due(this.#tickets.committedThrough)
    }, LEDGER_INTERVAL_MS)
  }

  /** Writes one record of core's own (definition, session, …); resolves when it is durable. Cold path. */
  change(change: StateChange): Promise<void> {
    return this.#join(change)
  }

  /** Resolves when all that was settled, dropped or changed by now is durable. Cold path. */
  flush(): Promise<void> {
    return this.#join(null)
  }

  #join(change: StateChange | null): Promise<void> {
    return new Promise((done, failed) => {
      if (this.#isStopped) {
        failed(new BrokerError('STOPPING', 'the gateway is stopping; try again when it is back'))
        return
      }
      this.#changes.push({ change, done, failed })
      this.due(this.#tickets.committedThrough)
    })
  }

  /** Writes all there is and stops: for the end of the process. */
  async stop(): Promise<void> {
    if (this.#bufferedTimer !== null) clearTimeout(this.#bufferedTimer)
    if (this.#wheelTimer !== null) clearTimeout(this.#wheelTimer)
    if (this.#ledgerTimer !== null) clearTimeout(this.#ledgerTimer)
    this.#bufferedTimer = null
    this.#ledgerTimer = null
    this.#wheelTimer = null
    while (!this.#isStopped && (this.#dirty.size > 0 || this.#isRunning || this.#isDue)) {
      const idle = new Promise<void>(resolve => this.#idle.push(resolve))
      this.due(this.#tickets.last)
      await idle
    }
    this.#isStopped = true
  }

  #slotOf(ms: number): number {
    return Math.floor(ms / SLOT_MS)
  }

  #armWheel(now: number): void {
    if (this.#wheelCount === 0) return
    let next = this.#lastSlot + 1
    while (this.#wheel[next % SLOTS] === 0) next++
    this.#wheelTimer = setTimeout(() => this.#turnWheel(), Math.max(1, (next - now) * SLOT_MS))
  }

  #turnWheel(): void {
    this.#wheelTimer = null
    const now = this.#slotOf(this.#monotonicMs())
    let ticket = 0
    const through = Math.min(now, this.#lastSlot + SLOTS - 1)
    for (let slot = this.#lastSlot + 1; slot <= through && this.#wheelCount > 0; slot++) {
      const held = this.#wheel[slot % SLOTS] ?? 0
      if (held === 0) continue
      this.#wheel[slot % SLOTS] = 0
      this.#wheelCount--
      if (held > ticket) ticket = held
    }
    this.#lastSlot = now
    if (ticket >= this.#tickets.oldestOpen) this.due(ticket)
    this.#armWheel(now)
  }

  #start(): void {
    if (this.#isRunning || this.#isStarting || this.#isStopped) return
    this.#isStarting = true
    // What else arrives in this turn of the event loop joins the commit.
    setImmediate(this.#startWhenGathered)
  }

  readonly #startWhenGathered = () => {
    if (this.#isGathering()) {
      setImmediate(this.#startWhenGathered)
      return
    }
    this.#isStarting = false
    this.#run()
  }

  #isGathering(): boolean {
    const open = this.#tickets.last - this.#tickets.committedThrough
    if (this.#isStopped || open >= this.#openAtReturn) return false
    return this.#monotonicMs() - this.#returnedAtMs < Math.min(this.#tookMs * GATHER_SHARE, GATHER_MAX_MS)
  }

  #run(): void {
    if (this.#isRunning || this.#isStopped) return
    const throughTicket = this.#dueTicket
    const commit: Commit = { segments: [], marks: [], changes: [], acceptedBytes: 0 }
    const sources = [...this.#dirty]
    const changes = this.#changes
    this.#changes = []
    this.#dirty.clear()
    this.#isDue = false
    for (const source of sources) source.prepareCommit(throughTicket, commit, this.#store.nextCommit)
    for (const { change } of changes) if (change !== null) commit.changes.push(change)
    if (commit.segments.length === 0 && commit.marks.length === 0 && commit.changes.length === 0) {
      this.#tickets.commit(throughTicket)
      for (const { done } of changes) done()
      this.#becameIdle()
      return
    }
    this.#isRunning = true
    const startedAtMs = this.#monotonicMs()
    this.#store.commit(commit).then(
      () => {
        this.#isRunning = false
        this.#returnedAtMs = this.#monotonicMs()
        this.#tookMs = this.#returnedAtMs - startedAtMs
        this.#openAtReturn = this.#tickets.last - this.#tickets.committedThrough
        for (const source of sources) source.committed()
        this.#tickets.commit(throughTicket)
        for (const { done } of changes) done()
        if (this.#isDue) this.#start()
        else this.#becameIdle()
      },
      error => {
        // The store rejects only once it is closed: nothing can be made durable any more, so nothing is acknowledged either.
        this.#isRunning = false
        this.#isStopped = true
        for (const { failed } of [...changes, ...this.#changes]) failed(error)
        this.#changes = []
        this.#becameIdle()
      },
    )
  }

  #becameIdle(): void {
    const idle = this.#idle
    this.#idle = []
    for (const resolve of idle) resolve()
  }
}
