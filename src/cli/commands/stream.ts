import { setTimeout as delay } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import {
  type Address,
  MESSAGES_MAX,
  REPLAY_MAX,
  type StreamMessage,
  type StreamReplayed,
  streamDetail,
  streamList,
  streamMessageList,
  streamReplayed,
} from '../../api/contract.ts'
import { formatDuration } from '../../model/quantity.ts'
import { parseReadFrom, READ_FROM_FORMS } from '../../model/read-from.ts'
import { post, read } from '../api-client.ts'
import { Failure } from '../failure.ts'
import { deleteWithMessages, type LossOptions, refuseLoss } from '../loss.ts'
import { address, dressCommand, examples, type GatewayOptions, wholeNumber, withGateway } from '../options.ts'
import { clip, pairs, printable, printJson, shortCount, shortSize, table } from '../print.ts'

const LIMIT_DEFAULT = 20
const LIMIT_MAX = 1_000_000_000
/** --follow looks for new messages this often. */
const FOLLOW_MS = 500

/** `sluice stream` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All streams with what they keep.')
    .addHelpText('after', examples('sluice stream ls --json'))
    .action(listStreams)
  const readOne = withGateway(dressCommand(new Command('read')))
    .description('Messages of a stream in order; they stay where they are. With --json one document per line.')
    .argument('<name>', 'name of the stream')
    .option('--from <place>', READ_FROM_FORMS, place, 'first')
    .option(
      '--limit <count>',
      `how many messages at most (default: ${LIMIT_DEFAULT}; with --follow no limit)`,
      wholeNumber({ min: 1, max: LIMIT_MAX }),
    )
    .option('--follow', 'go on with what comes, until interrupted')
    .addHelpText(
      'after',
      examples(
        'sluice stream read history --from 2026-07-01T12:00:00Z',
        'sluice stream read history --from next --follow --json',
      ),
    )
    .action(readStream)
  const show = withGateway(dressCommand(new Command('show')))
    .description('One stream with what it keeps, its ledger, and where each reader will go on.')
    .argument('<name>', 'name of the stream')
    .addHelpText('after', examples('sluice stream show history'))
    .action(showStream)
  const replay = withGateway(dressCommand(new Command('replay')))
    .description('Send copies of a range of a stream into an exchange. They keep their ids; the stream stays as it is.')
    .argument('<name>', 'name of the stream')
    .requiredOption('--to <exchange:key>', 'where; exchange alone keeps their keys, :NAME is the queue NAME', address)
    .option('--from <place>', READ_FROM_FORMS, place, 'first')
    .option('--until <place>', 'behind the last one, as in --from; next: all there are now', place, 'next')
    .option('--limit <count>', 'how many messages at most', wholeNumber({ min: 1, max: LIMIT_MAX }))
    .addHelpText(
      'after',
      examples(
        'sluice stream replay history --to again --from 2026-07-01T12:00:00Z --until 2026-07-01T13:00:00Z',
        'sluice stream replay history --to :jobs --from 1000 --limit 10',
      ),
    )
    .action(replayStream)
  const remove = withGateway(dressCommand(new Command('delete')))
    .description('Delete a stream with its messages, cursors and bindings; not one of the configuration.')
    .argument('<name>', 'name of the stream')
    .option('--yes', 'do it; without it nothing is deleted')
    .addHelpText('after', examples('sluice stream delete history --yes'))
    .action(deleteStream)
  return dressCommand(new Command('stream'))
    .description('Streams of a running gateway: messages kept for reading again.')
    .addHelpText('after', examples('sluice stream', 'sluice stream read history --from last'))
    .addCommand(list, { isDefault: true })
    .addCommand(show)
    .addCommand(readOne)
    .addCommand(replay)
    .addCommand(remove)
}

function place(text: string): string {
  if (parseReadFrom(text) === null) throw new InvalidArgumentError(`Accepted is ${READ_FROM_FORMS}.`)
  return text
}

async function listStreams(options: GatewayOptions): Promise<void> {
  const streams = await read(options, '/api/v1/streams', streamList)
  if (options.json) return printJson(streams)
  if (streams.length === 0) return console.log('there are no streams')
  console.log(
    table(streams, [
      { title: 'STREAM', text: row => row.name },
      { title: 'MESSAGES', text: row => shortCount(row.messages), align: 'right' },
      { title: 'BYTES', text: row => shortSize(row.bytes), align: 'right' },
      { title: 'FIRST', text: row => String(row.first), align: 'right' },
      { title: 'NEXT', text: row => String(row.next), align: 'right' },
      { title: 'SINCE', text: row => (row.oldest_at === null ? '-' : shortTime(row.oldest_at)) },
      { title: 'READERS', text: row => String(row.readers), align: 'right' },
    ]),
  )
}

async function showStream(name: string, options: GatewayOptions): Promise<void> {
  const found = await read(options, streamPath(name), streamDetail)
  if (options.json) return printJson(found)
  const { retain, ledger, positions } = found
  console.log(
    pairs([
      ['stream', found.name],
      ['origin', found.origin],
      ['messages', `${found.messages}, ${shortSize(found.bytes)}, numbers ${found.first} to ${found.next}`],
      ['since', found.oldest_at === null ? '-' : shortTime(found.oldest_at)],
      ['kept', `for ${formatDuration(retain.age_ms)}, up to ${shortSize(retain.bytes)}`],
      ['ack', found.ack],
      ['readers', `${found.readers} reading, ${found.cursors} cursors`],
      ['missed', String(found.missed)],
      ['accepted', String(ledger.accepted)],
      ['expired', String(ledger.expired)],
    ]),
  )
  if (positions.length === 0) return
  console.log(
    table(positions, [
      { title: 'READER', text: row => row.reader },
      { title: 'NEXT', text: row => String(row.next), align: 'right' },
      { title: 'BEHIND', text: row => shortCount(Math.max(0, found.next - row.next)), align: 'right' },
    ]),
  )
}

interface ReplayOptions extends GatewayOptions {
  readonly to: Address
  readonly from: string
  readonly until: string
  readonly limit?: number
}

/** Asks again until all of the range was sent: each answer covers a part of it. */
async function replayStream(name: string, options: ReplayOptions): Promise<void> {
  const { to, limit = Number.POSITIVE_INFINITY } = options
  // `next` moves on while messages come, a sequence number does not.
  const end = async () => String((await read(options, streamPath(name), streamDetail)).next)
  const until = options.until === 'next' ? await end() : options.until
  const total = { replayed: 0, unrouted: 0, held: false }
  for (let from: string | null = options.from; from !== null; ) {
    const left = Math.min(REPLAY_MAX, limit - total.replayed - total.unrouted)
    const answer: StreamReplayed = await post(options, `${streamPath(name)}/replay`, streamReplayed, {
      ...{ to, from, until },
      limit: left,
    })
    total.replayed += answer.replayed
    total.unrouted += answer.unrouted
    total.held = answer.held
    const isOver = answer.held || total.replayed + total.unrouted >= limit
    from = isOver || answer.next === null ? null : String(answer.next)
    if (from !== null && !options.json) process.stderr.write(`${total.replayed} messages so far\n`)
  }
  if (options.json) printJson(total)
  else {
    console.log(`${total.replayed} messages of ${printable(name)} replayed`)
    if (total.unrouted > 0) console.log(`${total.unrouted} not: nothing is bound to where they would go`)
  }
  if (total.held) {
    throw new Failure(
      'The others were not: where they would go a queue is full or missing, or the disk is full. Make room, or name another place with --to.',
    )
  }
}

async function deleteStream(name: string, options: LossOptions, command: Command): Promise<void> {
  if (options.yes === undefined) {
    const { messages, bytes } = await read(options, streamPath(name), streamDetail)
    refuseLoss(command, { name, messages, bytes, done: 'deleted' })
  }
  await deleteWithMessages(options, streamPath(name), name)
}

const streamPath = (name: string): string => `/api/v1/streams/${encodeURIComponent(name)}`

interface ReadOptions extends GatewayOptions {
  readonly from: string
  readonly limit?: number
  readonly follow?: true
}

async function readStream(name: string, options: ReadOptions): Promise<void> {
  const path = streamPath(name)
  let left = options.limit ?? (options.follow ? Number.POSITIVE_INFINITY : LIMIT_DEFAULT)
  // `next` moves on while we wait for it, a sequence number does not.
  let from = options.from === 'next' ? String((await read(options, path, streamDetail)).next) : options.from
  while (left > 0) {
    const query = new URLSearchParams({ from, limit: String(Math.min(left, MESSAGES_MAX)) })
    const messages = await read(options, `${path}/messages?${query}`, streamMessageList)
    for (const message of messages) console.log(options.json ? JSON.stringify(message) : line(message))
    left -= messages.length
    const last = messages.at(-1)
    if (last !== undefined) from = String(last.sequence + 1)
    else if (options.follow) await delay(FOLLOW_MS)
    else return
  }
}

/** Longer ones are for --json. */
const SHOWN_PAYLOAD = 200

/** One line, cut to the width of the terminal. */
function line({ sequence, accepted_at, exchange, routing_key, payload, encoding }: StreamMessage): string {
  const key = exchange === 'mqtt' ? routing_key : `${exchange || '(default)'}:${routing_key}`
  const shown = clip(encoding === 'utf8' ? payload : `base64 ${payload}`, SHOWN_PAYLOAD)
  return clip(printable(`${sequence}  ${shortTime(accepted_at)}  ${key}  ${shown}`), process.stdout.columns ?? 80)
}

/** To the second, in UTC. */
const shortTime = (iso: string): string => `${iso.slice(0, 19)}Z`
