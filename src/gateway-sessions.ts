import type { ClientDetail, ClientSummary, SessionDetail, SessionSummary } from './api/contract.ts'
import type { ClientInfo, SessionInfo } from './protocol/mqtt/server.ts'

/*
 * Clients and their sessions in the words of the API.
 */

export function clientSummary(client: ClientInfo): ClientSummary {
  return {
    id: client.id,
    protocol: `mqtt ${client.version}`,
    address: client.address,
    connected_at: new Date(client.connectedAtMs).toISOString(),
    keep_alive_s: client.keepAliveS,
    subscriptions: client.filters.length,
    queued: client.queued,
    in_flight: client.inFlight,
    received: client.received,
    delivered: client.sent,
    dropped: client.dropped,
  }
}

export function clientDetail(client: ClientInfo): ClientDetail {
  return { ...clientSummary(client), session_expiry_ms: finite(client.expiryMs), filters: filters(client) }
}

export function sessionSummary(session: SessionInfo): SessionSummary {
  const { queue, endsInMs } = session
  return {
    id: session.id,
    connected: session.isConnected,
    session_expiry_ms: finite(session.expiryMs),
    ends_in_ms: endsInMs === null ? null : finite(Math.round(endsInMs)),
    subscriptions: session.filters.length,
    durable: queue?.isDurable ?? false,
    queued: session.queued,
    bytes: queue?.bytes ?? 0,
    in_flight: session.inFlight,
    delivered: session.sent,
    dropped: session.dropped,
  }
}

export function sessionDetail(session: SessionInfo): SessionDetail {
  return { ...sessionSummary(session), filters: filters(session) }
}

function filters(session: SessionInfo): SessionDetail['filters'] {
  return session.filters.map(({ filter, qos, isNoLocal, isRetainAsPublished, identifier }) => ({
    filter,
    qos,
    no_local: isNoLocal,
    retain_as_published: isRetainAsPublished,
    identifier: identifier === 0 ? null : identifier,
  }))
}

const finite = (ms: number): number | null => (ms === Number.POSITIVE_INFINITY ? null : ms)
