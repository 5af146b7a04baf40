import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import type { Gateway } from '../gateway.ts'

/** Users of the users file, never their hashes; addresses that are banned: list, let go. */
export function mountUsers(app: Hono, gateway: Gateway): void {
  app.get('/api/v1/users', c => c.json([...gateway.users()]))
  app.get('/api/v1/bans', c => c.json([...gateway.bans()]))
  app.delete('/api/v1/bans/:address', c => {
    const address = c.req.param('address')
    if (gateway.unban(address)) return c.body(null, 204)
    throw new BrokerError('BAN_NOT_FOUND', `The address ${JSON.stringify(address)} is not banned.`)
  })
}
