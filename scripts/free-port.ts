import { randomInt } from 'node:crypto'
import { createServer } from 'node:net'

/**
 * Below Linux's usual range for outgoing connections (32768 and up), so that a peer which is down for a while finds its
 * port still free: no outgoing connection of another process can have taken it meanwhile.
 */
const FIRST_PORT = 10_240
const PORT_LIMIT = 32_000
const ATTEMPTS = 200

/** A TCP port on 127.0.0.1 that nobody listened on a moment ago; for processes that can't be told to choose one (port 0). */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const port = randomInt(FIRST_PORT, PORT_LIMIT)
    if (await isFree(port)) return port
  }
  throw new Error(`no free TCP port found on 127.0.0.1 in ${ATTEMPTS} attempts between ${FIRST_PORT} and ${PORT_LIMIT}`)
}

function isFree(port: number): Promise<boolean> {
  return new Promise(resolve => {
    const probe = createServer()
    probe.once('error', () => resolve(false))
    // All addresses, so that a listener on any of them counts.
    probe.listen({ port, host: '0.0.0.0', exclusive: true }, () => probe.close(() => resolve(true)))
  })
}
