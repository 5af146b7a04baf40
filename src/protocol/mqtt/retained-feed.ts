/*
 * Retained messages on their way to a client that has subscribed (section 3.3.1.3).
 *
 * A walk per subscription goes through the store of retained messages as the client takes them: at QoS 0 while the output has room, at QoS 1 through the session's
 * queue while nothing else waits there and the window is open. So a client that is sent 100,000 of them costs no more than one that is sent a few, nobody's messages give way to them, and what a
 * connection leaves unanswered is in the queue like everything else. A session that outlives its connection goes on where
 * the walk stood, and after a restart of the gateway from the beginning.
 */
import type { Queue } from '../../core/queue.ts'
import { recordBytes, recordClientId } from '../../model/message.ts'
import type { Deliveries } from './deliveries.ts'
import { PUBLISH_RETAIN } from './publish-frame.ts'
import type { SubscriptionIdentifiers } from './subscription-identifiers.ts'
import { deliveredQos, grantedQos, isNoLocal, retainedNote } from './subscription-note.ts'

/** Topics looked at at once, when a client has subscribed or has room again: mostly that is all there is. */
const FIRST_TOPICS = 256
/** And in one turn of the event loop, all feeds together, by those that have not come to an end: a few milliseconds. */
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
  /** Takes in what has changed since it began, where it has not been. */
  renew(): void
}

/** Where they are found. */
export interface RetainedMessages {
  /** Null: there are none. */
  walk(filter: string): RetainedWalk | null
}

interface Fed {
  readonly messages: RetainedWalk
  readonly note: number
  readonly onFed: () => void
}

/** Whoever has a long way to go waits for its turn, so that everybody else is served between two of them, however many there are. */
export class FeedTurns {
  readonly #waiting = new Set<RetainedFeed>()

  isWaiting(feed: RetainedFeed): boolean {
    return this.#waiting.has(feed)
  }

  wait(feed: RetainedFeed): void {
    if (this.#waiting.size === 0) setImmediate(this.#next)
    this.#waiting.add(feed)
  }

  readonly #next = (): void => {
    for (const feed of this.#waiting) {
      // Last before the others: it may want a further turn.
      this.#waiting.delete(feed)
      const isOver = feed.goOn(TURN_TOPICS)
      if (!isOver) this.#waiting.add(feed)
      break
    }
    if (this.#waiting.size > 0) setImmediate(this.#next)
  }
}

export class RetainedFeed {
  readonly #turns: FeedTurns
  readonly #clientId: string
  readonly #queue: () => Queue | null
  readonly #deliveries: Pick<Deliveries, 'credit' | 'send'>
  readonly #identifiers: SubscriptionIdentifiers
  readonly #onTooLarge: () => void
  /** By filter, in the order of their subscriptions. */
  readonly #fed = new Map<string, Fed>()

  constructor({
    turns,
    clientId,
    queue,
    deliveries,
    identifiers,
    onTooLarge,
  }: {
    turns: FeedTurns
    clientId: string
    /** Where messages of QoS 1 go; null: no subscription of that QoS yet. */
    queue: () => Queue | null
    deliveries: Pick<Deliveries, 'credit' | 'send'>
    identifiers: SubscriptionIdentifiers
    /** A message of QoS 0 is larger than the client takes. */
    onTooLarge: () => void
  }) {
    this.#turns = turns
    this.#clientId = clientId
    this.#queue = queue
    this.#deliveries = deliveries
    this.#identifiers = identifiers
    this.#onTooLarge = onTooLarge
  }

  /** A subscription has come, whose messages are sent with the next `pump`, behind the SUBACK. */
  begin(filter: string, messages: RetainedWalk, note: number): void {
    this.#fed.delete(filter)
    this.#fed.set(filter, { messages, note, onFed: () => undefined })
  }

  /** Calls `onFed` when this subscription has been sent all of them. False: it has. */
  tell(filter: string, onFed: () => void): boolean {
    const fed = this.#fed.get(filter)
    if (fed !== undefined) this.#fed.set(filter, { ...fed, onFed })
    return fed !== undefined
  }

  /** The client is back: what was retained at QoS 0 meanwhile has not come to it by its subscriptions. */
  attach(): void {
    for (const { messages } of this.#fed.values()) messages.renew()
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

  /** Sends what there is room for; what takes longer follows in turns of its own. */
  pump(): void {
    if (this.#fed.size === 0 || this.#turns.isWaiting(this)) return
    if (!this.goOn(FIRST_TOPICS)) this.#turns.wait(this)
  }

  /** Looks at so many topics. False: there are more, and room for what may be found. */
  goOn(topics: number): boolean {
    let left = topics
    for (const [filter, { messages, note, onFed }] of this.#fed) {
      while (!messages.isDone) {
        if (!this.#hasRoom(note)) return true
        if (left <= 0) return false
        const before = messages.visited
        const message = messages.next(left)
        left -= messages.visited - before
        if (message !== null) this.#deliver(message, note)
      }
      this.#fed.delete(filter)
      onFed()
    }
    return true
  }

  #hasRoom(note: number): boolean {
    const queue = this.#queue()
    if (grantedQos(note) === 0 || queue === null) return this.#deliveries.credit(NO_SOURCE, 0) > 0
    return queue.isCaughtUp && this.#deliveries.credit(NO_SOURCE, 1) > 0
  }

  #deliver({ slab: { bytes }, at }: RetainedMessage, note: number): void {
    const queue = this.#queue()
    if (isNoLocal(note) && recordClientId(bytes, at) === this.#clientId) return // [MQTT-3.8.3-3]
    if (deliveredQos(bytes, at, note) > 0 && queue !== null) {
      queue.takeMoved(bytes.subarray(at, at + recordBytes(bytes, at)), retainedNote(note), false)
      queue.pump()
      return
    }
    const identifiers = this.#identifiers.ofRecord(bytes, at)
    const unsendable = this.#deliveries.send(NO_SOURCE, bytes, at, 0, 0, PUBLISH_RETAIN, identifiers) // 3.1.1 [MQTT-3.3.1-8]
    if (unsendable === 'too_large') this.#onTooLarge() // [MQTT-3.1.2-25]
  }
}
