/*
 * Moves messages from one queue to others: dead letters and replays. The message keeps its id; its address and its history change, its expiry is gone.
 *
 * A move is atomic. What the targets take here and what the source marks in the same turn of the event loop stands in one commit: the move makes everything taken
 * so far due, a commit begins in a later turn, and it takes all that is due and the marks of all queues (docs/storage-format.md, section 4).
 */

import { type DeathHistory, encodeHistory, isCycle, type Moment } from '../model/death-history.ts'
import type { ErrorCode } from '../model/error.ts'
import {
  MQTT_EXCHANGE,
  movedRecord,
  PropertiesTag,
  recordExpiryMs,
  recordIsTopic,
  recordKey,
  recordPayloadAt,
  recordPropertiesAt,
  recordPropertiesTag,
  recordQos,
  swapSeparators,
} from '../model/message.ts'
import { withoutMessageExpiry } from '../model/mqtt5-properties.ts'
import type { Clock } from './clock.ts'
import { DEFAULT_EXCHANGE } from './exchange.ts'
import type { Keeper } from './keeper.ts'
import { messageHeaders } from './message-headers.ts'
import { isTopicName, type QueueTarget, type Route, type RoutingTable } from './routing-table.ts'
import { createRun } from './run.ts'

/** Where messages are sent. */
export interface MessageAddress {
  /** Empty: the default exchange, which knows each queue by its name. */
  readonly exchange: string
  /** Null: the key each message has. */
  readonly key: string | null
}

/**
 * moved: at least one queue took it. held: nobody can take it now, because the exchange or the queue that is named is not there, a target is full or the disk is; it stays
 * where it is. cycle, unrouted: nothing is to take it, and it is to be dropped.
 */
export type MoveOutcome = 'moved' | 'held' | 'cycle' | 'unrouted'

export class Mover {
  readonly #table: RoutingTable
  readonly #clock: Clock
  readonly #boot: number
  readonly #refusal: () => ErrorCode | null
  /** Queues that are letting go of a message right now: where one overflows into the next, they must not come round. */
  readonly #sources = new Set<Keeper>()
  readonly #toPump = new Set<Keeper>()

  constructor({
    table,
    clock,
    boot,
    refusal,
  }: {
    table: RoutingTable
    clock: Clock
    /** Number of this process start. */
    boot: number
    /** Why the store takes nothing new now; null: it does. */
    refusal: () => ErrorCode | null
  }) {
    this.#table = table
    this.#clock = clock
    this.#boot = boot
    this.#refusal = refusal
  }

  /** The moment, for the history of what is moved now. */
  now(): Moment {
    return { boot: this.#boot, ms: Math.floor(this.#clock.monotonicMs()) }
  }

  /**
   * Moves the record at `at`, which `from` lets go of in this turn of the event loop if the outcome is `moved`. `history` has the event that moves it.
   * What the targets deliver of it, they deliver later.
   */
  move(bytes: Buffer, at: number, to: MessageAddress, history: DeathHistory, from: Keeper): MoveOutcome {
    const route = this.#routeOf(bytes, at, to)
    if (route === 'held' || route === 'unrouted') return route
    const targets = route.queues1.filter(({ queue }) => !isCycle(history, queue.name))
    if (targets.length === 0 && route.live1.length === 0) return route.queues1.length > 0 ? 'cycle' : 'unrouted'
    if (this.#refusal() !== null && targets.some(({ queue }) => queue.isDurable)) return 'held'
    const { exchange, key } = route
    const record = movedRecord(bytes, at, {
      exchange,
      key,
      history: encodeHistory(history),
      properties: propertiesOf(bytes, at),
    })
    this.#sources.add(from)
    try {
      if (!targets.every(({ queue }) => this.#hasRoom(queue, from, record.length))) return 'held'
      this.#enqueue(targets, record)
    } finally {
      this.#sources.delete(from)
    }
    if (route.live1.length > 0) this.#deliver(route, record)
    return 'moved'
  }

  /** What `move` would say, as far as it does not depend on room. */
  outcomeOf(bytes: Buffer, at: number, to: MessageAddress): MoveOutcome {
    const route = this.#routeOf(bytes, at, to)
    if (route === 'held' || route === 'unrouted') return route
    return route.queues1.length + route.live1.length === 0 ? 'unrouted' : 'moved'
  }

  #routeOf(bytes: Buffer, at: number, { exchange, key: given }: MessageAddress): Route | 'held' | 'unrouted' {
    if (!this.#table.has(exchange)) return 'held'
    const isTopic = exchange === MQTT_EXCHANGE
    const own = recordKey(bytes, at)
    const key = given ?? (isTopic === recordIsTopic(bytes, at) ? own : swapSeparators(own))
    if (isTopic && !isTopicName(key)) return 'unrouted'
    const route = this.#table.route(exchange, key)
    // The default exchange has no bindings to forget: the one queue that is named is not there.
    if (exchange === DEFAULT_EXCHANGE && !route.isRouted) return 'held'
    if (!route.readsHeaders) return route
    const tag = recordPropertiesTag(bytes, at)
    const headers = messageHeaders(tag, bytes, recordPropertiesAt(bytes, at), recordPayloadAt(bytes, at))
    return this.#table.resolve(exchange, key, headers)
  }

  #hasRoom(queue: Keeper, from: Keeper, bytes: number): boolean {
    return (queue === from || !this.#sources.has(queue)) && queue.admit(1, bytes) !== 'refuse'
  }

  #enqueue(targets: readonly QueueTarget[], record: Buffer): void {
    const isShared = targets.filter(({ queue }) => queue.isDurable).length > 1
    for (const { queue, note } of targets) {
      if (queue.admit(1, record.length) === 'drop') {
        queue.bookDropped(1, 'overflow')
        continue
      }
      queue.takeMoved(record, note, isShared)
      if (this.#toPump.size === 0) queueMicrotask(() => this.#pump())
      this.#toPump.add(queue)
    }
  }

  /** To those who receive at QoS 0, without a queue. */
  #deliver({ live1, topic }: Route, record: Buffer): void {
    const run = createRun(0, { bytes: record, qos: recordQos(record, 0) })
    run.bytes = record
    run.count = 1
    run.properties[0] = recordPropertiesAt(record, 0)
    run.payloads[0] = recordPayloadAt(record, 0)
    run.ends[0] = record.length
    run.propertiesTag = recordPropertiesTag(record, 0)
    for (const { receiver, note } of live1) receiver.deliverRun(run, topic, note)
  }

  /** Apart from the move: consumers do what they like with other queues, and the source is in the midst of letting go. */
  #pump(): void {
    const queues = [...this.#toPump]
    this.#toPump.clear()
    for (const queue of queues) queue.pump()
  }
}

function propertiesOf(bytes: Buffer, at: number): Buffer {
  const properties = bytes.subarray(recordPropertiesAt(bytes, at), recordPayloadAt(bytes, at))
  const isMqtt5 = recordPropertiesTag(bytes, at) === PropertiesTag.mqtt5
  return isMqtt5 && recordExpiryMs(bytes, at) > 0 ? withoutMessageExpiry(properties) : properties
}
