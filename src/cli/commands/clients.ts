import { Command } from 'commander'
import {
  type ClientDetail,
  clientDetail,
  clientList,
  type SessionDetail,
  type SessionSummary,
  sessionDetail,
  sessionList,
} from '../../api/contract.ts'
import { act, read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { pairs, printable, printJson, shortCount, shortDuration, shortSize, table } from '../print.ts'

/** `sluice clients` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All connected clients, and the sessions of those that are away.')
    .option('--away', 'only the sessions whose client is away')
    .addHelpText('after', examples('sluice clients ls --json', 'sluice clients ls --away --json'))
    .action(listClients)
  const show = withGateway(dressCommand(new Command('show')))
    .description('One client, connected or away, with its subscriptions.')
    .argument('<id>', 'client id')
    .addHelpText('after', examples('sluice clients show meter-7'))
    .action(showClient)
  const kick = withGateway(dressCommand(new Command('kick')))
    .description('Close the connection of a client. It may connect again.')
    .argument('<id>', 'client id')
    .option('--end', 'end its session too, connected or away: its subscriptions and all that waits for it go')
    .addHelpText('after', examples('sluice clients kick meter-7', 'sluice clients kick meter-7 --end'))
    .action(kickClient)
  return dressCommand(new Command('clients'))
    .description('Clients of a running gateway and their sessions.')
    .addHelpText('after', examples('sluice clients', 'sluice clients kick meter-7'))
    .addCommand(list, { isDefault: true })
    .addCommand(show)
    .addCommand(kick)
}

async function listClients(options: GatewayOptions & { away?: true }): Promise<void> {
  const sessions = await read(options, '/api/v1/sessions', sessionList)
  const away = sessions.filter(({ connected }) => !connected)
  if (options.away) {
    if (options.json) printJson(away)
    else console.log(away.length === 0 ? 'no client is away' : awayTable(away))
    return
  }
  const clients = await read(options, '/api/v1/clients', clientList)
  if (options.json) return printJson(clients)
  if (clients.length === 0) console.log('no client is connected')
  else
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
  if (away.length > 0) console.log(`\n${awayTable(away)}`)
}

function awayTable(sessions: readonly SessionSummary[]): string {
  return table(sessions, [
    { title: 'AWAY', text: row => row.id },
    { title: 'ENDS IN', text: row => duration(row.ends_in_ms) },
    { title: 'SUBS', text: row => shortCount(row.subscriptions), align: 'right' },
    { title: 'QUEUED', text: row => shortCount(row.queued), align: 'right' },
    { title: 'BYTES', text: row => shortSize(row.bytes), align: 'right' },
    { title: 'OUT', text: row => shortCount(row.delivered), align: 'right' },
  ])
}

const duration = (ms: number | null): string => (ms === null ? 'never' : shortDuration(ms))

async function showClient(id: string, options: GatewayOptions): Promise<void> {
  const session = await read(options, `/api/v1/sessions/${encodeURIComponent(id)}`, sessionDetail)
  if (!session.connected) {
    if (options.json) printJson(session)
    else
      console.log(pairs([...sessionPairs(session), ['ends in', duration(session.ends_in_ms)], ...subscribed(session)]))
    return
  }
  const client = await read(options, `/api/v1/clients/${encodeURIComponent(id)}`, clientDetail)
  if (options.json) return printJson(client)
  console.log(
    pairs([
      ...sessionPairs(session),
      ['protocol', client.protocol],
      ['address', client.address],
      ['connected', client.connected_at],
      ['keep alive', client.keep_alive_s === 0 ? 'off' : `${client.keep_alive_s}s`],
      ['received', String(client.received)],
      ...subscribed(client),
    ]),
  )
}

function sessionPairs(session: SessionDetail): [string, string][] {
  const { session_expiry_ms: expiryMs, durable } = session
  const lasts = expiryMs === 0 ? 'as long as its connection' : `${duration(expiryMs)} beyond its connection`
  return [
    ['client', session.id],
    ['session', `lasts ${lasts}${durable ? ', durable' : ''}`],
    ['delivered', `${session.delivered}, ${session.dropped} dropped`],
    ['waiting', `${session.queued} queued, ${session.in_flight} in flight, ${shortSize(session.bytes)}`],
  ]
}

function subscribed({ filters }: SessionDetail | ClientDetail): [string, string][] {
  return filters.map(({ filter, qos, no_local, retain_as_published, identifier }) => {
    const options = [
      ...(no_local ? ['no local'] : []),
      ...(retain_as_published ? ['retain as published'] : []),
      ...(identifier === null ? [] : [`identifier ${identifier}`]),
    ]
    return ['subscribed', [`${filter} at QoS ${qos}`, ...options].join(', ')]
  })
}

async function kickClient(id: string, options: GatewayOptions & { end?: true }): Promise<void> {
  await act(options, `/api/v1/${options.end ? 'sessions' : 'clients'}/${encodeURIComponent(id)}`, 'DELETE')
  if (options.json) printJson({ kicked: id })
  else console.log(options.end ? `the session of ${printable(id)} has ended` : `${printable(id)} is disconnected`)
}
