/** Told of each message an answer covers. */
export type Answered = (position: number, bytes: number, isLive: boolean, isReturned: boolean) => void

/** Bits of a slot's state; 0: free. */
const WAITING = 1
const RETURNED = 2
const LIVE = 4

/**
 * Messages published on one confirm channel and not yet answered, by delivery tag. Tags are given out by both sides on their own, from 1, one per
 * basic.publish. Confirms may come in any order; the row from the oldest unanswered tag to the youngest is kept in a ring.
 */
export class Unconfirmed {
  readonly #mask: number
  readonly #positions: Float64Array
  readonly #bytes: Uint32Array
  readonly #states: Uint8Array
  readonly #ids: string[]
  #oldest = 1
  #next = 1
  #count = 0

  /** Room for four windows: so far may confirms run ahead of the oldest unanswered message before sending stops. */
  constructor(window: number) {
    const capacity = 2 ** Math.ceil(Math.log2(window * 4))
    this.#mask = capacity - 1
    this.#positions = new Float64Array(capacity)
    this.#bytes = new Uint32Array(capacity)
    this.#states = new Uint8Array(capacity)
    this.#ids = new Array<string>(capacity).fill('')
  }

  get count(): number {
    return this.#count
  }

  get hasRoom(): boolean {
    return this.#next - this.#oldest <= this.#mask
  }

  /** Notes the message that the channel's next tag stands for. The caller has looked at `hasRoom`. */
  add(position: number, id: string, bytes: number, isLive: boolean): void {
    const slot = this.#next++ & this.#mask
    this.#positions[slot] = position
    this.#bytes[slot] = bytes
    this.#states[slot] = isLive ? WAITING | LIVE : WAITING
    this.#ids[slot] = id
    this.#count++
  }

  /** basic.return carries no tag, and comes before the ack of its message: it is found by message_id. */
  markReturned(id: string): void {
    for (let tag = this.#oldest; tag < this.#next; tag++) {
      const slot = tag & this.#mask
      const state = this.#states[slot] ?? 0
      if ((state & WAITING) === 0 || (state & RETURNED) !== 0 || this.#ids[slot] !== id) continue
      this.#states[slot] = state | RETURNED
      return
    }
  }

  /** Takes out what an ack or nack covers, in order of tag; tags that are not waiting are ignored. Returns how many there were. */
  answer(tag: number, isMultiple: boolean, each: Answered): number {
    let count = 0
    if (isMultiple) {
      // Tag 0 with multiple means all (AMQP 0-9-1, basic.ack).
      const last = tag === 0 ? this.#next - 1 : Math.min(tag, this.#next - 1)
      for (let at = this.#oldest; at <= last; at++) count += this.#takeOut(at, each)
    } else if (tag >= this.#oldest && tag < this.#next) {
      count = this.#takeOut(tag, each)
    }
    this.#advance()
    return count
  }

  /** Takes out everything, in order. */
  clear(each: Answered): number {
    return this.answer(0, true, each)
  }

  #takeOut(tag: number, each: Answered): 0 | 1 {
    const slot = tag & this.#mask
    const state = this.#states[slot] ?? 0
    if (state === 0) return 0
    this.#states[slot] = 0
    this.#ids[slot] = ''
    this.#count--
    each(this.#positions[slot] ?? 0, this.#bytes[slot] ?? 0, (state & LIVE) !== 0, (state & RETURNED) !== 0)
    return 1
  }

  #advance(): void {
    while (this.#oldest < this.#next && this.#states[this.#oldest & this.#mask] === 0) this.#oldest++
  }
}
