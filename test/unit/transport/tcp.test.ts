import { once } from 'node:events'
import { connect } from 'node:net'
import pino from 'pino'
import { expect, test } from 'vitest'
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
  expect(listener.refused).toBe(1)
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
