import { describe, expect, it } from 'vitest'
import type { LiveReceiver } from '../../../src/core/consumer.ts'
import type { BindingSpec, HeaderPair } from '../../../src/core/declarations.ts'
import type { ExchangeSpec } from '../../../src/core/exchange.ts'
import type { HeadersMatch } from '../../../src/core/exchanges/headers.ts'
import type { Queue, QueueLimits } from '../../../src/core/queue.ts'
import { createRun, type Run } from '../../../src/core/run.ts'
import { MQTT_EXCHANGE, PropertiesTag, recordPrefix } from '../../../src/model/message.ts'
import { Collector } from '../../support/collector.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { mqtt5PropertyBytes } from '../../support/mqtt5-publish.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const exchange = (name: string, changes: Partial<ExchangeSpec> = {}): ExchangeSpec => ({
  name,
  kind: 'topic',
  isDurable: true,
  isInternal: false,
  alternate: null,
  ...changes,
})

const toQueue = (source: string, name: string, key: string): BindingSpec => ({
  source,
  destination: { kind: 'queue', name },
  key,
  headers: null,
})

const toExchange = (source: string, name: string, key: string): BindingSpec => ({
  source,
  destination: { kind: 'exchange', name },
  key,
  headers: null,
})

const byHeaders = (name: string, match: HeadersMatch, values: readonly HeaderPair[]): BindingSpec => ({
  source: 'amq.headers',
  destination: { kind: 'queue', name },
  key: '',
  headers: { match, values },
})

async function withCore(test: (core: CoreUnderTest) => Promise<void>): Promise<void> {
  await using directory = await tempDir()
  await using core = await CoreUnderTest.open(directory.path)
  await test(core)
}

/** A queue declared over the API. */
async function declareQueue(
  { declarations, topology }: CoreUnderTest,
  name: string,
  limits: QueueLimits = WIDE_LIMITS,
) {
  await declarations.declareQueue({ name, origin: 'api', limits, qos0: 'buffer' })
  return topology.queue(name)
}

async function keysIn(queue: Queue): Promise<string[]> {
  const keys: string[] = []
  const collector = new Collector(queue)
  queue.attach(collector)
  for (const { key } of collector.deliveries) keys.push(key)
  collector.settleAll()
  queue.detach(collector)
  return keys
}

describe('bindings between exchanges', () => {
  it('may form a circle: a message passes each exchange once', () =>
    withCore(async core => {
      const { declarations, router } = core
      for (const name of ['a', 'b', 'c']) await declarations.declareExchange(exchange(name, { kind: 'fanout' }), 'api')
      await declarations.bind(toExchange('a', 'b', ''), 'api')
      await declarations.bind(toExchange('b', 'c', ''), 'api')
      await declarations.bind(toExchange('c', 'a', ''), 'api')
      await declarations.bind(toExchange('c', 'c', ''), 'api')
      const queue = await declareQueue(core, 'jobs')
      await declarations.bind(toQueue('c', 'jobs', ''), 'api')
      expect(await router.publish(messageTo('k', 'x', { exchange: 'a' }))).toEqual({ isRouted: true })
      expect(queue.depth).toBe(1)
    }))

  it('give a queue one copy however many ways lead to it', () =>
    withCore(async core => {
      const { declarations, router } = core
      await declarations.declareExchange(exchange('a'), 'api')
      await declarations.declareExchange(exchange('b', { kind: 'fanout' }), 'api')
      const queue = await declareQueue(core, 'jobs')
      await declarations.bind(toQueue('a', 'jobs', '#'), 'api')
      await declarations.bind(toQueue('a', 'jobs', 'k.*'), 'api')
      await declarations.bind(toExchange('a', 'b', '#'), 'api')
      await declarations.bind(toQueue('b', 'jobs', ''), 'api')
      await router.publish(messageTo('k.1', 'x', { exchange: 'a' }))
      expect(queue.ledger.figures()).toMatchObject({ accepted: 1, queued: 1 })
    }))

  it('translate between topics and routing keys, both ways', () =>
    withCore(async core => {
      const { declarations, router } = core
      await declarations.declareExchange(exchange('centre'), 'api')
      const [fromMqtt, fromCentre] = [await declareQueue(core, 'from-mqtt'), await declareQueue(core, 'from-centre')]
      await declarations.bind(toExchange(MQTT_EXCHANGE, 'centre', 'sensors/#'), 'api')
      await declarations.bind(toQueue('centre', 'from-mqtt', 'sensors.*.v1/0'), 'api')
      await router.publish(messageTo('sensors/7/v1.0', 'x'))
      expect(await keysIn(fromMqtt)).toEqual(['sensors/7/v1.0'])
      await declarations.bind(toExchange('centre', MQTT_EXCHANGE, 'commands.#'), 'api')
      await declarations.bind(toQueue(MQTT_EXCHANGE, 'from-centre', 'commands/+'), 'api')
      await router.publish(messageTo('commands.7', 'x', { exchange: 'centre' }))
      expect(await keysIn(fromCentre)).toEqual(['commands.7'])
    }))

  it('tell MQTT receivers the topic, and nothing of a key that is none', () =>
    withCore(async ({ declarations, router }) => {
      const heard: string[] = []
      const ear: LiveReceiver = { deliverRun: (_run: Run, topic: string) => heard.push(topic) }
      router.bind(MQTT_EXCHANGE, { pattern: '#', destination: { live: ear, queue: null }, maxQos: 0, note: 0 })
      await declarations.declareExchange(exchange('centre'), 'api')
      await declarations.bind(toExchange('centre', MQTT_EXCHANGE, '#'), 'api')
      const publish = (key: string) => router.publish(messageTo(key, 'x', { exchange: 'centre' }))
      expect(await publish('a.b')).toEqual({ isRouted: true })
      for (const key of ['a.#', 'a.+', '', 'a\0b']) expect(await publish(key)).toEqual({ isRouted: false })
      expect(heard).toEqual(['a/b'])
    }))
})

describe('an alternate exchange', () => {
  it('takes what matches no binding, and nothing else', () =>
    withCore(async core => {
      const { declarations, router } = core
      await declarations.declareExchange(exchange('strays', { kind: 'fanout', isInternal: true }), 'api')
      await declarations.declareExchange(exchange('orders', { kind: 'direct', alternate: 'strays' }), 'api')
      const [known, stray] = [await declareQueue(core, 'known'), await declareQueue(core, 'stray')]
      await declarations.bind(toQueue('orders', 'known', 'k'), 'api')
      await declarations.bind(toQueue('strays', 'stray', ''), 'api')
      await router.publish(messageTo('k', 'x', { exchange: 'orders' }))
      await router.publish(messageTo('other', 'x', { exchange: 'orders' }))
      expect(await keysIn(known)).toEqual(['k'])
      expect(await keysIn(stray)).toEqual(['other'])
    }))

  it('that is not there, or that is the exchange itself, takes nothing', () =>
    withCore(async ({ declarations, router }) => {
      await declarations.declareExchange(exchange('a', { alternate: 'nowhere' }), 'api')
      await declarations.declareExchange(exchange('b', { alternate: 'b' }), 'api')
      expect(await router.publish(messageTo('k', 'x', { exchange: 'a' }))).toEqual({ isRouted: false })
      expect(await router.publish(messageTo('k', 'x', { exchange: 'b' }))).toEqual({ isRouted: false })
    }))
})

describe('publishing', () => {
  it('to the default exchange reaches the queue of that name, whatever its name', () =>
    withCore(async core => {
      const queue = await declareQueue(core, 'jobs/a.b')
      expect(await core.router.publish(messageTo('jobs/a.b', 'x', { exchange: '' }))).toEqual({ isRouted: true })
      expect(await core.router.publish(messageTo('jobs.a/b', 'x', { exchange: '' }))).toEqual({ isRouted: false })
      expect(queue.depth).toBe(1)
    }))

  it('to an internal exchange is refused, to an unknown one too', () =>
    withCore(async ({ declarations, router }) => {
      await declarations.declareExchange(exchange('inner', { isInternal: true }), 'api')
      await expect(router.publish(messageTo('k', 'x', { exchange: 'inner' }))).rejects.toMatchObject({
        code: 'NOT_AUTHORIZED',
      })
      await expect(router.publish(messageTo('k', 'x', { exchange: 'none' }))).rejects.toMatchObject({
        code: 'EXCHANGE_NOT_FOUND',
      })
    }))
})

describe('a run through a headers exchange', () => {
  it('takes each message by its own headers and gives tickets that follow by one', () =>
    withCore(async core => {
      const { declarations, router, gate } = core
      await declarations.bind(toExchange(MQTT_EXCHANGE, 'amq.headers', '#'), 'api')
      const [alarms, all] = [await declareQueue(core, 'alarms'), await declareQueue(core, 'all')]
      await declarations.bind(byHeaders('alarms', 'all', [['kind', 'alarm']]), 'api')
      await declarations.bind(byHeaders('all', 'any', [['kind', null]]), 'api')
      const kinds = ['alarm', null, 'reading', 'alarm', null]
      const run = runOf(kinds)
      const told: number[] = []
      const handle = router.register({
        ticketsSafe: () => told.push(run.firstTicket),
        ticketRefused: () => undefined,
        resume: () => undefined,
      })
      gate.holdCommits()
      const route = router.route(MQTT_EXCHANGE, 'a/b')
      expect(route.readsHeaders).toBe(true)
      expect(router.publishRun(handle, route, run)).toBe(kinds.length)
      const isSafe = () => kinds.map((_, i) => router.isSafe(run.firstTicket + i))
      // What went to no queue is safe at once; the ring of the connection keeps it behind the others.
      expect(isSafe()).toEqual([false, true, false, false, true])
      gate.releaseCommits()
      await core.schedule.flush()
      expect(isSafe()).toEqual([true, true, true, true, true])
      expect(told.length).toBeGreaterThan(0)
      const payloads = (queue: Queue) => {
        const collector = new Collector(queue)
        queue.attach(collector)
        return collector.payloads()
      }
      expect(payloads(alarms)).toEqual(['0', '3'])
      expect(payloads(all)).toEqual(['0', '2', '3'])
    }))

  it('stops at the message a queue refuses, and counts what matched nothing', () =>
    withCore(async core => {
      const { declarations, router } = core
      await declarations.bind(toExchange(MQTT_EXCHANGE, 'amq.headers', '#'), 'api')
      await declareQueue(core, 'alarms', { ...WIDE_LIMITS, messages: 1 })
      await declarations.bind(byHeaders('alarms', 'all', [['kind', 'alarm']]), 'api')
      const run = runOf(['alarm', null, 'alarm', 'alarm'])
      const handle = router.register({
        ticketsSafe: () => undefined,
        ticketRefused: () => undefined,
        resume: () => undefined,
      })
      expect(router.publishRun(handle, router.route(MQTT_EXCHANGE, 'a/b'), run)).toBe(2)
      expect(run.refusal).toBe('QUEUE_FULL')
      expect(router.counters).toMatchObject({ accepted: 2, unrouted: 1, refused: 1 })
    }))

  it('tells the cold edge whether this message was wanted', () =>
    withCore(async core => {
      await declareQueue(core, 'alarms')
      await core.declarations.bind(byHeaders('alarms', 'all', [['kind', 'alarm']]), 'api')
      const publish = (kind: string) =>
        core.router.publish(
          messageTo('k', 'x', {
            exchange: 'amq.headers',
            propertiesTag: PropertiesTag.mqtt5,
            properties: mqtt5PropertyBytes({ userProperties: { kind } }),
          }),
        )
      expect(await publish('alarm')).toEqual({ isRouted: true })
      expect(await publish('reading')).toEqual({ isRouted: false })
    }))
})

/** QoS 1 messages to a/b whose payload is their index and whose user property `kind` is as given. */
function runOf(kinds: readonly (string | null)[]): Run {
  const message = messageTo('a/b', '', { propertiesTag: PropertiesTag.mqtt5 })
  const run = createRun(0, recordPrefix(message))
  const parts: Buffer[] = []
  let at = 0
  for (const [i, kind] of kinds.entries()) {
    const properties = kind === null ? Buffer.alloc(0) : mqtt5PropertyBytes({ userProperties: { kind } })
    const payload = Buffer.from(String(i))
    run.starts[i] = at
    run.properties[i] = at
    run.payloads[i] = at + properties.length
    run.ends[i] = at + properties.length + payload.length
    at += properties.length + payload.length
    parts.push(properties, payload)
  }
  run.bytes = Buffer.concat(parts)
  run.count = kinds.length
  run.qos = 1
  run.propertiesTag = PropertiesTag.mqtt5
  return run
}

describe('declared again', () => {
  it('with the same attributes nothing happens, with others it is a mismatch', () =>
    withCore(async core => {
      const { declarations } = core
      expect(await declarations.declareExchange(exchange('a'), 'api')).toBe('created')
      expect(await declarations.declareExchange(exchange('a'), 'api')).toBe('exists')
      for (const changes of [
        { kind: 'direct' },
        { isDurable: false },
        { isInternal: true },
        { alternate: 'b' },
      ] as const) {
        await expect(declarations.declareExchange(exchange('a', changes), 'api')).rejects.toMatchObject({
          code: 'DECLARATION_MISMATCH',
        })
      }
      const queue = await declareQueue(core, 'jobs')
      const spec = { name: 'jobs', origin: 'api', limits: WIDE_LIMITS, qos0: 'buffer' } as const
      expect(await declarations.declareQueue(spec)).toBe('exists')
      await expect(
        declarations.declareQueue({ ...spec, limits: { ...WIDE_LIMITS, messages: 1 } }),
      ).rejects.toMatchObject({ code: 'DECLARATION_MISMATCH' })
      expect(queue.limits).toEqual(WIDE_LIMITS)
      expect(await declarations.bind(toQueue('a', 'jobs', '#'), 'api')).toBe('created')
      expect(await declarations.bind(toQueue('a', 'jobs', '#'), 'api')).toBe('exists')
    }))

  it('by two at once makes one queue', () =>
    withCore(async core => {
      const spec = { name: 'jobs', origin: 'api', limits: WIDE_LIMITS, qos0: 'buffer' } as const
      const outcomes = await Promise.all([core.declarations.declareQueue(spec), core.declarations.declareQueue(spec)])
      expect(outcomes).toEqual(['created', 'exists'])
      await core.router.publish(messageTo('jobs', 'x', { exchange: '' }))
      expect(core.topology.queue('jobs').depth).toBe(1)
    }))

  it('are refused beyond their limits, and possible again when some are deleted; the configuration is never refused', async () => {
    await using directory = await tempDir()
    const limits = { queues: 1, exchanges: 1, bindings: 1 }
    await using core = await CoreUnderTest.open(directory.path, { limits })
    const { declarations } = core
    const over = expect.objectContaining({ code: 'LIMIT_REACHED' })
    await declareQueue(core, 'jobs')
    await declarations.declareExchange(exchange('a'), 'api')
    await declarations.bind(toQueue('a', 'jobs', '#'), 'api')
    await expect(declareQueue(core, 'more')).rejects.toEqual(over)
    await expect(declarations.declareExchange(exchange('b'), 'api')).rejects.toEqual(over)
    await expect(declarations.bind(toQueue('a', 'jobs', 'other'), 'api')).rejects.toEqual(over)
    expect(await declarations.bind(toQueue('a', 'jobs', '#'), 'api')).toBe('exists')
    expect(await declarations.bind(toQueue('a', 'jobs', 'configured'), 'config')).toBe('created')
    await declarations.deleteQueue('jobs')
    await declareQueue(core, 'more')
    expect(await declarations.bind(toQueue('a', 'more', '#'), 'api')).toBe('created')
  })

  it('a queue of the configuration stays one', () =>
    withCore(async core => {
      await core.queue('jobs', 'jobs/#')
      await declareQueue(core, 'jobs')
      expect(core.topology.originOf('jobs')).toBe('config')
      await expect(core.declarations.deleteQueue('jobs')).rejects.toMatchObject({ code: 'QUEUE_IN_USE' })
    }))

  it('a binding is the same with its arguments in another order', () =>
    withCore(async core => {
      await declareQueue(core, 'jobs')
      await core.declarations.bind(
        byHeaders('jobs', 'any', [
          ['a', '1'],
          ['b', null],
        ]),
        'api',
      )
      expect(
        await core.declarations.bind(
          byHeaders('jobs', 'any', [
            ['b', null],
            ['a', '1'],
          ]),
          'api',
        ),
      ).toBe('exists')
      await core.declarations.unbind(
        byHeaders('jobs', 'any', [
          ['b', null],
          ['a', '1'],
        ]),
      )
      expect([...core.declarations.bindings()]).toEqual([])
    }))
})

describe('what is built in, reserved, or not there', () => {
  it('is told by code', () =>
    withCore(async core => {
      const { declarations } = core
      await declareQueue(core, 'jobs')
      const refusals: readonly [Promise<unknown>, string][] = [
        [declarations.declareExchange(exchange('amq.own'), 'api'), 'NOT_AUTHORIZED'],
        [declarations.declareExchange(exchange('amq.direct'), 'api'), 'DECLARATION_MISMATCH'],
        [declarations.deleteExchange('mqtt'), 'NOT_AUTHORIZED'],
        [declarations.deleteExchange('none'), 'EXCHANGE_NOT_FOUND'],
        [declareQueue(core, 'amq.gen-1'), 'NOT_AUTHORIZED'],
        [declarations.deleteQueue('none'), 'QUEUE_NOT_FOUND'],
        [declarations.bind(toQueue('', 'jobs', 'k'), 'api'), 'NOT_AUTHORIZED'],
        [declarations.bind(toExchange('mqtt', '', 'k'), 'api'), 'NOT_AUTHORIZED'],
        [declarations.bind(toQueue('none', 'jobs', 'k'), 'api'), 'EXCHANGE_NOT_FOUND'],
        [declarations.bind(toExchange('mqtt', 'none', 'k'), 'api'), 'EXCHANGE_NOT_FOUND'],
        [declarations.bind(toQueue('mqtt', 'none', 'k'), 'api'), 'QUEUE_NOT_FOUND'],
        [declarations.bind(toQueue('mqtt', 'jobs', 'a/#/b'), 'api'), 'NAME_INVALID'],
        [declarations.bind(toQueue('amq.direct', 'jobs', 'x'.repeat(256)), 'api'), 'NAME_INVALID'],
        [declarations.bind({ ...byHeaders('jobs', 'all', []), source: 'amq.direct' }, 'api'), 'REQUEST_INVALID'],
        [declarations.unbind(toQueue('mqtt', 'jobs', 'k')), 'BINDING_NOT_FOUND'],
      ]
      for (const [refused, code] of refusals) await expect(refused).rejects.toMatchObject({ code })
      expect([...declarations.bindings()]).toEqual([])
    }))

  it('a binding of the configuration is not taken away over the API', () =>
    withCore(async core => {
      await declareQueue(core, 'jobs')
      await core.declarations.bind(toQueue('mqtt', 'jobs', 'a'), 'config')
      await expect(core.declarations.unbind(toQueue('mqtt', 'jobs', 'a'))).rejects.toMatchObject({
        code: 'NOT_AUTHORIZED',
      })
    }))
})

describe('deleting', () => {
  it('an exchange takes the bindings from and to it along', () =>
    withCore(async core => {
      const { declarations, router } = core
      await declarations.declareExchange(exchange('a'), 'api')
      const queue = await declareQueue(core, 'jobs')
      await declarations.bind(toExchange('mqtt', 'a', '#'), 'api')
      await declarations.bind(toQueue('a', 'jobs', '#'), 'api')
      await declarations.bind(toQueue('mqtt', 'jobs', 'kept/#'), 'api')
      await declarations.deleteExchange('a')
      expect([...declarations.bindings()].map(({ spec }) => spec.key)).toEqual(['kept/#'])
      expect(await router.publish(messageTo('gone', 'x'))).toEqual({ isRouted: false })
      await declarations.declareExchange(exchange('a'), 'api')
      expect(await router.publish(messageTo('gone', 'x'))).toEqual({ isRouted: false })
      expect(queue.depth).toBe(0)
    }))

  it('a queue takes its bindings along, and not while somebody consumes', () =>
    withCore(async core => {
      const { declarations, router } = core
      const queue = await declareQueue(core, 'jobs')
      await declarations.bind(toQueue('mqtt', 'jobs', '#'), 'api')
      const collector = new Collector(queue, 0)
      queue.attach(collector)
      await expect(declarations.deleteQueue('jobs')).rejects.toMatchObject({ code: 'QUEUE_IN_USE' })
      expect(await router.publish(messageTo('a', 'x'))).toEqual({ isRouted: true })
      queue.detach(collector)
      const deleted = declarations.deleteQueue('jobs')
      await deleted
      expect(queue.ledger.imbalance).toBe(0)
      expect(core.topology.has('jobs')).toBe(false)
      expect([...declarations.bindings()]).toEqual([])
      expect(await router.publish(messageTo('a', 'x'))).toEqual({ isRouted: false })
      expect(await router.publish(messageTo('jobs', 'x', { exchange: '' }))).toEqual({ isRouted: false })
    }))

  it('a queue under load acknowledges nothing that it then forgets', () =>
    withCore(async core => {
      const queue = await declareQueue(core, 'jobs')
      await core.declarations.bind(toQueue('mqtt', 'jobs', '#'), 'api')
      const published: Promise<{ isRouted: boolean }>[] = []
      const publish = () => published.push(core.router.publish(messageTo('a', 'x'.repeat(1000))))
      for (let i = 0; i < 50; i++) publish()
      let isDeleted = false
      const deleted = core.declarations.deleteQueue('jobs').then(() => {
        isDeleted = true
      })
      while (!isDeleted) {
        publish()
        await new Promise(setImmediate)
      }
      await deleted
      const routed = (await Promise.all(published)).filter(({ isRouted }) => isRouted).length
      expect(queue.ledger.figures()).toMatchObject({ accepted: routed, queued: 0, dropped: { purged: routed } })
      expect(queue.bytes).toBe(0)
    }))
})

describe('after a restart', () => {
  it('a queue that is declared as it was costs no commit', async () => {
    await using directory = await tempDir()
    const spec = { name: 'telemetry', origin: 'config', limits: WIDE_LIMITS, qos0: 'buffer' } as const
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.topology.declareQueue(spec)
      expect(core.store.counters.commits).toBe(1)
    }
    await using core = await CoreUnderTest.open(directory.path)
    await core.topology.declareQueue(spec)
    expect(core.store.counters.commits).toBe(0)
    await core.topology.declareQueue({ ...spec, qos0: 'pass' })
    expect(core.store.counters.commits).toBe(1)
  })

  it('a stream that is declared as it was costs no commit', async () => {
    await using directory = await tempDir()
    const retention = { ageMs: Number.POSITIVE_INFINITY, bytes: 1024 ** 3 }
    const spec = { name: 'history', origin: 'config', retention, ack: 'fsync' } as const
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.streams.declare(spec)
      expect(core.store.counters.commits).toBe(1)
    }
    await using core = await CoreUnderTest.open(directory.path)
    await core.streams.declare(spec)
    expect(core.store.counters.commits).toBe(0)
    await core.streams.declare({ ...spec, ack: 'buffered' })
    expect(core.store.counters.commits).toBe(1)
  })

  it('durable exchanges, queues and the bindings between them are there again; transient ones are not', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      const { declarations } = core
      await declarations.declareExchange(exchange('kept', { kind: 'headers', alternate: 'amq.fanout' }), 'api')
      await declarations.declareExchange(exchange('passing', { isDurable: false }), 'api')
      await declareQueue(core, 'jobs')
      await declarations.bind(
        {
          ...byHeaders('jobs', 'any', [
            ['b', 1],
            ['a', null],
          ]),
          source: 'kept',
        },
        'api',
      )
      await declarations.bind(toExchange('mqtt', 'kept', 'a/#'), 'api')
      await declarations.bind(toExchange('mqtt', 'passing', '#'), 'api')
      await declarations.bind(toQueue('passing', 'jobs', '#'), 'api')
    }
    await using core = await CoreUnderTest.open(directory.path)
    const own = [...core.declarations.exchanges()].filter(({ origin }) => origin !== 'built-in')
    expect(own.map(({ exchange: { spec }, origin }) => ({ ...spec, origin }))).toEqual([
      { ...exchange('kept', { kind: 'headers', alternate: 'amq.fanout' }), origin: 'api' },
    ])
    expect([...core.declarations.bindings()].map(({ spec, origin }) => [origin, spec.source, spec.key])).toEqual([
      ['api', 'kept', ''],
      ['api', 'mqtt', 'a/#'],
    ])
    expect(core.topology.originOf('jobs')).toBe('api')
    expect(core.topology.isOrphan('jobs')).toBe(false)
    expect(core.topology.queue('jobs').limits).toEqual(WIDE_LIMITS)
    const properties = mqtt5PropertyBytes({ userProperties: { a: 'x' } })
    await core.router.publish(messageTo('a/b', 'x', { propertiesTag: PropertiesTag.mqtt5, properties }))
    expect(core.topology.queue('jobs').depth).toBe(1)
  })

  it('a binding whose queue is gone is forgotten and keeps nothing from starting', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await declareQueue(core, 'jobs')
      await core.declarations.bind(toQueue('mqtt', 'jobs', '#'), 'api')
      // As after a crash between the two steps of deleteQueue, or damage that took the definition.
      await core.topology.deleteQueue('jobs')
    }
    for (const _ of [1, 2]) {
      await using core = await CoreUnderTest.open(directory.path)
      expect([...core.declarations.bindings()]).toEqual([])
    }
    await using core = await CoreUnderTest.open(directory.path)
    await declareQueue(core, 'jobs')
    expect(await core.router.publish(messageTo('a', 'x'))).toEqual({ isRouted: false })
  })

  it('of a deleted queue nothing is left: neither messages nor bindings nor figures', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await declareQueue(core, 'jobs')
      await core.declarations.bind(toQueue('mqtt', 'jobs', '#'), 'api')
      for (let i = 0; i < 30; i++) await core.router.publish(messageTo('a', String(i)))
      await core.declarations.deleteQueue('jobs')
    }
    {
      await using core = await CoreUnderTest.open(directory.path)
      expect([...core.topology.queues()]).toEqual([])
      // The next queue takes the number of the deleted one.
      const queue = await declareQueue(core, 'other')
      expect(queue.ledger.figures()).toMatchObject({ accepted: 0, queued: 0, dropped: {} })
      expect(queue.depth).toBe(0)
      await core.router.publish(messageTo('other', 'new', { exchange: '' }))
    }
    await using core = await CoreUnderTest.open(directory.path)
    const queue = core.topology.queue('other')
    const collector = new Collector(queue)
    queue.attach(collector)
    await queue.readMore()
    expect(collector.payloads()).toEqual(['new'])
    expect(queue.ledger.imbalance).toBe(0)
  })

  it('a queue deleted while its messages were being written stays deleted', async () => {
    await using directory = await tempDir()
    {
      await using core = await CoreUnderTest.open(directory.path)
      await declareQueue(core, 'jobs')
      core.gate.holdCommits()
      const published = Array.from({ length: 20 }, (_, i) =>
        core.router.publish(messageTo('jobs', String(i), { exchange: '' })),
      )
      // The commit with the messages waits at the gate.
      await new Promise(setImmediate)
      await new Promise(setImmediate)
      const deleted = core.declarations.deleteQueue('jobs')
      core.gate.releaseCommits()
      await Promise.all([deleted, ...published])
    }
    await using core = await CoreUnderTest.open(directory.path)
    const queue = await declareQueue(core, 'other')
    expect(queue.depth).toBe(0)
    expect(await queue.readMore()).toBe(false)
  })
})
