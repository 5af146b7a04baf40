import { connect } from 'amqplib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { LedgerSnapshot } from '../../firmware-sim/ledger.ts'
import { startVerifier, type VerifierOptions } from '../../firmware-sim/verifier.ts'
import { type RabbitPeer, startRabbit } from '../../scripts/peers.ts'
import { TcpProxy } from '../../scripts/tcp-proxy.ts'
import { eventually } from '../support/eventually.ts'
import { type TempDir, tempDir } from '../support/temp-dir.ts'

const BOOT_MS = 90_000

let directory: TempDir
let rabbit: RabbitPeer

beforeAll(async () => {
  directory = await tempDir()
  rabbit = await startRabbit({ directory: directory.path })
}, BOOT_MS)

afterAll(async () => {
  await rabbit?.stop()
  await directory.remove()
}, BOOT_MS)

interface Sent {
  readonly id: number
  readonly seq: number
  readonly headers?: Readonly<Record<string, unknown>>
}

/** Publishes as a gateway does: mandatory, persistent, with confirms; returns how many came back as unroutable. */
async function publishAsGateway(exchange: string, messages: readonly Sent[]): Promise<number> {
  const model = await connect(rabbit.url)
  const channel = await model.createConfirmChannel()
  let returned = 0
  channel.on('return', () => returned++)
  for (const { id, seq, headers = {} } of messages) {
    const payload = Buffer.from(JSON.stringify({ device: 'meter-001', seq, at: 0, watts: 1 }))
    channel.publish(exchange, 'sensors.meter-001.energy', payload, {
      persistent: true,
      mandatory: true,
      messageId: `gw-1/abcdefghij/${id}`,
      headers: { 'x-mqtt-topic': 'sensors/meter-001/energy', 'x-mqtt-client-id': 'meter-001', ...headers },
    })
  }
  await channel.waitForConfirms()
  await model.close()
  return returned
}

function optionsFor(name: string, url = rabbit.url): VerifierOptions {
  return { url, queue: { name }, exchange: { name, type: 'topic' } }
}

function ledgerUpTo(last: number): LedgerSnapshot[] {
  const topic = 'sensors/meter-001/energy'
  return [{ device: 'meter-001', topic, qos: 1, acknowledged: [[1, last]], unacknowledged: [] }]
}

const numbered = (from: number, to: number): Sent[] =>
  Array.from({ length: to - from + 1 }, (_, i) => ({ id: from + i, seq: from + i }))

test('nothing published after startVerifier is unroutable, and all of it is accounted for', async () => {
  const verifier = await startVerifier(optionsFor('account'))
  const replayed = { id: 103, seq: 103, headers: { 'x-sluice-replay': true } }
  const resent = { id: 104, seq: 5, headers: { 'x-mqtt-dup': true } }
  const repeated = { id: 7, seq: 7 }
  const retried = { id: 102, seq: 102, headers: { 'x-sluice-attempts': 2 } }
  const messages = [...numbered(1, 101), replayed, resent, repeated, retried]
  expect(await publishAsGateway('account', messages)).toBe(0)
  expect(await verifier.complete(ledgerUpTo(103), 10_000)).toBe(true)
  expect(verifier.verify(ledgerUpTo(103))).toMatchObject({
    deliveries: 105,
    received: 103,
    acknowledged: 103,
    lost: 0,
    repeatedIds: 1,
    resentByDevice: 1,
    replayed: 1,
    retried: 1,
    isFaultless: true,
    gateways: [{ gateway: 'gw-1', epochs: 1, received: 104 }],
  })
  await verifier.stop()
})

test('what was acknowledged and did not arrive is reported as lost when the time is up', async () => {
  const verifier = await startVerifier(optionsFor('loss'))
  await publishAsGateway('loss', [...numbered(1, 3), ...numbered(6, 8)])
  await eventually(() => verifier.received === 6)
  expect(await verifier.complete(ledgerUpTo(8), 100)).toBe(false)
  expect(verifier.missing(ledgerUpTo(8))).toBe(2)
  const report = verifier.verify(ledgerUpTo(8))
  expect(report).toMatchObject({ lost: 2, isFaultless: false })
  expect(report.devices[0]?.lost).toEqual([[4, 5]])
  await verifier.stop()
})

test('deliveries are acknowledged: a stopped verifier leaves an empty queue behind', async () => {
  const verifier = await startVerifier(optionsFor('acknowledged'))
  await publishAsGateway('acknowledged', numbered(1, 2500))
  expect(await verifier.complete(ledgerUpTo(2500), 10_000)).toBe(true)
  const model = await connect(rabbit.url)
  const channel = await model.createChannel()
  // Ready and unacknowledged ones together.
  const messages = async () => (await rabbit.ctl(['list_queues', 'name', 'messages', '--silent'])).split('\n')
  await eventually(async () => (await messages()).includes('acknowledged\t0'), { deadlineMs: 20_000 })
  await verifier.stop()
  expect((await channel.checkQueue('acknowledged')).messageCount).toBe(0)
  await model.close()
}, 40_000)

test('a cut connection is made again; what is delivered twice counts as repeated, not as lost or out of order', async () => {
  await using link = await TcpProxy.start({ port: rabbit.port })
  const verifier = await startVerifier(optionsFor('cut', `amqp://guest:guest@127.0.0.1:${link.port}`))
  for (let round = 0; round < 4; round++) {
    link.cutAfter(20_000 + 7 * round, 'to-client')
    await publishAsGateway('cut', numbered(round * 500 + 1, round * 500 + 500))
    await eventually(() => verifier.reconnects > round)
  }
  expect(await verifier.complete(ledgerUpTo(2000), 10_000)).toBe(true)
  const report = verifier.verify(ledgerUpTo(2000))
  expect(report).toMatchObject({ received: 2000, isFaultless: true })
  expect(report.deliveries).toBe(2000 + report.repeatedIds)
  await verifier.stop()
}, 30_000)

test('a consumer that is cancelled because its queue was deleted declares it anew', async () => {
  const verifier = await startVerifier(optionsFor('deleted'))
  const model = await connect(rabbit.url)
  const channel = await model.createChannel()
  await channel.deleteQueue('deleted')
  await model.close()
  await eventually(() => verifier.reconnects === 1)
  expect(await publishAsGateway('deleted', numbered(1, 10))).toBe(0)
  expect(await verifier.complete(ledgerUpTo(10), 10_000)).toBe(true)
  await verifier.stop()
})

test(
  'an upstream that is killed and restarted has lost nothing it had confirmed',
  async () => {
    const verifier = await startVerifier(optionsFor('killed'))
    await publishAsGateway('killed', numbered(1, 200))
    await rabbit.flushQueueNames()
    await rabbit.kill()
    await rabbit.restart()
    await publishAsGateway('killed', numbered(201, 400))
    expect(await verifier.complete(ledgerUpTo(400), 20_000)).toBe(true)
    expect(verifier.reconnects).toBeGreaterThanOrEqual(1)
    expect(verifier.verify(ledgerUpTo(400))).toMatchObject({ received: 400, isFaultless: true })
    await verifier.stop()
  },
  BOOT_MS,
)

test('stop works while the upstream is down', async () => {
  await using link = await TcpProxy.start({ port: rabbit.port })
  const verifier = await startVerifier(optionsFor('down', `amqp://guest:guest@127.0.0.1:${link.port}`))
  link.refuse()
  await eventually(() => link.accepted > 2)
  await verifier.stop()
  expect(verifier.reconnects).toBe(0)
})
