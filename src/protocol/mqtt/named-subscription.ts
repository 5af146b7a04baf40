/*
 * A client's subscription to something kept under a name, `$queue/NAME`, `$stream/NAME/FROM` or `$share/GROUP/FILTER`, as one of the sources of its deliveries.
 *
 *     consuming ──UNSUBSCRIBE──▶ ending (the last answers are awaited) ──▶ ended
 *         ▲──────SUBSCRIBE──────────┘          end of the connection ────────▲
 *
 * At QoS 0 a message is settled when the output has taken it.
 */
import type { Consumer } from '../../core/consumer.ts'
import type { QoS } from '../../model/message.ts'
import type { Deliveries, Source, Unsendable } from './deliveries.ts'
import { FIRST_FAILURE } from './reply-code.ts'
import { deliveredQos, retainFlag } from './subscription-note.ts'

/** Where the messages come from, and what the client's answers mean there. */
export interface Supply {
  /** Messages come at the QoS they were published at if that is lower than the one granted; else always at the one granted. */
  readonly isAsPublished: boolean
  /** Something waits to be delivered. */
  readonly hasWaiting: boolean
  /** @throws BrokerError if it takes no further consumer. */
  attach(consumer: Consumer): void
  /** `isEnded`: the subscription is over, and not only its connection. */
  detach(consumer: Consumer, isEnded: boolean): void
  /** Delivers while there are messages and credit. */
  pump(): void
  settle(position: number): void
  /** The client refuses it with this reason of PUBACK or PUBREC, 0x80 or above. */
  refuse(position: number, reason: number): void
  /** It cannot be sent to this client. */
  skip(position: number, why: Unsendable): void
}

export class NamedSubscription implements Source {
  readonly #supply: Supply
  readonly #deliveries: Deliveries
  readonly #onEnd: () => void
  readonly #number: number
  #qos: QoS
  #note: number
  #identifiers: Buffer
  #state: 'consuming' | 'ending' | 'ended' = 'consuming'
  #inFlight = 0

  /**
   * Attaches to its supply. `onEnd` is called once, when the subscription has nothing to do with it any more.
   * @throws BrokerError if it takes no further consumer.
   */
  constructor({
    supply,
    deliveries,
    qos,
    note,
    identifiers,
    onEnd,
  }: {
    supply: Supply
    deliveries: Deliveries
    qos: QoS
    /** Its options, as in subscription-note.ts. */
    note: number
    /** Its subscription identifier as a property; empty: none. */
    identifiers: Buffer
    onEnd: () => void
  }) {
    this.#supply = supply
    this.#deliveries = deliveries
    this.#qos = qos
    this.#note = note
    this.#identifiers = identifiers
    this.#onEnd = onEnd
    this.#number = deliveries.add(this)
    try {
      supply.attach(this)
    } catch (error) {
      deliveries.remove(this.#number)
      throw error
    }
  }

  /** The QoS granted. */
  get qos(): QoS {
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
    return this.#supply.hasWaiting
  }

  deliver(bytes: Buffer, at: number, position: number): void {
    const flags = retainFlag(bytes, at, this.#note)
    const identifiers = this.#identifiers
    // A redelivery is a new PUBLISH, to whichever client has its turn, and no retransmission of the earlier one: DUP stays 0 [MQTT-3.3.1-3].
    const qos = this.#supply.isAsPublished ? deliveredQos(bytes, at, this.#note) : this.#qos
    const unsendable = this.#deliveries.send(this.#number, bytes, at, position, qos, flags, identifiers)
    if (unsendable !== null) this.#supply.skip(position, unsendable)
    else if (qos === 0) this.#supply.settle(position)
    else this.#inFlight++
  }

  pump(): void {
    this.#supply.pump()
  }

  answered(position: number, reason: number): void {
    this.#inFlight--
    if (reason < FIRST_FAILURE) this.#supply.settle(position)
    else this.#supply.refuse(position, reason)
    if (this.#state === 'ending' && this.#inFlight === 0) this.#leave(true)
  }

  /** SUBSCRIBE to it again, with other options perhaps. */
  resume(qos: QoS, note: number, identifiers: Buffer): void {
    this.#qos = qos
    this.#note = note
    this.#identifiers = identifiers
    this.#state = 'consuming'
    this.#supply.pump()
  }

  /** UNSUBSCRIBE: takes nothing more; what has been sent may still be answered [MQTT-3.10.4-3]. */
  end(): void {
    this.#state = 'ending'
    if (this.#inFlight === 0) this.#leave(true)
  }

  /** The connection is over; what is in flight stays unsettled. */
  close(): void {
    this.#leave(this.#state === 'ending')
  }

  #leave(isEnded: boolean): void {
    if (this.#state === 'ended') return
    this.#state = 'ended'
    this.#supply.detach(this, isEnded)
    this.#deliveries.remove(this.#number)
    this.#onEnd()
  }
}
