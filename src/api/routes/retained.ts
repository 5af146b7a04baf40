import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { topicFilter } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'
import { readCount, readFlag } from '../request.ts'

const LIST_DEFAULT = 20

/** The last message of each topic, in the order of topics. */
export function mountRetained(app: Hono, { retained }: Gateway): void {
  app.get('/api/v1/retained', async c => {
    const { MESSAGES_MAX } = await import('../contract.ts')
    const limit = readCount(c, 'limit', { fallback: LIST_DEFAULT, max: MESSAGES_MAX })
    const after = c.req.query('after') ?? ''
    return c.json(await retained.list(topicFilter(c.req.query('filter') ?? '#'), { after, limit }))
  })
  // 200 comes after it is durable. The filter must be said: this is no place for a default that means all of them.
  app.delete('/api/v1/retained', async c => {
    const filter = c.req.query('filter')
    if (filter === undefined) throw new BrokerError('REQUEST_INVALID', 'filter: a topic or a filter is needed.')
    const isDryRun = readFlag(c, 'dry_run')
    return c.json({ cleared: await retained.clear(topicFilter(filter), { isDryRun }) })
  })
}
