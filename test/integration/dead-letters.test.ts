import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import pino from 'pino'
import { expect, test } from 'vitest'
import * as contract from '../../src/api/contract.ts'
import { Broker } from '../../src/broker.ts'
import { loadConfig } from '../../src/config/load.ts'
import { eventuallyPasses } from '../support/eventually.ts'
import { runSluice } from '../support/run-sluice.ts'
import { tempDir } from '../support/temp-dir.ts'

const CONFIG = `
queues:
  jobs: { bind: [ "jobs/#" ], ttl: 50ms, dead_letter: jobs.dead }
  again: {}
`

async function startGateway(directory: string) {
  const file = join(directory, 'sluice.yaml')
  await writeFile(file, CONFIG)
  const set = [`data_dir=${directory}/data`, 'listeners.mqtt.port=0', 'http.port=0']
  const broker = await Broker.start(await loadConfig({ file, env: {}, set }), { log: pino({ level: 'silent' }) })
  const [mqtt, http] = [broker.addresses.get('mqtt'), broker.addresses.get('http')]
  if (mqtt === undefined || http === undefined) throw new TypeError('a running gateway has both listeners')
  const url = `http://${http.host}:${http.port}`
  return {
    mqttUrl: `mqtt://${mqtt.host}:${mqtt.port}`,
    request: (path: string, body?: unknown) =>
      fetch(`${url}/api/v1/${path}`, body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }),
    sluice: (...args: readonly string[]) => runSluice(args, { env: { SLUICE_URL: url } }),
    [Symbol.asyncDispose]: () => broker.stop(),
  }
}

test('jobs nobody takes in time are found, shown, sent elsewhere and dropped by an operator, after a restart too', async () => {
  await using directory = await tempDir()
  {
    await using gateway = await startGateway(directory.path)
    const device = await connectAsync(gateway.mqttUrl, { clientId: 'press-7', reconnectPeriod: 0 })
    for (const n of [1, 2, 3]) await device.publishAsync(`jobs/${n}`, `job ${n}`, { qos: 1 })
    await device.endAsync()
    await eventuallyPasses(async () => {
      const list = contract.deadLetterList.parse(await (await gateway.request('dead-letters')).json())
      expect(list).toMatchObject([{ queue: 'jobs.dead', sources: ['jobs'], depth: 3 }])
    })
  }
  await using gateway = await startGateway(directory.path)
  const list = await gateway.sluice('dead')
  expect(list.stdout).toMatch(/^QUEUE +LETTERS +BYTES +OLDEST +FROM\njobs\.dead +3 .* jobs\n$/)
  const shown = await gateway.sluice('dead', 'show', 'jobs.dead')
  expect(shown.stdout.split('\n')[1]).toMatch(/^ +0 +20\d\d-\S+ +expired +1 +jobs +jobs\/1 +- +job 1$/)
  for (const line of shown.stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(80)
  const letters = contract.peekedList.parse(await (await gateway.request('queues/jobs.dead/messages')).json())
  expect(letters[1]).toMatchObject({
    exchange: '',
    routing_key: 'jobs.dead',
    moved_at: expect.any(String),
    history: [{ event: 'expired', queue: 'jobs', exchange: 'mqtt', routing_key: 'jobs/2', count: 1 }],
  })
  const [first, second] = letters.map(({ id }) => id)

  expect(await gateway.sluice('dead', 'replay', 'jobs.dead', '--all', '--dry-run')).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('3 messages of jobs.dead would be replayed\n  1 to mqtt:jobs/1\n'),
  })
  const one = await gateway.sluice('dead', 'replay', 'jobs.dead', '--id', second ?? '', '--to', ':again')
  expect(one.stdout).toBe('1 messages of jobs.dead replayed\n  1 to :again\n')
  const again = contract.peekedList.parse(await (await gateway.request('queues/again/messages')).json())
  expect(again).toMatchObject([
    { id: second, payload: 'job 2', history: [{ event: 'replayed' }, { event: 'expired' }] },
  ])
  const json = await gateway.sluice('dead', 'replay', 'jobs.dead', '--positions', '0', '--to', ':again', '--json')
  expect(JSON.parse(json.stdout)).toMatchObject({ replayed: 1, held: false, destinations: { ':again': 1 } })
  const last = contract.peekedList.parse(await (await gateway.request('queues/again/messages')).json())
  expect(last.map(({ id }) => id)).toEqual([second, first])

  expect(await gateway.sluice('dead', 'replay', 'jobs.dead', '--all', '--to', 'missing:key')).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('where they would go a queue is full or missing'),
  })
  expect(await gateway.sluice('dead', 'replay', 'jobs.dead')).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('say which: --id, --positions, --since, --until, or else --all'),
  })
  expect((await gateway.sluice('dead', 'purge', 'jobs.dead')).status).toBe(2)
  expect((await gateway.sluice('dead', 'purge', 'jobs.dead', '--yes')).stdout).toBe('1 messages of jobs.dead dropped\n')
})

test.each<[unknown, string]>([
  [{ since: 'yesterday' }, 'since: '],
  [{ positions: { from: -1, to: 2 } }, 'positions.from: '],
  [{ cursor: '1:2; DROP' }, 'cursor: '],
  [{ limit: 1_000_000 }, 'limit: '],
  [{ to: { exchange: 'mqtt', routing_key: 'a/#' } }, 'wildcards'],
  [{ too: 1 }, 'too'],
])('a replay that cannot be meant is refused: %j', async (body, reason) => {
  await using directory = await tempDir()
  await using gateway = await startGateway(directory.path)
  const response = await gateway.request('dead-letters/jobs.dead/replay', body)
  expect(response.status).toBe(400)
  expect(await response.text()).toContain(reason)
})
