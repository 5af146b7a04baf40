import { describe, expect, it } from 'vitest'
import { Lane, type LaneOwner, type StoredLane } from '../../../src/core/lane.ts'
import { MemoryBudget } from '../../../src/core/memory.ts'
import { Tickets } from '../../../src/core/tickets.ts'
import type { Tried } from '../../../src/core/tried.ts'
import { recordLength, recordPrefix } from '../../../src/model/message.ts'
import {
  ABSENT,
  type Commit,
  type LoadedSegment,
  type SegmentRef,
  type SegmentWrite,
} from '../../../src/store/types.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'

const PREFIX = recordPrefix(messageTo('a', ''))
const waitingMs = (pauseMs: number): Tried => ({ deliveries: 1, failures: 1, pauseMs, verdict: null })

/** A disk that gives back what commits wrote, but for what is damaged. */
class Disk {
  readonly #segments: { readonly ref: SegmentRef; readonly write: SegmentWrite; readonly bytes: Buffer }[] = []
  /** Commits whose segment is gone. */
  readonly lost = new Set<number>()
  /** Positions whose record is damaged. */
  readonly damaged = new Set<number>()

  get lastCommit(): number {
    return this.#segments.at(-1)?.ref.commit ?? 0
  }

  keep(commit: number, segments: readonly SegmentWrite[]): void {
    for (const write of segments) {
      this.#segments.push({ ref: { commit, part: write.part }, write, bytes: Buffer.from(write.bytes) })
    }
  }

  readonly read = async (after: SegmentRef | null): Promise<LoadedSegment[]> => {
    const next = this.#segments.find(
      ({ ref }) =>
        !this.lost.has(ref.commit) &&
        (after === null || ref.commit > after.commit || (ref.commit === after.commit && ref.part > after.part)),
    )
    if (next === undefined) return []
    const { first, count, notes } = next.write
    const offsets = Uint32Array.from(next.write.offsets.subarray(0, count))
    let damaged = 0
    for (let i = 0; i < count; i++) {
      if (!this.damaged.has(first + i)) continue
      offsets[i] = ABSENT
      damaged++
    }
    const damagedBytes = damaged * recordLength(PREFIX, 0, 0, BODY.length)
    return [{ ref: next.ref, first, count, bytes: next.bytes, offsets, notes, damaged, damagedBytes }]
  }
}

const BODY = Buffer.alloc(3000)

class LaneUnderTest {
  readonly disk: Disk
  readonly lane: Lane
  lost = 0
  #commits = 0

  constructor(memoryBytes: number, stored: StoredLane | null = null, disk = new Disk()) {
    this.disk = disk
    const owner: LaneOwner = {
      marksChanged: () => undefined,
      figuresChanged: () => undefined,
      loaded: () => undefined,
      lost: count => {
        this.lost += count
      },
    }
    this.lane = new Lane({
      base: 0,
      keeps: 'front',
      owner,
      memory: new MemoryBudget(memoryBytes),
      durability: { number: 1, tickets: new Tickets(), read: disk.read, seek: () => Promise.resolve(null) },
      stored,
    })
  }

  /** Appends so many messages, each written by a commit of its own. */
  fill(count: number): void {
    for (let n = 0; n < count; n++) {
      this.append(1)
      this.commit()
    }
  }

  append(count: number): void {
    const length = recordLength(PREFIX, 0, 0, BODY.length)
    for (let n = 0; n < count; n++) {
      const seq = this.lane.nextPosition
      const acceptance = { seq, boot: 1, acceptedAt: seq, clock: 2 } as const
      this.lane.append(length, PREFIX, acceptance, 0, BODY, 0, BODY.length, 0, 0, seq, 0)
    }
  }

  commit(): void {
    const commit: Commit = { segments: [], marks: [], changes: [], acceptedBytes: 0 }
    this.#commits++
    this.lane.prepareCommit(Number.POSITIVE_INFINITY, commit, this.#commits)
    this.disk.keep(this.#commits, commit.segments)
    this.lane.committed()
  }

  /** Hands out everything and lets it wait. */
  async letAllWait(count: number): Promise<void> {
    let waiting = 0
    await eventually(
      () => {
        for (let segment = this.lane.nextReady(); segment !== null; segment = this.lane.nextReady()) {
          this.lane.wait(segment, this.lane.handOut(segment, 1), 1000)
          waiting++
        }
        return waiting === count
      },
      { what: 'all messages waiting' },
    )
    this.commit()
  }
}

describe('a message that waits, when it is damaged', () => {
  it('is lost once, and not awaited', async () => {
    const before = new LaneUnderTest(64 * 1024 ** 2)
    before.fill(3)
    before.disk.damaged.add(1)
    const { lane, lost } = await readBack(before.disk, new Map([[1, waitingMs(1000)]]))
    expect([lost, lane.ready, lane.live, lane.waiting()]).toEqual([1, 2, 2, []])
    lane.wake(1)
    expect(lane.ready).toBe(2)
  })

  it('without a trace is lost with the others', async () => {
    const before = new LaneUnderTest(64 * 1024 ** 2)
    before.fill(3)
    for (const commit of [1, 2, 3]) before.disk.lost.add(commit)
    const { lane, lost } = await readBack(before.disk, new Map([[1, waitingMs(1000)]]))
    expect([lost, lane.ready, lane.live, lane.bytes, lane.waiting()]).toEqual([3, 0, 0, 0, []])
  })

  it('while its segment is aside is lost when it is due, and those that still wait there with it', async () => {
    const test = new LaneUnderTest(1)
    test.fill(60)
    await test.letAllWait(60)
    const { lane } = test
    expect(lane.heldBytes).toBeLessThan(256 * 1024)
    test.disk.lost.add(1)
    test.disk.damaged.add(1)
    lane.wake(0)
    lane.wake(1)
    lane.wake(2)
    await eventually(() => lane.nextReady() !== null, { what: 'the message that is left' })
    await eventually(() => test.lost === 2, { what: 'both losses' })
    const segment = lane.nextReady()
    expect([segment?.first, lane.ready, lane.live, lane.waiting().length]).toEqual([2, 1, 58, 57])
  })
})

describe('a message that waits beside one that is sifted out', () => {
  it('is delivered when it is due, though its part of the disk is read before the commit that tells of the sift', async () => {
    const before = new LaneUnderTest(64 * 1024 ** 2)
    before.append(2)
    before.commit()
    const { lane } = restartedOn(before.disk, 2, new Map([[1, waitingMs(1000)]]))
    await lane.sift(0, () => 'moved')
    lane.wake(1)
    expect(await lane.readMore()).toBe('read')
    expect([lane.ready, lane.nextReady()?.first, lane.entry]).toEqual([1, 0, 1])
  })
})

/** The lane as a restart finds it, nothing read yet. */
function restartedOn(disk: Disk, messages: number, tried: Map<number, Tried>): LaneUnderTest {
  const bytes = messages * recordLength(PREFIX, 0, 0, BODY.length)
  const last = { commit: disk.lastCommit, part: 0 }
  const stored = { messages, bytes, nextPosition: messages, delivered: 0, last, tried }
  return new LaneUnderTest(64 * 1024 ** 2, stored, disk)
}

/** The lane as a restart finds it, all read. */
async function readBack(disk: Disk, tried: Map<number, Tried>): Promise<{ lane: Lane; lost: number }> {
  const test = restartedOn(disk, 3, tried)
  while ((await test.lane.readMore()) === 'read');
  return { lane: test.lane, lost: test.lost }
}
