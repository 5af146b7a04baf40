/*
 * What the HTTP API says, once: the server's types, what the CLI checks answers against, and what the tests hold both to. Durations are milliseconds,
 * sizes bytes, rates per second, times ISO 8601 in UTC; each name ends in its unit. Fields are only ever added.
 */
import * as z from 'zod/mini'

const count = z.number()
const bytes = z.number()
const durationMs = z.number()
const time = z.string()
const counts = z.record(z.string(), count)

export const health = z.object({
  /** unavailable: no publish can be accepted now. degraded: something needs attention, such as an outage upstream. */
  status: z.enum(['ok', 'degraded', 'unavailable']),
  /** Sentences for the operator; empty when ok. */
  reasons: z.array(z.string()),
})
export type Health = z.infer<typeof health>

export const overview = z.object({
  gateway: z.object({
    id: z.string(),
    version: z.string(),
    /** Second part of the message ids given out since this start. */
    epoch: z.string(),
    started_at: time,
    uptime_ms: durationMs,
  }),
  clients: z.object({ connected: count, limit: count }),
  /** Totals since this start. */
  messages: z.object({
    /** Taken from clients, all QoS. */
    received: count,
    /** Handed to clients, all QoS. */
    delivered: count,
    /** Confirmed by upstreams. */
    forwarded: count,
    /** Matched nothing. */
    unrouted: count,
    /** Discarded by a policy or limit, queues and outputs together. */
    dropped: count,
  }),
  /** Means of the last seconds. */
  rates: z.object({ received_per_s: z.number(), delivered_per_s: z.number(), forwarded_per_s: z.number() }),
  memory: z.object({ used_bytes: bytes, limit_bytes: bytes, resident_bytes: bytes }),
  disk: z.object({
    used_bytes: bytes,
    limit_bytes: bytes,
    /** Of the file system; publishes are refused below free_min_bytes. */
    free_bytes: bytes,
    free_min_bytes: bytes,
    /** Bytes publishers handed over that were written, and what writing them cost. */
    accepted_bytes: bytes,
    written_bytes: bytes,
  }),
  health,
})
export type Overview = z.infer<typeof overview>

const clientSummary = z.object({
  id: z.string(),
  /** `mqtt 3.1`, `mqtt 3.1.1`, `mqtt 5.0`. */
  protocol: z.string(),
  /** `address:port` of the peer. */
  address: z.string(),
  connected_at: time,
  keep_alive_s: z.number(),
  /** How many filters it has subscribed to. */
  subscriptions: count,
  /** Waiting in its queue, and sent without an acknowledgement yet. */
  queued: count,
  in_flight: count,
  received: count,
  delivered: count,
  dropped: count,
})
export type ClientSummary = z.infer<typeof clientSummary>
export const clientList = z.array(clientSummary)

export const clientDetail = z.extend(clientSummary, {
  filters: z.array(z.object({ filter: z.string(), qos: z.number() })),
})
export type ClientDetail = z.infer<typeof clientDetail>

export const ledger = z.object({
  accepted: count,
  settled: count,
  queued: count,
  in_flight: count,
  dropped: counts,
  expired: count,
  dead_lettered: counts,
})

export const queue = z.object({
  name: z.string(),
  origin: z.enum(['config', 'api', 'client']),
  /** Messages in it, in flight included. */
  depth: count,
  bytes: bytes,
  in_flight: count,
  /** Since its oldest message was accepted; null when empty. */
  oldest_age_ms: z.nullable(durationMs),
  limits: z.object({
    messages: count,
    bytes: bytes,
    age_ms: durationMs,
    on_full: z.enum(['reject', 'drop_oldest', 'drop_newest']),
  }),
  ledger,
})
export type QueueStatus = z.infer<typeof queue>
export const queueList = z.array(queue)

export const route = z.object({
  name: z.string(),
  from: z.array(z.string()),
  upstream: z.string(),
  exchange: z.string(),
  routing_key: z.string(),
  qos0: z.enum(['buffer', 'pass', 'ignore']),
  /** Name of its queue. */
  outbox: z.string(),
  depth: count,
  bytes: bytes,
  oldest_age_ms: z.nullable(durationMs),
  /** Why its messages can't leave although the link is up; null when they can. */
  parked: z.nullable(z.string()),
})
export type RouteStatus = z.infer<typeof route>
export const routeList = z.array(route)

export const upstream = z.object({
  name: z.string(),
  /** Without password. */
  url: z.string(),
  state: z.enum(['paused', 'connecting', 'forwarding', 'blocked', 'waiting']),
  /** Forwarding or blocked since; null in the other states. */
  since: z.nullable(time),
  /** Why it is not forwarding; null when it is. */
  cause: z.nullable(z.string()),
  /** Until the next attempt to connect; null unless waiting. */
  retry_in_ms: z.nullable(durationMs),
  routes: z.array(z.string()),
  /** Sent and not confirmed yet. */
  unconfirmed: count,
  confirmed: count,
  /** Times the link came up again after it was lost, since this start. */
  reconnects: count,
})
export type UpstreamStatus = z.infer<typeof upstream>
export const upstreamList = z.array(upstream)

export const config = z.record(z.string(), z.unknown())

export const publishRequest = z.strictObject(
  {
    topic: z.string('a topic is needed'),
    payload: z.string('a text is needed'),
    /** How the payload is written here; bytes that are not text need base64. */
    encoding: z._default(z.enum(['utf8', 'base64'], 'accepted are utf8 and base64'), 'utf8'),
    qos: z._default(z.union([z.literal(0), z.literal(1)], 'accepted are 0 and 1'), 1),
  },
  {
    error: issue =>
      issue.code === 'unrecognized_keys' ? `there is no member ${issue.keys?.join(', ')}` : 'an object is needed',
  },
)

export const publishResponse = z.object({
  /** False: no subscription and no route wanted it. */
  routed: z.boolean(),
})

/** RFC 9457. `code` is stable, `detail` is for people. */
export const problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.number(),
  code: z.string(),
  detail: z.string(),
})
export type Problem = z.infer<typeof problem>
