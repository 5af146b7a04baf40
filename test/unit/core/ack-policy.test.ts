import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { Queue } from '../../../src/core/queue.ts'
import { PLAIN_POLICY, type QueuePolicy } from '../../../src/model/queue-policy.ts'
import { Collector } from '../../support/collector.ts'
import { eventually } from '../../support/eventually.ts'
import { messageTo, WIDE_LIMITS } from '../../support/messages.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const HOUR_MS = 3_600_000
const UPSTREAM: QueuePolicy = { ...PLAIN_POLICY, ack: 'upstream', ackTimeoutMs: HOUR_MS }
/** So short that it is over when a test looks. */
const UPSTREAM_SOON: QueuePolicy = { ...PLAIN_POLICY, ack: 'upstream', ackTimeoutMs: 20 }
const BUFFERED: QueuePolicy = { ...PLAIN_POLICY, ack: 'buffered' }

async function withCore(test: (core: CoreUnderTest, directory: string) => Promise<void>): Promise<void> {
  await using directory = await tempDir()
  await using core = await CoreUnderTest.open(join(directory.path, 'live'))
  await test(core, directory.path)
}

/** A publish and what has become of it by now. */
function publishing(core: CoreUnderTest, key: string, payload = 'x') {
  const outcome = { is: 'open' as 'open' | 'acknowledged' | string }
  const over = core.router.publish(messageTo(key, payload)).then(
    () => {
      outcome.is = 'acknowledged'
    },
    error => {
      outcome.is = error.code
    },
  )
  return { outcome, over }
}

async function attended(core: CoreUnderTest, name: string, policy: QueuePolicy, prefetch?: number) {
  const queue = await core.queue(name, '#')
  queue.policy = policy
  const collector = new Collector(queue, prefetch)
  queue.attach(collector)
  return { queue, collector }
}

const turn = () => new Promise(setImmediate)

describe('ack: upstream', () => {
  it('acknowledges when the consumer has settled the message, and never writes it', () =>
    withCore(async core => {
      const { queue, collector } = await attended(core, 'control', UPSTREAM)
      const first = publishing(core, 'a')
      await core.router.publish(messageTo('a', 'not kept', { qos: 0 }))
      await eventually(() => core.store.counters.acceptedBytes > 0, { what: 'the QoS 0 message on disk' })
      const written = core.store.counters.acceptedBytes
      const second = publishing(core, 'a')
      await core.schedule.flush()
      expect([first.outcome.is, second.outcome.is]).toEqual(['open', 'open'])
      collector.settleAll()
      await Promise.all([first.over, second.over])
      expect([first.outcome.is, second.outcome.is]).toEqual(['acknowledged', 'acknowledged'])
      await core.schedule.flush()
      expect(core.store.counters.acceptedBytes).toBe(written)
      expect(queue.ledger.figures()).toMatchObject({ accepted: 3, settled: 3 })
    }))

  it('refuses at once while nobody takes messages, and then no other queue takes it either', () =>
    withCore(async core => {
      const kept = await core.queue('kept', '#')
      const control = await core.queue('control', '#')
      control.policy = UPSTREAM
      await expect(core.router.publish(messageTo('a', 'x'))).rejects.toMatchObject({ code: 'UPSTREAM_UNREACHABLE' })
      control.attach(new Collector(control))
      control.setForwarding(false)
      await expect(core.router.publish(messageTo('a', 'x'))).rejects.toMatchObject({ code: 'UPSTREAM_UNREACHABLE' })
      expect([kept.ledger.accepted, control.ledger.accepted]).toEqual([0, 0])
    }))

  it('after ack_timeout refuses and takes the message out: it is never delivered later', () =>
    withCore(async core => {
      const { queue, collector } = await attended(core, 'control', UPSTREAM_SOON, 0)
      await expect(core.router.publish(messageTo('a', 'x'))).rejects.toMatchObject({ code: 'UPSTREAM_UNCONFIRMED' })
      expect(queue.depth).toBe(0)
      expect(queue.ledger.figures()).toMatchObject({ accepted: 1, dropped: { ack_timeout: 1 } })
      queue.attach(new Collector(queue))
      queue.pump()
      expect(collector.deliveries).toEqual([])
    }))

  it('cannot take back what is in flight: refused, it counts as settled if it is confirmed late', () =>
    withCore(async core => {
      const { queue, collector } = await attended(core, 'control', UPSTREAM_SOON)
      await expect(core.router.publish(messageTo('a', 'x'))).rejects.toMatchObject({ code: 'UPSTREAM_UNCONFIRMED' })
      expect(queue.inFlight).toBe(1)
      collector.settleAll()
      expect(queue.ledger.figures()).toMatchObject({ settled: 1, in_flight: 0, dropped: {} })
      expect(queue.ledger.imbalance).toBe(0)
    }))

  it.each(['requeue', 'detach'] as const)('and if it comes back (%s) it does not go out again', how =>
    withCore(async core => {
      const { queue, collector } = await attended(core, 'control', UPSTREAM_SOON)
      await expect(core.router.publish(messageTo('a', 'x'))).rejects.toMatchObject({ code: 'UPSTREAM_UNCONFIRMED' })
      if (how === 'requeue') collector.requeue()
      else queue.detach(collector)
      const next = new Collector(queue)
      queue.attach(next)
      await eventually(() => queue.depth === 0, { what: 'the message gone' })
      expect([collector.deliveries.length, next.deliveries.length]).toEqual([1, 0])
      expect(queue.ledger.figures()).toMatchObject({ accepted: 1, settled: 0, dropped: { ack_timeout: 1 } })
    }),
  )

  it('beside a queue that writes, both must have the message', () =>
    withCore(async core => {
      await core.queue('kept', '#')
      const { collector } = await attended(core, 'control', UPSTREAM)
      const first = publishing(core, 'a')
      await core.schedule.flush()
      await turn()
      expect(first.outcome.is).toBe('open')
      collector.settleAll()
      await first.over
      expect(first.outcome.is).toBe('acknowledged')
      await core.gate.stillness()
      const second = publishing(core, 'a')
      collector.settleAll()
      await turn()
      expect(second.outcome.is).toBe('open')
      core.gate.releaseCommits()
      await second.over
      expect(second.outcome.is).toBe('acknowledged')
    }))

  it('of two upstreams needs both', () =>
    withCore(async core => {
      const one = await attended(core, 'one', UPSTREAM)
      const two = await attended(core, 'two', UPSTREAM)
      const { outcome, over } = publishing(core, 'a')
      one.collector.settleAll()
      await turn()
      expect(outcome.is).toBe('open')
      two.collector.settleAll()
      await over
      expect(outcome.is).toBe('acknowledged')
    }))

  it('refuses the publisher of a message that another one displaces', () =>
    withCore(async core => {
      const { queue } = await attended(core, 'control', UPSTREAM, 0)
      queue.limits = { ...WIDE_LIMITS, messages: 1, onFull: 'drop_oldest' }
      const displaced = publishing(core, 'a')
      publishing(core, 'a')
      await displaced.over
      expect(displaced.outcome.is).toBe('UPSTREAM_UNCONFIRMED')
      queue.limits = { ...WIDE_LIMITS, messages: 1, onFull: 'drop_newest' }
      await expect(core.router.publish(messageTo('a', 'x'))).rejects.toMatchObject({ code: 'QUEUE_FULL' })
      expect(queue.ledger.figures()).toMatchObject({ accepted: 2, queued: 1, dropped: { overflow: 1 } })
    }))

  it('leaves nothing behind for the next start, and keeps the backlog of an earlier policy', () =>
    withCore(async (core, directory) => {
      const queue = await core.queue('control', '#')
      await core.router.publish(messageTo('a', 'backlog'))
      queue.policy = UPSTREAM
      const collector = new Collector(queue)
      queue.attach(collector)
      publishing(core, 'a', 'passing')
      expect(collector.payloads()).toEqual(['backlog', 'passing'])
      await core.router.publish(messageTo('a', 'buffered', { qos: 0 }))
      await core.schedule.flush()
      await core.close()
      await using again = await CoreUnderTest.open(join(directory, 'live'))
      const found = again.topology.queue('control')
      expect(found.ledger.figures()).toMatchObject({ accepted: 2, queued: 2 })
      const next = new Collector(found)
      found.attach(next)
      await eventually(() => next.deliveries.length === 2, { what: 'the backlog' })
      expect(next.payloads()).toEqual(['backlog', 'buffered'])
    }))
})

describe('ack: buffered', () => {
  async function buffering(core: CoreUnderTest): Promise<Queue> {
    const queue = await core.queue('chatty', '#')
    queue.policy = BUFFERED
    // The first ones tell the disk how much may be owed.
    await Promise.all(Array.from({ length: 10 }, (_, n) => core.router.publish(messageTo('a', `first ${n}`))))
    return queue
  }

  it('acknowledges what is in memory, and writes it within store.buffered_interval', () =>
    withCore(async core => {
      const queue = await buffering(core)
      await core.gate.stillness()
      await core.router.publish(messageTo('a', 'x'))
      const before = core.store.counters.acceptedBytes
      core.gate.releaseCommits()
      await eventually(() => core.store.counters.acceptedBytes > before, { what: 'the message on disk' })
      expect(queue.depth).toBe(11)
    }))

  it('beside a queue with fsync waits for that', () =>
    withCore(async core => {
      await buffering(core)
      await core.queue('kept', '#')
      await core.gate.stillness()
      const { outcome, over } = publishing(core, 'a')
      await turn()
      const before = outcome.is
      core.gate.releaseCommits()
      await over
      expect([before, outcome.is]).toEqual(['open', 'acknowledged'])
    }))

  it('never owes more than the disk knows, so that what a crash has cost is bounded after it', () =>
    withCore(async (core, directory) => {
      await buffering(core)
      await core.gate.stillness()
      const sent = Array.from({ length: 500 }, (_, n) => publishing(core, 'a', `${n}`))
      await turn()
      const acknowledged = sent.filter(({ outcome }) => outcome.is === 'acknowledged').length
      expect(acknowledged).toBeGreaterThan(10)
      // What a crash now leaves.
      await cp(join(directory, 'live'), join(directory, 'crashed'), { recursive: true })
      core.gate.releaseCommits()
      await Promise.all(sent.map(({ over }) => over))
      await using after = await CoreUnderTest.open(join(directory, 'crashed'))
      const { depth, lostAtMost, ledger } = after.topology.queue('chatty')
      const lost = 10 + acknowledged - depth
      expect(lost).toBe(acknowledged)
      expect(lostAtMost).toBeGreaterThanOrEqual(lost)
      expect(lostAtMost).toBeLessThan(200)
      expect(ledger.imbalance).toBe(0)
    }))

  it('owes as much as it needs, in few steps', () =>
    withCore(async core => {
      await buffering(core)
      const burst = () => Array.from({ length: 1000 }, () => publishing(core, 'a'))
      await Promise.all(burst().map(({ over }) => over))
      await core.schedule.flush()
      await core.gate.stillness()
      const sent = burst()
      await turn()
      const open = sent.filter(({ outcome }) => outcome.is === 'open').length
      core.gate.releaseCommits()
      expect(open).toBe(0)
    }))

  it('owes nothing after an orderly stop, nor when it has been quiet for a while', () =>
    withCore(async (_core, directory) => {
      const live = join(directory, 'other')
      const clock = { now: 0, monotonicMs: () => clock.now, wallMs: () => clock.now }
      const core = await CoreUnderTest.open(live, { clock })
      await buffering(core)
      const before = core.store.counters.acceptedBytes
      await core.router.publish(messageTo('a', 'x'))
      await eventually(() => core.store.counters.acceptedBytes > before, { what: 'the message on disk' })
      await core.schedule.flush()
      await cp(live, join(directory, 'busy'), { recursive: true })
      clock.now += 31_000
      await core.schedule.flush()
      await cp(live, join(directory, 'quiet'), { recursive: true })
      await core.router.publish(messageTo('a', 'x'))
      await core.close()
      const lost: number[] = []
      for (const path of ['busy', 'quiet', 'other']) {
        await using after = await CoreUnderTest.open(join(directory, path))
        lost.push(after.topology.queue('chatty').lostAtMost)
      }
      expect(lost).toEqual([64, 0, 0])
    }))
})
