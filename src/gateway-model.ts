import type {
  Address,
  BindingRequest,
  BindingStatus,
  DeadLetterQueue,
  ExchangeRequest,
  ExchangeStatus,
  Forecast,
  GetRequest,
  MessageDocument,
  PeekedMessage,
  QueueRequest,
  QueueStatus,
  ReplayAnswer,
  ReplayRequest,
} from './api/contract.ts'
import type { DeclareOutcome, Model } from './api/gateway.ts'
import { DEFAULT_QUEUE_LIMITS } from './config/schema.ts'
import type { BindingSpec, Declarations, Declared } from './core/declarations.ts'
import type { ExchangeSpec } from './core/exchange.ts'
import { HEADERS_MATCHES, type HeadersMatch } from './core/exchanges/headers.ts'
import type { Identities } from './core/identity.ts'
import type { MessageAddress } from './core/mover.ts'
import type { Queue } from './core/queue.ts'
import type { Origin, QueueSpec } from './core/queue-definition.ts'
import type { Topology } from './core/topology.ts'
import { deadLetterQueues, messageAddress, replayAnswer, replayOptions } from './gateway-dead-letters.ts'
import type { Forecasts } from './gateway-forecasts.ts'
import { messageDocument } from './gateway-message.ts'
import { BrokerError } from './model/error.ts'
import { type ExchangeName, exchangeName, type QueueName } from './model/names.ts'
import { PLAIN_POLICY, type QueuePolicy } from './model/queue-policy.ts'
import type { MqttServer } from './protocol/mqtt/server.ts'

/** A look shows so much of a payload. */
const PEEK_PAYLOAD_BYTES = 4096
/** One get takes no further message once it has so many bytes of them; the answer holds all payloads in full. */
const GET_BYTES = 4 * 1024 * 1024
const MATCH_ARGUMENT = 'x-match'

/** Exchanges, bindings and queues of the running gateway in the words of the API. */
export class RunningModel implements Model {
  readonly #topology: Topology
  readonly #declarations: Declarations
  readonly #identities: Identities
  readonly #forecasts: Forecasts
  readonly #mqtt: MqttServer

  constructor({
    topology,
    declarations,
    identities,
    forecasts,
    mqtt,
  }: {
    topology: Topology
    declarations: Declarations
    identities: Identities
    forecasts: Forecasts
    mqtt: MqttServer
  }) {
    this.#topology = topology
    this.#declarations = declarations
    this.#identities = identities
    this.#forecasts = forecasts
    this.#mqtt = mqtt
  }

  *exchanges(): Iterable<ExchangeStatus> {
    for (const { exchange, origin } of this.#declarations.exchanges()) {
      const { name, kind, isDurable, isInternal, alternate } = exchange.spec
      yield { name, type: kind, durable: isDurable, internal: isInternal, alternate_exchange: alternate, origin }
    }
  }

  exchange(name: ExchangeName): ExchangeStatus | undefined {
    for (const exchange of this.exchanges()) if (exchange.name === name) return exchange
    return undefined
  }

  declareExchange(name: ExchangeName, request: ExchangeRequest): Promise<DeclareOutcome> {
    return this.#declarations.declareExchange(exchangeSpec(name, request), 'api')
  }

  deleteExchange(name: ExchangeName): Promise<void> {
    return this.#declarations.deleteExchange(name)
  }

  *bindings(): Iterable<BindingStatus> {
    for (const declared of this.#declarations.bindings()) yield bindingStatus(declared)
  }

  async bind(request: BindingRequest): Promise<DeclareOutcome> {
    return this.#declarations.bind(bindingSpec(request), 'api')
  }

  async unbind(request: BindingRequest): Promise<void> {
    return this.#declarations.unbind(bindingSpec(request))
  }

  *queues(): Iterable<QueueStatus> {
    for (const queue of this.#topology.queues()) yield this.#namedStatus(queue)
  }

  *sessionQueues(): Iterable<QueueStatus> {
    for (const { queue } of this.#mqtt.sessions()) {
      if (queue !== null) yield this.#queueStatus(queue, { kind: 'session', origin: 'client' })
    }
    for (const queue of this.#mqtt.groupQueues()) yield this.#queueStatus(queue, { kind: 'group', origin: 'client' })
  }

  queue(name: QueueName): QueueStatus | undefined {
    return this.#topology.has(name) ? this.#namedStatus(this.#topology.queue(name)) : undefined
  }

  #namedStatus(queue: Queue): QueueStatus {
    return this.#queueStatus(queue, { kind: 'named', origin: this.#topology.originOf(queue.name) })
  }

  #queueStatus(queue: Queue, whose: Pick<QueueStatus, 'kind' | 'origin'>): QueueStatus {
    const { limits } = queue
    return {
      name: queue.name,
      ...whose,
      durable: queue.isDurable,
      consumers: queue.consumerCount,
      depth: queue.depth,
      bytes: queue.bytes,
      in_flight: queue.inFlight,
      waiting: queue.waitingCount,
      parked: queue.isParked,
      oldest_age_ms: this.oldestAgeMs(queue),
      limits: { messages: limits.messages, bytes: limits.bytes, age_ms: finite(limits.ageMs), on_full: limits.onFull },
      lost_at_most: queue.lostAtMost,
      forecast: this.forecast(queue),
      policy: policyStatus(queue.policy),
      dead_letter: queue.deadLetter === null ? null : addressDocument(queue.deadLetter.address),
      ledger: queue.ledger.figures(),
    }
  }

  forecast({ name, depth, bytes, ledger, limits }: Queue): Forecast {
    return this.#forecasts.queue(name, { messages: depth, bytes, accepted: ledger.accepted }, limits)
  }

  /** Since the oldest message of a queue was accepted; null when it is empty. */
  oldestAgeMs(queue: Queue): number | null {
    const { oldest } = queue
    return oldest === null ? null : Math.round(this.#identities.ageMs(oldest.bytes, oldest.at))
  }

  async declareQueue(name: QueueName, request: QueueRequest): Promise<DeclareOutcome> {
    return this.#declarations.declareQueue(queueSpec(name, 'api', request))
  }

  deleteQueue(name: QueueName): Promise<void> {
    return this.#declarations.deleteQueue(name)
  }

  async peek(name: QueueName, limit: number): Promise<PeekedMessage[]> {
    const messages: PeekedMessage[] = []
    await this.#topology.queue(name).peek(limit, (bytes, at, { position, isInFlight, isWaiting, attempts }) => {
      const document = messageDocument(this.#identities, bytes, at, { attempts, mostBytes: PEEK_PAYLOAD_BYTES })
      messages.push({
        ...document,
        position,
        in_flight: isInFlight,
        waiting: isWaiting,
        truncated: document.payload_bytes > PEEK_PAYLOAD_BYTES,
      })
    })
    return messages
  }

  purge(name: QueueName): Promise<number> {
    return this.#topology.purgeQueue(name)
  }

  async get(name: QueueName, { count, ack_mode }: GetRequest): Promise<MessageDocument[]> {
    const messages: MessageDocument[] = []
    await this.#topology.getMessages(name, { count, maxBytes: GET_BYTES, ackMode: ack_mode }, (bytes, at, attempts) =>
      messages.push(messageDocument(this.#identities, bytes, at, { attempts })),
    )
    return messages
  }

  deadLetterQueues(): Iterable<DeadLetterQueue> {
    return deadLetterQueues(this.#topology, queue => this.oldestAgeMs(queue))
  }

  async replay(name: QueueName, request: ReplayRequest): Promise<ReplayAnswer> {
    return replayAnswer(await this.#topology.replay(name, replayOptions(request, this.#identities)))
  }
}

/** @throws BrokerError NAME_INVALID */
export function exchangeSpec(name: ExchangeName, request: ExchangeRequest): ExchangeSpec {
  const { type, durable, internal, alternate_exchange: alternate } = request
  if (alternate !== null) exchangeName(alternate)
  return { name, kind: type, isDurable: durable, isInternal: internal, alternate }
}

/** @throws BrokerError NAME_INVALID for the dead letters' address, REQUEST_INVALID */
export function queueSpec(name: QueueName, origin: Origin, request: QueueRequest): QueueSpec {
  const { limits, dead_letter = null } = request
  return {
    name,
    origin,
    policy: queuePolicy(request),
    deadLetter: dead_letter === null ? null : messageAddress(dead_letter),
    isDurable: request.durable ?? true,
    limits: {
      messages: limits.messages ?? DEFAULT_QUEUE_LIMITS.messages,
      bytes: limits.bytes ?? DEFAULT_QUEUE_LIMITS.bytes,
      ageMs: limits.age_ms ?? DEFAULT_QUEUE_LIMITS.ageMs,
      onFull: limits.on_full ?? DEFAULT_QUEUE_LIMITS.onFull,
    },
    qos0: 'buffer',
  }
}

function queuePolicy(request: QueueRequest): QueuePolicy {
  const { firstMs, maxMs, waiting } = PLAIN_POLICY.retry
  const { retry = {} } = request
  const policy = {
    maxAttempts: request.max_attempts ?? Number.POSITIVE_INFINITY,
    retry: {
      firstMs: retry.first_ms ?? firstMs,
      maxMs: retry.max_ms ?? Math.max(maxMs, retry.first_ms ?? 0),
      waiting: retry.waiting ?? waiting,
    },
    ttlMs: request.ttl_ms ?? Number.POSITIVE_INFINITY,
    maxPriority: request.max_priority ?? 0,
    hasSingleActiveConsumer: request.single_active_consumer ?? false,
    isExclusive: request.exclusive ?? false,
    expiresMs: request.expires_ms ?? Number.POSITIVE_INFINITY,
    ack: request.ack ?? PLAIN_POLICY.ack,
    ackTimeoutMs: request.ack_timeout_ms ?? PLAIN_POLICY.ackTimeoutMs,
  }
  if (policy.retry.firstMs > policy.retry.maxMs) {
    throw new BrokerError(
      'REQUEST_INVALID',
      'retry.first_ms is more than retry.max_ms; the first pause is the shortest',
    )
  }
  return policy
}

function policyStatus(policy: QueuePolicy): QueueStatus['policy'] {
  const { maxAttempts, retry, ttlMs, maxPriority, hasSingleActiveConsumer, isExclusive, expiresMs } = policy
  return {
    max_attempts: finite(maxAttempts),
    retry: { first_ms: retry.firstMs, max_ms: retry.maxMs, waiting: retry.waiting },
    ttl_ms: finite(ttlMs),
    max_priority: maxPriority,
    single_active_consumer: hasSingleActiveConsumer,
    exclusive: isExclusive,
    expires_ms: finite(expiresMs),
    ack: policy.ack,
    ack_timeout_ms: policy.ackTimeoutMs,
  }
}

const finite = (value: number): number | null => (value === Number.POSITIVE_INFINITY ? null : value)

const addressDocument = ({ exchange, key }: MessageAddress): Address => ({ exchange, routing_key: key })

/** @throws BrokerError REQUEST_INVALID */
export function bindingSpec({
  source,
  destination,
  destination_type,
  routing_key,
  arguments: given,
}: BindingRequest): BindingSpec {
  return {
    source,
    destination: { kind: destination_type, name: destination },
    key: routing_key,
    headers:
      given === null
        ? null
        : {
            match: matchOf(given[MATCH_ARGUMENT] ?? 'all'),
            values: Object.entries(given).filter(([name]) => name !== MATCH_ARGUMENT),
          },
  }
}

function matchOf(given: string | number | boolean): HeadersMatch {
  const match = HEADERS_MATCHES.find(word => word === given)
  if (match !== undefined) return match
  throw new BrokerError(
    'REQUEST_INVALID',
    `arguments.x-match: ${JSON.stringify(given)} is not accepted; accepted are ${HEADERS_MATCHES.join(', ')}`,
  )
}

function bindingStatus({ spec: { source, destination, key, headers }, origin }: Declared<BindingSpec>): BindingStatus {
  return {
    source,
    destination: destination.name,
    destination_type: destination.kind,
    routing_key: key,
    arguments: headers === null ? null : Object.fromEntries([[MATCH_ARGUMENT, headers.match], ...headers.values]),
    origin,
  }
}
