import type { Consumer } from '../../src/core/consumer.ts'
import type { Queue } from '../../src/core/queue.ts'
import { decodeRecord } from '../../src/model/message.ts'

export interface Collected {
  readonly payload: string
  readonly key: string
  readonly position: number
  readonly redelivered: boolean
  readonly attempts: number
  readonly note: number
}

/** A consumer that writes down what it is given and settles only when told. */
export class Collector implements Consumer {
  readonly #queue: Queue
  readonly #prefetch: number
  readonly deliveries: Collected[] = []
  /** Unsettled ones in order of delivery. */
  unsettled: Collected[] = []

  constructor(queue: Queue, prefetch = Number.POSITIVE_INFINITY) {
    this.#queue = queue
    this.#prefetch = prefetch
  }

  get credit(): number {
    return this.#prefetch - this.unsettled.length
  }

  deliver(bytes: Buffer, at: number, position: number, note: number, attempts: number): void {
    const { payload, key } = decodeRecord(bytes, at)
    const collected = { payload: payload.toString(), key, position, redelivered: attempts > 0, attempts, note }
    this.deliveries.push(collected)
    this.unsettled.push(collected)
  }

  /** Settles the i-th unsettled one and takes more. */
  settle(index = 0): void {
    const [delivery] = this.unsettled.splice(index, 1)
    if (delivery !== undefined) this.#queue.settle(delivery.position)
    this.#queue.pump()
  }

  settleAll(): void {
    for (const { position } of this.unsettled.splice(0)) this.#queue.settle(position)
    this.#queue.pump()
  }

  requeue(index = 0): void {
    const [delivery] = this.unsettled.splice(index, 1)
    if (delivery !== undefined) this.#queue.requeue(delivery.position)
    this.#queue.pump()
  }

  fail(index = 0): void {
    const [delivery] = this.unsettled.splice(index, 1)
    if (delivery !== undefined) this.#queue.fail(delivery.position)
    this.#queue.pump()
  }

  reject(index = 0): void {
    const [delivery] = this.unsettled.splice(index, 1)
    if (delivery !== undefined) this.#queue.reject(delivery.position, 'rejected')
    this.#queue.pump()
  }

  payloads(): string[] {
    return this.deliveries.map(({ payload }) => payload)
  }
}
