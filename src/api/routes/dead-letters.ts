import type { Hono } from 'hono'
import { queueName } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'
import { readBody } from '../request.ts'

/** Queues of dead letters; what is in them is shown, got and purged like that of any queue. */
export function mountDeadLetters(app: Hono, gateway: Gateway): void {
  const { model } = gateway
  app.get('/api/v1/dead-letters', c => c.json([...model.deadLetterQueues()]))
  // 200 comes after what was replayed is durable where it is now; `next` says where to go on.
  app.post('/api/v1/dead-letters/:queue/replay', async c => {
    const { replayRequest } = await import('../contract.ts')
    const name = queueName(c.req.param('queue'))
    return c.json(await model.replay(name, await readBody(c, replayRequest)))
  })
}
