/*
 * A client's identity on the broker: what it has subscribed to, what waits for it, and what it has not answered.
 *
 * Topics: all bindings of a session lead to this one destination, so that overlapping subscriptions deliver a message once. QoS 0 goes straight into
 * the output, QoS 1 and 2 through the session's queue.
 *
 *     away ──attach (CONNACK)──▶ attached to a connection ──detach──▶ away │ ended
 *
 * Its bindings stay while it is away, so no route changes with a connection that comes or goes: QoS 0 is dropped and counted, the queue fills.
 */
import type { Permissions } from '../../core/acl.ts'
import type { Binding, Destination } from '../../core/binding.ts'
import type { LiveReceiver } from '../../core/consumer.ts'
import type { Identities } from '../../core/identity.ts'
import type { Queue } from '../../core/queue.ts'
import type { Router } from '../../core/router.ts'
import type { Run } from '../../core/run.ts'
import { NO_PACKET_IDS, type PacketIdOwner, type PacketIdRecord, type SessionIds } from '../../core/session-ids.ts'
import {
  type KeptSession,
  type KeptSubscription,
  sessionQueueLimits,
  sessionQueueName,
  type Will,
} from '../../core/sessions.ts'
import type { Streams } from '../../core/streams.ts'
import type { Topology } from '../../core/topology.ts'
import { BrokerError } from '../../model/error.ts'
import { MQTT_EXCHANGE, type QoS, recordClientId } from '../../model/message.ts'
import type { Attachment } from './attachment.ts'
import type { ClientLog } from './connection.ts'
import type { SubscriptionRequest } from './control-packet.ts'
import type { MqttCounters } from './counters.ts'
import { Deliveries } from './deliveries.ts'
import type { MqttLimits } from './limits.ts'
import { NamedSubscription, type Supply } from './named-subscription.ts'
import { Reason } from './protocol-error.ts'
import { topicBytes } from './publish-frame.ts'
import { QueueSupply } from './queue-supply.ts'
import { ReceivedIds } from './received-ids.ts'
import { consumerRefusal, refusal, type SubscriptionRefusal } from './reply-code.ts'
import { type FeedTurns, RetainedFeed, type RetainedMessages } from './retained-feed.ts'
import { SessionQueue } from './session-queue.ts'
import { type SessionState, StateShare, subscriptionBytes } from './session-state.ts'
import type { Membership, SharedMember } from './shared-group.ts'
import type { SharedGroups } from './shared-groups.ts'
import { SharedSupply } from './shared-supply.ts'
import { StreamSupply } from './stream-supply.ts'
import { identifierProperty, SubscriptionIdentifiers } from './subscription-identifiers.ts'
import { isNoLocal, isRetainAsPublished, subscriptionNote } from './subscription-note.ts'
import { readFilter, type SharedFilter, type Wanted } from './topic.ts'
import { willBytes } from './will.ts'

/** Stands for the session's own queue where there is none. */
const NO_SOURCE = -1

/** Retain Handling: retained messages at the subscription [MQTT-3.3.1-9], or none [MQTT-3.3.1-11]. */
const RETAINED_ALWAYS = 0
const RETAINED_NEVER = 2

/** No record takes more beside the packet it came in: names, numbers, an identifier. */
const RECORD_HEAD_BYTES = 4096

/** Of a session from before the start: the limits may have been others. */
const NO_TOPIC_LIMITS = { topicBytes: Number.POSITIVE_INFINITY, topicLevels: Number.POSITIVE_INFINITY }

/** A subscription to something kept under a name. */
type Named = Extract<Wanted, { readonly kind: 'queue' | 'stream' }>

/** A subscription as others may look at it: the QoS is the one granted. */
export type Subscription = Omit<SubscriptionRequest, 'retainHandling'>

/** What all sessions of a server share. */
export interface SessionHost {
  readonly router: Router
  readonly topology: Topology
  readonly streams: Streams
  readonly retained: RetainedMessages
  readonly feedTurns: FeedTurns
  readonly groups: SharedGroups
  readonly limits: MqttLimits
  readonly state: SessionState
  readonly counters: MqttCounters
  readonly identities: Identities
  readonly clientLog: ClientLog
}

export interface SessionIdentity {
  readonly clientId: string
  readonly expiryMs: number
  readonly kept: KeptSession | null
  readonly permissions: Permissions
}

export class Session implements Destination, LiveReceiver, SharedMember, PacketIdOwner {
  readonly clientId: string
  /** Of the client that is connected, or was last. */
  permissions: Permissions
  /** Takes QoS 0; null: that goes through its queue. */
  readonly live: LiveReceiver | null
  /** How long it outlives each of its connections, milliseconds; 0: it ends with it. DISCONNECT may change it. */
  expiryMs: number
  readonly receivedIds: ReceivedIds
  /** What keeps its packet ids of QoS 2 on disk; null: nothing does. */
  readonly #keptIds: SessionIds | null
  /** Made with the first subscription that needs it. */
  queue: Queue | null = null
  /** Messages of QoS 0 it did not get. */
  dropped = 0
  /** Resolves when the disk knows that it is over; null: it is not, or the disk never knew of it. */
  ended: Promise<void> | null = null

  readonly #host: SessionHost
  /** Its part on the disk; null: it ends with its connection. */
  readonly kept: KeptSession | null
  /** What the disk does not know yet, and the client has not been told. */
  #unkept: Promise<void> | null = null
  /** null: away. */
  #attachment: Attachment | null = null
  /** By filter, with the QoS granted. */
  readonly #subscriptions = new Map<string, Subscription>()
  readonly #bindings = new Map<string, Binding>()
  readonly #identifiers: SubscriptionIdentifiers
  /** By filter; those that have ended stay until the last of their messages is answered. */
  readonly #named = new Map<string, NamedSubscription>()
  #source: SessionQueue | null = null
  /** Made with the first source. */
  #deliveries: Deliveries | null = null
  /** Made with the first subscription that is sent retained messages. */
  #feed: RetainedFeed | null = null
  #sentLive = 0
  #will: Will | null = null
  readonly #state: StateShare

  constructor({ clientId, expiryMs, kept, permissions }: SessionIdentity, host: SessionHost) {
    this.clientId = clientId
    this.#identifiers = new SubscriptionIdentifiers(clientId)
    this.expiryMs = expiryMs
    this.kept = kept
    this.permissions = permissions
    this.live = kept !== null && host.limits.sessionQueueQos0 ? null : this
    this.#host = host
    this.#state = new StateShare(host.state)
    this.#keptIds = kept?.keepIds(this) ?? null
    this.receivedIds = new ReceivedIds(host.router, this.#keptIds)
  }

  // ---- permissions

  /**
   * Ends the subscriptions that its client may not have (any more), and keeps from it what they have brought. Returns their filters. The client of one that is
   * connected is not told: nothing in the protocol says it without ending the connection, which it still may have.
   */
  revoke(): readonly string[] {
    const revoked: string[] = []
    for (const filter of this.#subscriptions.keys()) {
      const wanted = readFilter(filter, NO_TOPIC_LIMITS)
      if (wanted.kind !== 'refused' && !this.#isPermitted(filter, wanted)) revoked.push(filter)
    }
    for (const filter of revoked) this.unsubscribe(filter)
    this.#source?.judge(this.permissions)
    return revoked
  }

  #isPermitted(filter: string, wanted: Wanted): boolean {
    switch (wanted.kind) {
      case 'topics':
        return this.permissions.maySubscribe(filter)
      case 'share':
        return this.permissions.maySubscribe(wanted.filter)
      default:
        return this.permissions.mayConsume(wanted.name)
    }
  }

  /** What is published when its connection has ended without a normal DISCONNECT; null: nothing, or not any more. */
  get will(): Will | null {
    return this.#will
  }

  set will(will: Will | null) {
    this.#state.change(willBytes(will) - willBytes(this.#will))
    this.#will = will
  }

  // ---- connections

  /** A connection has come: what the last one left unanswered is sent again with the next `pump`, then what has been waiting. */
  attach(attachment: Attachment): void {
    this.#attachment = attachment
    this.#deliveries?.attach(attachment)
    this.#source?.attach()
    this.#feed?.attach()
    for (const [filter, subscription] of this.#named) {
      try {
        subscription.attach()
      } catch (error) {
        if (!(error instanceof BrokerError)) throw error
        this.#host.clientLog.write(
          'warn',
          { client: this.clientId, filter, code: error.code },
          'a subscription of a resumed session has nothing to consume from; it is tried again with the next connection',
        )
      }
    }
  }

  /** The connection is over, the session is not. */
  detach(): void {
    this.#attachment = null
    this.#deliveries?.detach(this.#source?.number ?? NO_SOURCE)
    for (const subscription of this.#named.values()) subscription.detach()
    this.#source?.detach()
  }

  // ---- packet ids on disk

  get keepsIds(): boolean {
    return this.#keptIds !== null
  }

  idsToKeep(): PacketIdRecord {
    const { sent, released } = this.#deliveries?.idsToKeep(this.#source?.number ?? NO_SOURCE) ?? NO_PACKET_IDS
    return { held: this.receivedIds.toKeep(), sent, released }
  }

  idsKept(): void {
    this.receivedIds.kept()
    this.#deliveries?.idsKept()
  }

  /** The session is over: subscriptions, waiting messages and cursors go [MQTT-3.1.2-4]. Resolves when the disk knows that; null: it knew nothing of it. */
  end(): Promise<void> | null {
    const { router } = this.#host
    const filters = this.kept === null ? [] : [...this.#subscriptions.keys()]
    for (const binding of this.#bindings.values()) router.unbind(MQTT_EXCHANGE, binding)
    this.#bindings.clear()
    for (const subscription of this.#named.values()) subscription.close()
    this.receivedIds.close()
    this.#state.close()
    this.#keptIds?.end()
    this.#attachment = null
    if (this.kept === null) this.#source?.close()
    else this.ended = this.kept.end(filters)
    return this.ended
  }

  // ---- the disk

  /** A session of before this start, away: what it had subscribed to, and the packet ids it had in use. */
  restore(subscriptions: readonly KeptSubscription[], packetIds: PacketIdRecord): void {
    if (this.kept?.queue != null) this.#takeQueue(this.kept.queue)
    this.receivedIds.restore(packetIds.held)
    if (packetIds !== NO_PACKET_IDS) this.#takeDeliveries().restore(packetIds, this.#source?.number ?? NO_SOURCE)
    for (const subscription of subscriptions) {
      const retainHandling = subscription.isOwedRetained ? RETAINED_ALWAYS : RETAINED_NEVER
      const refused = this.#restore({ ...subscription, retainHandling })
      if (this.kept !== null) this.#owesRetained(this.kept, subscription)
      if (refused !== null) {
        const { clientId } = this
        this.#host.clientLog.write(
          'warn',
          { client: clientId, filter: subscription.filter, why: refused.text },
          'a subscription of a session from before the start could not be made again',
        )
      }
    }
  }

  #restore(request: SubscriptionRequest): SubscriptionRefusal | null {
    // The limits of the configuration may be lower now: they hold for new subscriptions.
    const wanted = readFilter(request.filter, NO_TOPIC_LIMITS)
    if (wanted.kind === 'refused') return wanted
    const answer = this.#subscribe(wanted, request)
    if (typeof answer !== 'number') return answer
    this.#state.change(subscriptionBytes(request.filter))
    return null
  }

  /** What must be on disk before the client is told of its last requests; null: all of that is. */
  takeUnkept(): Promise<void> | null {
    const unkept = this.#unkept
    this.#unkept = null
    return unkept
  }

  // ---- what others may look at

  /** As they were asked for, but with the QoS granted. */
  get subscriptions(): readonly Subscription[] {
    return [...this.#subscriptions.values()]
  }

  get subscriptionCount(): number {
    return this.#subscriptions.size
  }

  get isAway(): boolean {
    return this.#attachment === null
  }

  get inFlight(): number {
    return this.#deliveries?.inFlight ?? 0
  }

  /** Memory its queue holds, bytes. */
  get heldBytes(): number {
    return this.queue?.heldBytes ?? 0
  }

  /** Messages handed to the output. */
  get sent(): number {
    return this.#sentLive + (this.#deliveries?.sent ?? 0)
  }

  // ---- subscriptions

  /** Subscribes to one filter, replacing an earlier subscription to it [MQTT-3.8.4-3]; returns the granted QoS, or why it is refused. */
  subscribe(request: SubscriptionRequest): QoS | SubscriptionRefusal {
    const answer = this.#admit(request)
    if (typeof answer !== 'number' && answer.limit !== null) this.#host.counters.reached(answer.limit)
    return answer
  }

  #admit(request: SubscriptionRequest): QoS | SubscriptionRefusal {
    const { limits } = this.#host
    const { filter } = request
    const wanted = readFilter(filter, limits)
    if (wanted.kind === 'refused') return wanted
    if (!this.#isPermitted(filter, wanted))
      return refusal(Reason.notAuthorized, 'this client may not subscribe to that')
    const isNew = !this.#subscriptions.has(filter)
    if (isNew && this.#subscriptions.size >= limits.subscriptionsPerSession) {
      const why = `limits.subscriptions_per_session is reached: ${limits.subscriptionsPerSession}`
      return refusal(Reason.quotaExceeded, why, 'subscriptions_per_session')
    }
    if (isNew && !this.#state.take(subscriptionBytes(filter))) {
      const why = 'limits.session_state is reached: all sessions together hold as much'
      return refusal(Reason.quotaExceeded, why, 'session_state')
    }
    const answer = this.#subscribe(wanted, request)
    if (isNew && typeof answer !== 'number') this.#state.change(-subscriptionBytes(filter))
    if (typeof answer === 'number' && this.kept !== null) {
      const { qos, isNoLocal, isRetainAsPublished, identifier } = request
      const subscription = { filter, qos, isNoLocal, isRetainAsPublished, identifier }
      const isOwedRetained = this.#owesRetained(this.kept, subscription)
      this.#unkept = this.kept.subscribed({ ...subscription, isOwedRetained })
    }
    return answer
  }

  /** Whether this subscription has not been sent all retained messages yet; when it has, the disk hears of it. A restart sends them anew. */
  #owesRetained(kept: KeptSession, subscription: Omit<KeptSubscription, 'isOwedRetained'>): boolean {
    const onFed = () => void kept.subscribed({ ...subscription, isOwedRetained: false })
    return this.#feed?.tell(subscription.filter, onFed) ?? false
  }

  #subscribe(wanted: Wanted, request: SubscriptionRequest): QoS | SubscriptionRefusal {
    const answer = this.#make(wanted, request)
    if (typeof answer === 'number') this.#subscriptions.set(request.filter, request)
    return answer
  }

  #make(wanted: Wanted, request: SubscriptionRequest): QoS | SubscriptionRefusal {
    switch (wanted.kind) {
      case 'topics':
        return this.#bind(request)
      case 'share':
        return this.#share(wanted, request)
      default:
        return this.#consume(wanted, request)
    }
  }

  #bind(request: SubscriptionRequest): QoS {
    const { filter, qos: granted } = request
    if ((granted > 0 || this.live === null) && this.queue === null) this.#makeQueue()
    const binding: Binding = {
      pattern: filter,
      destination: this,
      maxQos: granted,
      note: subscriptionNote(request, granted),
    }
    const replaced = this.#bindings.get(filter)
    if (replaced !== undefined) this.#host.router.unbind(MQTT_EXCHANGE, replaced)
    this.#bindings.set(filter, binding)
    this.#identifiers.set(filter, request.identifier, request.isNoLocal)
    this.#host.router.bind(MQTT_EXCHANGE, binding)
    this.#feedRetained(request, binding.note, replaced === undefined)
    return granted
  }

  /** 3.1.1 knows no Retain Handling: every subscription is sent them, 3.1.1 [MQTT-3.3.1-6], 3.1.1 [MQTT-3.8.4-3]. */
  #feedRetained({ filter, retainHandling }: SubscriptionRequest, note: number, isNew: boolean): void {
    const isWanted = retainHandling === 0 || (retainHandling === 1 && isNew) // [MQTT-3.3.1-9], [MQTT-3.3.1-10], [MQTT-3.3.1-11], [MQTT-3.8.4-4]
    const messages = isWanted ? this.#host.retained.walk(filter) : null
    if (messages === null) {
      this.#feed?.change(filter, note)
      return
    }
    this.#feed ??= new RetainedFeed({
      turns: this.#host.feedTurns,
      clientId: this.clientId,
      queue: () => this.queue,
      deliveries: this.#takeDeliveries(),
      identifiers: this.#identifiers,
      onTooLarge: () => {
        this.#host.counters.droppedBy.too_large++
        this.dropped++
      },
    })
    this.#feed.begin(filter, messages, note)
  }

  #consume(wanted: Named, request: SubscriptionRequest): QoS | SubscriptionRefusal {
    const granted = request.qos
    if (request.isNoLocal) {
      // Taking a message from a queue and keeping it from this client would lose it for the others.
      return refusal(Reason.implementationSpecific, 'No Local is for topics, not for $queue and $stream')
    }
    try {
      if (this.#resume(request, granted)) return granted
      const supply = this.#supplyOf(wanted)
      if ('reason' in supply) return supply
      this.#add(supply, request, granted)
      return granted
    } catch (error) {
      if (error instanceof BrokerError) return consumerRefusal(error)
      throw error
    }
  }

  #share(wanted: SharedFilter, request: SubscriptionRequest): QoS | SubscriptionRefusal {
    const granted = request.qos
    try {
      // Made now: a source that is added gets nothing before the next `pump`.
      if (granted === 2 && this.queue === null) this.#makeQueue()
      const note = subscriptionNote(request, granted)
      const identifiers = identifierProperty(request.identifier)
      const membership = { member: this, qos: granted, note, identifiers }
      const group = this.#host.groups.join(wanted, membership)
      if (!this.#resume(request, granted)) this.#add(new SharedSupply(group, this), request, granted)
      return granted
    } catch (error) {
      if (error instanceof BrokerError) return consumerRefusal(error)
      throw error
    }
  }

  /** False: there is no such subscription to something kept under a name. @throws BrokerError as attach. */
  #resume(request: SubscriptionRequest, granted: QoS): boolean {
    const known = this.#named.get(request.filter)
    known?.resume(granted, subscriptionNote(request, granted), identifierProperty(request.identifier))
    return known !== undefined
  }

  /** @throws BrokerError if the supply is not there, or takes no further consumer. */
  #add(supply: Supply, request: SubscriptionRequest, granted: QoS): void {
    const { filter } = request
    const note = subscriptionNote(request, granted)
    const identifiers = identifierProperty(request.identifier)
    const deliveries = this.#takeDeliveries()
    const onEnd = () => this.#named.delete(filter)
    const subscription = new NamedSubscription({ supply, deliveries, qos: granted, note, identifiers, onEnd })
    if (this.#attachment !== null) subscription.attach()
    this.#named.set(filter, subscription)
  }

  #supplyOf(wanted: Named): Supply | SubscriptionRefusal {
    const { topology, streams } = this.#host
    if (wanted.kind === 'queue') return new QueueSupply(topology, wanted.name)
    // A session has one cursor in a stream, and so one subscription to it.
    const { name, from } = wanted
    for (const filter of this.#named.keys()) {
      if (filter.slice(0, filter.lastIndexOf('/')) !== `$stream/${name}`) continue
      return refusal(Reason.implementationSpecific, `the session reads ${filter} already; unsubscribe from that first`)
    }
    return new StreamSupply(streams, { name, from, cursor: this.expiryMs > 0 ? this.clientId : null })
  }

  /** Ends the subscription with just this filter [MQTT-3.10.4-1]; what it has sent may still be answered [MQTT-3.10.4-3]. False if there was none. */
  unsubscribe(filter: string): boolean {
    if (!this.#subscriptions.delete(filter)) return false
    this.#state.change(-subscriptionBytes(filter))
    if (this.kept !== null) this.#unkept = this.kept.unsubscribed(filter)
    const binding = this.#bindings.get(filter)
    if (binding === undefined) {
      this.#host.groups.leave(filter, this)
      this.#named.get(filter)?.unsubscribe()
      return true
    }
    this.#bindings.delete(filter)
    this.#identifiers.delete(filter)
    this.#feed?.end(filter)
    this.#host.router.unbind(MQTT_EXCHANGE, binding) // [MQTT-3.10.4-2]
    return true
  }

  #makeQueue(): void {
    const { topology, limits } = this.#host
    const name = sessionQueueName(this.clientId)
    this.#takeQueue(this.kept?.takeQueue() ?? topology.memoryQueue(name, sessionQueueLimits(limits.sessionQueue)))
  }

  #takeQueue(queue: Queue): void {
    this.queue = queue
    queue.keepsSent = true
    this.#source = new SessionQueue({
      queue,
      clientId: this.clientId,
      deliveries: this.#takeDeliveries(),
      identifiers: this.#identifiers,
    })
    if (this.#attachment !== null) this.#source.attach()
  }

  #takeDeliveries(): Deliveries {
    if (this.#deliveries !== null) return this.#deliveries
    const { counters, identities, limits } = this.#host
    // A later connection may have a larger window than this one.
    const mostInFlight = this.expiryMs > 0 ? limits.inflight : (this.#attachment?.window ?? limits.inflight)
    this.#deliveries = new Deliveries({ counters, identities, kept: this.#keptIds, mostInFlight })
    if (this.#attachment !== null) this.#deliveries.attach(this.#attachment)
    return this.#deliveries
  }

  // ---- QoS 0: straight into the output

  get isKept(): boolean {
    return this.kept !== null
  }

  get canTakeOver(): boolean {
    const { queue } = this
    if (queue === null || queue.depth === 0) return true
    return queue.isCaughtUp && queue.hasRoomFor(1, this.#host.limits.packetBytes + RECORD_HEAD_BYTES)
  }

  get hasRoom(): boolean {
    return this.#attachment?.output.isFull === false
  }

  deliverRun(run: Run, topic: string, note: number): void {
    if (isNoLocal(note) && recordClientId(run.prefix.bytes, 0) === this.clientId) return // [MQTT-3.8.3-3]
    this.#write(run, topic, note, this.#identifiers.ofRun(run, topic))
  }

  deliverShared(run: Run, topic: string, { note, identifiers }: Membership): void {
    this.#write(run, topic, note, identifiers)
  }

  takeOver(record: Buffer, note: number): void {
    if (this.queue === null) throw new TypeError('a session shares a subscription of QoS 2 and has no queue')
    this.queue.takeMoved(record, note, false)
    this.queue.pump()
  }

  #write(run: Run, topic: string, note: number, identifiers: Buffer): void {
    const { counters } = this.#host
    const attachment = this.#attachment
    if (attachment === null) {
      counters.droppedBy.not_connected += run.count
      this.dropped += run.count
      return
    }
    if (attachment.output.isFull) {
      counters.droppedBy.output_full += run.count
      this.dropped += run.count
      return
    }
    if (!attachment.output.hasMemoryFor((run.ends[run.count - 1] ?? 0) - (run.starts[0] ?? 0))) {
      counters.droppedBy.memory_full += run.count
      this.dropped += run.count
      return
    }
    const isRetain = run.retain && isRetainAsPublished(note)
    const tooLarge = attachment.writer.writeRun(run, topicBytes(topic), isRetain, identifiers)
    if (tooLarge > 0) {
      counters.droppedBy.too_large += tooLarge
      this.dropped += tooLarge
    }
    counters.messagesOut[0] += run.count - tooLarge
    this.#sentLive += run.count - tooLarge
  }

  // ---- QoS 1 and 2: from queues

  /** PUBACK with its reason code (3.1.1: success). */
  acknowledged(packetId: number, reason: number): void {
    this.#takeDeliveries().acknowledged(packetId, reason)
  }

  /** PUBREC with its reason code (3.1.1: success). */
  received(packetId: number, reason: number): void {
    this.#takeDeliveries().received(packetId, reason)
  }

  /** PUBCOMP. */
  completed(packetId: number): void {
    this.#takeDeliveries().completed(packetId)
  }

  /** All packets of a chunk have been looked at: sends what they gave room for. */
  pump(): void {
    this.#deliveries?.pump()
    this.#feed?.pump()
  }

  /** The output has room again. */
  outputDrained(): void {
    this.#deliveries?.outputDrained()
    this.#feed?.pump()
  }
}
