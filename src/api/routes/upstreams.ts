import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { type ConfiguredName, configuredName } from '../../model/names.ts'
import type { UpstreamStatus } from '../contract.ts'
import type { Gateway } from '../gateway.ts'

/** AMQP brokers upstream: list, pause, resume. Both acts may be repeated and answer with the state after them. */
export function mountUpstreams(app: Hono, gateway: Gateway): void {
  const find = (text: string): { name: ConfiguredName; status: UpstreamStatus } => {
    const name = configuredName(text)
    const status = gateway.upstream(name)
    if (status === undefined) throw new BrokerError('UPSTREAM_NOT_FOUND', `There is no upstream "${name}".`)
    return { name, status }
  }
  app.get('/api/v1/upstreams', c => c.json([...gateway.upstreams()]))
  app.post('/api/v1/upstreams/:name/pause', c => {
    const { name } = find(c.req.param('name'))
    gateway.pauseUpstream(name)
    return c.json(find(name).status)
  })
  app.post('/api/v1/upstreams/:name/resume', c => {
    const { name } = find(c.req.param('name'))
    gateway.resumeUpstream(name)
    return c.json(find(name).status)
  })
}
