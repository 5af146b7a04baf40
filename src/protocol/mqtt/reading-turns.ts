/*
 * Who may read how much before others have their turn.
 *
 * One socket can deliver two megabytes before the event loop looks at the next one: a million PINGREQs. So a connection that has had its share of a turn pauses and
 * waits here. The others, who have said little, are read in every turn; those who wait go on a few at a time, one after the other, however many there are.
 */

/** What one connection may take up before it gives way, in time and in bytes; whichever comes first. */
const SHARE_MS = 1
const SHARE_BYTES = 256 * 1024

/** What all may take up in one turn of the event loop; from then on each gives way after one read. */
const TURN_MS = 4

/** Connections that go on in one turn. */
const CONNECTIONS_A_TURN = 8

/** Whoever reads packets. */
export interface Reader {
  /** Its turn has come. */
  turnCame(): void
}

/** What reading has cost one connection since it gave way to others. */
export interface Share {
  ms: number
  bytes: number
}

export class ReadingTurns {
  readonly #waiting = new Set<Reader>()
  #isScheduled = false
  /** In this turn, by all that have read much. */
  #spentMs = 0

  /** Notes a read; true: the reader has had its share, and should wait. */
  isOver(share: Share, ms: number): boolean {
    this.#schedule()
    this.#spentMs += ms
    share.ms += ms
    return share.ms >= SHARE_MS || share.bytes >= SHARE_BYTES || this.#spentMs >= TURN_MS
  }

  /** Calls `turnCame` in one of the next turns. */
  wait(reader: Reader): void {
    this.#schedule()
    this.#waiting.add(reader)
  }

  forget(reader: Reader): void {
    this.#waiting.delete(reader)
  }

  #schedule(): void {
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(this.#next)
  }

  readonly #next = (): void => {
    this.#isScheduled = false
    this.#spentMs = 0
    let left = CONNECTIONS_A_TURN
    for (const reader of this.#waiting) {
      if (left-- === 0) break
      this.#waiting.delete(reader)
      reader.turnCame()
    }
    if (this.#waiting.size > 0) this.#schedule()
  }
}
