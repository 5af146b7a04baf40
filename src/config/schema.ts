/*
 * Every option once: name, kind, default, help. From here come the type `Config`, the errors, the overrides by environment and `--set`,
 * `GET /api/v1/config`, docs/configuration.md and docs/config.schema.json. What is not built has no key: an unknown key is an error.
 *
 * The file speaks snake_case and units in words; each section's transform gives the slice that modules take: camelCase, milliseconds, bytes,
 * nothing optional.
 */
import { resolve } from 'node:path'
import * as z from 'zod/mini'
import { isLoopback } from '../model/address.ts'
import { configuredName, exchangeName, queueName, topicFilter } from '../model/names.ts'
import { MAX_PRIORITY, PLAIN_POLICY } from '../model/queue-policy.ts'
import {
  count,
  duration,
  flag,
  listOf,
  oneOf,
  optional,
  optionalSection,
  required,
  requiredSection,
  section,
  sectionsOf,
  setting,
  size,
  text,
} from './option.ts'
import { parseUpstreamUrl } from './upstream-url.ts'

const port = count({ min: 0, max: 65_535 })
const PORT_HELP = '0 takes any free port, which the log tells'
const messages = count({ min: 1, max: 1_000_000_000 })
const words = (pattern: RegExp, reason: string) => (value: string) => {
  if (!pattern.test(value)) throw new RangeError(`${JSON.stringify(value)} ${reason}`)
  return value
}
const host = text(
  'host',
  'an IP address or a host name',
  words(/^[A-Za-z0-9.:_-]{1,253}$/, 'is not an IP address or a host name'),
)
const NO_DEAD_LETTERS = 'none'
const deadLetter = text<string>('queue name', `the name of a queue, or ${NO_DEAD_LETTERS}`, queueName)
// Checked here and plain text from here on: modules take slices, and a brand would only get in their tests' way.
const filter = text<string>('MQTT filter', 'an MQTT topic filter such as sensors/+/temperature', topicFilter)
const name = text<string>('name', '1 to 64 letters, digits, _ and -', configuredName)
const exchange = text<string>('exchange name', '1 to 255 bytes without control characters', exchangeName)

const gatewayId = text(
  'gateway id',
  '1 to 64 letters, digits, ".", "_" and "-"',
  // It is the first part of `<gateway>/<epoch>/<seq>`, so it holds no slash.
  words(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, 'is no gateway id'),
)

const routingKey = text(
  'template',
  'text with {topic}, {topic.0}, {topic.1+}, {client}, {user}, {gateway}',
  words(
    /^(?:[^{}]|\{(?:topic(?:\.\d{1,3}\+?)?|client|user|gateway)\})+$/,
    'has a placeholder that does not exist or a brace that is not closed',
  ),
)

const keySuffix = text(
  'text',
  'text without braces',
  words(/^[^{}]{1,100}$/, 'has a brace, or is longer than 100 characters'),
)

const upstreamUrl = text(
  'AMQP URL',
  'amqp://user:password@host:port/vhost, amqps:// for TLS, or file:PATH of a file that holds it',
  parseUpstreamUrl,
  'url',
)

const file = text(
  'file',
  'a file; a relative path starts at the folder of the configuration file',
  words(/^[^\0]+$/, 'is not a path'),
)

const listener = (defaultPort: number) => ({
  host: setting(host, '127.0.0.1', 'Address to listen on; 0.0.0.0 or :: for all.'),
  port: setting(port, defaultPort, `TCP port; ${PORT_HELP}.`),
  proxy_protocol: setting(
    flag,
    false,
    'Whether every connection comes from a proxy and begins with a PROXY header, version 1 or 2. The address told there is that of the client; connections without one are closed.',
  ),
  trusted_proxies: optional(
    listOf(text('address', 'an IP address, or a network such as 192.0.2.0/24', parseNetwork), { min: 1, max: 100 }),
    'Those proxies; with proxy_protocol, connections from any other address are closed.',
    { absent: '`127.0.0.1` and `::1`' },
  ),
})

interface ProxyOptions {
  readonly proxy_protocol: boolean
  readonly trusted_proxies?: readonly string[] | undefined
}

/** `trustedProxies` are those of a listener; null: clients connect to it themselves. */
function behindProxies<T extends ProxyOptions>(
  { proxy_protocol, trusted_proxies, ...listener }: T,
  context: z.core.ParsePayload,
) {
  if (!proxy_protocol && trusted_proxies !== undefined) {
    const message = 'no proxy is asked for addresses; set proxy_protocol to true, or leave this out'
    context.issues.push({ code: 'custom', message, input: trusted_proxies, path: ['trusted_proxies'] })
  }
  return { ...listener, trustedProxies: proxy_protocol ? (trusted_proxies ?? ['127.0.0.1', '::1']) : null }
}

/** Of a listener; taken anew whenever one of the files changes. */
const tls = z.pipe(
  z.strictObject({
    cert: required(file, 'Certificate in PEM, followed by those between it and an authority the clients know.'),
    key: required(file, 'Its private key in PEM, without a passphrase.'),
    client_cert: setting(
      oneOf(['none', 'optional', 'required']),
      'none',
      'Whether clients are asked for a certificate, and let in without one. One that does not hold is never let in.',
    ),
    ca: optional(file, 'Authorities of client certificates, in PEM.', {
      absent: 'none; needed to ask for certificates',
    }),
    crl: optional(file, 'Revoked certificates, in PEM: a list of each authority in `ca`.', {
      absent: 'none is revoked',
    }),
    user_from: setting(
      oneOf(['cn', 'san_dns', 'san_email', 'san_uri', 'none']),
      'cn',
      'What of a client certificate names the user: the common name of its subject, or its one alternative name of that kind. A certificate that names none, or several, stands for no user.',
    ),
    min_version: setting(oneOf(['TLSv1.2', 'TLSv1.3']), 'TLSv1.2', 'Oldest version of TLS taken.'),
  }),
  z.transform(o => ({
    cert: o.cert,
    key: o.key,
    clientCert: o.client_cert,
    ca: o.ca ?? null,
    crl: o.crl ?? null,
    userFrom: o.user_from,
    minVersion: o.min_version,
  })),
)

const webSocket = {
  path: setting(
    text(
      'path',
      'an absolute path',
      words(/^\/[\w\-.~/]{0,255}$/, 'is no absolute path of letters, digits, -, ., _, ~ and /'),
    ),
    '/mqtt',
    'Where clients connect; nothing else is there.',
  ),
  origins: optional(
    listOf(text('origin', 'https://panel.example, or * for all', parseOrigin), { min: 1, max: 100 }),
    'Whose pages may connect, as browsers say it: any site a browser visits could otherwise connect from there. Clients that are no browsers are not asked.',
    {
      absent:
        'pages of the same host; over ws only if it is an address or localhost, as a name could be made to lead here',
    },
  ),
}

const certificates = { tls: requiredSection(tls, 'Certificates, and what is asked of clients.') }

const listeners = z.pipe(
  z.strictObject({
    mqtt: section(z.pipe(z.strictObject(listener(1883)), z.transform(behindProxies)), 'MQTT over TCP.'),
    mqtts: optionalSection(
      z.pipe(z.strictObject({ ...listener(8883), ...certificates }), z.transform(behindProxies)),
      'MQTT over TLS.',
    ),
    ws: optionalSection(
      z.pipe(z.strictObject({ ...listener(8083), ...webSocket }), z.transform(behindProxies)),
      'MQTT over WebSocket.',
    ),
    wss: optionalSection(
      z.pipe(z.strictObject({ ...listener(8084), ...webSocket, ...certificates }), z.transform(behindProxies)),
      'MQTT over WebSocket over TLS.',
    ),
    unix: optionalSection(
      z.strictObject({
        path: required(file, 'Of the socket file. One that a dead process has left there is replaced.'),
        mode: setting(
          text(
            'permissions',
            'three octal digits in quotes, such as "660"',
            words(/^0?[0-7]{3}$/, 'are no permissions'),
          ),
          '660',
          'Permissions of the file: who may write to it may connect.',
        ),
      }),
      'MQTT over a socket file, for processes of this machine.',
    ),
  }),
  z.transform(({ mqtt, mqtts = null, ws, wss, unix }) => ({
    mqtt,
    mqtts,
    ws: ws === undefined ? null : { ...ws, origins: ws.origins ?? [] },
    wss: wss === undefined ? null : { ...wss, origins: wss.origins ?? [] },
    unix: unix === undefined ? null : { path: unix.path, mode: Number.parseInt(unix.mode, 8) },
  })),
)

const http = z.strictObject({
  host: setting(host, '127.0.0.1', 'Address to listen on. Outside loopback only with tokens_file or auth.users_file.'),
  port: setting(port, 15_680, `TCP port of API, metrics and health; ${PORT_HELP}.`),
  tokens_file: optional(
    file,
    'Tokens that may be shown instead of user and password: a file that `sluice passwd --token` writes. Read again when it changes; one with mistakes is not taken.',
    { absent: 'there are none' },
  ),
})

const patterns = listOf(filter, { min: 0, max: 1000 })
const PATTERNS_HELP = '%c stands for the client identifier, %u for the user'

const accessRule = z.pipe(
  z.strictObject({
    user: optional(
      text('user name', 'a user name, or * for everybody', words(/^[^\0]+$/, 'is no user name')),
      'Whom the rule is for: a user, or *, which is everybody, anonymous clients too.',
      { absent: 'then `group` is given' },
    ),
    group: optional(name, 'Or a group of users.', { absent: 'then `user` is given' }),
    publish: optional(patterns, `Topics that may be published to; ${PATTERNS_HELP}.`, { absent: 'none' }),
    deny_publish: optional(patterns, 'Topics that may not.', { absent: 'none' }),
    subscribe: optional(patterns, 'What may be subscribed to: filters that one of these covers.', { absent: 'none' }),
    deny_subscribe: optional(patterns, 'What may not: filters that one of these overlaps.', { absent: 'none' }),
    consume: optional(
      listOf(text<string>('name', 'the name of a queue or stream', queueName), { min: 0, max: 1000 }),
      `Queues and streams that may be taken from by $queue/NAME and $stream/NAME; ${PATTERNS_HELP}.`,
      { absent: 'none' },
    ),
  }),
  z.transform(o => ({
    user: o.user ?? null,
    group: o.group ?? null,
    publish: o.publish ?? [],
    denyPublish: o.deny_publish ?? [],
    subscribe: o.subscribe ?? [],
    denySubscribe: o.deny_subscribe ?? [],
    consume: o.consume ?? [],
  })),
)

const store = z.pipe(
  z.strictObject({
    commit_interval: setting(
      duration({ min: '1ms', max: '10s' }),
      '50ms',
      'The longest a message waits for its consumer before it is written to disk.',
    ),
    buffered_interval: setting(
      duration({ min: '10ms', max: '1m' }),
      '1s',
      'How much of what is only buffered (ack: buffered, and QoS 0 on its way upstream) a power cut may cost.',
    ),
    disk: setting(
      size({ min: '16MiB', max: '1024TiB' }),
      '8GiB',
      'Most that data_dir may take; new messages are refused beyond.',
    ),
    disk_free_min: setting(
      size({ min: '1MiB', max: '1024TiB' }),
      '200MiB',
      'Free space of the file system below which new messages are refused.',
    ),
  }),
  z.transform(o => ({
    commitIntervalMs: o.commit_interval,
    bufferedIntervalMs: o.buffered_interval,
    diskBytes: o.disk,
    diskFreeMinBytes: o.disk_free_min,
  })),
)

const limits = z.pipe(
  z.strictObject({
    clients: setting(count({ min: 1, max: 1_000_000 }), 2000, 'MQTT connections at once; further ones are refused.'),
    tls_clients: setting(
      count({ min: 1, max: 1_000_000 }),
      500,
      'TLS connections at once, handshakes included: one costs seven times a plain one. Further ones are closed before their handshake.',
    ),
    handshakes: setting(
      count({ min: 1, max: 1000 }),
      8,
      'TLS handshakes at once, half of them for one address at most; further connections wait for their turn.',
    ),
    memory: setting(
      size({ min: '1MiB', max: '64GiB' }),
      '64MiB',
      'What windows of queues, queues in memory and outputs may take together; publishers pause when it is reached.',
    ),
    output_per_client: setting(
      size({ min: '16KiB', max: '1GiB' }),
      '1MiB',
      'Bytes waiting to be sent to one client; beyond, QoS 0 to it is dropped and counted, QoS 1 and 2 stays in its queue.',
    ),
    packet: setting(
      size({ min: '128B', max: '256MiB' }),
      '1MiB',
      'Largest MQTT packet taken; announced to MQTT 5 clients.',
    ),
    receive_max: setting(
      count({ min: 1, max: 65_535 }),
      64,
      'QoS 1 and 2 messages a client may have open towards the gateway; announced to MQTT 5 clients.',
    ),
    inflight: setting(
      count({ min: 1, max: 65_535 }),
      64,
      'QoS 1 and 2 messages open towards one client, or its own receive maximum if that is smaller.',
    ),
    topic_aliases: setting(
      count({ min: 0, max: 65_535 }),
      16,
      'Topic aliases of one connection, each way: announced to MQTT 5 clients, and used towards those that take so many; 0: none.',
    ),
    topic: setting(size({ min: '16B', max: '65535B' }), '1KiB', 'Length of a topic or filter.'),
    topic_levels: setting(count({ min: 1, max: 32_768 }), 128, 'Levels of a topic or filter.'),
    subscriptions_per_session: setting(count({ min: 1, max: 100_000 }), 100, 'Subscriptions of one client.'),
    keep_alive_max: setting(
      duration({ min: '0s', max: '65535s' }),
      '0s',
      'Keep alive imposed on MQTT 5 clients that ask for more or for none; 0s: as the client asks.',
    ),
    session_expiry_max: setting(
      duration({ min: '0s', max: '3650d' }),
      '30d',
      'How long a session outlives its connection at most, whatever the client asks for; MQTT 3.1.1 sessions that are not clean get it whole. 0s: sessions end with their connections.',
    ),
    sessions: setting(
      count({ min: 1, max: 1_000_000 }),
      5000,
      'Sessions that outlive their connections, connected or not; a client that asks for one more is refused (5.0: 0x97).',
    ),
    session_state: setting(
      size({ min: '64KiB', max: '64GiB' }),
      '8MiB',
      'What is remembered of clients beside messages, all together: subscriptions (768 bytes and 256 for each level each, as they take in memory), wills, topic aliases. The first KiB of a session is not counted. ' +
        'Further subscriptions are refused (SUBACK 0x97, 3.1.1: 0x80), and clients with a will that has no room (5.0: 0x97, 3.1.1: 3).',
    ),
    session_queue: section(
      z.pipe(
        z.strictObject({
          messages: setting(messages, 10_000, 'Messages waiting for one client.'),
          bytes: setting(size({ min: '1KiB', max: '64GiB' }), '16MiB', 'Bytes waiting for one client.'),
          on_full: setting(
            oneOf(['drop_oldest', 'drop_newest']),
            'drop_oldest',
            'What gives way when it is full; counted. It never refuses a publisher.',
          ),
          qos0: setting(
            flag,
            false,
            'Whether messages of QoS 0 go through the queues of sessions that outlive their connections, too, and wait there while the client is away.',
          ),
        }),
        z.transform(o => ({ messages: o.messages, bytes: o.bytes, onFull: o.on_full, qos0: o.qos0 })),
      ),
      'Limits of the queue of one MQTT session.',
    ),
    retained: section(
      z.strictObject({
        messages: setting(messages, 100_000, 'Topics with a retained message.'),
        bytes: setting(
          size({ min: '1KiB', max: '64GiB' }),
          '32MiB',
          'Bytes of them, and of their topics in memory (192 each and two a letter); never more than half of limits.memory.',
        ),
      }),
      'Retained messages, all together. Beyond, a message of QoS 1 is refused before it is acknowledged; one of QoS 0 is delivered, not retained, and counted.',
    ),
    queues: setting(
      count({ min: 1, max: 100_000 }),
      5000,
      'Queues, those of the configuration included; further ones are not declared. Groups of shared subscriptions are counted apart, and as many.',
    ),
    exchanges: setting(
      count({ min: 1, max: 100_000 }),
      1000,
      'Exchanges, the built-in ones not counted; further ones are not declared.',
    ),
    bindings: setting(
      count({ min: 1, max: 1_000_000 }),
      20_000,
      'Bindings of queues and exchanges; further ones are not made. Subscriptions are not counted.',
    ),
    login_queue: setting(
      count({ min: 1, max: 100_000 }),
      1000,
      'Passwords waiting to be checked, which happens one at a time; further logins are refused (5.0: 0x89). Those that were right before do not wait.',
    ),
    login_failures: setting(
      count({ min: 0, max: 1000 }),
      10,
      'Different wrong passwords of one address, without ten minutes of rest, after which it is banned (5.0: 0x8A; new connections are closed at once); 0: never. Before that each makes the answer to the next wait longer. IPv6 counts by /64; clients on this machine are slowed, not banned.',
    ),
    ban: setting(
      duration({ min: '1s', max: '1d' }),
      '1m',
      'How long an address is banned the first time; each further time twice as long, up to 64 times this.',
    ),
    connections_per_s: setting(
      count({ min: 0, max: 100_000 }),
      0,
      'New connections of one address a second, and so many at once; further ones are closed before anything is read. 0: no limit.',
    ),
    connect_timeout: setting(
      duration({ min: '100ms', max: '1m' }),
      '10s',
      'How long a connection may take until its CONNECT is here and answered, and before that its TLS handshake; then it is closed.',
    ),
    refuse_disconnect_after: setting(
      duration({ min: '100ms', max: '1h' }),
      '10s',
      'How long a refused publish of an MQTT 3.1.1 client is held back before its connection is closed.',
    ),
  }),
  z.transform(o => ({
    clients: o.clients,
    tls: { clients: o.tls_clients, handshakes: o.handshakes },
    memoryBytes: o.memory,
    outputPerClientBytes: o.output_per_client,
    packetBytes: o.packet,
    receiveMax: o.receive_max,
    inflight: o.inflight,
    topicAliases: o.topic_aliases,
    topicBytes: o.topic,
    topicLevels: o.topic_levels,
    subscriptionsPerSession: o.subscriptions_per_session,
    keepAliveMaxMs: o.keep_alive_max,
    sessionExpiryMaxMs: o.session_expiry_max,
    sessions: o.sessions,
    sessionStateBytes: o.session_state,
    sessionQueue: {
      messages: o.session_queue.messages,
      bytes: o.session_queue.bytes,
      onFull: o.session_queue.onFull,
    },
    sessionQueueQos0: o.session_queue.qos0,
    retained: { messages: o.retained.messages, bytes: Math.min(o.retained.bytes, o.memory / 2) },
    declared: { queues: o.queues, exchanges: o.exchanges, bindings: o.bindings },
    loginQueue: o.login_queue,
    addresses: { connectionsPerS: o.connections_per_s, loginFailures: o.login_failures, banMs: o.ban },
    connectTimeoutMs: o.connect_timeout,
    refuseDisconnectAfterMs: o.refuse_disconnect_after,
  })),
)

const upstream = z.pipe(
  z.strictObject({
    urls: required(
      listOf(upstreamUrl, { min: 1, max: 8 }),
      'Where the AMQP broker is. The first is preferred; the others are tried, in turn, while it cannot be reached. Files are read anew for each attempt to connect.',
    ),
    tls: section(
      z.pipe(
        z.strictObject({
          ca: optional(file, "Authorities of the upstream's certificate, in PEM.", {
            absent: 'those the runtime brings along',
          }),
          cert: optional(file, 'Our certificate in PEM, for an upstream that asks for one.', { absent: 'none' }),
          key: optional(file, 'Its private key in PEM, without a passphrase.', { absent: 'none' }),
        }),
        z.transform(o => ({ ca: o.ca ?? null, cert: o.cert ?? null, key: o.key ?? null })),
      ),
      'For amqps. Read anew for each attempt to connect. With a certificate and no user in the URL, the certificate is the login (SASL EXTERNAL).',
    ),
    window: setting(count({ min: 1, max: 65_535 }), 256, 'Messages sent and not yet confirmed, at most.'),
    share: section(
      z.strictObject({
        live: setting(count({ min: 1, max: 100 }), 70, 'Weight of what comes in while the link forwards.'),
        backlog: setting(count({ min: 1, max: 100 }), 30, 'Weight of what had to wait for the link.'),
      }),
      'How live messages and backlog share the window while both have messages; each gets its part, and all of it while it is alone.',
    ),
    drain: section(
      z.pipe(
        z.strictObject({
          messages_per_s: setting(count({ min: 0, max: 1_000_000 }), 0, 'Messages a second; 0: no limit.'),
          bytes_per_s: setting(
            size({ min: '0B', max: '1GiB' }),
            '0B',
            'Bytes a second of messages as they are stored, headers of AMQP not counted; 0B: no limit.',
          ),
        }),
        z.transform(o => ({ messagesPerS: o.messages_per_s, bytesPerS: o.bytes_per_s })),
      ),
      'How quickly the backlog may leave at most; live messages are not held back.',
    ),
    heartbeat: setting(duration({ min: '1s', max: '10m' }), '15s', 'AMQP heartbeat asked for, whole seconds.'),
    stall_timeout: setting(
      duration({ min: '100ms', max: '1h' }),
      '10s',
      'A link with unconfirmed messages and no confirm for so long is cut and opened anew.',
    ),
    reconnect: section(
      z.pipe(
        z.strictObject({
          first: setting(duration({ min: '10ms', max: '1h' }), '250ms', 'First pause before connecting again.'),
          max: setting(duration({ min: '10ms', max: '1h' }), '8s', 'Longest pause.'),
          connect_timeout: setting(duration({ min: '100ms', max: '5m' }), '5s', 'For the TCP connection.'),
          handshake_timeout: setting(
            duration({ min: '100ms', max: '5m' }),
            '5s',
            'For the handshakes of TLS and AMQP after it.',
          ),
          return: setting(
            duration({ min: '1s', max: '1d' }),
            '1m',
            'How often the first URL is tried while another one is in use; the link goes back when it answers.',
          ),
        }),
        z.transform(o => ({
          firstMs: o.first,
          maxMs: o.max,
          connectTimeoutMs: o.connect_timeout,
          handshakeTimeoutMs: o.handshake_timeout,
          returnMs: o.return,
        })),
      ),
      'Pauses between attempts to connect; they grow with jitter.',
    ),
  }),
  z.transform(o => ({
    urls: o.urls,
    tls: o.tls,
    window: o.window,
    share: o.share,
    drain: o.drain,
    heartbeatMs: o.heartbeat,
    stallTimeoutMs: o.stall_timeout,
    reconnect: o.reconnect,
  })),
)

/** Of a queue that outlives the process: an outbox, a named queue. */
const queueLimits = z.pipe(
  z.strictObject({
    messages: setting(messages, 1_000_000, 'Messages waiting, at most.'),
    bytes: setting(size({ min: '64KiB', max: '1024TiB' }), '2GiB', 'Bytes waiting, at most.'),
    age: setting(duration({ min: '1s', max: '3650d' }), '7d', 'Older messages are dropped and counted as expired.'),
    on_full: setting(
      oneOf(['reject', 'drop_oldest', 'drop_newest']),
      'reject',
      'reject: refuse the publisher before acknowledging; the others discard and count.',
    ),
  }),
  z.transform(o => ({ messages: o.messages, bytes: o.bytes, ageMs: o.age, onFull: o.on_full })),
)

/** What a queue has that is declared without limits. */
export const DEFAULT_QUEUE_LIMITS = queueLimits.parse({})

const retryOptions = {
  backoff: section(
    z.pipe(
      z.strictObject({
        first: setting(duration({ min: '1ms', max: '1d' }), '1s', 'Pause after the first failed delivery; it doubles.'),
        max: setting(duration({ min: '1ms', max: '1d' }), '5m', 'Longest pause.'),
      }),
      z.transform(o => ({ firstMs: o.first, maxMs: o.max })),
    ),
    'How long a message waits after a failed delivery, while others pass it.',
  ),
  waiting: setting(
    count({ min: 1, max: 100_000 }),
    10_000,
    'Messages that may wait so at once; while so many do, the queue delivers only what has waited long enough.',
  ),
}

/** Pauses between failed deliveries. */
const retry = z.pipe(
  z.strictObject(retryOptions),
  z.transform(o => ({ ...o.backoff, waiting: o.waiting })),
)

/** Of a route, whose consumer is the upstream. */
const routeRetry = z.pipe(
  z.strictObject({
    max_attempts: setting(
      count({ min: 1, max: 65_535 }),
      10,
      'Times the upstream may refuse a message, while it takes others of the route, before the message becomes a dead letter.',
    ),
    ...retryOptions,
  }),
  z.transform(o => ({ maxAttempts: o.max_attempts, retry: { ...o.backoff, waiting: o.waiting } })),
)

const ackOptions = {
  ack: setting(
    oneOf(['fsync', 'upstream', 'buffered']),
    'fsync',
    'When a publisher of QoS 1 or 2 is acknowledged. fsync: the message is on disk, or its consumer has settled it; upstream: its consumer has settled it, and it is never written; ' +
      'buffered: it is in memory, and written within store.buffered_interval.',
  ),
  ack_timeout: setting(
    duration({ min: '10ms', max: '10m' }),
    '5s',
    'With ack: upstream, what is not settled by then is taken out and its publisher refused; while nobody takes messages it is refused at once.',
  ),
}

const namedQueue = z.pipe(
  z.strictObject({
    bind: optional(listOf(filter, { min: 0, max: 1000 }), 'Topics whose messages enter the queue.', {
      absent: 'none; bindings may be added over the API',
    }),
    limits: section(queueLimits, 'Limits of the queue.'),
    max_attempts: optional(
      count({ min: 1, max: 65_535 }),
      'Failed deliveries after which a message is given up; a lost consumer fails what it held.',
      { absent: 'a message is tried for ever' },
    ),
    retry: section(retry, 'Pauses between failed deliveries.'),
    ttl: optional(
      duration({ min: '1ms', max: '3650d' }),
      'A message that waited longer is never delivered; it is expired.',
      {
        absent: 'limits.age alone',
      },
    ),
    max_priority: setting(
      count({ min: 0, max: MAX_PRIORITY }),
      0,
      'Messages of higher priority come first; above this all count alike.',
    ),
    single_active_consumer: setting(
      flag,
      false,
      'Of several consumers only the first gets messages; when it goes, the next.',
    ),
    dead_letter: optional(deadLetter, 'Queue that takes what leaves this one unsettled; declared if it is not there.', {
      absent: 'none: such messages are dropped and counted',
    }),
    ...ackOptions,
  }),
  z.transform(o => ({
    bind: o.bind ?? [],
    limits: o.limits,
    policy: {
      ...PLAIN_POLICY,
      maxAttempts: o.max_attempts ?? Number.POSITIVE_INFINITY,
      retry: o.retry,
      ttlMs: o.ttl ?? Number.POSITIVE_INFINITY,
      maxPriority: o.max_priority,
      hasSingleActiveConsumer: o.single_active_consumer,
      ack: o.ack,
      ackTimeoutMs: o.ack_timeout,
    },
    deadLetter: queueOrNone(o.dead_letter ?? NO_DEAD_LETTERS),
  })),
)

const stream = z.pipe(
  z.strictObject({
    bind: optional(listOf(filter, { min: 0, max: 1000 }), 'Topics whose messages enter the stream.', {
      absent: 'none; bindings may be added over the API',
    }),
    retain: section(
      z.pipe(
        z.strictObject({
          age: setting(duration({ min: '1m', max: '3650d' }), '7d', 'Older messages are forgotten.'),
          bytes: setting(
            size({ min: '1MiB', max: '1024TiB' }),
            '1GiB',
            'The oldest messages are forgotten when the stream is larger.',
          ),
        }),
        z.transform(o => ({ ageMs: o.age, bytes: o.bytes })),
      ),
      'What is kept. Forgetting is by segments of up to 256 KiB, so that somewhat more is kept.',
    ),
    ack: setting(
      oneOf(['fsync', 'buffered']),
      'fsync',
      'When a publisher of QoS 1 or 2 is acknowledged. fsync: the message is on disk; buffered: it is in memory, and written within store.buffered_interval.',
    ),
  }),
  z.transform(o => ({ bind: o.bind ?? [], retention: o.retain, ack: o.ack })),
)

const route = z.pipe(
  z.strictObject({
    from: required(listOf(filter, { min: 1, max: 1000 }), 'Topics to forward.'),
    upstream: required(name, 'Name of the upstream, a key of `upstreams`.'),
    exchange: requiredSection(
      z.strictObject({
        name: required(exchange, 'Exchange to publish to.'),
        type: setting(oneOf(['topic', 'direct', 'fanout', 'headers']), 'topic', 'Its type, if it is declared.'),
        declare: setting(
          {
            type: 'word',
            accepts: 'true, passive, false',
            secrecy: 'public',
            schema: z.pipe(
              z.union([z.boolean(), z.enum(['true', 'passive', 'false'])]),
              z.transform((value): boolean | 'passive' =>
                value === 'passive' ? value : value === true || value === 'true',
              ),
            ),
          },
          true,
          'true: declare it durable; passive: only check that it exists; false: neither.',
        ),
      }),
      'Where the messages go upstream.',
    ),
    routing_key: setting(routingKey, '{topic}', 'Routing key; the text of {topic} is written by `codec`.'),
    codec: setting(
      oneOf(['escaped', 'rabbitmq']),
      'escaped',
      'How topics become routing keys: escaped is reversible; rabbitmq swaps / and . as its MQTT plugin does.',
    ),
    qos0: setting(
      oneOf(['buffer', 'pass', 'ignore']),
      'buffer',
      'QoS 0 messages: buffer like the rest, pass only while connected, or ignore.',
    ),
    ...ackOptions,
    order: setting(
      oneOf(['live_first', 'strict']),
      'live_first',
      'live_first: after an outage what comes in overtakes the backlog, which is marked as replay; each in its own order. strict: nothing overtakes.',
    ),
    priority: setting(
      count({ min: 0, max: MAX_PRIORITY }),
      0,
      'Routes of a higher priority go first, and have twice the part of the window for each priority more; those of a lower one always have at least one message out.',
    ),
    late: section(
      z.pipe(
        z.strictObject({
          exchange: optional(exchange, 'Exchange for backlog; declared as the one above.', {
            absent: 'the same as for live messages',
          }),
          key_suffix: optional(keySuffix, 'Text behind the routing key of backlog, such as .late', { absent: 'none' }),
        }),
        z.transform(o => ({ exchange: o.exchange ?? null, keySuffix: o.key_suffix ?? '' })),
      ),
      'Where messages go that had to wait for the link, if not to the same place.',
    ),
    retry: section(routeRetry, 'Messages that the upstream refuses (returned, nacked, or closing the channel).'),
    limits: section(queueLimits, 'Limits of the outbox, the queue that keeps messages while the upstream is away.'),
    dead_letter: optional(
      deadLetter,
      'Queue for what leaves the outbox unsettled, within the byte limit of the route; none: it is dropped and counted.',
      { absent: 'name of the route and .dead' },
    ),
  }),
  z.transform(o => ({
    from: o.from,
    upstream: o.upstream,
    exchange: o.exchange,
    routingKey: o.routing_key,
    codec: o.codec,
    qos0: o.qos0,
    order: o.order,
    priority: o.priority,
    late: o.late,
    limits: o.limits,
    deadLetter: o.dead_letter ?? null,
    policy: { ...PLAIN_POLICY, ...o.retry, ack: o.ack, ackTimeoutMs: o.ack_timeout },
  })),
)

/** The whole file. */
export const configSchema = z.pipe(
  z.strictObject({
    gateway: section(
      z.pipe(
        z.strictObject({
          id: optional(gatewayId, 'Who this gateway is, in every message id it gives out.', {
            absent: 'host name and 6 random characters, kept in data_dir',
          }),
          sys_interval: setting(
            duration({ min: '0s', max: '1d' }),
            '10s',
            'How often those who have subscribed to $SYS/broker/# hear what has changed; 0s: there are no such topics.',
          ),
        }),
        z.transform(o => ({ id: o.id ?? null, sysIntervalMs: o.sys_interval })),
      ),
      'This gateway.',
    ),
    data_dir: setting(
      text('path', 'a directory', words(/^[^\0]+$/, 'is not a path')),
      './data',
      'The only place written to; a relative path starts at the working directory.',
    ),
    listeners: section(listeners, 'Where devices connect.'),
    http: section(http, 'API, metrics and health.'),
    auth: section(
      z.strictObject({
        allow_anonymous: optional(
          flag,
          'Whether clients may connect without proof of who they are. true: from anywhere; not given: from this machine.',
          { absent: 'true only while every listener is on loopback, and then for clients on this machine' },
        ),
        users_file: optional(
          file,
          'Who may log in with a password: a file that `sluice passwd` writes. Whoever gives a name must prove it from then on. Read again when it changes; one with mistakes is not taken.',
          { absent: 'there are no users, and names are not checked' },
        ),
        acl: optional(
          sectionsOf(accessRule, { most: 1000, each: 'a rule with `user` or `group`' }),
          'Who may publish, subscribe and consume what. The first rule that names the act and matches decides; what none decides is refused once there is a rule (docs/security.md).',
          { absent: 'no rules: everything is allowed' },
        ),
      }),
      'Who may connect.',
    ),
    store: section(store, 'Messages on disk.'),
    limits: section(limits, 'What clients may take.'),
    upstreams: describedRecord(upstream, 'AMQP brokers to forward to, by name.'),
    routes: describedRecord(route, 'What is forwarded where, by name.'),
    queues: describedRecord(namedQueue, 'Durable queues that keep messages until somebody takes them, by name.'),
    streams: describedRecord(stream, 'Messages kept for reading again, from any place, as often as wanted, by name.'),
    clock: section(
      z.strictObject({
        trust: setting(
          oneOf(['auto', 'always', 'never']),
          'auto',
          'When the wall clock is believed. auto: once a time service has set it (systemd-timesyncd, or any that timedatectl knows of); always: from the start, for machines with a clock of their own; ' +
            'never. Time spent switched off counts towards ages and expiry only if it was believed before and after.',
        ),
      }),
      'The wall clock of the machine.',
    ),
    log: section(
      z.strictObject({
        level: setting(
          oneOf(['silent', 'fatal', 'error', 'warn', 'info', 'debug', 'trace']),
          'info',
          'Least important line that is written.',
        ),
      }),
      'The log, JSON lines on standard output.',
    ),
  }),
  z.transform(o => ({
    gateway: o.gateway,
    dataDir: resolve(o.data_dir),
    listeners: o.listeners,
    http: { host: o.http.host, port: o.http.port, tokensFile: o.http.tokens_file ?? null },
    auth: {
      anonymous: anonymousRule(
        o.auth.allow_anonymous,
        portsOf(o.listeners).every(({ host }) => isLoopback(host)),
      ),
      usersFile: o.auth.users_file ?? null,
      acl: o.auth.acl ?? [],
    },
    store: o.store,
    limits: o.limits,
    upstreams: Object.entries(o.upstreams).map(([key, value]) => ({ name: key, ...value })),
    routes: Object.entries(o.routes).map(([key, value]) => ({
      name: key,
      ...value,
      deadLetter: queueOrNone(value.deadLetter ?? `${key}.dead`),
    })),
    queues: Object.entries(o.queues).map(([key, value]) => ({ name: key, ...value })),
    streams: Object.entries(o.streams).map(([key, value]) => ({ name: key, ...value })),
    clock: o.clock,
    log: o.log,
  })),
)

type Parsed = z.output<typeof configSchema>

/** Everything resolved: defaults filled in, durations in milliseconds, sizes in bytes. */
export interface Config extends Parsed {
  /** The same in the file's own keys and words, defaults included and secrets masked: what `GET /api/v1/config` shows. */
  readonly effective: Readonly<Record<string, unknown>>
  /** The same with secrets: to be compared, never shown. */
  readonly options: Readonly<Record<string, unknown>>
  /** What is accepted and yet worth a line in the log. */
  readonly warnings: readonly string[]
}

export type UpstreamConfig = Config['upstreams'][number]
export type RouteConfig = Config['routes'][number]
export type NamedQueueConfig = Config['queues'][number]
export type StreamConfig = Config['streams'][number]
export type TlsConfig = z.output<typeof tls>
type ListenersConfig = z.output<typeof listeners>

/** The listeners that have a port, by name. */
export function portsOf({ unix: _, ...listeners }: ListenersConfig): { name: string; host: string; port: number }[] {
  return Object.entries(listeners).flatMap(([name, listener]) =>
    listener === null ? [] : [{ name, host: listener.host, port: listener.port }],
  )
}

/** The listeners with TLS, by name. */
export function tlsOf({ mqtts, wss }: ListenersConfig): { name: string; tls: TlsConfig }[] {
  return Object.entries({ mqtts, wss }).flatMap(([name, listener]) =>
    listener === null ? [] : [{ name, tls: listener.tls }],
  )
}

/** Who needs no proof. Without a word of the operator that is never more than the machine itself, even if the address of a client is only told by a proxy on it. */
function anonymousRule(isAllowed: boolean | undefined, isAllLoopback: boolean): 'everybody' | 'local' | 'nobody' {
  if (isAllowed === undefined) return isAllLoopback ? 'local' : 'nobody'
  return isAllowed ? 'everybody' : 'nobody'
}

function queueOrNone(name: string): string | null {
  return name === NO_DEAD_LETTERS ? null : name
}

function describedRecord<T extends z.ZodMiniType>(value: T, help: string) {
  return section(z.record(name.schema, value), help)
}

const OCTET = '(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)'
const IPV4 = new RegExp(`^${OCTET}(?:\\.${OCTET}){3}$`)

function parseNetwork(value: string): string {
  const [address = '', bits, ...more] = value.split('/')
  const isIPv6 = address.includes(':') && URL.canParse(`http://[${address}]/`)
  if ((!isIPv6 && !IPV4.test(address)) || more.length > 0) throw new RangeError(`${JSON.stringify(value)} is neither`)
  if (bits !== undefined && !(/^\d{1,3}$/.test(bits) && Number(bits) <= (isIPv6 ? 128 : 32))) {
    throw new RangeError(`${JSON.stringify(value)} has a wrong length of prefix`)
  }
  return value
}

function parseOrigin(value: string): string {
  if (value === '*') return value
  const url = URL.parse(value)
  if (url === null || !/^https?:$/.test(url.protocol)) throw new RangeError(`${JSON.stringify(value)} is no origin`)
  if (url.origin !== value) throw new RangeError(`a browser says ${url.origin} for ${JSON.stringify(value)}`)
  return value
}
