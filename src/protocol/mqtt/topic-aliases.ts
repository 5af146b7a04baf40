import { isTopicAt } from './topic.ts'

/** A topic alias as a property: identifier and value. */
export const ALIAS_BYTES = 3
/** Topics up to this length get one: the names of all that have one are kept for each client. */
const MAX_TOPIC_BYTES = 1024
/** Topics without an alias that are remembered as sent. */
const SENT_TOPICS = 64

/**
 * Topic aliases towards one client, for the time of its connection [MQTT-3.3.2-7]. A topic gets one when it is sent again among the last few without one,
 * and keeps it; when all are given away the others go without. Asked for each message in turn: what is said holds for the topic last
 * looked for.
 */
export class TopicAliases {
  readonly #most: number
  readonly #byTopic = new Map<string, number>()
  /** The last that were sent once, without an alias; the oldest first. */
  readonly #sentOnce = new Set<string>()
  #bytes: Buffer = Buffer.alloc(0)
  #topic = ''
  #alias = 0

  /** `most`: aliases 1 to so many are used. */
  constructor(most: number) {
    this.#most = most
  }

  /** The alias that stands for the topic at bytes[from, to); 0: none does. */
  find(bytes: Buffer, from: number, to: number): number {
    if (!isTopicAt(this.#bytes, bytes, from, to)) {
      this.#bytes = Buffer.from(bytes.subarray(from, to))
      this.#topic = this.#bytes.toString()
      this.#alias = this.#byTopic.get(this.#topic) ?? 0
    }
    return this.#alias
  }

  /**
   * The topic, which has no alias, is about to be sent: returns the one it may be given with that; 0: none. A topic that is no longer than the property is
   * worth none.
   */
  offer(): number {
    const { length } = this.#bytes
    if (this.#byTopic.size === this.#most || length <= ALIAS_BYTES || length > MAX_TOPIC_BYTES) return 0
    if (this.#sentOnce.has(this.#topic)) return this.#byTopic.size + 1
    for (const oldest of this.#sentOnce) {
      if (this.#sentOnce.size < SENT_TOPICS) break
      this.#sentOnce.delete(oldest)
    }
    this.#sentOnce.add(this.#topic)
    return 0
  }

  /** The client has been told that the alias offered stands for the topic. */
  take(): void {
    this.#sentOnce.delete(this.#topic)
    this.#alias = this.#byTopic.size + 1
    this.#byTopic.set(this.#topic, this.#alias)
    if (this.#byTopic.size === this.#most) this.#sentOnce.clear()
  }
}
