import type { Consumer } from '../../core/consumer.ts'
import type { Queue } from '../../core/queue.ts'
import type { Topology } from '../../core/topology.ts'
import type { Unsendable } from './deliveries.ts'
import type { Supply } from './named-subscription.ts'
import { Reason } from './protocol-error.ts'

/**
 * `$queue/NAME`: a named queue, with other consumers beside. PUBACK 0x83 gives a message back as if it had never been delivered, all other failures
 * count as a failed attempt. Whatever is unsettled when the connection ends goes back to the queue.
 */
export class QueueSupply implements Supply {
  readonly isAsPublished = false
  readonly isPassageFree = true
  readonly #topology: Topology
  readonly #name: string
  /** null: not attached. */
  #queue: Queue | null = null

  constructor(topology: Topology, name: string) {
    this.#topology = topology
    this.#name = name
  }

  get hasWaiting(): boolean {
    return this.#queue?.isCaughtUp === false
  }

  /** The queue of that name may be another one each time. */
  attach(consumer: Consumer): void {
    const queue = this.#topology.queue(this.#name)
    this.#queue = queue
    queue.attach(consumer)
  }

  detach(consumer: Consumer): void {
    this.#queue?.detach(consumer)
    this.#queue = null
  }

  end(): void {
    // A queue keeps nothing of its consumers.
  }

  pump(): void {
    this.#queue?.pump()
  }

  passOn(): boolean {
    return false
  }

  settle(position: number): void {
    this.#queue?.settle(position)
  }

  refuse(position: number, reason: number): void {
    if (reason === Reason.implementationSpecific) this.#queue?.requeue(position)
    else this.#queue?.fail(position)
  }

  skip(position: number, why: Unsendable): void {
    this.#queue?.reject(position, why === 'too_large' ? 'rejected' : why)
  }
}
