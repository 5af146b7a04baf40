import type { Consumer } from '../../core/consumer.ts'
import { decodeRecord, encodeRecord, PropertiesTag, recordBytes } from '../../model/message.ts'
import type { Unsendable } from './deliveries.ts'
import type { Supply } from './named-subscription.ts'
import type { SharedGroup, SharedMember } from './shared-group.ts'
import { sharedNote } from './subscription-note.ts'

/**
 * `$share/GROUP/FILTER`: the queue of a group, with the other members beside. What is unanswered when the connection ends goes back to its place, for another
 * member (5.0 section 4.8.2); that is no attempt.
 */
export class SharedSupply implements Supply {
  readonly isAsPublished = true // [MQTT-4.8.2-3]
  readonly #group: SharedGroup
  readonly #member: SharedMember

  constructor(group: SharedGroup, member: SharedMember) {
    this.#group = group
    this.#member = member
  }

  get hasWaiting(): boolean {
    return !this.#group.queue.isCaughtUp
  }

  /** A member with a backlog of its own would else take what the others have time for, and lose both to the limit of its queue. */
  get isPassageFree(): boolean {
    return this.#member.canTakeOver
  }

  attach(consumer: Consumer): void {
    this.#group.attach(this.#member, consumer)
  }

  detach(): void {
    this.#group.detach(this.#member)
  }

  end(): void {
    this.#group.leave(this.#member)
  }

  pump(): void {
    this.#group.queue.pump()
  }

  /**
   * At QoS 2 a message is this client's from its PUBLISH on: it is sent from the session's own queue, which completes the delivery over whichever connection
   * [MQTT-4.8.2-4], and ends with the session [MQTT-4.8.2-5].
   */
  passOn(bytes: Buffer, at: number, position: number, note: number, identifiers: Buffer): boolean {
    const end = at + recordBytes(bytes, at)
    const record = identifiers.length === 0 ? bytes.subarray(at, end) : identified(bytes, at, identifiers)
    this.#member.takeOver(record, sharedNote(note))
    this.#group.queue.handOver(position)
    return true
  }

  settle(position: number): void {
    this.#group.queue.settle(position)
  }

  /** Discarded, and not sent to another member [MQTT-4.8.2-6]. */
  refuse(position: number): void {
    this.#group.queue.reject(position, 'rejected')
  }

  skip(position: number, why: Unsendable): void {
    this.#group.queue.reject(position, why)
  }
}

/** The record with further property bytes; those of other protocols are not for MQTT clients. */
function identified(bytes: Buffer, at: number, identifiers: Buffer): Buffer {
  const message = decodeRecord(bytes, at)
  const own = message.propertiesTag === PropertiesTag.mqtt5 ? [message.properties] : []
  const properties = Buffer.concat([identifiers, ...own])
  return encodeRecord({ ...message, propertiesTag: PropertiesTag.mqtt5, properties }, message)
}
