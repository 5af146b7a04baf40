import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { connectAsync } from 'mqtt'
import { expect, test } from 'vitest'
import { arm64Runner } from '../../scripts/arm64.ts'
import { freePort } from '../../scripts/free-port.ts'
import { BUILD_COMMIT, BUILD_DEADLINE_MS, placeExecutable } from '../support/executable.ts'
import { startGatewayProcess } from '../support/gateway-process.ts'
import { tempDir } from '../support/temp-dir.ts'

const MESSAGES = 50
const run = promisify(execFile)

test(
  'the arm64 executable takes messages, writes them to LevelDB and still has them after a restart',
  async () => {
    await using place = await tempDir()
    const command = [...(await arm64Runner()), await placeExecutable(place.path, 'arm64')]
    const [program = '', ...args] = command
    const { stdout: version } = await run(program, [...args, '--version'])
    expect(version).toContain(`commit ${BUILD_COMMIT}`)
    expect(version).toContain('linux-arm64, executable')

    await using directory = await tempDir()
    const config = [
      `upstreams: { central: { urls: [ "amqp://127.0.0.1:${await freePort()}" ] } }`,
      'routes: { all: { from: [ "sensors/#" ], upstream: central, exchange: { name: all } } }',
    ].join('\n')
    for (const round of [1, 2]) {
      await using gateway = await startGatewayProcess({ command, directory: directory.path, config })
      const client = await connectAsync(gateway.mqttUrl)
      const payloads = Array.from({ length: MESSAGES }, (_, index) => `${round}-${index}`)
      await Promise.all(payloads.map(payload => client.publishAsync('sensors/a/b', payload, { qos: 1 })))
      await client.endAsync()
      // The first round is ended by SIGKILL: what counts is what it had acknowledged.
      if (round === 1) await gateway.kill()
      else expect(await outboxDepth(gateway.httpUrl)).toBe(2 * MESSAGES)
    }
  },
  BUILD_DEADLINE_MS,
)

async function outboxDepth(httpUrl: string): Promise<unknown> {
  const answer = await fetch(`${httpUrl}/api/v1/queues`)
  const queues: unknown = await answer.json()
  return Array.isArray(queues) ? queues[0]?.depth : undefined
}
