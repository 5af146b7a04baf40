/*
 * WARNING: entries of durable session queues keep it on disk (docs/storage-format.md). A change is a new store format version.
 *
 * What a session's binding notes of its subscription, one byte with every entry of its queue (Binding.note):
 *
 *     bit  0  core's (Keeper.noteNow)
 *          1  Retain As Published
 *          2  the client's own messages too: No Local is not set
 *        3-4  granted QoS: 00, 01, 11
 *          5  a retained message, sent because of a new subscription
 *          6  over a shared subscription: the message has the identifier of that among its properties
 *
 * Core or-s the notes of overlapping subscriptions. So a message is delivered once, with the highest QoS of those that match
 * [MQTT-3.3.4-2]; it is kept from its own client only if all of them are No Local; and one that wants the retain flag as published is enough.
 */
import { type QoS, recordQos, recordRetain } from '../../model/message.ts'
import type { SubscriptionRequest } from './control-packet.ts'
import { PUBLISH_RETAIN } from './publish-frame.ts'

const RETAIN_AS_PUBLISHED = 2
const LOCAL = 4
const QOS_SHIFT = 3
const RETAINED = 32
const SHARED = 64

export function subscriptionNote(
  { isNoLocal, isRetainAsPublished }: Pick<SubscriptionRequest, 'isNoLocal' | 'isRetainAsPublished'>,
  granted: QoS,
): number {
  const qos = (1 << granted) - 1
  return (isRetainAsPublished ? RETAIN_AS_PUBLISHED : 0) | (isNoLocal ? 0 : LOCAL) | (qos << QOS_SHIFT)
}

/** The note of a shared subscription on a message that goes to the session's own queue. */
export const sharedNote = (note: number): number => note | SHARED

export const isShared = (note: number): boolean => (note & SHARED) !== 0

/** Nothing is wanted that its own client published. */
export const isNoLocal = (note: number): boolean => (note & LOCAL) === 0

/** The retain flag is wanted as the publisher set it. */
export const isRetainAsPublished = (note: number): boolean => (note & RETAIN_AS_PUBLISHED) !== 0

/** The same for a message that is sent because it is retained and the subscription new. */
export const retainedNote = (note: number): number => note | RETAINED

export const grantedQos = (note: number): QoS => ((((note >> QOS_SHIFT) & 3) + 1) >> 1) as QoS

/** The lower of the QoS the record was published at and the one granted [MQTT-3.8.4-8], 3.1.1 [MQTT-3.8.4-6]. */
export const deliveredQos = (bytes: Buffer, at: number, note: number): QoS =>
  Math.min(recordQos(bytes, at), grantedQos(note)) as QoS

/**
 * The retain flag of a record's PUBLISH: set if it is sent because of a new subscription (section 3.3.1.3), 3.1.1 [MQTT-3.3.1-8]; as published where that
 * is wanted [MQTT-3.3.1-13]; else clear [MQTT-3.3.1-12], 3.1.1 [MQTT-3.3.1-9].
 */
export const retainFlag = (bytes: Buffer, at: number, note: number): number =>
  (note & RETAINED) !== 0 || (isRetainAsPublished(note) && recordRetain(bytes, at)) ? PUBLISH_RETAIN : 0
