/*
 * The HTTP API as a function from request to response, without a socket; loaded at the first request (server.ts).
 */
import { type Context, Hono, type MiddlewareHandler } from 'hono'
import { bodyLimit } from 'hono/body-limit'
import type { Access } from '../core/access.ts'
import { DEFINITIONS_BYTES_MAX, DEFINITIONS_PATH } from '../model/definitions-document.ts'
import { BrokerError } from '../model/error.ts'
import type { Logger } from '../telemetry/log.ts'
import { METRICS_CONTENT_TYPE, type Metrics } from '../telemetry/metrics.ts'
import { authorize } from './authorize.ts'
import type { Gateway } from './gateway.ts'
import type { Rates } from './rates.ts'
import { mountClients } from './routes/clients.ts'
import { mountDeadLetters } from './routes/dead-letters.ts'
import { mountDefinitions } from './routes/definitions.ts'
import { mountExchanges } from './routes/exchanges.ts'
import { mountHealth } from './routes/health.ts'
import { mountOverview } from './routes/overview.ts'
import { mountPublish } from './routes/publish.ts'
import { mountQueues } from './routes/queues.ts'
import { mountRetained } from './routes/retained.ts'
import { mountSessions } from './routes/sessions.ts'
import { mountStreams } from './routes/streams.ts'
import { mountUpstreams } from './routes/upstreams.ts'
import { mountUsers } from './routes/users.ts'
import { problem, problemOf } from './status.ts'

export interface AppParts {
  readonly gateway: Gateway
  readonly metrics: Metrics
  readonly rates: Rates
  readonly log: Logger
  readonly access: Access
}

/** Twice the default `limits.packet`: a payload of that size still fits in base64. Beyond: 413. */
const BODY_MAX_BYTES = 2 * 1024 * 1024

/** All routes of contract.md section 4 that exist. */
export function createApp({ gateway, metrics, rates, log, access }: AppParts): Hono {
  const app = new Hono()
  app.use(authorize(access))
  const [limitBody, limitDefinitions] = [bodyOfAtMost(BODY_MAX_BYTES), bodyOfAtMost(DEFINITIONS_BYTES_MAX)]
  app.use((c, next) => (c.req.path === DEFINITIONS_PATH ? limitDefinitions : limitBody)(c, next))
  app.use('/api/*', async (c, next) => {
    await next()
    c.header('cache-control', 'no-store')
  })
  app.get('/', c =>
    c.json({ name: 'sluice', overview: '/api/v1/overview', metrics: '/metrics', health: '/health/ready' }),
  )
  app.get('/metrics', c => c.body(metrics.render(), 200, { 'content-type': METRICS_CONTENT_TYPE }))
  mountHealth(app, gateway)
  mountOverview(app, gateway, rates)
  mountClients(app, gateway)
  mountSessions(app, gateway)
  mountExchanges(app, gateway)
  mountQueues(app, gateway)
  mountDeadLetters(app, gateway)
  mountStreams(app, gateway)
  mountRetained(app, gateway)
  mountDefinitions(app, gateway)
  mountUpstreams(app, gateway)
  mountUsers(app, gateway)
  mountPublish(app, gateway)
  app.notFound(c => respond(problem(404, 'NOT_FOUND', `There is no ${c.req.method} ${c.req.path} here.`), c.req.method))
  app.onError((error, c) => {
    if (error instanceof BrokerError) return respond(problemOf(error), c.req.method)
    // A mistake in a handler spoils this request and nothing else: handlers read, and acts are single calls.
    log.error({ err: error, path: c.req.path }, 'an HTTP handler failed')
    return respond(problem(500, 'INTERNAL', 'This is a bug in Sluice; its log has the details.'), c.req.method)
  })
  return app
}

function bodyOfAtMost(maxSize: number): MiddlewareHandler {
  const onError = (c: Context): Response =>
    respond(problem(413, 'REQUEST_INVALID', `The body is larger than ${maxSize} bytes.`), c.req.method)
  return bodyLimit({ maxSize, onError })
}

function respond(body: ReturnType<typeof problem>, method: string): Response {
  return new Response(method === 'HEAD' ? null : JSON.stringify(body), {
    status: body.status,
    headers: { 'content-type': 'application/problem+json' },
  })
}
