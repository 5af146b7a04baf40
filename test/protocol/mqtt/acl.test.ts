import { describe, expect, test } from 'vitest'
import type { Authenticator } from '../../../src/core/access.ts'
import { type AccessRule, AccessRules } from '../../../src/core/acl.ts'
import { eventually } from '../../support/eventually.ts'
import { bytes, MqttUnderTest, packet, text } from '../../support/wire.ts'
import {
  CONNACK_5,
  CONNACK_311,
  connect5,
  connect311,
  disconnect5,
  hearsRefusal,
  KEPT_311,
  letIn,
  puback,
  publish5,
  publish311,
  RESUMED_311,
  suback5,
  suback311,
  subscribe5,
  subscribe311,
} from './packets.ts'
import { transcript } from './transcript.ts'

const SILENT = { publish: [], denyPublish: [], subscribe: [], denySubscribe: [], consume: [] }

function rules(...written: readonly Partial<AccessRule>[]): AccessRules {
  return new AccessRules(complete(...written))
}

function complete(...written: readonly Partial<AccessRule>[]): AccessRule[] {
  return written.map(rule => ({ user: rule.group === undefined ? '*' : null, group: null, ...SILENT, ...rule }))
}

/** Believes the name a client gives itself. */
const credulous: Authenticator = {
  login: ({ user }) => ({ kind: 'accepted', identity: { user, groups: user === 'boss' ? ['ops'] : [] } }),
}

const QOS1 = 0x32
const QOS2 = 0x34
/** PUBACK of 5.0: taken, and nobody has subscribed. */
const unheard = (packetId: string): Buffer => bytes('40 03', packetId, '10')
/** Without reason strings. */
const PLAIN = connect5('c1', '02 17 00')
const userFlags = 'c2'
const as311 = (user: string, clientId = 'c1', flags = userFlags): Buffer =>
  connect311(clientId, flags, text(user), text('pw'))

describe('publishing where the rules do not allow it', () => {
  const staging = () => ({ rules: rules({ publish: ['open/#', 'of/%c'], subscribe: ['#'] }) })

  transcript(
    'is answered with 0x87 at QoS 1 and 2 of 5.0; nobody hears the message, and the connection goes on',
    async ({ client, another, broker }) => {
      const other = await another()
      await other.says(connect5('c2'), subscribe5('00 01', '#', '00')).hears(CONNACK_5, suback5('00 01', '00'))
      await client
        .says(
          PLAIN,
          publish5('secret', 'x', QOS1, '00 01'),
          publish5('secret', 'x', QOS2, '00 02'),
          publish5('of/c2', 'x', QOS1, '00 03'),
          publish5('of/c1', 'y', QOS1, '00 04'),
        )
        .hears(CONNACK_5, bytes('40 03 00 01 87'), bytes('50 03 00 02 87'), bytes('40 03 00 03 87'), puback('00 04'))
      await other.hears(publish5('of/c1', 'y'))
      await client.hearsNothing()
      await other.hearsNothing()
      expect(broker.server.counters.refusedPublishes).toEqual(new Map([['NOT_AUTHORIZED', 3]]))
    },
    staging(),
  )

  transcript(
    'says why in words to a 5.0 client that wants them',
    async ({ client }) => {
      await letIn(client, connect5('c1'))
      const refused = await client.says(publish5('secret', 'x', QOS1, '00 01')).hearsPacket()
      expect(refused.toString()).toContain('publishing to this topic is not allowed')
    },
    staging(),
  )

  transcript(
    'ends the connection at QoS 0 of 5.0 with 0x87: there is no answer that could say it',
    async ({ client, broker }) => {
      await client.says(PLAIN, publish5('open/1', 'x'), publish5('secret', 'x')).hears(CONNACK_5, disconnect5('87'))
      await client.hearsClose()
      expect(broker.server.counters.refusedPublishes.get('NOT_AUTHORIZED')).toBe(1)
      expect(broker.server.counters.messagesIn[0]).toBe(1)
    },
    staging(),
  )

  for (const [name, first, packetId] of [
    ['QoS 0', 0x30, ''],
    ['QoS 1', QOS1, '00 01'],
    ['QoS 2', QOS2, '00 01'],
  ] as const) {
    transcript(
      `closes the connection of a 3.1.1 client at ${name}: 3.1.1 [MQTT-3.3.5-2]`,
      async ({ client }) => {
        await client.says(connect311('c1'), publish311('secret', 'x', first, packetId)).hears(CONNACK_311)
        await client.hearsClose()
      },
      staging(),
    )
  }

  transcript(
    'retains nothing, and clears nothing that is retained',
    async ({ client, another, broker }) => {
      await client.says(PLAIN, publish5('open/1', 'x', QOS1 | 1, '00 01')).hears(CONNACK_5, unheard('00 01'))
      broker.rules.replace(complete({ publish: ['other'] }))
      await broker.server.rulesChanged()
      await client
        .says(publish5('open/1', '', QOS1 | 1, '00 02'), publish5('open/2', 'x', QOS1 | 1, '00 03'))
        .hears(bytes('40 03 00 02 87'), bytes('40 03 00 03 87'))
      expect(broker.core.retained.messages).toBe(1)
      const other = await another()
      await other.says(connect5('c2', '02 17 00'), subscribe5('00 01', 'open/#', '01'))
      await other.hears(CONNACK_5, suback5('00 01', '87'))
    },
    staging(),
  )

  transcript(
    'is judged anew with the rules, message by message, by whatever topic alias',
    async ({ client, broker }) => {
      const alias = '03 23 00 01'
      await client
        .says(PLAIN, publish5('open/1', 'x', QOS1, '00 01', alias), publish5('', 'y', QOS1, '00 02', alias))
        .hears(CONNACK_5, unheard('00 01'), unheard('00 02'))
      broker.rules.replace(complete({ denyPublish: ['open/+'], publish: ['#'] }))
      await broker.server.rulesChanged()
      await client.says(publish5('', 'z', QOS1, '00 03', alias)).hears(bytes('40 03 00 03 87'))
      broker.rules.replace([])
      await broker.server.rulesChanged()
      await client.says(publish5('', 'z', QOS1, '00 04', alias)).hears(unheard('00 04'))
    },
    staging(),
  )
})

describe('a will the client may not publish', () => {
  const will = [text('last'), text('bye')]
  const staging = () => ({ rules: rules({ publish: ['open/#', 'last'], denyPublish: [] }, { subscribe: ['#'] }) })

  transcript(
    'is refused with its CONNECT: 0x87, 3.1.1: 5',
    async ({ client, another }) => {
      client.says(connect5('c1', '00', '06', bytes('00'), text('secret'), text('x')))
      expect((await client.hearsPacket()).subarray(2, 4)).toEqual(bytes('00 87'))
      await client.hearsClose()
      const other = await another()
      await other.says(connect311('c2', '06', text('secret'), text('x'))).hears(packet(0x20, '00 05'))
      await other.hearsClose()
    },
    staging(),
  )

  transcript(
    'any more is not published, and counted',
    async ({ client, another, broker }) => {
      const watcher = await another()
      await watcher.says(connect311('w'), subscribe311('00 01', '#', '00')).hears(CONNACK_311, suback311('00 01', '00'))
      await client.says(connect311('c1', '06', ...will)).hears(CONNACK_311)
      broker.rules.replace(complete({ publish: ['open/#'], subscribe: ['#'] }))
      await broker.server.rulesChanged()
      client.close()
      await eventually(() => broker.server.counters.willsRefused === 1)
      await watcher.hearsNothing()
    },
    staging(),
  )
})

describe('subscribing to what the rules do not allow', () => {
  const staging = () => ({
    rules: rules(
      { denySubscribe: ['private/#'] },
      { subscribe: ['sensors/#', 'private/#', 'of/%u/#'], consume: ['jobs'], publish: ['#'] },
    ),
  })

  transcript(
    'is refused filter by filter, 0x87, with a reason; a shared filter is judged as its FILTER',
    async ({ client, broker }) => {
      await letIn(client, connect5('c1'))
      const filters = ['sensors/+', '#', 'private/x', '$share/g/sensors/#', '$share/g/#', '+/x', '$SYS/#']
      client.says(packet(0x82, '00 01', '00', ...filters.flatMap(filter => [text(filter), bytes('01')])))
      const why = await hearsRefusal(client, 1, 0x87, 0x87, 1, 0x87, 0x87, 0x87)
      expect(why).toContain('this client may not subscribe to that')
      expect(broker.server.subscriptionCount).toBe(2)
      expect(broker.server.counters.refusedSubscriptions).toEqual(new Map([[0x87, 5]]))
    },
    staging(),
  )

  transcript(
    'is refused with 0x80 in 3.1.1: 3.1.1 [MQTT-3.9.3-2]',
    async ({ client }) => {
      await client.says(connect311('c1'), subscribe311('00 01', '#', '01')).hears(CONNACK_311, suback311('00 01', '80'))
    },
    staging(),
  )

  transcript(
    'is answered as if it were allowed in 3.1, which has no other word, and brings nothing',
    async ({ client, another, broker }) => {
      await client
        .says(packet(0x10, text('MQIsdp'), '03', '02', '00 00', text('c1')), subscribe311('00 01', '#', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'))
      const other = await another()
      await other
        .says(connect311('c2'), publish311('sensors/1', 'x', QOS1, '00 01'))
        .hears(CONNACK_311, puback('00 01'))
      await client.hearsNothing()
      expect(broker.server.subscriptionCount).toBe(0)
    },
    staging(),
  )

  transcript(
    '$queue and $stream take the permission to consume, and no other',
    async ({ client, broker }) => {
      for (const name of ['jobs', 'other']) await broker.core.queue(name, `${name}/#`)
      await broker.core.stream('history', 'sensors/#')
      await client.says(PLAIN).hears(CONNACK_5)
      await client.says(subscribe5('00 01', '$queue/jobs', '01')).hears(suback5('00 01', '01'))
      await client.says(subscribe5('00 02', '$queue/other', '01')).hears(suback5('00 02', '87'))
      await client.says(subscribe5('00 03', '$stream/history/first', '01')).hears(suback5('00 03', '87'))
      // Whether a queue is there is not told to those who may not take from it.
      await client.says(subscribe5('00 04', '$queue/nowhere', '01')).hears(suback5('00 04', '87'))
    },
    staging(),
  )

  transcript(
    'brings no retained messages',
    async ({ client, broker }) => {
      await client.says(PLAIN, publish5('private/1', 'x', QOS1 | 1, '00 01')).hears(CONNACK_5, unheard('00 01'))
      await client.says(subscribe5('00 02', 'private/1', '01')).hears(suback5('00 02', '87'))
      await client.hearsNothing()
      expect(broker.core.retained.messages).toBe(1)
    },
    staging(),
  )

  transcript(
    'a rule for a user is for the user it has proved to be',
    async ({ client, another }) => {
      await client
        .says(as311('ann'), subscribe311('00 01', 'of/ann/#', '01'), subscribe311('00 02', 'of/bob/#', '01'))
        .hears(CONNACK_311, suback311('00 01', '01'), suback311('00 02', '80'))
      const other = await another()
      await other
        .says(as311('a/+', 'c2'), subscribe311('00 01', 'of/a/+/#', '01'), subscribe311('00 02', 'sensors/#', '01'))
        .hears(CONNACK_311, suback311('00 01', '80'), suback311('00 02', '80'))
    },
    { ...staging(), authenticator: credulous },
  )

  transcript(
    'a user name that nobody has checked is none',
    async ({ client }) => {
      await client
        .says(as311('ann'), subscribe311('00 01', 'of/ann/#', '01'))
        .hears(CONNACK_311, suback311('00 01', '80'))
    },
    staging(),
  )
})

describe('rules that change', () => {
  transcript(
    'end the subscriptions they do not allow any more, and no connection',
    async ({ client, another, broker }) => {
      await broker.core.queue('jobs', 'jobs/#')
      const filters = ['a/#', 'b/#', '$share/g/a/#', '$share/g/b/#', '$queue/jobs']
      await client
        .says(PLAIN, packet(0x82, '00 01', '00', ...filters.flatMap(filter => [text(filter), bytes('01')])))
        .hears(CONNACK_5, packet(0x90, '00 01', '00', '01 01 01 01 01'))
      broker.rules.replace(complete({ subscribe: ['a/#'], publish: ['#'] }))
      expect(await broker.server.rulesChanged()).toBe(3)
      expect(broker.server.client('c1')?.filters.map(({ filter }) => filter)).toEqual(['a/#', '$share/g/a/#'])
      expect(broker.server.counters.revokedSubscriptions).toBe(3)
      const other = await another()
      await other.says(connect311('c2'), publish311('b/1', 'x'), publish311('jobs/1', 'x', QOS1, '00 01'))
      await other.hears(CONNACK_311, puback('00 01'))
      await client.hearsNothing()
      await other.says(publish311('a/1', 'x'))
      await client.hears(publish5('a/1', 'x'), publish5('a/1', 'x'))
    },
  )

  transcript(
    'keep what waited for a subscription that is gone from its client',
    async ({ client, another, broker }) => {
      const subscribing = [subscribe311('00 01', 'a', '01'), subscribe311('00 02', 'b', '01')]
      await client.says(KEPT_311, ...subscribing).hears(CONNACK_311, suback311('00 01', '01'), suback311('00 02', '01'))
      client.close()
      await eventually(() => broker.server.awaySessionCount === 1)
      const other = await another()
      await other.says(connect311('c2'))
      await other
        .says(
          publish311('a', '1', QOS1, '00 01'),
          publish311('b', '2', QOS1, '00 02'),
          publish311('a', '3', QOS1, '00 03'),
        )
        .hears(CONNACK_311, puback('00 01'), puback('00 02'), puback('00 03'))
      broker.rules.replace(complete({ subscribe: ['b'], publish: ['#'] }))
      await broker.server.rulesChanged()
      const back = await another()
      await back.says(KEPT_311).hears(RESUMED_311, publish311('b', '2', QOS1, '00 01'))
      await back.says(puback('00 01')).hearsNothing()
      expect(broker.server.session('c1')?.queue?.ledger.figures()).toMatchObject({
        settled: 1,
        queued: 0,
        in_flight: 0,
        dropped: { not_authorized: 2 },
      })
    },
  )

  transcript(
    'keep from it what an earlier connection left unanswered, too, and its packet id is free again',
    async ({ client, another, broker }) => {
      await client.says(KEPT_311, subscribe311('00 01', '#', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      const other = await another()
      await other.says(connect311('c2'), publish311('a', '1', QOS1, '00 01'), publish311('b', '2', QOS1, '00 02'))
      await other.hears(CONNACK_311, puback('00 01'), puback('00 02'))
      await client.hears(publish311('a', '1', QOS1, '00 01'), publish311('b', '2', QOS1, '00 02'))
      client.close()
      await eventually(() => broker.server.awaySessionCount === 1)
      broker.rules.replace(complete({ subscribe: ['c'], publish: ['#'] }))
      await broker.server.rulesChanged()
      const back = await another()
      await back.says(KEPT_311).hears(RESUMED_311)
      await back.says(subscribe311('00 03', 'c', '01')).hears(suback311('00 03', '01'))
      await other.says(publish311('c', '3', QOS1, '00 03')).hears(puback('00 03'))
      const delivered = await back.hearsPacket()
      expect(delivered.toString()).toContain('c')
      expect(delivered[0]).toBe(QOS1)
      expect(broker.server.session('c1')?.inFlight).toBe(1)
    },
  )

  transcript(
    'count for the groups a user is in now',
    async ({ client, broker }) => {
      await client.says(as311('boss'), subscribe311('00 01', 'a', '01')).hears(CONNACK_311, suback311('00 01', '01'))
      broker.server.review(({ user }) => ({ user, groups: [] }))
      await eventually(() => broker.server.subscriptionCount === 0)
      await client.says(subscribe311('00 02', 'a', '01')).hears(suback311('00 02', '80'))
    },
    { authenticator: credulous, rules: rules({ group: 'ops', subscribe: ['a'] }) },
  )

  test('hold for a session that was kept over a restart', async () => {
    const staging = { authenticator: credulous }
    const before = await MqttUnderTest.start(staging)
    const client = await before.client()
    const kept = as311('boss', 'c1', 'c0')
    await client.says(kept, subscribe311('00 01', 'a', '01'), subscribe311('00 02', 'b', '01'))
    await client.hears(CONNACK_311, suback311('00 01', '01'), suback311('00 02', '01'))
    client.close()
    await eventually(() => before.server.awaySessionCount === 1)
    const other = await before.client()
    await other.says(connect311('c2'), publish311('a', '1', QOS1, '00 01'), publish311('b', '2', QOS1, '00 02'))
    await other.hears(CONNACK_311, puback('00 01'), puback('00 02'))
    const directory = await before.stop()

    const forOps = rules({ group: 'ops', subscribe: ['b'] })
    const restarted = await MqttUnderTest.start({ ...staging, directory, rules: forOps })
    expect(restarted.server.session('c1')?.filters.map(({ filter }) => filter)).toEqual(['b'])
    await restarted.stop()

    // What has been forgotten stays so.
    await using again = await MqttUnderTest.start({ ...staging, directory })
    expect(again.server.session('c1')?.filters.map(({ filter }) => filter)).toEqual(['b'])
    const back = await again.client()
    await back.says(kept).hears(RESUMED_311)
  })

  transcript(
    'or a session whose client is somebody else now: it gets what that one may have',
    async ({ client, another, broker }) => {
      const [boss, worker] = [as311('boss', 'c1', 'c0'), as311('worker', 'c1', 'c0')]
      await client.says(boss, subscribe311('00 01', 'for/boss', '01'), subscribe311('00 02', 'for/all', '01'))
      await client.hears(CONNACK_311, suback311('00 01', '01'), suback311('00 02', '01'))
      client.close()
      await eventually(() => broker.server.awaySessionCount === 1)
      const other = await another()
      await other.says(as311('boss', 'c2'), publish311('for/boss', 'x', QOS1, '00 01'))
      await other.says(publish311('for/all', 'y', QOS1, '00 02')).hears(CONNACK_311, puback('00 01'), puback('00 02'))
      const back = await another()
      await back.says(worker).hears(RESUMED_311, publish311('for/all', 'y', QOS1, '00 01'))
      await back.hearsNothing()
    },
    {
      authenticator: credulous,
      rules: rules({ subscribe: ['for/all'] }, { group: 'ops', subscribe: ['#'], publish: ['#'] }),
    },
  )
})
