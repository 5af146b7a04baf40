import { Command } from 'commander'
import { exchangeList } from '../../api/contract.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { printJson, table } from '../print.ts'

/** `sluice exchanges` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All exchanges with their type; the one without a name routes by queue name.')
    .addHelpText('after', examples('sluice exchanges ls --json'))
    .action(listExchanges)
  return dressCommand(new Command('exchanges'))
    .description('Exchanges of a running gateway: where messages are published to.')
    .addHelpText('after', examples('sluice exchanges', 'sluice exchanges ls --json'))
    .addCommand(list, { isDefault: true })
}

async function listExchanges(options: GatewayOptions): Promise<void> {
  const exchanges = await read(options, '/api/v1/exchanges', exchangeList)
  if (options.json) return printJson(exchanges)
  console.log(
    table(exchanges, [
      { title: 'EXCHANGE', text: row => row.name || '(default)' },
      { title: 'TYPE', text: row => row.type },
      { title: 'KEPT', text: row => (row.durable ? 'durable' : 'transient') },
      { title: 'INTERNAL', text: row => (row.internal ? 'yes' : '-') },
      { title: 'ALTERNATE', text: row => row.alternate_exchange ?? '-' },
      { title: 'ORIGIN', text: row => row.origin },
    ]),
  )
}
