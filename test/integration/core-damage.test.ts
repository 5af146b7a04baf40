import { readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Collector } from '../support/collector.ts'
import { eventually } from '../support/eventually.ts'
import { messageTo } from '../support/messages.ts'
import { tempDir } from '../support/temp-dir.ts'
import { CoreUnderTest } from '../support/with-core.ts'

const COUNT = 2000

/** A queue with 2,000 messages in several commits, the first 300 of them settled, and its gateway stopped. */
async function fill(directory: string): Promise<void> {
  const core = await CoreUnderTest.open(directory)
  const queue = await core.queue('jobs', 'jobs/#')
  for (let batch = 0; batch < 10; batch++) {
    await Promise.all(
      Array.from({ length: COUNT / 10 }, (_, n) =>
        core.router.publish(messageTo('jobs/a', `${batch * (COUNT / 10) + n}:${'x'.repeat(300)}`)),
      ),
    )
  }
  const collector = new Collector(queue, 300)
  queue.attach(collector)
  for (const { position } of collector.unsettled.slice(0, 300)) queue.settle(position)
  queue.detach(collector)
  await core.close()
}

async function drain(directory: string): Promise<{ numbers: number[]; core: CoreUnderTest }> {
  const core = await CoreUnderTest.open(directory)
  const queue = await core.queue('jobs', 'jobs/#')
  const collector = new Collector(queue, 100)
  queue.attach(collector)
  await eventually(
    () => {
      collector.settleAll()
      return queue.depth === 0
    },
    { what: 'a drained queue' },
  )
  expect(queue.ledger.imbalance).toBe(0)
  expect(queue.bytes).toBe(0)
  return { numbers: collector.payloads().map(text => Number(text.slice(0, text.indexOf(':')))), core }
}

const numbers = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i)

describe('a queue whose store was damaged', () => {
  it('gives out everything again in order when state/ is gone, under its name, and its ledger balances', async () => {
    await using directory = await tempDir()
    await fill(directory.path)
    await rm(join(directory.path, 'store', 'state'), { recursive: true })
    const { numbers: arrived, core } = await drain(directory.path)
    expect(arrived.slice(-1700)).toEqual(numbers(300, COUNT))
    expect(arrived).toEqual([...arrived].sort((a, b) => a - b))
    await core.close()
  })

  it('is emptied, not stuck, when tables of log/ are gone; what is missing is booked as damage', async () => {
    await using directory = await tempDir()
    await fill(directory.path)
    const log = join(directory.path, 'store', 'log')
    for (const file of await readdir(log)) {
      if (!file.endsWith('.log') && !file.endsWith('.ldb')) continue
      const bytes = await readFile(join(log, file))
      // Some of the records' bytes are changed.
      for (let at = 40_000; at < bytes.length; at += 97_001) bytes[at] = (bytes[at] ?? 0) ^ 0xff
      await writeFile(join(log, file), bytes)
    }
    const { numbers: arrived, core } = await drain(directory.path)
    const { ledger } = core.topology.queue('jobs')
    expect(new Set(arrived).size).toBe(arrived.length)
    expect(arrived.length).toBeLessThan(1700)
    const lost = (ledger.dropped.get('damage') ?? 0) + core.store.recovery.lostRecords
    expect(lost).toBeGreaterThanOrEqual(1700 - arrived.length)
    await core.close()
  })
})
