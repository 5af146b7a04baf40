import { Command } from 'commander'
import { routeList } from '../../api/contract.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { printable, printJson, shortCount, shortDuration, shortForecast, table } from '../print.ts'

/** `sluice routes` */
export function command(): Command {
  return withGateway(dressCommand(new Command('routes')))
    .description('What is forwarded where, and how much of it waits.')
    .addHelpText('after', examples('sluice routes', 'sluice routes --json'))
    .action(listRoutes)
}

async function listRoutes(options: GatewayOptions): Promise<void> {
  const routes = await read(options, '/api/v1/routes', routeList)
  if (options.json) return printJson(routes)
  if (routes.length === 0) return console.log('there are no routes: nothing is forwarded')
  console.log(
    table(routes, [
      { title: 'ROUTE', text: row => row.name },
      { title: 'FROM', text: row => row.from.join(' ') },
      { title: 'UPSTREAM', text: row => row.upstream },
      { title: 'EXCHANGE', text: row => row.exchange },
      { title: 'DEPTH', text: row => shortCount(row.depth), align: 'right' },
      {
        title: 'OLDEST',
        text: row => (row.oldest_age_ms === null ? '-' : shortDuration(row.oldest_age_ms)),
        align: 'right',
      },
      { title: 'FORECAST', text: row => shortForecast(row.forecast) },
    ]),
  )
  for (const { name, parked } of routes) if (parked !== null) console.log(`! ${name} is parked: ${printable(parked)}`)
}
