import type { Consumer } from '../../src/core/consumer.ts'
import type { Stream } from '../../src/core/stream.ts'
import type { StreamReader } from '../../src/core/stream-reader.ts'
import { decodeRecord } from '../../src/model/message.ts'
import type { ReadFrom } from '../../src/model/read-from.ts'

/** A reader of a stream that writes down what it is given. Settles when told or, if it is to, soon after each delivery. */
export class StreamCollector implements Consumer {
  readonly reader: StreamReader
  readonly positions: number[] = []
  readonly payloads: string[] = []
  unsettled: number[] = []
  readonly #prefetch: number
  isSettling: boolean

  constructor(
    stream: Stream,
    name: string | null,
    from: ReadFrom,
    prefetch = Number.POSITIVE_INFINITY,
    isSettling = false,
  ) {
    this.#prefetch = prefetch
    this.isSettling = isSettling
    this.reader = stream.read(name, from, this)
    this.reader.pump()
  }

  get credit(): number {
    return this.#prefetch - this.unsettled.length
  }

  deliver(bytes: Buffer, at: number, position: number): void {
    this.positions.push(position)
    this.payloads.push(decodeRecord(bytes, at).payload.toString())
    this.unsettled.push(position)
    if (this.isSettling) setImmediate(() => this.settleAll())
  }

  /** Settles the i-th unsettled one and takes more. */
  settle(index = 0): void {
    const [position] = this.unsettled.splice(index, 1)
    if (position !== undefined) this.reader.settle(position)
    this.reader.pump()
  }

  settleAll(): void {
    for (const position of this.unsettled.splice(0)) this.reader.settle(position)
    this.reader.pump()
  }
}
