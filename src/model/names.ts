/*
 * Names that come from outside, branded once checked, so that a function asking for a TopicFilter cannot be handed any string.
 * Each function throws BrokerError NAME_INVALID with the rule that was broken.
 */
import { BrokerError } from './error.ts'

declare const brand: unique symbol
type Name<Kind extends string> = string & { readonly [brand]: Kind }

/** A topic a message is published to: no wildcards [MQTT-3.3.2-2]. */
export type TopicName = Name<'topic'>
/** A topic with wildcards `+` and `#` as subscribed to. */
export type TopicFilter = Name<'filter'>
export type ClientId = Name<'client'>
export type QueueName = Name<'queue'>
export type ExchangeName = Name<'exchange'>
export type UserName = Name<'user'>
export type RoutingKey = Name<'routing key'>
/** Name the operator gives to an upstream or a route in the configuration. */
export type ConfiguredName = Name<'configured'>

/** Two bytes of length on the wire [MQTT-4.7.3-3]. */
const MQTT_STRING_BYTES_MAX = 65_535
/** AMQP short string. */
const SHORT_STRING_BYTES_MAX = 255
/** Filters of these families are subscriptions of another kind, not patterns of topics. */
const RESERVED_FILTER_PREFIXES = ['$share/', '$queue/', '$stream/']

/** A topic to publish to. */
export function topicName(text: string): TopicName {
  checkMqttString(text, 'topic')
  if (text.includes('+') || text.includes('#')) {
    throw invalid(text, 'topic', 'wildcards + and # are for filters only') // [MQTT-3.3.2-2], [MQTT-4.7.0-1]
  }
  return text as TopicName
}

/** A filter that selects topics, such as `sensors/+/temperature` or `sensors/#`. */
export function topicFilter(text: string): TopicFilter {
  checkMqttString(text, 'topic filter')
  const prefix = RESERVED_FILTER_PREFIXES.find(reserved => text.startsWith(reserved))
  if (prefix !== undefined) throw invalid(text, 'topic filter', `${prefix}… does not select topics`)
  const levels = text.split('/')
  for (const [index, level] of levels.entries()) {
    if (level.includes('+') && level !== '+') {
      throw invalid(text, 'topic filter', '+ must fill its whole level') // [MQTT-4.7.1-2]
    }
    if (level.includes('#') && (level !== '#' || index !== levels.length - 1)) {
      throw invalid(text, 'topic filter', '# must fill the last level') // [MQTT-4.7.1-1]
    }
  }
  return text as TopicFilter
}

/** Any text MQTT can carry, not empty. */
export function clientId(text: string): ClientId {
  checkMqttString(text, 'client id')
  return text as ClientId
}

/** As in AMQP: up to 255 bytes, no control characters. */
export function queueName(text: string): QueueName {
  checkShortString(text, 'queue name')
  return text as QueueName
}

/** As in AMQP: up to 255 bytes, no control characters. */
export function exchangeName(text: string): ExchangeName {
  checkShortString(text, 'exchange name')
  return text as ExchangeName
}

/** Who logs in: up to 255 bytes, no control characters. */
export function userName(text: string): UserName {
  checkShortString(text, 'user name')
  return text as UserName
}

/** A routing key or a pattern of them, as in AMQP: up to 255 bytes, may be empty. */
export function routingKey(text: string): RoutingKey {
  if (text !== '') checkShortString(text, 'routing key')
  return text as RoutingKey
}

/** Letters, digits, `_` and `-`: such a name stands in paths of `--set`, variables of the environment and URLs as it is. */
export function configuredName(text: string): ConfiguredName {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(text)) {
    throw invalid(text, 'name', 'accepted are 1 to 64 letters, digits, _ and -, beginning with a letter or digit')
  }
  return text as ConfiguredName
}

function checkMqttString(text: string, what: string): void {
  if (text.length === 0) throw invalid(text, what, 'it must not be empty') // [MQTT-4.7.3-1]
  if (text.includes('\u0000')) throw invalid(text, what, 'it must not contain U+0000') // [MQTT-4.7.3-2]
  if (!text.isWellFormed()) throw invalid(text, what, 'it is not well-formed Unicode') // [MQTT-1.5.4-1]
  if (Buffer.byteLength(text) > MQTT_STRING_BYTES_MAX) {
    throw invalid(text, what, `it must not be longer than ${MQTT_STRING_BYTES_MAX} bytes`)
  }
}

function checkShortString(text: string, what: string): void {
  if (text.length === 0) throw invalid(text, what, 'it must not be empty')
  if (!text.isWellFormed() || /\p{Cc}/u.test(text)) throw invalid(text, what, 'it must not contain control characters')
  if (Buffer.byteLength(text) > SHORT_STRING_BYTES_MAX) {
    throw invalid(text, what, `it must not be longer than ${SHORT_STRING_BYTES_MAX} bytes`)
  }
}

/** A name from outside, shortened and escaped: it ends up in logs and terminals. */
export const quoteName = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)

function invalid(text: string, what: string, rule: string): BrokerError {
  return new BrokerError('NAME_INVALID', `${quoteName(text)} is not a valid ${what}: ${rule}`)
}
