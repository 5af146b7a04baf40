import { LimitReached, malformed, Reason } from './protocol-error.ts'

const NOTHING = Buffer.alloc(0)
const FIRST_REST_BYTES = 64
/** Up to this size the buffer for unfinished packets stays with its connection: a busy one needs it for every chunk. */
const KEPT_REST_BYTES = 1024

/** Types of control packets, the upper half of the first byte (section 2.1.2). */
export const PacketType = {
  connect: 1,
  connack: 2,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  suback: 9,
  unsubscribe: 10,
  unsuback: 11,
  pingreq: 12,
  pingresp: 13,
  disconnect: 14,
  auth: 15,
} as const

const UNFINISHED = 'unfinished packets of all clients hold too much memory, and those of this one most of it'

/** Packets that have begun and not ended, of all connections of a server: bytes held for them. Where they are too many, the one with most of them is in the way. */
export class UnfinishedPackets {
  used = 0
  readonly #limit: number
  readonly #readers = new Set<FrameReader>()

  constructor(limit: number) {
    this.#limit = limit
  }

  /** A reader holds `after` bytes instead of `before`. Throws LimitReached if it is the one that has to go. */
  change(reader: FrameReader, before: number, after: number): void {
    if (after > KEPT_REST_BYTES) this.#readers.add(reader)
    while (after > before && this.used - before + after > this.#limit) {
      const largest = this.#largestBut(reader)
      if (largest === null || largest.heldBytes <= after) {
        throw new LimitReached('unfinished', Reason.quotaExceeded, UNFINISHED)
      }
      largest.giveWay(new LimitReached('unfinished', Reason.quotaExceeded, UNFINISHED))
    }
    this.used += after - before
    if (after <= KEPT_REST_BYTES) this.#readers.delete(reader)
  }

  #largestBut(reader: FrameReader): FrameReader | null {
    let largest: FrameReader | null = null
    for (const other of this.#readers) {
      if (other !== reader && (largest === null || other.heldBytes > largest.heldBytes)) largest = other
    }
    return largest
  }
}

/**
 * Finds the packets in what a socket hands over. The frames lie in one of two sources: a packet begun in an earlier chunk is completed
 * in a small buffer of its own (`rest`), everything else stays where it is in the chunk. Per chunk:
 *
 *     frames.push(chunk)
 *     do { while (frames.next()) …frames.first, .body, .end in frames.bytes… } while (frames.nextSource())
 *
 * `bytes` changes only in `nextSource`, so whoever gathers runs of frames hands them on before it. Nothing read is lost when the
 * caller stops in between (`rewind`, `keep`) and goes on later without a push.
 */
export class FrameReader {
  /** The source of the current frame. */
  bytes: Buffer = NOTHING
  /** Offset of the first byte of the current frame, its first byte, where its variable header begins, where it ends. */
  start = 0
  first = 0
  body = 0
  end = 0
  /** Largest packet accepted now, fixed header included. */
  packetBytes: number
  /** Remaining lengths take no more bytes than they need: 5.0 says so [MQTT-1.5.5-1], 3.1.1 does not. */
  isMinimal = false

  readonly #unfinished: UnfinishedPackets
  readonly #onGiveWay: (error: LimitReached) => void
  #at = 0
  #filled = 0
  #chunk: Buffer = NOTHING
  #chunkAt = 0
  /** The chunk is a copy that `keep` made. */
  #isKept = false
  #isInRest = false
  #rest: Buffer = NOTHING
  #restUsed = 0

  /** `onGiveWay`: its connection is to be ended, for the memory its unfinished packet holds; `close` is called in it. */
  constructor(packetBytes: number, unfinished: UnfinishedPackets, onGiveWay: (error: LimitReached) => void) {
    this.packetBytes = packetBytes
    this.#unfinished = unfinished
    this.#onGiveWay = onGiveWay
  }

  /** Bytes held for an unfinished packet. */
  get heldBytes(): number {
    return this.#rest.length
  }

  giveWay(error: LimitReached): void {
    this.#onGiveWay(error)
    this.#dropRest()
  }

  /** What is here of the packet that `next` threw for, its fixed header first. */
  get begun(): Buffer {
    return this.bytes.subarray(this.#at, this.#filled)
  }

  /** Takes the next chunk; all frames of the one before have been read. The chunk is not touched after the last `nextSource`, or `keep`. */
  push(chunk: Buffer): void {
    this.#chunk = chunk
    this.#chunkAt = 0
    this.#isKept = false
    if (this.#restUsed > 0) {
      this.#isInRest = true
      this.#completeRest()
      this.bytes = this.#rest
      this.#filled = this.#restUsed
    } else {
      this.#isInRest = false
      this.bytes = chunk
      this.#filled = chunk.length
    }
    this.#at = 0
  }

  /** Steps to the next whole frame of this source; false if there is none left in it. */
  next(): boolean {
    const bytes = this.bytes
    const filled = this.#filled
    const at = this.#at
    if (filled - at < 2) return false
    let body = at + 2
    let length = bytes[at + 1] ?? 0
    if (length > 0x7f) {
      length &= 0x7f
      let factor = 128
      for (;;) {
        if (body === at + 5) throw malformed('remaining length is longer than four bytes')
        if (body === filled) return false
        const byte = bytes[body++] ?? 0
        length += (byte & 0x7f) * factor
        if (byte < 0x80) {
          if (byte === 0 && this.isMinimal) throw malformed('the remaining length has more bytes than it needs')
          break
        }
        factor *= 128
      }
    }
    const end = body + length
    if (end - at > this.packetBytes) {
      // [MQTT-3.2.2-15]
      throw new LimitReached(
        'packet',
        Reason.packetTooLarge,
        `a packet of ${end - at} bytes is over the limit of ${this.packetBytes}`,
      )
    }
    if (end > filled) return false
    this.start = at
    this.first = bytes[at] ?? 0
    this.body = body
    this.end = end
    this.#at = end
    return true
  }

  /** Goes on to the chunk after the completed packet; false at the end, with the beginning of an unfinished packet kept. */
  nextSource(): boolean {
    if (this.#isInRest) {
      if (this.#at < this.#restUsed) {
        this.#chunk = NOTHING
        return false
      }
      this.#restUsed = 0
      if (this.#rest.length > KEPT_REST_BYTES) this.#dropRest()
      this.#isInRest = false
      this.bytes = this.#chunk
      this.#at = this.#chunkAt
      this.#filled = this.#chunk.length
      return true
    }
    if (this.#at < this.#filled) this.#keepRest()
    this.bytes = NOTHING
    this.#chunk = NOTHING
    this.#at = 0
    this.#filled = 0
    return false
  }

  /** Makes the frame that begins at `start` of this source the next one again. */
  rewind(start: number): void {
    this.#at = start
  }

  /** The caller goes on later: what is unread leaves the chunk, whose bytes are the socket's again. No frame of it is being looked at. */
  keep(): void {
    if (this.#isKept) return
    this.#isKept = true
    const from = this.#isInRest ? this.#chunkAt : this.#at
    const unread = Buffer.allocUnsafeSlow(this.#chunk.length - from)
    this.#chunk.copy(unread, 0, from)
    this.#chunk = unread
    this.#chunkAt = 0
    if (this.#isInRest) return
    this.bytes = unread
    this.#at = 0
    this.#filled = unread.length
  }

  /** Bytes of the source and of the chunk behind it that have not been read. */
  get unreadBytes(): number {
    return this.#filled - this.#at + (this.#isInRest ? this.#chunk.length - this.#chunkAt : 0)
  }

  /** Gives back what it holds; nothing is read after. */
  close(): void {
    this.#dropRest()
    this.bytes = NOTHING
    this.#chunk = NOTHING
    this.#at = 0
    this.#filled = 0
  }

  #keepRest(): void {
    const bytes = this.#filled - this.#at
    this.#growRest(bytes)
    this.#chunk.copy(this.#rest, 0, this.#at, this.#filled)
    this.#restUsed = bytes
  }

  #dropRest(): void {
    this.#unfinished.change(this, this.#rest.length, 0)
    this.#rest = NOTHING
    this.#restUsed = 0
  }

  /** Moves from the chunk what completes the packet in `rest`, no more. */
  #completeRest(): void {
    for (;;) {
      const missing = this.#missing()
      const copied = Math.min(missing, this.#chunk.length - this.#chunkAt)
      if (copied === 0) return
      this.#growRest(this.#restUsed + copied)
      this.#chunk.copy(this.#rest, this.#restUsed, this.#chunkAt, this.#chunkAt + copied)
      this.#restUsed += copied
      this.#chunkAt += copied
    }
  }

  /** Bytes the packet in `rest` still lacks; 1 while its length is not known yet. A wrong or too large length counts as complete: `next` says so. */
  #missing(): number {
    let length = 0
    let factor = 1
    for (let at = 1; at < 5; at++) {
      if (at === this.#restUsed) return 1
      const byte = this.#rest[at] ?? 0
      length += (byte & 0x7f) * factor
      factor *= 128
      if (byte < 0x80) {
        const total = at + 1 + length
        return total > this.packetBytes ? 0 : total - this.#restUsed
      }
    }
    return 0
  }

  /** Grows by doubling, so that a large packet in small pieces costs linear time and a large announced length costs nothing. */
  #growRest(needed: number): void {
    if (needed <= this.#rest.length) return
    const capacity = Math.max(FIRST_REST_BYTES, needed, Math.min(this.#rest.length * 2, this.packetBytes))
    this.#unfinished.change(this, this.#rest.length, capacity)
    const grown = Buffer.allocUnsafeSlow(capacity)
    this.#rest.copy(grown, 0, 0, this.#restUsed)
    this.#rest = grown
  }
}

/** Where a packet's variable header begins: behind its first byte and its remaining length. */
export function fixedHeaderEnd(bytes: Buffer): number {
  let at = 1
  while (at < 4 && (bytes[at] ?? 0) > 0x7f) at++
  return at + 1
}
