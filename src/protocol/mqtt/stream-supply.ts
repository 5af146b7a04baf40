import type { Consumer } from '../../core/consumer.ts'
import type { StreamReader } from '../../core/stream-reader.ts'
import type { Streams } from '../../core/streams.ts'
import type { ReadFrom } from '../../model/read-from.ts'
import type { Supply } from './named-subscription.ts'

/**
 * `$stream/NAME/FROM`: a stream, read from a place on. An answer, whatever it is, moves the cursor: a stream takes nothing back. UNSUBSCRIBE and the
 * end of the session forget the cursor, the end of the connection does not.
 */
export class StreamSupply implements Supply {
  readonly isAsPublished = false
  readonly isPassageFree = true
  readonly #streams: Streams
  readonly #name: string
  readonly #from: ReadFrom
  readonly #cursor: string | null
  #reader: StreamReader | null = null

  /** `cursor` is the name under which it is kept how far the client has read; null: it is not. */
  constructor(streams: Streams, { name, from, cursor }: { name: string; from: ReadFrom; cursor: string | null }) {
    this.#streams = streams
    this.#name = name
    this.#from = from
    this.#cursor = cursor
  }

  get hasWaiting(): boolean {
    return this.#reader?.isCaughtUp === false
  }

  attach(consumer: Consumer): void {
    this.#reader = this.#streams.stream(this.#name).read(this.#cursor, this.#from, consumer)
  }

  detach(): void {
    this.#reader?.close()
    this.#reader = null
  }

  end(): void {
    if (this.#cursor === null) return
    // Forgotten at once in memory. That the disk cannot be told happens only while the gateway stops: then the cursor is there again at its next start.
    this.#streams
      .find(this.#name)
      ?.forget(this.#cursor)
      .catch(() => undefined)
  }

  pump(): void {
    this.#reader?.pump()
  }

  passOn(): boolean {
    return false
  }

  settle(position: number): void {
    this.#reader?.settle(position)
  }

  refuse(position: number): void {
    this.#reader?.settle(position)
  }

  skip(position: number): void {
    this.#reader?.settle(position)
  }
}
