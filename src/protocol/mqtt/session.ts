/*
 * A client's identity on the broker: subscriptions, the queue of QoS 1 messages for it, packet ids in flight.
 *
 * Invariants
 * - A packet id is in flight or in the ring of free ones; freed ids go to its end, so an id rests as long as possible before it is used
 *   again. There are as many ids as messages may be in flight.
 * - All bindings of a session lead to this one destination, so that overlapping subscriptions deliver a message once.
 *
 * It ends with its connection: sessions that outlive it are not built yet, which CONNACK says (session expiry 0, session present 0).
 */
import type { Binding, Destination } from '../../core/binding.ts'
import type { Clock } from '../../core/clock.ts'
import type { Consumer, LiveReceiver } from '../../core/consumer.ts'
import type { Queue } from '../../core/queue.ts'
import type { Router } from '../../core/router.ts'
import type { Run } from '../../core/run.ts'
import type { Topology } from '../../core/topology.ts'
import { MQTT_EXCHANGE, recordAcceptedAt, recordClientId, recordExpiryMs } from '../../model/message.ts'
import type { ConnectPacket, SubscriptionRequest } from './control-packet.ts'
import type { MqttCounters } from './counters.ts'
import type { MqttLimits } from './limits.ts'
import type { Output } from './output.ts'
import { Reason } from './protocol-error.ts'
import { PublishWriter, topicBytes } from './publish-frame.ts'
import { filterRefusal } from './topic.ts'

/** Binding.note: the subscription wants nothing that its own client published. */
const NOTE_NO_LOCAL = 4
/** Highest QoS granted until QoS 2 is built. */
const MAXIMUM_QOS = 1
const NOT_IN_FLIGHT = -1

/** A subscription as others may look at it: the QoS is the one granted. */
export interface Subscription {
  readonly filter: string
  readonly qos: number
}

export class Session implements Destination, Consumer, LiveReceiver {
  readonly clientId: string
  readonly live: LiveReceiver = this
  /** Made with the first subscription that needs it. */
  queue: Queue | null = null
  /** Messages handed to the output. */
  sent = 0
  /** Messages of QoS 0 it did not get. */
  dropped = 0

  readonly #router: Router
  readonly #topology: Topology
  readonly #limits: MqttLimits
  readonly #counters: MqttCounters
  readonly #clock: Clock
  readonly #output: Output
  readonly #writer: PublishWriter
  readonly #maxInFlight: number
  readonly #bindings = new Map<string, Binding>()
  /** Queue position by packet id, NOT_IN_FLIGHT if free. */
  #positions = new Float64Array(0)
  #freeIds = new Uint16Array(0)
  #freeHead = 0
  #freeCount = 0
  #hasSettled = false

  constructor({
    clientId,
    connect,
    router,
    topology,
    limits,
    counters,
    clock,
    output,
  }: {
    clientId: string
    connect: ConnectPacket
    router: Router
    topology: Topology
    limits: MqttLimits
    counters: MqttCounters
    clock: Clock
    output: Output
  }) {
    this.clientId = clientId
    this.#router = router
    this.#topology = topology
    this.#limits = limits
    this.#counters = counters
    this.#clock = clock
    this.#output = output
    this.#writer = new PublishWriter(output, connect.version, connect.maximumPacketSize)
    this.#maxInFlight = Math.min(limits.inflight, connect.receiveMaximum) // [MQTT-3.3.4-9]
  }

  *subscriptions(): Iterable<Subscription> {
    for (const { pattern, maxQos } of this.#bindings.values()) yield { filter: pattern, qos: maxQos }
  }

  get inFlight(): number {
    return this.queue === null ? 0 : this.#maxInFlight - this.#freeCount
  }

  // ---- subscriptions

  /** Binds one filter, replacing an earlier subscription to it [MQTT-3.8.4-3]; returns the reason code for SUBACK: granted QoS or refusal. */
  subscribe({ filter, qos, isNoLocal }: SubscriptionRequest): number {
    const refusal = filterRefusal(filter, this.#limits.topicLevels)
    if (refusal !== null) return refusal
    const replaced = this.#bindings.get(filter)
    if (replaced === undefined && this.#bindings.size >= this.#limits.subscriptionsPerSession)
      return Reason.quotaExceeded
    const granted = qos > MAXIMUM_QOS ? MAXIMUM_QOS : qos
    if (granted > 0 && this.queue === null) this.#makeQueue()
    const binding: Binding = {
      pattern: filter,
      destination: this,
      maxQos: granted,
      note: isNoLocal ? NOTE_NO_LOCAL : 0,
    }
    if (replaced !== undefined) this.#router.unbind(MQTT_EXCHANGE, replaced)
    this.#bindings.set(filter, binding)
    this.#router.bind(MQTT_EXCHANGE, binding)
    return granted
  }

  /** False if there was no such subscription. */
  unsubscribe(filter: string): boolean {
    const binding = this.#bindings.get(filter)
    if (binding === undefined) return false
    this.#bindings.delete(filter)
    this.#router.unbind(MQTT_EXCHANGE, binding)
    return true
  }

  #makeQueue(): void {
    const most = this.#maxInFlight
    this.#positions = new Float64Array(most + 1).fill(NOT_IN_FLIGHT)
    this.#freeIds = new Uint16Array(most)
    for (let n = 0; n < most; n++) this.#freeIds[n] = n + 1
    this.#freeHead = 0
    this.#freeCount = most
    this.queue = this.#topology.memoryQueue(`session:${this.clientId}`, {
      ...this.#limits.sessionQueue,
      ageMs: Number.POSITIVE_INFINITY,
    })
    this.queue.attach(this)
  }

  // ---- QoS 0: straight into the output

  deliverRun(run: Run, topic: string, note: number): void {
    if ((note & NOTE_NO_LOCAL) !== 0 && recordClientId(run.prefix.bytes, 0) === this.clientId) return // [MQTT-3.8.3-3]
    if (this.#output.isFull) {
      this.#counters.droppedBy.output_full += run.count
      this.dropped += run.count
      return
    }
    const tooLarge = this.#writer.writeRun(run, topicBytes(topic))
    if (tooLarge > 0) {
      this.#counters.droppedBy.too_large += tooLarge
      this.dropped += tooLarge
    }
    this.#counters.messagesOut[0] += run.count - tooLarge
    this.sent += run.count - tooLarge
  }

  // ---- QoS 1: from the queue

  get credit(): number {
    return this.#output.isFull ? 0 : this.#freeCount
  }

  deliver(bytes: Buffer, at: number, position: number, note: number, attempts: number): void {
    const { queue } = this
    if (queue === null) throw new TypeError('a delivery without a queue')
    if ((note & NOTE_NO_LOCAL) !== 0 && recordClientId(bytes, at) === this.clientId) {
      queue.settle(position)
      return
    }
    const expiryMs = recordExpiryMs(bytes, at)
    let expiryS = 0
    if (expiryMs > 0) {
      const leftMs = expiryMs - (this.#clock.monotonicMs() - recordAcceptedAt(bytes, at))
      if (leftMs <= 0) {
        queue.reject(position, 'expired') // [MQTT-3.3.2-5]
        return
      }
      expiryS = Math.ceil(leftMs / 1000)
    }
    const packetId = this.#freeIds[this.#freeHead] ?? 0
    if (!this.#writer.writeRecord(bytes, at, packetId, attempts > 0, expiryS)) {
      queue.reject(position, 'too_large') // [MQTT-3.1.2-25]
      return
    }
    this.#freeHead = this.#freeHead + 1 === this.#freeIds.length ? 0 : this.#freeHead + 1
    this.#freeCount--
    this.#positions[packetId] = position
    this.#counters.messagesOut[1]++
    this.sent++
  }

  /** PUBACK. Call `pump` when all packets of a chunk have been looked at. */
  acknowledge(packetId: number): void {
    const position = this.#positions[packetId] ?? NOT_IN_FLIGHT
    if (position === NOT_IN_FLIGHT || this.queue === null) {
      this.#counters.unknownAcks++
      return
    }
    this.#positions[packetId] = NOT_IN_FLIGHT
    const slot = this.#freeHead + this.#freeCount
    this.#freeIds[slot >= this.#freeIds.length ? slot - this.#freeIds.length : slot] = packetId
    this.#freeCount++
    this.queue.settle(position)
    this.#hasSettled = true
  }

  /** Delivers what the credit gained since the last call allows. */
  pump(): void {
    if (!this.#hasSettled) return
    this.#hasSettled = false
    this.queue?.pump()
  }

  /** The output has room again. */
  outputDrained(): void {
    this.queue?.pump()
  }

  /** The session is over: subscriptions and waiting messages go. */
  close(): void {
    for (const binding of this.#bindings.values()) this.#router.unbind(MQTT_EXCHANGE, binding)
    this.#bindings.clear()
    this.queue?.detach(this)
    this.queue?.delete('session_ended')
  }
}
