import type { StreamDetail, StreamMessage, StreamReplayed, StreamReplayRequest, StreamStatus } from './api/contract.ts'
import type { StreamModel } from './api/gateway.ts'
import type { Declarations } from './core/declarations.ts'
import type { Identities } from './core/identity.ts'
import type { Stream } from './core/stream.ts'
import type { Streams } from './core/streams.ts'
import { messageAddress } from './gateway-dead-letters.ts'
import { messageDocument } from './gateway-message.ts'
import type { QueueName } from './model/names.ts'
import type { ReadFrom } from './model/read-from.ts'

/** One answer takes no further message once it has so many bytes of them; it holds all payloads in full. */
const READ_BYTES = 4 * 1024 * 1024

/** The streams of the running gateway in the words of the API. */
export class RunningStreams implements StreamModel {
  readonly #streams: Streams
  readonly #declarations: Declarations
  readonly #identities: Identities

  constructor({
    streams,
    declarations,
    identities,
  }: {
    streams: Streams
    declarations: Declarations
    identities: Identities
  }) {
    this.#streams = streams
    this.#declarations = declarations
    this.#identities = identities
  }

  all(): Promise<StreamStatus[]> {
    return Promise.all([...this.#streams.all()].map(stream => this.#status(stream)))
  }

  async stream(name: QueueName): Promise<StreamDetail> {
    const stream = this.#streams.stream(name)
    const positions = [...stream.cursors].map(([reader, next]) => ({ reader, next }))
    return { ...(await this.#status(stream)), positions }
  }

  async #status(stream: Stream): Promise<StreamStatus> {
    const { name, first, next, depth, bytes, retention, ack, lostAtMost, readerCount, cursors, missed, ledger } = stream
    let oldestAt: string | null = null
    await stream.visit(first, (record, at) => {
      oldestAt = new Date(this.#identities.wallTimeMs(record, at)).toISOString()
      return false
    })
    return {
      name,
      origin: this.#streams.originOf(name),
      first,
      next,
      messages: depth,
      bytes,
      oldest_at: oldestAt,
      retain: { age_ms: retention.ageMs, bytes: retention.bytes },
      ack,
      lost_at_most: lostAtMost,
      readers: readerCount,
      cursors: cursors.size,
      missed,
      ledger: ledger.figures(),
    }
  }

  async messages(name: QueueName, from: ReadFrom, limit: number): Promise<StreamMessage[]> {
    const stream = this.#streams.stream(name)
    const messages: StreamMessage[] = []
    let bytes = 0
    await stream.visit(await stream.placeOf(from), (record, at, sequence) => {
      const document = messageDocument(this.#identities, record, at)
      messages.push({ sequence, ...document })
      bytes += document.payload_bytes
      return messages.length < limit && bytes < READ_BYTES
    })
    return messages
  }

  async replay(
    name: QueueName,
    { from, until }: { readonly from: ReadFrom; readonly until: ReadFrom },
    request: StreamReplayRequest,
  ): Promise<StreamReplayed> {
    const stream = this.#streams.stream(name)
    const options = {
      from: await stream.placeOf(from),
      end: await stream.placeOf(until),
      limit: request.limit,
      to: messageAddress(request.to),
    }
    const { replayed, unrouted, next, isHeld } = await this.#streams.replay(name, options)
    return { replayed, unrouted, next: next < options.end ? next : null, held: isHeld }
  }

  delete(name: QueueName): Promise<void> {
    return this.#declarations.deleteStream(name)
  }
}
