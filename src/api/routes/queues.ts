import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { queueName } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'
import { readBody, readCount, readFlag } from '../request.ts'

const PEEK_DEFAULT = 10

/** Durable queues, what waits in them, and the routes that fill outboxes. */
export function mountQueues(app: Hono, gateway: Gateway): void {
  const { model } = gateway
  app.get('/api/v1/queues', c =>
    c.json(readFlag(c, 'all') ? [...model.queues(), ...model.sessionQueues()] : [...model.queues()]),
  )
  app.get('/api/v1/queues/:name', c => {
    const name = queueName(c.req.param('name'))
    const queue = model.queue(name)
    if (queue === undefined) throw new BrokerError('QUEUE_NOT_FOUND', `There is no queue ${JSON.stringify(name)}.`)
    return c.json(queue)
  })
  app.put('/api/v1/queues/:name', async c => {
    const { queueRequest } = await import('../contract.ts')
    const name = queueName(c.req.param('name'))
    const outcome = await model.declareQueue(name, await readBody(c, queueRequest))
    return c.body(null, outcome === 'created' ? 201 : 204)
  })
  app.delete('/api/v1/queues/:name', async c => {
    await model.deleteQueue(queueName(c.req.param('name')))
    return c.body(null, 204)
  })
  app.get('/api/v1/queues/:name/messages', async c => {
    const { MESSAGES_MAX } = await import('../contract.ts')
    const limit = readCount(c, 'limit', { fallback: PEEK_DEFAULT, max: MESSAGES_MAX })
    return c.json(await model.peek(queueName(c.req.param('name')), limit))
  })
  app.post('/api/v1/queues/:name/purge', async c =>
    c.json({ purged: await model.purge(queueName(c.req.param('name'))) }),
  )
  // 200 comes after the messages have left the queue durably: a power cut does not bring them back.
  app.post('/api/v1/queues/:name/get', async c => {
    const { getRequest } = await import('../contract.ts')
    const name = queueName(c.req.param('name'))
    return c.json(await model.get(name, await readBody(c, getRequest)))
  })
  app.get('/api/v1/routes', c => c.json([...gateway.routes()]))
}
