/** What a queue does with its messages and consumers beyond its limits. May be changed while running; what is not said is as in PLAIN_POLICY. */
export interface QueuePolicy {
  /** Failed deliveries after which a message is given up: a dead letter, or dropped{delivery_limit}. Infinity: never. */
  readonly maxAttempts: number
  /**
   * After its n-th failure a message waits `firstMs` * 2^(n-1), at most `maxMs`, while others pass it. While so many as `waiting` do, the queue parks: it delivers only
   * what has waited long enough.
   */
  readonly retry: { readonly firstMs: number; readonly maxMs: number; readonly waiting: number }
  /** Messages that waited longer are expired, milliseconds; Infinity: none. */
  readonly ttlMs: number
  /** Messages of higher priority come first; above this, 0 to 9, all count alike. */
  readonly maxPriority: number
  /** Of several consumers only the first gets messages; when it goes, the next. */
  readonly hasSingleActiveConsumer: boolean
  /** One consumer at a time; others are refused. */
  readonly isExclusive: boolean
  /** Deleted, with what is in it, when nobody has consumed from it for so long, milliseconds; Infinity: never. */
  readonly expiresMs: number
  /**
   * When a publisher is acknowledged, as far as this queue is concerned (design.md section 2). fsync: the message is on disk, or settled. upstream: its consumer has settled
   * it; it is never written. buffered: it is in memory, and written within `store.buffered_interval`.
   */
  readonly ack: 'fsync' | 'upstream' | 'buffered'
  /** With ack: upstream, what is not settled by then is taken out and its publisher refused, milliseconds. */
  readonly ackTimeoutMs: number
}

export const MAX_PRIORITY = 9

export const PLAIN_POLICY: QueuePolicy = {
  maxAttempts: Number.POSITIVE_INFINITY,
  retry: { firstMs: 1000, maxMs: 300_000, waiting: 10_000 },
  ttlMs: Number.POSITIVE_INFINITY,
  maxPriority: 0,
  hasSingleActiveConsumer: false,
  isExclusive: false,
  expiresMs: Number.POSITIVE_INFINITY,
  ack: 'fsync',
  ackTimeoutMs: 5000,
}
