import { Command } from 'commander'
import { MESSAGES_MAX, type PeekedMessage, peekedList, type QueueStatus, queue, queueList } from '../../api/contract.ts'
import { formatDuration } from '../../model/quantity.ts'
import { read } from '../api-client.ts'
import { deleteWithMessages, type LossOptions, refuseLoss } from '../loss.ts'
import { dressCommand, examples, type GatewayOptions, wholeNumber, withGateway } from '../options.ts'
import {
  clip,
  pairs,
  printable,
  printJson,
  shortCount,
  shortDuration,
  shortForecast,
  shortSize,
  table,
} from '../print.ts'
import { purgeQueue } from '../purge.ts'

/** `sluice queues` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All durable queues with depth, bytes, oldest message.')
    .option('--all', 'those of MQTT sessions and of groups that share a subscription, too')
    .addHelpText('after', examples('sluice queues ls --json', 'sluice queues ls --all'))
    .action(listQueues)
  const show = withGateway(dressCommand(new Command('show')))
    .description('One queue with its limits and its ledger.')
    .argument('<name>', 'name of the queue')
    .addHelpText('after', examples('sluice queues show telemetry'))
    .action(showQueue)
  const peek = withGateway(dressCommand(new Command('peek')))
    .description('The oldest messages of a queue. They stay where they are.')
    .argument('<name>', 'name of the queue')
    .option(
      '--limit <count>',
      `how many messages, up to ${MESSAGES_MAX}`,
      wholeNumber({ min: 1, max: MESSAGES_MAX }),
      10,
    )
    .addHelpText('after', examples('sluice queues peek telemetry', 'sluice queues peek telemetry --limit 100 --json'))
    .action(peekQueue)
  const purge = withGateway(dressCommand(new Command('purge')))
    .description('Drop all that waits in a queue, for good. Messages in flight stay.')
    .argument('<name>', 'name of the queue')
    .option('--yes', 'do it; without it nothing is dropped')
    .addHelpText('after', examples('sluice queues purge telemetry --yes'))
    .action(purgeQueue)
  const remove = withGateway(dressCommand(new Command('delete')))
    .description('Delete a queue with its bindings and all that waits in it; not one of the configuration.')
    .argument('<name>', 'name of the queue')
    .option('--yes', 'do it; without it nothing is deleted')
    .addHelpText('after', examples('sluice queues delete jobs --yes'))
    .action(deleteQueue)
  return dressCommand(new Command('queues'))
    .description('Durable queues of a running gateway; each route keeps its backlog in one.')
    .addHelpText('after', examples('sluice queues', 'sluice queues show telemetry', 'sluice queues peek telemetry'))
    .addCommand(list, { isDefault: true })
    .addCommand(show)
    .addCommand(peek)
    .addCommand(purge)
    .addCommand(remove)
}

async function listQueues(options: GatewayOptions & { all?: true }): Promise<void> {
  const queues = await read(options, `/api/v1/queues${options.all ? '?all' : ''}`, queueList)
  if (options.json) return printJson(queues)
  if (queues.length === 0) return console.log('there are no queues')
  console.log(
    table(queues, [
      { title: 'QUEUE', text: row => row.name },
      ...(options.all ? [{ title: 'KIND', text: (row: QueueStatus) => row.kind }] : []),
      { title: 'DEPTH', text: row => shortCount(row.depth), align: 'right' },
      { title: 'IN FLIGHT', text: row => shortCount(row.in_flight), align: 'right' },
      { title: 'BYTES', text: row => shortSize(row.bytes), align: 'right' },
      {
        title: 'OLDEST',
        text: row => (row.oldest_age_ms === null ? '-' : shortDuration(row.oldest_age_ms)),
        align: 'right',
      },
      { title: 'FORECAST', text: row => shortForecast(row.forecast) },
      { title: 'SETTLED', text: row => shortCount(row.ledger.settled), align: 'right' },
      { title: 'DROPPED', text: row => shortCount(sum(row.ledger.dropped)), align: 'right' },
    ]),
  )
}

async function showQueue(name: string, options: GatewayOptions): Promise<void> {
  const found = await read(options, `/api/v1/queues/${encodeURIComponent(name)}`, queue)
  if (options.json) return printJson(found)
  const { limits, ledger, forecast } = found
  console.log(
    pairs([
      ['queue', found.name],
      ['origin', found.origin],
      ['depth', `${found.depth} messages, ${shortSize(found.bytes)}, ${found.in_flight} in flight`],
      [
        'forecast',
        `${shortCount(forecast.in_per_s)}/s in, ${shortCount(forecast.out_per_s)}/s out, ${shortForecast(forecast)}`,
      ],
      ['oldest', found.oldest_age_ms === null ? '-' : shortDuration(found.oldest_age_ms)],
      [
        'limits',
        `${limits.messages} messages, ${shortSize(limits.bytes)}, ${limits.age_ms === null ? 'any age' : `age ${formatDuration(limits.age_ms)}`}, when full ${limits.on_full}`,
      ],
      ['policy', policyText(found)],
      ['dead letters', deadLetterText(found)],
      ['waiting', `${found.waiting} for another attempt${found.parked ? '; parked: no others are delivered' : ''}`],
      ['consumers', String(found.consumers)],
      ['accepted', String(ledger.accepted)],
      ['settled', String(ledger.settled)],
      ['dropped', reasons(ledger.dropped)],
      ['expired', String(ledger.expired)],
      ['dead-lettered', reasons(ledger.dead_lettered)],
    ]),
  )
}

function policyText({ durable, policy }: QueueStatus): string {
  const {
    max_attempts,
    retry,
    ttl_ms,
    max_priority,
    single_active_consumer,
    exclusive,
    expires_ms,
    ack,
    ack_timeout_ms,
  } = policy
  const parts = [
    durable ? 'durable' : 'in memory',
    ack === 'upstream' ? `ack upstream within ${formatDuration(ack_timeout_ms)}` : `ack ${ack}`,
    `${max_attempts ?? 'any number of'} attempts, pauses ${formatDuration(retry.first_ms)} to ${formatDuration(retry.max_ms)}`,
    ...(ttl_ms === null ? [] : [`time to live ${formatDuration(ttl_ms)}`]),
    ...(max_priority === 0 ? [] : [`priorities to ${max_priority}`]),
    ...(single_active_consumer ? ['single active consumer'] : []),
    ...(exclusive ? ['exclusive'] : []),
    ...(expires_ms === null ? [] : [`deleted when unused for ${formatDuration(expires_ms)}`]),
  ]
  return parts.join('; ')
}

/** Where what leaves it unsettled goes. */
function deadLetterText({ dead_letter }: QueueStatus): string {
  if (dead_letter === null) return 'dropped and counted'
  const { exchange, routing_key } = dead_letter
  if (exchange === '') return `to queue ${printable(routing_key ?? '')}`
  return `to exchange ${printable(exchange)}, ${routing_key === null ? 'with the key of each' : `key ${printable(routing_key)}`}`
}

async function deleteQueue(name: string, options: LossOptions, command: Command): Promise<void> {
  const path = `/api/v1/queues/${encodeURIComponent(name)}`
  if (options.yes === undefined) {
    const { depth: messages, bytes } = await read(options, path, queue)
    refuseLoss(command, { name, messages, bytes, done: 'deleted' })
  }
  await deleteWithMessages(options, path, name)
}

async function peekQueue(name: string, options: GatewayOptions & { limit: number }): Promise<void> {
  const path = `/api/v1/queues/${encodeURIComponent(name)}/messages?limit=${options.limit}`
  const messages = await read(options, path, peekedList)
  if (options.json) return printJson(messages)
  if (messages.length === 0) return console.log('the queue is empty')
  console.log(
    table(messages, [
      { title: 'AGE', text: row => shortDuration(row.age_ms), align: 'right' },
      { title: 'EXCHANGE', text: row => row.exchange || '(default)' },
      { title: 'KEY', text: row => row.routing_key || '-' },
      { title: 'QOS', text: row => String(row.qos) },
      { title: 'STATE', text: stateText },
      { title: 'BYTES', text: row => shortSize(row.payload_bytes), align: 'right' },
      { title: 'PAYLOAD', text: payloadText },
    ]),
  )
}

function stateText({ in_flight, waiting, attempts }: PeekedMessage): string {
  const tried = attempts === 0 ? '' : `, tried ${attempts} times`
  return `${in_flight ? 'in flight' : waiting ? 'pauses' : 'waits'}${tried}`
}

/** Longer ones are for --json. */
const SHOWN_PAYLOAD = 200

function payloadText({ payload, encoding }: PeekedMessage): string {
  return clip(encoding === 'utf8' ? payload : `base64 ${payload}`, SHOWN_PAYLOAD)
}

function sum(counts: Readonly<Record<string, number>>): number {
  return Object.values(counts).reduce((total, count) => total + count, 0)
}

function reasons(counts: Readonly<Record<string, number>>): string {
  const listed = Object.entries(counts).map(([reason, count]) => `${count} ${reason}`)
  return listed.length === 0 ? '0' : listed.join(', ')
}
