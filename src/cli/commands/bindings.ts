import { Command } from 'commander'
import { type BindingStatus, bindingList } from '../../api/contract.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { printJson, table } from '../print.ts'

/** `sluice bindings` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All bindings but those of MQTT subscriptions and of the default exchange.')
    .addHelpText('after', examples('sluice bindings ls --json'))
    .action(listBindings)
  return dressCommand(new Command('bindings'))
    .description('Bindings of a running gateway: which messages go from an exchange to which queue.')
    .addHelpText('after', examples('sluice bindings', 'sluice bindings ls --json'))
    .addCommand(list, { isDefault: true })
}

async function listBindings(options: GatewayOptions): Promise<void> {
  const bindings = await read(options, '/api/v1/bindings', bindingList)
  if (options.json) return printJson(bindings)
  if (bindings.length === 0) return console.log('there are no bindings but those of subscriptions')
  console.log(
    table(bindings, [
      { title: 'EXCHANGE', text: row => row.source },
      { title: 'TO', text: row => `${row.destination_type} ${row.destination}` },
      { title: 'KEY', text: row => row.routing_key || '-' },
      { title: 'ARGUMENTS', text: argumentsText },
      { title: 'ORIGIN', text: row => row.origin },
    ]),
  )
}

function argumentsText({ arguments: given }: BindingStatus): string {
  if (given === null) return '-'
  return Object.entries(given)
    .map(([name, value]) => `${name}=${value === null ? '*' : value}`)
    .join(' ')
}
