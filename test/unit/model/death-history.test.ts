import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  appendEvent,
  type DeathHistory,
  decodeHistory,
  encodeHistory,
  type HistoryEntry,
  type HistoryEvent,
  isCycle,
} from '../../../src/model/death-history.ts'
import {
  decodeRecord,
  encodeRecord,
  movedRecord,
  PropertiesTag,
  recordHistory,
  recordTopic,
} from '../../../src/model/message.ts'
import { messageTo } from '../../support/messages.ts'

type Happened = Omit<HistoryEntry, 'count' | 'at'>

const happened = (event: HistoryEvent, queue: string, changes: Partial<Happened> = {}): Happened => ({
  event,
  queue,
  exchange: 'events',
  key: 'a.b',
  originalExpirationMs: null,
  words: null,
  ...changes,
})

/** One event a second, from the first on. */
function lived(...events: readonly Happened[]): DeathHistory {
  let history: DeathHistory | null = null
  for (const [second, event] of events.entries()) {
    history = appendEvent(history, event, { boot: 1, ms: second * 1000 })
  }
  if (history === null) throw new Error('a life needs an event')
  return history
}

const summary = ({ entries }: DeathHistory): string[] =>
  entries.map(({ event, queue, count }) => `${event} in ${queue} x${count}`)

const anyHappened: fc.Arbitrary<Happened> = fc.record({
  event: fc.constantFrom<HistoryEvent>('rejected', 'expired', 'maxlen', 'delivery_limit', 'replayed'),
  queue: fc.oneof(fc.constantFrom('a', 'b', 'c'), fc.string({ unit: 'binary', minLength: 1, maxLength: 60 })),
  exchange: fc.constantFrom('', 'mqtt', 'größe'),
  key: fc.oneof(fc.string({ unit: 'binary', maxLength: 80 }), fc.constant('k'.repeat(65_535))),
  originalExpirationMs: fc.option(fc.nat({ max: 2 ** 40 })),
  words: fc.option(fc.string({ unit: 'binary', maxLength: 300 })),
})

describe('the history of a message', () => {
  it('counts what happens again, moves it to the front, and keeps the first time (RabbitMQ, x-death)', () => {
    const history = lived(
      happened('expired', 'jobs', { originalExpirationMs: 500 }),
      happened('rejected', 'retry'),
      happened('expired', 'jobs', { exchange: 'elsewhere', key: 'other' }),
    )
    expect(summary(history)).toEqual(['expired in jobs x2', 'rejected in retry x1'])
    expect(history.entries[0]).toMatchObject({
      exchange: 'events',
      key: 'a.b',
      at: { boot: 1, ms: 0 },
      originalExpirationMs: 500,
    })
    expect(history.movedAt.ms).toBe(2000)
  })

  it('keeps what was said last, whole characters of at most 512 bytes', () => {
    const history = lived(
      happened('delivery_limit', 'jobs', { words: '404 NOT_FOUND' }),
      happened('delivery_limit', 'jobs', { words: `x${'ö'.repeat(400)}` }),
    )
    expect(history.entries).toHaveLength(1)
    expect(history.entries[0]?.words).toBe(`x${'ö'.repeat(255)}`)
    expect(decodeHistory(encodeHistory(history))).toEqual(history)
  })

  it('tells reasons apart: the same queue with another reason is another entry', () => {
    expect(summary(lived(happened('maxlen', 'jobs'), happened('expired', 'jobs')))).toEqual([
      'expired in jobs x1',
      'maxlen in jobs x1',
    ])
  })

  it('remembers the first death whatever comes after it, and takes no replay for one', () => {
    expect(lived(happened('replayed', 'jobs')).firstDeath).toBeNull()
    const history = lived(
      happened('replayed', 'jobs'),
      happened('maxlen', 'jobs'),
      happened('expired', 'retry'),
      happened('maxlen', 'jobs'),
      ...Array.from({ length: 40 }, (_, i) => happened('expired', `hop-${i}`)),
    )
    expect(history.firstDeath).toMatchObject({ event: 'maxlen', queue: 'jobs', count: 2 })
    expect(history.entries).toHaveLength(16)
    expect(summary(history)[0]).toBe('expired in hop-39 x1')
    expect(history.entries).toContain(history.firstDeath)
  })

  it('keeps replays to different places apart', () => {
    const history = lived(
      happened('replayed', 'dead', { key: 'here' }),
      happened('replayed', 'dead', { key: 'there' }),
      happened('replayed', 'dead', { key: 'here' }),
    )
    expect(history.entries.map(({ key, count }) => [key, count])).toEqual([
      ['here', 2],
      ['there', 1],
    ])
  })

  it('comes back from its bytes as it was, within its limits, whatever happened', () => {
    fc.assert(
      fc.property(fc.array(anyHappened, { minLength: 1, maxLength: 40 }), events => {
        const history = lived(...events)
        const bytes = encodeHistory(history)
        expect(decodeHistory(bytes)).toEqual(history)
        expect(history.entries.length).toBeLessThanOrEqual(16)
        const alone = history.entries.every(
          (entry, i) => i === 0 || entry === history.firstDeath || bytes.length <= 32 * 1024,
        )
        expect(alone).toBe(true)
      }),
      { numRuns: 60 },
    )
  })

  it('is read as nothing, and never throws, where its bytes are damaged', () => {
    const bytes = encodeHistory(
      lived(happened('expired', 'jobs', { originalExpirationMs: 5 }), happened('maxlen', 'b')),
    )
    for (let length = 0; length < bytes.length; length++) expect(decodeHistory(bytes.subarray(0, length))).toBeNull()
    expect(decodeHistory(Buffer.concat([bytes, Buffer.from([0])]))).toBeNull()
    fc.assert(
      fc.property(fc.nat({ max: bytes.length - 1 }), fc.nat({ max: 255 }), (at, value) => {
        const damaged = Buffer.from(bytes)
        damaged[at] = value
        const read = decodeHistory(damaged)
        if (read !== null) expect(encodeHistory(read)).toEqual(damaged)
      }),
    )
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), noise => {
        decodeHistory(Buffer.from(noise))
      }),
    )
  })
})

describe('a cycle', () => {
  it.each<[string, readonly Happened[], string, boolean]>([
    ['a first death elsewhere is none', [happened('expired', 'a')], 'b', false],
    ['back to where it just died', [happened('expired', 'a')], 'a', true],
    ['back by way of another queue', [happened('maxlen', 'a'), happened('expired', 'b')], 'a', true],
    ['back after a rejection on the way', [happened('expired', 'a'), happened('rejected', 'b')], 'a', false],
    [
      'a rejection before the cycle began does not help',
      [happened('rejected', 'x'), happened('expired', 'a')],
      'a',
      true,
    ],
    ['rejected right there', [happened('rejected', 'a')], 'a', false],
    ['a delivery limit is nobody’s will', [happened('delivery_limit', 'a')], 'a', true],
    [
      'an operator put it back in between',
      [happened('expired', 'a'), happened('replayed', 'dead'), happened('expired', 'b')],
      'a',
      false,
    ],
    ['a replay is no death in its queue', [happened('replayed', 'a'), happened('expired', 'b')], 'a', false],
  ])('%s', (_name, events, queue, expected) => {
    expect(isCycle(lived(...events), queue)).toBe(expected)
  })
})

describe('a record that moves', () => {
  const message = messageTo('sensors/7/größe', 'payload', {
    expiryMs: 60_000,
    priority: 7,
    user: 'peter',
    retain: true,
    propertiesTag: PropertiesTag.mqtt5,
    properties: Buffer.from([1, 1]),
  })
  const accepted = { seq: 2 ** 40 + 3, boot: 77, acceptedAt: 123_456, clock: 2 } as const
  const history = encodeHistory(lived(happened('expired', 'jobs')))

  it('keeps its id, its names and its contents under another address, with a history and without expiry', () => {
    const record = Buffer.concat([Buffer.alloc(5), encodeRecord(message, accepted), Buffer.alloc(9)])
    const to = { exchange: '', key: 'jobs.dead', history, properties: message.properties }
    const moved = movedRecord(record, 5, to)
    const expected = { ...message, ...accepted, exchange: '', key: 'jobs.dead', expiryMs: null }
    expect(decodeRecord(moved, 0)).toEqual(expected)
    expect(recordHistory(moved, 0)).toEqual(history)
    const again = movedRecord(moved, 0, { ...to, exchange: 'mqtt', key: 'back/again', properties: Buffer.alloc(0) })
    expect(decodeRecord(again, 0)).toEqual({
      ...expected,
      exchange: 'mqtt',
      key: 'back/again',
      properties: Buffer.alloc(0),
    })
    expect(recordTopic(again, 0)).toBe('back/again')
  })

  it('has no history before', () => {
    expect(recordHistory(encodeRecord(message, accepted), 0)).toBeNull()
  })
})
