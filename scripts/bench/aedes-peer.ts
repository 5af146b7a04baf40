import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { parseArgs } from 'node:util'
import { Aedes } from 'aedes'

/* The aedes of a bench: a process of its own with nothing but the broker, on one port of 127.0.0.1, and on another with TLS if there is a certificate. */

const options = {
  port: { type: 'string' },
  tlsPort: { type: 'string' },
  cert: { type: 'string' },
  key: { type: 'string' },
} as const
const { port, tlsPort, cert, key } = parseArgs({ options }).values
const aedes = await Aedes.createBroker()
createServer(aedes.handle).listen({ port: Number(port), host: '127.0.0.1' })
if (cert !== undefined && key !== undefined) {
  const pair = { cert: readFileSync(cert), key: readFileSync(key) }
  createTlsServer(pair, aedes.handle).listen({ port: Number(tlsPort), host: '127.0.0.1' })
}
