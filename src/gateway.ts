import type {
  BanStatus,
  ClientDetail,
  ClientSummary,
  Health,
  Overview,
  RouteStatus,
  SessionDetail,
  SessionSummary,
  UpstreamStatus,
  UserStatus,
} from './api/contract.ts'
import type { Gateway, PublishedMessage } from './api/gateway.ts'
import { readBuild } from './assets.ts'
import type { Upstream } from './bridge/upstream.ts'
import type { Config } from './config/schema.ts'
import type { AddressGate } from './core/address-gate.ts'
import type { Clock } from './core/clock.ts'
import type { CommitSchedule } from './core/commit-schedule.ts'
import type { Declarations } from './core/declarations.ts'
import type { Identities } from './core/identity.ts'
import type { MemoryBudget } from './core/memory.ts'
import type { Queue } from './core/queue.ts'
import type { Retained } from './core/retained.ts'
import type { Router } from './core/router.ts'
import type { Streams } from './core/streams.ts'
import type { Topology } from './core/topology.ts'
import { RunningDefinitions } from './gateway-definitions.ts'
import type { Forecasts } from './gateway-forecasts.ts'
import { RunningModel } from './gateway-model.ts'
import type { Reload } from './gateway-reload.ts'
import { RunningRetained } from './gateway-retained.ts'
import { clientDetail, clientSummary, sessionDetail, sessionSummary } from './gateway-sessions.ts'
import { RunningStreams } from './gateway-streams.ts'
import type { openTokens, openUsers } from './gateway-users.ts'
import { CLOCK_WORDS, PropertiesTag } from './model/message.ts'
import type { ClientId, ConfiguredName } from './model/names.ts'
import type { MqttServer } from './protocol/mqtt/server.ts'
import type { Store } from './store/store.ts'
import type { Listener } from './transport/listener.ts'

export interface GatewayParts {
  /** Of the start. */
  readonly config: Config
  readonly reload: Reload
  readonly store: Store
  readonly topology: Topology
  readonly streams: Streams
  readonly retained: Retained
  readonly schedule: CommitSchedule
  readonly declarations: Declarations
  readonly router: Router
  readonly memory: MemoryBudget
  readonly identities: Identities
  readonly forecasts: Forecasts
  readonly mqtt: MqttServer
  readonly upstreams: readonly Upstream[]
  readonly listeners: ReadonlyMap<string, Listener>
  readonly clock: Clock
  readonly gate: AddressGate
  /** Null: there is no users file. */
  readonly watchedUsers: Awaited<ReturnType<typeof openUsers>> | null
  /** Null: there is no tokens file. */
  readonly watchedTokens: Awaited<ReturnType<typeof openTokens>> | null
}

const LOST_UNWRITTEN = 'acknowledged before they were written were lost when the gateway ended last (ack: buffered)'

const NO_BYTES = Buffer.alloc(0)

/** The running gateway as the API, the metrics and the demo see it: figures gathered when asked for. */
export class RunningGateway implements Gateway {
  readonly model: RunningModel
  readonly streams: RunningStreams
  readonly retained: RunningRetained
  readonly definitions: RunningDefinitions
  readonly #parts: GatewayParts

  constructor(parts: GatewayParts) {
    this.#parts = parts
    this.model = new RunningModel(parts)
    this.streams = new RunningStreams(parts)
    this.retained = new RunningRetained(parts)
    this.definitions = new RunningDefinitions(parts, this.model)
  }

  get config(): Readonly<Record<string, unknown>> {
    return this.#parts.reload.effective
  }

  messages(): Overview['messages'] {
    const { mqtt, router, topology, streams, upstreams } = this.#parts
    let dropped = mqtt.counters.dropped
    for (const queue of topology.queues()) dropped += queue.ledger.droppedTotal
    for (const stream of streams.all()) dropped += stream.ledger.droppedTotal
    for (const [reason, count] of topology.unlistedDropped) if (reason !== 'expired') dropped += count
    let forwarded = 0
    for (const upstream of upstreams) forwarded += upstream.status().confirmed
    return {
      received: router.counters.accepted,
      delivered: mqtt.counters.sentMessages,
      forwarded,
      unrouted: router.counters.unrouted,
      dropped,
    }
  }

  overview(): Omit<Overview, 'messages' | 'rates' | 'health'> {
    const { config, store, memory, mqtt, clock } = this.#parts
    const { boot } = store
    return {
      gateway: {
        id: boot.gateway,
        version: readBuild().version,
        epoch: boot.epoch,
        started_at: new Date(boot.wallOffsetMs).toISOString(),
        uptime_ms: Math.round(clock.monotonicMs()),
        clock: CLOCK_WORDS[boot.clock],
      },
      clients: { connected: mqtt.clientCount, limit: mqtt.limits.clients },
      memory: {
        used_bytes: memory.usedBytes,
        limit_bytes: memory.limitBytes,
        resident_bytes: process.memoryUsage.rss(),
      },
      disk: {
        ...diskUse(store),
        limit_bytes: config.store.diskBytes,
        free_min_bytes: config.store.diskFreeMinBytes,
        accepted_bytes: store.counters.acceptedBytes,
        written_bytes: store.counters.writtenBytes,
        full_in_ms: this.#parts.forecasts.diskFullInMs(config.store),
      },
    }
  }

  /** Unavailable only while no publish can be accepted; an outage upstream is what a gateway is for and merely degrades. */
  health(): Health {
    const {
      store,
      topology,
      streams,
      retained,
      upstreams,
      memory,
      listeners,
      clock,
      watchedUsers,
      watchedTokens,
      gate,
    } = this.#parts
    const blocking: string[] = []
    const reasons: string[] = []
    const { refusal } = store
    if (refusal === 'DISK_FULL')
      blocking.push('disk: nearly full, new messages are refused; free space or raise store.disk')
    else if (refusal !== null) blocking.push('store: being reopened after an I/O error, new messages are refused')
    if (memory.isPressed)
      reasons.push('memory: limits.memory is reached, publishers are paused until receivers catch up')
    for (const listener of listeners.values()) reasons.push(...listener.health(clock.wallMs()))
    for (const upstream of this.upstreams()) {
      if (upstream.cause !== null) reasons.push(`upstream ${upstream.name}: ${upstream.state}, ${upstream.cause}`)
      else if (upstream.state !== 'forwarding') reasons.push(`upstream ${upstream.name}: ${upstream.state}`)
    }
    for (const upstream of upstreams) {
      for (const route of upstream.status().routes) {
        if (route.parked !== null) reasons.push(`route ${route.name}: parked, ${route.parked.reason}`)
      }
    }
    for (const queue of topology.queues()) {
      const { imbalance } = queue.ledger
      if (imbalance !== 0) reasons.push(`queue ${queue.name}: the ledger is off by ${imbalance} messages`)
      if (queue.depth >= queue.limits.messages || queue.limitedBytes >= queue.limits.bytes) {
        reasons.push(`queue ${queue.name}: full, ${whenFull(queue)}`)
      }
      if (queue.isParked)
        reasons.push(`queue ${queue.name}: parked, ${queue.waitingCount} messages wait for another attempt`)
      if (queue.isHoldingDeadLetters)
        reasons.push(
          `queue ${queue.name}: keeps dead letters, their queue is full; drain or purge that, or raise its limits`,
        )
      const damaged = queue.ledger.dropped.get('damage') ?? 0
      if (damaged > 0) reasons.push(`queue ${queue.name}: ${damaged} messages were lost to damage of the store`)
      if (queue.lostAtMost > 0) {
        reasons.push(`queue ${queue.name}: up to ${queue.lostAtMost} messages ${LOST_UNWRITTEN}`)
      }
    }
    for (const { name, ledger, lostAtMost } of streams.all()) {
      if (ledger.imbalance !== 0) reasons.push(`stream ${name}: the ledger is off by ${ledger.imbalance} messages`)
      const damaged = ledger.dropped.get('damage') ?? 0
      if (damaged > 0) reasons.push(`stream ${name}: ${damaged} messages were lost to damage of the store`)
      if (lostAtMost > 0) reasons.push(`stream ${name}: up to ${lostAtMost} messages ${LOST_UNWRITTEN}`)
    }
    if (retained.isFull)
      reasons.push('retained: limits.retained is reached, retained publishes to further topics are refused')
    for (const watched of [watchedUsers, watchedTokens]) {
      if (watched?.problem) reasons.push(`${watched.what}: not taken, all stays as it was before; ${watched.problem}`)
    }
    const [ban, ...more] = gate.bans()
    if (ban !== undefined) {
      const others = more.length === 0 ? '' : ` and ${more.length} more`
      reasons.push(`logins: ${ban.address}${others} banned for wrong passwords; see \`sluice users bans\``)
    }
    if (store.isDamaged) reasons.push('store: damage was found; see the log and data_dir/quarantine')
    const status = blocking.length > 0 ? 'unavailable' : reasons.length > 0 ? 'degraded' : 'ok'
    return { status, reasons: [...blocking, ...reasons] }
  }

  *clients(): Iterable<ClientSummary> {
    for (const client of this.#parts.mqtt.clients()) yield clientSummary(client)
  }

  client(id: ClientId): ClientDetail | undefined {
    const client = this.#parts.mqtt.client(id)
    return client === undefined ? undefined : clientDetail(client)
  }

  kick(id: ClientId): boolean {
    return this.#parts.mqtt.kick(id)
  }

  *sessions(): Iterable<SessionSummary> {
    for (const session of this.#parts.mqtt.sessions()) yield sessionSummary(session)
  }

  session(id: ClientId): SessionDetail | undefined {
    const session = this.#parts.mqtt.session(id)
    return session === undefined ? undefined : sessionDetail(session)
  }

  endSession(id: ClientId): Promise<boolean> {
    return this.#parts.mqtt.endSession(id)
  }

  *users(): Iterable<UserStatus> {
    const { mqtt, watchedUsers } = this.#parts
    const clients = mqtt.clientsByUser()
    for (const { user, groups, lastLoginMs } of watchedUsers?.known.all() ?? []) {
      const last_login_at = lastLoginMs === null ? null : new Date(lastLoginMs).toISOString()
      yield { name: user, groups: [...groups], clients: clients.get(user) ?? 0, last_login_at }
    }
  }

  *bans(): Iterable<BanStatus> {
    for (const { address, endsInMs } of this.#parts.gate.bans()) yield { address, ends_in_ms: Math.ceil(endsInMs) }
  }

  unban(address: string): boolean {
    return this.#parts.gate.unban(address)
  }

  *routes(): Iterable<RouteStatus> {
    const parked = new Map<string, string>()
    for (const upstream of this.#parts.upstreams) {
      for (const route of upstream.status().routes) {
        if (route.parked !== null) parked.set(route.name, route.parked.reason)
      }
    }
    for (const route of this.#parts.config.routes) {
      const outbox = this.#parts.topology.queue(route.name)
      yield {
        name: route.name,
        from: route.from,
        upstream: route.upstream,
        exchange: route.exchange.name,
        routing_key: route.routingKey,
        qos0: route.qos0,
        outbox: outbox.name,
        depth: outbox.depth,
        bytes: outbox.bytes,
        oldest_age_ms: this.model.oldestAgeMs(outbox),
        forecast: this.model.forecast(outbox),
        parked: parked.get(route.name) ?? null,
      }
    }
  }

  *upstreams(): Iterable<UpstreamStatus> {
    for (const upstream of this.#parts.upstreams) yield this.#upstreamStatus(upstream)
  }

  upstream(name: ConfiguredName): UpstreamStatus | undefined {
    const upstream = this.#parts.upstreams.find(candidate => candidate.name === name)
    return upstream === undefined ? undefined : this.#upstreamStatus(upstream)
  }

  #upstreamStatus(upstream: Upstream): UpstreamStatus {
    const status = upstream.status()
    const isForwarding = status.state === 'forwarding'
    return {
      name: status.name,
      url: status.url,
      state: status.state,
      since: status.since,
      cause: isForwarding ? null : (status.blockedReason ?? status.lastError?.message ?? null),
      retry_in_ms:
        status.retryAt === null
          ? null
          : Math.max(0, Math.round(Date.parse(status.retryAt) - this.#parts.clock.wallMs())),
      routes: status.routes.map(route => route.name),
      unconfirmed: status.unconfirmed,
      confirmed: status.confirmed,
      reconnects: Math.max(0, status.connects - 1),
    }
  }

  pauseUpstream(name: ConfiguredName): void {
    this.#upstream(name).pause()
  }

  resumeUpstream(name: ConfiguredName): void {
    this.#upstream(name).resume()
  }

  #upstream(name: ConfiguredName): Upstream {
    const upstream = this.#parts.upstreams.find(candidate => candidate.name === name)
    if (upstream === undefined) throw new TypeError(`upstream ${name} was not looked up before`)
    return upstream
  }

  publish({
    exchange,
    key,
    payload,
    qos,
    retain,
    priority,
  }: PublishedMessage): Promise<{ readonly isRouted: boolean }> {
    return this.#parts.router.publish({
      exchange,
      key,
      qos,
      retain,
      dup: false,
      priority,
      clientId: '',
      user: '',
      expiryMs: null,
      propertiesTag: PropertiesTag.none,
      properties: NO_BYTES,
      payload,
    })
  }
}

function diskUse(store: Store): { used_bytes: number; free_bytes: number } {
  const { usedBytes, freeBytes } = store.disk
  return { used_bytes: usedBytes, free_bytes: freeBytes }
}

function whenFull({ limits, deadLetter }: Queue): string {
  if (limits.onFull === 'reject') return 'publishes are refused'
  return deadLetter === null ? 'messages are dropped' : 'messages become dead letters'
}
