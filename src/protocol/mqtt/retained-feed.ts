/*
 * Retained messages on their way to a client that has subscribed (section 3.3.1.3).
 *
 * A walk per subscription goes through the store of retained messages as the client takes them: at QoS 0 while the output has room, at QoS 1 through the session's
 * queue while nothing else waits there and the window is open. So a client that is sent 100,000 of them costs no more than one that is sent a few, nobody's messages give way to them, and what a
 * connection leaves unanswered is in the queue like everything else. A session that outlives its connection goes on where the walk stood.
 */
import type { Queue } from '../../core/queue.ts'
import { recordBytes, recordClientId } from '../../model/message.ts'
import type { Deliveries } from './deliveries.ts'
import { PUBLISH_RETAIN } from './publish-frame.ts'
import { NO_IDENTIFIERS, type SubscriptionIdentifiers } from './subscription-identifiers.ts'
import { deliveredQos, grantedQos, isNoLocal, retainedNote } from './subscription-note.ts'

/** Topics looked at in one turn of the event loop: a few milliseconds. */
const TURN_TOPICS = 4096

/** QoS 0 is answered by nobody. */
const NO_SOURCE = -1

/** A retained message in stored form: it begins at `slab.bytes[at]`. Not to be kept beyond this turn of the event loop. */
interface RetainedMessage {
  readonly slab: { readonly bytes: Buffer }
  readonly at: number
}

/** Those that match a filter, one after the other, as core/topic-map.ts goes through them. */
export interface RetainedWalk {
  readonly isDone: boolean
  /** Topics looked at so far. */
  readonly visited: number
  /** The next one; null: there is none among the next `steps` topics, or `isDone`. */
  next(steps: number): RetainedMessage | null
}

/** Where they are found. */
export interface RetainedMessages {
  /** Null: there are none. */
  walk(filter: string): RetainedWalk | null
}

interface Fed {
  readonly messages: RetainedWalk
  readonly note: number
}

export class RetainedFeed {
  readonly #clientId: string
  readonly #queue: () => Queue | null
  readonly #deliveries: Deliveries
  readonly #identifiers: SubscriptionIdentifiers
  /** By filter, in the order of their subscriptions. */
  readonly #fed = new Map<string, Fed>()
  #isGoingOn = false

  constructor({
    clientId,
    queue,
    deliveries,
    identifiers,
  }: {
    clientId: string
    /** Where messages of QoS 1 go; null: no subscription of that QoS yet. */
    queue: () => Queue | null
    deliveries: Deliveries
    identifiers: SubscriptionIdentifiers
  }) {
    this.#clientId = clientId
    this.#queue = queue
    this.#deliveries = deliveries
    this.#identifiers = identifiers
  }

  /** A subscription has come, whose messages are sent with the next `pump`, behind the SUBACK. */
  begin(filter: string, messages: RetainedWalk, note: number): void {
    this.#fed.delete(filter)
    this.#fed.set(filter, { messages, note })
  }

  /** A subscription has other options now; what it still gets, it gets by them. */
  change(filter: string, note: number): void {
    const fed = this.#fed.get(filter)
    if (fed !== undefined) this.#fed.set(filter, { ...fed, note })
  }

  /** A subscription has ended. */
  end(filter: string): void {
    this.#fed.delete(filter)
  }

  /** Sends what there is room for. */
  pump(): void {
    let left = TURN_TOPICS
    for (const [filter, { messages, note }] of this.#fed) {
      while (!messages.isDone) {
        if (!this.#hasRoom(note)) return
        if (left <= 0) {
          this.#goOnSoon()
          return
        }
        const before = messages.visited
        const message = messages.next(left)
        left -= messages.visited - before
        if (message !== null) this.#deliver(message, note)
      }
      this.#fed.delete(filter)
    }
  }

  #goOnSoon(): void {
    if (this.#isGoingOn) return
    this.#isGoingOn = true
    setImmediate(() => {
      this.#isGoingOn = false
      this.pump()
    })
  }

  #hasRoom(note: number): boolean {
    const queue = this.#queue()
    if (grantedQos(note) === 0 || queue === null) return this.#deliveries.credit(NO_SOURCE, 0) > 0
    return queue.isCaughtUp && this.#deliveries.credit(NO_SOURCE, 1) > 0
  }

  #deliver({ slab: { bytes }, at }: RetainedMessage, note: number): void {
    const queue = this.#queue()
    const isOwn = recordClientId(bytes, at) === this.#clientId
    if (isOwn && isNoLocal(note)) return // [MQTT-3.8.3-3]
    if (deliveredQos(bytes, at, note) > 0 && queue !== null) {
      queue.takeMoved(bytes.subarray(at, at + recordBytes(bytes, at)), retainedNote(note), false)
      queue.pump()
      return
    }
    const identifiers = this.#identifiers.isEmpty ? NO_IDENTIFIERS : this.#identifiers.ofRecord(bytes, at, isOwn)
    this.#deliveries.send(NO_SOURCE, bytes, at, 0, 0, PUBLISH_RETAIN, identifiers) // 3.1.1 [MQTT-3.3.1-8]
  }
}
