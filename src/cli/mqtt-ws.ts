import { isIPv6, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createWebSocketStream, WebSocket } from 'ws'

/** The messages of a WebSocket over a connection on its way, as a stream. */
export function overWebSocket(
  socket: Socket,
  {
    host,
    port,
    path,
    subprotocol,
  }: { readonly host: string; readonly port: number; readonly path: string; readonly subprotocol: string },
): Duplex {
  const url = `ws://${isIPv6(host) ? `[${host}]` : host}:${port}${path}`
  const options = { perMessageDeflate: false, createConnection: () => socket }
  return createWebSocketStream(new WebSocket(url, subprotocol, options))
}
