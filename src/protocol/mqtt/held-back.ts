import type { MemoryBudget } from '../../core/memory.ts'
import type { Output, PacketSink } from './output.ts'

const FIRST_BYTES = 1024
const NOTHING = Buffer.alloc(0)

/**
 * Packets to one client that may not leave before the disk knows of their packet ids, in the order in which they leave then. They wait for one commit, or for the
 * next one where that has begun.
 */
export class HeldBack implements PacketSink {
  block: Buffer = NOTHING
  used = 0
  readonly #memory: MemoryBudget
  readonly #limitBytes: number
  /** Of `used`: what waits for the commit under way. */
  #prepared = 0

  constructor(memory: MemoryBudget, limitBytes: number) {
    this.#memory = memory
    this.#limitBytes = limitBytes
  }

  /** No room for messages until the next `release`. */
  get isFull(): boolean {
    return this.used >= this.#limitBytes
  }

  reserve(bytes: number): void {
    const needed = this.used + bytes
    if (needed <= this.block.length) return
    const grown = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, needed, this.block.length * 2))
    this.#memory.take(grown.length - this.block.length)
    this.block.copy(grown, 0, 0, this.used)
    this.block = grown
  }

  commit(bytes: number): void {
    this.used += bytes
  }

  append(source: Buffer, from: number, to: number): void {
    this.reserve(to - from)
    source.copy(this.block, this.used, from, to)
    this.used += to - from
  }

  /** A commit begins that keeps the ids of all there is by now. */
  prepare(): void {
    this.#prepared = this.used
  }

  /** It has returned. */
  release(output: Output): void {
    output.append(this.block, 0, this.#prepared)
    this.block.copy(this.block, 0, this.#prepared, this.used)
    this.used -= this.#prepared
    this.#prepared = 0
    if (this.used === 0) this.close()
  }

  /** Drops what is left and gives its memory back. */
  close(): void {
    this.#memory.give(this.block.length)
    this.block = NOTHING
    this.used = 0
    this.#prepared = 0
  }
}
