interface Slot<T> {
  readonly value: T
  isReleased: boolean
}

/**
 * A device's own store-and-forward memory: a ring of fixed size that overwrites its oldest entry when full. Entries are known by
 * position, which counts up from 0 for ever.
 */
export class Flash<T> {
  readonly capacity: number
  /** Entries overwritten before they were released. */
  overwritten = 0
  readonly #slots: (Slot<T> | undefined)[]
  #first = 0
  #end = 0

  constructor(capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new TypeError(`capacity must be at least 1, not ${capacity}`)
    this.capacity = capacity
    this.#slots = new Array<Slot<T> | undefined>(capacity).fill(undefined)
  }

  /** Position of the oldest entry still held. */
  get first(): number {
    return this.#first
  }

  /** Position the next entry will get. */
  get end(): number {
    return this.#end
  }

  /** Stores an entry and returns its position; overwrites the oldest one if there is no room. */
  append(value: T): number {
    if (this.#end - this.#first === this.capacity) {
      this.overwritten++
      this.#forget()
    }
    this.#slots[this.#end % this.capacity] = { value, isReleased: false }
    return this.#end++
  }

  /** The entry at a position; undefined once it is released or overwritten. */
  at(position: number): T | undefined {
    const slot = this.#slot(position)
    return slot?.isReleased === false ? slot.value : undefined
  }

  /** Gives an entry up: it need not be sent again. Room is regained in order. */
  release(position: number): void {
    const slot = this.#slot(position)
    if (slot === undefined) return
    slot.isReleased = true
    if (position === this.#first) this.#forget()
  }

  #slot(position: number): Slot<T> | undefined {
    if (position < this.#first || position >= this.#end) return undefined
    return this.#slots[position % this.capacity]
  }

  /** Drops the first entry and those after it that were released out of order. */
  #forget(): void {
    do {
      this.#slots[this.#first % this.capacity] = undefined
      this.#first++
    } while (this.#slot(this.#first)?.isReleased)
  }
}
