import type { Consumer } from '../../core/consumer.ts'
import type { Queue } from '../../core/queue.ts'
import type { Unsendable } from './deliveries.ts'
import type { Supply } from './named-subscription.ts'
import { Reason } from './protocol-error.ts'

/**
 * `$queue/NAME`: a named queue, with other consumers beside. PUBACK 0x83 gives a message back as if it had never been delivered, all other failures
 * count as a failed attempt. Whatever is unsettled when the connection ends goes back to the queue.
 */
export class QueueSupply implements Supply {
  readonly isAsPublished = false
  readonly #queue: Queue

  constructor(queue: Queue) {
    this.#queue = queue
  }

  get hasWaiting(): boolean {
    return !this.#queue.isCaughtUp
  }

  attach(consumer: Consumer): void {
    this.#queue.attach(consumer)
  }

  detach(consumer: Consumer): void {
    this.#queue.detach(consumer)
  }

  pump(): void {
    this.#queue.pump()
  }

  settle(position: number): void {
    this.#queue.settle(position)
  }

  refuse(position: number, reason: number): void {
    if (reason === Reason.implementationSpecific) this.#queue.requeue(position)
    else this.#queue.fail(position)
  }

  skip(position: number, why: Unsendable): void {
    this.#queue.reject(position, why === 'too_large' ? 'rejected' : why)
  }
}
