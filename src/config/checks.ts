/*
 * Rules between options, checked once each of them is right by itself.
 */
import { isLoopback } from '../model/address.ts'
import { formatDuration, formatSize } from '../model/quantity.ts'
import { nearestWord } from './nearest.ts'
import { type Config, type NamedQueueConfig, portsOf, tlsOf } from './schema.ts'

type Resolved = Omit<Config, 'effective' | 'options' | 'warnings'>

/** A rule broken, with the path of the option that should change. */
export interface Conflict {
  readonly path: readonly (string | number)[]
  readonly message: string
}

/** Everything that contradicts something else. */
export function findConflicts(config: Resolved): Conflict[] {
  return [
    ...portConflicts(config),
    ...httpConflicts(config),
    ...tlsConflicts(config),
    ...accessConflicts(config),
    ...limitConflicts(config),
    ...upstreamConflicts(config),
    ...routeConflicts(config),
    ...queueConflicts(config),
    ...deadLetterConflicts(config),
  ]
}

/** What works and is probably not meant. */
export function findWarnings(config: Resolved): string[] {
  const warnings: string[] = []
  const open = portsOf(config.listeners).find(({ host }) => !isLoopback(host))
  const { anonymous, usersFile } = config.auth
  const hasCertificates = tlsOf(config.listeners).some(({ tls }) => tls.clientCert !== 'none')
  if (anonymous === 'nobody' && usersFile === null && !hasCertificates) {
    warnings.push(
      'no MQTT client can connect: auth.allow_anonymous is false and there are no users; set auth.users_file, or listen on loopback',
    )
  } else if (anonymous === 'everybody' && open !== undefined) {
    warnings.push(`every host that reaches ${open.host} may connect without a password: auth.allow_anonymous is true`)
  }
  const { acl } = config.auth
  if (usersFile === null && !hasCertificates && acl.some(({ user }) => user !== '*')) {
    warnings.push(
      'rules of auth.acl are for users or groups, and there are no users: no client is ever one of them; set auth.users_file',
    )
  }
  if (acl.length > 0 && acl.every(({ publish }) => publish.length === 0)) {
    warnings.push('nobody may publish: auth.acl has rules, and none of them allows it')
  }
  if (!isLoopback(config.http.host)) {
    warnings.push(
      `HTTP on ${config.http.host} is not encrypted: whoever sees the network reads passwords and tokens; put a proxy with TLS in front`,
    )
  }
  for (const { name } of config.upstreams) {
    if (!config.routes.some(route => route.upstream === name))
      warnings.push(`upstream ${name} has no route: nothing is forwarded to it`)
  }
  return warnings
}

function* portConflicts({ listeners, http }: Resolved): Iterable<Conflict> {
  const ports = [
    ...portsOf(listeners).map(({ name, ...place }) => ({ path: ['listeners', name, 'port'], ...place })),
    { path: ['http', 'port'], ...http },
  ]
  for (const [index, { path, host, port }] of ports.entries()) {
    const other = ports.slice(0, index).find(other => port !== 0 && other.port === port && overlap(other.host, host))
    if (other !== undefined) yield { path, message: `port ${port} is already taken by ${other.path.join('.')}` }
  }
}

/** Whether two listeners on these addresses would want the same one; all of 127.0.0.0/8 and `localhost` count as one. */
function overlap(a: string, b: string): boolean {
  return a === b || isWildcard(a) || isWildcard(b) || (isLoopback(a) && isLoopback(b) && a !== '::1' && b !== '::1')
}

function* tlsConflicts({ listeners }: Resolved): Iterable<Conflict> {
  for (const { name, tls } of tlsOf(listeners)) {
    const { clientCert, ca, crl } = tls
    const path = ['listeners', name, 'tls']
    if (clientCert !== 'none' && ca === null) {
      yield {
        path: [...path, 'client_cert'],
        message: `certificates can't be judged without their authorities; set ca`,
      }
    }
    if (clientCert === 'none' && (ca !== null || crl !== null)) {
      const option = ca === null ? 'crl' : 'ca'
      yield {
        path: [...path, option],
        message: 'no client is asked for a certificate; set client_cert to optional or required, or leave this out',
      }
    }
  }
}

function* accessConflicts({ auth }: Resolved): Iterable<Conflict> {
  for (const [index, { user, group, ...acts }] of auth.acl.entries()) {
    const path = ['auth', 'acl', index]
    if ((user === null) === (group === null)) {
      yield { path, message: 'a rule is for a user (* is everybody) or for a group: give one of these keys' }
    }
    if (Object.values(acts).every(patterns => patterns.length === 0)) {
      yield {
        path,
        message: 'the rule says nothing; give publish, deny_publish, subscribe, deny_subscribe or consume',
      }
    }
  }
}

/** Outside loopback nobody asks without saying who they are (contract.md section 4). */
function* httpConflicts({ http, auth }: Resolved): Iterable<Conflict> {
  if (isLoopback(http.host) || http.tokensFile !== null || auth.usersFile !== null) return
  yield {
    path: ['http', 'host'],
    message: `${http.host} is not loopback; outside loopback HTTP needs tokens or users: set http.tokens_file or auth.users_file, or listen on 127.0.0.1`,
  }
}

function* limitConflicts({ limits, store, routes, queues, streams }: Resolved): Iterable<Conflict> {
  const within = (bytes: number, path: string[], most: number, mostName: string): Conflict[] =>
    bytes <= most
      ? []
      : [
          {
            path,
            message: `${formatSize(bytes)} is more than ${mostName} (${formatSize(most)}); lower it or raise ${mostName}`,
          },
        ]
  const { memoryBytes } = limits
  yield* within(limits.packetBytes, ['limits', 'packet'], memoryBytes, 'limits.memory')
  yield* within(limits.outputPerClientBytes, ['limits', 'output_per_client'], memoryBytes, 'limits.memory')
  yield* within(limits.sessionQueue.bytes, ['limits', 'session_queue', 'bytes'], memoryBytes, 'limits.memory')
  for (const { name, limits: outbox } of routes) {
    yield* within(outbox.bytes, ['routes', name, 'limits', 'bytes'], store.diskBytes, 'store.disk')
  }
  for (const { name, limits: queue } of queues) {
    yield* within(queue.bytes, ['queues', name, 'limits', 'bytes'], store.diskBytes, 'store.disk')
  }
  for (const { name, retention } of streams) {
    yield* within(retention.bytes, ['streams', name, 'retain', 'bytes'], store.diskBytes, 'store.disk')
  }
}

function* upstreamConflicts({ upstreams }: Resolved): Iterable<Conflict> {
  for (const { name, urls, tls, reconnect, heartbeatMs } of upstreams) {
    if (reconnect.firstMs > reconnect.maxMs) {
      yield {
        path: ['upstreams', name, 'reconnect', 'first'],
        message: `${formatDuration(reconnect.firstMs)} is more than reconnect.max (${formatDuration(reconnect.maxMs)})`,
      }
    }
    if ((tls.cert === null) !== (tls.key === null)) {
      const [given, missing] = tls.cert === null ? ['key', 'cert'] : ['cert', 'key']
      yield {
        path: ['upstreams', name, 'tls', given],
        message: `tls.${missing} is missing: a certificate and its key belong together`,
      }
    }
    const hasTls = urls.some(url => !url.startsWith('amqp:'))
    if (!hasTls && (tls.ca ?? tls.cert ?? tls.key) !== null) {
      yield {
        path: ['upstreams', name, 'tls'],
        message: 'no URL of this upstream is amqps: TLS is not used; change a URL or drop this',
      }
    }
    // AMQP negotiates seconds.
    if (heartbeatMs % 1000 !== 0) {
      yield {
        path: ['upstreams', name, 'heartbeat'],
        message: `${formatDuration(heartbeatMs)} is not a whole number of seconds`,
      }
    }
  }
}

function* routeConflicts({ routes, upstreams }: Resolved): Iterable<Conflict> {
  const names = upstreams.map(upstream => upstream.name)
  for (const route of routes) {
    if (names.includes(route.upstream)) continue
    const nearest = nearestWord(route.upstream, names)
    const known =
      names.length === 0 ? 'there are none' : `there ${names.length === 1 ? 'is' : 'are'} ${names.join(', ')}`
    yield {
      path: ['routes', route.name, 'upstream'],
      message: `no upstream is called "${route.upstream}"${nearest === null ? '' : ` (did you mean "${nearest}"?)`}; ${known}`,
    }
  }
}

/** Dead letters of a route share its byte limit, so they have a queue of their own. */
function* deadLetterConflicts({ queues, routes }: Resolved): Iterable<Conflict> {
  const owners = new Map<string, string>()
  const of = (section: 'routes' | 'queues', name: string, message: string): Conflict => ({
    path: [section, name, 'dead_letter'],
    message,
  })
  const isOutbox = (queue: string | null): boolean => routes.some(({ name }) => name === queue)
  for (const { name, deadLetter } of routes) {
    if (isOutbox(deadLetter)) yield of('routes', name, `${deadLetter} is the outbox of a route; name another queue`)
    if (deadLetter === null) continue
    const owner = owners.get(deadLetter)
    if (owner !== undefined) {
      yield of('routes', name, `route ${owner} has ${deadLetter} already, within its byte limit; name another queue`)
    }
    owners.set(deadLetter, name)
  }
  for (const { name, deadLetter } of queues) {
    if (isOutbox(deadLetter)) yield of('queues', name, `${deadLetter} is the outbox of a route; name another queue`)
    if (deadLetter === name) yield of('queues', name, `${deadLetter} is this queue itself; name another`)
  }
}

/** A route's outbox is a queue under the route's name; queues and streams share their names. */
function* queueConflicts({ queues, routes, streams, limits }: Resolved): Iterable<Conflict> {
  const declared = queues.length + routes.length
  if (declared > limits.declared.queues) {
    yield {
      path: ['limits', 'queues'],
      message: `${limits.declared.queues} is less than the queues and routes of this file, which are ${declared}; raise it`,
    }
  }
  yield* retryConflicts('queues', queues)
  yield* retryConflicts('routes', routes)
  for (const { name } of queues) {
    if (routes.some(route => route.name === name)) {
      yield {
        path: ['queues', name],
        message: `route ${name} has a queue of this name, its outbox; rename one of them`,
      }
    }
  }
  for (const { name } of streams) {
    const other = routes.some(route => route.name === name)
      ? 'route'
      : queues.some(queue => queue.name === name)
        ? 'queue'
        : null
    if (other !== null) {
      yield { path: ['streams', name], message: `there is a ${other} of this name; rename one of them` }
    }
  }
}

function* retryConflicts(
  section: string,
  of: readonly Pick<NamedQueueConfig, 'name' | 'policy'>[],
): Iterable<Conflict> {
  for (const { name, policy } of of) {
    const { firstMs, maxMs } = policy.retry
    if (firstMs <= maxMs) continue
    yield {
      path: [section, name, 'retry', 'backoff', 'first'],
      message: `${formatDuration(firstMs)} is more than retry.backoff.max (${formatDuration(maxMs)})`,
    }
  }
}

function isWildcard(host: string): boolean {
  return host === '0.0.0.0' || host === '::'
}
