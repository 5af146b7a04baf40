import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { exchangeName } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'
import { readBody } from '../request.ts'

/** Exchanges and bindings: list, declare, delete. PUT answers 201 when something was made, 204 when it was there; a binding is named by its whole document. */
export function mountExchanges(app: Hono, { model }: Gateway): void {
  app.get('/api/v1/exchanges', c => c.json([...model.exchanges()]))
  app.get('/api/v1/exchanges/:name', c => {
    const name = exchangeName(c.req.param('name'))
    const exchange = model.exchange(name)
    if (exchange === undefined) {
      throw new BrokerError('EXCHANGE_NOT_FOUND', `There is no exchange ${JSON.stringify(name)}.`)
    }
    return c.json(exchange)
  })
  app.put('/api/v1/exchanges/:name', async c => {
    const { exchangeRequest } = await import('../contract.ts')
    const name = exchangeName(c.req.param('name'))
    const request = await readBody(c, exchangeRequest)
    const outcome = await model.declareExchange(name, request)
    return c.body(null, outcome === 'created' ? 201 : 204)
  })
  app.delete('/api/v1/exchanges/:name', async c => {
    await model.deleteExchange(exchangeName(c.req.param('name')))
    return c.body(null, 204)
  })

  app.get('/api/v1/bindings', c => c.json([...model.bindings()]))
  app.put('/api/v1/bindings', async c => {
    const { bindingRequest } = await import('../contract.ts')
    const outcome = await model.bind(await readBody(c, bindingRequest))
    return c.body(null, outcome === 'created' ? 201 : 204)
  })
  app.delete('/api/v1/bindings', async c => {
    const { bindingRequest } = await import('../contract.ts')
    await model.unbind(await readBody(c, bindingRequest))
    return c.body(null, 204)
  })
}
