/*
 * Sessions that outlive their connections, as the disk knows them: so that after a restart they are found with their subscriptions, their queue and
 * what is left of their time. What they are to a client is the protocol's affair.
 *
 * Invariants
 * - A session's records are written in the order of its changes; who was promised something waits for the one that keeps it.
 * - Its queue's number stands in its record, and goes from there to the queues to be emptied in one commit: so the messages of a session never come back
 *   without it.
 *
 * WARNING: these are on-disk formats (docs/storage-format.md). In state/ under `n`:
 *
 *   `s` client id                  the session (SessionRecord, JSON)
 *   `f` client id, 0, filter       one subscription (JSON): no client id has U+0000
 *   `i` client id                  its packet ids of QoS 2 (session-ids.ts)
 *   `g` name                       the queue of a group that shares a subscription: its number (JSON)
 *   `e` number (u32)               a queue to be emptied, whose session or group has ended: its name
 *
 * and under `w`:
 *
 *   client id                      the will of a session (WillRecord, JSON) from CONNECT until it is published or given up
 */
import type { Moment } from '../model/death-history.ts'
import { BrokerError } from '../model/error.ts'
import type { Message, QoS } from '../model/message.ts'
import { StatePrefix } from '../store/keys.ts'
import type { Store } from '../store/store.ts'
import type { Identity } from './access.ts'
import type { Clock } from './clock.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import { decodeDefinitionRecord, encodeDefinitionRecord } from './definition-record.ts'
import type { Identities } from './identity.ts'
import type { Queue, QueueLimits } from './queue.ts'
import { numberBytes } from './queue-definition.ts'
import {
  decodePacketIds,
  NO_PACKET_IDS,
  PACKET_IDS,
  type PacketIdOwner,
  type PacketIdRecord,
  SessionIds,
} from './session-ids.ts'
import type { Tickets } from './tickets.ts'
import type { Topology } from './topology.ts'

/** A subscription as a session keeps it: with the QoS granted. */
export interface KeptSubscription {
  readonly filter: string
  readonly qos: QoS
  readonly isNoLocal: boolean
  readonly isRetainAsPublished: boolean
  /** 0: none. */
  readonly identifier: number
  /** It has not been sent all the retained messages it was to be sent. */
  readonly isOwedRetained: boolean
}

interface SessionRecord {
  /** Who its client has proved to be; null: nobody in particular. */
  readonly user: string | null
  /** Of that user, at its last login. Records of earlier versions have none. */
  readonly groups?: readonly string[]
  /** How long it outlives each of its connections, milliseconds. */
  readonly expiryMs: number
  /** When its last connection ended; null: it has one. A crash ends it too, at the start that follows. */
  readonly awaySince: Moment | null
  /** Number of its queue in the store; null: it has none. */
  readonly queue: number | null
}

type SubscriptionRecord = Omit<KeptSubscription, 'filter'>

/** A message that is published when a connection has ended in a way its client did not want. */
export interface Will {
  /** How long after that, milliseconds, unless the session ends before. */
  readonly delayMs: number
  readonly message: Message
}

/** Bytes in base64. */
interface WillRecord {
  readonly delayMs: number
  readonly message: Omit<Message, 'properties' | 'payload'> & { readonly properties: string; readonly payload: string }
}

/** A session that was there before this start. */
export interface RestoredSession {
  readonly session: KeptSession
  /** Its connection, which is over now, has left it. */
  readonly will: Will | null
  readonly subscriptions: readonly KeptSubscription[]
  readonly packetIds: PacketIdRecord
}

const key = (kind: string, ...rest: Buffer[]): Buffer =>
  Buffer.concat([Buffer.from([StatePrefix.session]), Buffer.from(kind), ...rest])

const SESSIONS = key('s')
const SUBSCRIPTIONS = key('f')
const GROUPS = key('g')
const ENDED_QUEUES = key('e')
const WILLS = Buffer.from([StatePrefix.will])
const KIND_BYTES = SESSIONS.length

const sessionKey = (clientId: string): Buffer => key('s', Buffer.from(clientId))
const subscriptionKey = (clientId: string, filter: string): Buffer => key('f', Buffer.from(`${clientId}\0${filter}`))
const willKey = (clientId: string): Buffer => Buffer.concat([WILLS, Buffer.from(clientId)])
const groupKey = (name: string): Buffer => key('g', Buffer.from(name))
const endedQueueKey = (number: number): Buffer => key('e', numberBytes(number))

/** The queue of a session, whether or not that outlives its connections. */
export const sessionQueueName = (clientId: string): string => `session:${clientId}`

/** Of the queue of a session, or of a group that shares a subscription: `limits.session_queue`. */
export const sessionQueueLimits = (limits: Omit<QueueLimits, 'ageMs'>): QueueLimits => ({
  ...limits,
  ageMs: Number.POSITIVE_INFINITY,
})

function encodeWill({ delayMs, message }: Will): Buffer {
  const [properties, payload] = [message.properties, message.payload].map(bytes => bytes.toString('base64'))
  return encodeDefinitionRecord({ delayMs, message: { ...message, properties, payload } })
}

function decodeWill(value: Buffer): Will {
  const { delayMs, message } = decodeDefinitionRecord<WillRecord>(value)
  const { properties, payload } = message
  return {
    delayMs,
    message: { ...message, properties: Buffer.from(properties, 'base64'), payload: Buffer.from(payload, 'base64') },
  }
}

interface FoundSession extends RestoredSession {
  will: Will | null
  readonly subscriptions: KeptSubscription[]
  packetIds: PacketIdRecord
}

interface Parts {
  readonly store: Store
  readonly schedule: CommitSchedule
  readonly tickets: Tickets
  readonly topology: Topology
  readonly identities: Identities
  readonly clock: Clock
  /** `limits.session_queue` */
  readonly queueLimits: QueueLimits
}

interface GroupRecord {
  readonly queue: number
}

export class KeptSessions {
  readonly #parts: Parts
  /** Queues of groups that share a subscription, by name of the group; those found that are not opened yet are null. */
  readonly #groups = new Map<string, { readonly number: number; queue: Queue | null }>()
  #found: FoundSession[] = []
  /** Queues whose sessions or groups have ended, by number, and which of them are being emptied. */
  readonly #ended = new Map<number, Queue>()
  readonly #emptying = new Set<number>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Reads the records, and claims the numbers of their queues; before the topology is loaded. @throws BrokerError STORE_FORMAT_UNKNOWN */
  async load(): Promise<void> {
    const { store, topology } = this.#parts
    const byClient = new Map<string, FoundSession>()
    for await (const [found, value] of store.readState(SESSIONS)) {
      const clientId = found.toString('utf8', KIND_BYTES)
      const record = decodeDefinitionRecord<SessionRecord>(value)
      const session = new KeptSession(clientId, record, this, this.#parts)
      byClient.set(clientId, { session, will: null, subscriptions: [], packetIds: NO_PACKET_IDS })
      if (record.queue !== null) topology.claim(record.queue)
    }
    for await (const [found, value] of store.readState(SUBSCRIPTIONS)) {
      const [clientId = '', filter = ''] = found.toString('utf8', KIND_BYTES).split('\0')
      byClient.get(clientId)?.subscriptions.push({ filter, ...decodeDefinitionRecord<SubscriptionRecord>(value) })
    }
    for await (const [found, value] of store.readState(WILLS)) {
      const session = byClient.get(found.toString('utf8', WILLS.length))
      if (session === undefined) continue
      session.will = decodeWill(value)
      session.session.hasWill = true
    }
    for await (const [found, value] of store.readState(PACKET_IDS)) {
      const known = byClient.get(found.toString('utf8', KIND_BYTES))
      if (known !== undefined) known.packetIds = decodePacketIds(value)
    }
    for await (const [found, value] of store.readState(GROUPS)) {
      const { queue: number } = decodeDefinitionRecord<GroupRecord>(value)
      this.#groups.set(found.toString('utf8', KIND_BYTES), { number, queue: null })
      topology.claim(number)
    }
    for await (const [found] of store.readState(ENDED_QUEUES)) topology.claim(found.readUInt32BE(KIND_BYTES))
    this.#found = [...byClient.values()]
  }

  /** Opens the queues of the sessions found; once, when the topology is loaded. Those that were connected count as away from now on. */
  async restore(): Promise<readonly RestoredSession[]> {
    const { store, topology, queueLimits } = this.#parts
    for (const { session } of this.#found) await session.restore()
    for (const [name, group] of this.#groups) group.queue = await topology.openClaimed(group.number, name, queueLimits)
    for await (const [found, name] of store.readState(ENDED_QUEUES)) {
      const number = found.readUInt32BE(KIND_BYTES)
      this.#ended.set(number, await topology.openClaimed(number, name.toString(), queueLimits))
    }
    this.expire()
    const found = this.#found
    this.#found = []
    return found
  }

  /** A new session; nothing of it is written before `connected`. */
  begin(clientId: string): KeptSession {
    return new KeptSession(
      clientId,
      { user: null, groups: [], expiryMs: 0, awaySince: null, queue: null },
      this,
      this.#parts,
    )
  }

  // ---- groups that share a subscription: durable once a session that outlives its connection has a part in one

  /** Names of those that are kept. */
  groupNames(): string[] {
    return [...this.#groups.keys()]
  }

  /** The queue of a group that is kept; null: it is not. */
  groupQueue(name: string): Queue | null {
    return this.#groups.get(name)?.queue ?? null
  }

  /** Keeps the queue of a group, so far in memory, with what is in it. The disk knows when it knows of what comes after. */
  keepGroup(name: string, queue: Queue): void {
    const number = this.#parts.topology.keepClaimed(queue)
    this.#groups.set(name, { number, queue })
    void this.change(groupKey(name), encodeDefinitionRecord({ queue: number } satisfies GroupRecord))
  }

  /** Nobody has a part in the group any more: its queue goes with what is in it. False: it is not kept. */
  endGroup(name: string): boolean {
    const group = this.#groups.get(name)
    if (group === undefined || group.queue === null) return false
    this.#groups.delete(name)
    this.ended(group.number, group.queue)
    void this.change(groupKey(name), null)
    return true
  }

  /** Writes one record, or deletes it. Who waits for that is told; a rejection nobody waits for says no more than that the gateway stops. */
  change(key: Buffer, value: Buffer | null): Promise<void> {
    const done = this.#parts.schedule.change({ key, value })
    done.catch(() => undefined)
    return done
  }

  // ---- queues to be emptied

  /** Empties what ended sessions and groups have left; called every second. */
  expire(): void {
    for (const [number, queue] of this.#ended) this.#empty(number, queue)
  }

  /** The session or the group of this queue has ended in the commit that is being gathered. */
  ended(number: number, queue: Queue): void {
    void this.change(endedQueueKey(number), Buffer.from(queue.name))
    this.#ended.set(number, queue)
    this.#empty(number, queue)
  }

  #empty(number: number, queue: Queue): void {
    if (this.#emptying.has(number)) return
    this.#emptying.add(number)
    const { topology, schedule } = this.#parts
    topology
      .endClaimed(number, queue)
      .then(() => {
        this.#ended.delete(number)
        return schedule.change({ key: endedQueueKey(number), value: null })
      })
      .catch((error: unknown) => {
        // The store is being reopened, or the gateway stops: it is tried again in a second, or at the next start.
        if (!(error instanceof BrokerError)) throw error
      })
      .finally(() => this.#emptying.delete(number))
  }
}

/** One session's part on the disk. Its changes resolve when they are there; they reject with BrokerError only when the gateway stops. */
export class KeptSession {
  readonly clientId: string
  queue: Queue | null = null
  /** The disk has one. */
  hasWill = false
  readonly #sessions: KeptSessions
  readonly #parts: Parts
  #record: SessionRecord

  constructor(clientId: string, record: SessionRecord, sessions: KeptSessions, parts: Parts) {
    this.clientId = clientId
    this.#record = record
    this.#sessions = sessions
    this.#parts = parts
  }

  /** Of its client, at its last login. */
  get identity(): Identity {
    const { user, groups = [] } = this.#record
    return { user, groups }
  }

  get expiryMs(): number {
    return this.#record.expiryMs
  }

  /** Since the end of its last connection, milliseconds, by what is known of the clock now (design.md section 5); 0 while it has one. */
  get awayMs(): number {
    const { awaySince } = this.#record
    return awaySince === null ? 0 : this.#parts.identities.sinceMs(awaySince)
  }

  /** A connection has come. */
  connected({
    identity: { user, groups },
    expiryMs,
    will,
  }: {
    identity: Identity
    expiryMs: number
    will: Will | null
  }): Promise<void> {
    if (will === null) this.endWill()
    else void this.#sessions.change(willKey(this.clientId), encodeWill(will)) // [MQTT-3.1.2-7]
    this.hasWill = will !== null
    return this.#write({ ...this.#record, user, groups, expiryMs, awaySince: null })
  }

  /** It has been published just now, or will not be. The commit that takes it from the disk takes all messages there are, so a crash leaves the one or the other. */
  endWill(): void {
    if (!this.hasWill) return
    this.hasWill = false
    void this.#sessions.change(willKey(this.clientId), null) // [MQTT-3.1.2-10]
    const { schedule, tickets } = this.#parts
    schedule.due(tickets.last)
  }

  /** Its connection has ended, and it outlives that. */
  disconnected(expiryMs: number): void {
    // Nothing was promised to anybody: a crash that undoes it ends the connection once more, a little later.
    void this.#write({ ...this.#record, expiryMs, awaySince: this.#now() })
  }

  subscribed({ filter, ...subscription }: KeptSubscription): Promise<void> {
    return this.#sessions.change(subscriptionKey(this.clientId, filter), encodeDefinitionRecord(subscription))
  }

  unsubscribed(filter: string): Promise<void> {
    return this.#sessions.change(subscriptionKey(this.clientId, filter), null)
  }

  /** Its queue, made if there is none yet. */
  takeQueue(): Queue {
    if (this.queue !== null) return this.queue
    const { topology, queueLimits } = this.#parts
    const { number, queue } = topology.newClaimed(sessionQueueName(this.clientId), queueLimits)
    this.queue = queue
    void this.#write({ ...this.#record, queue: number })
    return queue
  }

  /** Its packet ids of QoS 2, from now on until `end` of them. */
  keepIds(owner: PacketIdOwner): SessionIds {
    return new SessionIds(this.clientId, owner, this.#parts)
  }

  /** It is over, with these subscriptions and all that waits for it; nothing is bound to its queue any more. */
  end(filters: Iterable<string>): Promise<void> {
    this.endWill()
    for (const filter of filters) void this.unsubscribed(filter)
    const { queue } = this.#record
    if (queue !== null && this.queue !== null) this.#sessions.ended(queue, this.queue)
    return this.#sessions.change(sessionKey(this.clientId), null)
  }

  /** For a start: opens its queue. */
  async restore(): Promise<void> {
    const { topology, queueLimits } = this.#parts
    const { queue, awaySince } = this.#record
    if (queue !== null) this.queue = await topology.openClaimed(queue, sessionQueueName(this.clientId), queueLimits)
    if (awaySince === null) void this.#write({ ...this.#record, awaySince: this.#now() })
  }

  #now(): Moment {
    return { boot: this.#parts.store.boot.boot, ms: Math.floor(this.#parts.clock.monotonicMs()) }
  }

  #write(record: SessionRecord): Promise<void> {
    this.#record = record
    return this.#sessions.change(sessionKey(this.clientId), encodeDefinitionRecord(record))
  }
}
