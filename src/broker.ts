import { isIPv6 } from 'node:net'
import { prepareAddon } from './addon.ts'
import type { Gateway } from './api/gateway.ts'
import { gatewayId } from './config/gateway-id.ts'
import {
  type Config,
  DEFAULT_QUEUE_LIMITS,
  type NamedQueueConfig,
  type RouteConfig,
  type StreamConfig,
  type UpstreamConfig,
} from './config/schema.ts'
import { readUpstreamUrl } from './config/upstream-url.ts'
import { Access } from './core/access.ts'
import { AccessRules } from './core/acl.ts'
import { AddressGate } from './core/address-gate.ts'
import { BootClock } from './core/boot-clock.ts'
import { type Clock, systemClock } from './core/clock.ts'
import { CommitSchedule } from './core/commit-schedule.ts'
import { Declarations } from './core/declarations.ts'
import { Identities } from './core/identity.ts'
import { MemoryBudget } from './core/memory.ts'
import type { MessageAddress } from './core/mover.ts'
import type { Queue, QueueLimits } from './core/queue.ts'
import { Retained } from './core/retained.ts'
import { Router } from './core/router.ts'
import { isReservedTopic, RoutingTable } from './core/routing-table.ts'
import { KeptSessions, sessionQueueLimits } from './core/sessions.ts'
import { Streams } from './core/streams.ts'
import { Tickets } from './core/tickets.ts'
import { Topology } from './core/topology.ts'
import { RunningGateway } from './gateway.ts'
import { Forecasts, type Stock, type Stocks } from './gateway-forecasts.ts'
import { deviceListeners } from './gateway-listeners.ts'
import { gatewayMetrics } from './gateway-metrics.ts'
import { Reload, type ReloadReport } from './gateway-reload.ts'
import { SysTopics } from './gateway-sys.ts'
import { MQTT_EXCHANGE } from './model/message.ts'
import { type CreateLevel, createLevel } from './store/level.ts'
import { Store, type StoreOptions } from './store/store.ts'
import { LimitedLog } from './telemetry/limited-log.ts'
import { changeLevel, type Logger } from './telemetry/log.ts'
import { Metrics, processMetrics } from './telemetry/metrics.ts'
import { isTimeSynchronised } from './time-sync.ts'
import { Handshakes } from './transport/handshakes.ts'
import type { Listener } from './transport/listener.ts'

/** How often queues, streams and retained messages are looked at for those whose time is over. */
const EXPIRY_INTERVAL_MS = 1_000

/** Dead letters wait for somebody to look at them: ten years, the longest age a queue can be given. */
const DEAD_LETTERS_AGE_MS = 3650 * 86_400_000

/** Limits that are read where they are used, and take no part in what `limits.memory` covers. */
const COUNTING_LIMITS = [
  'limits.clients',
  'limits.sessions',
  'limits.session_state',
  'limits.subscriptions_per_session',
  'limits.receive_max',
  'limits.inflight',
  'limits.topic_aliases',
  'limits.topic',
  'limits.topic_levels',
  'limits.keep_alive_max',
  'limits.session_expiry_max',
  'limits.connect_timeout',
  'limits.refuse_disconnect_after',
]

/** The same of a configuration. */
function countingLimits({ limits }: Config) {
  const { clients, sessions, sessionStateBytes, subscriptionsPerSession, receiveMax, inflight } = limits
  const { topicAliases, topicBytes, topicLevels } = limits
  const { keepAliveMaxMs, sessionExpiryMaxMs, connectTimeoutMs, refuseDisconnectAfterMs } = limits
  return {
    ...{ clients, sessions, sessionStateBytes, subscriptionsPerSession, receiveMax, inflight },
    ...{ topicAliases, topicBytes, topicLevels },
    ...{ keepAliveMaxMs, sessionExpiryMaxMs, connectTimeoutMs, refuseDisconnectAfterMs },
  }
}

export interface Address {
  readonly host: string
  readonly port: number
}

/** What the broker takes from outside; all but the log is replaced in tests only. */
export interface BrokerParts {
  readonly log: Logger
  readonly clock?: Clock
  /** What `clock.trust: auto` goes by. */
  readonly isTimeSynchronised?: () => Promise<boolean>
}

/**
 * The whole gateway, composed here and nowhere else: store → core → bridge → listeners → API, and stopped in the other order.
 */
export class Broker {
  /** Bound ports by listener: those of devices under their names in the configuration, and `http`. */
  readonly addresses: ReadonlyMap<string, Address>
  /** What the API shows, for callers in the same process. */
  readonly gateway: Gateway
  readonly #listeners: ReadonlyMap<string, Listener>
  readonly #reload: Reload
  readonly #stops: readonly (() => Promise<void>)[]
  #stopped: Promise<void> | null = null

  private constructor({ addresses, gateway, listeners, reload }: Composition, stops: readonly (() => Promise<void>)[]) {
    this.addresses = addresses
    this.gateway = gateway
    this.#listeners = listeners
    this.#reload = reload
    this.#stops = stops
  }

  /**
   * Resolves when every port is open. Rejects with a BrokerError that says which part could not start (STORE_LOCKED, STORE_UNWRITABLE,
   * LISTENER_PORT_IN_USE, …); what had been started is stopped again.
   */
  static async start(config: Config, parts: BrokerParts): Promise<Broker> {
    const stops: (() => Promise<void>)[] = []
    try {
      const composition = await compose(config, parts, stop => stops.unshift(stop))
      return new Broker(composition, stops)
    } catch (error) {
      for (const stop of stops) await stop()
      throw error
    }
  }

  /** Takes over what of a configuration can be changed now, and what files hold that it names (`Listener.reload`). No connection ends that is still allowed. */
  reload(config: Config): ReloadReport {
    for (const listener of this.#listeners.values()) listener.reload()
    return this.#reload.take(config)
  }

  /** Closes listeners first, the store last; everything taken in is on disk when it resolves. May be called again. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stopAll()
    return this.#stopped
  }

  async #stopAll(): Promise<void> {
    for (const stop of this.#stops) await stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }
}

interface Composition {
  readonly addresses: ReadonlyMap<string, Address>
  readonly gateway: Gateway
  readonly listeners: ReadonlyMap<string, Listener>
  readonly reload: Reload
}

async function compose(
  config: Config,
  { log, clock: machineClock = systemClock, isTimeSynchronised: isSynchronised = isTimeSynchronised }: BrokerParts,
  onStop: (stop: () => Promise<void>) => void,
): Promise<Composition> {
  // Before the store, which would take a library that can't be loaded for damage.
  prepareAddon({ dataDirectory: config.dataDir })
  const id = await gatewayId({ configured: config.gateway.id, dataDir: config.dataDir })
  const [store, { Upstream, MqttServer, ApiServer }] = await openAndLoad({
    directory: config.dataDir,
    gateway: id,
    diskBytes: config.store.diskBytes,
    diskFreeMinBytes: config.store.diskFreeMinBytes,
    log,
    wallMs: machineClock.wallMs,
    monotonicMs: machineClock.monotonicMs,
  })
  onStop(() => store.close())
  // Nobody below sees the machine's wall clock, so that nothing happens when it jumps.
  const clock: Clock = {
    monotonicMs: machineClock.monotonicMs,
    wallMs: () => machineClock.monotonicMs() + store.boot.wallOffsetMs,
  }

  const memory = new MemoryBudget(config.limits.memoryBytes)
  const tickets = new Tickets()
  const schedule = new CommitSchedule({
    store,
    tickets,
    bufferedMs: config.store.bufferedIntervalMs,
    monotonicMs: clock.monotonicMs,
  })
  const table = new RoutingTable()
  const identities = new Identities(
    () => store.boot,
    boot => store.bootRecord(boot),
    clock,
  )
  const ageMs = (bytes: Buffer, at: number): number => identities.waitedMs(bytes, at)
  const topology = new Topology({ store, schedule, tickets, memory, clock, table, ageMs })
  const retained = new Retained({ store, schedule, memory, ageMs, limits: config.limits.retained })
  const router = new Router({
    table,
    tickets,
    schedule,
    memory,
    retained,
    clock,
    boot: store.boot.boot,
    trust: () => store.boot.clock,
    commitIntervalMs: config.store.commitIntervalMs,
    refusal: () => store.refusal,
  })
  store.onRefusalChange = () => {
    if (store.refusal === null) router.resumePublishers()
  }
  onStop(() => {
    topology.settleUp()
    return schedule.stop()
  })
  const streams = new Streams({
    store,
    schedule,
    tickets,
    memory,
    clock,
    table,
    topology,
    ageMs,
    configured: config.streams.map(({ name }) => name),
  })
  onStop(async () => streams.settleUp())
  const queueLimits = sessionQueueLimits(config.limits.sessionQueue)
  const keptSessions = new KeptSessions({ store, schedule, tickets, topology, identities, clock, queueLimits })
  await keptSessions.load()
  await streams.load()
  await retained.load()
  for (const { name, lostAtMost } of [...topology.queues(), ...streams.all()]) {
    if (lostAtMost > 0)
      log.warn(
        { queue: name, at_most: lostAtMost },
        'messages acknowledged before they were written may be lost: the last run did not end in order',
      )
  }
  const declarations = new Declarations({
    store,
    schedule,
    table,
    topology,
    streams,
    limits: config.limits.declared,
    log,
  })
  const outboxes = new Map<string, Queue>()
  for (const route of config.routes) outboxes.set(route.name, await openOutbox(route, topology, declarations))
  for (const queue of config.queues) await openQueue(queue, topology, declarations)
  for (const stream of config.streams) await openStream(stream, streams, declarations)
  await openDeadLetterQueues(config, topology)
  await declarations.load()

  const tlsFiles = config.upstreams.some(hasTlsFiles) ? await import('./config/tls-files.ts') : null
  const upstreams = config.upstreams.map(
    ({ name, urls, tls, ...options }) =>
      new Upstream({
        name,
        login: () => ({ urls: urls.map(readUpstreamUrl), tls: tlsFiles?.readUpstreamTls(tls) ?? NO_TLS_FILES }),
        options,
        routes: config.routes
          .filter(route => route.upstream === name)
          .map(route => ({ route, queue: outboxOf(outboxes, route) })),
        identities,
        log,
        clock,
        random: Math.random,
      }),
  )
  for (const upstream of upstreams) {
    upstream.start()
    onStop(() => upstream.stop())
  }

  const expiry = setInterval(() => {
    topology.expire()
    declarations.expire()
    streams.retain()
    retained.expire()
    keptSessions.expire()
  }, EXPIRY_INTERVAL_MS)
  onStop(async () => clearInterval(expiry))

  const gate = new AddressGate(config.limits.addresses, clock.monotonicMs)
  const { watchedUsers, watchedTokens } = await openCredentials(config, log)
  for (const watched of [watchedUsers, watchedTokens]) if (watched !== null) onStop(() => watched.stop())
  const access = new Access({
    anonymous: config.auth.anonymous,
    users: watchedUsers?.known ?? null,
    tokens: watchedTokens?.known ?? null,
    gate,
    loginQueue: config.limits.loginQueue,
    wallMs: clock.wallMs,
  })
  const rules = new AccessRules(config.auth.acl)
  const mqtt = new MqttServer({
    router,
    topology,
    streams,
    keptSessions,
    retained: {
      walk: filter => {
        if (isReservedTopic(filter)) return config.gateway.sysIntervalMs > 0 ? sys.walk(filter) : null
        return retained.messages > 0 ? retained.walk(filter) : null
      },
    },
    memory,
    limits: config.limits,
    log,
    clientLog: new LimitedLog(log, clock.monotonicMs),
    clock,
    identities,
    authenticator: access,
    rules,
  })
  if (watchedUsers !== null) watchedUsers.onChange = () => mqtt.review(identity => access.review(identity))
  const sys = new SysTopics({ mqtt, router, topology, retained, access, clock })
  if (config.gateway.sysIntervalMs > 0) sys.start(config.gateway.sysIntervalMs)
  onStop(async () => sys.stop())
  mqtt.restore(await keptSessions.restore())
  const addresses = new Map<string, Address>()
  const handshakes = new Handshakes({
    atOnce: config.limits.tls.handshakes,
    clientsMax: config.limits.tls.clients,
    deadlineMs: config.limits.connectTimeoutMs,
    monotonicMs: clock.monotonicMs,
  })
  const common = { log, admits: (address: string) => gate.admits(address) }
  const { listeners, tlsListeners } = await deviceListeners(
    config,
    { ...common, handshakes, monotonicMs: clock.monotonicMs },
    onStop,
  )
  for (const [name, listener] of listeners) {
    await listener.start(socket => mqtt.accept(socket))
    onStop(() => listener.stop())
    addresses.set(name, listener.address())
  }
  // First, so that clients still hear why: the server takes no new ones meanwhile.
  onStop(() => mqtt.stop())

  const forecasts = new Forecasts({ read: () => stocks(topology, store), monotonicMs: clock.monotonicMs })
  forecasts.samples.start()
  onStop(async () => forecasts.samples.stop())
  const reload = new Reload(config)
  reload.on(['auth.acl'], ({ auth }) => {
    rules.replace(auth.acl)
    void mqtt.rulesChanged()
  })
  reload.on(['auth.allow_anonymous'], ({ auth }) => {
    access.anonymous = auth.anonymous
  })
  reload.on(COUNTING_LIMITS, next => {
    mqtt.limits = { ...mqtt.limits, ...countingLimits(next) }
  })
  reload.on(['log.level'], ({ log: { level } }) => changeLevel(log, level))
  const gateway = new RunningGateway({
    config,
    reload,
    store,
    topology,
    streams,
    retained,
    schedule,
    declarations,
    router,
    memory,
    identities,
    forecasts,
    mqtt,
    upstreams,
    listeners,
    clock,
    gate,
    watchedUsers,
    watchedTokens,
  })
  const metrics = new Metrics()
  metrics.add(
    ...processMetrics(),
    ...gatewayMetrics({
      ...{ gateway, store, router, mqtt, topology, streams, retained, memory },
      ...{ listeners, handshakes, tlsListeners, access, gate },
    }),
  )
  const api = new ApiServer({ ...common, gateway, metrics, access, ...config.http, monotonicMs: clock.monotonicMs })
  await api.start()
  onStop(() => api.stop())

  // Last: to ask the machine about its clock may take a process.
  const bootClock = new BootClock({
    offset: () => store.boot,
    clock: machineClock,
    isTrusted: config.clock.trust === 'auto' ? isSynchronised : async () => config.clock.trust === 'always',
    correct: offset => schedule.change(store.correctBoot(offset)),
    log,
  })
  bootClock.start()
  onStop(async () => bootClock.stop())

  addresses.set('http', api.address())
  log.info(
    { gateway: store.boot.gateway, epoch: store.boot.epoch, ...Object.fromEntries(addresses) },
    'gateway is running',
  )
  return { addresses, gateway, listeners, reload }
}

/** Who may log in. Rejects with CONFIG_NOT_FOUND or CONFIG_INVALID. Where there are neither users nor tokens nothing of it is loaded. */
async function openCredentials({ auth: { usersFile }, http: { tokensFile } }: Config, log: Logger) {
  if (usersFile === null && tokensFile === null) return { watchedUsers: null, watchedTokens: null }
  const { openUsers, openTokens } = await import('./gateway-users.ts')
  const watchedTokens = tokensFile === null ? null : await openTokens(tokensFile, log)
  return { watchedUsers: usersFile === null ? null : await openUsers(usersFile, log), watchedTokens }
}

function stocks(topology: Topology, store: Store): Stocks {
  const queues = new Map<string, Stock>()
  for (const { name, depth, bytes, ledger } of topology.queues()) {
    queues.set(name, { messages: depth, bytes, accepted: ledger.accepted })
  }
  return { queues, disk: store.disk }
}

/** Opens the store, and loads what is needed behind it while LevelDB, in other threads, waits for the disk. */
async function openAndLoad(options: StoreOptions): Promise<[Store, Awaited<ReturnType<typeof loadParts>>]> {
  const databases = Promise.withResolvers<void>()
  const create: CreateLevel = (location, settings) => {
    setImmediate(databases.resolve)
    return createLevel(location, settings)
  }
  return Promise.all([Store.open(options, create), databases.promise.then(loadParts)])
}

async function loadParts() {
  const [{ Upstream }, { MqttServer }, { ApiServer }] = await Promise.all([
    import('./bridge/upstream.ts'),
    import('./protocol/mqtt/server.ts'),
    import('./api/server.ts'),
  ])
  // Node compiles a large regular expression for the first address it looks at: 4 ms that opening a port would otherwise take.
  isIPv6('::')
  return { Upstream, MqttServer, ApiServer }
}

async function openOutbox(route: RouteConfig, topology: Topology, declarations: Declarations): Promise<Queue> {
  const { name, limits, qos0, policy } = route
  const deadLetter = queueAddress(route.deadLetter)
  const outbox = await topology.declareQueue({ name, origin: 'config', limits, qos0, deadLetter, policy })
  await bindTopics(name, route.from, declarations)
  return outbox
}

async function openQueue(
  { name, limits, policy, bind, deadLetter }: NamedQueueConfig,
  topology: Topology,
  declarations: Declarations,
): Promise<void> {
  await topology.declareQueue({
    name,
    origin: 'config',
    limits,
    qos0: 'buffer',
    policy,
    deadLetter: queueAddress(deadLetter),
  })
  await bindTopics(name, bind, declarations)
}

/** Queues that the configuration names for dead letters and nowhere else; those of routes have the limits of the route, and its bytes in common with the outbox. Nothing expires at the end of the line. */
async function openDeadLetterQueues({ routes, queues, streams }: Config, topology: Topology): Promise<void> {
  const named = new Map<string, QueueLimits>()
  for (const { deadLetter } of queues) if (deadLetter !== null) named.set(deadLetter, DEFAULT_QUEUE_LIMITS)
  for (const { deadLetter, limits } of routes) if (deadLetter !== null) named.set(deadLetter, limits)
  for (const { name } of [...queues, ...streams]) named.delete(name)
  for (const [name, limits] of named) {
    // Whoever declared it over the API gave it limits of its own.
    if (topology.has(name) && topology.originOf(name) !== 'config') continue
    const deadLetters = await topology.declareQueue({
      name,
      origin: 'config',
      limits: { ...limits, ageMs: DEAD_LETTERS_AGE_MS },
      qos0: 'buffer',
    })
    const route = routes.find(({ deadLetter }) => deadLetter === name)
    if (route !== undefined) shareBytes(topology.queue(route.name), deadLetters)
  }
}

function shareBytes(outbox: Queue, deadLetters: Queue): void {
  outbox.sharesBytesWith = deadLetters
  deadLetters.sharesBytesWith = outbox
}

/** A queue by its name, as the default exchange knows it. */
const queueAddress = (name: string | null): MessageAddress | null =>
  name === null ? null : { exchange: '', key: name }

async function openStream(
  { name, retention, ack, bind }: StreamConfig,
  streams: Streams,
  declarations: Declarations,
): Promise<void> {
  await streams.declare({ name, origin: 'config', retention, ack })
  await bindTopics(name, bind, declarations)
}

async function bindTopics(queue: string, filters: readonly string[], declarations: Declarations): Promise<void> {
  for (const key of filters) {
    const destination = { kind: 'queue', name: queue } as const
    await declarations.bind({ source: MQTT_EXCHANGE, destination, key, headers: null }, 'config')
  }
}

const NO_TLS_FILES = { ca: null, client: null }

const hasTlsFiles = ({ tls }: UpstreamConfig): boolean => tls.ca !== null || tls.cert !== null

function outboxOf(outboxes: ReadonlyMap<string, Queue>, route: RouteConfig): Queue {
  const outbox = outboxes.get(route.name)
  if (outbox === undefined) throw new TypeError(`route ${route.name} has no outbox`)
  return outbox
}
