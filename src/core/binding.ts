import type { LiveReceiver } from './consumer.ts'
import type { HeadersMatch, HeaderValue } from './exchanges/headers.ts'
import type { Keeper } from './keeper.ts'

/**
 * What a binding leads to. An MQTT session is one destination with a live side (QoS 0, no queue) and a queue; a named queue, a
 * route's outbox or a stream is one with a queue only. Several bindings of one destination that match the same message deliver it once,
 * with the highest QoS and the notes of all of them, or-ed.
 */
export interface Destination {
  readonly live: LiveReceiver | null
  readonly queue: Keeper | null
}

/** A binding may lead on to another exchange instead (RabbitMQ, Exchange to Exchange Bindings). */
export interface ExchangeTarget {
  readonly exchange: string
}

export interface Binding {
  /** Pattern in the exchange's own dialect: an MQTT filter for the built-in topic exchange, a routing key or AMQP pattern for others. */
  readonly pattern: string
  readonly destination: Destination | ExchangeTarget
  /**
   * Highest QoS delivered over this binding. A message of QoS 0 or a binding of maxQos 0 goes to the live side if there is one,
   * else into the queue; anything else into the queue.
   */
  readonly maxQos: 0 | 1 | 2
  /**
   * Opaque to core, 0..255, handed back with each delivery: whatever the binder needs to know (granted QoS, …). Bit 0 is core's. Notes of several
   * bindings of one destination that match the same message are or-ed.
   */
  readonly note: number
  /** What a headers exchange compares; other exchanges do not look at it. */
  readonly headers?: { readonly match: HeadersMatch; readonly values: ReadonlyMap<string, HeaderValue> }
}
