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
