import type { Command } from 'commander'
import { purged, queue } from '../api/contract.ts'
import { read } from './api-client.ts'
import { type LossOptions, refuseLoss } from './loss.ts'
import { printable, printJson } from './print.ts'

/** Drops all that waits in a queue. */
export async function purgeQueue(name: string, options: LossOptions, command: Command): Promise<void> {
  const path = `/api/v1/queues/${encodeURIComponent(name)}`
  if (options.yes === undefined) {
    const { depth: messages, bytes } = await read(options, path, queue)
    refuseLoss(command, { name, messages, bytes, done: 'dropped' })
  }
  const done = await read(options, `${path}/purge`, purged, 'POST')
  if (options.json) printJson(done)
  else console.log(`${done.purged} messages of ${printable(name)} dropped`)
}
