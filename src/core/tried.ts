/*
 * What is known of a message that was delivered and came back.
 *
 * WARNING: the record is an on-disk format (docs/storage-format.md). In state/ under `y` + queue number (u32 BE) + position (u48 BE):
 *
 *   off size
 *     0   2  deliveries, at most 65,535, little-endian like all below
 *     2   2  of them failed, at most 65,535
 *     4   6  pause before the next delivery, milliseconds; it begins anew with each process start
 *    10   1  why it is to become a dead letter: its place in DEAD_LETTER_REASONS, from 1; 0: it is not
 */
import { StatePrefix } from '../store/keys.ts'
import type { StateChange } from '../store/types.ts'
import { DEAD_LETTER_REASONS, type DeadLetterReason } from './dead-letter.ts'

export interface Tried {
  /** Deliveries that did not settle it. */
  deliveries: number
  /** Of them, those that count towards max_attempts. */
  failures: number
  /** How long it was to wait after the last one, milliseconds; 0: it went back to its place. */
  pauseMs: number
  /** It goes to the dead letters for this, as soon as these have room; null: it is to be delivered. */
  verdict: DeadLetterReason | null
  /** What was said when it failed last; null: nothing, or it was said before this start. */
  words: string | null
}

/** What is known of the messages of a lane that came back, wherever they are, and what of it the disk does not know yet. */
export class TriedMessages {
  readonly #byPosition: Map<number, Tried>
  /** Positions whose record on disk is to be written or deleted. */
  readonly #changed = new Set<number>()
  #isDurable: boolean

  constructor(byPosition: Map<number, Tried>, isDurable: boolean) {
    this.#byPosition = byPosition
    this.#isDurable = isDurable
  }

  /** It is kept on disk from now on. */
  keep(): void {
    this.#isDurable = true
    for (const position of this.#byPosition.keys()) this.note(position)
  }

  get size(): number {
    return this.#byPosition.size
  }

  get hasChanged(): boolean {
    return this.#changed.size > 0
  }

  get(position: number): Tried | undefined {
    return this.#byPosition.get(position)
  }

  add(position: number, deliveries: number): Tried {
    const tried = { deliveries, failures: 0, pauseMs: 0, verdict: null, words: null }
    this.#byPosition.set(position, tried)
    return tried
  }

  /** Those that wait. */
  waiting(): [position: number, tried: Tried][] {
    return [...this.#byPosition].filter(([, { pauseMs }]) => pauseMs > 0)
  }

  /** What is known has changed; it is kept on disk once the message has failed or is given up. False: there is nothing to write. */
  note(position: number): boolean {
    const tried = this.get(position)
    if (!this.#isDurable || tried === undefined || (tried.failures === 0 && tried.verdict === null)) return false
    this.#changed.add(position)
    return true
  }

  forget(position: number): void {
    this.note(position)
    this.#byPosition.delete(position)
  }

  clear(): void {
    this.#byPosition.clear()
    this.#changed.clear()
  }

  /** Adds what has changed to a commit, but for messages that are not written: of these nothing is kept. */
  prepareCommit(queue: number, changes: StateChange[], isUnwritten: (position: number) => boolean): void {
    for (const position of this.#changed) {
      const tried = this.get(position)
      if (tried !== undefined && isUnwritten(position)) continue
      this.#changed.delete(position)
      changes.push({ key: triedKey(queue, position), value: tried === undefined ? null : encodeTried(tried) })
    }
  }
}

const MOST = 0xffff
const RECORD_BYTES = 11

function triedKey(queue: number, position: number): Buffer {
  const key = Buffer.allocUnsafe(11)
  key[0] = StatePrefix.retry
  key.writeUInt32BE(queue, 1)
  key.writeUIntBE(position, 5, 6)
  return key
}

export const triedNumber = (key: Buffer): number => key.readUInt32BE(1)
export const triedPosition = (key: Buffer): number => key.readUIntBE(5, 6)

function encodeTried({ deliveries, failures, pauseMs, verdict }: Tried): Buffer {
  const value = Buffer.allocUnsafe(RECORD_BYTES)
  value.writeUInt16LE(Math.min(deliveries, MOST), 0)
  value.writeUInt16LE(Math.min(failures, MOST), 2)
  value.writeUIntLE(Math.min(pauseMs, 2 ** 48 - 1), 4, 6)
  value[10] = verdict === null ? 0 : DEAD_LETTER_REASONS.indexOf(verdict) + 1
  return value
}

/** null: these bytes are no such record. */
export function decodeTried(value: Buffer): Tried | null {
  if (value.length !== RECORD_BYTES) return null
  return {
    deliveries: value.readUInt16LE(0),
    failures: value.readUInt16LE(2),
    pauseMs: value.readUIntLE(4, 6),
    verdict: DEAD_LETTER_REASONS[value.readUInt8(10) - 1] ?? null,
    words: null,
  }
}
