/** No delivery stands behind this packet id. */
export const NOT_IN_FLIGHT = -1

/**
 * The packet ids of one client's QoS 1 deliveries, with the source and position each stands for. There are as many as messages may be in flight.
 * Freed ids go to the end of a ring, so that an id rests as long as possible before it is used again.
 */
export class PacketIds {
  /** By packet id. */
  readonly #positions: Float64Array
  readonly #sources: Uint32Array
  readonly #ring: Uint16Array
  #head = 0
  #free: number

  /** `most`: 1 to 65,535. */
  constructor(most: number) {
    this.#positions = new Float64Array(most + 1).fill(NOT_IN_FLIGHT)
    this.#sources = new Uint32Array(most + 1)
    this.#ring = new Uint16Array(most)
    for (let n = 0; n < most; n++) this.#ring[n] = n + 1
    this.#free = most
  }

  get free(): number {
    return this.#free
  }

  get inFlight(): number {
    return this.#ring.length - this.#free
  }

  /** The id that `take` takes; meaningful while one is free. */
  get next(): number {
    return this.#ring[this.#head] ?? 0
  }

  take(source: number, position: number): void {
    const id = this.next
    this.#head = this.#head + 1 === this.#ring.length ? 0 : this.#head + 1
    this.#free--
    this.#positions[id] = position
    this.#sources[id] = source
  }

  /** Position in its source of what is in flight under this id, or NOT_IN_FLIGHT. */
  positionOf(id: number): number {
    return this.#positions[id] ?? NOT_IN_FLIGHT
  }

  sourceOf(id: number): number {
    return this.#sources[id] ?? 0
  }

  /** Gives an id back that is in flight. */
  release(id: number): void {
    this.#positions[id] = NOT_IN_FLIGHT
    const slot = this.#head + this.#free
    this.#ring[slot >= this.#ring.length ? slot - this.#ring.length : slot] = id
    this.#free++
  }
}
