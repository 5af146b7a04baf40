import { type BrokerError, ERROR_CODES, type ErrorCode } from '../../model/error.ts'
import type { LimitName } from './limits.ts'
import { Reason } from './protocol-error.ts'

/** Reason codes from here on are failures (5.0 section 2.4). */
export const FIRST_FAILURE = 0x80

/** How a refused PUBLISH is answered in a PUBACK or PUBREC of 5.0 (sections 3.4.2.1 and 3.5.2.1): code and reason string. */
export interface PublishRefusal {
  readonly reason: Reason
  readonly text: string
}

const fault = (text: string): PublishRefusal => ({ reason: Reason.unspecified, text })
const quota = (text: string): PublishRefusal => ({ reason: Reason.quotaExceeded, text })

/** Every condition has its answer: a new code doesn't compile until it has one here. */
const PUBLISH_REFUSALS: Record<ErrorCode, PublishRefusal> = {
  QUEUE_FULL: quota('a queue this message must go to is full; send it again later'),
  RETAINED_FULL: quota(
    'there are as many retained messages as there may be; send it again later, or not to be retained',
  ),
  DISK_FULL: quota('the disk is too full to keep this message; send it again later'),
  MEMORY_FULL: quota('the memory for messages is used up; send it again later'),
  STORE_UNAVAILABLE: quota('messages cannot be stored now; send it again later'),
  UPSTREAM_UNREACHABLE: quota(
    'the upstream cannot be reached and this message must be confirmed there; send it again later',
  ),
  UPSTREAM_UNCONFIRMED: quota('the upstream did not confirm the message in time; it may have arrived, send it again'),
  UPSTREAM_REFUSED: quota('the upstream refused the message'),
  NOT_AUTHORIZED: { reason: Reason.notAuthorized, text: 'publishing to this topic is not allowed' },
  NAME_INVALID: { reason: Reason.topicNameInvalid, text: 'the topic is not valid' },
  STOPPING: { reason: Reason.implementationSpecific, text: 'the gateway is stopping; connect again later' },
  QUEUE_IN_USE: fault('the queue is in use'),
  QUEUE_NOT_FOUND: fault('a queue this message must go to is gone'),
  STREAM_NOT_FOUND: fault('a stream this message must go to is gone'),
  STREAM_READERS_FULL: fault('the stream has too many readers'),
  EXCHANGE_NOT_FOUND: fault('the exchange this message goes to is gone'),
  BINDING_NOT_FOUND: fault('the binding of this message is gone'),
  DECLARATION_MISMATCH: fault('it exists with other attributes'),
  DEFINITIONS_REFUSED: fault('definitions were refused'),
  LIMIT_REACHED: quota('there are as many as there may be'),
  UPSTREAM_NOT_FOUND: fault('the upstream of this route is gone'),
  CLIENT_NOT_FOUND: fault('the client is gone'),
  SESSION_NOT_FOUND: fault('the session is gone'),
  BAN_NOT_FOUND: fault('the ban is over'),
  REQUEST_INVALID: fault('the message was not understood'),
  CONFIG_INVALID: fault('the gateway is configured wrongly'),
  CONFIG_NOT_FOUND: fault('the gateway is configured wrongly'),
  LISTENER_PORT_IN_USE: fault('the gateway has a fault'),
  LISTENER_FAILED: fault('the gateway has a fault'),
  TLS_FILES_INVALID: fault('the gateway has a fault'),
  STORE_LOCKED: fault('the store is in use by another process'),
  STORE_UNWRITABLE: fault('the store cannot be written'),
  STORE_FORMAT_UNKNOWN: fault('the store has an unknown format'),
}

/** How a filter in a SUBSCRIBE is refused (5.0 section 3.9.3); 3.1.1 has one code for all. */
export interface SubscriptionRefusal {
  readonly kind: 'refused'
  readonly reason: Reason
  readonly text: string
  /** It is refused because this limit is reached. */
  readonly limit: LimitName | null
}

export const refusal = (reason: Reason, text: string, limit: LimitName | null = null): SubscriptionRefusal => ({
  kind: 'refused',
  reason,
  text,
  limit,
})

/**
 * Why a client cannot consume, in the words of 5.0: a queue or stream that is not there is a filter this server does not take, one that
 * takes no further consumer a limit somebody set.
 */
export function consumerRefusal({ code, message }: BrokerError): SubscriptionRefusal {
  switch (code) {
    case 'QUEUE_NOT_FOUND':
    case 'STREAM_NOT_FOUND':
      return refusal(Reason.topicFilterInvalid, message)
    case 'QUEUE_IN_USE':
    case 'STREAM_READERS_FULL':
    case 'LIMIT_REACHED':
      return refusal(Reason.quotaExceeded, message)
    default:
      return refusal(Reason.unspecified, message)
  }
}

/** CONNACK return codes of 3.1 and 3.1.1 (section 3.2.2.3). */
export const ConnackReturn = {
  accepted: 0,
  unacceptableProtocolVersion: 1,
  identifierRejected: 2,
  serverUnavailable: 3,
  badUserNameOrPassword: 4,
  notAuthorized: 5,
} as const
export type ConnackReturn = (typeof ConnackReturn)[keyof typeof ConnackReturn]

/*
 * What the ring of unanswered publishes keeps for each: one byte. Those below FIRST_REFUSAL are answers without one, the others stand for an
 * error code.
 */
export const ANSWER_SUCCESS = 0
export const ANSWER_NO_SUBSCRIBERS = 1
/** Of PUBCOMP: nothing was released. */
export const ANSWER_NOT_HELD = 2
const FIRST_REFUSAL = 3

export const refusalAnswer = (code: ErrorCode): number => FIRST_REFUSAL + ERROR_CODES.indexOf(code)

/** The refusal behind such a byte; undefined for the answers without one. */
export function answerRefusal(answer: number): PublishRefusal | undefined {
  const code = ERROR_CODES[answer - FIRST_REFUSAL]
  return code === undefined ? undefined : PUBLISH_REFUSALS[code]
}
