import { setTimeout as delay } from 'node:timers/promises'
import { Command, InvalidArgumentError } from 'commander'
import { MESSAGES_MAX, type StreamMessage, streamDetail, streamList, streamMessageList } from '../../api/contract.ts'
import { parseReadFrom, READ_FROM_FORMS } from '../../model/read-from.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, wholeNumber, withGateway } from '../options.ts'
import { clip, printable, printJson, shortCount, shortSize, table } from '../print.ts'

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
  return dressCommand(new Command('stream'))
    .description('Streams of a running gateway: messages kept for reading again.')
    .addHelpText('after', examples('sluice stream', 'sluice stream read history --from last'))
    .addCommand(list, { isDefault: true })
    .addCommand(readOne)
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

interface ReadOptions extends GatewayOptions {
  readonly from: string
  readonly limit?: number
  readonly follow?: true
}

async function readStream(name: string, options: ReadOptions): Promise<void> {
  const path = `/api/v1/streams/${encodeURIComponent(name)}`
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
