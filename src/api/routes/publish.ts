import type { Hono } from 'hono'
import { BrokerError } from '../../model/error.ts'
import { topicName } from '../../model/names.ts'
import type { Gateway } from '../gateway.ts'

/** One message over HTTP. 200 comes after it is safe, like a PUBACK; 429 and 507 say it was refused. */
export function mountPublish(app: Hono, gateway: Gateway): void {
  app.post('/api/v1/publish', async c => {
    const { publishRequest } = await import('../contract.ts')
    const parsed = publishRequest.safeParse(await readJson(() => c.req.json()))
    if (!parsed.success) {
      const faults = parsed.error.issues.map(issue => `${issue.path.join('.') || 'body'}: ${issue.message}`)
      throw new BrokerError('REQUEST_INVALID', `The request is not understood: ${faults.join('; ')}.`)
    }
    const { topic, payload, encoding, qos } = parsed.data
    const { isRouted } = await gateway.publish({
      topic: topicName(topic),
      payload: decodePayload(payload, encoding),
      qos,
    })
    return c.json({ routed: isRouted })
  })
}

async function readJson(read: () => Promise<unknown>): Promise<unknown> {
  try {
    return await read()
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new BrokerError('REQUEST_INVALID', 'The body is not JSON.', { cause })
  }
}

function decodePayload(payload: string, encoding: 'utf8' | 'base64'): Buffer {
  const bytes = Buffer.from(payload, encoding)
  // Node skips what is not base64; a payload cut short silently would be worse than a refusal.
  if (encoding === 'base64' && bytes.toString('base64').replace(/=+$/, '') !== payload.replace(/=+$/, '')) {
    throw new BrokerError('REQUEST_INVALID', 'payload: this is not base64.')
  }
  return bytes
}
