import { recordBoot, recordBytes, recordSeq } from '../model/message.ts'
import { crc32c } from './crc32c.ts'
import { MAX_BODY_PART } from './keys.ts'

/** Bodies of one part; a longer record gets a part of its own. */
const PART_BYTES = 256 * 1024
const U32 = 0x1_0000_0000

/**
 * The bodies of one commit that go to several queues: each is kept once, the queues' segments hold references. A part is a plain run of
 * records, one value in log/ under (commit, 0, part). A place is one number, part * 2^32 + offset, so that none is allocated per message.
 */
export class SharedBodies {
  readonly #parts: Buffer[] = []
  /** boot → seq → place. */
  readonly #places = new Map<number, Map<number, number>>()
  #current = Buffer.alloc(0)
  #used = 0

  /** Where this record's bytes are kept, writing them if they are new; null: keep it in the segment (other bytes under the same id). */
  place(source: Buffer, at: number): number | null {
    const length = recordBytes(source, at)
    const boot = recordBoot(source, at)
    const seq = recordSeq(source, at)
    const bySeq = this.#places.get(boot) ?? new Map<number, number>()
    this.#places.set(boot, bySeq)
    const known = bySeq.get(seq)
    if (known !== undefined) return this.#isSame(known, source, at, length) ? known : null
    if (this.#used + length > this.#current.length) {
      this.#finishPart()
      if (this.#parts.length === MAX_BODY_PART) return null
      this.#current = Buffer.allocUnsafe(Math.max(PART_BYTES, length))
    }
    const place = (this.#parts.length + 1) * U32 + this.#used
    copyRecord(source, at, length, this.#current, this.#used)
    this.#used += length
    bySeq.set(seq, place)
    return place
  }

  /** All parts; part number is index + 1. */
  finish(): readonly Buffer[] {
    this.#finishPart()
    return this.#parts
  }

  #finishPart(): void {
    if (this.#used === 0) return
    this.#parts.push(this.#current.subarray(0, this.#used))
    this.#current = Buffer.alloc(0)
    this.#used = 0
  }

  #isSame(place: number, source: Buffer, at: number, length: number): boolean {
    const part = this.#parts[partOf(place) - 1] ?? this.#current
    const offset = offsetOf(place)
    return (
      recordBytes(part, offset) === length &&
      part.compare(source, at + 8, at + length, offset + 8, offset + length) === 0
    )
  }
}

export const partOf = (place: number): number => Math.floor(place / U32)
export const offsetOf = (place: number): number => place % U32

/** Copies a record and fills in its CRC32C. */
function copyRecord(source: Buffer, at: number, length: number, target: Buffer, to: number): void {
  source.copy(target, to, at, at + length)
  const crc = crc32c(target, to + 8, to + length)
  target[to + 4] = crc
  target[to + 5] = crc >>> 8
  target[to + 6] = crc >>> 16
  target[to + 7] = crc >>> 24
}
