import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { queueName } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'

/** Durable queues and the routes that fill outboxes. */
export function mountQueues(app: Hono, gateway: Gateway): void {
  app.get('/api/v1/queues', c => c.json([...gateway.queues()]))
  app.get('/api/v1/queues/:name', c => {
    const name = queueName(c.req.param('name'))
    const queue = gateway.queue(name)
    if (queue === undefined) throw new BrokerError('QUEUE_NOT_FOUND', `There is no queue ${JSON.stringify(name)}.`)
    return c.json(queue)
  })
  app.get('/api/v1/routes', c => c.json([...gateway.routes()]))
}
