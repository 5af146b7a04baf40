import type { Consumer } from './consumer.ts'
import { DONE, type Segment } from './segment.ts'

/** Settled positions at the front are let go of when there are so many, and as many as the others. */
const COMPACTED_FROM = 256

/** A stream as its readers see it. */
export interface StreamSource {
  /** The oldest position kept. */
  readonly first: number
  /** The position the next message will get. */
  readonly next: number
  /** The segment in memory that has this position or, where the disk has a gap, the next one behind it; null: it must be brought. */
  find(position: number): Segment | null
  /** Brings what lies at `position` into memory, where it stays for the rest of this turn; resolves with the position to go on from. @throws BrokerError STOPPING */
  bring(position: number): Promise<number>
  /** Its cursor differs from the one written last. */
  moved(reader: StreamReader): void
  closed(reader: StreamReader): void
}

/**
 * One reader of a stream: a position, and what it has delivered and not heard back of. It holds no messages. Delivers in order, each message once within its
 * life; what was not settled in an earlier one comes again.
 */
export class StreamReader {
  /** Under which its cursor is kept; null: it is not. */
  readonly name: string | null
  /** Sequence numbers that retention had forgotten before the reader came to them. */
  missed = 0
  readonly #source: StreamSource
  readonly #consumer: Consumer
  readonly #unsettled = new UnsettledPositions()
  /** placing: where it begins is being looked for; reading: what lies at its position is being brought. */
  #state: 'placing' | 'reading' | 'ready' = 'placing'
  #position = 0
  #isMoved = false
  #isClosed = false
  #isPumping = false
  #pumpAgain = false

  /** `from` is where it begins; made by Stream.read. */
  constructor({
    name,
    source,
    consumer,
    from,
  }: {
    name: string | null
    source: StreamSource
    consumer: Consumer
    from: number | Promise<number>
  }) {
    this.name = name
    this.#source = source
    this.#consumer = consumer
    if (typeof from === 'number') this.#goOn(from)
    else this.#goOnWhen(from)
  }

  /** The oldest position not settled; null: not known yet where it begins. */
  get cursor(): number | null {
    return this.#state === 'placing' ? null : (this.#unsettled.oldest ?? this.#position)
  }

  /** Everything there is has been delivered. */
  get isCaughtUp(): boolean {
    return this.#state === 'ready' && this.#position >= this.#source.next
  }

  /** The consumer is done with it. A position that is not in flight is ignored. */
  settle(position: number): void {
    if (!this.#isClosed && this.#unsettled.remove(position)) this.#noteMove()
  }

  /** Delivers while there are a message and credit; to be called when the consumer's credit rises from 0. */
  pump(): void {
    if (this.#isPumping) {
      this.#pumpAgain = true
      return
    }
    this.#isPumping = true
    do {
      this.#pumpAgain = false
      this.#deliverReady()
    } while (this.#pumpAgain)
    this.#isPumping = false
  }

  /** Ends it. What is unsettled will be delivered again to the next reader of this name. May be called again. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#source.closed(this)
  }

  /** The cursor for the commit being prepared; further moves are told again. */
  takeCursor(): number | null {
    this.#isMoved = false
    return this.cursor
  }

  #deliverReady(): void {
    const source = this.#source
    while (this.#state === 'ready' && !this.#isClosed && this.#consumer.credit > 0 && this.#position < source.next) {
      if (this.#position < source.first) {
        this.missed += source.first - this.#position
        this.#position = source.first
        this.#noteMove()
      }
      const segment = source.find(this.#position)
      if (segment !== null) this.#deliverOf(segment)
      else this.#bring()
    }
  }

  #deliverOf(segment: Segment): void {
    const { bytes, first, count } = segment
    for (let index = Math.max(0, this.#position - first); index < count; index++) {
      if (this.#isClosed || this.#consumer.credit <= 0) return
      const position = first + index
      this.#position = position + 1
      if ((segment.statusAt(index) & DONE) !== 0) {
        this.#noteMove()
        continue
      }
      this.#unsettled.add(position)
      this.#consumer.deliver(bytes, segment.offsetAt(index), position, segment.notes[index] ?? 0, 0)
    }
  }

  #bring(): void {
    this.#state = 'reading'
    this.#goOnWhen(this.#source.bring(this.#position))
  }

  #goOnWhen(found: Promise<number>): void {
    found.then(
      position => {
        this.#goOn(position)
        this.pump()
      },
      // The store is closed: nothing is delivered any more.
      () => undefined,
    )
  }

  /** Where it begins is written even if that is the very first position: whoever comes back goes on from there. */
  #goOn(position: number): void {
    if (this.#isClosed) return
    const isPlaced = this.#state !== 'placing'
    this.#state = 'ready'
    if (isPlaced && position === this.#position) return
    this.#position = position
    this.#noteMove()
  }

  #noteMove(): void {
    if (this.#isMoved || this.name === null) return
    this.#isMoved = true
    this.#source.moved(this)
  }
}

/** Positions delivered and not settled, in order. Bounded by the consumer's credit. */
class UnsettledPositions {
  #positions: number[] = []
  /** All before it are settled. */
  #front = 0
  /** Settled ones behind the front. */
  readonly #settled = new Set<number>()

  get oldest(): number | null {
    return this.#positions[this.#front] ?? null
  }

  /** `position` is behind all that were added before. */
  add(position: number): void {
    this.#positions.push(position)
  }

  /** True if that moved the oldest one. */
  remove(position: number): boolean {
    if (position !== this.#positions[this.#front]) {
      if (this.#isOpen(position)) this.#settled.add(position)
      return false
    }
    do this.#front++
    while (this.#settled.delete(this.#positions[this.#front] ?? -1))
    this.#compact()
    return true
  }

  #isOpen(position: number): boolean {
    let low = this.#front
    let high = this.#positions.length - 1
    while (low <= high) {
      const middle = (low + high) >>> 1
      const found = this.#positions[middle] ?? 0
      if (found === position) return true
      if (found < position) low = middle + 1
      else high = middle - 1
    }
    return false
  }

  #compact(): void {
    if (this.#front === this.#positions.length) this.#positions.length = 0
    else if (this.#front < COMPACTED_FROM || this.#front * 2 < this.#positions.length) return
    else this.#positions.splice(0, this.#front)
    this.#front = 0
  }
}
