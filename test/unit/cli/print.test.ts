import { describe, expect, test } from 'vitest'
import type { Overview, QueueStatus, UpstreamStatus } from '../../../src/api/contract.ts'
import { statusScreen } from '../../../src/cli/commands/status.ts'
import { pairs, printable, shortCount, shortDuration, shortSize, table } from '../../../src/cli/print.ts'
import { PLAIN_QUEUE_STATUS } from '../../support/plain-queue-status.ts'

test.each([
  [0, '0'],
  [9999, '9999'],
  [12_345, '12.3k'],
  [1_234_567, '1.2M'],
  [250_000_000, '250M'],
])('%i is counted as %s', (count, expected) => {
  expect(shortCount(count)).toBe(expected)
})

test.each([
  [0, '0 B'],
  [1023, '1023 B'],
  [1536, '1.5 KiB'],
  [8 * 2 ** 30, '8.0 GiB'],
])('%i bytes are %s', (bytes, expected) => {
  expect(shortSize(bytes)).toBe(expected)
})

test.each([
  [0, '0.0s'],
  [3210, '3.2s'],
  [59_999, '59s'],
  [60_000, '1m'],
  [3_725_000, '1h 2m'],
  [90_000_000, '1d 1h'],
  [86_400_000 + 5000, '1d'],
])('%i ms are %s', (durationMs, expected) => {
  expect(shortDuration(durationMs)).toBe(expected)
})

test('a table aligns its columns and gives no line to what it does not have', () => {
  const text = table(
    [
      { name: 'a', depth: 5 },
      { name: 'longer', depth: 1000 },
    ],
    [
      { title: 'NAME', text: row => row.name },
      { title: 'DEPTH', text: row => String(row.depth), align: 'right' },
    ],
  )
  expect(text).toBe(['NAME    DEPTH', 'a           5', 'longer   1000'].join('\n'))
})

test('names that would take over the terminal are shown, not obeyed', () => {
  expect(printable('a\u001b[2Jb\nc\u202e')).toBe('a\\x1b[2Jb\\x0ac\\u{202e}')
  expect(table([{ id: '\u001b]0;x\u0007' }], [{ title: 'CLIENT', text: row => row.id }])).not.toContain('\u001b')
  expect(pairs([['id', '\r\n']])).toBe('id  \\x0d\\x0a')
})

describe('the status screen', () => {
  const overview: Overview = {
    gateway: {
      id: 'raspberrypi-7k2m9q',
      version: '0.1.0',
      epoch: 'abcdefghij',
      started_at: '',
      uptime_ms: 273_600_000,
      clock: 'synced',
    },
    clients: { connected: 57, limit: 2000 },
    messages: {
      received: 1_234_567_890,
      delivered: 123_456_789,
      forwarded: 1_234_567_000,
      unrouted: 12_345,
      dropped: 12,
    },
    rates: { received_per_s: 12_345.6, delivered_per_s: 1234, forwarded_per_s: 12_300 },
    memory: { used_bytes: 12_345_678, limit_bytes: 67_108_864, resident_bytes: 98_765_432 },
    disk: {
      used_bytes: 12_345_678,
      limit_bytes: 8 * 2 ** 30,
      free_bytes: 2 ** 34,
      free_min_bytes: 2 ** 27,
      accepted_bytes: 1000,
      written_bytes: 2100,
      full_in_ms: 7_200_000,
    },
    health: {
      status: 'degraded',
      reasons: [
        'upstream central: waiting, connect ECONNREFUSED 10.0.0.1:5672; is the broker running, and is the address in upstreams.central.urls right?',
      ],
    },
  }
  const upstreams: UpstreamStatus[] = [
    {
      name: 'central',
      url: 'amqp://gateway:***@rabbit.factory.example.com:5672/a-rather-long-virtual-host',
      state: 'waiting',
      since: null,
      cause: 'refused',
      retry_in_ms: 3210,
      routes: [],
      unconfirmed: 256,
      confirmed: 1_234_567,
      reconnects: 3,
    },
  ]
  const queue = (name: string, depth: number): QueueStatus => ({
    ...PLAIN_QUEUE_STATUS,
    name,
    depth,
    bytes: depth * 300,
    in_flight: 0,
    oldest_age_ms: depth === 0 ? null : 3_725_000,
    limits: { messages: 1_000_000, bytes: 2 ** 31, age_ms: 1, on_full: 'reject' },
    forecast: { in_per_s: 0, out_per_s: 0, full_in_ms: depth === 0 ? null : 3_725_000, drained_in_ms: null },
    ledger: { accepted: 0, settled: 0, queued: 0, in_flight: 0, dropped: {}, expired: 0, dead_lettered: {} },
  })
  const queues = Array.from({ length: 12 }, (_, index) => queue(`queue-${index}`, index * 50_000))

  test('fits 80 columns and 40 lines, whatever its figures', () => {
    const lines = statusScreen(overview, upstreams, queues).split('\n')
    for (const line of lines) expect(line.length, line).toBeLessThanOrEqual(80)
    expect(lines.length).toBeLessThanOrEqual(40)
  })

  test('says who, how fast, how full, how long, and why it is not well', () => {
    const screen = statusScreen(overview, upstreams, queues)
    for (const part of [
      'raspberrypi-7k2m9q',
      'up 3d 4h',
      'degraded',
      '57 of 2000',
      '12.3k/s in',
      '2.1 per byte kept',
      '128 MiB needed, full in 2h',
      'full in 1h 2m',
      '! upstream central: waiting, connect ECONNREFUSED',
      'waiting 3.2s',
      'queue-11',
      '1h 2m',
      '… and 4 more: sluice queues',
    ]) {
      expect(screen).toContain(part)
    }
    expect(screen).not.toContain('queue-0')
  })

  test('a gateway with nothing to forward shows no empty tables', () => {
    const screen = statusScreen({ ...overview, health: { status: 'ok', reasons: [] } }, [], [])
    expect(screen).not.toMatch(/UPSTREAM|QUEUE|!/)
  })
})
