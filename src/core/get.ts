import { recordBytes } from '../model/message.ts'
import type { Consumer } from './consumer.ts'
import type { Queue } from './queue.ts'

export interface GetOptions {
  /** Messages at most. */
  readonly count: number
  /** No further one is taken once those taken have so many bytes. */
  readonly maxBytes: number
  /** ack: they leave the queue; requeue: they go back to their places, marked redelivered. */
  readonly ackMode: 'ack' | 'requeue'
}

/** `visit` gets each record in stored form beginning at `at`; valid during the call only. */
export type GetVisitor = (bytes: Buffer, at: number, attempts: number) => void

/** A consumer for one call: takes what there is, and waits for nothing but the disk (AMQP 0-9-1 basic.get, several at once). */
class Getter implements Consumer {
  readonly positions: number[] = []
  readonly #visit: GetVisitor
  readonly #count: number
  #bytesLeft: number

  constructor({ count, maxBytes }: GetOptions, visit: GetVisitor) {
    this.#count = count
    this.#bytesLeft = maxBytes
    this.#visit = visit
  }

  get credit(): number {
    return this.#bytesLeft > 0 ? this.#count - this.positions.length : 0
  }

  deliver(bytes: Buffer, at: number, position: number, _note: number, attempts: number): void {
    this.positions.push(position)
    this.#bytesLeft -= recordBytes(bytes, at)
    this.#visit(bytes, at, attempts)
  }
}

/**
 * Gets messages from the front of a queue, beside its consumers and in turn with them. With `ack` they are settled when it resolves, durably after the
 * schedule's next flush. If it rejects, all have gone back.
 * @throws BrokerError STORE_UNAVAILABLE if what is on disk cannot be read now.
 */
export async function getMessages(queue: Queue, options: GetOptions, visit: GetVisitor): Promise<void> {
  const getter = new Getter(options, visit)
  queue.attach(getter)
  try {
    while (getter.credit > 0 && queue.isNextOnDisk && (await queue.readMore()));
    if (options.ackMode === 'ack') for (const position of getter.positions.splice(0)) queue.settle(position)
  } finally {
    // To be shown is no failed attempt.
    for (const position of getter.positions) queue.requeue(position)
    queue.detach(getter)
  }
}
