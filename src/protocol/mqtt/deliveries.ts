/*
 * What one session is sent from queues, and what of it waits for its answer. It has several sources, its own queue and the named queues and
 * streams it consumes from, and one window for all of them. Packet ids live as long as the session, the window as long as a connection.
 *
 * A connection that ends leaves messages of the session's own queue unanswered. They are the oldest there, so on the next connection that
 * queue delivers them first, in order [MQTT-4.6.0-1], and each goes out under its old packet id [MQTT-4.4.0-1]. Until then nothing else is sent. What was
 * dropped from the queue in between gives its id back.
 *
 * Where the session keeps packet ids on disk, nothing of QoS 2 leaves before the disk knows it: an id before its PUBLISH, the PUBREC before PUBREL (design.md section 2). Such
 * packets are held back for the next commit (HeldBack). So after a crash a message goes out under the id it had, and one that the client has received does not go out again.
 *
 * Fairness: credit gained from the packets of one chunk is handed out at its end. First every source with something waiting gets an equal share
 * (at least one, as far as the free ids reach), beginning behind the one served last; then whoever wants takes what is left. So a source with a
 * long backlog takes the whole window while it is alone, and no more than its share when it isn't.
 */
import type { Consumer } from '../../core/consumer.ts'
import type { Identities } from '../../core/identity.ts'
import type { PacketIdRecord, SessionIds } from '../../core/session-ids.ts'
import { type QoS, recordExpiryMs } from '../../model/message.ts'
import type { Attachment } from './attachment.ts'
import type { MqttCounters } from './counters.ts'
import { PacketType } from './frame.ts'
import { writeAcknowledgement } from './output.ts'
import { AwaitedAnswer, PacketIds } from './packet-ids.ts'
import { Reason } from './protocol-error.ts'
import { PUBLISH_DUP, type PublishWriter, publishFirst } from './publish-frame.ts'
import { FIRST_FAILURE } from './reply-code.ts'

const PACKET_ID_MAX = 65_535
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

  readonly #counters: MqttCounters
  readonly #identities: Identities
  #ids: PacketIds
  /** What keeps packet ids on disk; null: nothing does. */
  readonly #kept: SessionIds | null
  /** null: no connection, nothing is sent. */
  #attachment: Attachment | null = null
  /** Packet ids of messages that an earlier connection left unanswered and this one has not sent yet, all of one source, in its order. */
  #unsent: number[] = []
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
    counters,
    identities,
    kept,
    mostInFlight,
  }: {
    counters: MqttCounters
    identities: Identities
    kept: SessionIds | null
    /** No connection has a larger window. */
    mostInFlight: number
  }) {
    this.#counters = counters
    this.#identities = identities
    this.#kept = kept
    this.#ids = new PacketIds(mostInFlight)
  }

  get inFlight(): number {
    return this.#ids.inFlight
  }

  // ---- connections

  /** There is a connection, and CONNACK is on its way: PUBRELs follow it, messages with the next `pump`. */
  attach(attachment: Attachment): void {
    this.#attachment = attachment
    this.#hasGained = true
    if (this.#unsent.length > 0) this.#kept?.changed()
    // The disk knows these: CONNACK came after the commit that has them.
    for (const id of this.#ids.unreleased()) attachment.output.acknowledge(PUBREL, id) // [MQTT-4.4.0-1]
  }

  /** The connection is over. The source `own` stays, and what it has unanswered is sent again over the next connection; the others will be removed. */
  detach(own: number): void {
    this.#attachment?.heldBack?.packets.close()
    this.#attachment = null
    this.#unsent = this.#ids.unansweredOf(own)
    if (this.#unsent.length > 0) this.#kept?.changed()
  }

  // ---- packet ids on disk

  /** Goes on with the ids that were in use before the process began; `own` is the source of those that were sent. */
  restore({ sent, released }: PacketIdRecord, own: number): void {
    // By another configuration there may have been more of them than now; and messages of QoS 1 may come before those sent.
    const most = this.#ids.free + sent.length + released.length
    this.#ids = new PacketIds(Math.min(PACKET_ID_MAX, Math.max(most, ...sent.map(({ id }) => id), ...released)))
    this.#ids.restore({ sent, released }, own)
    this.#unsent = this.#ids.unansweredOf(own)
  }

  /**
   * What of the ids must be known after a crash. Of a message of another source than `own` only that the client may have it: it goes elsewhere then. Those of QoS 1
   * need not be known, and are only once their connection is over: they cost nothing while it lasts.
   */
  idsToKeep(own: number): Pick<PacketIdRecord, 'sent' | 'released'> {
    this.#attachment?.heldBack?.packets.prepare()
    const unreceived = this.#ids.unreceived()
    const isOwn = (id: number): boolean => this.#ids.sourceOf(id) === own
    const sent = this.#attachment === null ? this.#unsent : unreceived.filter(isOwn)
    return {
      sent: sent.map(id => ({ id, position: this.#ids.positionOf(id) })),
      released: [...this.#ids.unreleased(), ...unreceived.filter(id => !isOwn(id))],
    }
  }

  /** What `idsToKeep` gave last is on disk: what was held back for it leaves. */
  idsKept(): void {
    const attachment = this.#attachment
    if (attachment === null || attachment.heldBack === null) return
    const { packets } = attachment.heldBack
    const wasFull = packets.isFull
    packets.release(attachment.output)
    if (wasFull) this.#handOut()
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

  /** The source of that number sends nothing more, and no answer reaches it. */
  remove(number: number): void {
    for (const id of this.#ids.unansweredOf(number)) this.#abandon(id)
    this.#sources[number] = null
    this.#sourceCount--
  }

  // ---- sending

  /**
   * How many messages a source may send now: at QoS 1 and 2 each takes a packet id [MQTT-4.9.0-2], at QoS 0 only the output must have room [MQTT-3.3.4-10],
   * [MQTT-4.9.0-3].
   */
  credit(source: number, qos: QoS): number {
    const attachment = this.#attachment
    if (attachment === null || attachment.output.isFull || this.#hasGained) return 0
    if (qos !== 0 && attachment.heldBack?.packets.isFull === true) return 0
    if (this.#unsent.length > 0) return source === this.#ids.sourceOf(this.#unsent[0] ?? 0) ? this.#room : 0
    if (qos === 0) return this.#share
    const free = this.#free
    return free < this.#share ? free : this.#share
  }

  /** Messages of QoS 1 the window has room for. */
  get #room(): number {
    const window = this.#attachment?.window ?? 0
    return window - (this.#ids.inFlight - this.#unsent.length)
  }

  /** The same, as far as there are packet ids for further ones. */
  get #free(): number {
    return Math.max(0, Math.min(this.#room, this.#ids.free))
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
    if (this.#attachment === null) throw new TypeError('a message is delivered to a session without a connection')
    const known = this.#unsent.length === 0 ? 0 : this.#takeUnsent(source, position)
    const packetId = qos === 0 ? 0 : known || this.#ids.next
    // One that an earlier connection has sent the disk knows, too.
    const heldBack = qos === 2 && known === 0 ? this.#attachment.heldBack : null
    const { writer } = heldBack ?? this.#attachment
    // An earlier connection has sent it, or may have: [MQTT-3.3.1-1]. Else [MQTT-4.3.2-2], [MQTT-4.3.3-2].
    const first = publishFirst(qos, known === 0 ? flags : flags | PUBLISH_DUP)
    const unsendable = this.#write(writer, bytes, at, first, packetId, identifiers, known !== 0)
    if (unsendable !== null) {
      if (known !== 0) this.#abandon(known)
      return unsendable
    }
    if (qos !== 0 && known !== 0) this.#ids.resend(known, qos)
    if (qos !== 0 && known === 0) this.#ids.take(source, position, qos) // [MQTT-2.2.1-4], [MQTT-4.3.2-1], [MQTT-4.3.3-1]
    if (heldBack !== null) this.#kept?.due()
    this.#share--
    this.#counters.messagesOut[qos]++
    this.sent++
    return null
  }

  #write(
    writer: PublishWriter,
    bytes: Buffer,
    at: number,
    first: number,
    packetId: number,
    identifiers: Buffer,
    wasSent: boolean,
  ): Unsendable | null {
    let expiryS = 0
    const expiryMs = recordExpiryMs(bytes, at)
    if (expiryMs > 0) {
      const leftMs = expiryMs - this.#identities.ageMs(bytes, at)
      if (leftMs <= 0 && !wasSent) return 'expired' // [MQTT-4.3.3-7]
      expiryS = Math.max(1, Math.ceil(leftMs / 1000))
    }
    return writer.writeRecord(bytes, at, first, packetId, expiryS, identifiers) ? null : 'too_large'
  }

  /** A message of this source is not sent: an earlier connection may have sent it, and its packet id is free. */
  forgo(source: number, position: number): void {
    const known = this.#unsent.length === 0 ? 0 : this.#takeUnsent(source, position)
    if (known !== 0) this.#abandon(known)
  }

  /** The packet id under which an earlier connection sent this message, 0: none did. Those before it are gone. */
  #takeUnsent(source: number, position: number): number {
    for (let id = this.#unsent[0] ?? 0; id !== 0; id = this.#unsent[0] ?? 0) {
      const unsent = this.#ids.positionOf(id)
      if (this.#ids.sourceOf(id) !== source || unsent > position) return 0
      this.#unsent.shift()
      if (unsent === position) return id
      this.#abandon(id)
    }
    return 0
  }

  /** The message behind this id was dropped, or goes to another client. */
  #abandon(id: number): void {
    this.#ids.abandon(id)
    if (this.#ids.awaited(id) === AwaitedAnswer.pubcomp) this.#release(id)
  }

  /** PUBREL, once the disk knows that the message is the client's. */
  #release(id: number): void {
    const heldBack = this.#attachment?.heldBack ?? null
    if (heldBack === null) {
      this.#attachment?.output.acknowledge(PUBREL, id)
    } else {
      writeAcknowledgement(heldBack.packets, PUBREL, id)
      this.#kept?.due()
    }
  }

  // ---- answers

  /** PUBACK, with its reason code. */
  acknowledged(packetId: number, reason: number): void {
    if (this.#awaited(packetId) === AwaitedAnswer.puback) this.#settle(packetId, reason, true)
    else this.#counters.unknownAcks++
  }

  /** PUBREC, with its reason code: the message is the client's, and only its id is still in use. One that refuses it ends all of it [MQTT-4.4.0-2]. */
  received(packetId: number, reason: number): void {
    const attachment = this.#attachment
    if (attachment === null) return
    const { output, isV5 } = attachment
    switch (this.#awaited(packetId)) {
      case AwaitedAnswer.pubrec:
        this.#settle(packetId, reason, reason >= FIRST_FAILURE)
        if (reason < FIRST_FAILURE) this.#release(packetId) // [MQTT-4.3.3-4], [MQTT-4.6.0-4]
        return
      case AwaitedAnswer.pubcomp:
        // Sent again by a client that has not seen the PUBREL, as 3.1.1 permits. One that reads nothing would only pile up more of them.
        if (!output.isFull && attachment.heldBack?.packets.isFull !== true) this.#release(packetId)
        return
      default:
        this.#counters.unknownAcks++
        // Of an earlier connection: the message is about to be sent again, and answered again.
        if (reason >= FIRST_FAILURE || this.#unsent.includes(packetId)) return
        // A client that remembers more than the server ends its part with this.
        if (isV5) output.acknowledgeWith(PUBREL, packetId, Reason.packetIdentifierNotFound)
        else output.acknowledge(PUBREL, packetId)
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
    this.#kept?.changed()
  }

  /** What was sent over this connection waits for. */
  #awaited(packetId: number): AwaitedAnswer {
    return this.#unsent.includes(packetId) ? AwaitedAnswer.none : this.#ids.awaited(packetId)
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
    if (this.#unsent.length > 0) this.#sendUnsent(this.#ids.sourceOf(this.#unsent[0] ?? 0))
    if (this.#sourceCount > 1) this.#handOutShares()
    const { length } = this.#sources
    for (let n = 0; n < length; n++) this.#sources[(this.#turn + n) % length]?.pump()
  }

  #sendUnsent(source: number): void {
    this.#sources[source]?.pump()
    if (this.#sources[source]?.hasWaiting === true) return
    // What it does not have any more was dropped.
    for (const id of this.#unsent) this.#abandon(id)
    this.#unsent = []
  }

  #handOutShares(): void {
    let waiting = 0
    for (const source of this.#sources) if (source?.hasWaiting === true) waiting++
    if (waiting < 2) return
    const share = Math.max(1, Math.floor(this.#free / waiting))
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
