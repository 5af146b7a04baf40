import { describe, expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import type { Retained } from '../../../src/core/retained.ts'
import { decodeRecord } from '../../../src/model/message.ts'
import { Collector } from '../../support/collector.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

type Options = Parameters<typeof CoreUnderTest.open>[1]

async function withCore(test: (core: CoreUnderTest) => Promise<void>, options: Options = {}): Promise<void> {
  await using directory = await tempDir()
  await using core = await CoreUnderTest.open(directory.path, options)
  await test(core)
}

const retainedTo = (topic: string, payload: string, changes = {}) =>
  messageTo(topic, payload, { retain: true, ...changes })

/** Topics with payloads, in order of topics. */
function contents(retained: Retained, filter = '#'): string[] {
  const walk = retained.walk(filter)
  const found: string[] = []
  while (!walk.isDone) {
    const message = walk.next(1000)
    if (message === null) continue
    const { key, payload } = decodeRecord(message.slab.bytes, message.at)
    found.push(`${key}=${payload}`)
  }
  return found.sort()
}

describe('Retained', () => {
  it('keeps the last value of each topic and forgets it with an empty one [MQTT-3.3.1-5], [MQTT-3.3.1-6], [MQTT-3.3.1-7], [MQTT-3.3.1-8]', () =>
    withCore(async ({ router, retained }) => {
      await router.publish(retainedTo('a', '1'))
      await router.publish(retainedTo('a', '2', { qos: 0 }))
      await router.publish(messageTo('a', '3'))
      await router.publish(retainedTo('b', 'x'))
      expect(contents(retained)).toEqual(['a=2', 'b=x'])
      await router.publish(retainedTo('a', ''))
      await router.publish(retainedTo('c', '', { qos: 0 }))
      expect(contents(retained)).toEqual(['b=x'])
      expect(retained.messages).toBe(1)
    }))

  it('acknowledges QoS 1 after the commit that keeps it, though nobody subscribes and a subscriber has settled it', () =>
    withCore(async ({ router, gate, topology }) => {
      const queue = await topology.declareQueue({
        name: 'q',
        origin: 'api',
        limits: { messages: 10, bytes: 1e6, ageMs: 1e6, onFull: 'reject' },
        qos0: 'buffer',
      })
      router.bind('mqtt', { pattern: 'taken', destination: { live: null, queue }, maxQos: 1, note: 0 })
      const collector = new Collector(queue)
      queue.attach(collector)
      await gate.stillness()
      const safe: string[] = []
      const receipts = ['taken', 'alone', 'empty'].map(async topic => {
        await router.publish(retainedTo(topic, topic === 'empty' ? '' : 'x'))
        safe.push(topic)
      })
      collector.settleAll()
      await new Promise(setImmediate)
      expect(safe).toEqual([])
      gate.releaseCommits()
      await Promise.all(receipts)
      expect(safe.sort()).toEqual(['alone', 'empty', 'taken'])
    }))

  it('is there again after a restart, and writes nothing while nothing changes', async () => {
    await using directory = await tempDir()
    const first = await CoreUnderTest.open(directory.path)
    await first.router.publish(retainedTo('a/b', 'old'))
    await first.router.publish(retainedTo('a/b', 'new', { qos: 0 }))
    await first.router.publish(retainedTo('gone', 'x'))
    await first.router.publish(retainedTo('gone', '', { qos: 0 }))
    await first.close()
    await using second = await CoreUnderTest.open(directory.path)
    expect(contents(second.retained)).toEqual(['a/b=new'])
    expect(second.memory.usedBytes).toBe(second.retained.bytes)
    const { commits } = second.store.counters
    second.retained.expire()
    await second.schedule.flush()
    expect(second.store.counters.commits).toBe(commits)
  })

  it('writes a retained message of QoS 0 within store.buffered_interval', () =>
    withCore(async ({ router, store }) => {
      await router.publish(retainedTo('a', 'x', { qos: 0 }))
      await eventually(() => store.counters.acceptedBytes > 0, { what: 'the message on disk' })
    }))

  it('writes many of QoS 0 in commits of a bounded size, and none is left behind', async () => {
    await using directory = await tempDir()
    const first = await CoreUnderTest.open(directory.path)
    const payload = 'x'.repeat(10_000)
    for (let n = 0; n < 500; n++) await first.router.publish(retainedTo(`t/${n}`, payload, { qos: 0 }))
    await first.close()
    expect(first.store.counters.commits).toBeGreaterThan(4)
    await using second = await CoreUnderTest.open(directory.path)
    expect(second.retained.messages).toBe(500)
  })

  it('refuses beyond limits.retained before the acknowledgement; what takes the place of another or removes it still fits', () =>
    withCore(
      async ({ router, retained }) => {
        await router.publish(retainedTo('a', '1'))
        await router.publish(retainedTo('b', '1'))
        expect(retained.isFull).toBe(true)
        await expect(router.publish(retainedTo('c', '1'))).rejects.toMatchObject({ code: 'RETAINED_FULL' })
        await router.publish(retainedTo('b', '2'))
        await router.publish(retainedTo('a', ''))
        await router.publish(retainedTo('c', '1'))
        await expect(router.publish(retainedTo('c', 'x'.repeat(1000)))).rejects.toMatchObject({ code: 'RETAINED_FULL' })
        expect(contents(retained)).toEqual(['b=2', 'c=1'])
      },
      { retained: { messages: 2, bytes: 1000 } },
    ))

  it('QoS 0 for which there is no room is delivered, counted, and ends the message before it 3.1.1 [MQTT-3.3.1-7]', () =>
    withCore(
      async ({ router, retained }) => {
        await router.publish(retainedTo('a', '1'))
        await router.publish(retainedTo('b', '1', { qos: 0 }))
        expect(contents(retained)).toEqual(['a=1'])
        await router.publish(retainedTo('a', 'x'.repeat(1000), { qos: 0 }))
        expect(contents(retained)).toEqual([])
        expect(retained.dropped.limit).toBe(2)
        expect(router.counters.refused).toBe(0)
      },
      { retained: { messages: 1, bytes: 1000 } },
    ))

  it('a message whose time is over is not found, and leaves memory and disk by itself', async () => {
    let nowMs = 0
    const clock: Clock = { monotonicMs: () => nowMs, wallMs: () => 1_800_000_000_000 + nowMs }
    await using directory = await tempDir()
    const first = await CoreUnderTest.open(directory.path, { clock })
    await first.router.publish(retainedTo('short', 'x', { expiryMs: 1000 }))
    await first.router.publish(retainedTo('long', 'x', { expiryMs: 1_000_000 }))
    await first.router.publish(retainedTo('for ever', 'x'))
    nowMs = 1000
    expect(contents(first.retained)).toEqual(['for ever=x', 'long=x'])
    first.retained.expire()
    expect(first.retained).toMatchObject({ messages: 2, expired: 1 })
    await first.close()
    nowMs = 0
    await using second = await CoreUnderTest.open(directory.path, { clock })
    expect(second.retained.messages).toBe(2)
    // How long it was switched off is not known: the clock was never trusted, so that time counts as none.
    nowMs = 999_999
    expect(contents(second.retained)).toEqual(['for ever=x', 'long=x'])
    nowMs = 1_000_000
    expect(contents(second.retained)).toEqual(['for ever=x'])
  })

  it('a walk leaves out what was retained after it began: that comes by the subscription itself', () =>
    withCore(async ({ router, retained }) => {
      await router.publish(retainedTo('a', 'before'))
      await router.publish(retainedTo('b', 'before'))
      const walk = retained.walk('#')
      await router.publish(retainedTo('a', 'after'))
      await router.publish(retainedTo('c', 'after'))
      const found: string[] = []
      while (!walk.isDone) {
        const message = walk.next(1000)
        if (message !== null) found.push(decodeRecord(message.slab.bytes, message.at).key)
      }
      expect(found).toEqual(['b'])
    }))
})
