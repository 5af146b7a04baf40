import type { Command } from 'commander'
import { act } from './api-client.ts'
import type { GatewayOptions } from './options.ts'
import { printable, printJson, shortSize } from './print.ts'

/** Options of a command that loses messages. */
export interface LossOptions extends GatewayOptions {
  readonly yes?: true
}

/** Ends a command that was not told --yes. What is dropped is lost, and a name is soon mistyped: so it is said twice. */
export function refuseLoss(
  command: Command,
  { name, messages, bytes, done }: { name: string; messages: number; bytes: number; done: 'dropped' | 'deleted' },
): never {
  const held = `${messages} messages (${shortSize(bytes)})`
  command.error(`${held} of ${printable(name)} would be lost; nothing was ${done}, add --yes to do it`, { exitCode: 2 })
}

/** Deletes a queue or a stream by its path, and says so. */
export async function deleteWithMessages(options: GatewayOptions, path: string, name: string): Promise<void> {
  await act(options, path, 'DELETE')
  if (options.json) printJson({ deleted: name })
  else console.log(`${printable(name)} is deleted`)
}
