/*
 * PUBLISH frames as bytes: which topic they carry (remembered per connection, compared as bytes), and how one is written for a
 * receiver: patched from another's frame or from a record, never decoded.
 */
import type { Permissions } from '../../core/acl.ts'
import type { Router } from '../../core/router.ts'
import type { Route } from '../../core/routing-table.ts'
import type { Run } from '../../core/run.ts'
import { originalTopic } from '../../model/death-history.ts'
import type { QoS } from '../../model/message.ts'
import {
  MQTT_EXCHANGE,
  PropertiesTag,
  type RecordPrefix,
  recordBytes,
  recordExchange,
  recordIsTopic,
  recordKeyAt,
  recordKeyBytes,
  recordPayloadAt,
  recordPrefix,
  recordPropertiesAt,
  recordPropertiesTag,
  swapSeparators,
} from '../../model/message.ts'
import type { ConnectPacket, Version } from './control-packet.ts'
import { PacketType } from './frame.ts'
import type { MqttLimits } from './limits.ts'
import { type PacketSink, RESERVE_BYTES } from './output.ts'
import { Property, PropertyScan } from './properties.ts'
import { LimitReached, malformed, ProtocolError, Reason } from './protocol-error.ts'
import { type SessionState, StateShare } from './session-state.ts'
import { decodeText } from './text.ts'
import { checkTopic, isTopicAt, type TopicLimits } from './topic.ts'
import { ALIAS_BYTES, TopicAliases } from './topic-aliases.ts'

/** First byte of a PUBLISH: 0011 dup qos qos retain. */
export const PUBLISH = PacketType.publish << 4
export const PUBLISH_DUP = 8
export const PUBLISH_RETAIN = 1
export const publishQos = (first: number): QoS | 3 => ((first >> 1) & 3) as QoS | 3
/** `flags`: DUP and RETAIN. */
export const publishFirst = (qos: QoS, flags: number): number => PUBLISH | (qos << 1) | flags

/** The wire form of a run's frames (Run.form): 3.1 and 3.1.1 write PUBLISH alike. */
const FORM_V3 = 4
export const FORM_V5 = 5
/** 5.0 with topic aliases of the sender: the properties are without, but no frame can be passed on as it is. */
export const FORM_V5_ALIASED = 6
export const formOf = (version: Version): number => (version === 5 ? FORM_V5 : FORM_V3)

const NOTHING: Buffer = Buffer.alloc(0)

/** How many topics a connection remembers. */
const REMEMBERED_TOPICS = 4

/** What is known of PUBLISH frames with one first byte and one topic. */
export interface RememberedTopic {
  readonly first: number
  readonly bytes: Buffer
  readonly topic: string
  readonly prefix: RecordPrefix
  route: Route
}

/** Who publishes, for the stored form. */
export interface Origin {
  readonly version: Version
  readonly clientId: string
  readonly user: string
}

/**
 * The last few topics of a connection, and those with an alias, with their routes. Only a topic that isn't among them is decoded and checked: UTF-8,
 * U+0000, wildcards, levels are paid once per topic and not once per message.
 */
export class TopicMemo {
  readonly #router: Router
  readonly #origin: Origin
  readonly #permissions: Permissions
  readonly #limits: TopicLimits & Pick<MqttLimits, 'topicAliases'>
  /** Of topics with an alias. */
  readonly #state: StateShare
  readonly #remembered: RememberedTopic[] = []
  #oldest = 0
  /** By topic alias [MQTT-3.3.2-7]. */
  readonly #aliases = new Map<number, RememberedTopic>()

  constructor({
    router,
    origin,
    permissions,
    limits,
    state,
  }: {
    router: Router
    origin: Origin
    permissions: Permissions
    limits: TopicLimits & Pick<MqttLimits, 'topicAliases'>
    state: SessionState
  }) {
    this.#router = router
    this.#origin = origin
    this.#permissions = permissions
    this.#limits = limits
    this.#state = new StateShare(state)
  }

  /** The topic at bytes[from, to) with a route that is valid now; throws ProtocolError if it is no topic. */
  find(first: number, bytes: Buffer, from: number, to: number): RememberedTopic {
    for (const known of this.#remembered) {
      if (known.first !== first || !isTopicAt(known.bytes, bytes, from, to)) continue
      return this.#withRoute(known)
    }
    const found = this.#decode(first, bytes, from, to)
    this.#remembered[this.#oldest] = found
    this.#oldest = (this.#oldest + 1) % REMEMBERED_TOPICS
    return found
  }

  /** The topic an alias stands for, with a route that is valid now; throws ProtocolError if it stands for none. */
  findAliased(first: number, alias: number): RememberedTopic {
    this.#checkAlias(alias)
    const known = this.#aliases.get(alias)
    if (known === undefined) throw new ProtocolError(Reason.protocolError, `topic alias ${alias} stands for no topic`)
    if (known.first === first) return this.#withRoute(known)
    const found = this.find(first, known.bytes, 0, known.bytes.length)
    this.setAlias(alias, found)
    return found
  }

  /** From now on the alias stands for this topic, whatever it stood for before; throws ProtocolError if it may not be used. */
  setAlias(alias: number, topic: RememberedTopic): void {
    this.#checkAlias(alias)
    const before = this.#aliases.get(alias)
    if (before === topic) return
    if (before !== undefined) this.#state.change(-rememberedBytes(before))
    if (!this.#state.take(rememberedBytes(topic))) {
      const why = 'limits.session_state leaves no room for another topic alias'
      throw new LimitReached('session_state', Reason.quotaExceeded, why)
    }
    this.#aliases.set(alias, topic)
  }

  /** The connection is over: its aliases end with it [MQTT-3.3.2-7]. */
  close(): void {
    this.#state.close()
    this.#aliases.clear()
  }

  #checkAlias(alias: number): void {
    const { topicAliases } = this.#limits
    if (alias > 0 && alias <= topicAliases) return // [MQTT-3.3.2-12]
    // [MQTT-3.3.2-8], [MQTT-3.3.2-9], [MQTT-3.2.2-17], [MQTT-3.2.2-18]
    throw new LimitReached(
      'topic_aliases',
      Reason.topicAliasInvalid,
      `topic alias ${alias} is not one of 1 to ${topicAliases}`,
    )
  }

  #withRoute(known: RememberedTopic): RememberedTopic {
    if (known.route.version !== this.#router.version) known.route = this.#route(known.topic)
    return known
  }

  /** With it is kept whether this client may publish there, so that no message of a topic asks again. */
  #route(topic: string): Route {
    const route = this.#router.route(MQTT_EXCHANGE, topic)
    return this.#permissions.mayPublish(topic) ? route : { ...route, isForbidden: true }
  }

  #decode(first: number, bytes: Buffer, from: number, to: number): RememberedTopic {
    const topic = decodeText(bytes, from, to)
    if (topic === null) throw malformed('the topic is not valid UTF-8')
    const { version, clientId, user } = this.#origin
    if (topic === '' && version === 5) {
      throw new ProtocolError(Reason.protocolError, 'an empty topic without a topic alias')
    }
    checkTopic(topic, this.#limits)
    return {
      first,
      bytes: Buffer.from(bytes.subarray(from, to)),
      topic,
      prefix: recordPrefix({
        exchange: MQTT_EXCHANGE,
        key: topic,
        qos: publishQos(first) as QoS,
        retain: (first & PUBLISH_RETAIN) !== 0,
        dup: (first & PUBLISH_DUP) !== 0,
        priority: 0,
        clientId,
        user,
        propertiesTag: version === 5 ? PropertiesTag.mqtt5 : PropertiesTag.none,
      }),
      route: this.#route(topic),
    }
  }
}

/** What a remembered topic takes: its bytes, its letters, its record prefix. */
const rememberedBytes = ({ bytes, prefix }: RememberedTopic): number => 2 * bytes.length + prefix.bytes.length

/**
 * Writes PUBLISH packets to one client in its version. Properties go as the bytes that came: payload format indicator [MQTT-3.3.2-4], response topic
 * [MQTT-3.3.2-15], correlation data [MQTT-3.3.2-16], content type [MQTT-3.3.2-20], user properties [MQTT-3.3.2-17] in their order [MQTT-3.3.2-18].
 */
export class PublishWriter {
  readonly #output: PacketSink
  readonly #form: number
  /** Largest packet the client takes [MQTT-3.1.2-24]. */
  readonly #maximumPacketSize: number
  /** Null: the client takes none [MQTT-3.1.2-27]. */
  readonly #aliases: TopicAliases | null

  /** For one connection of a client. `mostAliases` is `limits.topic_aliases`; 0 where packets may be overtaken, as an alias must be set before it is used. */
  constructor(
    output: PacketSink,
    { version, maximumPacketSize, topicAliasMaximum }: ConnectPacket,
    mostAliases: number,
  ) {
    this.#output = output
    this.#form = formOf(version)
    this.#maximumPacketSize = maximumPacketSize
    const aliases = Math.min(topicAliasMaximum, mostAliases) // [MQTT-3.1.2-26], [MQTT-3.3.2-11]
    this.#aliases = aliases > 0 ? new TopicAliases(aliases) : null
  }

  /**
   * A run at QoS 0 and with DUP 0 [MQTT-4.3.1-1], with `identifiers` as further property bytes in 5.0. Frames that already are what the client gets (same form,
   * no packet id, same retain flag, nothing to add, no topic alias) go as one slice, others with a new header. Returns how many were too large for the client.
   */
  writeRun(run: Run, topic: Buffer, isRetain: boolean, identifiers: Buffer): number {
    const first = isRetain ? PUBLISH | PUBLISH_RETAIN : PUBLISH
    const added = this.#form === FORM_V5 ? identifiers : NOTHING
    const isSame =
      run.form === this.#form &&
      run.qos === 0 &&
      run.retain === isRetain &&
      added.length === 0 &&
      this.#aliases === null
    if (isSame && this.#maximumPacketSize === Number.POSITIVE_INFINITY) {
      this.#output.append(run.bytes, run.starts[0] ?? 0, run.ends[run.count - 1] ?? 0)
      return 0
    }
    let tooLarge = 0
    for (let i = 0; i < run.count; i++) {
      const end = run.ends[i] ?? 0
      const start = run.starts[i] ?? 0
      if (isSame && end - start <= this.#maximumPacketSize) {
        this.#output.append(run.bytes, start, end)
        continue
      }
      const payload = run.payloads[i] ?? 0
      const isOwnProperties = this.#form === FORM_V5 && run.propertiesTag === PropertiesTag.mqtt5
      const properties = isOwnProperties ? (run.properties[i] ?? 0) : payload
      const propertiesBytes = added.length + payload - properties
      if (!this.#header(first, topic, 0, topic.length, 0, propertiesBytes, end - payload)) {
        tooLarge++
        continue
      }
      if (added.length > 0) this.#output.append(added, 0, added.length)
      this.#output.append(run.bytes, properties, end)
    }
    return tooLarge
  }

  /**
   * A record, with `first` as its first byte; the properties of its publisher as they are, but for the expiry [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16],
   * [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]; `packetId` is 0 at QoS 0. `expiryS` is what is left of its message expiry in seconds, 0: it has none.
   * `identifiers` are further property bytes in 5.0. False, and nothing written, if it is too large for the client. Positional because it is called for every
   * message.
   */
  writeRecord(
    bytes: Buffer,
    at: number,
    first: number,
    packetId: number,
    expiryS: number,
    identifiers: Buffer,
  ): boolean {
    const payload = recordPayloadAt(bytes, at)
    const end = at + recordBytes(bytes, at)
    const isOwnProperties = this.#form === FORM_V5 && recordPropertiesTag(bytes, at) === PropertiesTag.mqtt5
    const properties = isOwnProperties ? recordPropertiesAt(bytes, at) : payload
    const added = this.#form === FORM_V5 ? identifiers : NOTHING
    const propertiesBytes = added.length + payload - properties
    if (!this.#recordHeader(first, bytes, at, packetId, propertiesBytes, end - payload)) return false
    if (added.length > 0) this.#output.append(added, 0, added.length)
    if (expiryS > 0 && isOwnProperties) {
      this.#agedProperties(bytes, properties, payload, expiryS)
      this.#output.append(bytes, payload, end)
    } else {
      this.#output.append(bytes, properties, end)
    }
    return true
  }

  #recordHeader(
    first: number,
    bytes: Buffer,
    at: number,
    packetId: number,
    propertiesBytes: number,
    payloadBytes: number,
  ): boolean {
    if (recordIsTopic(bytes, at)) {
      const topic = recordKeyAt(bytes, at)
      const topicEnd = topic + recordKeyBytes(bytes, at)
      return this.#header(first, bytes, topic, topicEnd, packetId, propertiesBytes, payloadBytes)
    }
    const topic = Buffer.from(sendableTopic(bytes, at))
    return this.#header(first, topic, 0, topic.length, packetId, propertiesBytes, payloadBytes)
  }

  /**
   * Everything before the properties, the topic as an alias where the client takes those; packet id 0: none (QoS 0). False, and nothing written, if the packet
   * would be too large for the client.
   */
  #header(
    first: number,
    topic: Buffer,
    topicFrom: number,
    topicTo: number,
    packetId: number,
    propertiesBytes: number,
    payloadBytes: number,
  ): boolean {
    const aliases = this.#aliases
    if (aliases !== null) {
      const alias = aliases.find(topic, topicFrom, topicTo)
      if (alias !== 0) {
        return this.#headerWith(alias, first, topic, topicFrom, topicFrom, packetId, propertiesBytes, payloadBytes)
      }
      const offered = aliases.offer()
      if (
        offered !== 0 &&
        this.#headerWith(offered, first, topic, topicFrom, topicTo, packetId, propertiesBytes, payloadBytes)
      ) {
        aliases.take()
        return true
      }
    }
    return this.#headerWith(0, first, topic, topicFrom, topicTo, packetId, propertiesBytes, payloadBytes)
  }

  /** The same with this topic alias; 0: without one. */
  #headerWith(
    alias: number,
    first: number,
    topic: Buffer,
    topicFrom: number,
    topicTo: number,
    packetId: number,
    otherPropertiesBytes: number,
    payloadBytes: number,
  ): boolean {
    const isV5 = this.#form === FORM_V5
    const topicBytes = topicTo - topicFrom
    const propertiesBytes = alias === 0 ? otherPropertiesBytes : ALIAS_BYTES + otherPropertiesBytes
    const remaining =
      2 +
      topicBytes +
      (packetId === 0 ? 0 : 2) +
      (isV5 ? varintBytes(propertiesBytes) + propertiesBytes : 0) +
      payloadBytes
    if (1 + varintBytes(remaining) + remaining > this.#maximumPacketSize) return false
    const output = this.#output
    output.reserve(RESERVE_BYTES)
    let { block, used } = output
    let at = used
    block[at++] = first
    at = writeVarint(block, at, remaining)
    block[at++] = topicBytes >> 8
    block[at++] = topicBytes
    output.commit(at - used)
    output.append(topic, topicFrom, topicTo)
    if (packetId === 0 && !isV5) return true
    output.reserve(RESERVE_BYTES)
    block = output.block
    used = output.used
    at = used
    if (packetId !== 0) {
      block[at++] = packetId >> 8
      block[at++] = packetId
    }
    if (isV5) at = writeVarint(block, at, propertiesBytes) // [MQTT-2.2.2-1]
    if (alias !== 0) {
      block[at++] = Property.topicAlias
      block[at++] = alias >> 8
      block[at++] = alias
    }
    output.commit(at - used)
    return true
  }

  /** The properties with the message expiry that is left [MQTT-3.3.2-6]. */
  #agedProperties(bytes: Buffer, from: number, to: number, seconds: number): void {
    expiryScan.scan(bytes, from, to, PacketType.publish)
    const at = expiryScan.start(Property.messageExpiryInterval)
    const output = this.#output
    output.append(bytes, from, at)
    output.reserve(RESERVE_BYTES)
    const { block, used } = output
    block[used] = Property.messageExpiryInterval
    block[used + 1] = seconds >>> 24
    block[used + 2] = seconds >>> 16
    block[used + 3] = seconds >>> 8
    block[used + 4] = seconds
    output.commit(5)
    output.append(bytes, expiryScan.end(Property.messageExpiryInterval), to)
  }
}

const expiryScan = new PropertyScan()

/** Of a message that was not published to a topic. A client that is sent an empty topic, or one with wildcards, has to disconnect [MQTT-3.3.2-2]. */
function sendableTopic(bytes: Buffer, at: number): string {
  const topic = originalTopic(bytes, at) || swapSeparators(recordExchange(bytes, at))
  return topic.replace(/[+#]/g, wildcard => (wildcard === '+' ? '%2B' : '%23'))
}

/** Bytes a number takes as variable byte integer. */
export function varintBytes(value: number): number {
  return value < 128 ? 1 : value < 16_384 ? 2 : value < 2_097_152 ? 3 : 4
}

/** Writes a variable byte integer; returns the offset behind it. */
export function writeVarint(bytes: Buffer, at: number, value: number): number {
  let rest = value
  let to = at
  while (rest > 0x7f) {
    bytes[to++] = (rest & 0x7f) | 0x80
    rest >>>= 7
  }
  bytes[to++] = rest
  return to
}

let lastKey = ''
let lastTopic: Buffer = Buffer.alloc(0)

/** The topic as bytes; the same one is asked for once per receiver of a run. */
export function topicBytes(key: string): Buffer {
  if (key !== lastKey) {
    lastKey = key
    lastTopic = Buffer.from(key)
  }
  return lastTopic
}
