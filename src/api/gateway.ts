import type { ClientId, ConfiguredName, QueueName, TopicName } from '../model/names.ts'
import type {
  ClientDetail,
  ClientSummary,
  Health,
  Overview,
  QueueStatus,
  RouteStatus,
  UpstreamStatus,
} from './contract.ts'

/** A message that came over HTTP. */
export interface PublishedMessage {
  readonly topic: TopicName
  readonly payload: Buffer
  readonly qos: 0 | 1
}

/**
 * The running gateway as the API sees it: figures read when asked for, and a few acts. broker.ts implements it, so that the API needs to know neither
 * store nor protocols.
 */
export interface Gateway {
  /** What `GET /api/v1/config` shows; secrets are masked already. */
  readonly config: Readonly<Record<string, unknown>>
  /** Totals since this start. Read every second for the rates, so it must be cheap. */
  messages(): Overview['messages']
  overview(): Omit<Overview, 'messages' | 'rates' | 'health'>
  health(): Health
  clients(): Iterable<ClientSummary>
  client(id: ClientId): ClientDetail | undefined
  /** Closes a client's connection; false if no such client is connected. */
  kick(id: ClientId): boolean
  /** Durable named queues, outboxes among them. */
  queues(): Iterable<QueueStatus>
  queue(name: QueueName): QueueStatus | undefined
  routes(): Iterable<RouteStatus>
  upstreams(): Iterable<UpstreamStatus>
  upstream(name: ConfiguredName): UpstreamStatus | undefined
  /** Stops forwarding to an upstream; its messages stay in their outboxes. Only with a name `upstream` knows. */
  pauseUpstream(name: ConfiguredName): void
  resumeUpstream(name: ConfiguredName): void
  /** Resolves when the message is safe; rejects with BrokerError when it is refused. */
  publish(message: PublishedMessage): Promise<{ readonly isRouted: boolean }>
}
