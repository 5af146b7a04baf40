import { createHmac, randomBytes } from 'node:crypto'
import { describe, expect } from 'vitest'
import type { AuthenticationMethod } from '../../../src/protocol/mqtt/authentication.ts'
import { accessWith } from '../../support/users.ts'
import { bytes, packet, text, type WireClient } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  CONNECT_5,
  connect5,
  connect311,
  DISCONNECT,
  disconnect5,
  publish5,
  suback5,
  subscribe5,
} from './packets.ts'
import { type Staging, transcript } from './transcript.ts'

const KEY = 'known to both'
const proofOf = (challenge: Buffer): Buffer => createHmac('sha256', KEY).update(challenge).digest()

/** The server sends random bytes, the client their HMAC; CONNACK carries that of the HMAC, by which the client knows the server. */
const challengeResponse: AuthenticationMethod = ({ clientId }) => {
  let challenge: Buffer | null = null
  return data => {
    if (clientId === 'banned') return { kind: 'refused', why: 'not this one' }
    if (challenge === null) {
      challenge = randomBytes(16)
      return { kind: 'continue', data: challenge }
    }
    const expected = proofOf(challenge)
    if (data === null || !expected.equals(data)) return { kind: 'refused', why: 'wrong answer' }
    return { kind: 'accepted', data: proofOf(expected) }
  }
}

/** Lets in whoever sends `please`, at once and without data of its own. */
const polite: AuthenticationMethod = () => data =>
  data?.toString() === 'please' ? { kind: 'accepted', data: null } : { kind: 'refused', why: 'no manners' }

const STAGING: Staging = {
  authenticator: accessWith(),
  authenticationMethods: new Map([
    ['CHALLENGE', challengeResponse],
    ['POLITE', polite],
  ]),
}

const method = (name: string): Buffer => bytes('15', text(name))
const data = (value: Buffer | string): Buffer =>
  bytes('16', typeof value === 'string' ? text(value) : Buffer.concat([Buffer.from([0, value.length]), value]))
/** Properties of a packet with their length, which is below 128. */
const properties = (...parts: Buffer[]): Buffer => {
  const all = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([all.length]), all])
}
const hex = (value: Buffer): string => value.toString('hex').replace(/..(?=.)/g, '$& ')
const connectWith = (...parts: Buffer[]): Buffer => connect5('c1', hex(properties(...parts)))
const auth = (reason: string, ...parts: Buffer[]): Buffer => packet(0xf0, reason, properties(...parts))
/** CONNACK_5 with these properties more. */
const connackWith = (...parts: Buffer[]): Buffer => packet(0x20, '00 00', properties(CONNACK_5.subarray(5), ...parts))

/** The challenge of an AUTH 0x18. */
async function hearsChallenge(client: WireClient): Promise<Buffer> {
  const heard = await client.hearsPacket()
  const challenge = heard.subarray(-16)
  expect(heard).toEqual(auth('18', method('CHALLENGE'), data(challenge)))
  return challenge
}

/** Connects and proves itself. */
async function connects(client: WireClient): Promise<void> {
  client.says(connectWith(method('CHALLENGE')))
  const answer = proofOf(await hearsChallenge(client))
  await client
    .says(auth('18', method('CHALLENGE'), data(answer)))
    .hears(connackWith(method('CHALLENGE'), data(proofOf(answer))))
}

/** Is refused by CONNACK with this reason and closed. */
async function hearsRefused(client: WireClient, reason: number): Promise<void> {
  const heard = await client.hearsPacket()
  expect([heard[0], heard[2], heard[3]]).toEqual([0x20, 0, reason])
  await client.hearsClose()
}

describe('enhanced authentication', () => {
  transcript(
    'several steps, each AUTH and CONNACK with the method [MQTT-4.12.0-2], [MQTT-4.12.0-3], [MQTT-4.12.0-5]',
    async ({ client, broker }) => {
      await connects(client)
      await client
        .says(subscribe5('00 01', 'a', '00'), publish5('a', 'x'))
        .hears(suback5('00 01', '00'), publish5('a', 'x'))
      expect(broker.server.clientCount).toBe(1)
    },
    STAGING,
  )

  transcript(
    'one step: CONNACK answers CONNECT',
    async ({ client }) => {
      await client.says(connectWith(method('POLITE'), data('please'))).hears(connackWith(method('POLITE')))
      await client.hearsNothing()
    },
    STAGING,
  )

  transcript(
    'a method nobody knows is refused with 0x8C, in one that refuses with 0x87 [MQTT-4.12.0-1], [MQTT-4.12.0-4]',
    async ({ client, another }) => {
      client.says(connectWith(method('SCRAM-SHA-1')))
      await hearsRefused(client, 0x8c)
      const rude = await another()
      rude.says(connectWith(method('POLITE')))
      await hearsRefused(rude, 0x87)
      const wrong = await another()
      wrong.says(connectWith(method('CHALLENGE')))
      await hearsChallenge(wrong)
      wrong.says(auth('18', method('CHALLENGE'), data('a guess')))
      await hearsRefused(wrong, 0x87)
    },
    STAGING,
  )

  transcript(
    'without a method everything is as if there were none [MQTT-4.12.0-6]',
    async ({ client, another }) => {
      await client.says(CONNECT_5).hears(CONNACK_5)
      await client.says(auth('19', method('POLITE'), data('please'))).hears(disconnect5('82')) // [MQTT-4.12.0-7]
      await client.hearsClose()
      const old = await another()
      await old.says(connect311('old')).hears(CONNACK_311)
      await old.says(auth('18', method('POLITE'))).hearsClose()
    },
    { ...STAGING, authenticator: accessWith({ anonymous: 'everybody' }) },
  )

  transcript('no method is known by default', async ({ client }) => {
    client.says(connectWith(method('CHALLENGE')))
    await hearsRefused(client, 0x8c)
  })

  const wrong: [string, number, Buffer][] = [
    ['PUBLISH [MQTT-3.1.2-30]', 0x82, publish5('a', 'x')],
    ['a second CONNECT [MQTT-3.1.0-2]', 0x82, CONNECT_5],
    ['another method [MQTT-4.12.0-5]', 0x82, auth('18', method('POLITE'), data('please'))],
    ['no method', 0x82, auth('18', data('please'))],
    ['a reason code and no more', 0x82, packet(0xf0, '18')],
    ['re-authentication', 0x82, auth('19', method('CHALLENGE'))],
    ['AUTH 0x00, which is the server’s [MQTT-3.15.2-1]', 0x82, bytes('f0 00')],
    ['an unknown reason code [MQTT-3.15.2-1]', 0x81, auth('17', method('CHALLENGE'))],
    ['wrong flags [MQTT-3.15.1-1]', 0x81, packet(0xf1, '18', properties(method('CHALLENGE')))],
    ['a property of another packet', 0x81, auth('18', method('CHALLENGE'), bytes('11 00 00 00 01'))],
    ['two methods', 0x82, auth('18', method('CHALLENGE'), method('CHALLENGE'))],
    ['bytes behind the properties', 0x81, packet(0xf0, '18', properties(method('CHALLENGE')), '00')],
  ]
  for (const [what, reason, said] of wrong) {
    transcript(
      `in the middle of it, refused: ${what}`,
      async ({ client, broker }) => {
        client.says(connectWith(method('CHALLENGE')))
        await hearsChallenge(client)
        client.says(said)
        await hearsRefused(client, reason)
        expect(broker.server.clientCount).toBe(0)
      },
      STAGING,
    )
  }

  transcript(
    'a client may give up, and one that said too much is refused, without a trace of what it published',
    async ({ client, another, broker }) => {
      client.says(connectWith(method('CHALLENGE')))
      await hearsChallenge(client)
      await client.says(DISCONNECT).hearsClose()
      const hasty = await another()
      hasty.says(connectWith(method('CHALLENGE')), publish5('a', 'x', 0x32, '00 01'))
      await hearsChallenge(hasty)
      await hearsRefused(hasty, 0x82)
      expect(broker.core.router.counters.accepted).toBe(0)
      expect(broker.server.counters.refusedConnections).toBe(2)
    },
    STAGING,
  )

  transcript(
    'an AUTH or CONNACK larger than the client takes is not sent [MQTT-3.1.2-24]',
    async ({ client, another }) => {
      await client.says(connectWith(method('CHALLENGE'), bytes('27 00 00 00 10'))).hears(packet(0x20, '00 95 00'))
      await client.hearsClose()
      const tiny = await another()
      await tiny
        .says(connectWith(method('POLITE'), data('please'), bytes('27 00 00 00 15')))
        .hears(packet(0x20, '00 95 00'))
      await tiny.hearsClose()
    },
    STAGING,
  )
})

describe('re-authentication', () => {
  transcript(
    'AUTH 0x19 begins it, AUTH 0x00 ends it, and everything goes on meanwhile [MQTT-4.12.1-1]',
    async ({ client }) => {
      await connects(client)
      for (let turn = 0; turn < 2; turn++) {
        client.says(auth('19', method('CHALLENGE')))
        const answer = proofOf(await hearsChallenge(client))
        await client.says(publish5('a', 'x', 0x32, '00 01')).hears(packet(0x40, '00 01 10'))
        await client
          .says(auth('18', method('CHALLENGE'), data(answer)))
          .hears(auth('00', method('CHALLENGE'), data(proofOf(answer))))
        await client.hearsNothing()
      }
    },
    STAGING,
  )

  transcript(
    'who cannot prove itself again is disconnected with 0x87 [MQTT-4.12.1-2]',
    async ({ client }) => {
      await connects(client)
      client.says(auth('19', method('CHALLENGE')))
      await hearsChallenge(client)
      await client.says(auth('18', method('CHALLENGE'), data('a guess'))).hears(disconnect5('87'))
      await client.hearsClose()
    },
    STAGING,
  )

  const wrong: [string, Buffer][] = [
    ['an answer to no question', auth('18', method('CHALLENGE'), data('x'))],
    ['another method [MQTT-4.12.1-1]', auth('19', method('POLITE'), data('please'))],
    ['no method', auth('19')],
    ['AUTH 0x00', auth('00', method('CHALLENGE'))],
  ]
  for (const [what, said] of wrong) {
    transcript(
      `disconnected with 0x82: ${what}`,
      async ({ client }) => {
        await connects(client)
        await client.says(said).hears(disconnect5('82'))
        await client.hearsClose()
      },
      STAGING,
    )
  }
})
