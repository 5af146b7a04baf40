import type { Gateway } from './api/gateway.ts'
import type { Access } from './core/access.ts'
import type { AddressGate } from './core/address-gate.ts'
import type { MemoryBudget } from './core/memory.ts'
import type { Queue } from './core/queue.ts'
import type { Retained } from './core/retained.ts'
import type { Router } from './core/router.ts'
import type { Stream } from './core/stream.ts'
import type { Streams } from './core/streams.ts'
import type { Topology } from './core/topology.ts'
import type { MqttServer } from './protocol/mqtt/server.ts'
import type { Store } from './store/store.ts'
import type { Metric, Sample } from './telemetry/metrics.ts'
import type { Handshakes } from './transport/handshakes.ts'
import type { Listener } from './transport/listener.ts'
import type { TlsListener } from './transport/tls.ts'

interface Sources {
  readonly gateway: Gateway
  readonly store: Store
  readonly router: Router
  readonly mqtt: MqttServer
  readonly topology: Topology
  readonly streams: Streams
  readonly retained: Retained
  readonly memory: MemoryBudget
  /** Of devices, by name. */
  readonly listeners: ReadonlyMap<string, Listener>
  readonly access: Access
  readonly gate: AddressGate
  readonly handshakes: Handshakes
  readonly tlsListeners: readonly TlsListener[]
}

/** Every figure of the gateway for `/metrics`, read from plain numbers at scrape time. */
export function gatewayMetrics({
  gateway,
  store,
  router,
  mqtt,
  topology,
  streams,
  retained,
  memory,
  listeners,
  access,
  gate,
  handshakes,
  tlsListeners,
}: Sources): readonly Metric[] {
  const { counters } = mqtt
  const counter = (name: string, help: string, read: Metric['read']): Metric => ({ name, help, kind: 'counter', read })
  const gauge = (name: string, help: string, read: Metric['read']): Metric => ({ name, help, kind: 'gauge', read })
  const byQueue = (read: (queue: Queue) => number) => (): Sample[] =>
    [...topology.queues()].map(queue => ({ labels: { queue: queue.name }, value: read(queue) }))
  const byStream = (read: (stream: Stream) => number) => (): Sample[] =>
    [...streams.all()].map(stream => ({ labels: { stream: stream.name }, value: read(stream) }))
  return [
    counter(
      'sluice_messages_accepted_total',
      'Messages taken from publishers, all QoS.',
      () => router.counters.accepted,
    ),
    counter(
      'sluice_messages_unrouted_total',
      'Accepted messages that matched nothing.',
      () => router.counters.unrouted,
    ),
    counter(
      'sluice_messages_refused_total',
      'Messages refused before their acknowledgement; the publisher still has them.',
      () => router.counters.refused,
    ),
    counter(
      'sluice_accepted_bytes_total',
      'Payload and property bytes of accepted messages.',
      () => router.counters.acceptedBytes,
    ),
    gauge('sluice_clients', 'MQTT clients connected.', () => mqtt.clientCount),
    gauge('sluice_sessions', 'MQTT sessions, by whether their client is connected or away.', () => [
      { labels: { client: 'connected' }, value: mqtt.sessionCount - mqtt.awaySessionCount },
      { labels: { client: 'away' }, value: mqtt.awaySessionCount },
    ]),
    counter(
      'sluice_session_messages_dropped_total',
      'Messages that waited for sessions and groups and were dropped, or expired, by reason.',
      () => [...topology.unlistedDropped].map(([reason, value]) => ({ labels: { reason }, value })),
    ),
    gauge('sluice_shared_groups', 'Groups that share an MQTT subscription.', () => mqtt.groupCount),
    counter('sluice_listener_connections_total', 'Connections that came to a listener and were not refused then.', () =>
      [...listeners].map(
        ([
          listener,
          {
            counters: { accepted },
          },
        ]) => ({ labels: { listener }, value: accepted }),
      ),
    ),
    counter('sluice_listener_refused_total', 'Connections a listener closed, by reason.', () =>
      [...listeners].flatMap(
        ([
          listener,
          {
            counters: { refused },
          },
        ]) => Object.entries(refused).map(([reason, value]) => ({ labels: { listener, reason }, value })),
      ),
    ),
    counter('sluice_mqtt_connections_total', 'Connections accepted.', () => counters.connected),
    counter('sluice_mqtt_connections_refused_total', 'Connections refused.', () => counters.refusedConnections),
    counter(
      'sluice_logins_accepted_total',
      'Logins accepted, without proof or with it: MQTT clients, and HTTP requests that show credentials.',
      () => access.accepted,
    ),
    counter('sluice_logins_refused_total', 'Logins refused, by reason.', () =>
      Object.entries(access.refused).map(([reason, value]) => ({ labels: { reason }, value })),
    ),
    gauge(
      'sluice_logins_waiting',
      'Passwords waiting to be checked, against limits.login_queue.',
      () => access.waiting,
    ),
    counter('sluice_connections_refused_total', 'Connections closed before anything was read, by reason.', () =>
      Object.entries(gate.refused).map(([reason, value]) => ({ labels: { reason }, value })),
    ),
    counter('sluice_bans_total', 'Addresses banned for wrong passwords.', () => gate.banned),
    gauge('sluice_banned_addresses', 'Addresses banned now.', () => [...gate.bans()].length),
    gauge(
      'sluice_tls_clients',
      'TLS connections, those in their handshake and waiting for it included.',
      () => handshakes.clients,
    ),
    gauge('sluice_tls_handshakes_waiting', 'TLS connections that wait for their handshake.', () => handshakes.waiting),
    counter('sluice_tls_handshakes_total', 'TLS handshakes, by result: ok, or why they failed.', () => [
      { labels: { result: 'ok' }, value: handshakes.completed },
      ...[...handshakes.failed].map(([result, value]) => ({ labels: { result }, value })),
    ]),
    counter(
      'sluice_tls_connections_refused_total',
      'Connections closed before their handshake because limits.tls_clients was reached.',
      () => handshakes.refused,
    ),
    gauge('sluice_tls_certificate_expiry_seconds', 'When the certificate of a listener ends, seconds since 1970.', () =>
      tlsListeners.map(({ name, certUntilMs }) => ({ labels: { listener: name }, value: certUntilMs / 1000 })),
    ),
    counter('sluice_tls_reloads_total', 'Changed certificates, by whether they were taken into use or refused.', () =>
      tlsListeners.flatMap(({ name, reloads }) =>
        Object.entries(reloads).map(([result, value]) => ({ labels: { listener: name, result }, value })),
      ),
    ),
    counter(
      'sluice_mqtt_protocol_errors_total',
      'Connections closed for a breach of the protocol.',
      () => counters.protocolErrors,
    ),
    counter(
      'sluice_mqtt_takeovers_total',
      'Connections ended by a newer one of the same client id.',
      () => counters.takenOver,
    ),
    counter('sluice_mqtt_keep_alive_timeouts_total', 'Connections ended by silence.', () => counters.keepAliveTimeouts),
    counter(
      'sluice_mqtt_slow_clients_total',
      'Connections closed because the client took too little of what it was sent.',
      () => counters.slowClients,
    ),
    counter(
      'sluice_mqtt_limits_reached_total',
      'How often a client was refused something, or closed, because a limit was reached, by limit.',
      () => [...counters.limitsReached].map(([limit, value]) => ({ labels: { limit }, value })),
    ),
    counter('sluice_mqtt_received_bytes_total', 'Bytes from MQTT clients.', () => counters.bytesIn),
    counter('sluice_mqtt_sent_bytes_total', 'Bytes to MQTT clients.', () => counters.bytesOut),
    counter('sluice_mqtt_messages_received_total', 'PUBLISH packets taken, by QoS.', () => byQos(counters.messagesIn)),
    counter(
      'sluice_mqtt_publishes_repeated_total',
      'QoS 2 PUBLISH packets that had been taken before.',
      () => counters.repeatedPublishes,
    ),
    counter('sluice_mqtt_messages_sent_total', 'PUBLISH packets handed to clients, by QoS.', () =>
      byQos(counters.messagesOut),
    ),
    counter('sluice_mqtt_messages_dropped_total', 'QoS 0 messages a client did not get, by reason.', () =>
      Object.entries(counters.droppedBy).map(([reason, value]) => ({ labels: { reason }, value })),
    ),
    counter(
      'sluice_mqtt_unknown_acks_total',
      'Acknowledgements of packet ids not in flight.',
      () => counters.unknownAcks,
    ),
    counter('sluice_mqtt_wills_refused_total', 'Wills that could not be published.', () => counters.willsRefused),
    counter(
      'sluice_mqtt_publishes_refused_total',
      'PUBLISH packets refused, by reason; one of 3.1.1 that is held back counts each time it is tried.',
      () => [...counters.refusedPublishes].map(([reason, value]) => ({ labels: { reason }, value })),
    ),
    counter(
      'sluice_mqtt_subscriptions_refused_total',
      'Filters of SUBSCRIBE refused, by reason code of MQTT 5.0.',
      () =>
        [...counters.refusedSubscriptions].map(([code, value]) => ({
          labels: { reason: `0x${code.toString(16)}` },
          value,
        })),
    ),
    counter(
      'sluice_mqtt_subscriptions_revoked_total',
      'Subscriptions ended because auth.acl does not allow them any more.',
      () => counters.revokedSubscriptions,
    ),
    gauge(
      'sluice_queue_messages',
      'Messages waiting in a durable queue.',
      byQueue(queue => queue.depth),
    ),
    gauge(
      'sluice_queue_bytes',
      'Bytes waiting in a durable queue.',
      byQueue(queue => queue.bytes),
    ),
    gauge(
      'sluice_queue_pausing_messages',
      'Messages that wait for another attempt, or for room among the dead letters.',
      byQueue(queue => queue.waitingCount),
    ),
    gauge(
      'sluice_queue_inflight_messages',
      'Messages delivered and not settled yet.',
      byQueue(queue => queue.inFlight),
    ),
    counter(
      'sluice_queue_accepted_total',
      'Messages that entered a queue.',
      byQueue(queue => queue.ledger.accepted),
    ),
    counter(
      'sluice_queue_settled_total',
      'Messages settled by a consumer.',
      byQueue(queue => queue.ledger.settled),
    ),
    counter(
      'sluice_queue_expired_total',
      'Messages over the age limit.',
      byQueue(queue => queue.ledger.expired),
    ),
    counter('sluice_queue_dropped_total', 'Messages discarded, by reason.', () =>
      [...topology.queues()].flatMap(queue =>
        [...queue.ledger.dropped].map(([reason, value]) => ({ labels: { queue: queue.name, reason }, value })),
      ),
    ),
    gauge(
      'sluice_queue_ledger_imbalance_messages',
      'accepted minus everything a message can have become; anything but 0 is a defect.',
      byQueue(queue => queue.ledger.imbalance),
    ),
    gauge(
      'sluice_stream_messages',
      'Messages kept in a stream.',
      byStream(stream => stream.depth),
    ),
    gauge(
      'sluice_stream_bytes',
      'Bytes kept in a stream.',
      byStream(stream => stream.bytes),
    ),
    gauge(
      'sluice_stream_readers',
      'Readers at work.',
      byStream(stream => stream.readerCount),
    ),
    counter(
      'sluice_stream_accepted_total',
      'Messages that entered a stream.',
      byStream(stream => stream.ledger.accepted),
    ),
    counter(
      'sluice_stream_expired_total',
      'Messages forgotten by retention.',
      byStream(stream => stream.ledger.expired),
    ),
    counter(
      'sluice_stream_missed_total',
      'Messages readers came to after retention had forgotten them.',
      byStream(stream => stream.missed),
    ),
    counter('sluice_stream_dropped_total', 'Messages discarded, by reason.', () =>
      [...streams.all()].flatMap(stream =>
        [...stream.ledger.dropped].map(([reason, value]) => ({ labels: { stream: stream.name, reason }, value })),
      ),
    ),
    gauge(
      'sluice_stream_ledger_imbalance_messages',
      'accepted minus everything a message can have become; anything but 0 is a defect.',
      byStream(stream => stream.ledger.imbalance),
    ),
    gauge('sluice_retained_messages', 'Topics with a retained message.', () => retained.messages),
    gauge(
      'sluice_retained_bytes',
      'Bytes of retained messages and of the index that finds them, against limits.retained.bytes.',
      () => retained.bytes,
    ),
    counter('sluice_retained_expired_total', 'Retained messages whose time was over.', () => retained.expired),
    counter('sluice_retained_dropped_total', 'QoS 0 messages that could not be retained, by reason.', () =>
      Object.entries(retained.dropped).map(([reason, value]) => ({ labels: { reason }, value })),
    ),
    gauge('sluice_upstream_forwarding', '1 while the upstream takes messages.', () =>
      [...gateway.upstreams()].map(({ name, state }) => ({
        labels: { upstream: name },
        value: state === 'forwarding' ? 1 : 0,
      })),
    ),
    gauge('sluice_upstream_unconfirmed_messages', 'Sent upstream and not confirmed yet.', () =>
      [...gateway.upstreams()].map(({ name, unconfirmed }) => ({ labels: { upstream: name }, value: unconfirmed })),
    ),
    counter('sluice_upstream_confirmed_total', 'Messages confirmed by the upstream.', () =>
      [...gateway.upstreams()].map(({ name, confirmed }) => ({ labels: { upstream: name }, value: confirmed })),
    ),
    gauge('sluice_memory_bytes', 'Message bytes held in memory, against limits.memory.', () => memory.usedBytes),
    counter('sluice_memory_pressed_total', 'How often limits.memory was reached.', () => memory.pressed),
    gauge(
      'sluice_session_state_bytes',
      'Subscriptions, wills and topic aliases of clients, against limits.session_state.',
      () => mqtt.state.used,
    ),
    counter('sluice_store_commits_total', 'Commits, each one fdatasync.', () => store.counters.commits),
    counter(
      'sluice_store_accepted_bytes_total',
      'Message bytes that had to be written.',
      () => store.counters.acceptedBytes,
    ),
    counter(
      'sluice_store_written_bytes_total',
      'Bytes written to storage by this process.',
      () => store.counters.writtenBytes,
    ),
    gauge(
      'sluice_store_write_amplification_ratio',
      'Bytes written per message byte that had to be written; 0 while there was none.',
      () => (store.counters.acceptedBytes === 0 ? 0 : store.counters.writtenBytes / store.counters.acceptedBytes),
    ),
    gauge('sluice_store_last_sync_ms', 'Duration of the last fdatasync.', () => store.counters.lastSyncMs),
  ]
}

function byQos(counts: readonly number[]): Sample[] {
  return counts.map((value, qos) => ({ labels: { qos: String(qos) }, value }))
}
