import type { Binding, Destination } from '../../core/binding.ts'
import type { Consumer, LiveReceiver } from '../../core/consumer.ts'
import { MAX_CONSUMERS } from '../../core/consumers.ts'
import type { Queue } from '../../core/queue.ts'
import type { Router } from '../../core/router.ts'
import { copyPart, createRun, type Run } from '../../core/run.ts'
import { BrokerError } from '../../model/error.ts'
import { MQTT_EXCHANGE, type QoS } from '../../model/message.ts'
import type { MqttCounters } from './counters.ts'

/** A session as its groups see it. */
export interface SharedMember {
  /** Its client is connected, and the output to it has room. */
  readonly hasRoom: boolean
  /** It outlives its connections, and the gateway. */
  readonly isKept: boolean
  /** Nothing waits for it in its own queue, and that has room for one message more. */
  readonly canTakeOver: boolean
  /** Sends it a run at QoS 0, as its membership says. */
  deliverShared(run: Run, topic: string, membership: Membership): void
  /** Sends it a message of QoS 2 from its own queue, whose entry has this note. */
  takeOver(record: Buffer, note: number): void
}

/** A part of a run; refilled for each. */
const PART = createRun(0, { bytes: Buffer.alloc(0), qos: 0 })

export interface Membership {
  readonly member: SharedMember
  /** The QoS granted to it. */
  readonly qos: QoS
  /** Its options, as in subscription-note.ts. */
  readonly note: number
  /** Its subscription identifier as a property; empty: none. */
  readonly identifiers: Buffer
}

/**
 * All sessions that share one subscription, `$share/GROUP/FILTER` (5.0 section 4.8.2): to the exchange one destination, so that each message goes to one
 * of them.
 *
 * QoS 1 goes through the group's queue, of which every connected member is a consumer. QoS 0 goes straight into the output of a member that is connected and
 * has room, in turn; it is never queued, so there is no member that it waits for. While no member was granted more than QoS 0, everything goes that way.
 */
export class SharedGroup implements Destination, LiveReceiver {
  readonly name: string
  readonly filter: string
  readonly live: LiveReceiver = this
  readonly queue: Queue
  readonly #router: Router
  readonly #counters: MqttCounters
  readonly #onKept: (queue: Queue) => void
  readonly #onEnd: (queue: Queue) => void
  #memberships: Membership[] = []
  /** Those connected, and those that have left with messages unanswered. */
  readonly #consumers = new Map<SharedMember, Consumer>()
  #binding: Binding | null = null
  #isEnded = false
  /** Index of the member whose turn it is to get QoS 0. */
  #turn = 0

  /**
   * `onKept` makes the queue durable, with the first member that outlives its connections. `onEnd` ends the queue, when there are neither members nor consumers
   * any more.
   */
  constructor({
    name,
    filter,
    queue,
    router,
    counters,
    onKept,
    onEnd,
  }: {
    name: string
    filter: string
    queue: Queue
    router: Router
    counters: MqttCounters
    onKept: (queue: Queue) => void
    onEnd: (queue: Queue) => void
  }) {
    this.name = name
    this.filter = filter
    this.queue = queue
    this.#router = router
    this.#counters = counters
    this.#onKept = onKept
    this.#onEnd = onEnd
  }

  /**
   * Takes a session in, or notes the options it has now.
   * @throws BrokerError QUEUE_IN_USE if there are as many as a queue may have consumers: so each of them finds its place when it is connected.
   */
  join(membership: Membership): void {
    const { member } = membership
    const others = this.#memberships.filter(other => other.member !== member)
    const places = new Set([...others.map(other => other.member), ...this.#consumers.keys()])
    if (places.size >= MAX_CONSUMERS && !places.has(member)) {
      throw new BrokerError(
        'QUEUE_IN_USE',
        `${this.name} is shared by ${MAX_CONSUMERS} sessions, the most there may be`,
        {
          facts: { group: this.name, members: MAX_CONSUMERS },
        },
      )
    }
    this.#memberships = [...others, membership]
    const isKeptNow = member.isKept && !this.queue.isDurable
    if (isKeptNow) this.#onKept(this.queue)
    this.#bind(isKeptNow)
  }

  /** The session has no part in it any more. One that has none is ignored. */
  leave(member: SharedMember): void {
    this.#memberships = this.#memberships.filter(other => other.member !== member)
    this.#bind(false)
    this.#endIfUnused()
  }

  /** The client of a member is connected. */
  attach(member: SharedMember, consumer: Consumer): void {
    this.queue.attach(consumer)
    this.#consumers.set(member, consumer)
  }

  /** It is gone, or has answered the last message after it left. */
  detach(member: SharedMember): void {
    const consumer = this.#consumers.get(member)
    if (consumer === undefined) return
    this.#consumers.delete(member)
    this.queue.detach(consumer)
    this.#endIfUnused()
  }

  #endIfUnused(): void {
    if (this.#memberships.length > 0 || this.#consumers.size > 0 || this.#isEnded) return
    this.#isEnded = true
    this.#onEnd(this.queue)
  }

  /** Binds anew only where that changes something, such as where the queue is: it makes all routes be looked up again. */
  #bind(isQueueChanged: boolean): void {
    const bound = this.#binding
    const maxQos = this.#memberships.some(({ qos }) => qos > 0) ? 1 : 0
    const isWanted = this.#memberships.length > 0
    if (!isQueueChanged && (isWanted ? bound?.maxQos === maxQos : bound === null)) return
    if (bound !== null) this.#router.unbind(MQTT_EXCHANGE, bound)
    this.#binding = isWanted ? { pattern: this.filter, destination: this, maxQos, note: 0 } : null
    if (this.#binding !== null) this.#router.bind(MQTT_EXCHANGE, this.#binding)
  }

  /** Each member with room gets a part of the run, beginning with the one whose turn it is; a part is one slice. */
  deliverRun(run: Run, topic: string): void {
    const memberships = this.#memberships
    const share = Math.ceil(run.count / memberships.length)
    let from = 0
    let passedOver = 0
    while (from < run.count && passedOver < memberships.length) {
      this.#turn = this.#turn + 1 < memberships.length ? this.#turn + 1 : 0
      const membership = memberships[this.#turn]
      if (membership?.member.hasRoom !== true) {
        passedOver++
        continue
      }
      const { member } = membership
      const to = Math.min(from + share, run.count)
      if (to - from === run.count) {
        member.deliverShared(run, topic, membership)
      } else {
        copyPart(run, from, to, PART)
        member.deliverShared(PART, topic, membership)
      }
      from = to
      passedOver = 0
    }
    this.#counters.droppedBy[this.#consumers.size === 0 ? 'not_connected' : 'output_full'] += run.count - from
  }
}
