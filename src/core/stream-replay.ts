import { appendEvent, historyOf } from '../model/death-history.ts'
import { MQTT_EXCHANGE, recordIsTopic, recordKey, swapSeparators } from '../model/message.ts'
import type { CommitSchedule } from './commit-schedule.ts'
import type { MessageAddress, Mover } from './mover.ts'
import type { Stream } from './stream.ts'

export interface StreamReplayOptions {
  /** Positions [from, end). */
  readonly from: number
  readonly end: number
  /** Messages at most. */
  readonly limit: number
  readonly to: MessageAddress
}

export interface StreamReplayed {
  readonly replayed: number
  /** Nothing is bound to where they would go. */
  readonly unrouted: number
  /** Where the next call goes on; `end` when all was looked at. */
  readonly next: number
  /** Nobody can take messages there now: the exchange or queue is missing, a queue or the disk is full. */
  readonly isHeld: boolean
}

/** So many messages are sent before the disk has them and others get their turn. */
const BATCH = 500

/**
 * Sends a range of a stream into an exchange: copies, each with its id and a note of the replay in its history; the stream keeps its own. What was sent when it
 * resolves is durable.
 * @throws BrokerError STOPPING
 */
export async function replayStream(
  stream: Stream,
  { from, end, limit, to }: StreamReplayOptions,
  { mover, schedule }: { mover: Mover; schedule: CommitSchedule },
): Promise<StreamReplayed> {
  let replayed = 0
  let unrouted = 0
  let next = from
  let isHeld = false
  const send = (bytes: Buffer, at: number): void => {
    const key = to.key ?? keyFor(to.exchange, bytes, at)
    const event = {
      event: 'replayed',
      queue: stream.name,
      exchange: to.exchange,
      key,
      originalExpirationMs: null,
      words: null,
    } as const
    const history = appendEvent(historyOf(bytes, at), event, mover.now())
    const outcome = mover.move(bytes, at, to, history, stream)
    isHeld = outcome === 'held'
    if (outcome === 'moved') replayed++
    else if (!isHeld) unrouted++
  }
  while (next < end && replayed < limit && !isHeld) {
    const batchEnd = Math.min(replayed + BATCH, limit)
    const visitor = (bytes: Buffer, at: number): boolean => {
      send(bytes, at)
      return !isHeld && replayed < batchEnd
    }
    next = await stream.visit(next, visitor, end)
    // The last one was not sent.
    if (isHeld) next--
    await schedule.flush()
  }
  return { replayed, unrouted, next, isHeld }
}

/** A message keeps its key, in the dialect of the exchange. */
function keyFor(exchange: string, bytes: Buffer, at: number): string {
  const key = recordKey(bytes, at)
  return (exchange === MQTT_EXCHANGE) === recordIsTopic(bytes, at) ? key : swapSeparators(key)
}
