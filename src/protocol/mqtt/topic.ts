import { BrokerError } from '../../model/error.ts'
import { queueName, topicFilter, topicName } from '../../model/names.ts'
import { parseReadFrom, type ReadFrom } from '../../model/read-from.ts'
import type { LimitName, MqttLimits } from './limits.ts'
import { LimitReached, ProtocolError, Reason } from './protocol-error.ts'
import { refusal, type SubscriptionRefusal } from './reply-code.ts'

const SLASH = 0x2f
/** Filters that begin so name something other than topics. Nobody needs $queue and $stream to use what the standard has: 3.1.1 [MQTT-7.0.0-2]. */
const FAMILY = /^\$(share|queue|stream)(?:\/|$)/

/** `limits.topic` and `limits.topic_levels`. */
export type TopicLimits = Pick<MqttLimits, 'topicBytes' | 'topicLevels'>

/** Checks a topic somebody publishes to; throws ProtocolError. An empty one is judged by the caller, whose versions differ. */
export function checkTopic(topic: string, limits: TopicLimits): void {
  try {
    topicName(topic)
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    throw new ProtocolError(Reason.topicNameInvalid, error.message)
  }
  const excess = excessOf(topic, limits)
  if (excess !== null) throw new LimitReached(excess.limit, Reason.topicNameInvalid, `a topic ${excess.text}`)
}

/** `$share/GROUP/FILTER`, which is its `name`, taken apart. */
export interface SharedFilter {
  readonly kind: 'share'
  readonly name: string
  readonly filter: string
}

/** Whether this topic lies at bytes[from, to). Topics of one device differ in their tails, so they are compared from there. */
export function isTopicAt(topic: Buffer, bytes: Buffer, from: number, to: number): boolean {
  let n = topic.length
  if (n !== to - from) return false
  while (n-- > 0) if (topic[n] !== bytes[from + n]) return false
  return true
}

/** What a filter asks for. */
export type Wanted =
  /** What is published to the topics it matches. */
  | { readonly kind: 'topics' }
  /** `$queue/NAME`: to be a consumer of a named queue. */
  | { readonly kind: 'queue'; readonly name: string }
  /** `$stream/NAME/FROM`: to read a stream from there on. */
  | { readonly kind: 'stream'; readonly name: string; readonly from: ReadFrom }
  /** `$share/GROUP/FILTER`: a share of what is published to the topics that FILTER matches. */
  | SharedFilter

/** Reads a filter as far as it can be judged by itself. */
export function readFilter(filter: string, limits: TopicLimits): Wanted | SubscriptionRefusal {
  const excess = excessOf(filter, limits)
  if (excess !== null) return refusal(Reason.topicFilterInvalid, `a filter ${excess.text}`, excess.limit)
  switch (FAMILY.exec(filter)?.[1]) {
    case 'share':
      return readSharedFilter(filter)
    case 'stream':
      return readStreamFilter(filter.slice('$stream/'.length))
    case 'queue':
      return readQueueFilter(filter.slice('$queue/'.length))
    default:
      return readTopicFilter(filter, { kind: 'topics' })
  }
}

function readTopicFilter(filter: string, wanted: Wanted): Wanted | SubscriptionRefusal {
  return read(() => {
    topicFilter(filter)
    return wanted
  })
}

function readSharedFilter(name: string): Wanted | SubscriptionRefusal {
  const [, group = '', ...rest] = name.split('/')
  if (group === '' || hasWildcard(group)) {
    // [MQTT-4.8.2-1], [MQTT-4.8.2-2]
    return refusal(Reason.topicFilterInvalid, '$share/GROUP/FILTER: GROUP is one character at least, without / + #')
  }
  const filter = rest.join('/')
  if (/^\$(queue|stream)(?:\/|$)/.test(filter)) {
    return refusal(Reason.sharedSubscriptionsNotSupported, '$queue is shared as it is, and each reads a $stream alone')
  }
  return readTopicFilter(filter, { kind: 'share', name, filter })
}

function readQueueFilter(name: string): Wanted | SubscriptionRefusal {
  if (hasWildcard(name)) {
    return refusal(Reason.topicFilterInvalid, '$queue/NAME names one queue; wildcards + and # are for topics')
  }
  return read(() => ({ kind: 'queue', name: queueName(name) }))
}

/** A NAME may have slashes, FROM has none. */
function readStreamFilter(nameAndFrom: string): Wanted | SubscriptionRefusal {
  const slash = nameAndFrom.lastIndexOf('/')
  const name = nameAndFrom.slice(0, Math.max(0, slash))
  const from = parseReadFrom(nameAndFrom.slice(slash + 1))
  if (from === null || hasWildcard(name)) {
    return refusal(
      Reason.topicFilterInvalid,
      '$stream/NAME/FROM names one stream, and FROM is first, last, next, a sequence number or a UTC time such as 2026-11-26T08:00:00Z',
    )
  }
  return read(() => ({ kind: 'stream', name: queueName(name), from }))
}

const hasWildcard = (name: string): boolean => name.includes('+') || name.includes('#')

function read(wanted: () => Wanted): Wanted | SubscriptionRefusal {
  try {
    return wanted()
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    return refusal(Reason.topicFilterInvalid, error.message)
  }
}

/** How a topic or filter is beyond the limits; null: it isn't. */
function excessOf(
  text: string,
  { topicBytes, topicLevels }: TopicLimits,
): { readonly limit: LimitName; readonly text: string } | null {
  if (text.length > topicBytes || Buffer.byteLength(text) > topicBytes) {
    return { limit: 'topic', text: `is longer than ${topicBytes} bytes` }
  }
  let levels = 1
  for (let at = 0; at < text.length; at++) {
    if (text.charCodeAt(at) === SLASH && ++levels > topicLevels) {
      return { limit: 'topic_levels', text: `has more than ${topicLevels} levels` }
    }
  }
  return null
}
