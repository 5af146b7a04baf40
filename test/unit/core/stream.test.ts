import { cp, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { systemClock } from '../../../src/core/clock.ts'
import type { Stream } from '../../../src/core/stream.ts'
import { historyOf } from '../../../src/model/death-history.ts'
import { afterRead } from '../../support/after-read.ts'
import { Collector } from '../../support/collector.ts'
import { eventually, eventuallyPasses } from '../../support/eventually.ts'
import { FaultyDisk } from '../../support/faulty-level.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { StreamCollector } from '../../support/stream-collector.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const KEPT = { ageMs: 86_400_000, bytes: 4 * 1024 ** 3 }
const FILLING = '.'.repeat(2000)
const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)
const payloads = (from: number, to: number): string[] => numbers(from, to).map(n => `${n}:${FILLING}`)

/** Messages numbered from `from` on, in commits of a hundred: three thousand of them are six times the window kept in memory. */
async function publish({ router }: CoreUnderTest, from: number, to: number): Promise<void> {
  for (let at = from; at < to; at += 100) {
    await Promise.all(payloads(at, Math.min(to, at + 100)).map(text => router.publish(messageTo('a', text))))
  }
}

const caughtUp = (reader: StreamCollector, count: number): Promise<void> =>
  eventuallyPasses(() => {
    reader.settleAll()
    expect(reader.payloads).toHaveLength(count)
  })

/** A clock whose monotonic side a test turns forward. */
function turnedClock(): { monotonicMs: () => number; wallMs: () => number; forward: (ms: number) => void } {
  let ahead = 0
  return {
    monotonicMs: () => systemClock.monotonicMs() + ahead,
    wallMs: () => systemClock.wallMs() + ahead,
    forward: ms => {
      ahead += ms
    },
  }
}

/** Flips bits of records in the tables and write-ahead files of log/, while the store is closed. */
async function damageLog(directory: string): Promise<void> {
  const log = join(directory, 'store', 'log')
  for (const file of await readdir(log)) {
    if (!/\.(log|ldb)$/.test(file)) continue
    const bytes = await readFile(join(log, file))
    for (let at = 40_000; at < bytes.length; at += 297_001) bytes[at] = (bytes[at] ?? 0) ^ 0xff
    await writeFile(join(log, file), bytes)
  }
}

const kept = (stream: Stream): readonly [number, number] => [stream.first, stream.next]

describe('reading a stream', () => {
  test('gives every reader all messages in order, those on disk and those to come, and changes nothing', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    await publish(core, 0, 2000)
    const readers = [1, 7, 100, 10_000].map(
      credit => new StreamCollector(stream, `by ${credit}`, 'first', credit, true),
    )
    await publish(core, 2000, 2500)
    for (const reader of readers) {
      await caughtUp(reader, 2500)
      expect(reader.payloads).toEqual(payloads(0, 2500))
      expect(reader.positions).toEqual(numbers(0, 2500))
    }
    expect(stream.ledger.figures()).toMatchObject({ accepted: 2500, queued: 2500, settled: 0, in_flight: 0 })
  })

  test('begins at first, last, next, a sequence number or a time', async () => {
    await using directory = await tempDir()
    const clock = turnedClock()
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const stream = await core.stream('history', '#')
    await publish(core, 0, 1000)
    clock.forward(3_600_000)
    const later = clock.wallMs() - 60_000
    await publish(core, 1000, 2000)
    const beginnings = [
      ['first', 0],
      ['last', 1999],
      ['next', 2000],
      [{ sequence: 0 }, 0],
      [{ sequence: 777 }, 777],
      [{ sequence: 5000 }, 2000],
      [{ timeMs: 0 }, 0],
      [{ timeMs: later }, 1000],
      [{ timeMs: clock.wallMs() + 1_000_000 }, 2000],
    ] as const
    for (const [from, first] of beginnings) {
      const reader = new StreamCollector(stream, null, from)
      await eventually(() => reader.reader.cursor !== null)
      if (first === 2000) await publish(core, stream.next, stream.next + 1)
      const begin = first === 2000 ? stream.next - 1 : first
      await eventuallyPasses(() => expect(reader.positions[0]).toBe(begin))
      reader.reader.close()
    }
  })

  test('by a reader that keeps up takes nothing from disk', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    const reader = new StreamCollector(stream, 'tail', 'next', 100, true)
    let brought = 0
    const bring = stream.bring.bind(stream)
    stream.bring = position => {
      brought++
      return bring(position)
    }
    for (let from = 0; from < 3000; from += 100) {
      await publish(core, from, from + 100)
      await caughtUp(reader, from + 100)
    }
    expect(brought).toBe(0)
    expect(core.memory.usedBytes).toBeLessThan(3 * 1024 ** 2)
  })

  test('by readers that do not read on holds no memory, and holds nobody up', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    await publish(core, 0, 3000)
    const slow = numbers(0, 60).map(n => new StreamCollector(stream, null, { sequence: n * 40 }, 1))
    for (const [n, reader] of slow.entries())
      await eventuallyPasses(() => expect(reader.payloads).toEqual(payloads(n * 40, n * 40 + 1)))
    expect(core.memory.usedBytes).toBeLessThan(4 * 1024 ** 2)
    const quick = new StreamCollector(stream, null, 'first')
    await caughtUp(quick, 3000)
    for (const reader of slow) reader.reader.close()
    quick.reader.close()
    expect(core.memory.usedBytes).toBeLessThan(2 * 1024 ** 2)
  })

  test('gives nothing after it was closed, and settling then changes nothing', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    await publish(core, 0, 10)
    const reader = new StreamCollector(stream, 'r', 'first', 3)
    reader.settle()
    reader.reader.close()
    reader.settleAll()
    await publish(core, 10, 20)
    expect(reader.positions).toEqual([0, 1, 2, 3])
    expect(stream.cursors.get('r')).toBe(1)
    expect(stream.readerCount).toBe(0)
  })
})

describe('a page that turns out to hold nothing', () => {
  test('leads on to what was in memory when it was read, not to what is there by then', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.stream('history', '#', { ...KEPT, bytes: 1 })
      await publish(core, 0, 10)
      await eventuallyPasses(() => expect(kept(stream)).toEqual([10, 10]))
    }
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#', KEPT)
    afterRead(core.store, 1, () => publish(core, 10, 1010))
    expect(await stream.bring(0)).toBe(10)
    expect(stream.find(10)).toBeNull()
  })
})

describe('a year of telemetry', () => {
  const HOURS_APART = 9
  const COMMITS = 974

  test('is read from any time after a look at a few of its segments', async () => {
    await using directory = await tempDir()
    const clock = turnedClock()
    const disk = new FaultyDisk()
    await using core = await CoreUnderTest.open(directory.path, { clock, disk: disk.create })
    const stream = await core.stream('history', '#', { ageMs: 400 * 86_400_000, bytes: KEPT.bytes })
    const begin = clock.wallMs()
    for (let n = 0; n < COMMITS; n++) {
      await core.router.publish(messageTo('a', `${n}:${FILLING}`))
      clock.forward(HOURS_APART * 3_600_000)
    }
    let read = 0
    disk.beforeRead = async values => {
      read += values
    }
    for (const n of [0, 1, 100, 500, COMMITS - 500, COMMITS - 1]) {
      read = 0
      const timeMs = begin + (n - 0.5) * HOURS_APART * 3_600_000
      expect(await stream.placeOf({ timeMs })).toBe(n)
      expect(read).toBeLessThan(2 * Math.log2(COMMITS) + 2)
    }
    const from = await stream.placeOf({ timeMs: begin + 799.5 * HOURS_APART * 3_600_000 })
    const reader = new StreamCollector(stream, null, { sequence: from })
    await eventuallyPasses(() => expect(reader.payloads).toEqual(payloads(800, COMMITS)))
  })
})

describe('a damaged segment', () => {
  test('is left out by every reader, counted once, and forgotten like the others', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.stream('history', '#', KEPT)
      await publish(core, 0, 1000)
    }
    await damageLog(directory.path)
    let lost = 0
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.stream('history', '#', KEPT)
      const readers = [1, 50].map(credit => new StreamCollector(stream, null, 'first', credit, true))
      await eventuallyPasses(() => {
        for (const reader of readers) expect(reader.reader.cursor).toBe(1000)
      })
      const [one, other] = readers
      expect(one?.payloads).toEqual(other?.payloads)
      expect(one?.payloads).toEqual(one?.positions.map(n => `${n}:${FILLING}`))
      lost = 1000 - (one?.positions.length ?? 0)
      expect(lost).toBeGreaterThan(0)
      expect(lost).toBeLessThan(1000)
      expect(stream.ledger.figures()).toMatchObject({
        accepted: 1000,
        queued: 1000 - lost,
        dropped: { damage: lost },
      })
    }
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#', { ...KEPT, bytes: 1 })
    const reader = new StreamCollector(stream, null, 'first', 50, true)
    await eventuallyPasses(() => expect(reader.reader.cursor).toBe(1000))
    expect(stream.ledger.figures()).toMatchObject({ dropped: { damage: lost } })
    await eventuallyPasses(() => {
      stream.retain()
      expect(stream.ledger.figures()).toMatchObject({ queued: 0, expired: 1000 - lost, dropped: { damage: lost } })
    })
    expect(stream.bytes).toBe(0)
  })
})

describe('a replay', () => {
  test('sends a range into an exchange: copies with their ids and a note of it; the stream keeps its own', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    await publish(core, 0, 1500)
    const queue = await core.queue('again', 'nothing')
    const to = { exchange: '', key: 'again' }
    expect(await core.streams.replay('history', { from: 100, end: 1300, limit: 1000, to })).toEqual({
      replayed: 1000,
      unrouted: 0,
      next: 1100,
      isHeld: false,
    })
    expect(await core.streams.replay('history', { from: 1100, end: 1300, limit: 1000, to })).toMatchObject({
      replayed: 200,
      next: 1300,
    })
    expect(stream.ledger.figures()).toMatchObject({ accepted: 1500, queued: 1500 })
    const ids: string[] = []
    await stream.visit(100, (bytes, at) => ids.push(core.identities.messageId(bytes, at)) < 1200)
    const found: string[] = []
    await queue.peek(2000, (bytes, at) => {
      found.push(core.identities.messageId(bytes, at))
      expect(historyOf(bytes, at)?.entries).toMatchObject([{ event: 'replayed', queue: 'history', key: 'again' }])
    })
    expect(found).toEqual(ids)
  })

  test('of a stream into itself ends, and leaves reading by time in order', async () => {
    await using directory = await tempDir()
    const clock = turnedClock()
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const stream = await core.stream('history', '#', { ageMs: 3_600_000, bytes: KEPT.bytes })
    await publish(core, 0, 700)
    clock.forward(3_000_000)
    const before = clock.wallMs() - 1000
    const to = { exchange: 'mqtt', key: null }
    const done = await core.streams.replay('history', { from: 0, end: stream.next, limit: 10_000, to })
    expect(done).toMatchObject({ replayed: 700, next: 700 })
    await publish(core, 700, 800)
    expect(await stream.placeOf({ timeMs: before })).toBe(700)
    // What was replayed is as old as its replay.
    clock.forward(1_000_000)
    await eventuallyPasses(() => {
      stream.retain()
      expect(kept(stream)).toEqual([700, 1500])
    })
  })

  test('stops where nobody can take messages, and says where to go on', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    await core.stream('history', '#')
    await publish(core, 0, 100)
    await core.queue('narrow', 'nothing', { ...WIDE_LIMITS, messages: 30 })
    const range = { from: 0, end: 100, limit: 1000 }
    expect(await core.streams.replay('history', { ...range, to: { exchange: '', key: 'narrow' } })).toEqual({
      replayed: 30,
      unrouted: 0,
      next: 30,
      isHeld: true,
    })
    expect(await core.streams.replay('history', { ...range, to: { exchange: 'amq.fanout', key: null } })).toEqual({
      replayed: 0,
      unrouted: 100,
      next: 100,
      isHeld: false,
    })
    expect(await core.streams.replay('history', { ...range, to: { exchange: 'missing', key: null } })).toEqual({
      replayed: 0,
      unrouted: 0,
      next: 0,
      isHeld: true,
    })
  })
})

describe('deleting a stream', () => {
  test('takes its messages, cursors and bindings with it, and its name is free', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.streams.declare({ name: 'history', origin: 'api', retention: KEPT, ack: 'fsync' })
      const destination = { kind: 'queue', name: 'history' } as const
      await core.declarations.bind({ source: 'mqtt', destination, key: 'a/#', headers: null }, 'api')
      await publish(core, 0, 500)
      const reader = new StreamCollector(stream, 'r', 'first', 10, true)
      await eventuallyPasses(() => expect(reader.reader.cursor).toBe(500))
      await expect(core.declarations.deleteStream('history')).rejects.toMatchObject({ code: 'QUEUE_IN_USE' })
      reader.reader.close()
      await core.declarations.deleteStream('history')
      expect([...core.declarations.bindings()]).toEqual([])
      await expect(core.declarations.deleteStream('history')).rejects.toMatchObject({ code: 'STREAM_NOT_FOUND' })
      await core.queue('history', 'b/#')
    }
    await using core = await CoreUnderTest.open(directory.path)
    expect([...core.streams.all()]).toEqual([])
    expect(core.topology.queue('history').depth).toBe(0)
    expect(await core.store.segmentInfos(1, null, 1)).toEqual([])
  })

  test('takes with it what was published at QoS 0 just before, and leaves no segment without a stream', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.streams.declare({ name: 'history', origin: 'api', retention: KEPT, ack: 'fsync' })
      core.router.bind('mqtt', { pattern: 'a', destination: { live: null, queue: stream }, maxQos: 2, note: 0 })
      const attended = await core.queue('attended', 'b')
      attended.attach(new Collector(attended))
      // Its commit may wait for the consumer, and that of what comes behind it too.
      const waiting = core.router.publish(messageTo('b', 'waits'))
      await core.router.publish(messageTo('a', 'just before', { qos: 0 }))
      const deleted = core.streams.delete('history')
      await core.schedule.flush()
      core.schedule.due(Number.MAX_SAFE_INTEGER)
      await Promise.all([deleted, waiting])
      expect(stream.depth).toBe(0)
    }
    await using core = await CoreUnderTest.open(directory.path)
    expect(await core.store.segmentInfos(1, null, 1)).toEqual([])
  })

  test('of the configuration is refused until the configuration does not name it', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.stream('history', '#')
      await publish(core, 0, 100)
      await expect(core.declarations.deleteStream('history')).rejects.toMatchObject({ code: 'QUEUE_IN_USE' })
    }
    await using core = await CoreUnderTest.open(directory.path)
    expect(core.streams.isOrphan('history')).toBe(true)
    expect(core.streams.stream('history').depth).toBe(100)
    await core.declarations.deleteStream('history')
    expect(() => core.streams.stream('history')).toThrow(expect.objectContaining({ code: 'STREAM_NOT_FOUND' }))
  })
})

describe('a cursor', () => {
  test('lets a reader go on where it had settled all before, also after a restart', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.stream('history', '#')
      await publish(core, 0, 300)
      const reader = new StreamCollector(stream, 'r', 'first', 200)
      // 0 to 9 and 11 are settled, 10 is not.
      for (let n = 0; n < 10; n++) reader.settle()
      reader.settle(1)
      expect(reader.reader.cursor).toBe(10)
      reader.reader.close()
      const again = new StreamCollector(stream, 'r', 'first', 1)
      expect(again.positions).toEqual([10])
    }
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    const reader = new StreamCollector(stream, 'r', 'next', 1)
    await eventuallyPasses(() => expect(reader.positions).toEqual([10]))
    reader.settle()
    await eventuallyPasses(() => expect(reader.positions).toEqual([10, 11]))
  })

  test('is kept for a reader that was there and settled nothing', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.stream('history', '#')
      await publish(core, 0, 50)
      new StreamCollector(stream, 'r', 'next')
    }
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    await publish(core, 50, 60)
    const reader = new StreamCollector(stream, 'r', 'first')
    await eventuallyPasses(() => expect(reader.positions).toEqual(numbers(50, 60)))
  })

  test('of a reader that was there when the stream was empty stays before what comes first, also after a restart', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      new StreamCollector(await core.stream('history', '#'), 'r', 'next').reader.close()
      await publish(core, 0, 5)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const reader = new StreamCollector(await core.stream('history', '#'), 'r', 'next')
    await eventuallyPasses(() => expect(reader.positions).toEqual(numbers(0, 5)))
  })

  test('is not made by a reader that was closed before its place was found', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.stream('history', '#')
      await publish(core, 0, 50)
      const { reader } = new StreamCollector(stream, 'r', { timeMs: systemClock.wallMs() + 3_600_000 })
      reader.close()
      await stream.forget('r')
      expect(await stream.placeOf({ timeMs: systemClock.wallMs() + 3_600_000 })).toBe(50)
      await core.schedule.flush()
      expect(stream.cursors.size).toBe(0)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const reader = new StreamCollector(await core.stream('history', '#'), 'r', 'first')
    await eventuallyPasses(() => expect(reader.positions).toEqual(numbers(0, 50)))
  })

  test('is gone when it is forgotten, for good', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.stream('history', '#')
      await publish(core, 0, 50)
      const reader = new StreamCollector(stream, 'r', 'first')
      reader.settleAll()
      reader.reader.close()
      await stream.forget('r')
      await stream.forget('nobody')
      expect(stream.cursors.size).toBe(0)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#')
    const reader = new StreamCollector(stream, 'r', 'last')
    expect(reader.positions).toEqual([])
    await eventuallyPasses(() => expect(reader.positions).toEqual([49]))
  })
})

describe('retention', () => {
  test('by bytes keeps the newest, in whole segments, and the ledger tells what went', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const stream = await core.stream('history', '#', { ...KEPT, bytes: 1024 ** 2 })
      await publish(core, 0, 3000)
      await eventuallyPasses(() => expect(stream.bytes).toBeLessThanOrEqual(1024 ** 2))
      expect(stream.bytes).toBeGreaterThan(700_000)
      expect(stream.first).toBeGreaterThan(2000)
      expect(stream.ledger.figures()).toMatchObject({
        accepted: 3000,
        expired: stream.first,
        queued: 3000 - stream.first,
      })
      expect(stream.ledger.imbalance).toBe(0)
    }
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#', KEPT)
    const reader = new StreamCollector(stream, null, 'first')
    await eventuallyPasses(() => expect(reader.payloads).toEqual(payloads(stream.first, 3000)))
    expect(stream.ledger.imbalance).toBe(0)
    expect(core.store.isDamaged).toBe(false)
  })

  test('by bytes goes on with what came while ages were looked at', async () => {
    await using directory = await tempDir()
    const disk = new FaultyDisk()
    await using core = await CoreUnderTest.open(directory.path, { disk: disk.create })
    const stream = await core.stream('history', '#', { ...KEPT, bytes: 1024 ** 2 })
    await publish(core, 0, 100)
    const reading = Promise.withResolvers<void>()
    const released = Promise.withResolvers<void>()
    disk.beforeRead = () => {
      reading.resolve()
      return released.promise
    }
    stream.retain()
    await reading.promise
    await publish(core, 100, 1000)
    expect(stream.bytes).toBeGreaterThan(1024 ** 2)
    released.resolve()
    await eventuallyPasses(() => expect(stream.bytes).toBeLessThanOrEqual(1024 ** 2))
  })

  test('by age forgets what is over it and nothing else, without reading it', async () => {
    await using directory = await tempDir()
    const clock = turnedClock()
    await using core = await CoreUnderTest.open(directory.path, { clock })
    const stream = await core.stream('history', '#', { ageMs: 3_600_000, bytes: KEPT.bytes })
    await publish(core, 0, 1000)
    clock.forward(1_800_000)
    await publish(core, 1000, 2000)
    stream.retain()
    clock.forward(1_790_000)
    stream.retain()
    await core.schedule.flush()
    expect(kept(stream)).toEqual([0, 2000])
    clock.forward(60_000)
    await eventuallyPasses(() => {
      stream.retain()
      expect(kept(stream)).toEqual([1000, 2000])
    })
    expect(stream.ledger.figures()).toMatchObject({ expired: 1000, queued: 1000 })
    clock.forward(3_600_000)
    await eventuallyPasses(() => {
      stream.retain()
      expect(kept(stream)).toEqual([2000, 2000])
    })
    await publish(core, 2000, 2010)
    const reader = new StreamCollector(stream, null, 'first')
    expect(reader.positions).toEqual(numbers(2000, 2010))
    expect(stream.bytes).toBeGreaterThan(20_000)
    expect(stream.ledger.imbalance).toBe(0)
  })

  test('goes on in front of a reader, who continues at the first message kept and is told how many it missed', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#', { ...KEPT, bytes: 2 * 1024 ** 2 })
    await publish(core, 0, 500)
    const reader = new StreamCollector(stream, 'slow', 'first', 10)
    await eventuallyPasses(() => expect(reader.positions).toEqual(numbers(0, 10)))
    await publish(core, 500, 4000)
    await eventuallyPasses(() => expect(stream.bytes).toBeLessThanOrEqual(2 * 1024 ** 2))
    const { first } = stream
    expect(first).toBeGreaterThan(1000)
    reader.isSettling = true
    reader.settleAll()
    await eventuallyPasses(() => expect(reader.positions.at(-1)).toBe(3999))
    expect(reader.positions).toEqual([...numbers(0, 10), ...numbers(first, 4000)])
    expect(reader.reader.missed).toBe(first - 10)
    reader.reader.close()
    expect(stream.missed).toBe(first - 10)
  })

  test('may be changed while running', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    const stream = await core.stream('history', '#', KEPT)
    await publish(core, 0, 2000)
    await core.stream('history', 'x', { ...KEPT, bytes: 1024 ** 2 })
    await eventuallyPasses(() => {
      stream.retain()
      expect(stream.bytes).toBeLessThanOrEqual(1024 ** 2)
    })
    expect(stream.first).toBeGreaterThan(1000)
  })
})

describe('admission to a stream', () => {
  test('is never refused for its size, and waits for the disk like any other', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    await core.stream('history', '#', { ...KEPT, bytes: 1 })
    core.gate.holdCommits()
    let isAcknowledged = false
    const publishing = core.router.publish(messageTo('a', 'x')).then(() => {
      isAcknowledged = true
    })
    await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
    expect(isAcknowledged).toBe(false)
    core.gate.releaseCommits()
    await publishing
  })
})

describe('ack: buffered', () => {
  test('acknowledges before the disk has the message, and what that can have cost is known afterwards', async () => {
    await using directory = await tempDir()
    const live = join(directory.path, 'live')
    const image = join(directory.path, 'image')
    {
      await using core = await CoreUnderTest.open(live)
      const stream = await core.stream('history', '#', KEPT, 'buffered')
      // The first ones wait for the disk, whose commit says how much may be owed from then on.
      await publish(core, 0, 20)
      await core.gate.stillness()
      await publish(core, 20, 30)
      expect(stream.depth).toBe(30)
      await cp(live, image, { recursive: true })
      core.gate.releaseCommits()
    }
    {
      await using after = await CoreUnderTest.open(image)
      const stream = await after.stream('history', '#', KEPT, 'buffered')
      expect(stream.depth).toBe(20)
      expect(stream.lostAtMost).toBeGreaterThanOrEqual(10)
      expect(stream.lostAtMost).toBeLessThan(200)
      expect(stream.ledger.imbalance).toBe(0)
    }
    await using orderly = await CoreUnderTest.open(live)
    const stream = await orderly.stream('history', '#', KEPT, 'buffered')
    expect([stream.depth, stream.lostAtMost]).toEqual([30, 0])
  })
})

describe('declaring a stream', () => {
  test('under the name of a queue is refused, and the other way round', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path)
    await core.queue('jobs', 'jobs/#')
    await core.stream('history', '#')
    await expect(core.stream('jobs', '#')).rejects.toMatchObject({ code: 'DECLARATION_MISMATCH' })
    await expect(core.queue('history', '#')).rejects.toMatchObject({ code: 'DECLARATION_MISMATCH' })
  })
})
