import type { Command } from 'commander'
import { purged, queue } from '../api/contract.ts'
import { read } from './api-client.ts'
import type { GatewayOptions } from './options.ts'
import { printable, printJson, shortSize } from './print.ts'

/** Drops all that waits in a queue. What is purged is lost, and a name is soon mistyped: so it is said twice. */
export async function purgeQueue(
  name: string,
  options: GatewayOptions & { yes?: true },
  command: Command,
): Promise<void> {
  const path = `/api/v1/queues/${encodeURIComponent(name)}`
  if (options.yes === undefined) {
    const { depth, bytes } = await read(options, path, queue)
    const messages = `${depth} messages (${shortSize(bytes)})`
    command.error(`${messages} of ${printable(name)} would be lost; nothing was dropped, add --yes to do it`, {
      exitCode: 2,
    })
  }
  const done = await read(options, `${path}/purge`, purged, 'POST')
  if (options.json) printJson(done)
  else console.log(`${done.purged} messages of ${printable(name)} dropped`)
}
