import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { TcpProxy } from '../../scripts/tcp-proxy.ts'
import { eventually } from '../support/eventually.ts'

/** One end of a connection that remembers what happened to it. */
class End {
  readonly socket: Socket
  readonly #chunks: Buffer[] = []
  /** Bytes received. */
  size = 0
  ending: 'open' | 'fin' | 'rst' = 'open'

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', bytes => {
      this.#chunks.push(bytes)
      this.size += bytes.length
    })
    socket.on('end', () => {
      this.ending = 'fin'
    })
    socket.on('error', error => {
      if ('code' in error && error.code === 'ECONNRESET') this.ending = 'rst'
    })
  }

  get text(): string {
    return Buffer.concat(this.#chunks).toString()
  }
}

let server: Server
let proxy: TcpProxy
let accepted: End[]
let clients: End[]

beforeEach(async () => {
  accepted = []
  clients = []
  server = createServer(socket => accepted.push(new End(socket))).listen(0, '127.0.0.1')
  await once(server, 'listening')
  proxy = await TcpProxy.start({ port: (server.address() as AddressInfo).port })
})

afterEach(async () => {
  await proxy.stop()
  for (const { socket } of [...accepted, ...clients]) socket.destroy()
  server.close()
  await once(server, 'close')
})

function startClient({ port, host }: TcpProxy): End {
  const client = new End(connect(port, host))
  clients.push(client)
  return client
}

async function openClient(): Promise<End> {
  const client = startClient(proxy)
  await once(client.socket, 'connect')
  return client
}

async function openPair(): Promise<{ client: End; target: End }> {
  const before = accepted.length
  const client = await openClient()
  const target = await eventually(() => accepted[before])
  return { client, target }
}

/** Has a round trip through the proxy done, so that what was sent before it would have arrived. */
async function roundTrip(): Promise<void> {
  const { client, target } = await openPair()
  client.socket.write('?')
  await eventually(() => target.text === '?')
  target.socket.write('!')
  await eventually(() => client.text === '!')
}

test('bytes pass both ways, and a close on one side closes the other in order', async () => {
  const { client, target } = await openPair()
  const large = Buffer.alloc(3_000_000, 'x')
  client.socket.write(large)
  target.socket.write('hello')
  await eventually(() => target.size === large.length && client.text === 'hello')
  client.socket.end('bye')
  await eventually(() => target.ending === 'fin')
  expect(target.text.slice(-3)).toBe('bye')
  await eventually(() => client.ending === 'fin' && proxy.connections === 0)
})

test('cut closes both sides with FIN and lets new connections pass', async () => {
  const { client, target } = await openPair()
  proxy.cut()
  await eventually(() => client.ending !== 'open' && target.ending !== 'open')
  expect([client.ending, target.ending]).toEqual(['fin', 'fin'])
  await roundTrip()
})

test('reset closes both sides with RST and lets new connections pass', async () => {
  const { client, target } = await openPair()
  proxy.reset()
  await eventually(() => client.ending !== 'open' && target.ending !== 'open')
  expect([client.ending, target.ending]).toEqual(['rst', 'rst'])
  await roundTrip()
})

test('a reset by one side reaches the other', async () => {
  const { client, target } = await openPair()
  client.socket.resetAndDestroy()
  await eventually(() => target.ending === 'rst')
})

test('refuse resets open and new connections until healed', async () => {
  const { client, target } = await openPair()
  proxy.refuse()
  await eventually(() => client.ending === 'rst' && target.ending === 'rst')
  const refused = startClient(proxy)
  await eventually(() => refused.ending === 'rst')
  expect(accepted).toHaveLength(1)
  proxy.heal()
  await roundTrip()
})

test('a black hole takes bytes and forwards none, in silence; after it the connections with a gap are reset', async () => {
  const { client, target } = await openPair()
  client.socket.write('before')
  await eventually(() => target.text === 'before')
  proxy.blackHole()
  const lost = Buffer.alloc(3_000_000, 'x')
  client.socket.write(lost)
  target.socket.write('lost too')
  await eventually(() => proxy.lostBytes['to-target'] === lost.length && proxy.lostBytes['to-client'] === 8)
  expect([client.text, target.text]).toEqual(['', 'before'])
  expect([client.ending, target.ending]).toEqual(['open', 'open'])
  proxy.heal()
  await eventually(() => client.ending === 'rst' && target.ending === 'rst')
  expect([client.text, target.text]).toEqual(['', 'before'])
  await roundTrip()
})

test('in a black hole new connections are made and meet silence', async () => {
  proxy.blackHole()
  const client = await openClient()
  client.socket.write('hello?')
  await eventually(() => proxy.lostBytes['to-target'] === 6)
  expect(accepted).toHaveLength(0)
  expect(client.ending).toBe('open')
  proxy.heal()
  await eventually(() => client.ending === 'rst')
  await roundTrip()
})

test('neither side learns in a black hole that the other has closed', async () => {
  const { client, target } = await openPair()
  const other = await openPair()
  proxy.blackHole()
  client.socket.end()
  other.client.socket.resetAndDestroy()
  await eventually(() => client.socket.writableFinished && other.client.socket.closed)
  // The proxy has seen both ends by the time it has swallowed a connection made after them.
  const later = await openClient()
  later.socket.end()
  await eventually(() => later.socket.writableFinished && proxy.connections === 3)
  expect([target.ending, other.target.ending]).toEqual(['open', 'open'])
  proxy.heal()
  await eventually(() => target.ending === 'rst' && other.target.ending === 'rst' && proxy.connections === 0)
})

test('a connection that lost nothing in a black hole lives on after it', async () => {
  const { client, target } = await openPair()
  proxy.blackHole()
  proxy.heal()
  client.socket.write('still here')
  await eventually(() => target.text === 'still here')
})

test('a black hole in one direction lets the other pass', async () => {
  const { client, target } = await openPair()
  proxy.blackHole('to-client')
  client.socket.write('request')
  await eventually(() => target.text === 'request')
  target.socket.write('answer')
  await eventually(() => proxy.lostBytes['to-client'] === 6)
  proxy.blackHole('to-target')
  client.socket.write('another')
  target.socket.write('news')
  await eventually(() => client.text === 'news' && proxy.lostBytes['to-target'] === 7)
  expect(target.text).toBe('request')
})

test('held bytes wait and pass unharmed when the link is healed', async () => {
  const { client, target } = await openPair()
  proxy.hold()
  const bytes = Buffer.alloc(20_000_000, 'x')
  client.socket.write(bytes)
  // Backpressure: the kernel takes some of it, the rest stays with the sender.
  await eventually(() => client.socket.bytesWritten > 0 && client.socket.writableLength > 0)
  expect(target.size).toBe(0)
  proxy.heal()
  await eventually(() => target.size === bytes.length)
  expect(target.ending).toBe('open')
})

test('a throttled link carries at most the given bytes per second, in a trickle', async () => {
  const { client, target } = await openPair()
  proxy.throttle(50_000)
  const startedAt = performance.now()
  let arrivals = 0
  target.socket.on('data', () => arrivals++)
  client.socket.write(Buffer.alloc(25_000))
  await eventually(() => target.size === 25_000)
  const elapsedMs = performance.now() - startedAt
  expect(elapsedMs).toBeGreaterThan(450)
  expect(arrivals).toBeGreaterThan(5)
})

test('healing a throttled link lets the rest through at once', async () => {
  const { client, target } = await openPair()
  proxy.throttle(10)
  client.socket.write(Buffer.alloc(100_000))
  await eventually(() => target.size > 0)
  proxy.heal()
  await eventually(() => target.size === 100_000)
})

test('cutAfter cuts a connection after exactly so many bytes of the chosen direction, once', async () => {
  const { client, target } = await openPair()
  proxy.cutAfter(7)
  target.socket.write('not counted, other direction')
  client.socket.write('1234')
  await eventually(() => target.text === '1234')
  expect(client.ending).toBe('open')
  client.socket.write('56789')
  await eventually(() => target.ending === 'fin' && client.ending === 'fin')
  expect(target.text).toBe('1234567')
  expect(client.text).toBe('not counted, other direction')
  await roundTrip()
})

test('a target that is not there resets the client', async () => {
  const closed = createServer().listen(0, '127.0.0.1')
  await once(closed, 'listening')
  const { port } = closed.address() as AddressInfo
  closed.close()
  await using lonely = await TcpProxy.start({ port })
  const client = startClient(lonely)
  await eventually(() => client.ending === 'rst')
  await eventually(() => lonely.connections === 0)
})

test('stop resets what is open, closes the port, and may be called twice', async () => {
  const { client } = await openPair()
  await proxy.stop()
  await proxy.stop()
  await eventually(() => client.ending === 'rst')
  const late = connect(proxy.port, proxy.host)
  const [error] = await once(late, 'error')
  expect(error).toMatchObject({ code: 'ECONNREFUSED' })
})
