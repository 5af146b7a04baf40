/*
 * PUBLISH and PUBREL from a client, and the answers to them.
 *
 * Invariants
 * - Frames are gathered into runs of one first byte and topic, in order, and a run is handed to the router before anything else of the
 *   connection is looked at, and before its source of bytes goes away.
 * - PUBACKs and PUBRECs leave in order of arrival, each when its message and all earlier ones of the connection are safe [MQTT-4.6.0-2], [MQTT-4.6.0-3].
 * - The packet id of a QoS 2 message is held from PUBLISH to PUBREL; a PUBLISH with an id that is held is answered and not published again.
 * - What the router refuses and MQTT 3.1.1 has no word for is not dropped: the reader is set back to that frame and the connection
 *   reads nothing more until it is accepted (design.md section 2).
 */
import type { Permissions } from '../../core/acl.ts'
import type { Clock } from '../../core/clock.ts'
import type { Publisher } from '../../core/consumer.ts'
import type { Router } from '../../core/router.ts'
import { createRun, RUN_CAPACITY, type Run } from '../../core/run.ts'
import type { PublisherHandle } from '../../core/tickets.ts'
import type { ErrorCode } from '../../model/error.ts'
import { MQTT_EXCHANGE, PropertiesTag, recordPrefix } from '../../model/message.ts'
import { quoteName } from '../../model/names.ts'
import { AckRing } from './ack-ring.ts'
import { type ConnectPacket, checkResponseTopic, encode } from './control-packet.ts'
import type { MqttCounters } from './counters.ts'
import { type FrameReader, PacketType } from './frame.ts'
import type { MqttLimits } from './limits.ts'
import type { Output } from './output.ts'
import { Property, PropertyScan, readVarint, varintEnd } from './properties.ts'
import { LimitReached, malformed, ProtocolError, Reason } from './protocol-error.ts'
import {
  FORM_V5,
  FORM_V5_ALIASED,
  formOf,
  PUBLISH_DUP,
  PUBLISH_RETAIN,
  publishQos,
  type RememberedTopic,
  TopicMemo,
} from './publish-frame.ts'
import type { ReceivedIds } from './received-ids.ts'
import { ANSWER_NO_SUBSCRIBERS, ANSWER_NOT_HELD, ANSWER_SUCCESS, answerRefusal, refusalAnswer } from './reply-code.ts'
import type { SessionState } from './session-state.ts'
import { isTopicAt } from './topic.ts'
import { ALIAS_BYTES } from './topic-aliases.ts'

const PUBACK = PacketType.puback << 4
const PUBREC = PacketType.pubrec << 4
const PUBCOMP = PacketType.pubcomp << 4

/** Why nothing is read from a connection. */
export type Hold =
  | { readonly kind: 'none' }
  /** A 3.1.1 client has `limits.receive_max` publishes unanswered, or a message came again that is not on disk yet: until there are answers. */
  | { readonly kind: 'acks' }
  /** A publish was refused and 3.1.1 cannot say so: until it is accepted, or `limits.refuse_disconnect_after`. */
  | { readonly kind: 'refused'; readonly sinceMs: number; readonly code: ErrorCode }
  /** `limits.memory` is reached. */
  | { readonly kind: 'memory'; readonly sinceMs: number }

const NO_HOLD: Hold = { kind: 'none' }

/** The run being gathered and its packet ids: one for all connections, since a run never outlives the reading of one chunk. */
export interface Gathering {
  readonly run: Run
  readonly packetIds: Uint16Array
}

export function createGathering(): Gathering {
  const prefix = recordPrefix({
    exchange: MQTT_EXCHANGE,
    key: '',
    qos: 0,
    retain: false,
    dup: false,
    priority: 0,
    clientId: '',
    user: '',
    propertiesTag: PropertiesTag.none,
  })
  return { run: createRun(0, prefix), packetIds: new Uint16Array(RUN_CAPACITY) }
}

const scan = new PropertyScan()

export class Publishing implements Publisher {
  /** Messages taken in. */
  received = 0

  readonly #router: Router
  readonly #handle: PublisherHandle
  readonly #frames: FrameReader
  readonly #output: Output
  readonly #limits: MqttLimits
  readonly #counters: MqttCounters
  readonly #clock: Clock
  readonly #onRelief: () => void
  readonly #onUnanswerable: () => void
  readonly #isV5: boolean
  readonly #wantsReasonStrings: boolean
  readonly #maximumPacketSize: number
  readonly #memo: TopicMemo
  readonly #run: Run
  readonly #packetIds: Uint16Array
  readonly #acks = new AckRing()
  /** PUBCOMPs that wait until the release is on disk. */
  readonly #completions = new AckRing()
  /** Those of the run being gathered among them. */
  readonly #held: ReceivedIds
  /** Topic of the run being gathered; null: none is. */
  #gathered: RememberedTopic | null = null
  #hold: Hold = NO_HOLD
  /** Since when the oldest refused message has been refused; null: none is. */
  #refusedSinceMs: number | null = null

  constructor({
    router,
    connect,
    clientId,
    frames,
    output,
    received,
    permissions,
    limits,
    state,
    counters,
    clock,
    gathering,
    onRelief,
    onUnanswerable,
  }: {
    router: Router
    connect: ConnectPacket
    clientId: string
    frames: FrameReader
    output: Output
    /** Of its session. */
    received: ReceivedIds
    permissions: Permissions
    limits: MqttLimits
    state: SessionState
    counters: MqttCounters
    clock: Clock
    gathering: Gathering
    /** What was held back may be tried again; not called while a run is under way, so it must not read at once. */
    onRelief: () => void
    /** A publish that was taken in is refused now, in a version that cannot say so. */
    onUnanswerable: () => void
  }) {
    this.#router = router
    this.#frames = frames
    this.#output = output
    this.#held = received
    this.#limits = limits
    this.#counters = counters
    this.#clock = clock
    this.#onRelief = onRelief
    this.#onUnanswerable = onUnanswerable
    this.#isV5 = connect.version === 5
    this.#wantsReasonStrings = connect.wantsReasonStrings
    this.#maximumPacketSize = connect.maximumPacketSize
    const origin = { version: connect.version, clientId, user: connect.user ?? '' }
    this.#memo = new TopicMemo({ router, origin, permissions, limits, state })
    this.#run = gathering.run
    this.#packetIds = gathering.packetIds
    this.#handle = router.register(this)
    received.connection = this
  }

  get hold(): Hold {
    return this.#hold
  }

  get isHeld(): boolean {
    return this.#hold !== NO_HOLD
  }

  /** Publishes not answered yet. */
  get unanswered(): number {
    return this.#acks.count
  }

  /** The reader's current frame, a PUBLISH, joins the run or begins the next one. Look at `isHeld` after it. */
  frame(): void {
    const { bytes, start, first, body, end } = this.#frames
    const run = this.#run
    if (this.#gathered === null && this.#router.mustPause) {
      this.#waitForMemory(start)
      return
    }
    const topicFrom = body + 2
    const topicTo = topicFrom + (((bytes[body] ?? 0) << 8) | (bytes[body + 1] ?? 0))
    if (topicTo > end) throw malformed('the topic ends behind the packet') // [MQTT-3.3.2-1]
    const aliased = topicFrom === topicTo && this.#isV5 ? this.#aliased(first, topicTo, end) : null
    const gathered = this.#gathered
    if (
      gathered !== null &&
      (gathered.first !== first ||
        run.count === RUN_CAPACITY ||
        (aliased === null ? !isTopicAt(gathered.bytes, bytes, topicFrom, topicTo) : aliased !== gathered))
    ) {
      this.flush()
      if (this.isHeld) return
    }
    const qos = publishQos(first)
    let at = topicTo
    let packetId = 0
    let isRepeated = false
    // At QoS 0 there is none [MQTT-2.2.1-2]. At QoS 1 nothing remembers one that was answered [MQTT-4.3.2-5].
    if (qos !== 0) {
      packetId = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0)
      at += 2
      if (at > end) throw malformed('a PUBLISH without packet identifier') // [MQTT-2.2.1-3]
      if (packetId === 0) throw malformed('packet identifier 0') // [MQTT-2.2.1-3]
      if (qos === 2 && this.#held.has(packetId)) {
        // It may be that of a message in this very run, which may still be refused.
        this.flush()
        if (this.isHeld) return
        isRepeated = this.#held.has(packetId)
        if (this.#held.isUnsafe(packetId)) {
          this.#waitForAnswers(start)
          return
        }
      }
      if (this.#isFull(isRepeated) && !this.#makeRoom(start, isRepeated)) return
    }
    if (this.#gathered === null) this.#begin(first, aliased ?? this.#memo.find(first, bytes, topicFrom, topicTo))

    const n = run.count
    if (this.#isV5) {
      if (bytes[at] === 0 && at < end) {
        at++
        run.properties[n] = at
        run.expiries[n] = 0
      } else {
        const properties = varintEnd(bytes, at, end)
        const payload = properties + readVarint(bytes, at)
        if (payload > end) throw malformed('the properties end behind the packet')
        run.properties[n] = properties
        this.#properties(n, properties, payload)
        if (scan.has(Property.topicAlias)) this.#takeAlias(n, properties, aliased === null)
        at = payload
      }
    } else {
      run.properties[n] = at
    }
    if (isRepeated) {
      this.#answerRepeated(packetId)
      return
    }
    if (qos === 2) this.#held.add(packetId)
    this.#packetIds[n] = packetId
    run.starts[n] = start
    run.payloads[n] = at
    run.ends[n] = end
    run.count = n + 1
  }

  /**
   * The client has so many publishes open that it may not send another: in all versions those without an answer count, in 5.0, where the client knows the limit,
   * also those of QoS 2 whose PUBCOMP has not left [MQTT-4.9.0-1]. One that is repeated is among these already.
   */
  #isFull(isRepeated: boolean): boolean {
    const { receiveMax } = this.#limits
    const gathered = this.#gathered === null ? 0 : this.#run.count
    if (gathered + this.#acks.count >= receiveMax) return true
    if (!this.#isV5 || isRepeated) return false
    return (
      this.#held.size + this.#completions.count + this.#acks.pubacks + (this.#run.qos === 1 ? gathered : 0) >=
      receiveMax
    )
  }

  /** Hands on what is gathered so that it may be answered; false if the frame at `start` has to wait. */
  #makeRoom(start: number, isRepeated: boolean): boolean {
    this.flush()
    if (this.isHeld) return false
    if (!this.#isFull(isRepeated)) return true
    if (this.#isV5) {
      const why = 'more unacknowledged publishes than the receive maximum'
      throw new LimitReached('receive_max', Reason.receiveMaximumExceeded, why) // [MQTT-3.3.4-7]
    }
    this.#waitForAnswers(start)
    return false
  }

  /** Reads on with the frame at `start` when some have left. */
  #waitForAnswers(start: number): void {
    this.#hold = { kind: 'acks' }
    this.#frames.rewind(start)
  }

  /** The topic that a PUBLISH with an empty one means by its alias; null: it has no alias. `at` is behind the topic. */
  #aliased(first: number, at: number, end: number): RememberedTopic | null {
    const { bytes } = this.#frames
    const lengthAt = at + (publishQos(first) === 0 ? 0 : 2)
    const from = varintEnd(bytes, lengthAt, end)
    const to = from + readVarint(bytes, lengthAt)
    if (to > end) throw malformed('the properties end behind the packet')
    scan.scan(bytes, from, to, PacketType.publish)
    return scan.has(Property.topicAlias) ? this.#memo.findAliased(first, scan.number(Property.topicAlias, 0)) : null
  }

  #begin(first: number, topic: RememberedTopic): void {
    const qos = publishQos(first)
    if (qos === 3) throw malformed('a PUBLISH with QoS 3') // [MQTT-3.3.1-4]
    const isDup = (first & PUBLISH_DUP) !== 0
    const isRetain = (first & PUBLISH_RETAIN) !== 0
    if (qos === 0 && isDup) throw malformed('a PUBLISH of QoS 0 with the DUP flag') // [MQTT-3.3.1-2]
    if (topic.route.isForbidden && (qos === 0 || !this.#isV5)) {
      // Nothing but a PUBACK or PUBREC of 5.0 can say so: 3.1.1 [MQTT-3.3.5-2]. Silence would leave the client to believe that its messages arrive.
      this.#counters.refusePublishes('NOT_AUTHORIZED', 1)
      throw new ProtocolError(Reason.notAuthorized, `a PUBLISH to ${quoteName(topic.topic)}, where this client may not`)
    }
    const run = this.#run
    run.bytes = this.#frames.bytes
    run.count = 0
    run.form = formOf(this.#isV5 ? 5 : 4)
    run.qos = qos
    run.retain = isRetain
    run.dup = isDup
    run.propertiesTag = run.form === FORM_V5 ? PropertiesTag.mqtt5 : PropertiesTag.none
    run.prefix = topic.prefix
    run.expires = false
    this.#gathered = topic
  }

  #properties(n: number, from: number, to: number): void {
    const run = this.#run
    scan.scan(run.bytes, from, to, PacketType.publish)
    if (scan.has(Property.subscriptionIdentifier)) {
      throw new ProtocolError(Reason.protocolError, 'a subscription identifier from a client') // [MQTT-3.3.4-6]
    }
    checkResponseTopic(scan)
    run.expiries[n] = 0
    if (scan.has(Property.messageExpiryInterval)) {
      // Taken is taken, and answered, whether or not it expires before anybody gets it [MQTT-4.3.3-13].
      run.expires = true
      // 0 would mean none; what expires at once expires after a millisecond.
      run.expiries[n] = Math.max(1, scan.number(Property.messageExpiryInterval, 0) * 1000)
    }
  }

  /**
   * Message n has an alias, which means something on this connection only [MQTT-3.3.2-7]: it is taken out of the properties, which begin at `from`, where they
   * lie. The reader never goes back to a frame of 5.0, so nobody misses it.
   */
  #takeAlias(n: number, from: number, isSet: boolean): void {
    const run = this.#run
    if (isSet && this.#gathered !== null) this.#memo.setAlias(scan.number(Property.topicAlias, 0), this.#gathered)
    run.bytes.copyWithin(from + ALIAS_BYTES, from, scan.start(Property.topicAlias))
    run.properties[n] = from + ALIAS_BYTES
    run.form = FORM_V5_ALIASED
  }

  /** Hands the gathered run to the router. Look at `isHeld` after it. */
  flush(): void {
    const topic = this.#gathered
    if (topic === null) return
    this.#gathered = null
    const run = this.#run
    const count = run.count
    if (count === 0) return
    const accepted = this.#router.publishRun(this.#handleFor(run.qos), topic.route, run)
    this.received += accepted
    this.#counters.messagesIn[run.qos] += accepted
    if (run.qos !== 0) {
      // The ack is the line after the receipt. Where headers decide, the messages of a run differ and 0x10, which may be said, is not.
      const isRouted = topic.route.isRouted || topic.route.readsHeaders
      this.#answerAccepted(accepted, isRouted ? ANSWER_SUCCESS : ANSWER_NO_SUBSCRIBERS)
      if (accepted < count) this.#refused(accepted)
      else this.#refusedSinceMs = null
    }
    if (this.#router.mustPause && !this.isHeld) this.#waitForMemory(run.ends[count - 1] ?? 0)
  }

  /** Reads on at `from` when `limits.memory` has room again. */
  #waitForMemory(from: number): void {
    this.#hold = { kind: 'memory', sinceMs: this.#clock.monotonicMs() }
    this.#frames.rewind(from)
  }

  #answerAccepted(accepted: number, answer: number): void {
    const { firstTicket, qos } = this.#run
    const ids = this.#packetIds
    const packet = qos === 1 ? PUBACK : PUBREC // [MQTT-3.3.4-1], [MQTT-4.3.2-4], [MQTT-4.3.3-8], 3.1.1 [MQTT-4.3.3-2]
    if (firstTicket === 0 && this.#acks.count === 0) {
      for (let n = 0; n < accepted; n++) this.#answer(packet, ids[n] ?? 0, answer)
      return
    }
    const isKept = qos === 2 && this.#held.handle !== null
    for (let n = 0; n < accepted; n++) {
      const id = ids[n] ?? 0
      this.#acks.push(packet, id, firstTicket === 0 ? 0 : firstTicket + n, answer)
      if (isKept) this.#held.accepted(id, firstTicket + n)
    }
    this.#answerSafe()
  }

  #handleFor(qos: number): PublisherHandle {
    return qos === 2 ? (this.#held.handle ?? this.#handle) : this.#handle
  }

  /** A PUBLISH that was taken before: PUBREC, in its turn, and nothing more [MQTT-4.3.3-10]. */
  #answerRepeated(packetId: number): void {
    this.#counters.repeatedPublishes++
    this.#acks.push(PUBREC, packetId, 0, ANSWER_SUCCESS)
    this.#answerSafe()
  }

  /**
   * The reader's current frame, a PUBREL: the id is free, which PUBCOMP tells [MQTT-4.3.3-11], [MQTT-4.3.3-12]. Where ids are kept it tells so when the disk knows;
   * else a crash could make the next message under this id look like a repeated one. Look at `isHeld` after it.
   */
  pubrel(packetId: number): void {
    const { handle } = this.#held
    if (handle === null) {
      this.#answer(PUBCOMP, packetId, this.#held.delete(packetId) ? ANSWER_SUCCESS : ANSWER_NOT_HELD)
    } else if (this.#completions.count >= this.#limits.receiveMax) {
      this.#waitForAnswers(this.#frames.start)
    } else {
      const answer = this.#held.delete(packetId) ? ANSWER_SUCCESS : ANSWER_NOT_HELD
      this.#completions.push(PUBCOMP, packetId, this.#router.keepIds(handle), answer)
    }
  }

  /** Message `accepted` of the run was refused, the others after it were not tried. */
  #refused(accepted: number): void {
    const run = this.#run
    const code = run.refusal ?? 'QUEUE_FULL'
    this.#counters.refusePublishes(code, run.count - accepted)
    // Whoever sends one of them again sends a new message [MQTT-4.3.3-9].
    if (run.qos === 2) this.#free(accepted)
    if (this.#isV5) {
      // They go the same way at the same moment; taking a later one would break the order.
      const packet = run.qos === 1 ? PUBACK : PUBREC
      const answer = refusalAnswer(code)
      for (let n = accepted; n < run.count; n++) this.#acks.push(packet, this.#packetIds[n] ?? 0, 0, answer)
      this.#answerSafe()
      return
    }
    if (accepted > 0 || this.#refusedSinceMs === null) this.#refusedSinceMs = this.#clock.monotonicMs()
    this.#hold = { kind: 'refused', sinceMs: this.#refusedSinceMs, code }
    this.#frames.rewind(run.starts[accepted] ?? 0)
  }

  /** The messages of the run from this one on have not been taken in. */
  #free(from: number): void {
    for (let n = from; n < this.#run.count; n++) this.#held.delete(this.#packetIds[n] ?? 0)
  }

  #answerSafe(): void {
    this.#answerSafeOf(this.#acks)
    this.#answerSafeOf(this.#completions)
  }

  /** Answers what has become safe, in order of arrival, up to the first that is not. */
  #answerSafeOf(acks: AckRing): void {
    while (acks.count > 0) {
      const ticket = acks.headTicket
      if (ticket !== 0 && !this.#router.isSafe(ticket)) return
      if (ticket !== 0 && acks.headPacket === PUBREC && this.#held.isUnsafe(acks.headId)) {
        // An upstream has confirmed the message after the commit that would have kept its id.
        acks.headTicket = this.#router.keepIds(this.#handleFor(2))
        return
      }
      this.#answer(acks.headPacket, acks.headId, acks.headAnswer)
      acks.shift()
    }
  }

  /** PUBACK, PUBREC or PUBCOMP. */
  #answer(packet: number, packetId: number, answer: number): void {
    const output = this.#output
    if (answer === ANSWER_SUCCESS || !this.#isV5) {
      output.acknowledge(packet, packetId)
      return
    }
    const refusal = answerRefusal(answer)
    if (refusal === undefined) {
      const reason = answer === ANSWER_NOT_HELD ? Reason.packetIdentifierNotFound : Reason.noMatchingSubscribers
      output.acknowledgeWith(packet, packetId, reason)
      return
    }
    if (this.#wantsReasonStrings) {
      const encoded = encode(
        {
          cmd: packet === PUBACK ? 'puback' : 'pubrec',
          messageId: packetId,
          reasonCode: refusal.reason,
          properties: { reasonString: refusal.text },
        },
        5,
      )
      if (encoded.length <= this.#maximumPacketSize) {
        // [MQTT-3.4.2-2], [MQTT-3.5.2-2]
        output.append(encoded, 0, encoded.length)
        output.control(encoded.length)
        return
      }
    }
    output.acknowledgeWith(packet, packetId, refusal.reason)
  }

  ticketsSafe(): void {
    this.#answerSafe()
    if (this.#hold.kind === 'acks') this.#onRelief()
  }

  /** 3.1.1 has no word for it, and the frame is gone: the connection is closed, and the client resends. */
  ticketRefused(ticket: number): void {
    const acks = this.#acks
    const slot = acks.answer(ticket, refusalAnswer('UPSTREAM_UNCONFIRMED'))
    if (slot >= 0 && acks.packetAt(slot) === PUBREC) this.#held.delete(acks.idAt(slot)) // [MQTT-4.3.3-9]
    if (slot >= 0 && !this.#isV5) this.#onUnanswerable()
    else if (this.#hold.kind === 'acks') this.#onRelief()
  }

  resume(): void {
    if (this.#hold.kind === 'refused' || this.#hold.kind === 'memory') this.#onRelief()
  }

  /** Lets reading go on if the cause is gone or may be; true if it may. */
  release(): boolean {
    const isStillHeld =
      (this.#hold.kind === 'acks' && this.#acks.count >= this.#limits.receiveMax) ||
      (this.#hold.kind === 'acks' && this.#completions.count >= this.#limits.receiveMax) ||
      (this.#hold.kind === 'memory' && this.#router.mustPause)
    if (!isStillHeld) this.#hold = NO_HOLD
    return !isStillHeld
  }

  /** The connection is over: nobody waits for its tickets any more. */
  close(): void {
    if (this.#gathered !== null && this.#run.qos === 2) this.#free(0)
    this.#gathered = null
    this.#held.connection = null
    this.#memo.close()
    this.#router.unregister(this.#handle)
  }
}
