/*
 * What the HTTP API says, once: the server's types, what the CLI checks answers against, and what the tests hold both to. Durations are milliseconds,
 * sizes bytes, rates per second, times ISO 8601 in UTC; each name ends in its unit. Fields are only ever added.
 */
import * as z from 'zod/mini'
import { DEFINITIONS_FORMAT } from '../model/definitions-document.ts'
import { MAX_PRIORITY } from '../model/queue-policy.ts'

const count = z.number()
const bytes = z.number()
const durationMs = z.number()
const time = z.string()
const counts = z.record(z.string(), count)
/** synced: a time service has set it; estimated: it may be right; unknown: it is not. */
const clock = z.enum(['unknown', 'estimated', 'synced'])

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
    /** How far the times here are to be trusted. */
    clock,
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
    /** Until new messages are refused if all goes on as in the last half minute; null: not in the foreseeable future. */
    full_in_ms: z.nullable(durationMs),
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

const user = z.object({
  name: z.string(),
  groups: z.array(z.string()),
  /** Connected clients that have logged in as this user. */
  clients: count,
  /** Null: not since the gateway started. */
  last_login_at: z.nullable(time),
})
export type UserStatus = z.infer<typeof user>
export const userList = z.array(user)

const ban = z.object({
  /** An IPv4 address, or the /64 of an IPv6 address. */
  address: z.string(),
  ends_in_ms: durationMs,
})
export type BanStatus = z.infer<typeof ban>
export const banList = z.array(ban)

/** What a session has subscribed to. */
const subscription = z.object({
  filter: z.string(),
  /** Granted. */
  qos: z.number(),
  /** Not what its own client publishes. */
  no_local: z.boolean(),
  retain_as_published: z.boolean(),
  /** Null: none. */
  identifier: z.nullable(z.number()),
})

/** How long a session outlives a connection; 0: not at all; null: for good. */
const session_expiry_ms = z.nullable(durationMs)

export const clientDetail = z.extend(clientSummary, {
  session_expiry_ms,
  filters: z.array(subscription),
})
export type ClientDetail = z.infer<typeof clientDetail>

const sessionSummary = z.object({
  /** That of its client. */
  id: z.string(),
  connected: z.boolean(),
  session_expiry_ms,
  /** Until it ends unless its client comes back; null: that is connected, or the session does not end. */
  ends_in_ms: z.nullable(durationMs),
  subscriptions: count,
  /** What waits for it outlives a restart. */
  durable: z.boolean(),
  /** Waiting in its queue, their bytes with those in flight, and sent without an acknowledgement yet. */
  queued: count,
  bytes: bytes,
  in_flight: count,
  delivered: count,
  dropped: count,
})
export type SessionSummary = z.infer<typeof sessionSummary>
export const sessionList = z.array(sessionSummary)

export const sessionDetail = z.extend(sessionSummary, { filters: z.array(subscription) })
export type SessionDetail = z.infer<typeof sessionDetail>

export const ledger = z.object({
  accepted: count,
  settled: count,
  queued: count,
  in_flight: count,
  dropped: counts,
  expired: count,
  dead_lettered: counts,
})

const onFull = z.enum(['reject', 'drop_oldest', 'drop_newest'], 'accepted are reject, drop_oldest and drop_newest')

const ack = z.enum(['fsync', 'upstream', 'buffered'], 'accepted are fsync, upstream and buffered')

/** If all goes on as in the last half minute. */
const forecast = z.object({
  in_per_s: z.number(),
  /** Settled, dropped, expired: out in whatever way. */
  out_per_s: z.number(),
  /** Until a limit is reached; null: not in the foreseeable future. */
  full_in_ms: z.nullable(durationMs),
  /** Until it is empty; null: it is, or will not be in the foreseeable future. */
  drained_in_ms: z.nullable(durationMs),
})
export type Forecast = z.infer<typeof forecast>

const queuePolicy = z.object({
  /** Failed deliveries after which a message is given up; null: never. */
  max_attempts: z.nullable(count),
  retry: z.object({ first_ms: durationMs, max_ms: durationMs, waiting: count }),
  ttl_ms: z.nullable(durationMs),
  max_priority: z.number(),
  single_active_consumer: z.boolean(),
  exclusive: z.boolean(),
  expires_ms: z.nullable(durationMs),
  /** When the publisher of a message is acknowledged: it is on disk; its consumer has settled it, within ack_timeout_ms; it is in memory. */
  ack,
  ack_timeout_ms: durationMs,
})

export const queue = z.object({
  name: z.string(),
  /** named: declared by that name. session: what waits for a session. group: what waits for those that share a subscription. */
  kind: z.enum(['named', 'session', 'group']),
  origin: z.enum(['config', 'api', 'client']),
  durable: z.boolean(),
  consumers: count,
  /** Messages in it, in flight included. */
  depth: count,
  bytes: bytes,
  in_flight: count,
  /** Of those not in flight, how many wait for another attempt, or for room among the dead letters. */
  waiting: count,
  /** So many wait that it delivers no further ones. */
  parked: z.boolean(),
  /** Since its oldest message was accepted; null when empty. */
  oldest_age_ms: z.nullable(durationMs),
  limits: z.object({
    messages: count,
    bytes: bytes,
    /** Null: none, which only queues of sessions and groups have. */
    age_ms: z.nullable(durationMs),
    on_full: onFull,
  }),
  policy: queuePolicy,
  /** Where what leaves it unsettled goes; null: it is dropped and counted. routing_key null: each message keeps its own. */
  dead_letter: z.nullable(z.object({ exchange: z.string(), routing_key: z.nullable(z.string()) })),
  /** Acknowledged before they were written (ack: buffered) and lost by the end of the last run, at most; 0 if that was in order. */
  lost_at_most: count,
  forecast,
  ledger,
})
export type QueueStatus = z.infer<typeof queue>
export const queueList = z.array(queue)

/** An object and nothing else in it: a misspelt member is an error, not a default. */
const requestError: z.core.$ZodErrorMap<z.core.$ZodIssueInvalidType | z.core.$ZodIssueUnrecognizedKeys> = issue =>
  issue.code === 'unrecognized_keys' ? `there is no member ${issue.keys?.join(', ')}` : 'an object is needed'

const wholeNumber = (min: number, max: number) => {
  const rule = `a whole number from ${min} to ${max} is needed`
  return z.int(rule).check(z.gte(min, rule), z.lte(max, rule))
}

const yesOrNo = z.boolean('true or false is needed')
const DAY_MS = 86_400_000
const YEARS_MS = 3650 * DAY_MS

const address = z.strictObject(
  {
    /** Empty: the default exchange, which knows each queue by its name. */
    exchange: z.string('the name of an exchange is needed, or an empty text'),
    /** Null: each message keeps its own. */
    routing_key: z._default(z.nullable(z.string('a text or null is needed')), null),
  },
  { error: requestError },
)
export type Address = z.output<typeof address>

/** Limits and policy of a queue; what is left out is as in the configuration. */
const queueAttributes = z.strictObject(
  {
    limits: z._default(
      z.strictObject(
        {
          messages: z.optional(wholeNumber(1, 1_000_000_000)),
          bytes: z.optional(wholeNumber(65_536, 2 ** 50)),
          age_ms: z.optional(wholeNumber(1000, YEARS_MS)),
          on_full: z.optional(onFull),
        },
        { error: requestError },
      ),
      {},
    ),
    /** Its definition and its messages outlive a restart. */
    durable: z.optional(yesOrNo),
    max_attempts: z.optional(z.nullable(wholeNumber(1, 65_535))),
    retry: z.optional(
      z.strictObject(
        {
          first_ms: z.optional(wholeNumber(1, DAY_MS)),
          max_ms: z.optional(wholeNumber(1, DAY_MS)),
          waiting: z.optional(wholeNumber(1, 100_000)),
        },
        { error: requestError },
      ),
    ),
    ttl_ms: z.optional(z.nullable(wholeNumber(1, YEARS_MS))),
    max_priority: z.optional(wholeNumber(0, MAX_PRIORITY)),
    single_active_consumer: z.optional(yesOrNo),
    /** One consumer at a time. */
    exclusive: z.optional(yesOrNo),
    /** Deleted, with what is in it, when nobody has consumed from it for so long. */
    expires_ms: z.optional(z.nullable(wholeNumber(1, YEARS_MS))),
    dead_letter: z.optional(z.nullable(address)),
    ack: z.optional(ack),
    ack_timeout_ms: z.optional(wholeNumber(1, DAY_MS)),
  },
  { error: requestError },
)
export const queueRequest = z._default(queueAttributes, { limits: {} })
export type QueueRequest = z.output<typeof queueRequest>

const exchangeType = z.enum(['direct', 'topic', 'fanout', 'headers'], 'accepted are direct, topic, fanout and headers')

export const exchange = z.object({
  /** Empty: the default exchange. */
  name: z.string(),
  type: exchangeType,
  durable: z.boolean(),
  internal: z.boolean(),
  alternate_exchange: z.nullable(z.string()),
  origin: z.enum(['built-in', 'config', 'api', 'client']),
})
export type ExchangeStatus = z.infer<typeof exchange>
export const exchangeList = z.array(exchange)

export const exchangeRequest = z.strictObject(
  {
    type: exchangeType,
    /** Its definition outlives a restart. */
    durable: z._default(yesOrNo, true),
    /** Nobody may publish to it; other exchanges may be bound to it. */
    internal: z._default(yesOrNo, false),
    /** Takes what matches no binding. */
    alternate_exchange: z._default(z.nullable(z.string('a name or null is needed')), null),
  },
  { error: requestError },
)
export type ExchangeRequest = z.output<typeof exchangeRequest>

const ARGUMENTS_MAX = 64
const ARGUMENT_BYTES_MAX = 1024
const short = (text: string): boolean => text.length <= ARGUMENT_BYTES_MAX

/** Headers to compare with and, under `x-match`, how: all (default), any, all-with-x, any-with-x. A value of null is satisfied by the header's presence. */
const bindingArguments = z
  .record(
    z.string().check(z.refine(short, `a name of at most ${ARGUMENT_BYTES_MAX} characters is needed`)),
    z.union(
      [z.string().check(z.refine(short)), z.number(), z.boolean(), z.null()],
      `a text of at most ${ARGUMENT_BYTES_MAX} characters, a number, true, false or null is needed`,
    ),
    'an object or null is needed',
  )
  .check(z.refine(values => Object.keys(values).length <= ARGUMENTS_MAX, `there are more than ${ARGUMENTS_MAX}`))

export const bindingRequest = z.strictObject(
  {
    source: z.string('the name of an exchange is needed'),
    destination: z.string('the name of a queue or an exchange is needed'),
    destination_type: z._default(z.enum(['queue', 'exchange'], 'accepted are queue and exchange'), 'queue'),
    /** From `mqtt`: a topic filter; from others: a routing key or pattern. */
    routing_key: z._default(z.string('a text is needed'), ''),
    /** Only for a headers exchange. */
    arguments: z._default(z.nullable(bindingArguments), null),
  },
  { error: requestError },
)
export type BindingRequest = z.output<typeof bindingRequest>

export const binding = z.object({
  source: z.string(),
  destination: z.string(),
  destination_type: z.enum(['queue', 'exchange']),
  routing_key: z.string(),
  arguments: z.nullable(z.record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.null()]))),
  origin: z.enum(['config', 'api', 'client']),
})
export type BindingStatus = z.infer<typeof binding>
export const bindingList = z.array(binding)

const historyEvent = z.object({
  /** A death, in RabbitMQ's words; replayed: an operator sent it on. */
  event: z.enum(['rejected', 'expired', 'maxlen', 'delivery_limit', 'replayed']),
  /** The queue it left. */
  queue: z.string(),
  /** Of a death, what it had been published to; of a replay, where it was sent. */
  exchange: z.string(),
  routing_key: z.string(),
  count,
  first_at: time,
  original_expiration_ms: z.nullable(durationMs),
  /** What the upstream said when it refused the message last. */
  words: z.nullable(z.string()),
})
export type HistoryEvent = z.infer<typeof historyEvent>

const message = z.object({
  /** `<gateway>/<epoch>/<seq>`, the same wherever it goes. */
  id: z.string(),
  /** Where it was published, and with which key; for `mqtt` a topic. */
  exchange: z.string(),
  routing_key: z.string(),
  qos: z.number(),
  /** It was delivered before. */
  redelivered: z.boolean(),
  /** How often it was delivered and not settled. */
  attempts: count,
  priority: z.number(),
  accepted_at: time,
  /** How far that time is trusted, by what is known today. */
  clock,
  age_ms: durationMs,
  /** When it came from another queue; null: it was published to this one. */
  moved_at: z.nullable(time),
  /** What became of it in other queues, newest first. */
  history: z.array(historyEvent),
  content_type: z.nullable(z.string()),
  user_properties: z.array(z.tuple([z.string(), z.string()])),
  payload_bytes: bytes,
  payload: z.string(),
  /** utf8 where the payload is that. */
  encoding: z.enum(['utf8', 'base64']),
})
export type MessageDocument = z.infer<typeof message>
export const messageList = z.array(message)

const peekedMessage = z.extend(message, {
  /** Its place in the queue; never changes. */
  position: count,
  /** Delivered to a consumer and not settled yet. */
  in_flight: z.boolean(),
  /** It waits for another attempt, or for room among the dead letters. */
  waiting: z.boolean(),
  /** The payload is longer than what is shown of it. */
  truncated: z.boolean(),
})
export type PeekedMessage = z.infer<typeof peekedMessage>
export const peekedList = z.array(peekedMessage)

export const purged = z.object({ purged: count })

export const retainedCleared = z.object({ cleared: count })

/** Most messages of one peek or get. */
export const MESSAGES_MAX = 100

export const getRequest = z.strictObject(
  {
    count: z._default(wholeNumber(1, MESSAGES_MAX), 1),
    /** ack: they leave the queue, durably before the answer. requeue: they go back, marked redelivered. */
    ack_mode: z.enum(['ack', 'requeue'], 'accepted are ack and requeue'),
  },
  { error: requestError },
)
export type GetRequest = z.output<typeof getRequest>

const deadLetterQueue = z.object({
  queue: z.string(),
  /** Queues that name it for their dead letters. */
  sources: z.array(z.string()),
  depth: count,
  bytes: bytes,
  oldest_age_ms: z.nullable(durationMs),
})
export type DeadLetterQueue = z.infer<typeof deadLetterQueue>
export const deadLetterList = z.array(deadLetterQueue)

/** Most messages of one replay request. */
export const REPLAY_MAX = 10_000
const momentInTime = z
  .string('a time is needed')
  .check(z.refine(text => !Number.isNaN(Date.parse(text)), 'a time such as 2026-03-01T06:00:00Z is needed'))

/** Which messages; all conditions given must hold. */
export const replayRequest = z.strictObject(
  {
    id: z.optional(z.string('a message id is needed')),
    /** First and last, both included. */
    positions: z.optional(
      z.strictObject(
        { from: wholeNumber(0, Number.MAX_SAFE_INTEGER), to: wholeNumber(0, Number.MAX_SAFE_INTEGER) },
        { error: requestError },
      ),
    ),
    /** When they died, both included; of what was published to the queue itself, when it was accepted. */
    since: z.optional(momentInTime),
    until: z.optional(momentInTime),
    /** Null: where each was published to before it first died. */
    to: z._default(z.nullable(address), null),
    /** Only say what would happen. */
    dry_run: z._default(yesOrNo, false),
    limit: z._default(wholeNumber(1, REPLAY_MAX), REPLAY_MAX),
    /** `next` of the answer before. */
    cursor: z._default(z.nullable(z.string('a text or null is needed')), null),
  },
  { error: requestError },
)
export type ReplayRequest = z.output<typeof replayRequest>

export const replayed = z.object({
  replayed: count,
  /** They stay: nothing is bound to where they would go. */
  unrouted: count,
  /** They stay: they never died, and `to` does not say where they go. */
  unaddressed: count,
  /** The first hundred. */
  destinations: z.array(z.object({ exchange: z.string(), routing_key: z.string(), messages: count })),
  /** It ended early: a target has no room or is not there, or the disk is full. */
  held: z.boolean(),
  /** To go on with, as `cursor`; null: all that was there at the beginning was looked at. */
  next: z.nullable(z.string()),
})
export type ReplayAnswer = z.infer<typeof replayed>

export const stream = z.object({
  name: z.string(),
  origin: z.enum(['config', 'api', 'client']),
  /** Sequence numbers of the oldest message kept and of the next to come; equal when empty. */
  first: count,
  next: count,
  messages: count,
  bytes,
  /** Of the oldest message kept; null when there is none. */
  oldest_at: z.nullable(time),
  retain: z.object({ age_ms: durationMs, bytes }),
  ack: z.enum(['fsync', 'buffered']),
  /** Messages that were acknowledged before they were written and may have been lost when the gateway ended last. */
  lost_at_most: count,
  /** Reading now, and cursors kept. */
  readers: count,
  cursors: count,
  /** Sequence numbers that readers came to after they had been forgotten, since this start. */
  missed: count,
  ledger,
})
export type StreamStatus = z.infer<typeof stream>
export const streamList = z.array(stream)

export const streamDetail = z.extend(stream, {
  /** Where each reader will go on. */
  positions: z.array(z.object({ reader: z.string(), next: count })),
})
export type StreamDetail = z.infer<typeof streamDetail>

const streamMessage = z.extend(message, { sequence: count })
export type StreamMessage = z.infer<typeof streamMessage>
export const streamMessageList = z.array(streamMessage)

const place = z.string('first, last, next, a sequence number or a UTC time is needed')

export const streamReplayRequest = z.strictObject(
  {
    to: address,
    from: z._default(place, 'first'),
    /** Behind the last one; next: all there are now. */
    until: z._default(place, 'next'),
    limit: z._default(wholeNumber(1, REPLAY_MAX), REPLAY_MAX),
  },
  { error: requestError },
)
export type StreamReplayRequest = z.output<typeof streamReplayRequest>

export const streamReplayed = z.object({
  replayed: count,
  /** Nothing is bound to where they would go. */
  unrouted: count,
  /** Where to go on; null: all of the range was sent. */
  next: z.nullable(count),
  /** Nobody can take messages there now: the exchange or queue is missing, a queue or the disk is full. */
  held: z.boolean(),
})
export type StreamReplayed = z.infer<typeof streamReplayed>

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
  forecast,
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

/** Either a topic, or an exchange and a routing key. */
export const publishRequest = z
  .strictObject(
    {
      topic: z.optional(z.string('a text is needed')),
      exchange: z.optional(z.string('a text is needed')),
      routing_key: z.optional(z.string('a text is needed')),
      payload: z.string('a text is needed'),
      /** How the payload is written here; bytes that are not text need base64. */
      encoding: z._default(z.enum(['utf8', 'base64'], 'accepted are utf8 and base64'), 'utf8'),
      qos: z._default(z.union([z.literal(0), z.literal(1), z.literal(2)], 'accepted are 0, 1 and 2'), 1),
      /** Kept as the last message of its topic; empty: none is kept any more. Only topics keep one. */
      retain: z._default(yesOrNo, false),
      /** Queues with priorities deliver the highest first. */
      priority: z._default(wholeNumber(0, MAX_PRIORITY), 0),
    },
    { error: requestError },
  )
  .check(
    z.refine(
      ({ topic, exchange, routing_key }) =>
        topic === undefined
          ? exchange !== undefined && routing_key !== undefined
          : exchange === undefined && routing_key === undefined,
      'either topic, or exchange and routing_key are needed',
    ),
  )

export const publishResponse = z.object({
  /** False: no subscription, no queue and no route wanted it. */
  routed: z.boolean(),
})

/** Most entries of one list in it. */
const DEFINITIONS_MAX = 100_000
const MEBIBYTE = 1024 * 1024
const MINUTE_MS = 60_000

const nameOf = (what: string) => z.string(`the name of ${what} is needed`)
const declarer = z.enum(['api', 'client'])

/** Entries, each either declared over HTTP or by a client, and then in the form `attributes`, or from the configuration, and then whatever it is. */
const entriesOf = <T extends z.core.$ZodLooseShape>(attributes: T) => {
  const entry = z.discriminatedUnion(
    'origin',
    [
      z.strictObject({ ...attributes, origin: declarer }, { error: requestError }),
      z.looseObject({ origin: z.literal('config') }),
    ],
    'an object is needed whose origin is config, api or client',
  )
  const list = z.array(z.unknown(), 'a list is needed')
  const atMost = z.maxLength(DEFINITIONS_MAX, `there are more than ${DEFINITIONS_MAX}; import them in parts`)
  return z._default(z.pipe(list.check(atMost), z.array(entry)), [])
}

/** Exchanges, queues, bindings and streams as they are declared, without their messages. What is left out of an entry is as in PUT. */
export const definitions = z.strictObject(
  {
    format: z.literal(
      DEFINITIONS_FORMAT,
      `${DEFINITIONS_FORMAT} is what this version of Sluice reads; use the version that wrote it`,
    ),
    exchanges: entriesOf({ name: nameOf('an exchange'), ...exchangeRequest.shape }),
    queues: entriesOf({ name: nameOf('a queue'), ...queueAttributes.shape }),
    streams: entriesOf({
      name: nameOf('a stream'),
      retain: z.strictObject(
        { age_ms: wholeNumber(MINUTE_MS, YEARS_MS), bytes: wholeNumber(MEBIBYTE, 2 ** 50) },
        { error: requestError },
      ),
      ack: z.optional(z.enum(['fsync', 'buffered'], 'accepted are fsync and buffered')),
    }),
    bindings: entriesOf(bindingRequest.shape),
  },
  { error: requestError },
)
export type Definitions = z.output<typeof definitions>

/** What `GET definitions` answers: the same in one order, so that the same definitions are the same bytes. */
const definitionEntry = z.looseObject({ origin: z.enum(['config', 'api', 'client']) })
export const definitionsDocument = z.looseObject({
  format: z.number(),
  exchanges: z.array(definitionEntry),
  queues: z.array(definitionEntry),
  streams: z.array(definitionEntry),
  bindings: z.array(definitionEntry),
})
export type DefinitionsDocument = z.infer<typeof definitionsDocument>

const importedKind = z.object({
  /** With dry_run: would be. */
  created: count,
  /** Were there as they are in the document. */
  existing: count,
  /** Come from the configuration, here or where they were exported: left to it. */
  config: count,
})

export const definitionsImported = z.object({
  dry_run: z.boolean(),
  exchanges: importedKind,
  queues: importedKind,
  streams: importedKind,
  bindings: importedKind,
  /** What was created, in words; the first hundred. */
  created: z.array(z.string()),
})
export type DefinitionsImported = z.infer<typeof definitionsImported>

/** RFC 9457. `code` is stable, `detail` is for people. */
export const problem = z.looseObject({
  type: z.string(),
  title: z.string(),
  status: z.number(),
  code: z.string(),
  detail: z.string(),
  /** Where several things are refused at once: each of the first hundred. */
  errors: z.optional(z.array(z.object({ item: z.string(), code: z.string(), detail: z.string() }))),
})
export type Problem = z.infer<typeof problem>
