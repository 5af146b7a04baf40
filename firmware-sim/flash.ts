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
  /** By position. */
  readonly #slots = new Map<number, Slot<T>>()
  #first = 0
  #end = 0

  constructor(capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new TypeError(`capacity must be at least 1, not ${capacity}`)
    this.capacity = capacity
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
    this.#slots.set(this.#end, { value, isReleased: false })
    return this.#end++
  }

  /** The entry at a position; undefined once it is released or overwritten. */
  at(position: number): T | undefined {
    const slot = this.#slots.get(position)
    return slot?.isReleased === false ? slot.value : undefined
  }

  /** Gives an entry up: it need not be sent again. Room is regained in order. */
  release(position: number): void {
    const slot = this.#slots.get(position)
    if (slot === undefined) return
    slot.isReleased = true
    if (position === this.#first) this.#forget()
  }

  /** Drops the first entry and those after it that were released out of order. */
  #forget(): void {
    do {
      this.#slots.delete(this.#first)
      this.#first++
    } while (this.#slots.get(this.#first)?.isReleased)
  }
}
