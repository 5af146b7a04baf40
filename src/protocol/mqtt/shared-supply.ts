import type { Consumer } from '../../core/consumer.ts'
import type { Unsendable } from './deliveries.ts'
import type { Supply } from './named-subscription.ts'
import type { SharedGroup, SharedMember } from './shared-group.ts'

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
