/*
 * The message in its stored form: one run of bytes for memory, disk and every protocol.
 *
 * WARNING: this is an on-disk format (docs/storage-format.md). A change of any offset is a new store format version.
 *
 *   off size
 *     0   4  length of the whole record, bytes, little-endian like all below
 *     4   4  CRC32C of bytes 8..length; 0 in memory, filled in when the record is written to disk
 *     8   1  bits 0-1 QoS, 2 retain, 3 dup, 4-5 properties tag, 6 expiry present, 7 exchange is the built-in `mqtt`
 *     9   1  bits 0-3 priority, 4-5 clock, 6 history present, 7 zero
 *    10   6  seq: the third part of the message id, unique within its boot
 *    16   4  boot: which process start accepted it; the boot record knows gateway id, epoch and wall offset
 *    20   6  accepted at, milliseconds of the monotonic clock since that boot
 *    26   1  exchange name, bytes
 *    27   2  key (MQTT: topic), bytes
 *    29   2  client id, bytes
 *    31   2  user name, bytes
 *    33   4  properties, bytes
 *    37   6  only if bit 6 of byte 8: time to live when accepted, milliseconds
 *         …  exchange, key, client id, user name (UTF-8)
 *         …  only if bit 6 of byte 9: bytes of the history (4), the history (death-history.ts)
 *         …  properties (form by tag), payload
 */

import { readU16, readU32, readU48, writeU32, writeU48 } from './bytes.ts'

/** In which form a record keeps its properties: none, MQTT 5 property bytes, an AMQP 0-9-1 property list. */
export const PropertiesTag = { none: 0, mqtt5: 1, amqp: 2 } as const
export type PropertiesTag = (typeof PropertiesTag)[keyof typeof PropertiesTag]

/**
 * How far a wall clock is trusted (`x-sluice-clock`). synced: a time service has set it. estimated: it may be right, as a battery or the time of the last
 * shutdown keep it. unknown: it is not, for it shows a time that is past.
 */
export const Clock = { unknown: 0, estimated: 1, synced: 2 } as const
export type Clock = (typeof Clock)[keyof typeof Clock]
export const CLOCK_WORDS = ['unknown', 'estimated', 'synced'] as const satisfies readonly (keyof typeof Clock)[]

export type QoS = 0 | 1 | 2

/** The built-in topic exchange into which MQTT publishes; AMQP clients know it as `amq.topic`. */
export const MQTT_EXCHANGE = 'mqtt'

/** Topic ↔ routing key as RabbitMQ's MQTT plugin does it: `a/b.c` ↔ `a.b/c`. Its own inverse. */
export function swapSeparators(key: string): string {
  return key.replace(/[/.]/g, separator => (separator === '/' ? '.' : '/'))
}

const RECORD_HEADER_BYTES = 37
const EXPIRY_BYTES = 6
const FLAG_RETAIN = 4
const FLAG_DUP = 8
const TAG_SHIFT = 4
const FLAG_EXPIRY = 64
const FLAG_MQTT_EXCHANGE = 128
const FLAG_HISTORY = 64
const HISTORY_LENGTH_BYTES = 4

/** The envelope as an object, for the cold edges (HTTP, wills, feeds, tests). The hot path never builds one. */
export interface Message {
  readonly exchange: string
  /** Routing key; for MQTT the topic name. */
  readonly key: string
  readonly qos: QoS
  readonly retain: boolean
  readonly dup: boolean
  readonly priority: number
  readonly clientId: string
  readonly user: string
  /** Time to live from acceptance on, milliseconds; null: none. */
  readonly expiryMs: number | null
  readonly propertiesTag: PropertiesTag
  readonly properties: Buffer
  readonly payload: Buffer
}

/** What the broker adds on acceptance. */
export interface Acceptance {
  readonly seq: number
  readonly boot: number
  /** Monotonic milliseconds since that boot. */
  readonly acceptedAt: number
  readonly clock: Clock
}

/** The part of a record that all messages of one publisher, key and flag byte have in common, written once and copied per message. */
export interface RecordPrefix {
  readonly bytes: Buffer
  readonly qos: QoS
}

/** Builds the common part: fixed header with everything but length, seq, times, properties length; then the four names. */
export function recordPrefix(
  message: Pick<
    Message,
    'exchange' | 'key' | 'qos' | 'retain' | 'dup' | 'priority' | 'clientId' | 'user' | 'propertiesTag'
  >,
): RecordPrefix {
  const exchange = message.exchange === MQTT_EXCHANGE ? '' : message.exchange
  const exchangeBytes = Buffer.byteLength(exchange)
  const keyBytes = Buffer.byteLength(message.key)
  const clientBytes = Buffer.byteLength(message.clientId)
  const userBytes = Buffer.byteLength(message.user)
  if (exchangeBytes > 0xff || keyBytes > 0xffff || clientBytes > 0xffff || userBytes > 0xffff) {
    throw new TypeError('a name in a record is longer than its length field')
  }
  const bytes = Buffer.alloc(RECORD_HEADER_BYTES + exchangeBytes + keyBytes + clientBytes + userBytes)
  bytes[8] =
    message.qos |
    (message.retain ? FLAG_RETAIN : 0) |
    (message.dup ? FLAG_DUP : 0) |
    (message.propertiesTag << TAG_SHIFT) |
    (message.exchange === MQTT_EXCHANGE ? FLAG_MQTT_EXCHANGE : 0)
  bytes[9] = message.priority & 15
  bytes[26] = exchangeBytes
  bytes.writeUInt16LE(keyBytes, 27)
  bytes.writeUInt16LE(clientBytes, 29)
  bytes.writeUInt16LE(userBytes, 31)
  let at = RECORD_HEADER_BYTES
  at += bytes.write(exchange, at)
  at += bytes.write(message.key, at)
  at += bytes.write(message.clientId, at)
  bytes.write(message.user, at)
  return { bytes, qos: message.qos }
}

export const prefixPriority = ({ bytes }: RecordPrefix): number => (bytes[9] ?? 0) & 15

/** Bytes a record will take; `expiryMs` 0 means no expiry. */
export function recordLength(
  prefix: RecordPrefix,
  expiryMs: number,
  propertiesBytes: number,
  payloadBytes: number,
): number {
  return prefix.bytes.length + (expiryMs > 0 ? EXPIRY_BYTES : 0) + propertiesBytes + payloadBytes
}

/**
 * Writes one record to `target` at `at`; properties and payload lie side by side in `source` from `from` to `to`, the first
 * `propertiesBytes` of them being properties. Returns the offset behind the record. The caller has made room (`recordLength`).
 */
export function writeRecord(
  target: Buffer,
  at: number,
  prefix: RecordPrefix,
  acceptance: Acceptance,
  expiryMs: number,
  source: Buffer,
  from: number,
  to: number,
  propertiesBytes: number,
): number {
  const head = prefix.bytes
  const headBytes = head.length
  let bodyAt = at + headBytes
  if (expiryMs > 0) {
    head.copy(target, at, 0, RECORD_HEADER_BYTES)
    head.copy(target, at + RECORD_HEADER_BYTES + EXPIRY_BYTES, RECORD_HEADER_BYTES, headBytes)
    target[at + 8] = (head[8] ?? 0) | FLAG_EXPIRY
    writeU48(target, at + RECORD_HEADER_BYTES, expiryMs)
    bodyAt += EXPIRY_BYTES
  } else {
    head.copy(target, at, 0, headBytes)
  }
  const end = bodyAt + (to - from)
  writeU32(target, at, end - at)
  target[at + 9] = (head[9] ?? 0) | (acceptance.clock << 4)
  writeU48(target, at + 10, acceptance.seq)
  writeU32(target, at + 16, acceptance.boot)
  writeU48(target, at + 20, acceptance.acceptedAt)
  writeU32(target, at + 33, propertiesBytes)
  source.copy(target, bodyAt, from, to)
  return end
}

/** The stored form of a message object, for the cold edges. */
export function encodeRecord(message: Message, acceptance: Acceptance): Buffer {
  const prefix = recordPrefix(message)
  const expiryMs = message.expiryMs ?? 0
  const body = Buffer.concat([message.properties, message.payload])
  const record = Buffer.alloc(recordLength(prefix, expiryMs, message.properties.length, message.payload.length))
  writeRecord(record, 0, prefix, acceptance, expiryMs, body, 0, body.length, message.properties.length)
  return record
}

/** What changes when a message moves from one queue to another: everything else, its id above all, stays. */
export interface Move {
  readonly exchange: string
  readonly key: string
  readonly history: Buffer
  readonly properties: Buffer
}

/** The record at `at` under another address and with a history; without expiry. */
export function movedRecord(bytes: Buffer, at: number, { exchange, key, history, properties }: Move): Buffer {
  const message = decodeRecord(bytes, at)
  const { bytes: head } = recordPrefix({ ...message, exchange, key })
  const length = Buffer.alloc(HISTORY_LENGTH_BYTES)
  writeU32(length, 0, history.length)
  const record = Buffer.concat([head, length, history, properties, message.payload])
  writeU32(record, 0, record.length)
  record[9] = (bytes[at + 9] ?? 0) | FLAG_HISTORY
  bytes.copy(record, 10, at + 10, at + 26)
  writeU32(record, 33, properties.length)
  return record
}

// Readers of single fields: `at` is where the record begins.

export const recordBytes = (bytes: Buffer, at: number): number => readU32(bytes, at)
export const recordQos = (bytes: Buffer, at: number): QoS => ((bytes[at + 8] ?? 0) & 3) as QoS
export const recordRetain = (bytes: Buffer, at: number): boolean => ((bytes[at + 8] ?? 0) & FLAG_RETAIN) !== 0
export const recordDup = (bytes: Buffer, at: number): boolean => ((bytes[at + 8] ?? 0) & FLAG_DUP) !== 0
export const recordPropertiesTag = (bytes: Buffer, at: number): PropertiesTag =>
  (((bytes[at + 8] ?? 0) >> TAG_SHIFT) & 3) as PropertiesTag
export const recordPriority = (bytes: Buffer, at: number): number => (bytes[at + 9] ?? 0) & 15
const recordClock = (bytes: Buffer, at: number): Clock => (((bytes[at + 9] ?? 0) >> 4) & 3) as Clock
export const recordSeq = (bytes: Buffer, at: number): number => readU48(bytes, at + 10)
export const recordBoot = (bytes: Buffer, at: number): number => readU32(bytes, at + 16)
export const recordAcceptedAt = (bytes: Buffer, at: number): number => readU48(bytes, at + 20)
/** Time to live when accepted, milliseconds; 0: none. */
export const recordExpiryMs = (bytes: Buffer, at: number): number =>
  hasExpiry(bytes, at) ? readU48(bytes, at + RECORD_HEADER_BYTES) : 0

/** Where the key begins; its length is `recordKeyBytes`. */
export function recordKeyAt(bytes: Buffer, at: number): number {
  return at + RECORD_HEADER_BYTES + (hasExpiry(bytes, at) ? EXPIRY_BYTES : 0) + (bytes[at + 26] ?? 0)
}
export const recordKeyBytes = (bytes: Buffer, at: number): number => readU16(bytes, at + 27)
/** Behind the names: where the history begins, or the properties if there is none. */
export function recordNamesEnd(bytes: Buffer, at: number): number {
  return recordKeyAt(bytes, at) + readU16(bytes, at + 27) + readU16(bytes, at + 29) + readU16(bytes, at + 31)
}
/** Where the properties begin; the payload follows them. */
export function recordPropertiesAt(bytes: Buffer, at: number): number {
  const namesEnd = recordNamesEnd(bytes, at)
  return recordHasHistory(bytes, at) ? namesEnd + HISTORY_LENGTH_BYTES + readU32(bytes, namesEnd) : namesEnd
}
/** It was in another queue before this one. */
const recordHasHistory = (bytes: Buffer, at: number): boolean => ((bytes[at + 9] ?? 0) & FLAG_HISTORY) !== 0
/** Its history in the form of death-history.ts, a slice of `bytes`; null: it has none. */
export function recordHistory(bytes: Buffer, at: number): Buffer | null {
  if (!recordHasHistory(bytes, at)) return null
  return bytes.subarray(recordNamesEnd(bytes, at) + HISTORY_LENGTH_BYTES, recordPropertiesAt(bytes, at))
}
export const recordPropertiesBytes = (bytes: Buffer, at: number): number => readU32(bytes, at + 33)
export const recordPayloadAt = (bytes: Buffer, at: number): number =>
  recordPropertiesAt(bytes, at) + recordPropertiesBytes(bytes, at)

export function recordExchange(bytes: Buffer, at: number): string {
  if (recordIsTopic(bytes, at)) return MQTT_EXCHANGE
  const end = recordKeyAt(bytes, at)
  return bytes.toString('utf8', end - (bytes[at + 26] ?? 0), end)
}
export function recordKey(bytes: Buffer, at: number): string {
  const start = recordKeyAt(bytes, at)
  return bytes.toString('utf8', start, start + recordKeyBytes(bytes, at))
}
/** Published to `mqtt`, so that its key is a topic; keys of all other exchanges are AMQP routing keys. */
export const recordIsTopic = (bytes: Buffer, at: number): boolean => ((bytes[at + 8] ?? 0) & FLAG_MQTT_EXCHANGE) !== 0
/** The key as a topic, whatever exchange the message was published to. */
export const recordTopic = (bytes: Buffer, at: number): string =>
  recordIsTopic(bytes, at) ? recordKey(bytes, at) : swapSeparators(recordKey(bytes, at))
export function recordClientId(bytes: Buffer, at: number): string {
  const start = recordKeyAt(bytes, at) + recordKeyBytes(bytes, at)
  return bytes.toString('utf8', start, start + readU16(bytes, at + 29))
}
export function recordUser(bytes: Buffer, at: number): string {
  const start = recordKeyAt(bytes, at) + recordKeyBytes(bytes, at) + readU16(bytes, at + 29)
  return bytes.toString('utf8', start, start + readU16(bytes, at + 31))
}

/** The whole record as objects; properties and payload are slices of `bytes`, copy them to keep them. */
export function decodeRecord(bytes: Buffer, at: number): Message & Acceptance {
  const propertiesAt = recordPropertiesAt(bytes, at)
  const payloadAt = propertiesAt + recordPropertiesBytes(bytes, at)
  const expiryMs = recordExpiryMs(bytes, at)
  return {
    exchange: recordExchange(bytes, at),
    key: recordKey(bytes, at),
    qos: recordQos(bytes, at),
    retain: recordRetain(bytes, at),
    dup: recordDup(bytes, at),
    priority: recordPriority(bytes, at),
    clientId: recordClientId(bytes, at),
    user: recordUser(bytes, at),
    expiryMs: expiryMs === 0 ? null : expiryMs,
    propertiesTag: recordPropertiesTag(bytes, at),
    properties: bytes.subarray(propertiesAt, payloadAt),
    payload: bytes.subarray(payloadAt, at + recordBytes(bytes, at)),
    seq: recordSeq(bytes, at),
    boot: recordBoot(bytes, at),
    acceptedAt: recordAcceptedAt(bytes, at),
    clock: recordClock(bytes, at),
  }
}

const hasExpiry = (bytes: Buffer, at: number): boolean => ((bytes[at + 8] ?? 0) & FLAG_EXPIRY) !== 0
