import type { GetMessage } from 'amqplib'
import { expect, test } from 'vitest'
import { startRabbit } from '../../scripts/peers.ts'
import { Mapping } from '../../src/bridge/mapping.ts'
import { Identities } from '../../src/core/identity.ts'
import { appendEvent, type DeathHistory, encodeHistory } from '../../src/model/death-history.ts'
import { encodeRecord, movedRecord } from '../../src/model/message.ts'
import { onChannel } from '../support/bridge-kit.ts'
import { eventually } from '../support/eventually.ts'
import { messageTo } from '../support/messages.ts'
import { PLAIN_ROUTE } from '../support/plain-route.ts'
import { tempDir } from '../support/temp-dir.ts'

const BOOT = { boot: 1, epoch: 'abcdefghij', gateway: 'gw', wallOffsetMs: Date.now(), clock: 2 } as const
const identities = new Identities(
  () => BOOT,
  () => undefined,
  { monotonicMs: () => 1000, wallMs: () => Date.now() },
)

/** Headers of a message that expired so often in `work`, after it had been published to `sensors/7/t`. */
function ours(deaths: number): Record<string, unknown> {
  let history: DeathHistory | null = null
  const death = { event: 'expired', queue: 'work', exchange: 'mqtt', key: 'sensors/7/t', words: null } as const
  for (let i = 0; i < deaths; i++) {
    // Once it has died it has no expiry any more.
    const originalExpirationMs = i === 0 ? 10 : null
    history = appendEvent(history, { ...death, originalExpirationMs }, { boot: 1, ms: 500 })
  }
  if (history === null) throw new Error('it has to die')
  const record = encodeRecord(messageTo('sensors/7/t', 'x'), { seq: 1, boot: 1, acceptedAt: 1, clock: 2 })
  const moved = movedRecord(record, 0, {
    exchange: '',
    key: 'dead',
    history: encodeHistory(history),
    properties: Buffer.alloc(0),
  })
  return { ...new Mapping({ route: PLAIN_ROUTE, identities }).publicationOf(moved, 0, 0, 0).headers }
}

/** What tells of deaths, with every time the same. */
function deathsIn(message: GetMessage): unknown {
  const { headers = {} } = message.properties
  const told = Object.entries(headers)
    .filter(([name]) => /^x-(?:first-)?death/.test(name))
    .sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.parse(JSON.stringify(Object.fromEntries(told)).replaceAll(/"value":\d+/g, '"value":"seconds"'))
}

test('x-death and x-first-death-* are what RabbitMQ itself writes, after one death and after two', async () => {
  await using directory = await tempDir()
  await using rabbit = await startRabbit({ directory: directory.path })
  await onChannel(rabbit.url, async channel => {
    const next = (queue: string): Promise<GetMessage> => eventually(() => channel.get(queue, { noAck: true }))
    const deadLetterArguments = { 'x-dead-letter-exchange': '', 'x-dead-letter-routing-key': 'dead' }
    await channel.assertQueue('work', { arguments: { ...deadLetterArguments, 'x-message-ttl': 10 } })
    for (const queue of ['dead', 'ours']) await channel.assertQueue(queue)
    await channel.bindQueue('work', 'amq.topic', '#')
    channel.publish('amq.topic', 'sensors.7.t', Buffer.from('x'), { expiration: '10' })
    for (const deaths of [1, 2]) {
      const theirs = await next('dead')
      channel.sendToQueue('ours', Buffer.from('x'), { headers: ours(deaths) })
      expect(deathsIn(await next('ours'))).toEqual(deathsIn(theirs))
      channel.publish('amq.topic', 'sensors.7.t', Buffer.from('x'), { headers: theirs.properties.headers })
    }
  })
})
