/** The bridge against a real RabbitMQ, with the link and the broker broken in every way an outage does it. */
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type RabbitPeer, startRabbit } from '../../scripts/peers.ts'
import { TcpProxy } from '../../scripts/tcp-proxy.ts'
import { PropertiesTag } from '../../src/model/message.ts'
import { PLAIN_POLICY } from '../../src/model/queue-policy.ts'
import { type Arrival, arrivals, BridgeUnderTest, bindQueue, onChannel } from '../support/bridge-kit.ts'
import { eventually, eventuallyPasses } from '../support/eventually.ts'
import { mqtt5PropertyBytes } from '../support/mqtt5-publish.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const BOOT_MS = 90_000
const OUTAGE_MS = 90_000

let directory: TempDir
let rabbit: RabbitPeer
let proxy: TcpProxy
/** Through the proxy. */
let url: string
let exchange: string
let queue: string

beforeAll(async () => {
  directory = await tempDir()
  rabbit = await startRabbit({ directory: directory.path })
  proxy = await TcpProxy.start({ port: rabbit.port })
  url = `amqp://guest:guest@127.0.0.1:${proxy.port}`
}, BOOT_MS)

afterAll(async () => {
  await proxy.stop()
  await rabbit.stop()
  await directory[Symbol.asyncDispose]()
}, BOOT_MS)

beforeEach(() => {
  exchange = `ex-${randomUUID()}`
  queue = `q-${randomUUID()}`
})

const route = () => ({ from: 'sensors/#', exchange: { name: exchange, type: 'topic', declare: true } }) as const

/** One route to the test's exchange, forwarding, its queue bound. */
async function forwarding(options: Parameters<typeof BridgeUnderTest.start>[2] = {}): Promise<BridgeUnderTest> {
  await bindQueue(rabbit.url, queue, exchange)
  const bridge = await BridgeUnderTest.start(url, { telemetry: route() }, options)
  await bridge.reaches('forwarding')
  return bridge
}

/** Every message is there; those there twice have the same id twice, and an id stands for one message. Returns the number of repeats. */
function expectAllArrived(found: readonly Arrival[], published: number): number {
  const payloadOf = new Map<string, string>()
  for (const { id, payload } of found) {
    expect(payloadOf.get(id) ?? payload).toBe(payload)
    payloadOf.set(id, payload)
  }
  expect([...payloadOf.values()].map(Number).sort((a, b) => a - b)).toEqual(
    Array.from({ length: published }, (_, i) => i),
  )
  return found.length - payloadOf.size
}

/** Order of first arrivals per class: live messages may overtake the backlog (design.md section 2, Order). */
function expectInOrder(found: readonly Arrival[]): void {
  const seen = new Set<string>()
  const first = found.filter(({ id }) => !seen.has(id) && seen.add(id))
  const numbers = first.map(({ payload }) => Number(payload))
  expect(numbers).toEqual(numbers.toSorted((a, b) => a - b))
}

describe('while all is well', () => {
  test('every message is confirmed, settled and there, in order and once', async () => {
    await using bridge = await forwarding()
    await bridge.publish(2000, 'sensors/dev-1/t')
    await bridge.settlesAll()
    const found = await arrivals(rabbit.url, queue)
    expect(expectAllArrived(found, 2000)).toBe(0)
    expectInOrder(found)
    expect(bridge.status()).toMatchObject({
      state: 'forwarding',
      confirmed: 2000,
      returned: 0,
      nacked: 0,
      unconfirmed: 0,
      lastError: null,
    })
  })

  test('a consumer sees topic, origin, times and MQTT 5 properties where contract.md section 5 puts them', async () => {
    await using bridge = await forwarding()
    const properties = mqtt5PropertyBytes({
      contentType: 'application/json',
      correlationData: Buffer.from('req-1'),
      responseTopic: 'replies/dev-1',
      payloadFormatIndicator: true,
      userProperties: { unit: '°C', tag: ['a', 'b'], '': 'nameless' },
    })
    await bridge.publish(1, 'sensors/dev.1/größe', {
      clientId: 'dev-1',
      user: 'anna',
      expiryMs: 60_000,
      retain: true,
      propertiesTag: PropertiesTag.mqtt5,
      properties,
    })
    await bridge.settlesAll()
    const [arrival] = await arrivals(rabbit.url, queue)
    expect(arrival?.key).toBe('sensors.dev%2E1.größe')
    expect(arrival?.properties).toMatchObject({
      messageId: expect.stringMatching(/^gw-test\/[a-z2-7]{10}\/\d+$/),
      appId: 'gw-test',
      deliveryMode: 2,
      contentType: 'application/json',
      correlationId: 'req-1',
      timestamp: expect.closeTo(Date.now() / 1000, -2),
    })
    expect(Number(arrival?.properties.expiration)).toBeGreaterThan(55_000)
    expect(arrival?.headers).toEqual({
      'x-mqtt-topic': 'sensors/dev.1/größe',
      'x-mqtt-qos': 1,
      'x-mqtt-retain': true,
      'x-mqtt-client-id': 'dev-1',
      'x-mqtt-user': 'anna',
      'x-mqtt-pfi': 1,
      'x-reply-to-topic': 'replies/dev-1',
      'x-sluice-ts-ms': expect.any(Number),
      'x-sluice-clock': expect.stringMatching(/^(synced|estimated|unknown)$/),
      unit: '°C',
      tag: ['a', 'b'],
      '': 'nameless',
    })
  })

  test('a body larger than a frame arrives whole, and so does a message with nothing in it', async () => {
    await using bridge = await forwarding()
    const large = 'x'.repeat(700_000)
    await bridge.publish(20, 'sensors/large', { payload: Buffer.from(large) })
    await bridge.publish(1, 'sensors/empty', { payload: Buffer.alloc(0) })
    await bridge.settlesAll()
    const found = await arrivals(rabbit.url, queue)
    expect(found.filter(({ payload }) => payload === large)).toHaveLength(20)
    expect(found.filter(({ payload }) => payload === '')).toHaveLength(1)
  })

  test('headers up to their limit are taken by the upstream', async () => {
    await using bridge = await forwarding()
    const userProperties = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`key-${i}`, 'v'.repeat(1000)]))
    await bridge.publish(1, 'sensors/wordy', {
      propertiesTag: PropertiesTag.mqtt5,
      properties: mqtt5PropertyBytes({ userProperties }),
    })
    await bridge.settlesAll()
    const [arrival] = await arrivals(rabbit.url, queue)
    expect(Number(arrival?.headers['x-sluice-omitted'])).toBeGreaterThan(0)
  })
})

describe('a link that breaks', () => {
  test('backlog from before the upstream was there is forwarded in order and marked as replay', async () => {
    await bindQueue(rabbit.url, queue, exchange)
    proxy.refuse()
    await using bridge = await BridgeUnderTest.start(url, { telemetry: route() })
    await bridge.reaches('waiting')
    expect(bridge.status().lastError).toMatchObject({ code: 'UPSTREAM_UNREACHABLE' })
    await bridge.publish(500, 'sensors/dev-1/t')
    proxy.heal()
    await bridge.settlesAll()
    const found = await arrivals(rabbit.url, queue)
    expect(expectAllArrived(found, 500)).toBe(0)
    expectInOrder(found)
    expect(found.every(({ headers }) => headers['x-sluice-replay'] === true)).toBe(true)
  })

  test(
    'resets, cuts and frames torn in the middle lose nothing; repeats have the id of their original',
    async () => {
      await using bridge = await forwarding()
      let breaks = 0
      const breaking = (async () => {
        for (const harm of [
          () => proxy.reset(),
          () => proxy.cut(),
          () => proxy.cutAfter(777),
          () => proxy.cutAfter(333, 'to-client'),
        ]) {
          const before = bridge.status().connects
          harm()
          await eventually(() => bridge.status().connects > before, { what: 'a new link' })
          breaks++
        }
      })()
      await bridge.publishUntil(() => breaks === 4, 'sensors/dev-1/t')
      await breaking
      await bridge.settlesAll()
      const repeats = expectAllArrived(await arrivals(rabbit.url, queue), bridge.published)
      expect(repeats).toBeLessThanOrEqual(4 * 64)
    },
    OUTAGE_MS,
  )

  test(
    'confirms swallowed by a black hole: the watchdog cuts the link, everything is sent again under the same ids',
    async () => {
      await using bridge = await forwarding()
      proxy.blackHole('to-client')
      await bridge.publish(100, 'sensors/dev-1/t')
      await bridge.reaches('waiting')
      expect(bridge.status().lastError?.message).toMatch(/no confirm for 1000 ms/)
      proxy.heal()
      await bridge.settlesAll()
      // A window of 64 was stored by the upstream without our hearing of it.
      expect(expectAllArrived(await arrivals(rabbit.url, queue), 100)).toBe(64)
    },
    OUTAGE_MS,
  )

  test(
    'a frozen broker is left, and taken up again when it thaws',
    async () => {
      await using bridge = await forwarding()
      rabbit.freeze()
      await bridge.publish(200, 'sensors/dev-1/t')
      await bridge.reaches('waiting')
      await bridge.publish(200, 'sensors/dev-1/t')
      rabbit.thaw()
      await bridge.settlesAll()
      expectAllArrived(await arrivals(rabbit.url, queue), 400)
    },
    OUTAGE_MS,
  )

  test(
    'a broker that is killed and restarted has everything in the end',
    async () => {
      // A classic queue: a young quorum queue of RabbitMQ 3.10 that was killed finds no leader after the restart and confirms nothing.
      await bindQueue(rabbit.url, queue, exchange, { options: { arguments: {} } })
      await using bridge = await BridgeUnderTest.start(url, { telemetry: route() })
      await bridge.reaches('forwarding')
      let isBack = false
      const outage = (async () => {
        await rabbit.kill()
        await bridge.reaches('waiting')
        await rabbit.restart()
        isBack = true
      })()
      await bridge.publishUntil(() => isBack, 'sensors/dev-1/t')
      await outage
      await bridge.settlesAll(60_000)
      expectAllArrived(await arrivals(rabbit.url, queue), bridge.published)
    },
    OUTAGE_MS,
  )

  test('a connection closed by the operator of the broker (320, no error event) is opened again', async () => {
    await using bridge = await forwarding()
    await rabbit.ctl(['close_all_connections', 'for a test'])
    await eventually(() => bridge.status().connects === 2, { what: 'a second link' })
    expect(bridge.status().lastError?.message).toMatch(/320.*for a test/)
    await bridge.publish(10, 'sensors/dev-1/t')
    await bridge.settlesAll()
  })

  test(
    'a broker that blocks publishers gets nothing, is not cut, and gets everything when it unblocks',
    async () => {
      await using bridge = await forwarding({ stallTimeoutMs: 300 })
      await rabbit.ctl(['set_vm_memory_high_watermark', '0'])
      try {
        // RabbitMQ tells a connection only once it publishes.
        await bridge.publish(10, 'sensors/dev-1/t')
        await bridge.reaches('blocked')
        expect(bridge.status().blockedReason).toMatch(/memory/)
        await bridge.publish(300, 'sensors/dev-1/t')
        // Longer than the stall timeout by far: the alarm's own check takes its time.
        await rabbit.ctl(['status'])
        expect(bridge.status()).toMatchObject({ state: 'blocked', connects: 1 })
      } finally {
        await rabbit.ctl(['set_vm_memory_high_watermark', '0.4'])
      }
      await bridge.reaches('forwarding')
      await bridge.settlesAll()
      expect(bridge.status().connects).toBe(1)
      expect(expectAllArrived(await arrivals(rabbit.url, queue), 310)).toBe(0)
    },
    OUTAGE_MS,
  )
})

describe('an upstream that refuses', () => {
  test('a wrong password: waiting with a clear cause, one line in the log for all attempts, the password nowhere', async () => {
    const wrong = url.replace('guest:guest', 'guest:s3cret')
    await using bridge = await BridgeUnderTest.start(wrong, { telemetry: route() })
    const { accepted } = proxy
    await eventually(() => proxy.accepted >= accepted + 3, { what: 'three attempts' })
    await bridge.reaches('waiting')
    const status = bridge.status()
    expect(status).toMatchObject({ state: 'waiting', lastError: { code: 'UPSTREAM_REFUSED' } })
    expect(status.lastError?.message).toMatch(/ACCESS_REFUSED.*Check user, password/)
    expect(bridge.log.filter(line => line.includes('UPSTREAM_REFUSED'))).toHaveLength(1)
    expect(JSON.stringify([status, bridge.log])).not.toContain('s3cret')
  })

  test('a virtual host that is not there is a refusal too', async () => {
    await using bridge = await BridgeUnderTest.start(`${url}/nowhere`, { telemetry: route() })
    await bridge.reaches('waiting')
    expect(bridge.status().lastError).toMatchObject({ code: 'UPSTREAM_REFUSED' })
  })

  test('a port nobody listens on is out of reach, and says so', async () => {
    const server = createServer()
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    server.close()
    await once(server, 'close')
    await using bridge = await BridgeUnderTest.start(`amqp://127.0.0.1:${port}`, { telemetry: route() })
    await bridge.reaches('waiting')
    expect(bridge.status().lastError).toMatchObject({
      code: 'UPSTREAM_UNREACHABLE',
      message: expect.stringMatching(/ECONNREFUSED/),
    })
  })

  test('a peer that accepts and says nothing is left after the handshake timeout, and does not hold up a stop', async () => {
    const sockets: Socket[] = []
    const server = createServer(socket => sockets.push(socket.on('error', () => undefined)))
    server.listen({ port: 0, host: '127.0.0.1' })
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const reconnect = { firstMs: 50, maxMs: 100, connectTimeoutMs: 60_000, handshakeTimeoutMs: 300, returnMs: 60_000 }
    const bridge = await BridgeUnderTest.start(`amqp://127.0.0.1:${port}`, { telemetry: route() }, { reconnect })
    await eventually(() => bridge.status().lastError?.message.includes('no AMQP handshake within 300 ms'))
    await eventually(() => bridge.status().state === 'connecting')
    const started = performance.now()
    await bridge[Symbol.asyncDispose]()
    expect(performance.now() - started).toBeLessThan(2000)
    for (const socket of sockets) socket.destroy()
    server.close()
  })
})

describe('a route that fails', () => {
  test(
    'a missing exchange with declare: false parks that route alone, with the words of the upstream, until it is there',
    async () => {
      await bindQueue(rabbit.url, queue, exchange)
      const missing = `missing-${exchange}`
      await using bridge = await BridgeUnderTest.start(url, {
        good: route(),
        bad: { from: 'alarms/#', exchange: { name: missing, type: 'topic', declare: false } },
      })
      await bridge.reaches('forwarding')
      await bridge.publish(50, 'alarms/a')
      await eventually(() => bridge.route('bad').parked, { what: 'parked' })
      expect(bridge.route('bad').parked?.reason).toMatch(/404.*NOT_FOUND.*no exchange/)
      await bridge.publish(100, 'sensors/a')
      await eventually(() => bridge.queues.get('good')?.depth === 0, { what: 'the good route drained' })
      expect(bridge.status()).toMatchObject({ state: 'forwarding', connects: 1 })
      expect(bridge.queues.get('bad')?.depth).toBe(50)
      await bindQueue(rabbit.url, `late-${queue}`, missing)
      await bridge.settlesAll()
      expect(bridge.route('bad').parked).toBeNull()
      const found = await arrivals(rabbit.url, `late-${queue}`)
      expect(found.map(({ payload }) => Number(payload)).sort((a, b) => a - b)).toEqual(
        Array.from({ length: 50 }, (_, i) => i),
      )
    },
    OUTAGE_MS,
  )

  test(
    'declare: passive parks before anything is sent, and flows when the exchange appears',
    async () => {
      await using bridge = await BridgeUnderTest.start(url, {
        telemetry: { from: 'sensors/#', exchange: { name: exchange, type: 'topic', declare: 'passive' } },
      })
      await eventually(() => bridge.route('telemetry').parked, { what: 'parked' })
      await bindQueue(rabbit.url, queue, exchange)
      await eventually(() => bridge.route('telemetry').state === 'flowing', { what: 'flowing', deadlineMs: 12_000 })
      await bridge.publish(10, 'sensors/a')
      await bridge.settlesAll()
      expect(expectAllArrived(await arrivals(rabbit.url, queue), 10)).toBe(0)
    },
    OUTAGE_MS,
  )

  test('an exchange of another type parks with 406', async () => {
    await onChannel(rabbit.url, channel => channel.assertExchange(exchange, 'fanout', { durable: true }))
    await using bridge = await BridgeUnderTest.start(url, { telemetry: route() })
    await eventually(() => bridge.route('telemetry').parked, { what: 'parked' })
    expect(bridge.route('telemetry').parked?.reason).toMatch(/406.*PRECONDITION/)
  })

  test(
    'an exchange deleted under way parks the route, which declares it anew and loses nothing',
    async () => {
      await using bridge = await forwarding()
      await bridge.publish(20, 'sensors/a')
      await bridge.settlesAll()
      await onChannel(rabbit.url, channel => channel.deleteExchange(exchange))
      await bridge.publish(200, 'sensors/a')
      await eventually(() => bridge.route('telemetry').parked, { what: 'parked' })
      await bindQueue(rabbit.url, queue, exchange)
      await bridge.settlesAll()
      expectAllArrived(await arrivals(rabbit.url, queue), 220)
    },
    OUTAGE_MS,
  )

  test(
    'one topic that nobody wants upstream does not hold up the others, and goes out when somebody does',
    async () => {
      await bindQueue(rabbit.url, queue, exchange, { pattern: 'sensors.wanted' })
      await using bridge = await BridgeUnderTest.start(url, { telemetry: route() })
      await bridge.reaches('forwarding')
      await bridge.publish(1, 'sensors/unwanted')
      await bridge.publish(100, 'sensors/wanted')
      await eventually(() => bridge.route('telemetry').confirmed === 100, { what: '100 confirmed' })
      expect(bridge.queues.get('telemetry')?.depth).toBe(1)
      expect(bridge.route('telemetry').lastFailure?.reason).toMatch(/312 NO_ROUTE.*sensors\.unwanted/)
      await bindQueue(rabbit.url, queue, exchange)
      await bridge.settlesAll()
      expect(expectAllArrived(await arrivals(rabbit.url, queue), 101)).toBe(0)
    },
    OUTAGE_MS,
  )

  test(
    'a full queue that rejects (basic.nack) parks the route, and it flows when there is room',
    async () => {
      const options = { arguments: { 'x-max-length': 20, 'x-overflow': 'reject-publish' } }
      await bindQueue(rabbit.url, queue, exchange, { options })
      await using bridge = await BridgeUnderTest.start(url, { telemetry: route() })
      await bridge.reaches('forwarding')
      await bridge.publish(60, 'sensors/a')
      await eventually(() => bridge.route('telemetry').parked, { what: 'parked', deadlineMs: 20_000 })
      expect(bridge.route('telemetry').parked?.reason).toMatch(/nack/)
      const found: Arrival[] = []
      await eventually(
        async () => {
          found.push(...(await arrivals(rabbit.url, queue)))
          return bridge.queues.get('telemetry')?.depth === 0
        },
        { deadlineMs: 60_000, intervalMs: 50, what: 'all taken' },
      )
      found.push(...(await arrivals(rabbit.url, queue)))
      expect(expectAllArrived(found, 60)).toBe(0)
    },
    OUTAGE_MS,
  )
})

describe('a route with ack: upstream', () => {
  test('acknowledges what the upstream has confirmed, refuses at once while it is away, and in time while it is silent', {
    timeout: OUTAGE_MS,
  }, async () => {
    await using bridge = await forwarding({ stallTimeoutMs: 60_000 })
    const outbox = bridge.queues.get('telemetry')
    if (outbox === undefined) throw new TypeError('the route has no outbox')
    outbox.policy = { ...PLAIN_POLICY, ack: 'upstream', ackTimeoutMs: 300 }
    await bridge.publish(100, 'sensors/dev-1/t')
    expect(outbox.ledger.settled).toBe(100)
    expect(bridge.core.store.counters.acceptedBytes).toBe(0)
    rabbit.freeze()
    await expect(bridge.publish(1, 'sensors/dev-1/t')).rejects.toMatchObject({ code: 'UPSTREAM_UNCONFIRMED' })
    rabbit.thaw()
    // It was on its way: RabbitMQ has it all the same, and says so.
    await eventually(() => outbox.depth === 0, { what: 'the late confirm' })
    bridge.upstream.pause()
    await bridge.reaches('paused')
    await eventually(() => !outbox.isAttended, { what: 'the end of the link' })
    await expect(bridge.publish(1, 'sensors/dev-1/t')).rejects.toMatchObject({ code: 'UPSTREAM_UNREACHABLE' })
    bridge.upstream.resume()
    await bridge.reaches('forwarding')
    await bridge.publish(1, 'sensors/dev-1/t')
    expect(outbox.ledger.figures()).toMatchObject({ accepted: 102, settled: 102, dropped: {} })
    expect((await arrivals(rabbit.url, queue)).length).toBe(102)
  })
})

describe('pause and stop', () => {
  test('a paused upstream keeps everything, and goes on where it was', async () => {
    await using bridge = await forwarding()
    bridge.upstream.pause()
    await bridge.publish(100, 'sensors/a')
    expect(bridge.status()).toMatchObject({ state: 'paused', confirmed: 0 })
    bridge.upstream.resume()
    await bridge.settlesAll()
    expect(expectAllArrived(await arrivals(rabbit.url, queue), 100)).toBe(0)
  })

  test('pausing and resuming in quick succession ends in the last one asked for', async () => {
    await using bridge = await forwarding()
    for (let i = 0; i < 20; i++) {
      bridge.upstream.pause()
      bridge.upstream.resume()
    }
    await bridge.publish(50, 'sensors/a')
    await bridge.settlesAll()
    expectAllArrived(await arrivals(rabbit.url, queue), 50)
    await eventuallyPasses(() => expect(proxy.connections).toBe(1))
  })

  test('a stop waits for the confirms of what is out: nothing is sent twice after the next start', async () => {
    await using bridge = await forwarding()
    const publishing = bridge.publish(1000, 'sensors/a')
    await eventually(() => bridge.status().unconfirmed > 0, { what: 'messages out', intervalMs: 1 })
    await bridge.upstream.stop()
    await publishing
    bridge.upstream.start()
    await bridge.settlesAll()
    expect(expectAllArrived(await arrivals(rabbit.url, queue), 1000)).toBe(0)
  })
})
