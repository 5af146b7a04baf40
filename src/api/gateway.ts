import type { QoS } from '../model/message.ts'
import type { ClientId, ConfiguredName, ExchangeName, QueueName, TopicFilter } from '../model/names.ts'
import type { ReadFrom } from '../model/read-from.ts'
import type {
  BanStatus,
  BindingRequest,
  BindingStatus,
  ClientDetail,
  ClientSummary,
  DeadLetterQueue,
  Definitions,
  DefinitionsDocument,
  DefinitionsImported,
  ExchangeRequest,
  ExchangeStatus,
  GetRequest,
  Health,
  MessageDocument,
  Overview,
  PeekedMessage,
  QueueRequest,
  QueueStatus,
  ReplayAnswer,
  ReplayRequest,
  RouteStatus,
  SessionDetail,
  SessionSummary,
  StreamDetail,
  StreamMessage,
  StreamReplayed,
  StreamReplayRequest,
  StreamStatus,
  UpstreamStatus,
  UserStatus,
} from './contract.ts'

/** A message that came over HTTP. */
export interface PublishedMessage {
  readonly exchange: string
  /** A topic for `mqtt`, a routing key for all others. */
  readonly key: string
  readonly payload: Buffer
  readonly qos: QoS
  readonly retain: boolean
  /** 0 to 9; queues with priorities deliver the highest first. */
  readonly priority: number
}

/** What a declaration did: PUT answers 201 or 204 by it. */
export type DeclareOutcome = 'created' | 'exists'

/**
 * Exchanges, bindings and durable queues, outboxes among them. Acts resolve when they are durable and reject with a BrokerError that says what is in the
 * way: …_NOT_FOUND, DECLARATION_MISMATCH, QUEUE_IN_USE, NOT_AUTHORIZED, STORE_UNAVAILABLE.
 */
export interface Model {
  exchanges(): Iterable<ExchangeStatus>
  exchange(name: ExchangeName): ExchangeStatus | undefined
  declareExchange(name: ExchangeName, request: ExchangeRequest): Promise<DeclareOutcome>
  /** With all bindings from and to it. */
  deleteExchange(name: ExchangeName): Promise<void>
  bindings(): Iterable<BindingStatus>
  bind(request: BindingRequest): Promise<DeclareOutcome>
  unbind(request: BindingRequest): Promise<void>
  /** Those that have been declared. */
  queues(): Iterable<QueueStatus>
  /** Those of sessions and of groups that share a subscription. */
  sessionQueues(): Iterable<QueueStatus>
  queue(name: QueueName): QueueStatus | undefined
  declareQueue(name: QueueName, request: QueueRequest): Promise<DeclareOutcome>
  /** With its messages and all its bindings. */
  deleteQueue(name: QueueName): Promise<void>
  /** The first `limit` messages as they wait; nothing changes. */
  peek(name: QueueName, limit: number): Promise<PeekedMessage[]>
  /** How many messages were dropped. */
  purge(name: QueueName): Promise<number>
  get(name: QueueName, request: GetRequest): Promise<MessageDocument[]>
  deadLetterQueues(): Iterable<DeadLetterQueue>
  /** Sends messages of a queue on, for a while. */
  replay(name: QueueName, request: ReplayRequest): Promise<ReplayAnswer>
}

/** Streams: read, never taken from. Acts resolve and reject as those of Model. */
export interface StreamModel {
  all(): Promise<StreamStatus[]>
  /** @throws BrokerError STREAM_NOT_FOUND, like all below */
  stream(name: QueueName): Promise<StreamDetail>
  /** Up to `limit` messages, fewer where they are large; [] at the end. */
  messages(name: QueueName, from: ReadFrom, limit: number): Promise<StreamMessage[]>
  replay(
    name: QueueName,
    range: { readonly from: ReadFrom; readonly until: ReadFrom },
    request: StreamReplayRequest,
  ): Promise<StreamReplayed>
  /** With its messages, its cursors and all its bindings. */
  delete(name: QueueName): Promise<void>
}

/** The last message of each topic. */
export interface RetainedModel {
  /** Those of up to `limit` matching topics behind `after`, in the order of topics; fewer where they are large; [] at the end. */
  list(filter: TopicFilter, options: { readonly after: string; readonly limit: number }): Promise<MessageDocument[]>
  /** Forgets those of all matching topics; says how many there were, when that is durable. */
  clear(filter: TopicFilter, options: { readonly isDryRun: boolean }): Promise<number>
}

/** All that is declared, as one document. */
export interface DefinitionsModel {
  export(): DefinitionsDocument
  /**
   * Declares what is missing, when nothing of it is refused; deletes and changes nothing.
   * @throws BrokerError DEFINITIONS_REFUSED
   */
  import(definitions: Definitions, options: { readonly isDryRun: boolean }): Promise<DefinitionsImported>
}

/**
 * The running gateway as the API sees it: figures read when asked for, and a few acts. broker.ts implements it, so that the API needs to know neither
 * store nor protocols.
 */
export interface Gateway {
  /** What `GET /api/v1/config` shows; secrets are masked already. */
  readonly config: Readonly<Record<string, unknown>>
  readonly model: Model
  readonly streams: StreamModel
  readonly retained: RetainedModel
  readonly definitions: DefinitionsModel
  /** Totals since this start. Read every second for the rates, so it must be cheap. */
  messages(): Overview['messages']
  overview(): Omit<Overview, 'messages' | 'rates' | 'health'>
  health(): Health
  clients(): Iterable<ClientSummary>
  client(id: ClientId): ClientDetail | undefined
  /** Closes a client's connection; false if no such client is connected. */
  kick(id: ClientId): boolean
  sessions(): Iterable<SessionSummary>
  session(id: ClientId): SessionDetail | undefined
  /** Ends a session, with what waits for it and the connection of its client. Resolves when that is durable; to false if there is none. */
  endSession(id: ClientId): Promise<boolean>
  /** Those of the users file; none if there is no file. */
  users(): Iterable<UserStatus>
  bans(): Iterable<BanStatus>
  /** Lets an address connect again; false if it is not banned. */
  unban(address: string): boolean
  routes(): Iterable<RouteStatus>
  upstreams(): Iterable<UpstreamStatus>
  upstream(name: ConfiguredName): UpstreamStatus | undefined
  /** Stops forwarding to an upstream; its messages stay in their outboxes. Only with a name `upstream` knows. */
  pauseUpstream(name: ConfiguredName): void
  resumeUpstream(name: ConfiguredName): void
  /** Resolves when the message is safe; rejects with BrokerError when it is refused. */
  publish(message: PublishedMessage): Promise<{ readonly isRouted: boolean }>
}
