import { once } from 'node:events'
import { connect } from 'node:net'
import pino from 'pino'
import { describe, expect, test, vi } from 'vitest'
import { BrokerError } from '../../../src/model/error.ts'
import { TcpListener } from '../../../src/transport/tcp.ts'
import { eventually } from '../../support/eventually.ts'

const log = pino({ level: 'silent' })
const listenerOn = (port: number, maxConnections = Number.POSITIVE_INFINITY) =>
  new TcpListener({ name: 'mqtt', host: '127.0.0.1', port, log, maxConnections })

test('a port in use is an error that says which, and what to do', async () => {
  const first = listenerOn(0)
  await first.start(() => undefined)
  const { port } = first.address()
  const error: unknown = await listenerOn(port)
    .start(() => undefined)
    .catch((reason: unknown) => reason)
  await first.stop()
  expect(error).toBeInstanceOf(BrokerError)
  expect(error).toMatchObject({ code: 'LISTENER_PORT_IN_USE', facts: { port } })
  expect(String(error)).toContain(`127.0.0.1:${port}`)
  expect(String(error)).toContain('listeners.mqtt.port')
})

test('an address of another machine is an error that says so', async () => {
  const listener = new TcpListener({ name: 'mqtt', host: '192.0.2.1', port: 0, log })
  await expect(listener.start(() => undefined)).rejects.toMatchObject({ code: 'LISTENER_FAILED' })
})

test('stop closes what is open and frees the port', async () => {
  const listener = listenerOn(0)
  let accepted = 0
  await listener.start(() => accepted++)
  const { port } = listener.address()
  const client = connect({ port, host: '127.0.0.1' })
  await once(client, 'connect')
  await eventually(() => accepted === 1)
  const closed = once(
    client.on('error', () => undefined),
    'close',
  )
  await listener.stop()
  await closed
  const next = listenerOn(port)
  await next.start(() => undefined)
  await next.stop()
})

test('stop before start and stop twice do nothing', async () => {
  const listener = listenerOn(0)
  await listener.stop()
  await listener.start(() => undefined)
  await listener.stop()
  await listener.stop()
})

test('one connection too many is closed at once and counted', async () => {
  const listener = listenerOn(0, 1)
  let accepted = 0
  await listener.start(() => accepted++)
  const { port } = listener.address()
  const first = connect({ port, host: '127.0.0.1' })
  await once(first, 'connect')
  await eventually(() => accepted === 1)
  const second = connect({ port, host: '127.0.0.1' }).on('error', () => undefined)
  await once(second, 'close')
  expect(accepted).toBe(1)
  expect(listener.counters).toMatchObject({ accepted: 1, refused: { connections: 1 } })
  first.destroy()
  await listener.stop()
})

test('sockets read into one buffer, so a small message costs no memory of its own', async () => {
  const listener = listenerOn(0)
  const chunks: { readonly text: string; readonly memory: ArrayBufferLike }[] = []
  await listener.start(socket =>
    socket.on('data', (chunk: Buffer) => chunks.push({ text: chunk.toString(), memory: chunk.buffer })),
  )
  const { port } = listener.address()
  for (const text of ['one', 'two']) {
    const client = connect({ port, host: '127.0.0.1' })
    client.end(text)
    await once(client.resume(), 'close')
  }
  await listener.stop()
  expect(chunks.map(({ text }) => text)).toEqual(['one', 'two'])
  expect(chunks[0]?.memory).toBe(chunks[1]?.memory)
})

test('a connection carries the listener it came to, and that it is local, in the clear and without a certificate', async () => {
  const listener = listenerOn(0)
  const peers: unknown[] = []
  await listener.start(socket => peers.push(socket.peer))
  const client = connect({ port: listener.address().port, host: '127.0.0.1' }).on('error', () => undefined)
  await eventually(() => peers.length === 1)
  client.destroy()
  await listener.stop()
  expect(peers).toEqual([{ listener: 'mqtt', isLocal: true, certificateUser: null, isEncrypted: false }])
})

test('an address that is not admitted is closed before anything is read from it', async () => {
  const asked: string[] = []
  const listener = new TcpListener({
    name: 'mqtt',
    host: '127.0.0.1',
    port: 0,
    log,
    admits: address => {
      asked.push(address)
      return false
    },
  })
  await listener.start(() => expect.unreachable('it was accepted'))
  const client = connect({ port: listener.address().port, host: '127.0.0.1' }).on('error', () => undefined)
  client.write('hello')
  await once(client, 'close')
  await listener.stop()
  expect(asked).toEqual(['127.0.0.1'])
})

describe('behind a proxy', () => {
  interface Arrival {
    readonly address: string | undefined
    readonly port: number | undefined
    readonly isLocal: boolean | undefined
    text: string
  }

  /** What a listener hands over of a connection that says this, each string in a segment of its own; undefined: nothing, the connection is closed. */
  async function arrival(
    sent: readonly string[],
    { trusted = ['127.0.0.1'], reads = 'shared' }: { trusted?: readonly string[]; reads?: 'shared' | 'own' } = {},
  ): Promise<{ heard: Arrival | undefined; listener: TcpListener }> {
    const listener = new TcpListener({
      ...{ name: 'mqtt', host: '127.0.0.1', port: 0, log },
      ...{ trustedProxies: trusted, reads },
    })
    let heard: Arrival | undefined
    await listener.start(socket => {
      const arrived = {
        address: socket.remoteAddress,
        port: socket.remotePort,
        isLocal: socket.peer?.isLocal,
        text: '',
      }
      heard = arrived
      socket.on('error', () => undefined)
      socket.on('data', (chunk: Buffer) => {
        arrived.text += chunk.toString('latin1')
      })
      socket.on('end', () => socket.end())
    })
    const client = connect({ port: listener.address().port, host: '127.0.0.1', noDelay: true })
    client.on('error', () => undefined)
    const closed = once(client.resume(), 'close')
    for (const text of sent) {
      await new Promise(resolve => client.write(Buffer.from(text, 'latin1'), resolve))
      await new Promise(resolve => setImmediate(resolve))
    }
    client.end()
    await closed
    await listener.stop()
    return { heard, listener }
  }

  const HEADER = 'PROXY TCP4 192.0.2.7 10.0.0.1 54321 1883\r\n'
  const TOLD = { address: '192.0.2.7', port: 54_321, isLocal: false }

  for (const reads of ['shared', 'own'] as const) {
    const how = reads === 'own' ? 'with chunks of their own' : 'with the shared buffer'
    test(`the address it tells is that of the connection, and what follows is all there (${how})`, async () => {
      expect((await arrival([`${HEADER}hello`], { reads })).heard).toEqual({ ...TOLD, text: 'hello' })
      expect((await arrival([HEADER, 'hello'], { reads })).heard).toEqual({ ...TOLD, text: 'hello' })
      expect((await arrival([...HEADER, 'hel', 'lo'], { reads })).heard).toEqual({ ...TOLD, text: 'hello' })
      const long = 'x'.repeat(200_000)
      expect((await arrival([`${HEADER}${long}`, 'y'], { reads })).heard?.text).toBe(`${long}y`)
    })
  }

  test('a client on the machine of the proxy is local if that is this one', async () => {
    const { heard } = await arrival(['PROXY TCP4 127.0.0.1 127.0.0.1 5 6\r\n'])
    expect(heard).toMatchObject({ address: '127.0.0.1', port: 5, isLocal: true })
  })

  test("the proxy's own connection is its own, one of an unknown client is nobody's", async () => {
    const signature = '\r\n\r\n\0\r\nQUIT\n'
    expect((await arrival([`${signature}\x20\0\0\0`])).heard).toMatchObject({ address: '127.0.0.1', isLocal: true })
    expect((await arrival(['PROXY UNKNOWN\r\n'])).heard).toMatchObject({ address: '127.0.0.1', isLocal: false })
  })

  test('a network of proxies is trusted as a whole', async () => {
    expect((await arrival([HEADER], { trusted: ['192.0.2.1', '127.0.0.0/8'] })).heard).toMatchObject(TOLD)
  })

  for (const [name, sent, trusted] of [
    ['whoever is no proxy is not heard, whatever it says', HEADER, ['192.0.2.1', '::1', '10.0.0.0/8']],
    ['what does not begin with a header is closed', 'hello', ['127.0.0.1']],
    ['half a header is closed with its connection', HEADER.slice(0, 20), ['127.0.0.1']],
  ] as const) {
    test(name, async () => {
      const { heard, listener } = await arrival([sent], { trusted })
      expect(heard).toBeUndefined()
      expect(listener.counters).toMatchObject({ accepted: 0, refused: { proxy: 1 } })
    })
  }

  test('the address it tells has to be admitted, not that of the proxy', async () => {
    const asked: string[] = []
    const admits = (address: string): boolean => {
      asked.push(address)
      return false
    }
    const listener = new TcpListener({
      ...{ name: 'mqtt', host: '127.0.0.1', port: 0, log },
      ...{ admits, trustedProxies: ['127.0.0.1'] },
    })
    await listener.start(() => expect.unreachable('it was accepted'))
    const client = connect({ port: listener.address().port, host: '127.0.0.1' }).on('error', () => undefined)
    client.write(HEADER)
    await once(client.resume(), 'close')
    await listener.stop()
    expect(asked).toEqual(['192.0.2.7'])
    expect(listener.counters.refused.address).toBe(1)
  })

  test('a header that is not whole after five seconds is not waited for any longer', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const listener = new TcpListener({ name: 'mqtt', host: '127.0.0.1', port: 0, log, trustedProxies: ['127.0.0.1'] })
      await listener.start(() => expect.unreachable('it was accepted'))
      const client = connect({ port: listener.address().port, host: '127.0.0.1' }).on('error', () => undefined)
      client.write(HEADER.slice(0, -1))
      await eventually(() => vi.getTimerCount() === 1)
      vi.advanceTimersByTime(4_999)
      expect(listener.counters.refused.proxy).toBe(0)
      const closed = once(client.resume(), 'close')
      vi.advanceTimersByTime(1)
      await closed
      await eventually(() => listener.counters.refused.proxy === 1)
      await listener.stop()
    } finally {
      vi.useRealTimers()
    }
  })

  test('a connection that waits for its header does not keep the listener from stopping', async () => {
    const listener = new TcpListener({ name: 'mqtt', host: '127.0.0.1', port: 0, log, trustedProxies: ['127.0.0.1'] })
    await listener.start(() => undefined)
    const client = connect({ port: listener.address().port, host: '127.0.0.1' }).on('error', () => undefined)
    await once(client, 'connect')
    const closed = once(client.resume(), 'close')
    await listener.stop()
    await closed
  })
})

test('500 connections that came at once kept everybody waiting: 16 are taken in a turn of the event loop, and all in the end', async () => {
  let turn = 0
  let immediate = setImmediate(function count() {
    turn++
    immediate = setImmediate(count)
  })
  const taken = new Map<number, number>()
  let accepted = 0
  const listener = listenerOn(0)
  await listener.start(() => {
    accepted++
    taken.set(turn, (taken.get(turn) ?? 0) + 1)
  })
  const { port } = listener.address()
  const clients = Array.from({ length: 200 }, () => connect({ port, host: '127.0.0.1' }))
  await eventually(() => accepted === clients.length)
  // A turn by the test's count may lie across two of the listener's.
  expect(Math.max(...taken.values())).toBeLessThanOrEqual(32)
  clearImmediate(immediate)
  for (const client of clients) client.destroy()
  await listener.stop()
})
