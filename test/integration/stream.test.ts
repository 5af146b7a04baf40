import { afterAll, beforeAll, expect, test } from 'vitest'
import { queue, streamDetail, streamMessageList, streamReplayed } from '../../src/api/contract.ts'
import { type GatewayProcess, startGatewayProcess } from '../support/gateway-process.ts'
import { runSluice } from '../support/run-sluice.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const SLUICE = `${import.meta.dirname}/../../scripts/sluice`
const CONFIG = `streams: { history: { bind: [ "sensors/#" ], retain: { age: 30d, bytes: 64MiB } } }
queues: { again: {} }`

let directory: TempDir
let gateway: GatewayProcess

const start = () => startGatewayProcess({ command: [SLUICE], directory: directory.path, config: CONFIG })

beforeAll(async () => {
  directory = await tempDir()
  gateway = await start()
})
afterAll(async () => {
  await gateway.stop()
  await directory.remove()
})

const sluice = (...args: readonly string[]) => runSluice(args, { env: { SLUICE_URL: gateway.httpUrl } })
const get = async (path: string): Promise<unknown> => (await fetch(`${gateway.httpUrl}/api/v1/${path}`)).json()

async function publish(count: number): Promise<void> {
  const said = ['-t', 'sensors/1', '-m', '21.5', '-q', '1', '--repeat', String(count), '--url', gateway.mqttUrl]
  expect(await runSluice(['pub', ...said])).toMatchObject({ status: 0, stderr: '' })
}

test('a stream is read over HTTP and by the command line, from any place, also after kill -9', async () => {
  await publish(250)
  await publish(10)
  const before = streamDetail.parse(await get('streams/history'))
  expect(before).toMatchObject({ origin: 'config', first: 0, next: 260, messages: 260, ledger: { queued: 260 } })
  await gateway.kill()
  gateway = await start()
  const after = streamDetail.parse(await get('streams/history'))
  expect(after).toMatchObject({ first: 0, next: 260, messages: 260, ledger: { accepted: 260, queued: 260 } })
  expect(after.oldest_at).not.toBeNull()
  const page = streamMessageList.parse(await get('streams/history/messages?from=255&limit=100'))
  expect(page.map(({ sequence }) => sequence)).toEqual([255, 256, 257, 258, 259])
  const [last] = streamMessageList.parse(await get('streams/history/messages?from=249&limit=1'))
  const between = new Date(Date.parse(last?.accepted_at ?? '') + 1).toISOString()
  const since = streamMessageList.parse(await get(`streams/history/messages?from=${between}&limit=100`))
  expect(since.map(({ sequence }) => sequence)).toEqual([250, 251, 252, 253, 254, 255, 256, 257, 258, 259])
  const read = await sluice('stream', 'read', 'history', '--limit', '230', '--json')
  expect(read.stderr).toBe('')
  const lines = read.stdout.trimEnd().split('\n')
  expect(lines).toHaveLength(230)
  expect(JSON.parse(lines.at(-1) ?? '')).toMatchObject({ sequence: 229, routing_key: 'sensors/1', payload: '21.5' })
})

test('the list and what is read fit 80 columns', async () => {
  for (const args of [['stream'], ['stream', 'read', 'history', '--from', 'last']]) {
    const { status, stdout } = await sluice(...args)
    expect(status).toBe(0)
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(80)
  }
  expect((await sluice('stream')).stdout).toMatch(
    /^STREAM +MESSAGES +BYTES +FIRST +NEXT +SINCE +READERS\nhistory +260 /,
  )
})

test('a replay into a queue is answered when it is durable', async () => {
  const response = await fetch(`${gateway.httpUrl}/api/v1/streams/history/replay`, {
    method: 'POST',
    body: JSON.stringify({ to: { exchange: '', routing_key: 'again' }, from: '200', until: '230' }),
  })
  expect(streamReplayed.parse(await response.json())).toEqual({ replayed: 30, unrouted: 0, next: null, held: false })
  await gateway.kill()
  gateway = await start()
  expect(queue.parse(await get('queues/again')).depth).toBe(30)
})

test('what is not there is said in one line', async () => {
  const missing = await sluice('stream', 'read', 'nothing')
  expect(missing).toMatchObject({ status: 1, stdout: '' })
  expect(missing.stderr).toMatch(/^sluice: there is no stream nothing; .*\n$/)
  expect(await sluice('stream', 'read', 'history', '--from', 'yesterday')).toMatchObject({ status: 2 })
})
