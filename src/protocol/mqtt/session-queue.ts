import type { Permissions } from '../../core/acl.ts'
import type { Queue } from '../../core/queue.ts'
import { recordClientId, recordTopic } from '../../model/message.ts'
import type { Deliveries, Source } from './deliveries.ts'
import { PUBLISH_DUP } from './publish-frame.ts'
import { NO_IDENTIFIERS, type SubscriptionIdentifiers } from './subscription-identifiers.ts'
import { deliveredQos, isNoLocal, isShared, retainFlag } from './subscription-note.ts'

/** The source of what a session's own subscriptions select: the session's queue. While there is no connection it fills: 3.1.1 [MQTT-3.1.2-5]. */
export class SessionQueue implements Source {
  readonly #queue: Queue
  readonly #clientId: string
  readonly #deliveries: Deliveries
  readonly #identifiers: SubscriptionIdentifiers
  readonly #number: number
  /** Messages before this position may have come by a subscription that is gone. */
  #judgedEnd = 0
  #permissions: Permissions | null = null

  constructor({
    queue,
    clientId,
    deliveries,
    identifiers,
  }: {
    queue: Queue
    clientId: string
    deliveries: Deliveries
    identifiers: SubscriptionIdentifiers
  }) {
    this.#queue = queue
    this.#clientId = clientId
    this.#deliveries = deliveries
    this.#identifiers = identifiers
    this.#number = deliveries.add(this)
  }

  /** Its number among the sources. */
  get number(): number {
    return this.#number
  }

  get credit(): number {
    return this.#deliveries.credit(this.#number, 1)
  }

  get hasWaiting(): boolean {
    return !this.#queue.isCaughtUp
  }

  deliver(bytes: Buffer, at: number, position: number, note: number, attempts: number): void {
    if (isNoLocal(note) && recordClientId(bytes, at) === this.#clientId) {
      this.#queue.settle(position) // [MQTT-3.8.3-3]
      return
    }
    if (position < this.#judgedEnd && this.#permissions?.maySubscribe(recordTopic(bytes, at)) === false) {
      this.#deliveries.forgo(this.#number, position)
      this.#queue.reject(position, 'not_authorized')
      return
    }
    const qos = deliveredQos(bytes, at, note)
    const flags = retainFlag(bytes, at, note) | (attempts > 0 && qos > 0 ? PUBLISH_DUP : 0) // [MQTT-3.3.1-1], [MQTT-3.3.1-2]
    const identifiers = isShared(note) ? NO_IDENTIFIERS : this.#identifiers.ofRecord(bytes, at)
    const unsendable = this.#deliveries.send(this.#number, bytes, at, position, qos, flags, identifiers)
    if (unsendable !== null) this.#queue.reject(position, unsendable)
    else if (qos === 0) this.#queue.settle(position)
  }

  pump(): void {
    this.#queue.pump()
  }

  /** A refusal is an acknowledgement too: the message is not sent again [MQTT-4.4.0-2]. */
  answered(position: number): void {
    this.#queue.settle(position)
  }

  /** What waits now goes to the client only if it may subscribe to its topic when its turn comes. */
  judge(permissions: Permissions): void {
    this.#permissions = permissions
    this.#judgedEnd = this.#queue.end
  }

  /** There is a connection. */
  attach(): void {
    this.#queue.attach(this)
  }

  /** The connection is over: what it left unanswered goes back to its places. */
  detach(): void {
    this.#queue.detach(this)
  }

  /** The session is over, and what waits for it goes. */
  close(): void {
    this.#queue.delete('session_ended')
  }
}
