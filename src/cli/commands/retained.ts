import { Command } from 'commander'
import { MESSAGES_MAX, messageList, retainedCleared } from '../../api/contract.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, wholeNumber, withGateway } from '../options.ts'
import { clip, printable, printJson, shortSize, table } from '../print.ts'

const LIMIT_DEFAULT = 20
const LIMIT_MAX = 1_000_000_000
/** Longer payloads are for --json. */
const SHOWN_PAYLOAD = 60

/** `sluice retained` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('Retained messages, in the order of their topics. With --json one document per line.')
    .argument('[filter]', 'topic filter', '#')
    .option('--limit <count>', 'how many at most', wholeNumber({ min: 1, max: LIMIT_MAX }), LIMIT_DEFAULT)
    .addHelpText('after', examples('sluice retained ls', "sluice retained ls 'sensors/+/state' --limit 1000 --json"))
    .action(listRetained)
  const clear = withGateway(dressCommand(new Command('clear')))
    .description('Forget the retained messages of all topics that match, for good. Nobody who has subscribed is told.')
    .argument('<filter>', 'topic, or topic filter')
    .option('--yes', 'do it; without it nothing is forgotten')
    .addHelpText('after', examples("sluice retained clear 'sensors/7/#' --yes"))
    .action(clearRetained)
  return dressCommand(new Command('retained'))
    .description('Retained messages of a running gateway: the last one of each topic.')
    .addHelpText('after', examples('sluice retained', "sluice retained clear 'sensors/7/#' --yes"))
    .addCommand(list, { isDefault: true })
    .addCommand(clear)
}

async function listRetained(filter: string, options: GatewayOptions & { limit: number }): Promise<void> {
  let left = options.limit
  let after = ''
  while (left > 0) {
    const query = new URLSearchParams({ filter, after, limit: String(Math.min(left, MESSAGES_MAX)) })
    const messages = await read(options, `/api/v1/retained?${query}`, messageList)
    const last = messages.at(-1)
    if (last === undefined) {
      if (after === '' && !options.json) console.log('no topic that matches has a retained message')
      return
    }
    if (options.json) {
      for (const message of messages) console.log(JSON.stringify(message))
    } else {
      console.log(
        table(messages, [
          { title: 'TOPIC', text: row => row.routing_key },
          { title: 'QOS', text: row => String(row.qos), align: 'right' },
          { title: 'BYTES', text: row => shortSize(row.payload_bytes), align: 'right' },
          { title: 'SINCE', text: row => `${row.accepted_at.slice(0, 19)}Z` },
          { title: 'PAYLOAD', text: ({ encoding, payload }) => shown(encoding, payload) },
        ]),
      )
    }
    left -= messages.length
    after = last.routing_key
  }
}

const shown = (encoding: string, payload: string): string =>
  clip(encoding === 'utf8' ? payload : `base64 ${payload}`, SHOWN_PAYLOAD)

async function clearRetained(
  filter: string,
  options: GatewayOptions & { yes?: true },
  command: Command,
): Promise<void> {
  const path = `/api/v1/retained?${new URLSearchParams({ filter })}`
  if (options.yes === undefined) {
    const { cleared } = await read(options, `${path}&dry_run`, retainedCleared, 'DELETE')
    command.error(`${cleared} retained messages would be forgotten; nothing was, add --yes to do it`, { exitCode: 2 })
  }
  const done = await read(options, path, retainedCleared, 'DELETE')
  if (options.json) printJson(done)
  else console.log(`${done.cleared} retained messages of ${printable(filter)} forgotten`)
}
