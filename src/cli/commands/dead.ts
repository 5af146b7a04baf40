import { Command, InvalidArgumentError } from 'commander'
import {
  type Address,
  deadLetterList,
  MESSAGES_MAX,
  type PeekedMessage,
  peekedList,
  type ReplayAnswer,
  replayed,
} from '../../api/contract.ts'
import { post, read } from '../api-client.ts'
import { Failure } from '../failure.ts'
import { address, dressCommand, examples, type GatewayOptions, wholeNumber, withGateway } from '../options.ts'
import { clip, printable, printJson, shortCount, shortDuration, shortSize, table } from '../print.ts'
import { purgeQueue } from '../purge.ts'

interface ReplayFlags extends GatewayOptions {
  readonly id?: string
  readonly positions?: { readonly from: number; readonly to: number }
  readonly since?: string
  readonly until?: string
  readonly all?: true
  readonly to?: Address
  readonly dryRun?: true
}

/** `sluice dead` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('Queues of dead letters: how many wait, since when, and what they come from.')
    .addHelpText('after', examples('sluice dead ls --json'))
    .action(listQueues)
  const show = withGateway(dressCommand(new Command('show')))
    .description('The oldest dead letters of a queue: why they died, where, how often. They stay where they are.')
    .argument('<queue>', 'name of the queue')
    .option('--limit <count>', `how many, up to ${MESSAGES_MAX}`, wholeNumber({ min: 1, max: MESSAGES_MAX }), 10)
    .addHelpText('after', examples('sluice dead show telemetry.dead', 'sluice dead show telemetry.dead --json'))
    .action(showLetters)
  const replay = withGateway(dressCommand(new Command('replay')))
    .description(
      'Send dead letters back to where they were published, or elsewhere. They keep their ids; those nobody takes stay.',
    )
    .argument('<queue>', 'name of the queue')
    .option('--all', 'all that are there now')
    .option('--id <id>', 'the one with this message id')
    .option('--positions <range>', 'those at these positions: 17 or 17-42', positions)
    .option('--since <time>', 'those that died at this time or later', time)
    .option('--until <time>', 'those that died at this time or earlier', time)
    .option('--to <exchange:key>', 'elsewhere; exchange alone keeps their keys, :NAME is the queue NAME', address)
    .option('--dry-run', 'only say what would go where')
    .addHelpText(
      'after',
      examples(
        'sluice dead replay telemetry.dead --all --dry-run',
        'sluice dead replay telemetry.dead --since 2026-03-01T06:00Z',
        'sluice dead replay jobs.dead --id gw-017/k3v9qz72ma/1234 --to mqtt:jobs/again',
        'sluice dead replay jobs.dead --positions 0-99 --to :jobs',
      ),
    )
    .action(replayLetters)
  const purge = withGateway(dressCommand(new Command('purge')))
    .description('Drop all dead letters of a queue, for good.')
    .argument('<queue>', 'name of the queue')
    .option('--yes', 'do it; without it nothing is dropped')
    .addHelpText('after', examples('sluice dead purge telemetry.dead --yes'))
    .action(purgeQueue)
  return dressCommand(new Command('dead'))
    .description('Dead letters: messages that were refused, expired, gave way, or failed too often.')
    .addHelpText('after', examples('sluice dead', 'sluice dead show telemetry.dead'))
    .addCommand(list, { isDefault: true })
    .addCommand(show)
    .addCommand(replay)
    .addCommand(purge)
}

async function listQueues(options: GatewayOptions): Promise<void> {
  const queues = await read(options, '/api/v1/dead-letters', deadLetterList)
  if (options.json) return printJson(queues)
  if (queues.length === 0) return console.log('there are no queues of dead letters')
  console.log(
    table(queues, [
      { title: 'QUEUE', text: row => row.queue },
      { title: 'LETTERS', text: row => shortCount(row.depth), align: 'right' },
      { title: 'BYTES', text: row => shortSize(row.bytes), align: 'right' },
      {
        title: 'OLDEST',
        text: row => (row.oldest_age_ms === null ? '-' : shortDuration(row.oldest_age_ms)),
        align: 'right',
      },
      { title: 'FROM', text: row => row.sources.join(', ') || '-' },
    ]),
  )
}

async function showLetters(name: string, options: GatewayOptions & { limit: number }): Promise<void> {
  const path = `/api/v1/queues/${encodeURIComponent(name)}/messages?limit=${options.limit}`
  const messages = await read(options, path, peekedList)
  if (options.json) return printJson(messages)
  if (messages.length === 0) return console.log('the queue is empty')
  const latest = (row: PeekedMessage) => row.history[0]
  console.log(
    table(messages, [
      { title: 'POSITION', text: row => String(row.position), align: 'right' },
      { title: 'DIED', text: row => row.moved_at?.slice(0, 19) ?? '-' },
      { title: 'WHY', text: row => latest(row)?.event ?? '-' },
      { title: 'TIMES', text: row => String(latest(row)?.count ?? 0), align: 'right' },
      { title: 'IN', text: row => latest(row)?.queue ?? '-' },
      { title: 'KEY', text: row => latest(row)?.routing_key || row.routing_key || '-' },
      { title: 'SAID', text: row => clip(latest(row)?.words ?? '-', 80) },
      { title: 'PAYLOAD', text: row => clip(row.encoding === 'utf8' ? row.payload : `base64 ${row.payload}`, 200) },
    ]),
  )
}

/** Asks again until all was looked at: each answer covers a few seconds of work. */
async function replayLetters(name: string, flags: ReplayFlags, command: Command): Promise<void> {
  const { id, positions: range, since, until, all, to, dryRun } = flags
  const isChosen = id !== undefined || range !== undefined || since !== undefined || until !== undefined
  if (isChosen === (all !== undefined)) {
    command.error('say which: --id, --positions, --since, --until, or else --all', { exitCode: 2 })
  }
  const path = `/api/v1/dead-letters/${encodeURIComponent(name)}/replay`
  const total = { replayed: 0, unrouted: 0, unaddressed: 0, held: false, destinations: new Map<string, number>() }
  for (let cursor: string | null = null; ; ) {
    const answer: ReplayAnswer = await post(flags, path, replayed, {
      ...{ id, positions: range, since, until },
      to: to ?? null,
      dry_run: dryRun ?? false,
      cursor,
    })
    total.replayed += answer.replayed
    total.unrouted += answer.unrouted
    total.unaddressed += answer.unaddressed
    total.held = answer.held
    for (const { exchange, routing_key, messages } of answer.destinations) {
      const destination = `${exchange}:${routing_key}`
      total.destinations.set(destination, (total.destinations.get(destination) ?? 0) + messages)
    }
    cursor = answer.next
    const isFound = id !== undefined && total.replayed > 0
    if (cursor === null || answer.held || isFound) break
    if (!flags.json) process.stderr.write(`${total.replayed} messages so far\n`)
  }
  report(name, total, flags)
}

interface Total {
  readonly replayed: number
  readonly unrouted: number
  readonly unaddressed: number
  readonly held: boolean
  readonly destinations: ReadonlyMap<string, number>
}

function report(name: string, total: Total, { json, dryRun }: ReplayFlags): void {
  const { replayed: count, unrouted, unaddressed, held, destinations } = total
  if (json) printJson({ ...total, destinations: Object.fromEntries(destinations) })
  else {
    console.log(`${count} messages of ${printable(name)} ${dryRun === undefined ? 'replayed' : 'would be replayed'}`)
    for (const [destination, messages] of destinations) console.log(`  ${messages} to ${printable(destination)}`)
    if (unrouted > 0) console.log(`${unrouted} stay: nothing is bound to where they would go`)
    if (unaddressed > 0) console.log(`${unaddressed} stay: they never died, so say where to with --to`)
  }
  if (held) {
    throw new Failure(
      `The others of ${printable(name)} stay: where they would go a queue is full or missing, or the disk is full. Make room, or name another place with --to.`,
    )
  }
}

function positions(text: string): { from: number; to: number } {
  const [, from = '', to = from] = /^(\d{1,15})(?:-(\d{1,15}))?$/.exec(text) ?? []
  if (from !== '' && Number(from) <= Number(to)) return { from: Number(from), to: Number(to) }
  throw new InvalidArgumentError('Accepted is a position such as 17, or a range such as 17-42.')
}

function time(text: string): string {
  const ms = Date.parse(text)
  if (!Number.isNaN(ms)) return new Date(ms).toISOString()
  throw new InvalidArgumentError('Accepted is a time such as 2026-03-01T06:00Z.')
}
