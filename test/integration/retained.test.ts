import { expect, test } from 'vitest'
import { messageTo } from '../support/messages.ts'
import { tempDir } from '../support/temp-dir.ts'
import { MqttUnderTest, packet, text } from '../support/wire.ts'
import { CoreUnderTest } from '../support/with-core.ts'

const TOPICS = 100_000
const MEBIBYTE = 1024 ** 2

test('100,000 retained messages: found by a filter, sent whole to a slow client within a MiB, there again after a restart', async () => {
  await using directory = await tempDir()
  const core = await CoreUnderTest.open(directory.path)
  for (let n = 0; n < TOPICS; n++) {
    const message = messageTo(`site/${n % 100}/device-${n}/state`, String(n), { qos: 0, retain: true })
    await core.router.publish(message)
  }
  await core.close()

  await using broker = await MqttUnderTest.start({ directory, limits: { outputPerClientBytes: MEBIBYTE / 2 } })
  const { retained, memory } = broker.core
  expect(retained.messages).toBe(TOPICS)
  const walk = retained.walk('site/7/+/state')
  let found = 0
  while (!walk.isDone) if (walk.next(100) !== null) found++
  expect(found).toBe(TOPICS / 100)
  // It went to those below site/7 only.
  expect(walk.visited).toBeLessThan(2 * found + 10)

  const slow = await broker.client()
  slow.says(packet(0x10, text('MQTT'), '04 02 00 00', text('slow')))
  await slow.hears(packet(0x20, '00 00'))
  const before = memory.usedBytes
  slow.socket.pause()
  slow.says(packet(0x82, '00 01', text('#'), '00'))
  const other = await broker.client()
  await other.says(packet(0x10, text('MQTT'), '04 02 00 00', text('other'))).hears(packet(0x20, '00 00'))
  let most = 0
  const watch = setInterval(() => {
    most = Math.max(most, memory.usedBytes - before)
  }, 1)
  for (let n = 0; n < 100; n++) await other.hearsNothing()
  slow.socket.resume()
  await slow.hears(packet(0x90, '00 01', '00'))
  const values = new Set<string>()
  while (values.size < TOPICS) {
    const publish = await slow.hearsPacket()
    expect(publish.readUInt8(0)).toBe(0x31)
    values.add(publish.toString('utf8', publish.lastIndexOf('e') + 1))
  }
  clearInterval(watch)
  expect(most).toBeLessThan(MEBIBYTE)
  await slow.hearsNothing()
})
