import type { Run } from '../../core/run.ts'
import { MQTT_DIALECT, TopicTree } from '../../core/topic-tree.ts'
import { recordClientId, recordIsTopic, recordKeyAt, recordKeyBytes, recordTopic } from '../../model/message.ts'
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
 * several of them as often [MQTT-3.3.4-3], [MQTT-3.3.4-4]. Those with No Local have no part in what the session's own client published.
 */
export class SubscriptionIdentifiers {
  readonly #clientId: string
  readonly #byFilter = new Map<string, Identified>()
  readonly #tree = new TopicTree<Identified>(MQTT_DIALECT)
  /** How many of them are of subscriptions with No Local. */
  #noLocal = 0
  /** What was found for a topic, until a subscription changes. */
  #found = new Map<string, Buffer>()
  /** The topic of the last record, which is often that of the next. */
  #lastTopic: Buffer = NO_IDENTIFIERS
  #lastFound: Buffer = NO_IDENTIFIERS

  constructor(clientId: string) {
    this.#clientId = clientId
  }

  /** A subscription is made, or replaced by one with another identifier; 0: it has none. */
  set(filter: string, identifier: number, isNoLocal: boolean): void {
    this.delete(filter)
    if (identifier === 0) return
    const identified = { property: identifierProperty(identifier), isNoLocal }
    this.#byFilter.set(filter, identified)
    this.#tree.add(filter, identified)
    if (isNoLocal) this.#noLocal++
    this.#forget()
  }

  delete(filter: string): void {
    const identified = this.#byFilter.get(filter)
    if (identified === undefined) return
    this.#byFilter.delete(filter)
    this.#tree.remove(filter, identified)
    if (identified.isNoLocal) this.#noLocal--
    this.#forget()
  }

  /** Property bytes for the messages of a run. */
  ofRun({ prefix }: Run, topic: string): Buffer {
    if (this.#byFilter.size === 0) return NO_IDENTIFIERS
    return this.#isOwn(prefix.bytes, 0) ? this.#match(topic, true) : this.#find(topic)
  }

  /** Property bytes for a message in stored form. */
  ofRecord(bytes: Buffer, at: number): Buffer {
    if (this.#byFilter.size === 0) return NO_IDENTIFIERS
    if (this.#isOwn(bytes, at)) return this.#match(recordTopic(bytes, at), true)
    if (!recordIsTopic(bytes, at)) return this.#find(recordTopic(bytes, at))
    const from = recordKeyAt(bytes, at)
    const to = from + recordKeyBytes(bytes, at)
    if (!isTopicAt(this.#lastTopic, bytes, from, to)) {
      this.#lastFound = this.#find(recordTopic(bytes, at))
      this.#lastTopic = Buffer.from(bytes.subarray(from, to))
    }
    return this.#lastFound
  }

  /** Whether it matters who published the message, and it was the session's client. */
  #isOwn(bytes: Buffer, at: number): boolean {
    return this.#noLocal > 0 && recordClientId(bytes, at) === this.#clientId
  }

  #find(topic: string): Buffer {
    const known = this.#found.get(topic)
    if (known !== undefined) return known
    const found = this.#match(topic, false)
    if (this.#found.size >= MAX_CACHED_TOPICS) this.#found.clear()
    this.#found.set(topic, found)
    return found
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
    this.#lastFound = NO_IDENTIFIERS
  }
}
