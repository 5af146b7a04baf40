import type { QueueStatus } from '../../src/api/contract.ts'

/** What the API says of a plain durable queue without consumers. */
export const PLAIN_QUEUE_STATUS = {
  kind: 'named',
  origin: 'config',
  durable: true,
  consumers: 0,
  waiting: 0,
  parked: false,
  dead_letter: null,
  lost_at_most: 0,
  forecast: { in_per_s: 0, out_per_s: 0, full_in_ms: null, drained_in_ms: null },
  policy: {
    max_attempts: null,
    retry: { first_ms: 1000, max_ms: 300_000, waiting: 10_000 },
    ttl_ms: null,
    max_priority: 0,
    single_active_consumer: false,
    exclusive: false,
    expires_ms: null,
    ack: 'fsync',
    ack_timeout_ms: 5000,
  },
} as const satisfies Partial<QueueStatus>
