import { randomBytes } from 'node:crypto'
import { createRun } from '../../../src/core/run.ts'
import { MQTT_EXCHANGE, recordPrefix } from '../../../src/model/message.ts'
import { messageTo } from '../../support/messages.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const KEY = 'sensors/1/load'
const PAYLOAD_BYTES = 256
/** Messages of one commit, so many as 10 publishers with window 20 have in flight. */
const COMMIT_MESSAGES = 200

/** Messages of 256 random bytes to `sensors/1/load` in a durable queue of that name; `directory` is what a gateway has as its data directory. */
export async function fillQueue(
  directory: string,
  { name, messages }: { name: string; messages: number },
): Promise<void> {
  await using core = await CoreUnderTest.open(directory)
  const queue = await core.queue(name, 'sensors/#')
  const run = createRun(0, recordPrefix(messageTo(KEY, '')))
  run.qos = 1
  run.count = COMMIT_MESSAGES
  run.bytes = randomBytes(COMMIT_MESSAGES * PAYLOAD_BYTES)
  for (let i = 0; i < COMMIT_MESSAGES; i++) {
    run.properties[i] = i * PAYLOAD_BYTES
    run.payloads[i] = i * PAYLOAD_BYTES
    run.ends[i] = (i + 1) * PAYLOAD_BYTES
  }
  const handle = core.router.register({
    ticketsSafe: () => undefined,
    ticketRefused: () => undefined,
    resume: () => undefined,
  })
  while (queue.depth < messages) {
    core.router.publishRun(handle, core.router.route(MQTT_EXCHANGE, KEY), run)
    await core.schedule.flush()
  }
}
