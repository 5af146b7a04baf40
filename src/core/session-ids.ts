/*
 * The packet ids of QoS 2 that a session which outlives its connection has in use, both ways, as they must be known after a crash (design.md section 2).
 *
 * One small record for all of them, written whole by each commit that must keep a change of it, however many messages that commit keeps. Such a commit takes every message there is (`due`),
 * so that after a crash a message and its id are both there, or neither.
 *
 * WARNING: the record is an on-disk format (docs/storage-format.md). In state/ under `n` `i` + client id (UTF-8):
 *
 *   off size
 *     0   1  version, 1
 *     1   2  number of ids held, little-endian like all below
 *     3   2  number of ids sent
 *     5   2  number of ids released
 *     7   2  each id held
 *         8  each id sent: id (2), position in the session's queue (6)
 *         2  each id released, in order
 */

import { readU16, readU48, writeU16, writeU48 } from '../model/bytes.ts'
import { BrokerError } from '../model/error.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Commit } from '../store/types.ts'
import type { CommitSchedule, CommitSource } from './commit-schedule.ts'
import type { Tickets } from './tickets.ts'

const VERSION = 1
const HEADER_BYTES = 7
const ID_BYTES = 2
const SENT_BYTES = 8

/** Tells these records from the others under the same prefix. */
const SUB_KEY = 'i'.charCodeAt(0)

/** Where a packet id stands for a message. */
export interface SentId {
  readonly id: number
  /** Of the message in the session's queue. */
  readonly position: number
}

export interface PacketIdRecord {
  /** Of messages taken from the client that it has not released: a PUBLISH with one of them is not published again. */
  readonly held: readonly number[]
  /** Of messages of the session's own queue that may have been sent and are unanswered. */
  readonly sent: readonly SentId[]
  /** Of messages that are the client's, or nobody's any more, and whose release it has not confirmed, in the order of its receipts. */
  readonly released: readonly number[]
}

export const NO_PACKET_IDS: PacketIdRecord = { held: [], sent: [], released: [] }

/** Whoever uses the ids. */
export interface PacketIdOwner {
  /** As they must be found after a crash, if everything that has been accepted by now is on disk. */
  idsToKeep(): PacketIdRecord
  /** What `idsToKeep` gave last is on disk, and what had been accepted by then. */
  idsKept(): void
}

export class SessionIds implements CommitSource {
  readonly #key: Buffer
  readonly #schedule: CommitSchedule
  readonly #tickets: Tickets
  readonly #owner: PacketIdOwner
  #isChanged = false
  #isEnded = false

  constructor(
    clientId: string,
    owner: PacketIdOwner,
    { schedule, tickets }: { schedule: CommitSchedule; tickets: Tickets },
  ) {
    this.#key = packetIdKey(clientId)
    this.#owner = owner
    this.#schedule = schedule
    this.#tickets = tickets
  }

  /** They have changed, and somebody waits until that is on disk: `idsKept` tells. */
  due(): void {
    this.#changed()
    this.#schedule.due(this.#tickets.last)
  }

  /** They have changed, and it does no harm if a crash undoes that. */
  changed(): void {
    this.#changed()
    this.#schedule.buffered()
  }

  /** The session is over: the record goes. */
  end(): void {
    this.#isEnded = true
    this.changed()
  }

  #changed(): void {
    this.#isChanged = true
    this.#schedule.touch(this)
  }

  isDueThrough(_ticket: number, withMarks: boolean): boolean {
    return withMarks && this.#isChanged
  }

  prepareCommit(_throughTicket: number, commit: Commit): void {
    this.#isChanged = false
    const record = this.#isEnded ? NO_PACKET_IDS : this.#owner.idsToKeep()
    commit.changes.push({ key: this.#key, value: encodePacketIds(record) })
  }

  committed(): void {
    if (!this.#isEnded) this.#owner.idsKept()
  }
}

/** All keys of these records begin so. */
export const PACKET_IDS = Buffer.from([StatePrefix.session, SUB_KEY])

const packetIdKey = (clientId: string): Buffer => Buffer.concat([PACKET_IDS, Buffer.from(clientId)])

/** null: there is nothing to keep. */
export function encodePacketIds({ held, sent, released }: PacketIdRecord): Buffer | null {
  if (held.length + sent.length + released.length === 0) return null
  const bytes = Buffer.alloc(HEADER_BYTES + (held.length + released.length) * ID_BYTES + sent.length * SENT_BYTES)
  bytes[0] = VERSION
  writeU16(bytes, 1, held.length)
  writeU16(bytes, 3, sent.length)
  writeU16(bytes, 5, released.length)
  let at = HEADER_BYTES
  for (const id of held) {
    writeU16(bytes, at, id)
    at += ID_BYTES
  }
  for (const { id, position } of sent) {
    writeU16(bytes, at, id)
    writeU48(bytes, at + ID_BYTES, position)
    at += SENT_BYTES
  }
  for (const id of released) {
    writeU16(bytes, at, id)
    at += ID_BYTES
  }
  return bytes
}

/** @throws BrokerError STORE_FORMAT_UNKNOWN: a later version has written it. */
export function decodePacketIds(bytes: Buffer): PacketIdRecord {
  const [version = 0] = bytes
  if (version !== VERSION) {
    throw new BrokerError(
      'STORE_FORMAT_UNKNOWN',
      `The store has packet ids of version ${version}, this version of Sluice reads version ${VERSION}: run the version that wrote it, or choose another data_dir`,
      { facts: { version } },
    )
  }
  const held = readU16(bytes, 1)
  const sent = readU16(bytes, 3)
  const released = readU16(bytes, 5)
  const sentAt = HEADER_BYTES + held * ID_BYTES
  const releasedAt = sentAt + sent * SENT_BYTES
  return {
    held: Array.from({ length: held }, (_, n) => readU16(bytes, HEADER_BYTES + n * ID_BYTES)),
    sent: Array.from({ length: sent }, (_, n) => {
      const at = sentAt + n * SENT_BYTES
      return { id: readU16(bytes, at), position: readU48(bytes, at + ID_BYTES) }
    }),
    released: Array.from({ length: released }, (_, n) => readU16(bytes, releasedAt + n * ID_BYTES)),
  }
}
