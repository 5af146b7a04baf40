import { describe, expect, it } from 'vitest'
import { type Headers, Mapping } from '../../../src/bridge/mapping.ts'
import { type Boot, Identities } from '../../../src/core/identity.ts'
import { appendEvent, type DeathHistory, encodeHistory, type HistoryEntry } from '../../../src/model/death-history.ts'
import { Clock, encodeRecord, movedRecord } from '../../../src/model/message.ts'
import { messageTo } from '../../support/messages.ts'
import { PLAIN_ROUTE } from '../../support/plain-route.ts'

const BOOT_AT_MS = Date.UTC(2026, 0, 1)
const boot: Boot = { boot: 7, epoch: 'abcdefghij', gateway: 'gw-1', wallOffsetMs: BOOT_AT_MS, clock: Clock.synced }
const earlier: Boot = { ...boot, boot: 3, wallOffsetMs: BOOT_AT_MS - 86_400_000 }
const identities = new Identities(
  () => boot,
  number => (number === earlier.boot ? earlier : undefined),
  { monotonicMs: () => 60_000, wallMs: () => BOOT_AT_MS + 60_000 },
)

const DEATH = {
  event: 'expired',
  queue: 'telemetry',
  exchange: 'mqtt',
  key: 'sensors/7/t',
  originalExpirationMs: 500,
  words: null,
} as const

/** Headers of a message after these events, the first of them in an earlier boot. */
function headersAfter(...events: readonly Omit<HistoryEntry, 'count' | 'at'>[]): Headers {
  let history: DeathHistory | null = null
  for (const event of events) {
    const at = history === null ? { boot: earlier.boot, ms: 2500 } : { boot: boot.boot, ms: 30_000 }
    history = appendEvent(history, event, at)
  }
  if (history === null) throw new Error('a history needs an event')
  const record = encodeRecord(messageTo('sensors/7/t', 'body'), { seq: 1, boot: 7, acceptedAt: 100, clock: 2 })
  const moved = movedRecord(record, 0, {
    exchange: '',
    key: 'telemetry.dead',
    history: encodeHistory(history),
    properties: Buffer.alloc(0),
  })
  return new Mapping({ route: PLAIN_ROUTE, identities }).publicationOf(moved, 0, 0, 0).headers
}

describe('the history of a message upstream', () => {
  it('has the shape of RabbitMQ, with the address AMQP clients know', () => {
    expect(headersAfter(DEATH)).toMatchObject({
      'x-mqtt-topic': 'sensors/7/t',
      'x-first-death-exchange': 'amq.topic',
      'x-first-death-queue': 'telemetry',
      'x-first-death-reason': 'expired',
      'x-death': [
        {
          count: { '!': 'long', value: 1 },
          reason: 'expired',
          queue: 'telemetry',
          time: { '!': 'timestamp', value: Date.UTC(2025, 11, 31) / 1000 + 2 },
          exchange: 'amq.topic',
          'routing-keys': ['sensors.7.t'],
          'original-expiration': '500',
        },
      ],
    })
  })

  it('tells how often it was replayed beside its deaths, not among them', () => {
    const replay = {
      event: 'replayed',
      queue: 'dead',
      exchange: 'mqtt',
      key: 'a',
      originalExpirationMs: null,
      words: null,
    } as const
    const headers = headersAfter(DEATH, replay, DEATH, replay)
    expect(headers['x-sluice-replayed']).toBe(2)
    expect(headers['x-death']).toMatchObject([{ count: { value: 2 }, queue: 'telemetry' }])
    const only = headersAfter(replay)
    expect(only['x-sluice-replayed']).toBe(1)
    expect(only).not.toHaveProperty('x-death')
  })

  it('is left out, and counted, where it does not fit the frame its headers travel in', () => {
    const long = { ...DEATH, key: 'x'.repeat(65_000) }
    const headers = headersAfter(long)
    expect(headers).toMatchObject({ 'x-first-death-queue': 'telemetry', 'x-sluice-omitted': expect.any(Number) })
    expect(headers).not.toHaveProperty('x-death')
  })
})
