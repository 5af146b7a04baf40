import { describe, expect, it } from 'vitest'
import { isAfter, Lane, type LaneOwner, type StoredLane } from '../../../src/core/lane.ts'
import { MemoryBudget } from '../../../src/core/memory.ts'
import { Tickets } from '../../../src/core/tickets.ts'
import type { Tried } from '../../../src/core/tried.ts'
import { recordLength, recordPrefix } from '../../../src/model/message.ts'
import { hasBit } from '../../../src/store/bytes.ts'
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
const waitingMs = (pauseMs: number): Tried => ({ deliveries: 1, failures: 1, pauseMs, verdict: null, words: null })

/** A disk that gives back what commits wrote, but for what is damaged. */
class Disk {
  #segments: { readonly ref: SegmentRef; readonly write: SegmentWrite; readonly bytes: Buffer; settled: Uint8Array }[] =
    []
  /** What is read is handed over when this resolves. */
  delay: Promise<void> = Promise.resolve()
  /** Commits whose segment is gone. */
  readonly lost = new Set<number>()
  /** Positions whose record is damaged. */
  readonly damaged = new Set<number>()

  get lastCommit(): number {
    return this.#segments.at(-1)?.ref.commit ?? 0
  }

  keep(commit: number, { segments, marks }: Commit): void {
    for (const write of segments) {
      const ref = { commit, part: write.part }
      this.#segments.push({ ref, write, bytes: Buffer.from(write.bytes), settled: new Uint8Array(write.count) })
    }
    for (const { ref, settled, isComplete } of marks) {
      const isMarked = (segment: { ref: SegmentRef }) =>
        segment.ref.commit === ref.commit && segment.ref.part === ref.part
      if (isComplete) this.#segments = this.#segments.filter(segment => !isMarked(segment))
      for (const segment of this.#segments.filter(isMarked)) segment.settled = settled
    }
  }

  readonly seekPosition = (): Promise<null> => Promise.resolve(null)

  readonly segments = async (_: number, after: SegmentRef | null, maxBytes: number): Promise<LoadedSegment[]> => {
    const found: LoadedSegment[] = []
    let left = maxBytes
    for (const { ref, write, bytes, settled } of this.#segments) {
      if (this.lost.has(ref.commit) || (after !== null && !isAfter(ref, after))) continue
      left -= bytes.length
      if (left < 0 && found.length > 0) break
      const { first, count, notes } = write
      const offsets = Uint32Array.from(write.offsets.subarray(0, count))
      let damaged = 0
      for (let i = 0; i < count; i++) {
        const isDamaged = this.damaged.has(first + i)
        if (isDamaged || hasBit(settled, i)) offsets[i] = ABSENT
        if (isDamaged) damaged++
      }
      const damagedBytes = damaged * recordLength(PREFIX, 0, 0, BODY.length)
      found.push({
        ref,
        first,
        count,
        bytes: Buffer.from(bytes),
        used: bytes.length,
        offsets,
        notes,
        damaged,
        damagedBytes,
      })
    }
    await this.delay
    return found
  }
}

const BODY = Buffer.alloc(3000)

/** More than half in use, whatever the lane takes, and never all. */
function tightMemory(): MemoryBudget {
  const memory = new MemoryBudget(1024 ** 3)
  memory.take(1024 ** 3 / 2)
  return memory
}

class LaneUnderTest {
  readonly disk: Disk
  readonly lane: Lane
  lost = 0
  #commits = 0

  constructor(memory: MemoryBudget, stored: StoredLane | null = null, disk = new Disk()) {
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
      memory,
      durability: { number: 1, tickets: new Tickets(), store: disk },
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

  /** `meanwhile` is when it is on disk and the lane has not been told. */
  commit(meanwhile = (): void => undefined): void {
    const commit: Commit = { segments: [], marks: [], changes: [], acceptedBytes: 0 }
    this.#commits++
    this.lane.prepareCommit(Number.POSITIVE_INFINITY, commit, this.#commits)
    this.disk.keep(this.#commits, commit)
    meanwhile()
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
    const before = new LaneUnderTest(new MemoryBudget(64 * 1024 ** 2))
    before.fill(3)
    before.disk.damaged.add(1)
    const { lane, lost } = await readBack(before.disk, new Map([[1, waitingMs(1000)]]))
    expect([lost, lane.ready, lane.live, lane.waiting()]).toEqual([1, 2, 2, []])
    lane.wake(1)
    expect(lane.ready).toBe(2)
  })

  it('without a trace is lost with the others', async () => {
    const before = new LaneUnderTest(new MemoryBudget(64 * 1024 ** 2))
    before.fill(3)
    for (const commit of [1, 2, 3]) before.disk.lost.add(commit)
    const { lane, lost } = await readBack(before.disk, new Map([[1, waitingMs(1000)]]))
    expect([lost, lane.ready, lane.live, lane.bytes, lane.waiting()]).toEqual([3, 0, 0, 0, []])
  })

  it('while its segment is aside is lost when it is due, and those that still wait there with it', async () => {
    const test = new LaneUnderTest(tightMemory())
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

describe('a part of the disk that is read', () => {
  it('does not bring back what was moved away and left memory while it was being read', async () => {
    const test = new LaneUnderTest(tightMemory())
    const { lane, disk } = test
    test.fill(60)
    test.append(2)
    const { promise, resolve } = Promise.withResolvers<void>()
    disk.delay = promise
    const underWay: Promise<unknown>[] = []
    test.commit(() => {
      underWay.push(lane.readMore())
      underWay.push(lane.sift(60, (_bytes, _at, position) => (position === 60 ? 'moved' : 'stop')))
    })
    test.commit()
    resolve()
    await Promise.all(underWay)
    const delivered = await drained(test)
    expect(delivered).toEqual([...Array.from({ length: 60 }, (_, position) => position), 61])
    expect([test.lost, lane.ready, lane.bytes]).toEqual([0, 0, 0])
  })

  it('does not bring back what was taken out whole, while what lies around it left memory', async () => {
    const test = new LaneUnderTest(tightMemory())
    const { lane } = test
    test.fill(60)
    // Three segments of one commit.
    test.append(200)
    const inSecond = (position: number) => position >= 160 && position < 220
    test.commit(() => {
      const second = lane.segmentOf(160)
      lane.eachReady(second?.first ?? 0, (segment, index) => {
        if (segment === second) lane.end(segment, index)
        return segment === second
      })
      expect([second?.live, lane.segmentOf(220) === second]).toEqual([0, true])
    })
    const delivered = await drained(test)
    expect(delivered.filter(inSecond)).toEqual([])
    expect(delivered.length).toBeGreaterThan(100)
    expect([test.lost, lane.ready, lane.live, lane.bytes]).toEqual([0, 0, 0, 0])
  })

  it('is not called unreadable when another part leaves memory meanwhile', async () => {
    const test = new LaneUnderTest(tightMemory())
    const { lane } = test
    test.fill(60)
    await test.letAllWait(60)
    lane.wake(0)
    const reading = lane.readMore()
    test.append(1)
    const newest = lane.nextReady()
    if (newest !== null) lane.wait(newest, lane.handOut(newest, 1), 1000)
    test.commit()
    expect(await reading).toBe('read')
  })
})

describe('a lane of which the index has lost every segment', () => {
  it('has lost its messages, instead of offering for ever what cannot be read', () => {
    const stored = { messages: 3, bytes: 9000, nextPosition: 3, delivered: 0, last: null, tried: new Map() }
    const { lane, lost } = new LaneUnderTest(new MemoryBudget(64 * 1024 ** 2), stored)
    expect([lost, lane.ready, lane.live, lane.bytes, lane.nextPosition]).toEqual([3, 0, 0, 0, 3])
  })
})

describe('a message that waits beside one that is sifted out', () => {
  it('is delivered when it is due, though its part of the disk is read before the commit that tells of the sift', async () => {
    const before = new LaneUnderTest(new MemoryBudget(64 * 1024 ** 2))
    before.append(2)
    before.commit()
    const { lane } = restartedOn(before.disk, 2, new Map([[1, waitingMs(1000)]]))
    await lane.sift(0, () => 'moved')
    lane.wake(1)
    expect(await lane.readMore()).toBe('read')
    expect([lane.ready, lane.nextReady()?.first, lane.entry]).toEqual([1, 0, 1])
  })
})

/** Positions of all that is left, handed out and ended. */
async function drained({ lane }: LaneUnderTest): Promise<number[]> {
  const delivered: number[] = []
  await eventually(
    () => {
      for (let segment = lane.nextReady(); segment !== null; segment = lane.nextReady()) {
        const index = lane.handOut(segment, 1)
        delivered.push(segment.first + index)
        lane.end(segment, index)
      }
      return lane.live === 0
    },
    { what: 'all that is left' },
  )
  return delivered
}

/** The lane as a restart finds it, nothing read yet. */
function restartedOn(disk: Disk, messages: number, tried: Map<number, Tried>): LaneUnderTest {
  const bytes = messages * recordLength(PREFIX, 0, 0, BODY.length)
  const last = { commit: disk.lastCommit, part: 0 }
  const stored = { messages, bytes, nextPosition: messages, delivered: 0, last, tried }
  return new LaneUnderTest(new MemoryBudget(64 * 1024 ** 2), stored, disk)
}

/** The lane as a restart finds it, all read. */
async function readBack(disk: Disk, tried: Map<number, Tried>): Promise<{ lane: Lane; lost: number }> {
  const test = restartedOn(disk, 3, tried)
  while ((await test.lane.readMore()) === 'read');
  return { lane: test.lane, lost: test.lost }
}
