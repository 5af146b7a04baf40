import { describe, expect, it } from 'vitest'
import { StatePrefix } from '../../../src/store/keys.ts'
import { Collector } from '../../support/collector.ts'
import { eventually } from '../../support/eventually.ts'
import { FaultyDisk } from '../../support/faulty-level.ts'
import { messageTo } from '../../support/messages.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const names = (count: number): string[] => Array.from({ length: count }, (_, n) => `queue-${n}`)

/** So many queues with the same messages in each. */
async function filled(
  directory: TempDir,
  count: number,
  payloads: readonly string[],
  changes: Parameters<typeof messageTo>[2] = {},
): Promise<void> {
  await using core = await CoreUnderTest.open(directory.path)
  await Promise.all(names(count).map(name => core.queue(name, name)))
  await Promise.all(
    names(count).flatMap(name =>
      payloads.map(payload => core.router.publish(messageTo(name, payload, { ...changes }))),
    ),
  )
}

describe('a start on many queues', () => {
  it('reads a bounded number of their fronts, and each when its turn comes', async () => {
    await using directory = await tempDir()
    await filled(directory, 100, ['a', 'b'])
    const disk = new FaultyDisk()
    let reads = 0
    disk.beforeRead = async () => {
      reads++
    }
    await using core = await CoreUnderTest.open(directory.path, { disk: disk.create })
    const queues = [...core.topology.queues()]
    const known = () => queues.filter(({ oldest }) => oldest !== null).length
    expect(queues.map(({ depth }) => depth)).toEqual(names(100).map(() => 2))
    await eventually(() => known() === 32, { what: 'the first fronts' })
    expect(reads).toBe(32)
    for (const expected of [64, 96, 100]) {
      core.topology.expire()
      await eventually(() => known() === expected, { what: `${expected} fronts` })
    }
    expect(reads).toBe(100)
  })

  it('holds little of limits.memory, expires what is over age all the same, and delivers the rest', async () => {
    await using directory = await tempDir()
    await filled(directory, 60, ['old'.padEnd(20_000), 'older'.padEnd(20_000)], { expiryMs: 1 })
    await using core = await CoreUnderTest.open(directory.path, { memoryBytes: 256 * 1024 })
    const queues = [...core.topology.queues()]
    let most = 0
    await eventually(
      () => {
        core.topology.expire()
        most = Math.max(most, core.memory.usedBytes)
        return queues.every(({ depth }) => depth === 0)
      },
      { deadlineMs: 10_000, what: 'all expired' },
    )
    expect(queues.map(({ ledger }) => [ledger.expired, ledger.imbalance])).toEqual(names(60).map(() => [2, 0]))
  })

  it('lets the fronts go again that nobody takes when half of limits.memory is in use, and they come when somebody does', async () => {
    await using directory = await tempDir()
    await filled(directory, 60, ['x'.repeat(20_000), 'y'.repeat(20_000)])
    await using core = await CoreUnderTest.open(directory.path, { memoryBytes: 2 * 1024 ** 2 })
    for (let second = 0; second < 10; second++) {
      core.topology.expire()
      await core.store.getState(Buffer.from('l'))
    }
    await eventually(
      () => {
        core.topology.expire()
        return core.memory.usedBytes < 1024 ** 2
      },
      { what: 'memory that is not tight' },
    )
    for (const queue of core.topology.queues()) {
      const collector = new Collector(queue)
      queue.attach(collector)
      await eventually(() => collector.unsettled.length === 2, { what: `both messages of ${queue.name}` })
      expect(collector.payloads().map(payload => payload[0])).toEqual(['x', 'y'])
      collector.settleAll()
      queue.detach(collector)
      expect([queue.depth, queue.ledger.imbalance]).toEqual([0, 0])
    }
  })

  it('counts by the index what a queue holds whose ledger is lost', async () => {
    await using directory = await tempDir()
    await filled(directory, 3, ['a', 'b'])
    {
      await using core = await CoreUnderTest.open(directory.path)
      await core.schedule.change({ key: Buffer.from([StatePrefix.ledger, 0, 0, 0, 2]), value: null })
    }
    await using core = await CoreUnderTest.open(directory.path)
    for (const queue of core.topology.queues()) {
      const collector = new Collector(queue)
      queue.attach(collector)
      await eventually(() => collector.unsettled.length === 2, { what: `both messages of ${queue.name}` })
      expect([queue.depth, queue.ledger.accepted, queue.ledger.imbalance]).toEqual([2, 2, 0])
    }
  })
})
