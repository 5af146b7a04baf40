import type { Address, DeadLetterQueue, HistoryEvent, ReplayAnswer, ReplayRequest } from './api/contract.ts'
import { DEFAULT_EXCHANGE } from './core/exchange.ts'
import type { Identities } from './core/identity.ts'
import type { MessageAddress } from './core/mover.ts'
import type { Queue, SiftCursor } from './core/queue.ts'
import type { Replayed, ReplayOptions } from './core/replay.ts'
import type { Topology } from './core/topology.ts'
import { historyOf } from './model/death-history.ts'
import { BrokerError } from './model/error.ts'
import { MQTT_EXCHANGE, recordSeq } from './model/message.ts'
import { exchangeName, routingKey, topicName } from './model/names.ts'

/** One request replays for about so long; the answer says where the next one goes on. */
const REPLAY_MS = 2000

/** Queues that are named for the dead letters of others, and those at whose front a dead letter is. */
export function deadLetterQueues(topology: Topology, oldestAgeMs: (queue: Queue) => number | null): DeadLetterQueue[] {
  const sources = new Map<string, string[]>()
  for (const { name, deadLetter } of topology.queues()) {
    const { exchange, key } = deadLetter?.address ?? { exchange: null, key: null }
    if (exchange === DEFAULT_EXCHANGE && key !== null) sources.set(key, [...(sources.get(key) ?? []), name])
  }
  const found: DeadLetterQueue[] = []
  for (const queue of topology.queues()) {
    const { name, depth, bytes, oldest } = queue
    const isTold = sources.has(name) || (oldest !== null && historyOf(oldest.bytes, oldest.at) !== null)
    if (!isTold) continue
    found.push({ queue: name, sources: sources.get(name) ?? [], depth, bytes, oldest_age_ms: oldestAgeMs(queue) })
  }
  return found
}

/** What became of a message, and when it came here from another queue. */
export function historyDocument(
  bytes: Buffer,
  at: number,
  identities: Identities,
): { moved_at: string | null; history: HistoryEvent[] } {
  const history = historyOf(bytes, at)
  if (history === null) return { moved_at: null, history: [] }
  return {
    moved_at: new Date(identities.wallTimeOf(history.movedAt)).toISOString(),
    history: history.entries.map(({ event, queue, exchange, key, count, at: first, originalExpirationMs, words }) => ({
      event,
      queue,
      exchange,
      routing_key: key,
      count,
      first_at: new Date(identities.wallTimeOf(first)).toISOString(),
      original_expiration_ms: originalExpirationMs,
      words,
    })),
  }
}

/** @throws BrokerError NAME_INVALID, REQUEST_INVALID */
export function replayOptions(request: ReplayRequest, identities: Identities): ReplayOptions {
  const { id, positions, since, until, to, dry_run, limit, cursor } = request
  const seq = id === undefined ? 0 : Number(id.slice(id.lastIndexOf('/') + 1))
  const sinceMs = since === undefined ? Number.NEGATIVE_INFINITY : Date.parse(since)
  const untilMs = until === undefined ? Number.POSITIVE_INFINITY : Date.parse(until)
  const isTimed = since !== undefined || until !== undefined
  return {
    isWanted: (bytes, at, position) => {
      if (id !== undefined && (recordSeq(bytes, at) !== seq || identities.messageId(bytes, at) !== id)) return false
      if (positions !== undefined && (position < positions.from || position > positions.to)) return false
      if (!isTimed) return true
      const movedAt = historyOf(bytes, at)?.movedAt
      const ms = movedAt === undefined ? identities.wallTimeMs(bytes, at) : identities.wallTimeOf(movedAt)
      return ms >= sinceMs && ms <= untilMs
    },
    to: to === null ? null : messageAddress(to),
    isDryRun: dry_run,
    limit,
    budgetMs: REPLAY_MS,
    cursor: cursor === null ? null : parseCursor(cursor),
  }
}

export function replayAnswer(result: Replayed): ReplayAnswer {
  const { replayed, unrouted, unaddressed, destinations, next, isHeld } = result
  return {
    replayed,
    unrouted,
    unaddressed,
    destinations: [...destinations.values()].map(({ exchange, key, count }) => ({
      exchange,
      routing_key: key,
      messages: count,
    })),
    held: isHeld,
    next: next === null ? null : `${next.position}:${next.through.join(',')}`,
  }
}

function parseCursor(cursor: string): SiftCursor {
  const [, position = '', through = ''] = /^(\d{1,16}):(\d{1,16}(?:,\d{1,16}){0,15})$/.exec(cursor) ?? []
  if (position === '') {
    throw new BrokerError('REQUEST_INVALID', 'cursor: what is needed is `next` of the answer before, as it was')
  }
  return { position: Number(position), through: through.split(',').map(Number) }
}

/** @throws BrokerError NAME_INVALID for a key the exchange cannot be given. */
export function messageAddress({ exchange, routing_key }: Address): MessageAddress {
  if (exchange !== DEFAULT_EXCHANGE) exchangeName(exchange)
  if (routing_key === null) return { exchange, key: null }
  return { exchange, key: exchange === MQTT_EXCHANGE ? topicName(routing_key) : routingKey(routing_key) }
}
