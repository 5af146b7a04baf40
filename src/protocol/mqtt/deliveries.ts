/*
 * What one client is sent from queues, and what of it waits for its answer. A client has several sources, its session's queue and the named
 * queues and streams it consumes from, and one window for all of them: packet ids and receive maximum belong to the connection.
 *
 * Fairness: credit gained from the packets of one chunk is handed out at its end. First every source with something waiting gets an equal share
 * (at least one, as far as the free ids reach), beginning behind the one served last; then whoever wants takes what is left. So a source with a
 * long backlog takes the whole window while it is alone, and no more than its share when it isn't.
 */
import type { Consumer } from '../../core/consumer.ts'
import type { Identities } from '../../core/identity.ts'
import { type QoS, recordExpiryMs } from '../../model/message.ts'
import type { MqttCounters } from './counters.ts'
import { PacketType } from './frame.ts'
import type { Output } from './output.ts'
import { AwaitedAnswer, PacketIds } from './packet-ids.ts'
import { Reason } from './protocol-error.ts'
import { type PublishWriter, publishFirst } from './publish-frame.ts'
import { FIRST_FAILURE } from './reply-code.ts'

/** First byte of PUBREL: its reserved flags are 0010 [MQTT-3.6.1-1]. */
const PUBREL = (PacketType.pubrel << 4) | 2

/** One of the places a client is sent messages from, as its consumer. */
export interface Source extends Consumer {
  /** Something in it waits to be delivered. */
  readonly hasWaiting: boolean
  /** Delivers while there are messages and credit. */
  pump(): void
  /** The client has answered the delivery at `position`. `reason` is that of its PUBACK or PUBREC: 0x80 and above refuse the message. */
  answered(position: number, reason: number): void
}

/** Why a message could not be sent: its time is over [MQTT-3.3.2-5], or the client does not take packets of its size [MQTT-3.1.2-25]. */
export type Unsendable = 'expired' | 'too_large'

export class Deliveries {
  /** Messages handed to the output. */
  sent = 0

  readonly #output: Output
  readonly #writer: PublishWriter
  readonly #counters: MqttCounters
  readonly #isV5: boolean
  readonly #identities: Identities
  readonly #ids: PacketIds
  /** By source number; null: free. */
  readonly #sources: (Source | null)[] = []
  #sourceCount = 0
  /** Number of the source whose turn is next. */
  #turn = 0
  /** What the source being pumped may still take of its share. */
  #share = Number.POSITIVE_INFINITY
  /** Credit was gained that has not been handed out: until then no source has any. */
  #hasGained = false

  constructor({
    output,
    writer,
    counters,
    identities,
    isV5,
    window,
  }: {
    output: Output
    writer: PublishWriter
    counters: MqttCounters
    identities: Identities
    isV5: boolean
    /** Messages in flight at most, all sources together [MQTT-3.3.4-9]. */
    window: number
  }) {
    this.#output = output
    this.#writer = writer
    this.#counters = counters
    this.#isV5 = isV5
    this.#identities = identities
    this.#ids = new PacketIds(window)
  }

  get inFlight(): number {
    return this.#ids.inFlight
  }

  // ---- sources

  /** Takes a source in and returns its number, to send with. It gets its first messages with the next `pump`, behind the SUBACK. */
  add(source: Source): number {
    const free = this.#sources.indexOf(null)
    const number = free < 0 ? this.#sources.length : free
    this.#sources[number] = source
    this.#sourceCount++
    this.#hasGained = true
    return number
  }

  /** The source of that number has nothing in flight and sends nothing more. */
  remove(number: number): void {
    this.#sources[number] = null
    this.#sourceCount--
  }

  // ---- sending

  /** How many messages a source may send now: at QoS 1 and 2 each takes a packet id, at QoS 0 only the output must have room. */
  credit(qos: QoS): number {
    if (this.#output.isFull || this.#hasGained) return 0
    if (qos === 0) return this.#share
    const { free } = this.#ids
    return free < this.#share ? free : this.#share
  }

  /**
   * Sends one message of a source that has credit; null: it is on its way, and at QoS 1 and 2 in flight from now on. Else nothing happened.
   * `flags` are DUP and RETAIN as they stand in the first byte, `identifiers` property bytes. Positional because it is called for every message.
   */
  send(
    source: number,
    bytes: Buffer,
    at: number,
    position: number,
    qos: QoS,
    flags: number,
    identifiers: Buffer,
  ): Unsendable | null {
    let expiryS = 0
    const expiryMs = recordExpiryMs(bytes, at)
    if (expiryMs > 0) {
      const leftMs = expiryMs - this.#identities.ageMs(bytes, at)
      if (leftMs <= 0) return 'expired'
      expiryS = Math.ceil(leftMs / 1000)
    }
    const packetId = qos === 0 ? 0 : this.#ids.next
    const first = publishFirst(qos, flags)
    if (!this.#writer.writeRecord(bytes, at, first, packetId, expiryS, identifiers)) return 'too_large'
    if (qos !== 0) this.#ids.take(source, position, qos) // [MQTT-2.2.1-4], [MQTT-4.3.3-1]
    this.#share--
    this.#counters.messagesOut[qos]++
    this.sent++
    return null
  }

  // ---- answers

  /** PUBACK, with its reason code. */
  acknowledged(packetId: number, reason: number): void {
    if (this.#ids.awaited(packetId) === AwaitedAnswer.puback) this.#settle(packetId, reason, true)
    else this.#counters.unknownAcks++
  }

  /** PUBREC, with its reason code: the message is the client's, and only its id is still in use. One that refuses it ends all of it [MQTT-4.4.0-2]. */
  received(packetId: number, reason: number): void {
    switch (this.#ids.awaited(packetId)) {
      case AwaitedAnswer.pubrec:
        this.#settle(packetId, reason, reason >= FIRST_FAILURE)
        if (reason < FIRST_FAILURE) this.#output.acknowledge(PUBREL, packetId) // [MQTT-4.3.3-4], [MQTT-4.6.0-4]
        return
      case AwaitedAnswer.pubcomp:
        // Sent again by a client that has not seen the PUBREL, as 3.1.1 permits.
        this.#output.acknowledge(PUBREL, packetId)
        return
      default:
        this.#counters.unknownAcks++
        if (reason >= FIRST_FAILURE) return
        // A client that remembers more than the server ends its part with this.
        if (this.#isV5) this.#output.acknowledgeWith(PUBREL, packetId, Reason.packetIdentifierNotFound)
        else this.#output.acknowledge(PUBREL, packetId)
    }
  }

  /** PUBCOMP: the id is free. */
  completed(packetId: number): void {
    if (this.#ids.awaited(packetId) !== AwaitedAnswer.pubcomp) {
      this.#counters.unknownAcks++
      return
    }
    this.#ids.giveBack(packetId)
    this.#hasGained = true
  }

  #settle(packetId: number, reason: number, isOver: boolean): void {
    const position = this.#ids.positionOf(packetId)
    const source = this.#sources[this.#ids.sourceOf(packetId)]
    if (isOver) {
      this.#ids.giveBack(packetId)
      this.#hasGained = true
    } else {
      this.#ids.received(packetId)
    }
    source?.answered(position, reason)
  }

  /** All packets of a chunk have been looked at: sends what the credit gained by them allows. */
  pump(): void {
    if (!this.#hasGained) return
    this.#hasGained = false
    this.#handOut()
  }

  /** The output has room again. */
  outputDrained(): void {
    this.#handOut()
  }

  #handOut(): void {
    if (this.#sourceCount > 1) this.#handOutShares()
    const { length } = this.#sources
    for (let n = 0; n < length; n++) this.#sources[(this.#turn + n) % length]?.pump()
  }

  #handOutShares(): void {
    let waiting = 0
    for (const source of this.#sources) if (source?.hasWaiting === true) waiting++
    if (waiting < 2) return
    const share = Math.max(1, Math.floor(this.#ids.free / waiting))
    const { length } = this.#sources
    const first = this.#turn
    for (let n = 0; n < length; n++) {
      const number = (first + n) % length
      const source = this.#sources[number]
      this.#share = share
      if (source === null || source === undefined || !source.hasWaiting || source.credit === 0) continue
      source.pump()
      this.#turn = (number + 1) % length
    }
    this.#share = Number.POSITIVE_INFINITY
  }
}
