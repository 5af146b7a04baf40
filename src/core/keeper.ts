import type { Acceptance, RecordPrefix } from '../model/message.ts'
import type { QueuePolicy } from '../model/queue-policy.ts'
import type { CommitSource } from './commit-schedule.ts'
import type { DropReason } from './ledger.ts'
import type { Admission, QueueLimits } from './queue.ts'

/** What keeps messages that a route brings: a queue or a stream. */
export interface Keeper extends CommitSource {
  readonly name: string
  readonly isDurable: boolean
  /** `onFull`: what gives way when it is full. */
  readonly limits: Pick<QueueLimits, 'onFull'>
  /** How QoS 0 messages are treated: kept like others, kept only while noteNow has NOTE_LIVE, never taken. */
  readonly qos0: 'buffer' | 'pass' | 'ignore'
  /** When the publisher of a message is acknowledged, as far as this keeper is concerned. */
  readonly ack: QueuePolicy['ack']
  /** Somebody takes its messages now. */
  readonly isAttended: boolean
  /** Or-ed into the note of every message accepted from now on. NOTE_LIVE: the link its consumer sends over is forwarding. */
  readonly noteNow: number
  /** Nothing waits that has not been handed to a consumer who may settle it before it must be written. */
  readonly isCaughtUp: boolean
  /** How long a message may stay unwritten because its consumer will probably settle it sooner; Infinity: not known. */
  readonly settleTimeP95Ms: number
  /** What would happen to `count` messages of `bytes` in all. */
  admit(count: number, bytes: number): Admission
  /** Memory that messages of so many bytes take beyond what it holds. */
  growthFor(bytes: number): number
  /** With ack: buffered, whether `count` messages about to be taken may be acknowledged before they are written. */
  mayOwe(count: number): boolean
  /** Books messages that its own policy turned away after acceptance. */
  bookDropped(count: number, reason: DropReason): void
  /**
   * Appends one accepted message; arguments as in writeRecord. `ticket` is the youngest ticket given out so far (its own, if it has one), `status` bits of core/segment.ts.
   * The caller pumps when its run is through.
   */
  take(
    prefix: RecordPrefix,
    acceptance: Acceptance,
    expiryMs: number,
    source: Buffer,
    from: number,
    to: number,
    propertiesBytes: number,
    note: number,
    ticket: number,
    status: number,
  ): void
  /** Takes a message that leaves another keeper, in stored form; the commit that marks it there writes it here. The caller pumps. */
  takeMoved(record: Buffer, note: number, isShared: boolean): void
  /** Delivers what can be delivered. */
  pump(): void
}
