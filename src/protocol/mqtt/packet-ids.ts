import type { PacketIdRecord } from '../../core/session-ids.ts'

/** No delivery stands behind this packet id. */
export const NOT_IN_FLIGHT = -1

/** What a packet id waits for. */
export const AwaitedAnswer = { none: 0, puback: 1, pubrec: 2, pubcomp: 3 } as const
export type AwaitedAnswer = (typeof AwaitedAnswer)[keyof typeof AwaitedAnswer]

/**
 * The packet ids of one session's deliveries at QoS 1 and 2, with the source and position each stands for. There are as many as messages may be in flight.
 *
 *     QoS 1:  none ──PUBLISH──▶ puback ──PUBACK──▶ none        [MQTT-4.3.2-3]
 *     QoS 2:  none ──PUBLISH──▶ pubrec ──PUBREC──▶ pubcomp ──PUBCOMP──▶ none        (PUBREC that refuses: ──▶ none)
 *
 * A PUBLISH of QoS 2 is unacknowledged until PUBREC [MQTT-4.3.3-3], its PUBREL until PUBCOMP [MQTT-4.3.3-5]. From PUBREC on nothing stands behind an id any more, so that
 * no PUBLISH can follow PUBREL [MQTT-4.3.3-6]. Freed ids go to the end of a ring, so that an id rests as long as possible before it is used again.
 */
export class PacketIds {
  /** By packet id. */
  readonly #awaited: Uint8Array
  /** From PUBREC on, its place among the PUBRECs. */
  readonly #positions: Float64Array
  readonly #sources: Uint32Array
  readonly #ring: Uint16Array
  #head = 0
  #free: number
  /** PUBRECs so far. */
  #receptions = 0

  /** `most`: 1 to 65,535. */
  constructor(most: number) {
    this.#awaited = new Uint8Array(most + 1)
    this.#positions = new Float64Array(most + 1).fill(NOT_IN_FLIGHT)
    this.#sources = new Uint32Array(most + 1)
    this.#ring = new Uint16Array(most)
    for (let n = 0; n < most; n++) this.#ring[n] = n + 1
    this.#free = most
  }

  get free(): number {
    return this.#free
  }

  get inFlight(): number {
    return this.#ring.length - this.#free
  }

  /** The id that `take` takes; meaningful while one is free. */
  get next(): number {
    return this.#ring[this.#head] ?? 0
  }

  /**
   * Takes ids that are in use since before the process began; nothing has been taken since. `own` is the source of those sent, which count as sent at QoS 2 until
   * they are sent again.
   */
  restore({ sent, released }: Pick<PacketIdRecord, 'sent' | 'released'>, own: number): void {
    for (const { id, position } of sent) {
      this.#awaited[id] = AwaitedAnswer.pubrec
      this.#positions[id] = position
      this.#sources[id] = own
    }
    for (const id of released) this.received(id)
    const free = this.#ring.filter(id => this.#awaited[id] === AwaitedAnswer.none)
    this.#ring.set(free)
    this.#free = free.length
  }

  take(source: number, position: number, qos: 1 | 2): void {
    const id = this.next
    this.#head = this.#head + 1 === this.#ring.length ? 0 : this.#head + 1
    this.#free--
    this.#awaited[id] = qos
    this.#positions[id] = position
    this.#sources[id] = source
  }

  /** The message behind this id goes out again: what it waits for is known by its QoS. */
  resend(id: number, qos: 1 | 2): void {
    this.#awaited[id] = qos
  }

  awaited(id: number): AwaitedAnswer {
    return (this.#awaited[id] ?? AwaitedAnswer.none) as AwaitedAnswer
  }

  /** Position in its source of the message that was sent under this id and is unanswered, or NOT_IN_FLIGHT. */
  positionOf(id: number): number {
    return this.#awaited[id] === AwaitedAnswer.pubcomp ? NOT_IN_FLIGHT : (this.#positions[id] ?? NOT_IN_FLIGHT)
  }

  sourceOf(id: number): number {
    return this.#sources[id] ?? 0
  }

  /** The client has the message behind this id: from now on it is PUBCOMP that is awaited. */
  received(id: number): void {
    this.#awaited[id] = AwaitedAnswer.pubcomp
    this.#positions[id] = this.#receptions++
  }

  /** The message behind this id will not be sent again. A client that may have it would take another one under this id for a repetition, so at QoS 2 PUBREL comes first. */
  abandon(id: number): void {
    if (this.#awaited[id] === AwaitedAnswer.pubrec) this.received(id)
    else this.giveBack(id)
  }

  /** Ids of one source's messages that are unanswered, in the order of their positions. */
  unansweredOf(source: number): number[] {
    return this.#sorted(id => this.awaited(id) < AwaitedAnswer.pubcomp && this.#sources[id] === source)
  }

  /** Ids that PUBREC is awaited for. */
  unreceived(): number[] {
    return this.#sorted(id => this.awaited(id) === AwaitedAnswer.pubrec)
  }

  /** Ids that PUBCOMP is awaited for, in the order in which their PUBRECs came. */
  unreleased(): number[] {
    return this.#sorted(id => this.awaited(id) === AwaitedAnswer.pubcomp)
  }

  #sorted(isWanted: (id: number) => boolean): number[] {
    const ids: number[] = []
    for (let id = 1; id < this.#awaited.length; id++) {
      if (this.#awaited[id] !== AwaitedAnswer.none && isWanted(id)) ids.push(id)
    }
    return ids.sort((a, b) => (this.#positions[a] ?? 0) - (this.#positions[b] ?? 0))
  }

  /** Gives an id back that waits for an answer. */
  giveBack(id: number): void {
    this.#awaited[id] = AwaitedAnswer.none
    this.#positions[id] = NOT_IN_FLIGHT
    const slot = this.#head + this.#free
    this.#ring[slot >= this.#ring.length ? slot - this.#ring.length : slot] = id
    this.#free++
  }
}
