import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { queueName } from '../../model/names.ts'
import { parseReadFrom, READ_FROM_FORMS, type ReadFrom } from '../../model/read-from.ts'
import type { Gateway } from '../gateway.ts'
import { readBody, readCount } from '../request.ts'

const READ_DEFAULT = 10

/** Streams, what they keep, and replays of it. */
export function mountStreams(app: Hono, { streams }: Gateway): void {
  app.get('/api/v1/streams', async c => c.json(await streams.all()))
  app.get('/api/v1/streams/:name', async c => c.json(await streams.stream(queueName(c.req.param('name')))))
  app.delete('/api/v1/streams/:name', async c => {
    await streams.delete(queueName(c.req.param('name')))
    return c.body(null, 204)
  })
  app.get('/api/v1/streams/:name/messages', async c => {
    const { MESSAGES_MAX } = await import('../contract.ts')
    const limit = readCount(c, 'limit', { fallback: READ_DEFAULT, max: MESSAGES_MAX })
    const from = readFrom('from', c.req.query('from') ?? 'first')
    return c.json(await streams.messages(queueName(c.req.param('name')), from, limit))
  })
  // 200 comes after what was sent is durable.
  app.post('/api/v1/streams/:name/replay', async c => {
    const { streamReplayRequest } = await import('../contract.ts')
    const request = await readBody(c, streamReplayRequest)
    const range = { from: readFrom('from', request.from), until: readFrom('until', request.until) }
    return c.json(await streams.replay(queueName(c.req.param('name')), range, request))
  })
}

function readFrom(name: string, text: string): ReadFrom {
  const from = parseReadFrom(text)
  if (from !== null) return from
  throw new BrokerError('REQUEST_INVALID', `${name}: accepted is ${READ_FROM_FORMS}.`)
}
