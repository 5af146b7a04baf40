import type { Hono } from 'hono'
import type { Gateway } from '../gateway.ts'

/** Liveness answers as long as the event loop turns. Readiness is 503 only while no publish can be accepted: an outage upstream is no reason to restart a gateway. */
export function mountHealth(app: Hono, gateway: Gateway): void {
  app.get('/health/live', c => c.json({ status: 'ok' }))
  app.get('/health/ready', c => {
    const health = gateway.health()
    return c.json(health, health.status === 'unavailable' ? 503 : 200)
  })
  app.get('/api/v1/health', c => c.json(gateway.health()))
}
