import type { Hono } from 'hono'
import type { Overview } from '../contract.ts'
import type { Gateway } from '../gateway.ts'
import type { Rates } from '../rates.ts'

/** The gateway in one document, and the configuration in force. */
export function mountOverview(app: Hono, gateway: Gateway, rates: Rates): void {
  app.get('/api/v1/overview', c => {
    const { received, delivered, forwarded } = rates.perSecond()
    const overview: Overview = {
      ...gateway.overview(),
      messages: gateway.messages(),
      rates: { received_per_s: received, delivered_per_s: delivered, forwarded_per_s: forwarded },
      health: gateway.health(),
    }
    return c.json(overview)
  })
  app.get('/api/v1/config', c => c.json(gateway.config))
}
