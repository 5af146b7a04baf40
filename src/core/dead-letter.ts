import { appendEvent, type HistoryEvent, historyOf } from '../model/death-history.ts'
import { recordExchange, recordExpiryMs, recordKey } from '../model/message.ts'
import type { MessageAddress, MoveOutcome, Mover } from './mover.ts'
import type { Queue } from './queue.ts'

/** Why a queue lets go of a message that nobody has settled; RabbitMQ's words, as they stand in `x-death`. Their order is part of an on-disk format (tried.ts). */
export const DEAD_LETTER_REASONS = [
  'rejected',
  'expired',
  'maxlen',
  'delivery_limit',
] as const satisfies readonly HistoryEvent[]
export type DeadLetterReason = (typeof DEAD_LETTER_REASONS)[number]

/** Where a queue's dead letters go. */
export interface DeadLetterTarget {
  readonly address: MessageAddress
  /**
   * Takes over a record (model/message.ts, beginning at `at`, valid during the call only) that the queue lets go of; the queue books and marks it in the same turn, so
   * that one commit moves it; `words` are of whoever refused the message last. held: the message stays where it is. cycle, unrouted: nobody takes it, and the queue drops it with that reason.
   */
  take(bytes: Buffer, at: number, reason: DeadLetterReason, words: string | null): MoveOutcome
}

/** Sends the dead letters of one queue to an exchange, by the rules of RabbitMQ (Dead Letter Exchanges). */
export class DeadLetters implements DeadLetterTarget {
  readonly address: MessageAddress
  readonly #queue: Queue
  readonly #mover: Mover

  constructor(queue: Queue, address: MessageAddress, mover: Mover) {
    this.#queue = queue
    this.address = address
    this.#mover = mover
  }

  take(bytes: Buffer, at: number, reason: DeadLetterReason, words: string | null): MoveOutcome {
    const expiryMs = recordExpiryMs(bytes, at)
    const death = {
      event: reason,
      queue: this.#queue.name,
      exchange: recordExchange(bytes, at),
      key: recordKey(bytes, at),
      originalExpirationMs: expiryMs === 0 ? null : expiryMs,
      words,
    }
    const history = appendEvent(historyOf(bytes, at), death, this.#mover.now())
    return this.#mover.move(bytes, at, this.address, history, this.#queue)
  }
}
