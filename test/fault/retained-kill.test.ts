import { resolve } from 'node:path'
import { connectAsync, type MqttClient } from 'mqtt'
import { expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { type GatewayProcess, startGatewayProcess } from '../support/gateway-process.ts'
import { tempDir } from '../support/temp-dir.ts'

const SOURCES = resolve(import.meta.dirname, '../../src/main.ts')
const TOPICS = 20
const ROUNDS = 5

/** Publishes rising numbers to its topics until the connection is gone, a few at a time, and notes the last that was acknowledged for each. */
async function publishForEver(client: MqttClient, said: number[], acknowledged: number[]): Promise<void> {
  const publish = async (topic: number): Promise<void> => {
    while (client.connected) {
      const value = (said[topic] ?? 0) + 1
      said[topic] = value
      await client.publishAsync(`counter/${topic}`, String(value), { qos: 1, retain: true })
      acknowledged[topic] = value
    }
  }
  await Promise.allSettled(said.map((_, topic) => publish(topic)))
}

async function retained(gateway: GatewayProcess): Promise<Map<string, number>> {
  const found = new Map<string, number>()
  const client = await connectAsync(gateway.mqttUrl, { reconnectPeriod: 0 })
  client.on('message', (topic, payload) => found.set(topic, Number(payload)))
  await client.subscribeAsync('counter/#', { qos: 1 })
  await eventually(() => found.size === TOPICS, { what: 'a retained message of each topic' })
  await client.endAsync()
  return found
}

test('a gateway that is killed again and again keeps every retained message it has acknowledged', async () => {
  await using directory = await tempDir()
  const said = Array.from({ length: TOPICS }, () => 0)
  const acknowledged = Array.from({ length: TOPICS }, () => 0)
  for (let round = 0; round < ROUNDS; round++) {
    await using gateway = await startGatewayProcess({
      command: [process.execPath, SOURCES],
      directory: directory.path,
    })
    if (round > 0) {
      for (const [topic, value] of await retained(gateway)) {
        const number = Number(topic.slice('counter/'.length))
        expect(value).toBeGreaterThanOrEqual(acknowledged[number] ?? 0)
        expect(value).toBeLessThanOrEqual(said[number] ?? 0)
      }
    }
    const client = await connectAsync(gateway.mqttUrl, { reconnectPeriod: 0 })
    client.on('error', () => undefined)
    const before = [...acknowledged]
    const published = publishForEver(client, said, acknowledged)
    await eventually(() => acknowledged.every((value, topic) => value >= (before[topic] ?? 0) + 10), {
      what: 'some acknowledgements for each topic',
    })
    await gateway.kill()
    client.end(true)
    await published
  }
  expect(Math.min(...acknowledged)).toBeGreaterThanOrEqual(ROUNDS * 10)
})
