import { setImmediate as nextTurn } from 'node:timers/promises'
import type { MessageDocument } from './api/contract.ts'
import type { RetainedModel } from './api/gateway.ts'
import type { CommitSchedule } from './core/commit-schedule.ts'
import type { Identities } from './core/identity.ts'
import type { Retained, RetainedMessage } from './core/retained.ts'
import { messageDocument } from './gateway-message.ts'
import { recordKey } from './model/message.ts'
import type { TopicFilter } from './model/names.ts'

/** Topics looked at in one turn of the event loop: a few milliseconds. */
const TURN_TOPICS = 4096
/** One answer takes no further message once it has so many bytes of them; it holds all payloads in full. */
const READ_BYTES = 4 * 1024 * 1024

/** The retained messages of the running gateway in the words of the API. */
export class RunningRetained implements RetainedModel {
  readonly #retained: Retained
  readonly #identities: Identities
  readonly #schedule: CommitSchedule

  constructor({
    retained,
    identities,
    schedule,
  }: {
    retained: Retained
    identities: Identities
    schedule: CommitSchedule
  }) {
    this.#retained = retained
    this.#identities = identities
    this.#schedule = schedule
  }

  async list(
    filter: TopicFilter,
    { after, limit }: { readonly after: string; readonly limit: number },
  ): Promise<MessageDocument[]> {
    // The page is the first topics behind `after`; what lies behind the page is thrown away from time to time.
    let page: { readonly topic: string; readonly message: RetainedMessage }[] = []
    const cut = () => {
      page = page.sort((one, other) => (one.topic < other.topic ? -1 : 1)).slice(0, limit)
    }
    for await (const { slab, at, change } of this.#matches(filter)) {
      const topic = recordKey(slab.bytes, at)
      if (topic <= after) continue
      // A copy: the place of the message may change, the bytes that stand there now do not.
      page.push({ topic, message: { slab, at, change } })
      if (page.length >= 2 * limit) cut()
    }
    cut()
    const documents: MessageDocument[] = []
    let bytes = 0
    for (const { message } of page) {
      if (bytes >= READ_BYTES) break
      const document = messageDocument(this.#identities, message.slab.bytes, message.at)
      documents.push(document)
      bytes += document.payload_bytes
    }
    return documents
  }

  async clear(filter: TopicFilter, { isDryRun }: { readonly isDryRun: boolean }): Promise<number> {
    let cleared = 0
    for await (const { slab, at } of this.#matches(filter)) {
      if (isDryRun || this.#retained.remove(recordKey(slab.bytes, at))) cleared++
    }
    if (!isDryRun) await this.#schedule.flush()
    return cleared
  }

  async *#matches(filter: TopicFilter): AsyncGenerator<RetainedMessage> {
    const walk = this.#retained.walk(filter)
    let turnEnd = TURN_TOPICS
    while (!walk.isDone) {
      const message = walk.next(TURN_TOPICS)
      if (message !== null) yield message
      if (walk.visited < turnEnd) continue
      turnEnd = walk.visited + TURN_TOPICS
      await nextTurn()
    }
  }
}
