import { resolve } from 'node:path'
import { connect, connectAsync, type IConnackPacket, type MqttClient } from 'mqtt'
import { expect, test } from 'vitest'
import { eventually } from '../support/eventually.ts'
import { type GatewayProcess, startGatewayProcess } from '../support/gateway-process.ts'
import { tempDir } from '../support/temp-dir.ts'

const SOURCES = resolve(import.meta.dirname, '../../src/main.ts')
const ROUNDS = 4
const PUBLISHERS = 10
const ACKNOWLEDGED_A_ROUND = 500

/** The client whose session is to survive: what it is sent is noted, and whether CONNACK said that the session was there. */
async function subscriber(
  gateway: GatewayProcess,
  heard: Set<string>,
): Promise<{ client: MqttClient; isPresent: boolean }> {
  const client = connect(gateway.mqttUrl, { clientId: 'durable', clean: false, reconnectPeriod: 0, resubscribe: false })
  client.on('error', () => undefined)
  client.on('message', (_, payload) => heard.add(payload.toString()))
  const { sessionPresent } = await new Promise<IConnackPacket>(resolve => client.once('connect', resolve))
  return { client, isPresent: sessionPresent }
}

/** Publishes rising numbers until the connection is gone, and notes those that were acknowledged. */
async function publishForEver(client: MqttClient, name: string, acknowledged: Set<string>): Promise<void> {
  for (let n = 0; client.connected; n++) {
    await client.publishAsync('numbers', `${name}/${n}`, { qos: 1 })
    acknowledged.add(`${name}/${n}`)
  }
}

test('a session of a gateway that is killed again and again gets every message that was acknowledged, whether its client was connected or away', async () => {
  await using directory = await tempDir()
  const acknowledged = new Set<string>()
  const heard = new Set<string>()
  for (let round = 0; round <= ROUNDS; round++) {
    await using gateway = await startGatewayProcess({ command: [process.execPath, SOURCES], directory: directory.path })
    const { client, isPresent } = await subscriber(gateway, heard)
    expect(isPresent).toBe(round > 0)
    if (round === 0) await client.subscribeAsync('numbers', { qos: 1 })
    await eventually(() => [...acknowledged].every(value => heard.has(value)), {
      what: 'everything acknowledged so far',
    })
    if (round === ROUNDS) {
      await client.endAsync()
      return
    }
    // Every other time the client is away when the gateway is killed.
    if (round % 2 === 1) await client.endAsync()
    const before = acknowledged.size
    const publishers = await Promise.all(
      Array.from({ length: PUBLISHERS }, () => connectAsync(gateway.mqttUrl, { reconnectPeriod: 0 })),
    )
    for (const publisher of publishers) publisher.on('error', () => undefined)
    const published = Promise.allSettled(
      publishers.map((publisher, n) => publishForEver(publisher, `${round}/${n}`, acknowledged)),
    )
    await eventually(() => acknowledged.size >= before + ACKNOWLEDGED_A_ROUND, { what: 'some acknowledgements' })
    await gateway.kill()
    for (const publisher of publishers) publisher.end(true)
    client.end(true)
    await published
  }
})
