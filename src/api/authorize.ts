/*
 * Who may ask what over HTTP. Everything on this machine may use the API without saying who it is, but no web page in a browser on it: a foreign name in Host is a page that
 * had its name resolved to 127.0.0.1 (DNS rebinding), a foreign Origin is a page that calls across sites. Everybody else needs a token (Bearer, RFC 6750) or a
 * user with a password (Basic, RFC 7617), of the group `admin`, or `viewer` for reading.
 */
import type { Context, MiddlewareHandler } from 'hono'
import type { Access, Identity, Login } from '../core/access.ts'
import { isLoopback } from '../model/address.ts'
import { BrokerError } from '../model/error.ts'
import { problem } from './status.ts'

const READING = new Set(['GET', 'HEAD'])
/** What RFC 9110 section 11.6.1 wants beside 401. */
const CHALLENGE = 'Bearer realm="sluice", Basic realm="sluice", charset="UTF-8"'

export function authorize(access: Access): MiddlewareHandler {
  return async (c, next) => {
    const address = addressOf(c)
    const host = c.req.header('host') ?? ''
    checkOrigin(c.req.header('origin'), host)
    const isLocal = isLoopback(address) && isLoopbackUrl(`http://${host}`)
    const authorization = access.hasCredentials ? c.req.header('authorization') : undefined
    if (authorization === undefined) {
      if (isLocal) return next()
      if (!access.hasCredentials) {
        throw notAuthorized(
          `Requests for the host ${JSON.stringify(host)} are not answered; use 127.0.0.1 or localhost.`,
        )
      }
      return refused(c, 401, 'Say who you are: with a token (--token, SLUICE_TOKEN), or user and password.')
    }
    const login = await logIn(access, authorization, { address, isLocal })
    if (login === null) return refused(c, 401, 'Authorization is neither Bearer nor Basic.')
    if (login.kind === 'refused') {
      const isBusy = login.reason === 'busy'
      return refused(c, isBusy ? 503 : 401, isBusy ? login.why : 'The token, or user name or password, is wrong.')
    }
    if (!isAllowed(login.identity, c.req.method)) {
      throw notAuthorized(`${c.req.method} needs the group admin${READING.has(c.req.method) ? ' or viewer' : ''}.`)
    }
    return next()
  }
}

/** Null: in no form that is known. */
function logIn(
  access: Access,
  authorization: string,
  peer: { address: string; isLocal: boolean },
): Login | Promise<Login> | null {
  const [, scheme = '', credentials = ''] = /^(\S+) +(\S+)$/.exec(authorization) ?? []
  switch (scheme.toLowerCase()) {
    case 'bearer':
      return access.byToken(credentials, peer.address)
    case 'basic': {
      const decoded = Buffer.from(credentials, 'base64').toString()
      const colon = decoded.indexOf(':')
      if (colon < 0) return null
      const [user, password] = [decoded.slice(0, colon), Buffer.from(decoded.slice(colon + 1))]
      return access.login({ ...peer, clientId: '', user, password, certificateUser: null })
    }
    default:
      return null
  }
}

function isAllowed({ groups }: Identity, method: string): boolean {
  return groups.includes('admin') || (groups.includes('viewer') && READING.has(method))
}

/** A browser says which page calls. Another site's page must not use what the browser knows of this one. */
function checkOrigin(origin: string | undefined, host: string): void {
  if (origin === undefined || isLoopbackUrl(origin) || URL.parse(origin)?.host === host) return
  throw notAuthorized(`Pages of ${JSON.stringify(origin)} may not call this API.`)
}

/** Of the other end of the connection; empty: it is gone already. */
function addressOf({ env }: Context): string {
  return env?.incoming?.socket?.remoteAddress ?? ''
}

function refused(c: Context, status: 401 | 503, detail: string): Response {
  const code = status === 401 ? 'NOT_AUTHENTICATED' : 'BUSY'
  return new Response(c.req.method === 'HEAD' ? null : JSON.stringify(problem(status, code, detail)), {
    status,
    headers: { 'content-type': 'application/problem+json', ...(status === 401 && { 'www-authenticate': CHALLENGE }) },
  })
}

const notAuthorized = (message: string): BrokerError => new BrokerError('NOT_AUTHORIZED', message)

function isLoopbackUrl(text: string): boolean {
  const hostname = URL.parse(text)?.hostname
  return hostname !== undefined && /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])$/.test(hostname)
}
