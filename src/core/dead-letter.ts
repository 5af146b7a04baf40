/** Why a queue lets go of a message that nobody has settled; RabbitMQ's words, as they stand in `x-death`. */
export type DeadLetterReason = 'rejected' | 'expired' | 'maxlen' | 'delivery_limit'

/** Where a queue's dead letters go. */
export interface DeadLetterTarget {
  /**
   * Takes over a record (model/message.ts, beginning at `at`, valid during the call only) that the queue lets go of; the queue books and marks it in the same turn, so
   * that one commit moves it. false: the target has no room, and the message stays where it is.
   */
  take(bytes: Buffer, at: number, reason: DeadLetterReason): boolean
}
