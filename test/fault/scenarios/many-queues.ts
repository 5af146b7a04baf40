import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { median } from '../../../scripts/bench/measure.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { Gateway } from '../support/gateway.ts'
import { LoadClient } from '../support/load-client.ts'
import { type Residence, residence } from '../support/memory.ts'
import { startUp } from '../support/start-up.ts'

/** What a gateway with messages on disk costs. */
export interface Cost {
  /** From the start of the process to the first CONNACK; median. */
  readonly startUpMs: number
  /** Resident after that, when every queue has been asked for; median. */
  readonly memory: Residence
  /** Of both databases. */
  readonly diskBytes: number
}

const MESSAGES_EACH = 10
const CONNECTED_AT_ONCE = 10

/** Ten messages of each publisher in a durable queue each, and all in a single one; measured at so many starts. */
export async function manyQueues(
  publishers: number,
  starts: number,
): Promise<{ readonly many: Cost; readonly one: Cost }> {
  const own = Array.from({ length: publishers }, (_, n) => [`queue-${n}`, { bind: [`sensors/load-${n}/#`] }] as const)
  return {
    many: await costOf(Object.fromEntries(own), publishers, starts),
    one: await costOf({ all: { bind: ['sensors/#'] } }, publishers, starts),
  }
}

async function costOf(queues: Readonly<Record<string, unknown>>, publishers: number, starts: number): Promise<Cost> {
  await using directory = await tempDir()
  await using gateway = await Gateway.start({ directory: directory.path, config: { queues } })
  for (let n = 0; n < publishers; n += CONNECTED_AT_ONCE) {
    const some = Array.from({ length: Math.min(CONNECTED_AT_ONCE, publishers - n) }, (_, i) => `load-${n + i}`)
    await Promise.all(some.map(id => publish(gateway, id)))
  }
  const times: number[] = []
  const memory: Residence[] = []
  for (let n = 0; n < starts; n++) {
    await gateway.stop()
    times.push(await startUp(gateway))
    const found = await gateway.queues()
    const depth = found.reduce((sum, queue) => sum + queue.depth, 0)
    if (depth !== publishers * MESSAGES_EACH) throw new Error(`${depth} messages are there`)
    memory.push(await residence(gateway.pid))
  }
  await gateway.stop()
  return {
    startUpMs: median(times),
    memory: {
      anonymous: median(memory.map(({ anonymous }) => anonymous)),
      total: median(memory.map(({ total }) => total)),
    },
    diskBytes:
      (await bytesIn(join(gateway.dataDirectory, 'store/log'))) +
      (await bytesIn(join(gateway.dataDirectory, 'store/state'))),
  }
}

async function publish(gateway: Gateway, id: string): Promise<void> {
  const client = await LoadClient.connect({ id, port: gateway.mqttPort })
  await client.publish(MESSAGES_EACH)
  await client.close()
}

/** Of the files in a directory and below. */
async function bytesIn(directory: string): Promise<number> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true })
  const files = entries.filter(entry => entry.isFile())
  const sizes = await Promise.all(files.map(async ({ parentPath, name }) => (await stat(join(parentPath, name))).size))
  return sizes.reduce((sum, size) => sum + size, 0)
}
