import { BrokerError } from '../../model/error.ts'
import { topicFilter, topicName } from '../../model/names.ts'
import { ProtocolError, Reason } from './protocol-error.ts'

const SLASH = 0x2f
const RESERVED_FAMILY = /^\$(share|queue|stream)\//

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

/** Why a filter cannot be subscribed to, as a SUBACK reason code of 5.0; null if it can. */
export function filterRefusal(filter: string, levels: number): Reason | null {
  const family = RESERVED_FAMILY.exec(filter)
  if (family !== null) {
    return family[1] === 'share' ? Reason.sharedSubscriptionsNotSupported : Reason.topicFilterInvalid
  }
  if (!hasLevels(filter, levels)) return Reason.topicFilterInvalid
  try {
    topicFilter(filter)
    return null
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    return Reason.topicFilterInvalid
  }
}

function hasLevels(text: string, most: number): boolean {
  let levels = 1
  for (let at = 0; at < text.length; at++) {
    if (text.charCodeAt(at) === SLASH && ++levels > most) return false
  }
  return true
}
