import { createServer } from 'node:net'
import pino from 'pino'
import { expect, test } from 'vitest'
import type { Gateway } from '../../../src/api/gateway.ts'
import { ApiServer } from '../../../src/api/server.ts'
import { Metrics } from '../../../src/telemetry/metrics.ts'
import { EMPTY_MODEL, NO_DEFINITIONS, NO_RETAINED, NO_STREAMS } from '../../support/empty-model.ts'
import { accessWith } from '../../support/users.ts'

/** Only what the listener itself reads; app.test.ts asks the rest. */
const NOTHING = { received: 0, delivered: 0, forwarded: 0, unrouted: 0, dropped: 0 }
const refuse = (): never => {
  throw new TypeError('not asked for here')
}
const gateway: Gateway = {
  config: {},
  model: EMPTY_MODEL,
  streams: NO_STREAMS,
  retained: NO_RETAINED,
  definitions: NO_DEFINITIONS,
  messages: () => NOTHING,
  overview: refuse,
  health: () => ({ status: 'ok', reasons: [] }),
  clients: () => [],
  client: () => undefined,
  sessions: () => [],
  session: () => undefined,
  endSession: async () => false,
  kick: () => false,
  users: () => [],
  bans: () => [],
  unban: () => false,
  routes: () => [],
  upstreams: () => [],
  upstream: () => undefined,
  pauseUpstream: refuse,
  resumeUpstream: refuse,
  publish: refuse,
}

function open(port: number, onAsked: () => void = () => undefined): ApiServer {
  return new ApiServer({
    gateway: {
      ...gateway,
      health: () => {
        onAsked()
        return gateway.health()
      },
    },
    metrics: new Metrics(),
    log: pino({ level: 'silent' }),
    access: accessWith(),
    admits: () => true,
    host: '127.0.0.1',
    port,
    monotonicMs: () => performance.now(),
  })
}

test('answers over a socket, and not after stop, which may come twice', async () => {
  const server = open(0)
  await server.start()
  const { host, port } = server.address()
  const url = `http://${host}:${port}/health/ready`
  expect(await (await fetch(url)).json()).toEqual({ status: 'ok', reasons: [] })
  await server.stop()
  await server.stop()
  await expect(fetch(url)).rejects.toThrow()
})

test('stop closes a connection that was left open', async () => {
  const server = open(0)
  await server.start()
  const { port } = server.address()
  const response = await fetch(`http://127.0.0.1:${port}/health/live`, { keepalive: true })
  await response.text()
  await server.stop()
})

test('a port in use is refused by name, with what to do', async () => {
  const other = createServer()
  await new Promise<void>(resolve => other.listen(0, '127.0.0.1', resolve))
  const address = other.address()
  if (address === null || typeof address === 'string') throw new TypeError('a TCP listener has a port')
  const server = open(address.port)
  await expect(server.start()).rejects.toMatchObject({
    code: 'LISTENER_PORT_IN_USE',
    message: expect.stringMatching(/in use by another process; stop it or set http\.port/),
  })
  await server.stop()
  other.close()
})

test('20 requests at once kept the devices waiting for all of them: one is begun in a turn of the event loop', async () => {
  let turn = 0
  let immediate = setImmediate(function count() {
    turn++
    immediate = setImmediate(count)
  })
  const turns: number[] = []
  const server = open(0, () => void turns.push(turn))
  await server.start()
  const { host, port } = server.address()
  const ask = () => fetch(`http://${host}:${port}/health/ready`)
  // The first loads the API.
  await ask()
  turns.length = 0
  const answers = await Promise.all(Array.from({ length: 20 }, ask))
  expect(answers.every(({ ok }) => ok)).toBe(true)
  expect(new Set(turns).size).toBe(20)
  clearImmediate(immediate)
  await server.stop()
})
