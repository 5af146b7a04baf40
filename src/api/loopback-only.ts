import type { MiddlewareHandler } from 'hono'
import { BrokerError } from '../model/error.ts'

/**
 * Without tokens everything on this machine may use the API, but no web page in a browser on it: a foreign name in Host is a page that had its
 * name resolved to 127.0.0.1 (DNS rebinding), a foreign Origin is a page that calls across sites.
 */
export const loopbackOnly: MiddlewareHandler = async (c, next) => {
  const host = c.req.header('host')
  if (host === undefined || !isLoopbackUrl(`http://${host}`)) {
    throw new BrokerError(
      'NOT_AUTHORIZED',
      `Requests for the host ${JSON.stringify(host ?? '')} are not answered; use 127.0.0.1 or localhost.`,
    )
  }
  const origin = c.req.header('origin')
  if (origin !== undefined && !isLoopbackUrl(origin)) {
    throw new BrokerError('NOT_AUTHORIZED', `Pages of ${JSON.stringify(origin)} may not call this API.`)
  }
  await next()
}

function isLoopbackUrl(text: string): boolean {
  const hostname = URL.parse(text)?.hostname
  return hostname !== undefined && /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(hostname)
}
