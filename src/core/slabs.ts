import { recordBytes } from '../model/message.ts'

const SLAB_BYTES = 64 * 1024
/** Larger records have a slab of their own. */
const SHARED_RECORD_BYTES = SLAB_BYTES / 4
/** So much may be held for nothing, whatever is wanted. */
const SPARE_BYTES = 16 * SLAB_BYTES

interface Slab {
  readonly bytes: Buffer
  used: number
  /** Bytes of records that are still wanted. */
  live: number
}

/** Where a record stands. Bytes once written there never change. */
export interface Place {
  slab: Slab
  at: number
}

/**
 * Records that stay in memory for long, many in one buffer: a buffer for each of 100,000 small ones would take several times what is in them. What is not wanted any
 * more leaves a hole, until its slab is empty or the owner moves everything.
 */
export class Slabs {
  #open = emptySlab(0)
  #held = 0
  #live = 0

  /** Bytes of the records that are wanted. */
  get live(): number {
    return this.#live
  }

  /** Bytes of the buffers they stand in. */
  get held(): number {
    return this.#held
  }

  /** More is held for nothing than for something: the owner should `move` all it wants. */
  get isSparse(): boolean {
    return this.#held > 2 * this.#live + SPARE_BYTES
  }

  /** Room for a record, to be written at once. */
  reserve(bytes: number): Place {
    const slab = bytes > SHARED_RECORD_BYTES ? this.#add(bytes) : this.#openFor(bytes)
    const at = slab.used
    slab.used += bytes
    slab.live += bytes
    this.#live += bytes
    return { slab, at }
  }

  #openFor(bytes: number): Slab {
    if (this.#open.bytes.length - this.#open.used < bytes) {
      const full = this.#open
      this.#open = this.#add(SLAB_BYTES)
      if (full.live === 0) this.#held -= full.bytes.length
    }
    return this.#open
  }

  #add(bytes: number): Slab {
    this.#held += bytes
    return emptySlab(bytes)
  }

  /** The record there is not wanted any more. */
  release({ slab, at }: Place): void {
    const bytes = recordBytes(slab.bytes, at)
    slab.live -= bytes
    this.#live -= bytes
    if (slab.live === 0 && slab !== this.#open) this.#held -= slab.bytes.length
  }

  /** Gives the record another place. */
  move(place: Place): void {
    const { slab, at } = place
    const bytes = recordBytes(slab.bytes, at)
    if (slab.used === bytes) return
    const moved = this.reserve(bytes)
    slab.bytes.copy(moved.slab.bytes, moved.at, at, at + bytes)
    this.release(place)
    place.slab = moved.slab
    place.at = moved.at
  }
}

const emptySlab = (bytes: number): Slab => ({ bytes: Buffer.allocUnsafeSlow(bytes), used: 0, live: 0 })
