/*
 * What happened to a message in queues: where it died, why, how often, and when somebody put it back. It travels with the record (message.ts) and is what
 * `x-death` shows, so its rules are RabbitMQ's (Dead Letter Exchanges): one entry per queue and reason, the newest event first; if it
 * happens again the entry counts on, moves to the front and keeps the rest.
 *
 * Limits: HISTORY_ENTRIES and HISTORY_BYTES; beyond, the oldest entries are forgotten, never the newest and never the first death.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md). A change of any offset is a new store format version.
 *
 *   off size
 *     0   1  entries
 *     1   1  which of them, from 0, was the message's first death; 255: it has not died
 *     2   4  boot in which it last moved, little-endian like all below
 *     6   6  when, milliseconds of the monotonic clock since that boot
 *    12      entries, newest first:
 *     0   1  bits 0-5 event, 6 words present, 7 original expiration present
 *     1   4  count
 *     5   4  boot in which it happened first
 *     9   6  when, milliseconds of the monotonic clock since that boot
 *    15   1  queue name, bytes
 *    16   1  exchange name, bytes
 *    17   2  key, bytes
 *    19   6  only if bit 7: original expiration, milliseconds
 *         …  queue, exchange, key (UTF-8)
 *         …  only if bit 6: words, their length in front (2 bytes), UTF-8
 */
import { isUtf8 } from 'node:buffer'
import { MQTT_EXCHANGE, recordHistory, recordIsTopic, recordTopic } from './message.ts'

const EVENTS = ['rejected', 'expired', 'maxlen', 'delivery_limit', 'replayed'] as const
/** RabbitMQ's words for a death; `replayed`: an operator put it back. */
export type HistoryEvent = (typeof EVENTS)[number]

/** A point in time that can be dated later, when the clock of its boot is known better. */
export interface Moment {
  readonly boot: number
  /** Monotonic milliseconds since that boot. */
  readonly ms: number
}

export interface HistoryEntry {
  readonly event: HistoryEvent
  /** The queue it left. */
  readonly queue: string
  /** A death: what the message was published to at that time. A replay: where it was sent. */
  readonly exchange: string
  readonly key: string
  readonly count: number
  /** The first time. */
  readonly at: Moment
  /** The time to live that was taken off, milliseconds; null: it had none. */
  readonly originalExpirationMs: number | null
  /** What the last one who refused it said, WORDS_BYTES at most; null: nothing. */
  readonly words: string | null
}

export interface DeathHistory {
  /** Newest event first; at least one. */
  readonly entries: readonly HistoryEntry[]
  /** One of `entries`; null: it has not died. */
  readonly firstDeath: HistoryEntry | null
  /** When it entered the queue it is in. */
  readonly movedAt: Moment
}

/** Entries at most. */
const HISTORY_ENTRIES = 16
/** Bytes at most, unless the newest entry and the first death alone take more (their keys may be topics of 64 KiB). */
const HISTORY_BYTES = 32 * 1024

/** Of what was said about a message so much is kept, bytes. */
const WORDS_BYTES = 512

const HEAD_BYTES = 12
const ENTRY_BYTES = 19
const EXPIRATION_BYTES = 6
const FLAG_EXPIRATION = 0x80
const FLAG_WORDS = 0x40
const EVENT_MASK = 0x3f
const NO_DEATH = 0xff
const COUNT_MAX = 0xffff_ffff

/** The history after one more event; `history` null: it is the first. */
export function appendEvent(
  history: DeathHistory | null,
  event: Omit<HistoryEntry, 'count' | 'at'>,
  now: Moment,
): DeathHistory {
  const words = event.words === null ? null : cut(event.words)
  const before = history?.entries ?? []
  const known = before.find(entry => isSame(entry, event))
  const newest: HistoryEntry =
    known === undefined
      ? { ...event, words, count: 1, at: now }
      : { ...known, words, count: Math.min(known.count + 1, COUNT_MAX) }
  const wasFirst = history?.firstDeath ?? null
  const isFirst = event.event !== 'replayed' && (wasFirst === null || wasFirst === known)
  const firstDeath = isFirst ? newest : wasFirst
  const entries = [newest, ...before.filter(entry => entry !== known)]
  return { entries: bounded(entries, firstDeath), firstDeath, movedAt: now }
}

/** Whole characters only. */
function cut(words: string): string {
  const bytes = Buffer.from(words)
  let end = Math.min(bytes.length, WORDS_BYTES)
  while (end < bytes.length && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--
  return bytes.toString('utf8', 0, end)
}

/** A replay to another destination is another entry. */
function isSame(entry: HistoryEntry, event: Omit<HistoryEntry, 'count' | 'at'>): boolean {
  if (entry.event !== event.event || entry.queue !== event.queue) return false
  return event.event !== 'replayed' || (entry.exchange === event.exchange && entry.key === event.key)
}

function bounded(entries: readonly HistoryEntry[], firstDeath: HistoryEntry | null): readonly HistoryEntry[] {
  let count = entries.length
  let bytes = entries.reduce((sum, entry) => sum + entryBytes(entry), HEAD_BYTES)
  if (count <= HISTORY_ENTRIES && bytes <= HISTORY_BYTES) return entries
  const kept = [...entries]
  for (let i = kept.length - 1; i > 0 && (count > HISTORY_ENTRIES || bytes > HISTORY_BYTES); i--) {
    const entry = kept[i]
    if (entry === undefined || entry === firstDeath) continue
    kept.splice(i, 1)
    count--
    bytes -= entryBytes(entry)
  }
  return kept
}

/**
 * Whether a dead letter that goes to `queue` runs in a circle: it died there before, and all that happened since came about by itself (RabbitMQ: no
 * `rejected` in the cycle; here a replay, too, is somebody's will). `history` has the death at hand already.
 */
export function isCycle({ entries }: DeathHistory, queue: string): boolean {
  for (const entry of entries) {
    if (entry.event === 'rejected' || entry.event === 'replayed') return false
    if (entry.queue === queue) return true
  }
  return false
}

export function encodeHistory({ entries, firstDeath, movedAt }: DeathHistory): Buffer {
  const bytes = Buffer.alloc(entries.reduce((sum, entry) => sum + entryBytes(entry), HEAD_BYTES))
  bytes[0] = entries.length
  bytes[1] = firstDeath === null ? NO_DEATH : entries.indexOf(firstDeath)
  writeMoment(bytes, movedAt, 2)
  let at = HEAD_BYTES
  for (const { event, queue, exchange, key, count, at: moment, originalExpirationMs, words } of entries) {
    bytes[at] =
      EVENTS.indexOf(event) | (originalExpirationMs === null ? 0 : FLAG_EXPIRATION) | (words === null ? 0 : FLAG_WORDS)
    bytes.writeUInt32LE(count, at + 1)
    writeMoment(bytes, moment, at + 5)
    bytes[at + 15] = Buffer.byteLength(queue)
    bytes[at + 16] = Buffer.byteLength(exchange)
    bytes.writeUInt16LE(Buffer.byteLength(key), at + 17)
    at += ENTRY_BYTES
    if (originalExpirationMs !== null) at = bytes.writeUIntLE(originalExpirationMs, at, EXPIRATION_BYTES)
    at += bytes.write(queue, at)
    at += bytes.write(exchange, at)
    at += bytes.write(key, at)
    if (words !== null) {
      const length = bytes.write(words, at + 2)
      bytes.writeUInt16LE(length, at)
      at += 2 + length
    }
  }
  return bytes
}

/** Of the record at `at`; null: nothing has become of it yet, or its history cannot be read. */
export function historyOf(bytes: Buffer, at: number): DeathHistory | null {
  const history = recordHistory(bytes, at)
  return history === null ? null : decodeHistory(history)
}

/** The topic a record was published to; of a dead letter that came from `mqtt`, the one it had there. Of other messages their key as a topic. */
export function originalTopic(bytes: Buffer, at: number): string {
  if (!recordIsTopic(bytes, at)) {
    const firstDeath = historyOf(bytes, at)?.firstDeath ?? null
    if (firstDeath?.exchange === MQTT_EXCHANGE) return firstDeath.key
  }
  return recordTopic(bytes, at)
}

/** Null if the bytes are not a history: then nothing in them is to be believed. */
export function decodeHistory(bytes: Buffer): DeathHistory | null {
  const count = bytes[0] ?? 0
  const first = bytes[1] ?? 0
  if (bytes.length < HEAD_BYTES || count === 0 || count > HISTORY_ENTRIES) return null
  const entries: HistoryEntry[] = []
  let at = HEAD_BYTES
  while (at < bytes.length) {
    const entry = decodeEntry(bytes, at)
    if (entry === null || entries.length === count) return null
    entries.push(entry)
    at += entryBytes(entry)
  }
  const firstDeath = first === NO_DEATH ? null : entries[first]
  if (entries.length !== count || firstDeath === undefined || firstDeath?.event === 'replayed') return null
  return { entries, firstDeath, movedAt: readMoment(bytes, 2) }
}

function decodeEntry(bytes: Buffer, at: number): HistoryEntry | null {
  if (at + ENTRY_BYTES > bytes.length) return null
  const flags = bytes[at] ?? 0
  const event = EVENTS[flags & EVENT_MASK]
  const count = bytes.readUInt32LE(at + 1)
  const hasExpiration = (flags & FLAG_EXPIRATION) !== 0
  const namesAt = at + ENTRY_BYTES + (hasExpiration ? EXPIRATION_BYTES : 0)
  const exchangeAt = namesAt + (bytes[at + 15] ?? 0)
  const keyAt = exchangeAt + (bytes[at + 16] ?? 0)
  const keyEnd = keyAt + bytes.readUInt16LE(at + 17)
  const wordsAt = keyEnd + ((flags & FLAG_WORDS) === 0 ? 0 : 2)
  if (event === undefined || count === 0 || wordsAt > bytes.length) return null
  const end = wordsAt + (wordsAt === keyEnd ? 0 : bytes.readUInt16LE(keyEnd))
  if (end > bytes.length) return null
  const ends = [namesAt, exchangeAt, keyAt, keyEnd]
  const texts = [...ends.slice(1).map((to, i) => bytes.subarray(ends[i], to)), bytes.subarray(wordsAt, end)]
  if (!texts.every(text => isUtf8(text))) return null
  const [queue = '', exchange = '', key = '', said = ''] = texts.map(text => text.toString('utf8'))
  const words = wordsAt === keyEnd ? null : said
  const originalExpirationMs = hasExpiration ? bytes.readUIntLE(at + ENTRY_BYTES, EXPIRATION_BYTES) : null
  return { event, queue, exchange, key, count, at: readMoment(bytes, at + 5), originalExpirationMs, words }
}

function entryBytes({ queue, exchange, key, originalExpirationMs, words }: HistoryEntry): number {
  const names = Buffer.byteLength(queue) + Buffer.byteLength(exchange) + Buffer.byteLength(key)
  const wordsBytes = words === null ? 0 : 2 + Buffer.byteLength(words)
  return ENTRY_BYTES + (originalExpirationMs === null ? 0 : EXPIRATION_BYTES) + names + wordsBytes
}

function writeMoment(bytes: Buffer, { boot, ms }: Moment, at: number): void {
  bytes.writeUInt32LE(boot, at)
  bytes.writeUIntLE(ms, at + 4, 6)
}

function readMoment(bytes: Buffer, at: number): Moment {
  return { boot: bytes.readUInt32LE(at), ms: bytes.readUIntLE(at + 4, 6) }
}
