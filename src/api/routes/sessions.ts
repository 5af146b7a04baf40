import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { clientId } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'

/** Sessions, whether their clients are connected or away: list, show, end. */
export function mountSessions(app: Hono, gateway: Gateway): void {
  app.get('/api/v1/sessions', c => c.json([...gateway.sessions()]))
  app.get('/api/v1/sessions/:id', c => {
    const id = clientId(c.req.param('id'))
    const session = gateway.session(id)
    if (session === undefined) throw notFound(id)
    return c.json(session)
  })
  app.delete('/api/v1/sessions/:id', async c => {
    const id = clientId(c.req.param('id'))
    if (!(await gateway.endSession(id))) throw notFound(id)
    return c.body(null, 204)
  })
}

function notFound(id: string): BrokerError {
  return new BrokerError('SESSION_NOT_FOUND', `There is no session of a client with the id ${JSON.stringify(id)}.`)
}
