import { appendEvent, historyOf } from '../model/death-history.ts'
import { MQTT_EXCHANGE, recordExchange, recordKey, swapSeparators } from '../model/message.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import type { MessageAddress, Mover } from './mover.ts'
import type { Queue, SiftCursor } from './queue.ts'

export interface ReplayOptions {
  /** Which messages; asked for each, records as in model/message.ts beginning at `at`. */
  readonly isWanted: (bytes: Buffer, at: number, position: number) => boolean
  /** Null: where each was published to before it first died. With a key of null each keeps the key it had there. */
  readonly to: MessageAddress | null
  /** Only says what would happen. */
  readonly isDryRun: boolean
  /** Messages at most. */
  readonly limit: number
  /** A call goes on for about so long, milliseconds. */
  readonly budgetMs: number
  /** Where an earlier call has ended; null: at the beginning, with all that is there now. */
  readonly cursor: SiftCursor | null
}

export interface Replayed {
  /** How many were sent, or would be. */
  replayed: number
  /** Wanted, and still there: nothing is bound to where they would go. */
  unrouted: number
  /** Wanted, and still there: they never died, so nobody knows where they came from. */
  unaddressed: number
  /** By destination: exchange, key, how many; the first DESTINATIONS_MAX of them. */
  readonly destinations: Map<string, { readonly exchange: string; readonly key: string; count: number }>
  /** Where the next call goes on; null: all of the queue was looked at. */
  next: SiftCursor | null
  /** Nobody can take messages there now: the exchange or queue is missing, a queue or the disk is full. */
  isHeld: boolean
}

const DESTINATIONS_MAX = 100

/**
 * Sends messages of a queue on, each with its id and its history: settled here, accepted there, in one commit. What it has done when it resolves or
 * rejects is done, and durable after the schedule's next flush; a process that ends on the way leaves each message in one place.
 * @throws BrokerError if what is on disk cannot be read now.
 */
export async function replay(
  queue: Queue,
  { isWanted, to, isDryRun, limit, budgetMs, cursor }: ReplayOptions,
  { mover, schedule, monotonicMs }: { mover: Mover; schedule: CommitSchedule; monotonicMs: () => number },
): Promise<Replayed> {
  const result: Replayed = {
    replayed: 0,
    unrouted: 0,
    unaddressed: 0,
    destinations: new Map(),
    next: cursor ?? queue.siftStart,
    isHeld: false,
  }
  const endMs = monotonicMs() + budgetMs
  const judge = (bytes: Buffer, at: number, position: number): 'keep' | 'moved' | 'stop' => {
    if (result.replayed === limit) return 'stop'
    if (!isWanted(bytes, at, position)) return 'keep'
    const address = addressOf(bytes, at, to)
    if (address === null) {
      result.unaddressed++
      return 'keep'
    }
    const event = { event: 'replayed', queue: queue.name, ...address, originalExpirationMs: null, words: null } as const
    const history = appendEvent(historyOf(bytes, at), event, mover.now())
    const outcome = isDryRun ? mover.outcomeOf(bytes, at, address) : mover.move(bytes, at, address, history, queue)
    if (outcome === 'held') {
      result.isHeld = true
      return 'stop'
    }
    if (outcome !== 'moved') {
      result.unrouted++
      return 'keep'
    }
    result.replayed++
    count(result, address)
    return isDryRun ? 'keep' : 'moved'
  }
  while (result.next !== null && !result.isHeld && result.replayed < limit && monotonicMs() < endMs) {
    result.next = await queue.sift(result.next, judge)
    // So that what is moved does not gather in memory, and others get their turn.
    if (isDryRun) await new Promise(setImmediate)
    else await schedule.flush()
  }
  return result
}

/** Where a message goes; null: it never died, and nobody says. */
function addressOf(bytes: Buffer, at: number, to: MessageAddress | null): { exchange: string; key: string } | null {
  const died = historyOf(bytes, at)?.firstDeath ?? null
  if (to === null) return died === null ? null : { exchange: died.exchange, key: died.key }
  if (to.key !== null) return { exchange: to.exchange, key: to.key }
  const { exchange, key } = died ?? { exchange: recordExchange(bytes, at), key: recordKey(bytes, at) }
  const isTopic = to.exchange === MQTT_EXCHANGE
  return { exchange: to.exchange, key: isTopic === (exchange === MQTT_EXCHANGE) ? key : swapSeparators(key) }
}

function count({ destinations }: Replayed, { exchange, key }: { exchange: string; key: string }): void {
  const name = `${exchange}\0${key}`
  const known = destinations.get(name)
  if (known !== undefined) known.count++
  else if (destinations.size < DESTINATIONS_MAX) destinations.set(name, { exchange, key, count: 1 })
}
