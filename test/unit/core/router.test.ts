import { describe, expect, it } from 'vitest'
import type { LiveReceiver } from '../../../src/core/consumer.ts'
import type { Run } from '../../../src/core/run.ts'
import { MQTT_EXCHANGE } from '../../../src/model/message.ts'
import { Collector } from '../../support/collector.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

class Ear implements LiveReceiver {
  readonly heard: string[] = []

  deliverRun(run: Run, key: string): void {
    for (let i = 0; i < run.count; i++) {
      this.heard.push(`${key}=${run.bytes.toString('utf8', run.payloads[i], run.ends[i])}`)
    }
  }
}

async function withCore(test: (core: CoreUnderTest) => Promise<void>): Promise<void> {
  await using directory = await tempDir()
  await using core = await CoreUnderTest.open(directory.path)
  await test(core)
}

describe('Router', () => {
  it('delivers once to a destination with overlapping bindings, over the one with the highest QoS [MQTT-3.3.4-2]', () =>
    withCore(async ({ router, topology }) => {
      const ear = new Ear()
      const queue = topology.memoryQueue('session:x', WIDE_LIMITS)
      const collector = new Collector(queue)
      queue.attach(collector)
      const destination = { live: ear, queue }
      router.bind(MQTT_EXCHANGE, { pattern: 'a/#', destination, maxQos: 0, note: 1 })
      router.bind(MQTT_EXCHANGE, { pattern: 'a/+', destination, maxQos: 1, note: 2 })
      await router.publish(messageTo('a/b', 'one'))
      await router.publish(messageTo('a/b', 'zero', { qos: 0 }))
      expect(collector.deliveries.map(({ payload, note }) => [payload, note])).toEqual([['one', 3]])
      expect(ear.heard).toEqual(['a/b=zero'])
    }))

  it('gives a QoS 1 message to a subscription of QoS 0 at once, without a queue', () =>
    withCore(async ({ router }) => {
      const ear = new Ear()
      router.bind(MQTT_EXCHANGE, { pattern: '#', destination: { live: ear, queue: null }, maxQos: 0, note: 0 })
      await router.publish(messageTo('a', 'x'))
      expect(ear.heard).toEqual(['a=x'])
    }))

  it('acknowledges and counts what matches nothing', () =>
    withCore(async ({ router }) => {
      expect(await router.publish(messageTo('nobody/listens', 'x'))).toEqual({ isRouted: false })
      expect(router.counters).toMatchObject({ accepted: 1, unrouted: 1 })
    }))

  it('keeps a cached route only until bindings change', () =>
    withCore(async ({ router }) => {
      const before = router.route(MQTT_EXCHANGE, 'a')
      expect(router.route(MQTT_EXCHANGE, 'a')).toBe(before)
      const binding = { pattern: 'a', destination: { live: new Ear(), queue: null }, maxQos: 0, note: 0 } as const
      router.bind(MQTT_EXCHANGE, binding)
      expect(before.version).not.toBe(router.version)
      expect(router.route(MQTT_EXCHANGE, 'a').isRouted).toBe(true)
      router.unbind(MQTT_EXCHANGE, binding)
      expect(router.route(MQTT_EXCHANGE, 'a').isRouted).toBe(false)
    }))

  it('remembers a bounded number of routes however many topics come', () =>
    withCore(async ({ router }) => {
      for (let n = 0; n < 20_000; n++) await router.publish(messageTo(`t/${n}`, '', { qos: 0 }))
      expect(router.counters.unrouted).toBe(20_000)
    }))

  it('buffers QoS 0 in a durable queue and writes it within store.buffered_interval, without a ticket', () =>
    withCore(async core => {
      const queue = await core.queue('jobs', '#')
      await core.router.publish(messageTo('a', 'x', { qos: 0 }))
      expect(queue.depth).toBe(1)
      await eventually(() => core.store.counters.acceptedBytes > 0, { what: 'the QoS 0 message on disk' })
    }))

  it('does not take the settlement of a QoS 0 message for that of the QoS 1 message before it', () =>
    withCore(async core => {
      const queue = await core.queue('commands', 'command')
      const readings = await core.queue('readings', 'reading')
      const collector = new Collector(readings)
      readings.attach(collector)
      await core.gate.stillness()
      let isSafe = false
      const receipt = core.router.publish(messageTo('command', 'stop')).then(() => {
        isSafe = true
      })
      await core.router.publish(messageTo('reading', '21', { qos: 0 }))
      collector.settleAll()
      await new Promise(setImmediate)
      const wasSafeUnwritten = isSafe
      core.gate.releaseCommits()
      await receipt
      expect(wasSafeUnwritten).toBe(false)
      expect(queue.depth).toBe(1)
    }))

  it('acknowledges a message only when all of 256 durable queues keep it', () =>
    withCore(async core => {
      for (let n = 0; n < 256; n++) await core.queue(`q${n}`, '#')
      await core.gate.stillness()
      let isSafe = false
      const receipt = core.router.publish(messageTo('a', 'x')).then(() => {
        isSafe = true
      })
      await new Promise(setImmediate)
      const wasSafeUnwritten = isSafe
      core.gate.releaseCommits()
      await receipt
      expect(wasSafeUnwritten).toBe(false)
    }))

  it('drops and counts QoS 0 for a full queue instead of refusing it', () =>
    withCore(async core => {
      const queue = await core.queue('jobs', '#', { ...WIDE_LIMITS, messages: 1 })
      await core.router.publish(messageTo('a', 'kept', { qos: 0 }))
      await core.router.publish(messageTo('a', 'dropped', { qos: 0 }))
      expect(queue.ledger.figures()).toMatchObject({ accepted: 2, queued: 1, dropped: { overflow: 1 } })
    }))

  it('with drop_newest acknowledges the message it discards and names the reason', () =>
    withCore(async core => {
      const queue = await core.queue('jobs', '#', { ...WIDE_LIMITS, messages: 1, onFull: 'drop_newest' })
      await core.router.publish(messageTo('a', 'kept'))
      await core.router.publish(messageTo('a', 'dropped'))
      expect(queue.ledger.figures()).toMatchObject({ accepted: 2, queued: 1, dropped: { overflow: 1 } })
      expect(queue.ledger.imbalance).toBe(0)
    }))

  it('with drop_oldest lets the front go, also when the front is on disk only', () =>
    withCore(async core => {
      const queue = await core.queue('jobs', '#', { ...WIDE_LIMITS, messages: 4000, onFull: 'drop_oldest' })
      const payload = 'x'.repeat(1000)
      for (let batch = 0; batch < 8; batch++) {
        await Promise.all(
          Array.from({ length: 1000 }, (_, n) => core.router.publish(messageTo('a', `${batch * 1000 + n}:${payload}`))),
        )
      }
      await eventually(() => queue.depth === 4000, { what: 'the limit kept' })
      const collector = new Collector(queue, 100)
      queue.attach(collector)
      await eventually(
        () => {
          collector.settleAll()
          return queue.depth === 0
        },
        { what: 'a drained queue' },
      )
      const numbers = collector.payloads().map(text => Number(text.slice(0, text.indexOf(':'))))
      expect(numbers).toEqual(Array.from({ length: 4000 }, (_, n) => 4000 + n))
      expect(queue.ledger.imbalance).toBe(0)
    }))

  it('with qos0: pass takes QoS 0 only while the consumer forwards; with ignore never', () =>
    withCore(async ({ router, topology }) => {
      const pass = await topology.declareQueue({ name: 'pass', origin: 'config', limits: WIDE_LIMITS, qos0: 'pass' })
      const ignore = await topology.declareQueue({
        name: 'ignore',
        origin: 'config',
        limits: WIDE_LIMITS,
        qos0: 'ignore',
      })
      for (const queue of [pass, ignore]) {
        router.bind(MQTT_EXCHANGE, { pattern: '#', destination: { live: null, queue }, maxQos: 2, note: 0 })
      }
      await router.publish(messageTo('a', 'away', { qos: 0 }))
      pass.setForwarding(true)
      await router.publish(messageTo('a', 'live', { qos: 0 }))
      expect(pass.ledger.figures()).toMatchObject({ accepted: 2, queued: 1, dropped: { not_connected: 1 } })
      expect(ignore.ledger.figures()).toMatchObject({ accepted: 0 })
    }))

  it('refuses when limits.memory is reached and takes again when receivers have caught up', async () => {
    await using directory = await tempDir()
    await using core = await CoreUnderTest.open(directory.path, { memoryBytes: 1024 ** 2 })
    const queue = core.topology.memoryQueue('session:x', WIDE_LIMITS)
    core.router.bind(MQTT_EXCHANGE, { pattern: '#', destination: { live: null, queue }, maxQos: 1, note: 0 })
    const payload = 'x'.repeat(10_000)
    let accepted = 0
    await expect(
      (async () => {
        for (;;) {
          await core.router.publish(messageTo('a', payload))
          accepted++
        }
      })(),
    ).rejects.toMatchObject({ code: 'MEMORY_FULL' })
    expect(accepted).toBeLessThan(120)
    const collector = new Collector(queue)
    queue.attach(collector)
    collector.settleAll()
    await core.router.publish(messageTo('a', payload))
    expect(core.router.mustPause).toBe(false)
  })
})

describe('a durable queue declared again', () => {
  it('keeps its messages and takes the new limits', async () => {
    await using directory = await tempDir()
    const core = await CoreUnderTest.open(directory.path)
    await core.queue('jobs', '#')
    await core.router.publish(messageTo('a', 'x'))
    await core.close()
    await using again = await CoreUnderTest.open(directory.path)
    expect(again.topology.isOrphan('jobs')).toBe(true)
    const queue = await again.queue('jobs', '#', { ...WIDE_LIMITS, messages: 1 })
    expect(again.topology.isOrphan('jobs')).toBe(false)
    expect(queue.depth).toBe(1)
    await expect(again.router.publish(messageTo('a', 'y'))).rejects.toMatchObject({ code: 'QUEUE_FULL' })
  })
})
