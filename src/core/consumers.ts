import type { Consumer } from './consumer.ts'

/** One byte per delivery names its consumer's slot; 0 means none. */
export const MAX_CONSUMERS = 255

/** The consumers of a queue, each in a slot, and whose turn it is. */
export class Consumers {
  readonly #slots: (Consumer | null)[] = [null]
  /** Slots in order of attachment. */
  #order: number[] = []
  /** Slot behind the one that got the last message. */
  #turn = 1

  get count(): number {
    return this.#order.length
  }

  /** The caller has checked that there is room. */
  attach(consumer: Consumer): void {
    let slot = this.#slots.indexOf(null, 1)
    if (slot < 0) slot = this.#slots.length
    this.#slots[slot] = consumer
    this.#order.push(slot)
  }

  /** Returns the slot it had; 0: it was not attached. */
  detach(consumer: Consumer): number {
    const slot = this.#slots.indexOf(consumer)
    if (slot < 1) return 0
    this.#slots[slot] = null
    this.#order = this.#order.filter(other => other !== slot)
    return slot
  }

  clear(): void {
    this.#slots.length = 1
    this.#order = []
  }

  at(slot: number): Consumer | null {
    return this.#slots[slot] ?? null
  }

  /** Slot of the next consumer in turn that has credit; 0: none. */
  next(): number {
    if (this.#order.length === 0) return 0
    const slots = this.#slots.length
    let slot = this.#turn
    for (let tried = 1; tried < slots; tried++) {
      if (slot >= slots) slot = 1
      const consumer = this.#slots[slot]
      if (consumer !== null && consumer !== undefined && consumer.credit > 0) return slot
      slot++
    }
    return 0
  }

  /** The consumer in `slot` has got a message: the next one is another's turn. */
  served(slot: number): void {
    this.#turn = slot + 1
  }

  /** Slot of the one attached first, if it has credit; 0: none. */
  active(): number {
    const slot = this.#order[0] ?? 0
    return (this.#slots[slot]?.credit ?? 0) > 0 ? slot : 0
  }
}
