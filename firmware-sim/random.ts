const UINT32 = 0x1_0000_0000

/**
 * Seeded randomness: the same seed gives the same numbers (algorithm: sfc32). A stream forked by name depends only on the seeds
 * and names above it, not on how many numbers were drawn, so one more device leaves the others' runs as they were.
 */
export class Random {
  readonly #seed: number
  #a: number
  #b: number
  #c: number
  #counter = 1

  constructor(seed: number) {
    this.#seed = seed >>> 0
    this.#a = this.#seed
    this.#b = 0x9e3779b9
    this.#c = 0x243f6a88
    // The first outputs still resemble the seed.
    for (let round = 0; round < 12; round++) this.#uint32()
  }

  /** An independent stream for one part of the simulation. */
  fork(name: string): Random {
    // FNV-1a over the name, begun at the seed.
    let hash = (this.#seed ^ 0x811c9dc5) >>> 0
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193) >>> 0
    return new Random(hash)
  }

  /** In [0, 1). */
  next(): number {
    return this.#uint32() / UINT32
  }

  /** In [low, high). */
  between(low: number, high: number): number {
    return low + (high - low) * this.next()
  }

  /** Normally distributed, mean 0, standard deviation 1 (Box-Muller). */
  gaussian(): number {
    return Math.sqrt(-2 * Math.log(1 - this.next())) * Math.cos(2 * Math.PI * this.next())
  }

  /** Time to the next of events that come by chance, on average every `mean`. */
  exponential(mean: number): number {
    return -mean * Math.log(1 - this.next())
  }

  #uint32(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0
    this.#counter = (this.#counter + 1) | 0
    this.#a = this.#b ^ (this.#b >>> 9)
    this.#b = (this.#c + (this.#c << 3)) | 0
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum
    this.#c |= 0
    return sum >>> 0
  }
}
