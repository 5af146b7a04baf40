import { MQTT_DIALECT, TopicTree } from '../../core/topic-tree.ts'
import { recordIsTopic, recordKeyAt, recordKeyBytes, recordTopic } from '../../model/message.ts'
import { Property } from './properties.ts'
import { varintBytes, writeVarint } from './publish-frame.ts'
import { isTopicAt } from './topic.ts'

const MAX_CACHED_TOPICS = 1024

export const NO_IDENTIFIERS: Buffer = Buffer.alloc(0)

/** A subscription identifier as a property of a PUBLISH; 0: none. */
export function identifierProperty(identifier: number): Buffer {
  if (identifier === 0) return NO_IDENTIFIERS
  const property = Buffer.alloc(1 + varintBytes(identifier))
  property[0] = Property.subscriptionIdentifier
  writeVarint(property, 1, identifier)
  return property
}

interface Identified {
  readonly property: Buffer
  readonly isNoLocal: boolean
}

/**
 * The subscription identifiers of a session's topic filters, and which of them a PUBLISH carries: of all subscriptions that match, in any order, one given to
 * several of them as often [MQTT-3.3.4-3], [MQTT-3.3.4-4]. A session without any asks `isEmpty` and no more.
 */
export class SubscriptionIdentifiers {
  readonly #byFilter = new Map<string, Identified>()
  readonly #tree = new TopicTree<Identified>(MQTT_DIALECT)
  /** What was found for a topic, until a subscription changes. */
  #found = new Map<string, Buffer>()
  /** The topic of the last record, which is often that of the next. */
  #lastTopic: Buffer = NO_IDENTIFIERS
  #lastFound: Buffer = NO_IDENTIFIERS

  get isEmpty(): boolean {
    return this.#byFilter.size === 0
  }

  /** A subscription is made, or replaced by one with another identifier; 0: it has none. */
  set(filter: string, identifier: number, isNoLocal: boolean): void {
    this.delete(filter)
    if (identifier === 0) return
    const identified = { property: identifierProperty(identifier), isNoLocal }
    this.#byFilter.set(filter, identified)
    this.#tree.add(filter, identified)
    this.#forget()
  }

  delete(filter: string): void {
    const identified = this.#byFilter.get(filter)
    if (identified === undefined) return
    this.#byFilter.delete(filter)
    this.#tree.remove(filter, identified)
    this.#forget()
  }

  /** Property bytes for a message to this topic. `isOwn`: its session's client published it, and no subscription with No Local has brought it. */
  ofTopic(topic: string, isOwn: boolean): Buffer {
    if (isOwn) return this.#match(topic, true)
    const known = this.#found.get(topic)
    if (known !== undefined) return known
    const found = this.#match(topic, false)
    if (this.#found.size >= MAX_CACHED_TOPICS) this.#found.clear()
    this.#found.set(topic, found)
    return found
  }

  /** The same for a message in stored form. */
  ofRecord(bytes: Buffer, at: number, isOwn: boolean): Buffer {
    if (isOwn || !recordIsTopic(bytes, at)) return this.ofTopic(recordTopic(bytes, at), isOwn)
    const from = recordKeyAt(bytes, at)
    const to = from + recordKeyBytes(bytes, at)
    if (!isTopicAt(this.#lastTopic, bytes, from, to)) {
      this.#lastFound = this.ofTopic(recordTopic(bytes, at), false)
      this.#lastTopic = Buffer.from(bytes.subarray(from, to))
    }
    return this.#lastFound
  }

  #match(topic: string, isOwn: boolean): Buffer {
    const properties: Buffer[] = []
    this.#tree.match(topic, ({ property, isNoLocal }) => {
      if (!(isOwn && isNoLocal)) properties.push(property)
    })
    return properties.length === 0 ? NO_IDENTIFIERS : Buffer.concat(properties)
  }

  #forget(): void {
    this.#found = new Map()
    this.#lastTopic = NO_IDENTIFIERS
  }
}
