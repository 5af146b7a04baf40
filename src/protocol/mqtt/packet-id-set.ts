/** One bit for each of 65,536. */
const WORDS = 2048
const MAX_POOLED = 64

/** All bits of them are clear. */
const pool: Uint32Array[] = []
const NONE = new Uint32Array(0)

/** A set of packet ids. It takes 8 KiB while there is any in it, however many there are, and nothing else. */
export class PacketIdSet {
  size = 0
  #bits: Uint32Array = NONE

  has(id: number): boolean {
    return ((this.#bits[id >> 5] ?? 0) & (1 << (id & 31))) !== 0
  }

  add(id: number): void {
    if (this.size === 0) this.#bits = pool.pop() ?? new Uint32Array(WORDS)
    const word = this.#bits[id >> 5] ?? 0
    const bit = 1 << (id & 31)
    if ((word & bit) !== 0) return
    this.#bits[id >> 5] = word | bit
    this.size++
  }

  /** False if it was not in the set. */
  delete(id: number): boolean {
    const word = this.#bits[id >> 5] ?? 0
    const bit = 1 << (id & 31)
    if ((word & bit) === 0) return false
    this.#bits[id >> 5] = word & ~bit
    this.size--
    if (this.size === 0) this.#giveBack()
    return true
  }

  /** In rising order. */
  ids(): number[] {
    const ids: number[] = []
    for (let word = 0; ids.length < this.size; word++) {
      const bits = this.#bits[word] ?? 0
      if (bits === 0) continue
      for (let bit = 0; bit < 32; bit++) if ((bits & (1 << bit)) !== 0) ids.push(word * 32 + bit)
    }
    return ids
  }

  clear(): void {
    if (this.size === 0) return
    this.#bits.fill(0)
    this.size = 0
    this.#giveBack()
  }

  #giveBack(): void {
    if (pool.length < MAX_POOLED) pool.push(this.#bits)
    this.#bits = NONE
  }
}
