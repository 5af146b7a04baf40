import { join, resolve } from 'node:path'
import { connectAsync } from 'mqtt'
import { expect, test } from 'vitest'
import { health, queue } from '../../src/api/contract.ts'
import { decodeLedgerRecord, encodeLedgerRecord } from '../../src/core/ledger-record.ts'
import { startGatewayProcess } from '../support/gateway-process.ts'
import { openStore } from '../support/store-kit.ts'
import { tempDir } from '../support/temp-dir.ts'

const COMMAND = [process.execPath, resolve(import.meta.dirname, '../../src/main.ts')]
const CONFIG = 'queues: { chatty: { bind: [ "#" ], ack: buffered } }\nstore: { buffered_interval: 1m }'

const start = (directory: string) => startGatewayProcess({ command: COMMAND, directory, config: CONFIG })
const read = async (url: string): Promise<unknown> => (await fetch(url)).json()
const readHealth = async (url: string) => health.parse(await read(`${url}/health/ready`))
const readQueue = async (url: string) => queue.parse(await read(`${url}/api/v1/queues/chatty`))

/** Publishes one after the other, each when the one before is acknowledged. */
async function publish(mqttUrl: string, count: number): Promise<void> {
  const client = await connectAsync(mqttUrl)
  for (let n = 0; n < count; n++) await client.publishAsync('a', 'x', { qos: 1 })
  await client.endAsync()
}

test('what a kill costs a queue with ack: buffered is told by the next start, an orderly stop costs nothing', async () => {
  await using directory = await tempDir()
  {
    await using gateway = await start(directory.path)
    await publish(gateway.mqttUrl, 40)
    await gateway.kill()
  }
  {
    await using gateway = await start(directory.path)
    const { depth, lost_at_most } = await readQueue(gateway.httpUrl)
    // The first message told the disk what may be owed; the others were never written.
    expect(depth).toBe(1)
    expect(lost_at_most).toBe(64)
    const { status, reasons } = await readHealth(gateway.httpUrl)
    expect(status).toBe('degraded')
    expect(reasons).toEqual([expect.stringMatching(/^queue chatty: up to 64 messages /)])
    expect(gateway.output()).toContain('"at_most":64')
    await publish(gateway.mqttUrl, 40)
  }
  await using gateway = await start(directory.path)
  expect(await readQueue(gateway.httpUrl)).toMatchObject({ depth: 41, lost_at_most: 0 })
  expect(await readHealth(gateway.httpUrl)).toEqual({ status: 'ok', reasons: [] })
})

test('a ledger that does not balance degrades health and says by how much', async () => {
  await using directory = await tempDir()
  {
    await using gateway = await start(directory.path)
    await publish(gateway.mqttUrl, 5)
  }
  {
    await using store = await openStore(join(directory.path, 'data'))
    const key = Buffer.from('6c00000001', 'hex')
    const record = decodeLedgerRecord((await store.getState(key)) ?? Buffer.alloc(0))
    const value = encodeLedgerRecord({ ...record, figures: { ...record.figures, settled: record.figures.settled + 7 } })
    await store.commit({ segments: [], marks: [], changes: [{ key, value }], acceptedBytes: 0 })
  }
  await using gateway = await start(directory.path)
  const { status, reasons } = await readHealth(gateway.httpUrl)
  expect(status).toBe('degraded')
  expect(reasons).toEqual(['queue chatty: the ledger is off by -7 messages'])
  const metrics = await (await fetch(`${gateway.httpUrl}/metrics`)).text()
  expect(metrics).toContain('sluice_queue_ledger_imbalance_messages{queue="chatty"} -7')
})
