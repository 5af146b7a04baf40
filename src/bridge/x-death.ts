import type { Identities } from '../core/identity.ts'
import type { DeathHistory, HistoryEntry } from '../model/death-history.ts'
import { MQTT_EXCHANGE, swapSeparators } from '../model/message.ts'
import type { Headers } from './mapping.ts'

/** One table in `x-death`, its values with the types RabbitMQ gives them. */
export interface XDeath {
  readonly count: { readonly '!': 'long'; readonly value: number }
  readonly reason: string
  readonly queue: string
  /** Seconds since 1970. */
  readonly time: { readonly '!': 'timestamp'; readonly value: number }
  readonly exchange: string
  readonly 'routing-keys': readonly [string]
  /** Milliseconds, in decimal. */
  readonly 'original-expiration'?: string
}

/** Adds what became of a message to its headers: `x-first-death-*` and `x-death` as RabbitMQ writes them, and how often it was replayed. */
export function addHistory(headers: Headers, { entries, firstDeath }: DeathHistory, identities: Identities): void {
  if (firstDeath !== null) {
    headers['x-first-death-exchange'] = amqpAddress(firstDeath).exchange
    headers['x-first-death-queue'] = firstDeath.queue
    headers['x-first-death-reason'] = firstDeath.event
    headers['x-death'] = entries.filter(({ event }) => event !== 'replayed').map(entry => xDeath(entry, identities))
  }
  const replays = entries.filter(({ event }) => event === 'replayed').reduce((sum, { count }) => sum + count, 0)
  if (replays > 0) headers['x-sluice-replayed'] = replays
}

function xDeath(entry: HistoryEntry, identities: Identities): XDeath {
  const { event, queue, count, at, originalExpirationMs } = entry
  const { exchange, key } = amqpAddress(entry)
  const seconds = Math.max(0, Math.floor(identities.wallTimeOf(at) / 1000))
  return {
    count: { '!': 'long', value: count },
    reason: event,
    queue,
    time: { '!': 'timestamp', value: seconds },
    exchange,
    'routing-keys': [key],
    ...(originalExpirationMs === null ? {} : { 'original-expiration': String(originalExpirationMs) }),
  }
}

/** `mqtt` is known to AMQP clients as `amq.topic`, and its topics as routing keys (contract of MQTT and AMQP: the `rabbitmq` codec). */
function amqpAddress({ exchange, key }: HistoryEntry): { exchange: string; key: string } {
  return exchange === MQTT_EXCHANGE ? { exchange: 'amq.topic', key: swapSeparators(key) } : { exchange, key }
}

/** An upper bound of what one table takes, bytes. */
export const xDeathBytes = ({ reason, queue, exchange, 'routing-keys': [key] }: XDeath): number =>
  192 + Buffer.byteLength(reason) + Buffer.byteLength(queue) + Buffer.byteLength(exchange) + Buffer.byteLength(key)
