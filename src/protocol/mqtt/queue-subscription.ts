/*
 * A client's subscription to `$queue/NAME`: a consumer of a named queue, beside others of the same queue.
 *
 * PUBACK settles. A PUBACK of 5.0 that refuses gives the message back: 0x83 as if it had never been delivered, all other reasons as a failed
 * attempt. At QoS 0 a message is settled when the output has taken it. Whatever is unsettled when the connection ends goes back to the queue.
 */
import type { Queue } from '../../core/queue.ts'
import type { Deliveries, Source } from './deliveries.ts'
import { Reason } from './protocol-error.ts'

/** Reason codes from here on are failures (5.0 section 2.4). */
const FIRST_FAILURE = 0x80

type State = 'consuming' | 'ending' | 'ended'

export class QueueSubscription implements Source {
  readonly #queue: Queue
  readonly #deliveries: Deliveries
  readonly #onEnd: () => void
  readonly #number: number
  #qos: 0 | 1
  #state: State = 'consuming'
  #inFlight = 0

  /**
   * Attaches to the queue. `onEnd` is called once, when the subscription has nothing to do with the queue any more.
   * @throws BrokerError QUEUE_IN_USE
   */
  constructor({
    queue,
    deliveries,
    qos,
    onEnd,
  }: {
    queue: Queue
    deliveries: Deliveries
    qos: 0 | 1
    onEnd: () => void
  }) {
    this.#queue = queue
    this.#deliveries = deliveries
    this.#qos = qos
    this.#onEnd = onEnd
    this.#number = deliveries.add(this)
    try {
      queue.attach(this)
    } catch (error) {
      deliveries.remove(this.#number)
      throw error
    }
  }

  /** The QoS granted; messages are delivered at it, whatever they were published at. */
  get qos(): 0 | 1 {
    return this.#qos
  }

  /** Unsubscribed, with messages in flight. */
  get isEnding(): boolean {
    return this.#state === 'ending'
  }

  get credit(): number {
    return this.#state === 'consuming' ? this.#deliveries.credit(this.#qos) : 0
  }

  get hasWaiting(): boolean {
    return !this.#queue.isCaughtUp
  }

  deliver(bytes: Buffer, at: number, position: number): void {
    // A redelivery is a new PUBLISH, to whichever client has its turn, and no retransmission of the earlier one: DUP stays 0 [MQTT-3.3.1-3].
    const isSent = this.#deliveries.send(this.#number, bytes, at, position, this.#qos, false)
    if (!isSent) this.#queue.reject(position, 'rejected')
    else if (this.#qos === 0) this.#queue.settle(position)
    else this.#inFlight++
  }

  pump(): void {
    this.#queue.pump()
  }

  answered(position: number, reason: number): void {
    this.#inFlight--
    if (reason < FIRST_FAILURE) this.#queue.settle(position)
    else if (reason === Reason.implementationSpecific) this.#queue.requeue(position)
    else this.#queue.fail(position)
    if (this.#state === 'ending' && this.#inFlight === 0) this.close()
  }

  /** SUBSCRIBE to it again, at another QoS perhaps. */
  resume(qos: 0 | 1): void {
    this.#qos = qos
    this.#state = 'consuming'
    this.#queue.pump()
  }

  /** UNSUBSCRIBE: takes nothing more; what has been sent may still be answered [MQTT-3.10.4-3]. */
  end(): void {
    this.#state = 'ending'
    if (this.#inFlight === 0) this.close()
  }

  /** Leaves the queue; what is in flight goes back to it. */
  close(): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    this.#queue.detach(this)
    this.#deliveries.remove(this.#number)
    this.#onEnd()
  }
}
