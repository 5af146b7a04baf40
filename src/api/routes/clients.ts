import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { clientId } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'

/** Connected clients: list, show, disconnect. */
export function mountClients(app: Hono, gateway: Gateway): void {
  app.get('/api/v1/clients', c => c.json([...gateway.clients()]))
  app.get('/api/v1/clients/:id', c => {
    const id = clientId(c.req.param('id'))
    const client = gateway.client(id)
    if (client === undefined) throw notFound(id)
    return c.json(client)
  })
  app.delete('/api/v1/clients/:id', c => {
    const id = clientId(c.req.param('id'))
    if (!gateway.kick(id)) throw notFound(id)
    return c.body(null, 204)
  })
}

function notFound(id: string): BrokerError {
  return new BrokerError('CLIENT_NOT_FOUND', `No client with the id ${JSON.stringify(id)} is connected.`)
}
