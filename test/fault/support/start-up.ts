import type { Gateway } from './gateway.ts'
import { LoadClient } from './load-client.ts'

/** Starts the gateway; milliseconds until a client has its CONNACK. */
export async function startUp(gateway: Gateway): Promise<number> {
  await gateway.start()
  const client = await LoadClient.connect({ id: 'first', port: gateway.mqttPort })
  const ms = performance.now() - gateway.startedAtMs
  await client.close()
  return ms
}
