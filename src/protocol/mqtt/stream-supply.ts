import type { Consumer } from '../../core/consumer.ts'
import type { Stream } from '../../core/stream.ts'
import type { StreamReader } from '../../core/stream-reader.ts'
import type { ReadFrom } from '../../model/read-from.ts'
import type { Supply } from './named-subscription.ts'

/**
 * `$stream/NAME/FROM`: a stream, read from a place on. An answer, whatever it is, moves the cursor: a stream takes nothing back. UNSUBSCRIBE forgets the
 * cursor, the end of the connection does not.
 */
export class StreamSupply implements Supply {
  readonly isAsPublished = false
  readonly #stream: Stream
  readonly #from: ReadFrom
  readonly #cursor: string | null
  #reader: StreamReader | null = null

  /** `cursor` is the name under which it is kept how far the client has read; null: it is not. */
  constructor(stream: Stream, from: ReadFrom, cursor: string | null) {
    this.#stream = stream
    this.#from = from
    this.#cursor = cursor
  }

  get hasWaiting(): boolean {
    return this.#reader?.isCaughtUp === false
  }

  attach(consumer: Consumer): void {
    this.#reader = this.#stream.read(this.#cursor, this.#from, consumer)
  }

  detach(_consumer: Consumer, isEnded: boolean): void {
    this.#reader?.close()
    if (isEnded && this.#cursor !== null) forgetCursor(this.#stream, this.#cursor)
  }

  pump(): void {
    this.#reader?.pump()
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

/** The next reader of this name begins where it asks to. */
export function forgetCursor(stream: Stream, cursor: string): void {
  // Forgotten at once in memory. That the disk cannot be told happens only while the gateway stops: then the cursor is there again at its next start.
  stream.forget(cursor).catch(() => undefined)
}
