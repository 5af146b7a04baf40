import { BrokerError } from '../../model/error.ts'
import { queueName, topicFilter, topicName } from '../../model/names.ts'
import { parseReadFrom, type ReadFrom } from '../../model/read-from.ts'
import { ProtocolError, Reason } from './protocol-error.ts'
import { refusal, type SubscriptionRefusal } from './reply-code.ts'

const SLASH = 0x2f
/** Filters that begin so name something other than topics. */
const FAMILY = /^\$(share|queue|stream)(?:\/|$)/

/** Checks a topic somebody publishes to; throws ProtocolError. An empty one is judged by the caller, whose versions differ. */
export function checkTopic(topic: string, levels: number): void {
  try {
    topicName(topic)
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    throw new ProtocolError(Reason.topicNameInvalid, error.message)
  }
  if (!hasLevels(topic, levels)) {
    throw new ProtocolError(Reason.topicNameInvalid, `a topic has more than ${levels} levels`)
  }
}

/** What a filter asks for. */
export type Wanted =
  /** What is published to the topics it matches. */
  | { readonly kind: 'topics' }
  /** `$queue/NAME`: to be a consumer of a named queue. */
  | { readonly kind: 'queue'; readonly name: string }
  /** `$stream/NAME/FROM`: to read a stream from there on. */
  | { readonly kind: 'stream'; readonly name: string; readonly from: ReadFrom }

/** Reads a filter as far as it can be judged by itself; `levels` at most. */
export function readFilter(filter: string, levels: number): Wanted | SubscriptionRefusal {
  switch (FAMILY.exec(filter)?.[1]) {
    case 'share':
      return refusal(Reason.sharedSubscriptionsNotSupported, 'shared subscriptions are not supported')
    case 'stream':
      return readStreamFilter(filter.slice('$stream/'.length))
    case 'queue':
      return readQueueFilter(filter.slice('$queue/'.length))
    default:
      if (!hasLevels(filter, levels)) {
        return refusal(Reason.topicFilterInvalid, `a filter has more than ${levels} levels`)
      }
      return read(() => {
        topicFilter(filter)
        return { kind: 'topics' }
      })
  }
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

function hasLevels(text: string, most: number): boolean {
  let levels = 1
  for (let at = 0; at < text.length; at++) {
    if (text.charCodeAt(at) === SLASH && ++levels > most) return false
  }
  return true
}
