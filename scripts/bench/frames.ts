import { randomFillSync } from 'node:crypto'
import type { QoS } from './scenarios.ts'

/* The few MQTT 3.1.1 packets a load needs, written by hand so that the generator shares nothing with the broker it measures. */

export const CONNACK = 0x20
export const PUBLISH = 0x30
export const PUBACK = 0x40
export const PUBREC = 0x50
export const PUBREL = 0x62
export const PUBCOMP = 0x70
export const SUBACK = 0x90

const NO_KEEP_ALIVE = Buffer.from([0, 0])

export function connectFrame({ clientId, clean }: { clientId: string; clean: boolean }): Buffer {
  const protocol = Buffer.concat([text('MQTT'), Buffer.from([4, clean ? 0x02 : 0x00]), NO_KEEP_ALIVE])
  return frame(0x10, [protocol, text(clientId)])
}

export function subscribeFrame({ filter, qos }: { filter: string; qos: QoS }): Buffer {
  return frame(0x82, [Buffer.from([0, 1]), text(filter), Buffer.from([qos])])
}

export const DISCONNECT_FRAME = Buffer.from([0xe0, 0])

/** Consecutive PUBLISH frames of one publisher, all of the same size, with the packet ids 1 to `count` where QoS asks for one. */
export interface PublishFrames {
  readonly bytes: Buffer
  readonly count: number
  readonly frameBytes: number
}

/** Payloads are random: neither LevelDB nor a disk can make them smaller. */
export function publishFrames({
  topic,
  qos,
  payloadBytes,
  count,
}: {
  topic: string
  qos: QoS
  payloadBytes: number
  count: number
}): PublishFrames {
  const frames: Buffer[] = []
  for (let id = 1; id <= count; id++) {
    const packetId = qos === 0 ? Buffer.alloc(0) : Buffer.from([id >> 8, id & 0xff])
    frames.push(frame(PUBLISH | (qos << 1), [text(topic), packetId, randomFillSync(Buffer.alloc(payloadBytes))]))
  }
  const bytes = Buffer.concat(frames)
  return { bytes, count, frameBytes: bytes.length / count }
}

function frame(firstByte: number, parts: readonly Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  const header = [firstByte]
  let rest = body.length
  do {
    header.push((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
    rest >>>= 7
  } while (rest > 0)
  return Buffer.concat([Buffer.from(header), body])
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}

/** The packet id of a PUBLISH of QoS 1 or 2 whose variable header begins at `at`. */
export function packetIdOf(bytes: Buffer, at: number): number {
  return numberAt(bytes, at + 2 + numberAt(bytes, at))
}

/** The two bytes at `at`. */
export function numberAt(bytes: Buffer, at: number): number {
  return ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
}

/** Gets each frame: its first byte, and where its body (what follows the remaining length) begins and ends. */
export type OnFrame = (firstByte: number, bytes: Buffer, body: number, end: number) => void

/** Larger frames than a load has; also bounds what is copied when a frame is cut by a read. */
const MAX_FRAME_BYTES = 4096

/** Finds frames in a stream of chunks that the caller uses again after each call. */
export class FrameReader {
  readonly #onFrame: OnFrame
  readonly #cut = Buffer.alloc(MAX_FRAME_BYTES)
  #cutBytes = 0

  constructor(onFrame: OnFrame) {
    this.#onFrame = onFrame
  }

  read(bytes: Buffer, length: number): void {
    let at = 0
    if (this.#cutBytes > 0) {
      const had = this.#cutBytes
      const taken = bytes.copy(this.#cut, had, 0, Math.min(length, MAX_FRAME_BYTES - had))
      const end = this.#frame(this.#cut, 0, had + taken)
      if (end === 0) {
        if (had + taken === MAX_FRAME_BYTES) throw new Error(`a frame of more than ${MAX_FRAME_BYTES} bytes came back`)
        this.#cutBytes = had + taken
        return
      }
      at = end - had
      this.#cutBytes = 0
    }
    for (;;) {
      const end = this.#frame(bytes, at, length)
      if (end === at) break
      at = end
    }
    if (at < length) this.#cutBytes = bytes.copy(this.#cut, 0, at, length)
  }

  /** End of the frame at `at`; `at` itself while it is not whole. */
  #frame(bytes: Buffer, at: number, length: number): number {
    let body = at + 1
    let remaining = 0
    for (let shift = 0; ; shift += 7) {
      if (body >= length) return at
      const byte = bytes[body++] ?? 0
      remaining |= (byte & 0x7f) << shift
      if (byte < 0x80) break
    }
    const end = body + remaining
    if (end > length) return at
    this.#onFrame(bytes[at] ?? 0, bytes, body, end)
    return end
  }
}
