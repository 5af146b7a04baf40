const CHUNK_BITS = 65_536

/** Inclusive range of whole numbers. */
export type NumberRange = readonly [first: number, last: number]

/** A set of whole numbers ≥ 0 that come mostly in runs: a bit each, in chunks, so that millions of them stay small. */
export class NumberSet {
  #size = 0
  readonly #chunks = new Map<number, Uint8Array>()

  /** The numbers of inclusive ranges. */
  static of(ranges: Iterable<NumberRange>): NumberSet {
    const set = new NumberSet()
    for (const [first, last] of ranges) for (let value = first; value <= last; value++) set.add(value)
    return set
  }

  get size(): number {
    return this.#size
  }

  has(value: number): boolean {
    const bit = value % CHUNK_BITS
    const byte = this.#chunks.get((value - bit) / CHUNK_BITS)?.[bit >> 3] ?? 0
    return (byte & (1 << (bit & 7))) !== 0
  }

  /** Returns whether the number is new. */
  add(value: number): boolean {
    const bit = value % CHUNK_BITS
    const index = (value - bit) / CHUNK_BITS
    let chunk = this.#chunks.get(index)
    if (chunk === undefined) {
      chunk = new Uint8Array(CHUNK_BITS / 8)
      this.#chunks.set(index, chunk)
    }
    const byte = chunk[bit >> 3] ?? 0
    const mask = 1 << (bit & 7)
    if ((byte & mask) !== 0) return false
    chunk[bit >> 3] = byte | mask
    this.#size++
    return true
  }

  /** In ascending order. */
  *values(): Generator<number> {
    for (const index of [...this.#chunks.keys()].sort((a, b) => a - b)) {
      const chunk = this.#chunks.get(index) ?? []
      for (const [offset, byte] of chunk.entries()) {
        if (byte === 0) continue
        for (let bit = 0; bit < 8; bit++) if ((byte & (1 << bit)) !== 0) yield index * CHUNK_BITS + offset * 8 + bit
      }
    }
  }

  ranges(): NumberRange[] {
    return toRanges(this.values())
  }
}

/** Ascending numbers as inclusive ranges. */
export function toRanges(values: Iterable<number>): NumberRange[] {
  const ranges: [number, number][] = []
  let current: [number, number] | undefined
  for (const value of values) {
    if (current !== undefined && value === current[1] + 1) {
      current[1] = value
    } else {
      current = [value, value]
      ranges.push(current)
    }
  }
  return ranges
}
