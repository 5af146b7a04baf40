import type { Duplex } from 'node:stream'
import type { MemoryBudget } from '../../core/memory.ts'
import type { MqttCounters } from './counters.ts'
import { CONTROL_ROOM_BYTES } from './limits.ts'

const SMALL_BLOCK_BYTES = 4 * 1024
const LARGE_BLOCK_BYTES = 64 * 1024
const POOLED_SMALL = 512
const POOLED_LARGE = 64
/** Gathered this much, it is written at once: libuv may read 2 MB from one socket before the turn ends. */
const WRITE_AT_BYTES = 256 * 1024
/** Longest piece `reserve` gives: every fixed header with packet id and property length fits. */
export const RESERVE_BYTES = 16

const ACKNOWLEDGEMENT_BYTES = 4

const NOTHING = Buffer.alloc(0)

/** A piece of memory in which output is gathered, and from which it is written. */
class Block {
  readonly bytes: Buffer
  next: Block | null = null
  #filled: Buffer = NOTHING

  constructor(bytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(bytes)
  }

  /** What is to be written of it. The same object as the last time if it is as long: mostly both are one acknowledgement. */
  get filled(): Buffer {
    return this.#filled
  }

  fill(bytes: number): void {
    if (this.#filled.length !== bytes) this.#filled = this.bytes.subarray(0, bytes)
  }
}

const smallPool: Block[] = []
const largePool: Block[] = []
/** Outputs with something gathered in this turn. */
let dirty: Output[] = []
/** Outputs that were full and have room again. */
let drained: Output[] = []

/** Where packets are written to. */
export interface PacketSink {
  /** Where `reserve` made room: write to `block` from `used` on, then `commit`. */
  readonly block: Buffer
  readonly used: number
  /** Makes room for up to RESERVE_BYTES in one piece. */
  reserve(bytes: number): void
  /** Takes the bytes written behind `used`. */
  commit(bytes: number): void
  /** Copies source[from, to) in. */
  append(source: Buffer, from: number, to: number): void
}

/** Writes PUBACK, PUBREC, PUBREL or PUBCOMP of success: first byte, packet id. */
export function writeAcknowledgement(sink: PacketSink, first: number, packetId: number): void {
  sink.reserve(ACKNOWLEDGEMENT_BYTES)
  const { block, used } = sink
  block[used] = first
  block[used + 1] = 2
  block[used + 2] = packetId >> 8
  block[used + 3] = packetId
  sink.commit(ACKNOWLEDGEMENT_BYTES)
}

/** What a connection wants to know of its output. */
export interface OutputOwner {
  /** It was full and has room again. */
  outputDrained(): void
  /** The client does not even take its acknowledgements: close it. */
  outputOverrun(): void
}

/**
 * Bytes on their way to one client, gathered over one turn of the event loop and written in one piece. The bytes lie in blocks, of
 * which an idle connection holds none. One write is under way at a time; what comes meanwhile is gathered behind it.
 *
 * Full means `limits.output_per_client` is reached: messages stay out then (who writes them asks `isFull` first), acknowledgements and
 * answers still find room for CONTROL_ROOM_BYTES more. So it holds the limit, one message or run over it, and that room at most.
 */
export class Output implements PacketSink {
  block: Buffer = NOTHING
  used = 0
  /** Bytes gathered and not yet taken by the socket. */
  pendingBytes = 0

  readonly #socket: Duplex
  readonly #memory: MemoryBudget
  readonly #limitBytes: number
  readonly #writeAtBytes: number
  readonly #owner: OutputOwner
  readonly #counters: MqttCounters
  /** Blocks in which something is gathered, the last of which is `block`, and those under way. */
  #first: Block | null = null
  #last: Block | null = null
  #writing: Block | null = null
  #writingBytes = 0
  #heldBytes = 0
  #controlBytes = 0
  #isFull = false
  #isDirty = false
  #isEnding = false
  #isEnded = false
  #isClosed = false
  readonly #onWritten = () => this.#written()

  constructor(
    socket: Duplex,
    {
      memory,
      counters,
      limitBytes,
      owner,
    }: { memory: MemoryBudget; counters: MqttCounters; limitBytes: number; owner: OutputOwner },
  ) {
    this.#socket = socket
    this.#memory = memory
    this.#counters = counters
    this.#limitBytes = limitBytes
    this.#writeAtBytes = Math.min(WRITE_AT_BYTES, limitBytes / 2)
    this.#owner = owner
  }

  /** No room for messages until `outputDrained`, which comes at half the limit. */
  get isFull(): boolean {
    return this.#isFull
  }

  /** Memory it holds, bytes. */
  get heldBytes(): number {
    return this.#heldBytes
  }

  /** `limits.memory` leaves room for a message, or run, of so many bytes that nobody else holds. */
  hasMemoryFor(bytes: number): boolean {
    return this.#memory.hasRoomFor(bytes)
  }

  reserve(bytes: number): void {
    if (this.block.length - this.used < bytes) this.#nextBlock(bytes)
  }

  commit(bytes: number): void {
    this.used += bytes
    this.#gathered(bytes)
  }

  append(source: Buffer, from: number, to: number): void {
    let at = from
    while (at < to) {
      if (this.used === this.block.length) this.#nextBlock(to - at)
      const copied = Math.min(to - at, this.block.length - this.used)
      source.copy(this.block, this.used, at, at + copied)
      this.used += copied
      at += copied
    }
    this.#gathered(to - from)
  }

  /** PUBACK, PUBREC, PUBREL or PUBCOMP of success: first byte, packet id. */
  acknowledge(first: number, packetId: number): void {
    writeAcknowledgement(this, first, packetId)
    this.control(ACKNOWLEDGEMENT_BYTES)
  }

  /** The same of 5.0 with a reason code. */
  acknowledgeWith(first: number, packetId: number, reason: number): void {
    this.reserve(5)
    const { block, used } = this
    block[used] = first
    block[used + 1] = 3
    block[used + 2] = packetId >> 8
    block[used + 3] = packetId
    block[used + 4] = reason
    this.commit(5)
    this.control(5)
  }

  /** Counts an acknowledgement or answer of so many bytes, just committed or appended, against the room for those. */
  control(bytes: number): void {
    this.#counters.controlOut++
    if (!this.#isFull) return
    this.#controlBytes += bytes
    if (this.#controlBytes > CONTROL_ROOM_BYTES && !this.#isClosed) this.#owner.outputOverrun()
  }

  /** Writes what has been gathered, unless a write is under way; then it goes after that one. */
  flush(): void {
    this.#isDirty = false
    const first = this.#first
    if (this.#writing !== null || this.#isClosed || this.#isEnded || first === null || this.pendingBytes === 0) return
    this.#last?.fill(this.used)
    this.#forgetBlocks()
    this.#writing = first
    this.#writingBytes = this.pendingBytes
    const socket = this.#socket
    const isOne = first.next === null
    if (!isOne) socket.cork()
    for (let block: Block | null = first; block !== null; block = block.next) socket.write(block.filled)
    if (!isOne) socket.uncork()
    // Mostly the kernel takes all of it at once. A callback on every write would cost a tick each, so one is hung on an empty write, and
    // only where the socket has kept something.
    if (socket.writableLength === 0) this.#written()
    else socket.write(NOTHING, this.#onWritten)
  }

  /** Ends the stream behind everything gathered so far; what is gathered later goes nowhere. */
  end(): void {
    this.#isEnding = true
    this.flush()
    this.#endWhenWritten()
  }

  /** Drops what is left and gives its memory back. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    // Blocks under way still belong to the socket and go to the collector, not to the pool.
    this.#memory.give(this.#heldBytes)
    this.#heldBytes = 0
    this.#forgetBlocks()
    this.#writing = null
    this.pendingBytes = 0
  }

  #forgetBlocks(): void {
    this.block = NOTHING
    this.used = 0
    this.#first = null
    this.#last = null
  }

  #gathered(bytes: number): void {
    this.pendingBytes += bytes
    if (!this.#isDirty) {
      this.#isDirty = true
      wake()
      dirty.push(this)
    }
    // While memory is short what the client takes at once is not gathered first.
    const isDue = this.pendingBytes >= this.#writeAtBytes || this.#memory.isPressed
    if (isDue && this.#writing === null) this.flush()
    if (this.pendingBytes >= this.#limitBytes && !this.#isClosed) this.#isFull = true
  }

  /** `wanted` is how many bytes are about to be written: a little goes into a small block. */
  #nextBlock(wanted: number): void {
    if (this.#isClosed) {
      // Whoever still writes in this turn writes into a block that goes nowhere.
      this.block = Buffer.allocUnsafe(LARGE_BLOCK_BYTES)
      this.used = 0
      return
    }
    const before = this.#last
    const isSmall = before === null && this.pendingBytes === 0 && wanted <= SMALL_BLOCK_BYTES
    const block = isSmall
      ? (smallPool.pop() ?? new Block(SMALL_BLOCK_BYTES))
      : (largePool.pop() ?? new Block(LARGE_BLOCK_BYTES))
    if (before === null) {
      this.#first = block
    } else {
      before.fill(this.used)
      before.next = block
    }
    this.#last = block
    this.block = block.bytes
    this.used = 0
    this.#heldBytes += this.block.length
    this.#memory.take(this.block.length)
  }

  #written(): void {
    if (this.#isClosed) return
    let block = this.#writing
    while (block !== null) {
      const { next } = block
      this.#release(block)
      block = next
    }
    this.#writing = null
    this.pendingBytes -= this.#writingBytes
    this.#counters.bytesOut += this.#writingBytes
    this.#writingBytes = 0
    if (this.#isFull && this.pendingBytes <= this.#limitBytes / 2) {
      this.#isFull = false
      this.#controlBytes = 0
      // Not at once: whoever is writing a packet in pieces right now must not find another one between them.
      wake()
      drained.push(this)
    }
    if (this.pendingBytes > 0) this.flush()
    if (this.#isEnding) this.#endWhenWritten()
  }

  #release(block: Block): void {
    const { length } = block.bytes
    this.#heldBytes -= length
    this.#memory.give(length)
    block.next = null
    if (length === SMALL_BLOCK_BYTES) {
      if (smallPool.length < POOLED_SMALL) smallPool.push(block)
    } else if (largePool.length < POOLED_LARGE) {
      largePool.push(block)
    }
  }

  #endWhenWritten(): void {
    if (this.#isEnded || this.pendingBytes > 0) return
    this.#isEnded = true
    this.#socket.end()
  }

  /** Tells the owner that it has room again. */
  tellDrained(): void {
    if (!this.#isClosed) this.#owner.outputDrained()
  }
}

function wake(): void {
  if (dirty.length === 0 && drained.length === 0) setImmediate(endTurn)
}

/** Once per turn: one write per output, whatever it gathered. */
function endTurn(): void {
  const withRoom = drained
  drained = []
  const outputs = dirty
  dirty = []
  for (const output of withRoom) output.tellDrained()
  for (const output of outputs) output.flush()
}
