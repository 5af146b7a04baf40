import { Command } from 'commander'
import { queue, queueList } from '../../api/contract.ts'
import { formatDuration } from '../../model/quantity.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { pairs, printJson, shortCount, shortDuration, shortSize, table } from '../print.ts'

/** `sluice queues` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All durable queues with depth, bytes, oldest message.')
    .addHelpText('after', examples('sluice queues ls --json'))
    .action(listQueues)
  const show = withGateway(dressCommand(new Command('show')))
    .description('One queue with its limits and its ledger.')
    .argument('<name>', 'name of the queue')
    .addHelpText('after', examples('sluice queues show telemetry'))
    .action(showQueue)
  return dressCommand(new Command('queues'))
    .description('Durable queues of a running gateway; each route keeps its backlog in one.')
    .addHelpText('after', examples('sluice queues', 'sluice queues show telemetry'))
    .addCommand(list, { isDefault: true })
    .addCommand(show)
}

async function listQueues(options: GatewayOptions): Promise<void> {
  const queues = await read(options, '/api/v1/queues', queueList)
  if (options.json) return printJson(queues)
  if (queues.length === 0) return console.log('there are no queues')
  console.log(
    table(queues, [
      { title: 'QUEUE', text: row => row.name },
      { title: 'DEPTH', text: row => shortCount(row.depth), align: 'right' },
      { title: 'IN FLIGHT', text: row => shortCount(row.in_flight), align: 'right' },
      { title: 'BYTES', text: row => shortSize(row.bytes), align: 'right' },
      {
        title: 'OLDEST',
        text: row => (row.oldest_age_ms === null ? '-' : shortDuration(row.oldest_age_ms)),
        align: 'right',
      },
      { title: 'SETTLED', text: row => shortCount(row.ledger.settled), align: 'right' },
      { title: 'DROPPED', text: row => shortCount(sum(row.ledger.dropped)), align: 'right' },
    ]),
  )
}

async function showQueue(name: string, options: GatewayOptions): Promise<void> {
  const found = await read(options, `/api/v1/queues/${encodeURIComponent(name)}`, queue)
  if (options.json) return printJson(found)
  const { limits, ledger } = found
  console.log(
    pairs([
      ['queue', found.name],
      ['origin', found.origin],
      ['depth', `${found.depth} messages, ${shortSize(found.bytes)}, ${found.in_flight} in flight`],
      ['oldest', found.oldest_age_ms === null ? '-' : shortDuration(found.oldest_age_ms)],
      [
        'limits',
        `${limits.messages} messages, ${shortSize(limits.bytes)}, age ${formatDuration(limits.age_ms)}, when full ${limits.on_full}`,
      ],
      ['accepted', String(ledger.accepted)],
      ['settled', String(ledger.settled)],
      ['dropped', reasons(ledger.dropped)],
      ['expired', String(ledger.expired)],
      ['dead letters', reasons(ledger.dead_lettered)],
    ]),
  )
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0)
}

function reasons(counts: Readonly<Record<string, number>>): string {
  const listed = Object.entries(counts).map(([reason, count]) => `${count} ${reason}`)
  return listed.length === 0 ? '0' : listed.join(', ')
}
