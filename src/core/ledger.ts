import type { DeadLetterReason } from './dead-letter.ts'

/**
 * Where every message that entered a queue is (design.md section 2):
 *
 *     accepted = settled + queued + in_flight + dropped{reason} + expired + dead_lettered{reason}
 *
 * Each figure is counted where the thing happens, none is derived from the others, so that `imbalance` is a real check.
 */
export interface LedgerFigures {
  readonly accepted: number
  readonly settled: number
  readonly queued: number
  readonly in_flight: number
  readonly dropped: Readonly<Record<string, number>>
  readonly expired: number
  readonly dead_lettered: Readonly<Record<string, number>>
}

/** As a restart finds them: what was in flight is queued again. */
export type PersistentFigures = Omit<LedgerFigures, 'in_flight'>

export const EMPTY_FIGURES: PersistentFigures = {
  accepted: 0,
  settled: 0,
  queued: 0,
  dropped: {},
  expired: 0,
  dead_lettered: {},
}

/** Why a queue let go of a message that nobody has settled. */
export type DropReason =
  /** The queue was full and its policy discards. */
  | 'overflow'
  /** QoS 0 for a route that only passes on, while its upstream was away. */
  | 'not_connected'
  /** QoS 0 that could not be kept. */
  | 'memory_full'
  | 'disk_full'
  | 'store_unavailable'
  /** Of a queue with ack: upstream; its publisher was refused instead. */
  | 'ack_timeout'
  /** Over the receiver's maximum packet size. */
  | 'too_large'
  /** Its receiver may not have it any more. */
  | 'not_authorized'
  /** The session it waited for has ended. */
  | 'session_ended'
  /** Found damaged, or missing, in the store. */
  | 'damage'
  /** An operator emptied the queue. */
  | 'purged'
  /** An operator deleted the queue. */
  | 'deleted'
  /** Refused by its consumer. */
  | 'rejected'
  /** It failed as often as its queue permits. */
  | 'delivery_limit'
  /** A dead letter on its way back to a queue where it died before, and nobody wanted that (RabbitMQ's cycle rule). */
  | 'cycle'
  /** A dead letter whose exchange has no queue for it. */
  | 'unrouted'

export class Ledger {
  accepted = 0
  settled = 0
  queued = 0
  inFlight = 0
  expired = 0
  readonly dropped = new Map<string, number>()
  readonly deadLettered = new Map<string, number>()

  /** Several ledgers count here together what they drop, by reason, and what expires; null: this one doesn't. */
  totals: Map<DropReason | 'expired', number> | null = null

  drop(reason: DropReason, count: number): void {
    this.dropped.set(reason, (this.dropped.get(reason) ?? 0) + count)
    this.totals?.set(reason, (this.totals.get(reason) ?? 0) + count)
  }

  expire(count: number): void {
    this.expired += count
    this.totals?.set('expired', (this.totals.get('expired') ?? 0) + count)
  }

  deadLetter(reason: DeadLetterReason, count: number): void {
    this.deadLettered.set(reason, (this.deadLettered.get(reason) ?? 0) + count)
  }

  get droppedTotal(): number {
    return sum(this.dropped)
  }

  /** 0 when the equation holds; else by how many messages `accepted` is too high (negative: too low). */
  get imbalance(): number {
    return (
      this.accepted -
      (this.settled + this.queued + this.inFlight + this.droppedTotal + this.expired + sum(this.deadLettered))
    )
  }

  figures(): LedgerFigures {
    return {
      accepted: this.accepted,
      settled: this.settled,
      queued: this.queued,
      in_flight: this.inFlight,
      dropped: Object.fromEntries(this.dropped),
      expired: this.expired,
      dead_lettered: Object.fromEntries(this.deadLettered),
    }
  }

  /**
   * The figures as a restart shall find them: what is in memory only has not been accepted yet, and what is in flight is queued again.
   * `unwritten` is how many unsettled messages the disk does not know.
   */
  persistent(unwritten: number): PersistentFigures {
    const { accepted, queued, in_flight, ...others } = this.figures()
    return { ...others, accepted: accepted - unwritten, queued: queued + in_flight - unwritten }
  }

  static from(figures: PersistentFigures): Ledger {
    const ledger = new Ledger()
    ledger.accepted = figures.accepted
    ledger.settled = figures.settled
    ledger.queued = figures.queued
    ledger.expired = figures.expired
    for (const [reason, count] of Object.entries(figures.dropped)) ledger.dropped.set(reason, count)
    for (const [reason, count] of Object.entries(figures.dead_lettered)) ledger.deadLettered.set(reason, count)
    return ledger
  }
}

/**
 * The same figures with what is really there: messages that came back (their settled marks were lost) are no longer settled, messages that are
 * gone were dropped by damage.
 */
export function withQueued(figures: PersistentFigures, queued: number): PersistentFigures {
  const gone = figures.queued - queued
  if (gone >= 0) {
    const damage = (figures.dropped.damage ?? 0) + gone
    return { ...figures, queued, dropped: gone === 0 ? figures.dropped : { ...figures.dropped, damage } }
  }
  const unsettled = Math.min(figures.settled, -gone)
  return { ...figures, queued, settled: figures.settled - unsettled, accepted: figures.accepted - gone - unsettled }
}

function sum(counts: ReadonlyMap<string, number>): number {
  let total = 0
  for (const count of counts.values()) total += count
  return total
}
