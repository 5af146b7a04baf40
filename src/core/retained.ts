/*
 * The last value of each topic [MQTT-3.3.1-5], 3.1.1 [MQTT-3.3.1-5]: the record itself, in memory and under StatePrefix.retained. No session owns it: 3.1.1 [MQTT-3.1.2-7].
 *
 * Invariants
 * - What the disk does not know yet is in #dirty, by topic: only the last value of each is written. A publisher of QoS >= 1 holds a ticket that the commit
 *   which writes it makes safe, and such a topic is in the next commit whatever else waits; QoS 0 has no ticket and goes with the next commits, 1 MiB in each.
 * - What has expired is never handed out. It leaves within a minute, seen or not.
 */
import { type Acceptance, recordBytes, recordExpiryMs, recordKey, recordLength, writeRecord } from '../model/message.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Commit } from '../store/types.ts'
import type { CommitSchedule, CommitSource } from './commit-schedule.ts'
import type { MemoryBudget } from './memory.ts'
import type { AgeMs } from './queue.ts'
import type { Run } from './run.ts'
import { type Place, Slabs } from './slabs.ts'
import { TopicMap, type TopicWalk } from './topic-map.ts'

/** `limits.retained` */
export interface RetainedLimits {
  readonly messages: number
  /** Of records, topics, properties and names of publishers included, and of the index that finds them. */
  readonly bytes: number
}

/** A retained message: its record begins at `slab.bytes[at]`. Both may change in a later turn of the event loop. */
export interface RetainedMessage extends Place {
  /** Rises with each message retained. */
  readonly change: number
}

/** A walk through retained messages, a part at a time (topic-map.ts). */
export class RetainedWalk {
  /** Takes in what has been retained since it began, of topics it has not come to. */
  readonly renew: () => void
  readonly #topics: TopicWalk<RetainedMessage>

  constructor(topics: TopicWalk<RetainedMessage>, renew: () => void) {
    this.#topics = topics
    this.renew = renew
  }

  /** Nothing is left. */
  get isDone(): boolean {
    return this.#topics.isDone
  }

  /** How much it has looked at. */
  get visited(): number {
    return this.#topics.visited
  }

  /** The next one; null: there is none among the next `steps` topics, or `isDone`. */
  next(steps: number): RetainedMessage | null {
    return this.#topics.next(steps)
  }
}

/** Why a QoS 0 message was not retained; the one before it is forgotten all the same (3.1.1 [MQTT-3.3.1-7]). */
export type NotRetained = 'limit' | 'disk_full' | 'store_unavailable'

/** What a topic takes in the index beside two bytes a letter: measured, rounded up. */
const TOPIC_BYTES = 192

const COMMIT_BYTES = 1024 * 1024
/** Each second the part of a minute's round that is due is looked at for messages whose time is over, and so many at least. */
const ROUND_TURNS = 60
const TURN_MESSAGES = 1000

export class Retained implements CommitSource {
  readonly limits: RetainedLimits
  readonly dropped: Record<NotRetained, number> = { limit: 0, disk_full: 0, store_unavailable: 0 }
  expired = 0

  readonly #store: Store
  readonly #schedule: CommitSchedule
  readonly #memory: MemoryBudget
  readonly #ageMs: AgeMs
  readonly #topics = new TopicMap<RetainedMessage>()
  readonly #slabs = new Slabs()
  #indexBytes = 0
  /** Topics to be written, and whether somebody waits for that. */
  readonly #dirty = new Map<string, boolean>()
  /** Those with a message expiry. */
  readonly #expiring = new Set<RetainedMessage>()
  #round = this.#expiring.values()
  #change = 0

  constructor({
    store,
    schedule,
    memory,
    ageMs,
    limits,
  }: {
    store: Store
    schedule: CommitSchedule
    memory: MemoryBudget
    ageMs: AgeMs
    limits: RetainedLimits
  }) {
    this.#store = store
    this.#schedule = schedule
    this.#memory = memory
    this.#ageMs = ageMs
    this.limits = limits
  }

  /** How many topics have one. */
  get messages(): number {
    return this.#topics.size
  }

  get bytes(): number {
    return this.#slabs.live + this.#indexBytes
  }

  get isFull(): boolean {
    return this.messages >= this.limits.messages || this.bytes >= this.limits.bytes
  }

  /** Brings back all there were; what is over a lowered limit stays. */
  async load(): Promise<void> {
    for await (const [, record] of this.#store.readState(Buffer.from([StatePrefix.retained]))) {
      const message = this.#reserve(record.length)
      record.copy(message.slab.bytes, message.at)
      this.#put(recordKey(record, 0), message)
    }
  }

  // ---- taking messages

  /** How many of the first `count` messages of a run there is room for, each in the place of the one before. */
  admit(topic: string, run: Run, count: number): number {
    const room = this.#roomFor(topic)
    for (let i = 0; i < count; i++) if (!isRemoval(run, i) && recordLengthOf(run, i) > room) return i
    return count
  }

  /** Bytes that the message of this topic may take. */
  #roomFor(topic: string): number {
    const known = this.#topics.get(topic)
    if (known === null && this.messages >= this.limits.messages) return 0
    return this.limits.bytes - this.bytes + (known === null ? -indexBytesOf(topic) : bytesOf(known))
  }

  /**
   * Retains message `i` of a run, or forgets that of its topic if the payload is empty [MQTT-3.3.1-6], [MQTT-3.3.1-7], 3.1.1 [MQTT-3.3.1-10], 3.1.1 [MQTT-3.3.1-11]. `ticket` is that of a message of QoS >= 1, for
   * which there is room; 0: QoS 0, which must do without if there is none.
   */
  take(topic: string, run: Run, i: number, acceptance: Acceptance, ticket: number): void {
    const refusal = ticket === 0 ? this.#refusal(topic, run, i) : null
    if (refusal !== null) this.dropped[refusal]++
    if (refusal !== null || isRemoval(run, i)) {
      // Forgotten before, it may be on the disk still.
      if (this.#forget(topic) || this.#dirty.has(topic)) this.#changed(topic, ticket !== 0)
    } else {
      const from = run.properties[i] ?? 0
      const expiryMs = run.expires ? (run.expiries[i] ?? 0) : 0
      const message = this.#reserve(recordLengthOf(run, i))
      const { slab, at } = message
      const to = run.ends[i] ?? 0
      writeRecord(slab.bytes, at, run.prefix, acceptance, expiryMs, run.bytes, from, to, (run.payloads[i] ?? 0) - from)
      this.#put(topic, message)
      this.#changed(topic, ticket !== 0)
    }
    if (ticket !== 0) this.#schedule.due(ticket)
  }

  #refusal(topic: string, run: Run, i: number): NotRetained | null {
    if (isRemoval(run, i)) return null
    const { refusal } = this.#store
    if (refusal !== null) return refusal === 'DISK_FULL' ? 'disk_full' : 'store_unavailable'
    return recordLengthOf(run, i) > this.#roomFor(topic) ? 'limit' : null
  }

  #reserve(bytes: number): RetainedMessage {
    this.#memory.take(bytes)
    return { ...this.#slabs.reserve(bytes), change: ++this.#change }
  }

  #put(topic: string, message: RetainedMessage): void {
    const known = this.#topics.get(topic)
    if (known === null) this.#index(indexBytesOf(topic))
    else this.#release(known)
    this.#topics.set(topic, message)
    if (recordExpiryMs(message.slab.bytes, message.at) > 0) this.#expiring.add(message)
    if (this.#slabs.isSparse) for (const kept of this.#topics.values()) this.#slabs.move(kept)
  }

  /** False: there was none. */
  #forget(topic: string): boolean {
    const known = this.#topics.get(topic)
    if (known === null) return false
    this.#topics.delete(topic)
    this.#index(-indexBytesOf(topic))
    this.#release(known)
    return true
  }

  #index(bytes: number): void {
    this.#indexBytes += bytes
    if (bytes > 0) this.#memory.take(bytes)
    else this.#memory.give(-bytes)
  }

  #release(message: RetainedMessage): void {
    this.#expiring.delete(message)
    this.#memory.give(bytesOf(message))
    this.#slabs.release(message)
  }

  /** Forgets the message of a topic; false: there was none. It is gone for good with the next `CommitSchedule.flush`. */
  remove(topic: string): boolean {
    if (!this.#forget(topic)) return false
    this.#changed(topic, true)
    return true
  }

  // ---- reading

  /** The messages whose topics match a filter, as they are now: what is retained later is left out. */
  walk(filter: string): RetainedWalk {
    let last = this.#change
    const topics = this.#topics.walk(filter, message => message.change <= last && !this.#isExpired(message))
    const renew = () => {
      last = this.#change
    }
    return new RetainedWalk(topics, renew)
  }

  #isExpired({ slab, at }: RetainedMessage): boolean {
    const expiryMs = recordExpiryMs(slab.bytes, at)
    return expiryMs > 0 && this.#ageMs(slab.bytes, at) >= expiryMs
  }

  /** Forgets what has expired; called every second. */
  expire(): void {
    const share = Math.max(TURN_MESSAGES, Math.ceil(this.#expiring.size / ROUND_TURNS))
    for (let n = 0; n < share; n++) {
      const { value: message, done } = this.#round.next()
      if (done === true) {
        this.#round = this.#expiring.values()
        return
      }
      if (!this.#isExpired(message)) continue
      this.expired++
      const topic = recordKey(message.slab.bytes, message.at)
      this.#forget(topic)
      this.#changed(topic, false)
    }
  }

  // ---- disk

  #changed(topic: string, isAwaited: boolean): void {
    this.#dirty.set(topic, isAwaited || this.#dirty.get(topic) === true)
    this.#schedule.touch(this)
    if (!isAwaited) this.#schedule.buffered()
  }

  isDueThrough(): boolean {
    return this.#dirty.size > 0
  }

  prepareCommit(_throughTicket: number, commit: Commit): void {
    let bytes = 0
    for (const [topic, isAwaited] of this.#dirty) {
      if (bytes >= COMMIT_BYTES && !isAwaited) continue
      this.#dirty.delete(topic)
      const message = this.#topics.get(topic)
      const value = message === null ? null : recordAt(message)
      const key = retainedKey(topic)
      commit.changes.push({ key, value })
      commit.acceptedBytes += value?.length ?? 0
      bytes += key.length + (value?.length ?? 0)
    }
  }

  committed(): void {
    if (this.#dirty.size === 0) return
    this.#schedule.touch(this)
    this.#schedule.due(0)
  }
}

const indexBytesOf = (topic: string): number => TOPIC_BYTES + 2 * topic.length

const bytesOf = ({ slab, at }: RetainedMessage): number => recordBytes(slab.bytes, at)

/** The record of a message: bytes that never change, whatever becomes of the message. */
const recordAt = (message: RetainedMessage): Buffer =>
  message.slab.bytes.subarray(message.at, message.at + bytesOf(message))

const retainedKey = (topic: string): Buffer => Buffer.concat([Buffer.from([StatePrefix.retained]), Buffer.from(topic)])

const isRemoval = (run: Run, i: number): boolean => run.payloads[i] === run.ends[i]

function recordLengthOf(run: Run, i: number): number {
  const from = run.properties[i] ?? 0
  const payload = run.payloads[i] ?? 0
  return recordLength(
    run.prefix,
    run.expires ? (run.expiries[i] ?? 0) : 0,
    payload - from,
    (run.ends[i] ?? 0) - payload,
  )
}
