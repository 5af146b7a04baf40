import { writeFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { connectAsync } from 'mqtt'
import { expect, test } from 'vitest'
import { findFaketime } from '../../scripts/peers.ts'
import { overview, peekedList, queue } from '../../src/api/contract.ts'
import { eventually } from '../support/eventually.ts'
import { startGatewayProcess } from '../support/gateway-process.ts'
import { tempDir } from '../support/temp-dir.ts'

const COMMAND = [process.execPath, resolve(import.meta.dirname, '../../src/main.ts')]
/** What is over the limit of `quick` shows that ages have been looked at since. */
const CONFIG = `
queues:
  kept: { bind: [ "kept" ], limits: { age: 1h } }
  quick: { bind: [ "quick" ], limits: { age: 1s } }
`
const YEAR_MS = 365.25 * 86_400_000

test('a real wall clock that jumps by fifty years, running or switched off, expires nothing and disconnects nobody', {
  timeout: 90_000,
}, async () => {
  await using directory = await tempDir()
  const library = await findFaketime()
  const turned = join(directory.path, 'time')
  const environment = {
    ...process.env,
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: turned,
    FAKETIME_CACHE_DURATION: '1',
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  }
  const start = (trust: string) =>
    startGatewayProcess({
      command: COMMAND,
      directory: directory.path,
      config: `${CONFIG}\nclock: { trust: ${trust} }`,
      environment,
    })
  const read = async (url: string): Promise<unknown> => (await fetch(url)).json()
  const expired = async (url: string) => queue.parse(await read(`${url}/api/v1/queues/quick`)).ledger.expired
  const kept = async (url: string) => peekedList.parse(await read(`${url}/api/v1/queues/kept/messages`))
  /** As the gateway's process sees it. */
  const clockOf = async (url: string) => Date.parse((await fetch(url)).headers.get('date') ?? '')

  await writeFile(turned, '+0')
  const acceptedAt = Date.now()
  {
    await using gateway = await start('always')
    const url = gateway.httpUrl
    const client = await connectAsync(gateway.mqttUrl, { keepalive: 2, reconnectPeriod: 0 })
    await client.publishAsync('kept', 'x', { qos: 1 })
    await writeFile(turned, '+50y')
    await eventually(async () => (await clockOf(url)) > acceptedAt + 40 * YEAR_MS, { what: 'the jump' })
    await client.publishAsync('quick', 'x', { qos: 1 })
    await eventually(async () => (await expired(url)) === 1, { what: 'a look at ages', deadlineMs: 15_000 })
    expect(client.connected).toBe(true)
    const [message] = await kept(url)
    expect(Math.abs(Date.parse(message?.accepted_at ?? '') - acceptedAt)).toBeLessThan(60_000)
    expect(message?.clock).toBe('synced')
    expect(message?.age_ms).toBeLessThan(60_000)
    await client.endAsync()
  }
  await writeFile(turned, '-30y')
  await using gateway = await start('never')
  const url = gateway.httpUrl
  expect(overview.parse(await read(`${url}/api/v1/overview`)).gateway.clock).toBe('unknown')
  const client = await connectAsync(gateway.mqttUrl)
  await client.publishAsync('quick', 'x', { qos: 1 })
  await client.endAsync()
  await eventually(async () => (await expired(url)) === 2, { what: 'a look at ages', deadlineMs: 15_000 })
  const [message] = await kept(url)
  expect(Math.abs(Date.parse(message?.accepted_at ?? '') - acceptedAt)).toBeLessThan(60_000)
  expect(message?.clock).toBe('synced')
  expect(message?.age_ms).toBeLessThan(60_000)
})
