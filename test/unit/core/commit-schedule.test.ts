import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest'
import { CommitSchedule, type CommitSource } from '../../../src/core/commit-schedule.ts'
import { Tickets } from '../../../src/core/tickets.ts'

const BUFFERED_MS = 1_000

/** QoS 0 messages of one queue: the ticket each was given, until it is settled or written. */
class Source implements CommitSource {
  readonly #schedule: CommitSchedule
  readonly #tickets: Tickets
  readonly open = new Set<{ readonly ticket: number }>()
  written = 0
  commits = 0

  constructor(schedule: CommitSchedule, tickets: Tickets) {
    this.#schedule = schedule
    this.#tickets = tickets
  }

  take(): { readonly ticket: number } {
    const message = { ticket: this.#tickets.last }
    this.open.add(message)
    this.#schedule.touch(this)
    this.#schedule.buffered()
    return message
  }

  isDueThrough(ticket: number): boolean {
    return [...this.open].some(message => message.ticket <= ticket)
  }

  prepareCommit(throughTicket: number): void {
    for (const message of this.open) {
      if (message.ticket > throughTicket) continue
      this.open.delete(message)
      this.written++
    }
    if (this.open.size > 0) {
      this.#schedule.touch(this)
      this.#schedule.buffered()
    }
  }

  committed(): void {
    this.commits++
  }
}

describe('what is only buffered (QoS 0)', () => {
  let source: Source

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'setImmediate', 'performance'] })
    const tickets = new Tickets()
    const schedule = new CommitSchedule({
      store: { nextCommit: 1, commit: () => Promise.resolve() },
      tickets,
      bufferedMs: BUFFERED_MS,
      monotonicMs: () => performance.now(),
    })
    source = new Source(schedule, tickets)
  })

  afterEach(() => {
    vi.useRealTimers()
  })

  test('is written within store.buffered_interval if nobody settles it', async () => {
    for (const laterMs of [0, 1, 499, 500, 501, 999]) {
      await vi.advanceTimersByTimeAsync(laterMs)
      const message = source.take()
      await vi.advanceTimersByTimeAsync(BUFFERED_MS + 1)
      expect(source.open.has(message)).toBe(false)
    }
    expect(source.written).toBe(6)
  })

  test('is never written if its consumer keeps settling it sooner than half of that', async () => {
    for (let n = 0; n < 100; n++) {
      const message = source.take()
      await vi.advanceTimersByTimeAsync(30)
      source.open.delete(message)
    }
    expect(source.written).toBe(0)
    expect(source.commits).toBe(0)
  })

  test('is written alone, without what came after it and may be settled yet', async () => {
    const stuck = source.take()
    await vi.advanceTimersByTimeAsync(700)
    const fresh = source.take()
    await vi.advanceTimersByTimeAsync(BUFFERED_MS - 700 + 1)
    expect([...source.open]).toEqual([fresh])
    expect(source.open.has(stuck)).toBe(false)
  })
})

describe('a store that was closed under a commit', () => {
  test('ends the schedule: whoever waits is told so, and a stop does not wait for ever', async () => {
    const store = { nextCommit: 1, commit: () => Promise.reject(new Error('the store is closed')) }
    const schedule = new CommitSchedule({
      store,
      tickets: new Tickets(),
      bufferedMs: BUFFERED_MS,
      monotonicMs: () => performance.now(),
    })
    const change = { key: Buffer.from('k'), value: Buffer.from('v') }
    await expect(schedule.change(change)).rejects.toThrow('the store is closed')
    await schedule.stop()
    await expect(schedule.change(change)).rejects.toMatchObject({ code: 'STOPPING' })
  })
})

describe('publishers that send the next message when one is acknowledged', () => {
  /** Commits that have begun: the youngest ticket each takes, and how to let it return. */
  let commits: { through: number; finish: () => void }[]
  let schedule: CommitSchedule
  let tickets: Tickets
  let nowMs: number
  let taken: number

  beforeEach(() => {
    commits = []
    nowMs = 0
    taken = 0
    tickets = new Tickets()
    const commit = () => new Promise<void>(finish => commits.push({ through: taken, finish }))
    schedule = new CommitSchedule({
      store: { nextCommit: 1, commit },
      tickets,
      bufferedMs: BUFFERED_MS,
      monotonicMs: () => nowMs,
    })
  })

  const source: CommitSource = {
    isDueThrough: () => false,
    prepareCommit: (throughTicket, commit) => {
      taken = throughTicket
      commit.changes.push({ key: Buffer.from('k'), value: Buffer.from('v') })
    },
    committed: () => undefined,
  }

  const publisher = { ticketsSafe: () => undefined, ticketRefused: () => undefined, resume: () => undefined }

  function publish(count: number): void {
    const first = tickets.open(tickets.register(publisher), count, 1)
    schedule.touch(source)
    schedule.due(first + count - 1)
  }

  async function turns(): Promise<void> {
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  }

  async function returns(): Promise<void> {
    commits.at(-1)?.finish()
    await turns()
  }

  /** Five messages in a commit of 4 ms, five more while it was under way. */
  async function halves(): Promise<void> {
    publish(5)
    await turns()
    expect(commits.length).toBe(1)
    publish(5)
    nowMs = 4
    await returns()
    expect(tickets.committedThrough).toBe(5)
  }

  test('share one commit with those that came meanwhile, instead of taking turns with them', async () => {
    await halves()
    expect(commits.length).toBe(1)
    publish(5)
    await turns()
    expect(commits.map(({ through }) => through)).toEqual([5, 15])
  })

  test('are waited for no longer than half of what the last commit took', async () => {
    await halves()
    nowMs = 5.99
    await turns()
    expect(commits.length).toBe(1)
    nowMs = 6
    await turns()
    expect(commits.map(({ through }) => through)).toEqual([5, 10])
  })

  test('are waited for 2 ms at most, however slow the disk is', async () => {
    publish(5)
    await turns()
    publish(5)
    nowMs = 1000
    await returns()
    expect(commits.length).toBe(1)
    nowMs = 1002
    await turns()
    expect(commits.length).toBe(2)
  })

  test('wait for nobody when they are alone', async () => {
    publish(1)
    await turns()
    nowMs = 4
    await returns()
    publish(1)
    await turns()
    expect(commits.map(({ through }) => through)).toEqual([1, 2])
  })

  test('wait for nobody when the last commit is long ago', async () => {
    await halves()
    publish(5)
    await turns()
    nowMs = 8
    await returns()
    nowMs = 100
    publish(1)
    await turns()
    expect(commits.map(({ through }) => through)).toEqual([5, 15, 16])
  })
})
