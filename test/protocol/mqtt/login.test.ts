import { describe, expect } from 'vitest'
import type { Authenticator, Credentials, Login } from '../../../src/core/access.ts'
import { eventually } from '../../support/eventually.ts'
import { accessWith } from '../../support/users.ts'
import { bytes, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  connect5,
  connect311,
  DISCONNECT,
  puback,
  publish5,
  publish311,
  suback311,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

/** Lets in and refuses when the test says so. */
class DecidedLater implements Authenticator {
  readonly asked: Credentials[] = []
  readonly #answers: ((login: Login) => void)[] = []

  login(credentials: Credentials): Promise<Login> {
    this.asked.push(credentials)
    return new Promise(resolve => this.#answers.push(resolve))
  }

  async accepts(user: string): Promise<void> {
    await this.#decides({ kind: 'accepted', identity: { user, groups: [] } })
  }

  async refuses(reason: Extract<Login, { kind: 'refused' }>['reason']): Promise<void> {
    await this.#decides({ kind: 'refused', reason, why: 'no' })
  }

  async #decides(login: Login): Promise<void> {
    await eventually(() => this.#answers.length > 0)
    this.#answers.shift()?.(login)
  }
}

const userAndPassword = [text('meter'), text('secret')]
const withPassword311 = (clientId = 'c1'): Buffer => connect311(clientId, 'c2', ...userAndPassword)
const withPassword5 = (clientId = 'c1'): Buffer => connect5(clientId, '00', 'c2', ...userAndPassword)
const returnCode = (code: string): Buffer => bytes('20 02 00', code)

describe('a login that takes time', () => {
  const patient = new DecidedLater()
  transcript(
    'is told client id, name, password and address, and the client hears nothing until it is over',
    async ({ client, broker }) => {
      client.says(withPassword311())
      await eventually(() => patient.asked.length === 1)
      const [credentials] = patient.asked
      expect({ ...credentials, password: credentials?.password?.toString() }).toEqual({
        clientId: 'c1',
        user: 'meter',
        password: 'secret',
        certificateUser: null,
        address: '127.0.0.1',
        isLocal: true,
      })
      expect(client.heardBytes).toBe(0)
      expect(broker.server.clientCount).toBe(0)
      await patient.accepts('meter')
      await client.hears(CONNACK_311)
      expect(broker.server.client('c1')?.user).toBe('meter')
      await client.hearsNothing()
    },
    { authenticator: patient },
  )

  const held = new DecidedLater()
  transcript(
    'what a client says meanwhile is dealt with after it, in its order, however it is cut',
    async ({ client }) => {
      const connect = withPassword311()
      client.says(connect.subarray(0, 5))
      await eventually(() => client.socket.writableLength === 0)
      client.says(connect.subarray(5), subscribe311('00 01', 'a', '00'), publish311('a', 'x', 0x32, '00 02'))
      await held.accepts('meter')
      await client.hears(CONNACK_311, suback311('00 01', '00'), publish311('a', 'x'), puback('00 02'))
      await client.says(publish311('a', 'y', 0x32, '00 03')).hears(publish311('a', 'y'), puback('00 03'))
    },
    { authenticator: held },
  )

  const refusing = new DecidedLater()
  transcript(
    'what a client said meanwhile is dropped if it is refused: [MQTT-3.1.4-6], 3.1.1 [MQTT-3.1.4-5]',
    async ({ client, another, broker }) => {
      client.says(withPassword311(), publish311('a', 'x', 0x32, '00 02'))
      await refusing.refuses('bad-credentials')
      await client.hears(returnCode('04'))
      await client.hearsClose()
      const modern = await another()
      modern.says(withPassword5(), publish5('a', 'x', 0x32, '00 02'))
      await refusing.refuses('bad-credentials')
      await modern.hears(packet(0x20, '00 86', '05', '1f', text('no')))
      await modern.hearsClose()
      expect(broker.core.router.counters.accepted).toBe(0)
      expect(broker.server.counters.refusedConnections).toBe(2)
    },
    { authenticator: refusing },
  )

  const leaving = new DecidedLater()
  transcript(
    'a client that says DISCONNECT meanwhile is let in and leaves, without a will',
    async ({ client, broker }) => {
      client.says(withPassword311(), DISCONNECT)
      await leaving.accepts('meter')
      await client.hears(CONNACK_311)
      await client.hearsClose()
      await eventually(() => broker.server.clientCount === 0)
      expect(broker.server.counters.connected).toBe(1)
    },
    { authenticator: leaving },
  )

  const flooded = new DecidedLater()
  transcript(
    'more than 16 KiB behind CONNECT end the connection before it is known who that is, and a late answer changes nothing',
    async ({ client, broker }) => {
      client.says(withPassword5(), publish5('a', 'x'.repeat(40_000)))
      await client.hearsClose()
      await flooded.accepts('meter')
      await eventually(() => flooded.asked.length === 1)
      expect(broker.server.clientCount).toBe(0)
      expect(broker.server.counters.connected).toBe(0)
    },
    { authenticator: flooded },
  )

  const endless = new DecidedLater()
  transcript(
    'that is not over after limits.connect_timeout is told to come again, and a late answer lets nobody in',
    async ({ client, another, broker }) => {
      client.says(withPassword311())
      const modern = (await another()).says(withPassword5('c2'))
      await client.hears(returnCode('03'))
      await client.hearsClose()
      const heard = await modern.hearsPacket()
      expect([heard[0], heard[3]]).toEqual([0x20, 0x89])
      await modern.hearsClose()
      await endless.accepts('meter')
      await endless.accepts('meter')
      await (await another()).says(bytes('c0 00')).hearsClose()
      expect(broker.server.clientCount).toBe(0)
      expect(broker.server.counters.connected).toBe(0)
    },
    { authenticator: endless, limits: { connectTimeoutMs: 300 } },
  )

  const stopping = new DecidedLater()
  transcript(
    'does not keep the gateway from stopping',
    async ({ client, broker }) => {
      client.says(withPassword5())
      await eventually(() => stopping.asked.length === 1)
      await broker.server.stop()
      await client.hearsClose()
      await stopping.accepts('meter')
    },
    { authenticator: stopping },
  )
})

describe('who is not let in is told why [MQTT-3.1.4-2]', () => {
  const refusals = [
    ['bad-credentials', '04', '86'],
    ['anonymous', '05', '87'],
    ['banned', '05', '8a'],
    ['busy', '03', '89'],
  ] as const
  for (const [reason, old, modern] of refusals) {
    const refusing: Authenticator = { login: () => ({ kind: 'refused', reason, why: 'no' }) }
    transcript(
      `${reason}: 0x${modern}, 3.1.1 ${old}`,
      async ({ client, another }) => {
        await client.says(withPassword311()).hears(returnCode(old))
        await client.hearsClose()
        const second = await another()
        await second.says(withPassword5()).hears(packet(0x20, '00', modern, '05', '1f', text('no')))
        await second.hearsClose()
      },
      { authenticator: refusing },
    )
  }
})

describe('clients without proof', () => {
  transcript(
    'on this machine are let in where that is the rule',
    async ({ client }) => {
      await client.says(connect5('c1')).hears(CONNACK_5)
    },
    { authenticator: accessWith({ anonymous: 'local' }) },
  )
})
