import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { MQTT_EXCHANGE } from '../../model/message.ts'
import { routingKey, topicName } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'
import { readBody } from '../request.ts'

/** One message over HTTP. 200 comes after it is safe, like a PUBACK; 429 and 507 say it was refused. */
export function mountPublish(app: Hono, gateway: Gateway): void {
  app.post('/api/v1/publish', async c => {
    const { publishRequest } = await import('../contract.ts')
    const { topic, exchange, routing_key, payload, encoding, qos, retain, priority } = await readBody(c, publishRequest)
    const { isRouted } = await gateway.publish({
      ...addressOf(exchange ?? MQTT_EXCHANGE, routing_key ?? topic ?? ''),
      payload: decodePayload(payload, encoding),
      qos,
      retain,
      priority,
    })
    return c.json({ routed: isRouted })
  })
}

function addressOf(exchange: string, key: string): { exchange: string; key: string } {
  return { exchange, key: exchange === MQTT_EXCHANGE ? topicName(key) : routingKey(key) }
}

function decodePayload(payload: string, encoding: 'utf8' | 'base64'): Buffer {
  const bytes = Buffer.from(payload, encoding)
  // Node skips what is not base64; a payload cut short silently would be worse than a refusal.
  if (encoding === 'base64' && bytes.toString('base64').replace(/=+$/, '') !== payload.replace(/=+$/, '')) {
    throw new BrokerError('REQUEST_INVALID', 'payload: this is not base64.')
  }
  return bytes
}
