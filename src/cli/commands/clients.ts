import { Command } from 'commander'
import { clientDetail, clientList } from '../../api/contract.ts'
import { act, read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { pairs, printable, printJson, shortCount, table } from '../print.ts'

/** `sluice clients` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All connected clients.')
    .addHelpText('after', examples('sluice clients ls --json'))
    .action(listClients)
  const show = withGateway(dressCommand(new Command('show')))
    .description('One client with its subscriptions.')
    .argument('<id>', 'client id')
    .addHelpText('after', examples('sluice clients show meter-7'))
    .action(showClient)
  const kick = withGateway(dressCommand(new Command('kick')))
    .description('Close the connection of a client. It may connect again.')
    .argument('<id>', 'client id')
    .addHelpText('after', examples('sluice clients kick meter-7'))
    .action(kickClient)
  return dressCommand(new Command('clients'))
    .description('Clients connected to a running gateway.')
    .addHelpText('after', examples('sluice clients', 'sluice clients kick meter-7'))
    .addCommand(list, { isDefault: true })
    .addCommand(show)
    .addCommand(kick)
}

async function listClients(options: GatewayOptions): Promise<void> {
  const clients = await read(options, '/api/v1/clients', clientList)
  if (options.json) return printJson(clients)
  if (clients.length === 0) return console.log('no client is connected')
  console.log(
    table(clients, [
      { title: 'CLIENT', text: row => row.id },
      { title: 'PROTOCOL', text: row => row.protocol },
      { title: 'ADDRESS', text: row => row.address },
      { title: 'SUBS', text: row => shortCount(row.subscriptions), align: 'right' },
      { title: 'QUEUED', text: row => shortCount(row.queued), align: 'right' },
      { title: 'IN', text: row => shortCount(row.received), align: 'right' },
      { title: 'OUT', text: row => shortCount(row.delivered), align: 'right' },
    ]),
  )
}

async function showClient(id: string, options: GatewayOptions): Promise<void> {
  const client = await read(options, `/api/v1/clients/${encodeURIComponent(id)}`, clientDetail)
  if (options.json) return printJson(client)
  console.log(
    pairs([
      ['client', client.id],
      ['protocol', client.protocol],
      ['address', client.address],
      ['connected', client.connected_at],
      ['keep alive', client.keep_alive_s === 0 ? 'off' : `${client.keep_alive_s}s`],
      ['received', String(client.received)],
      ['delivered', `${client.delivered}, ${client.dropped} dropped`],
      ['waiting', `${client.queued} queued, ${client.in_flight} in flight`],
      ...client.filters.map(({ filter, qos }) => ['subscribed', `${filter} at QoS ${qos}`] as const),
    ]),
  )
}

async function kickClient(id: string, options: GatewayOptions): Promise<void> {
  await act(options, `/api/v1/clients/${encodeURIComponent(id)}`, 'DELETE')
  if (options.json) printJson({ kicked: id })
  else console.log(`${printable(id)} is disconnected`)
}
