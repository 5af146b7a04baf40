/*
 * A session's subscription to something kept under a name, `$queue/NAME`, `$stream/NAME/FROM` or `$share/GROUP/FILTER`, as one of the sources of its deliveries.
 *
 *     away ──connection──▶ consuming ──UNSUBSCRIBE──▶ ending (the last answers are awaited) ──▶ ended
 *       ▲──end of the connection──┘▲────SUBSCRIBE─────────┘      end of the connection ──────────▲
 *
 * It consumes while its session has a connection. What is unsettled when that ends stays with the supply, nothing of it in the session. At
 * QoS 0 a message is settled when the output has taken it.
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
  /** Whether what is passed on would be sent now, and not wait there. */
  readonly isPassageFree: boolean
  /** @throws BrokerError if it is not there, or takes no further consumer. */
  attach(consumer: Consumer): void
  detach(consumer: Consumer): void
  /** The subscription is over, and no consumer attached: what is kept for it goes. */
  end(): void
  /** Delivers while there are messages and credit. */
  pump(): void
  /**
   * Gives a message of QoS 2 to somebody who sends it to this client; false: it is sent from here. `note` and `identifiers` are those of the subscription.
   */
  passOn(bytes: Buffer, at: number, position: number, note: number, identifiers: Buffer): boolean
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
  #number = -1
  #qos: QoS
  #note: number
  #identifiers: Buffer
  #state: 'away' | 'consuming' | 'ending' | 'ended' = 'away'
  #inFlight = 0

  /** `onEnd` is called once, when the subscription has nothing to do with its supply any more. */
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
  }

  get credit(): number {
    if (this.#state !== 'consuming' || (this.#qos === 2 && !this.#supply.isPassageFree)) return 0
    return this.#deliveries.credit(this.#number, this.#qos)
  }

  get hasWaiting(): boolean {
    return this.#supply.hasWaiting
  }

  deliver(bytes: Buffer, at: number, position: number): void {
    const flags = retainFlag(bytes, at, this.#note)
    const identifiers = this.#identifiers
    // A redelivery is a new PUBLISH, to whichever client has its turn, and no retransmission of the earlier one: DUP stays 0 [MQTT-3.3.1-3].
    const qos = this.#supply.isAsPublished ? deliveredQos(bytes, at, this.#note) : this.#qos
    if (qos === 2 && this.#supply.passOn(bytes, at, position, this.#note, identifiers)) return
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
    if (this.#state === 'ending' && this.#inFlight === 0) this.#end()
  }

  /**
   * There is a connection: consumes. Does so already if it is not away.
   * @throws BrokerError if its supply is not there, or takes no further consumer; then it stays away.
   */
  attach(): void {
    if (this.#state !== 'away') return
    this.#number = this.#deliveries.add(this)
    this.#state = 'consuming'
    try {
      this.#supply.attach(this)
    } catch (error) {
      this.#state = 'away'
      this.#deliveries.remove(this.#number)
      throw error
    }
  }

  /** The connection is over; what is in flight stays unsettled. */
  detach(): void {
    if (this.#state === 'ending') this.#end()
    else if (this.#state === 'consuming') this.#leave()
  }

  /** SUBSCRIBE to it again, with other options perhaps. @throws BrokerError as attach. */
  resume(qos: QoS, note: number, identifiers: Buffer): void {
    this.#qos = qos
    this.#note = note
    this.#identifiers = identifiers
    this.attach()
    this.#state = 'consuming'
    this.#supply.pump()
  }

  /** UNSUBSCRIBE: takes nothing more; what has been sent may still be answered [MQTT-3.10.4-3]. */
  unsubscribe(): void {
    if (this.#inFlight === 0) this.#end()
    else this.#state = 'ending'
  }

  /** The session is over. */
  close(): void {
    this.#end()
  }

  #leave(): void {
    this.#state = 'away'
    this.#inFlight = 0
    this.#supply.detach(this)
    this.#deliveries.remove(this.#number)
  }

  #end(): void {
    if (this.#state === 'ended') return
    if (this.#state !== 'away') this.#leave()
    this.#state = 'ended'
    this.#supply.end()
    this.#onEnd()
  }
}
