import pino from 'pino'
import { expect, test } from 'vitest'
import { AddressGate } from '../../../src/core/address-gate.ts'
import { TcpListener } from '../../../src/transport/tcp.ts'
import { accessWith, userEntry, usersOf } from '../../support/users.ts'
import { bytes, MqttUnderTest, text, WireClient } from '../../support/wire.ts'
import { CONNACK_311, connect5, connect311 } from './packets.ts'

/** A gateway behind a proxy, which tells the addresses of clients. */
async function behindProxy({ loginFailures = 3, connectionsPerS = 0 } = {}) {
  const gate = new AddressGate({ connectionsPerS, loginFailures, banMs: 60_000 }, () => performance.now())
  const access = accessWith({ users: usersOf(userEntry('meter', 'secret')), gate })
  const broker = await MqttUnderTest.start({ authenticator: access })
  const listener = new TcpListener({
    name: 'mqtt',
    host: '127.0.0.1',
    port: 0,
    log: pino({ level: 'silent' }),
    admits: address => gate.admits(address),
    trustedProxies: ['127.0.0.1'],
  })
  await listener.start(socket => broker.server.accept(socket))
  const clients: WireClient[] = []
  return {
    gate,
    access,
    broker,
    from: async (address: string) => {
      const client = await WireClient.connect(listener.address().port)
      clients.push(client)
      return client.says(Buffer.from(`PROXY TCP4 ${address} 198.51.100.1 40000 1883\r\n`))
    },
    async [Symbol.asyncDispose]() {
      for (const client of clients) client.close()
      await listener.stop()
      await broker[Symbol.asyncDispose]()
    },
  }
}

const [GUESSER, NEIGHBOUR] = ['192.0.2.7', '192.0.2.8']
const by311 = (password: string): Buffer => connect311('c1', 'c2', text('meter'), text(password))
const by5 = (password: string): Buffer => connect5('c2', '00', 'c2', text('meter'), text(password))
const returnCode = (code: string): Buffer => bytes('20 02 00', code)

test('whoever guesses passwords is banned: connections that are open hear it, further ones are closed unread, neighbours get in', async () => {
  await using gateway = await behindProxy()
  const [open, modern] = [await gateway.from(GUESSER), await gateway.from(GUESSER)]
  for (const guess of ['a', 'b', 'c']) {
    const client = await gateway.from(GUESSER)
    await client.says(by311(guess)).hears(returnCode('04'))
    await client.hearsClose()
  }
  await open.says(by311('secret')).hears(returnCode('05'))
  await open.hearsClose()
  const heard = await modern.says(by5('secret')).hearsPacket()
  expect([heard[0], heard[3]]).toEqual([0x20, 0x8a])
  await modern.hearsClose()
  const closed = await gateway.from(GUESSER)
  await closed.says(by311('secret')).hearsClose()
  expect(closed.heardBytes).toBe(0)
  expect(gateway.gate.refused.banned).toBe(1)
  expect([...gateway.gate.bans()]).toMatchObject([{ address: GUESSER }])
  await (await gateway.from(NEIGHBOUR)).says(by311('secret')).hears(CONNACK_311)
  gateway.gate.unban(GUESSER)
  await (await gateway.from(GUESSER)).says(by311('secret')).hears(CONNACK_311)
})

test('a device that keeps coming with an old password bans nobody who shares its address', async () => {
  await using gateway = await behindProxy()
  await Promise.all(
    Array.from({ length: 10 }, async () => {
      const client = await gateway.from(GUESSER)
      await client.says(by311('old')).hears(returnCode('04'))
    }),
  )
  await (await gateway.from(GUESSER)).says(by311('secret')).hears(CONNACK_311)
  expect(gateway.access.refused).toMatchObject({ 'bad-credentials': 10, banned: 0 })
})

test('an address that connects faster than limits.connections_per_s is closed unread, others are not', async () => {
  await using gateway = await behindProxy({ connectionsPerS: 2 })
  const answers = await Promise.all(
    Array.from({ length: 20 }, async (_, n) => {
      const client = await gateway.from(GUESSER)
      client.says(connect311(`c${n}`, 'c2', text('meter'), text('secret')))
      return (await client.hearsPacket()).length > 0
    }),
  )
  const admitted = answers.filter(Boolean).length
  expect(admitted).toBeGreaterThanOrEqual(2)
  expect(admitted).toBeLessThan(10)
  expect(gateway.gate.refused.rate).toBe(20 - admitted)
  await (await gateway.from(NEIGHBOUR)).says(by311('secret')).hears(CONNACK_311)
})

test('5,000 connections from 50 addresses, a guess each: every address is banned, and the one who knows its password gets in', async () => {
  await using gateway = await behindProxy({ loginFailures: 5 })
  const addresses = Array.from({ length: 50 }, (_, n) => `192.0.2.${100 + n}`)
  const guesses = Array.from({ length: 5000 }, (_, n) => n)
  const atOnce = 200
  let answered = 0
  await Promise.all(
    Array.from({ length: atOnce }, async (_, lane) => {
      for (let n = lane; n < guesses.length; n += atOnce) {
        const client = await gateway.from(addresses[n % addresses.length] ?? '')
        client.says(by311(`guess ${n}`))
        await client.hearsPacket()
        client.close()
        answered++
      }
    }),
  )
  expect(answered).toBe(5000)
  expect([...gateway.gate.bans()]).toHaveLength(50)
  expect(gateway.broker.server.clientCount).toBe(0)
  await (await gateway.from(NEIGHBOUR)).says(by311('secret')).hears(CONNACK_311)
})
