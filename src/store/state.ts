/*
 * state/: what the deltas in log/ add up to.
 *
 * Invariants: every value ends with a CRC32C over key and value, so a bit that flips on the card is noticed, whoever's record it is.
 * Written without sync: nothing here is believed after a power cut unless a checkpoint says so (checkpoint.ts).
 *
 * WARNING: this is an on-disk format (docs/storage-format.md).
 */
import { crc32c } from './crc32c.ts'
import type { Db } from './level.ts'
import type { StateChange } from './types.ts'

const CRC_BYTES = 4
const PAGE_ENTRIES = 1000
const PAGE_BYTES = 1024 * 1024

/** What is stored for a value: the value, then CRC32C of key and value. */
export function sealValue(key: Buffer, value: Buffer): Buffer {
  const sealed = Buffer.allocUnsafe(value.length + CRC_BYTES)
  value.copy(sealed)
  sealed.writeUInt32LE(crc32c(value, 0, value.length, crc32c(key, 0, key.length)), value.length)
  return sealed
}

/** The value as it was sealed; null: damaged. */
export function unsealValue(key: Buffer, sealed: Buffer): Buffer | null {
  const length = sealed.length - CRC_BYTES
  if (length < 0) return null
  return sealed.readUInt32LE(length) === crc32c(sealed, 0, length, crc32c(key, 0, key.length))
    ? sealed.subarray(0, length)
    : null
}

export interface Bounds {
  readonly gt?: Buffer
  readonly gte?: Buffer
  readonly lt: Buffer
}

export class State {
  readonly level: Db
  readonly #onDamage: (key: Buffer) => void

  /** `onDamage` gets the key of each value that is found damaged, each time it is. */
  constructor(level: Db, onDamage: (key: Buffer) => void) {
    this.level = level
    this.#onDamage = onDamage
  }

  /** undefined: not there, or damaged. */
  async get(key: Buffer): Promise<Buffer | undefined> {
    const sealed = await this.level.get(key)
    return sealed === undefined ? undefined : (this.#unseal(key, sealed) ?? undefined)
  }

  async getMany(keys: Buffer[]): Promise<(Buffer | undefined)[]> {
    const found = await this.level.getMany(keys)
    return found.map((sealed, at) => {
      const key = keys[at]
      return sealed === undefined || key === undefined ? undefined : (this.#unseal(key, sealed) ?? undefined)
    })
  }

  /** One page of entries in key order, at most `limit` or 1 MiB; damaged values are left out. Empty: the end. */
  async page(bounds: Bounds, limit = PAGE_ENTRIES): Promise<{ entries: [Buffer, Buffer][]; last: Buffer | null }> {
    const iterator = this.level.iterator({ ...bounds, limit, highWaterMarkBytes: PAGE_BYTES })
    try {
      const found = await iterator.nextv(limit)
      const entries: [Buffer, Buffer][] = []
      for (const [key, sealed] of found) {
        const value = this.#unseal(key, sealed)
        if (value !== null) entries.push([key, value])
      }
      return { entries, last: found.at(-1)?.[0] ?? null }
    } finally {
      await iterator.close()
    }
  }

  /** The last entry within bounds whose value is sound. */
  async last(bounds: Bounds): Promise<[Buffer, Buffer] | null> {
    const iterator = this.level.iterator({ ...bounds, reverse: true })
    try {
      for (;;) {
        const found = await iterator.next()
        if (found === undefined) return null
        const value = this.#unseal(found[0], found[1])
        if (value !== null) return [found[0], value]
      }
    } finally {
      await iterator.close()
    }
  }

  /** Writes the changes as one batch, without sync. */
  apply(changes: readonly StateChange[]): Promise<void> {
    return this.level.batch(
      changes.map(({ key, value }) =>
        value === null ? { type: 'del', key } : { type: 'put', key, value: sealValue(key, value) },
      ),
    )
  }

  #unseal(key: Buffer, sealed: Buffer): Buffer | null {
    const value = unsealValue(key, sealed)
    if (value === null) this.#onDamage(key)
    return value
  }
}
