import { expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { tempDir } from '../support/temp-dir.ts'
import { Gateway } from './support/gateway.ts'
import { StoringPublisher, StoringSubscriber } from './support/storing-clients.ts'

/** How many messages are to arrive before each kill. */
const LIVES = [1, 20, 300, 7, 1000, 90, 400, 33]

test('QoS 2 between two sessions that outlive their connections is exactly once, in order, over a gateway that is killed under load [MQTT-4.3.3-10], [MQTT-4.4.0-1]', async () => {
  await using directory = await tempDir()
  await using gateway = await Gateway.start({ directory: directory.path })
  const subscriber = new StoringSubscriber({ clientId: 'subscriber', filter: 'once' })
  const publisher = new StoringPublisher({ clientId: 'publisher', topic: 'once', window: 20 })
  for (const [life, messages] of LIVES.entries()) {
    const isThereAlready = life > 0
    // In some lives the subscriber comes late: what is published meanwhile waits for it, on disk.
    if (life % 3 !== 2) expect(await subscriber.run(gateway.mqttPort)).toBe(isThereAlready)
    expect(await publisher.run(gateway.mqttPort)).toBe(isThereAlready)
    if (life % 3 === 2) {
      const before = publisher.published
      await eventually(() => publisher.published > before + 50, { what: 'messages for a session that is away' })
      expect(await subscriber.run(gateway.mqttPort)).toBe(true)
    }
    const goal = subscriber.received.length + messages
    await eventually(() => subscriber.received.length >= goal, { intervalMs: 1, what: `${goal} messages` })
    await gateway.kill()
    await Promise.all([publisher.disconnect(), subscriber.disconnect()])
    await gateway.start()
  }
  await subscriber.run(gateway.mqttPort)
  await publisher.run(gateway.mqttPort)
  publisher.pause()
  await eventually(() => publisher.unfinished === 0 && subscriber.received.length >= publisher.published, {
    what: 'the rest of the messages',
  })
  expect(subscriber.received).toEqual(Array.from({ length: publisher.published }, (_, n) => n))
  await Promise.all([publisher.disconnect(), subscriber.disconnect()])
})
