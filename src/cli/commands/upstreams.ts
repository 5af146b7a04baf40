import { Command } from 'commander'
import { upstream, upstreamList } from '../../api/contract.ts'
import { read } from '../api-client.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { printable, printJson, shortCount, shortDuration, table } from '../print.ts'

/** `sluice upstreams` */
export function command(): Command {
  const list = withGateway(dressCommand(new Command('ls')))
    .description('All upstreams with the state of their link.')
    .addHelpText('after', examples('sluice upstreams ls --json'))
    .action(listUpstreams)
  const pause = withGateway(dressCommand(new Command('pause')))
    .description('Stop forwarding to an upstream. Messages wait in the outboxes of its routes.')
    .argument('<name>', 'name of the upstream')
    .addHelpText('after', examples('sluice upstreams pause central'))
    .action((name: string, options: GatewayOptions) => change(name, 'pause', options))
  const resume = withGateway(dressCommand(new Command('resume')))
    .description('Forward again.')
    .argument('<name>', 'name of the upstream')
    .addHelpText('after', examples('sluice upstreams resume central'))
    .action((name: string, options: GatewayOptions) => change(name, 'resume', options))
  return dressCommand(new Command('upstreams'))
    .description('AMQP brokers a running gateway forwards to.')
    .addHelpText('after', examples('sluice upstreams', 'sluice upstreams pause central'))
    .addCommand(list, { isDefault: true })
    .addCommand(pause)
    .addCommand(resume)
}

async function listUpstreams(options: GatewayOptions): Promise<void> {
  const upstreams = await read(options, '/api/v1/upstreams', upstreamList)
  if (options.json) return printJson(upstreams)
  if (upstreams.length === 0) return console.log('there are no upstreams: nothing is forwarded')
  console.log(
    table(upstreams, [
      { title: 'UPSTREAM', text: row => row.name },
      { title: 'STATE', text: row => row.state },
      {
        title: 'RETRY',
        text: row => (row.retry_in_ms === null ? '-' : shortDuration(row.retry_in_ms)),
        align: 'right',
      },
      { title: 'UNCONFIRMED', text: row => shortCount(row.unconfirmed), align: 'right' },
      { title: 'CONFIRMED', text: row => shortCount(row.confirmed), align: 'right' },
      { title: 'RECONNECTS', text: row => shortCount(row.reconnects), align: 'right' },
      { title: 'URL', text: row => row.url },
    ]),
  )
  for (const { name, cause } of upstreams) if (cause !== null) console.log(`! ${name}: ${printable(cause)}`)
}

async function change(name: string, act: 'pause' | 'resume', options: GatewayOptions): Promise<void> {
  const after = await read(options, `/api/v1/upstreams/${encodeURIComponent(name)}/${act}`, upstream, 'POST')
  if (options.json) printJson(after)
  else console.log(`${after.name} is ${after.state}`)
}
