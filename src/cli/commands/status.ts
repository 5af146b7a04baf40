import { Command } from 'commander'
import {
  type Overview,
  overview,
  type QueueStatus,
  queueList,
  type UpstreamStatus,
  upstreamList,
} from '../../api/contract.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
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

/** So that the whole fits on one screen; `sluice queues` lists all. */
const QUEUES_SHOWN = 8
const WIDTH = 80

/** `sluice status` */
export function command(): Command {
  return withGateway(dressCommand(new Command('status')))
    .description('A running gateway on one screen: who it is, rates, upstreams, queues, disk, health with reasons.')
    .addHelpText('after', examples('sluice status', 'sluice status --url http://127.0.0.1:15681 --json'))
    .action(status)
}

async function status(options: GatewayOptions): Promise<void> {
  const [summary, upstreams, queues] = await Promise.all([
    read(options, '/api/v1/overview', overview),
    read(options, '/api/v1/upstreams', upstreamList),
    read(options, '/api/v1/queues', queueList),
  ])
  if (options.json) printJson({ ...summary, upstreams, queues })
  else console.log(statusScreen(summary, upstreams, queues))
}

/** The screen as text, at most 80 columns wide. */
export function statusScreen(
  { gateway, clients, messages, rates, memory, disk, health }: Overview,
  upstreams: readonly UpstreamStatus[],
  queues: readonly QueueStatus[],
): string {
  const head = pairs([
    [
      'gateway',
      `${gateway.id}, sluice ${gateway.version}, up ${shortDuration(gateway.uptime_ms)}, clock ${gateway.clock}`,
    ],
    ['health', health.status],
    ['clients', `${clients.connected} of ${clients.limit}`],
    [
      'rates',
      `${shortCount(rates.received_per_s)}/s in, ${shortCount(rates.delivered_per_s)}/s out, ${shortCount(rates.forwarded_per_s)}/s upstream`,
    ],
    [
      'since start',
      `${shortCount(messages.received)} in, ${shortCount(messages.delivered)} out, ${shortCount(messages.forwarded)} upstream, ` +
        `${shortCount(messages.unrouted)} unrouted, ${shortCount(messages.dropped)} dropped`,
    ],
    [
      'memory',
      `${shortSize(memory.used_bytes)} of ${shortSize(memory.limit_bytes)} for messages, process ${shortSize(memory.resident_bytes)}`,
    ],
    [
      'disk',
      `${shortSize(disk.used_bytes)} of ${shortSize(disk.limit_bytes)}, ${shortSize(disk.free_bytes)} free, ${shortSize(disk.free_min_bytes)} needed` +
        (disk.full_in_ms === null ? '' : `, full in ${shortDuration(disk.full_in_ms)}`),
    ],
    [
      'wear',
      `${shortSize(disk.accepted_bytes)} kept, ${shortSize(disk.written_bytes)} written` +
        (disk.accepted_bytes === 0 ? '' : `, ${(disk.written_bytes / disk.accepted_bytes).toFixed(1)} per byte kept`),
    ],
  ])
  const sections = [
    head
      .split('\n')
      .map(line => clip(line, WIDTH))
      .join('\n'),
  ]
  if (health.reasons.length > 0) sections.push(health.reasons.map(reason => wrap(`! ${printable(reason)}`)).join('\n'))
  if (upstreams.length > 0) {
    sections.push(
      table(upstreams, [
        { title: 'UPSTREAM', text: upstream => upstream.name },
        { title: 'STATE', text: upstream => stateText(upstream) },
        { title: 'UNCONFIRMED', text: upstream => shortCount(upstream.unconfirmed), align: 'right' },
        { title: 'CONFIRMED', text: upstream => shortCount(upstream.confirmed), align: 'right' },
        { title: 'URL', text: upstream => upstream.url },
      ]),
    )
  }
  if (queues.length > 0) {
    const deepest = queues.toSorted((a, b) => b.depth - a.depth).slice(0, QUEUES_SHOWN)
    sections.push(
      table(deepest, [
        { title: 'QUEUE', text: queue => queue.name },
        { title: 'DEPTH', text: queue => shortCount(queue.depth), align: 'right' },
        { title: 'BYTES', text: queue => shortSize(queue.bytes), align: 'right' },
        {
          title: 'OLDEST',
          text: queue => (queue.oldest_age_ms === null ? '-' : shortDuration(queue.oldest_age_ms)),
          align: 'right',
        },
        { title: 'FULL', text: queue => `${fullness(queue)}%`, align: 'right' },
        { title: 'FORECAST', text: queue => shortForecast(queue.forecast) },
      ]) + (queues.length > deepest.length ? `\n… and ${queues.length - deepest.length} more: sluice queues` : ''),
    )
  }
  return sections.join('\n\n')
}

/** `waiting 3.2s`: what it does, and for how long where that is known. */
function stateText({ state, retry_in_ms }: UpstreamStatus): string {
  return retry_in_ms === null ? state : `${state} ${shortDuration(retry_in_ms)}`
}

/** Percent of whichever of its two limits is nearer. */
function fullness({ depth, bytes, limits }: QueueStatus): number {
  return Math.round(Math.max(depth / limits.messages, bytes / limits.bytes) * 100)
}

function wrap(text: string): string {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line.length + word.length + 1 > WIDTH) {
      lines.push(line)
      line = `  ${word}`
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line].join('\n')
}
