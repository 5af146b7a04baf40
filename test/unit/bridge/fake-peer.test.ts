/** The bridge against a peer that does what RabbitMQ 3.10 does not, or not when it is told to (test/support/amqp-peer.ts). */
import { describe, expect, test } from 'vitest'
import { PropertiesTag } from '../../../src/model/message.ts'
import { PLAIN_POLICY, type QueuePolicy } from '../../../src/model/queue-policy.ts'
import { AmqpPeer, type PeerChannel, type PeerOptions } from '../../support/amqp-peer.ts'
import { BridgeUnderTest } from '../../support/bridge-kit.ts'
import { eventually } from '../../support/eventually.ts'
import { mqtt5PropertyBytes } from '../../support/mqtt5-publish.ts'

const exchange = { name: 'telemetry', type: 'topic', declare: true } as const
const ROUTES = { telemetry: { from: 'sensors/#', exchange } } as const
const PATIENT: Partial<QueuePolicy> = { maxAttempts: 100, retry: { ...PLAIN_POLICY.retry, firstMs: 10, maxMs: 20 } }

async function withPeer(
  options: PeerOptions,
  test: (peer: AmqpPeer, bridge: BridgeUnderTest) => Promise<void>,
  {
    routes = ROUTES as Parameters<typeof BridgeUnderTest.start>[1],
    times = {} as Parameters<typeof BridgeUnderTest.start>[2],
  } = {},
): Promise<void> {
  await using peer = await AmqpPeer.start(options)
  await using bridge = await BridgeUnderTest.start(peer.url, routes, times)
  await test(peer, bridge)
}

const idsOf = ({ messages }: AmqpPeer): Set<string> => new Set(messages.map(({ messageId }) => messageId))

describe('a peer with small frames', () => {
  test('gets large bodies in pieces, and of many headers those that fit a frame', () =>
    withPeer({ frameMax: 8192 }, async (peer, bridge) => {
      await bridge.reaches('forwarding')
      const body = Buffer.alloc(100_000, 'x')
      await bridge.publish(3, 'sensors/a', { payload: body })
      const userProperties = Object.fromEntries(Array.from({ length: 50 }, (_, i) => [`k${i}`, 'v'.repeat(500)]))
      await bridge.publish(1, 'sensors/wordy', {
        propertiesTag: PropertiesTag.mqtt5,
        properties: mqtt5PropertyBytes({ userProperties }),
      })
      await bridge.settlesAll()
      expect(peer.messages.filter(message => message.body.equals(body))).toHaveLength(3)
      expect(peer.messages).toHaveLength(4)
      expect(peer.largestFrame).toBeLessThanOrEqual(8192)
    }))
})

describe('confirms', () => {
  /** Gathers so many, then confirms them in an order of its own. */
  const gathering = (count: number, confirm: (tags: number[], channel: PeerChannel) => void) => {
    let tags: number[] = []
    return ({ tag }: { tag: number }, channel: PeerChannel) => {
      tags.push(tag)
      if (tags.length < count) return
      const gathered = tags
      tags = []
      confirm(gathered, channel)
    }
  }

  test.each([
    [
      'in reverse order',
      (tags: number[], channel: PeerChannel) => {
        for (const tag of tags.toReversed()) channel.ack(tag)
      },
    ],
    ['all at once', (tags: number[], channel: PeerChannel) => channel.ack(tags.at(-1) ?? 0, true)],
    ['all at once by tag 0', (_: number[], channel: PeerChannel) => channel.ack(0, true)],
    [
      'the odd ones singly, the others by one that is multiple, and each twice',
      (tags: number[], channel: PeerChannel) => {
        for (const tag of tags) if (tag % 2 === 1) channel.ack(tag)
        channel.ack(tags.at(-1) ?? 0, true)
        for (const tag of tags) channel.ack(tag)
      },
    ],
  ])('%s settle each message once', (_what, confirm) =>
    withPeer({}, async (peer, bridge) => {
      peer.onMessage = gathering(20, confirm)
      await bridge.reaches('forwarding')
      await bridge.publish(200, 'sensors/a')
      await bridge.settlesAll()
      expect(peer.messages.map(({ body }) => Number(body))).toEqual(Array.from({ length: 200 }, (_, i) => i))
      expect(bridge.status()).toMatchObject({ confirmed: 200, unconfirmed: 0, nacked: 0 })
    }),
  )

  test('of messages that were never sent change nothing', () =>
    withPeer({}, async (peer, bridge) => {
      peer.onMessage = ({ tag }, channel) => {
        channel.ack(tag + 1000)
        channel.nack(tag + 1000)
        channel.ack(tag)
      }
      await bridge.reaches('forwarding')
      await bridge.publish(20, 'sensors/a')
      await bridge.settlesAll()
      expect(peer.messages).toHaveLength(20)
      expect(bridge.status()).toMatchObject({ connects: 1, confirmed: 20, nacked: 0 })
    }))

  test('that are refused every other time: all arrive in the end, each under one id, and the books balance', () =>
    withPeer(
      {},
      async (peer, bridge) => {
        let count = 0
        peer.onMessage = ({ tag }, channel) => (count++ % 2 === 0 ? channel.nack(tag) : channel.ack(tag))
        await bridge.reaches('forwarding')
        await bridge.publish(300, 'sensors/a')
        await bridge.settlesAll()
        expect(idsOf(peer).size).toBe(300)
        expect(bridge.status().nacked).toBeGreaterThan(250)
        expect(bridge.queues.get('telemetry')?.ledger.figures()).toMatchObject({ accepted: 300, settled: 300 })
      },
      { routes: { telemetry: { ...ROUTES.telemetry, policy: PATIENT } } },
    ))

  test('refused by the window in one frame park the route, and nothing is lost when it ends', { timeout: 20_000 }, () =>
    withPeer({}, async (peer, bridge) => {
      let isStorm = true
      peer.onMessage = ({ tag }, channel) => (isStorm ? channel.nack(tag, true) : channel.ack(tag))
      await bridge.reaches('forwarding')
      await bridge.publish(200, 'sensors/a')
      await eventually(() => bridge.route('telemetry').parked, { what: 'parked' })
      expect(bridge.route('telemetry').suspects).toBeLessThanOrEqual(32)
      expect(bridge.queues.get('telemetry')?.depth).toBe(200)
      isStorm = false
      await bridge.settlesAll()
      expect(idsOf(peer).size).toBe(200)
    }),
  )
})

describe('a channel that is closed', () => {
  test('for one message of many: it alone is found, however many were out with it', () =>
    withPeer(
      {},
      async (peer, bridge) => {
        peer.onMessage = ({ tag, routingKey }, channel) => {
          if (routingKey === 'sensors.bad') channel.close(406, 'PRECONDITION_FAILED - never')
          else channel.ack(tag)
        }
        await bridge.reaches('forwarding')
        await Promise.all([
          bridge.publish(60, 'sensors/a'),
          bridge.publish(1, 'sensors/bad'),
          bridge.publish(60, 'sensors/a'),
        ])
        const dead = bridge.core.topology.queue('telemetry.dead')
        await bridge.publishUntil(() => dead.depth === 1, 'sensors/a')
        await eventually(() => bridge.queues.get('telemetry')?.depth === 0, { what: 'an empty outbox' })
        expect(bridge.status().connects).toBe(1)
        expect(idsOf(peer).size).toBe(bridge.published)
        expect(dead.depth).toBe(1)
        // Each time it was tried at most a window came again.
        expect(peer.messages.length - bridge.published).toBeLessThanOrEqual(2 * 64 + 2)
      },
      { routes: { telemetry: { ...ROUTES.telemetry, policy: { ...PATIENT, maxAttempts: 2 } } } },
    ))
})

test('a channel that is closed whenever the only message there is comes: the route parks and says why, and the message stays', () =>
  withPeer({}, async (peer, bridge) => {
    peer.onMessage = (_, channel) => channel.close(404, 'NOT_FOUND - no exchange')
    await bridge.reaches('forwarding')
    await bridge.publish(1, 'sensors/a')
    await eventually(() => bridge.route('telemetry').parked, { what: 'parked', deadlineMs: 9000 })
    expect(bridge.route('telemetry').parked?.reason).toMatch(/404.*NOT_FOUND/)
    expect(peer.messages).toHaveLength(3)
    expect(bridge.queues.get('telemetry')?.depth).toBe(1)
  }))

describe('a peer with few channels', () => {
  test('carries as many routes; the one too many parks and says why', () =>
    withPeer(
      { channelMax: 1 },
      async (peer, bridge) => {
        await bridge.reaches('forwarding')
        await eventually(() => bridge.route('alarms').parked ?? bridge.route('telemetry').parked, { what: 'parked' })
        const [flowing, parked] =
          bridge.route('alarms').parked === null ? ['alarms', 'telemetry'] : ['telemetry', 'alarms']
        expect(bridge.route(parked ?? '').parked?.reason).toMatch(/channel/i)
        await bridge.publish(10, flowing === 'alarms' ? 'alarms/a' : 'sensors/a')
        await eventually(() => bridge.route(flowing ?? '').confirmed === 10, { what: 'ten confirmed' })
        expect(peer.accepted).toBe(1)
      },
      { routes: { ...ROUTES, alarms: { from: 'alarms/#', exchange } } },
    ))
})

describe('a handshake that is slow', () => {
  test('is borne within its time', () =>
    withPeer({ handshakeDelayMs: 200 }, async (_, bridge) => {
      await bridge.reaches('forwarding')
      expect(bridge.status().connects).toBe(1)
      await bridge.publish(5, 'sensors/a')
      await bridge.settlesAll()
    }))

  test('is given up beyond it, and begun again', () => {
    const reconnect = { firstMs: 10, maxMs: 20, connectTimeoutMs: 1000, handshakeTimeoutMs: 150, returnMs: 60_000 }
    return withPeer(
      { handshakeDelayMs: 100 },
      async (peer, bridge) => {
        await eventually(() => peer.accepted >= 3, { what: 'three attempts' })
        await bridge.reaches('waiting')
        expect(bridge.status().lastError?.message).toMatch(/no AMQP handshake within 150 ms/)
      },
      { times: { reconnect } },
    )
  })
})

test('a peer that talks nonsense under way is left, and everything sent again under the same ids', () =>
  withPeer({}, async (peer, bridge) => {
    let isDone = false
    peer.onMessage = ({ tag }, channel) => {
      if (tag === 50 && !isDone) {
        isDone = true
        peer.babble()
      } else if (isDone || tag < 50) channel.ack(tag)
    }
    await bridge.reaches('forwarding')
    await bridge.publish(200, 'sensors/a')
    await bridge.settlesAll()
    expect(bridge.status().connects).toBe(2)
    expect(idsOf(peer).size).toBe(200)
  }))
