/*
 * Finds the command and loads only that one: `sluice run` on a small board does not pay for the others.
 */
import { Command, CommanderError } from 'commander'
import { BrokerError } from '../model/error.ts'
import { Failure } from './failure.ts'
import { dressCommand } from './options.ts'

interface Entry {
  readonly name: string
  readonly summary: string
  readonly load: () => Promise<Command>
}

const ENTRIES: readonly Entry[] = [
  {
    name: 'run',
    summary: 'run the gateway in the foreground',
    load: async () => (await import('./commands/run.ts')).command(),
  },
  {
    name: 'demo',
    summary: 'the whole story on this machine, with an outage',
    load: async () => (await import('./commands/demo.ts')).command(),
  },
  {
    name: 'check',
    summary: 'validate a configuration',
    load: async () => (await import('./commands/check.ts')).command(),
  },
  {
    name: 'status',
    summary: 'a running gateway on one screen',
    load: async () => (await import('./commands/status.ts')).command(),
  },
  {
    name: 'clients',
    summary: 'list, show, disconnect clients',
    load: async () => (await import('./commands/clients.ts')).command(),
  },
  {
    name: 'queues',
    summary: 'list, show, peek into, purge durable queues',
    load: async () => (await import('./commands/queues.ts')).command(),
  },
  {
    name: 'dead',
    summary: 'dead letters: list, show, replay, purge',
    load: async () => (await import('./commands/dead.ts')).command(),
  },
  {
    name: 'stream',
    summary: 'list and read streams',
    load: async () => (await import('./commands/stream.ts')).command(),
  },
  {
    name: 'retained',
    summary: 'list, clear retained messages',
    load: async () => (await import('./commands/retained.ts')).command(),
  },
  {
    name: 'exchanges',
    summary: 'list exchanges',
    load: async () => (await import('./commands/exchanges.ts')).command(),
  },
  {
    name: 'bindings',
    summary: 'list bindings',
    load: async () => (await import('./commands/bindings.ts')).command(),
  },
  {
    name: 'users',
    summary: 'list users, banned addresses',
    load: async () => (await import('./commands/users.ts')).command(),
  },
  {
    name: 'passwd',
    summary: 'make or change a user of the users file',
    load: async () => (await import('./commands/passwd.ts')).command(),
  },
  {
    name: 'routes',
    summary: 'what is forwarded where',
    load: async () => (await import('./commands/routes.ts')).command(),
  },
  {
    name: 'upstreams',
    summary: 'list, pause, resume upstreams',
    load: async () => (await import('./commands/upstreams.ts')).command(),
  },
  {
    name: 'export',
    summary: 'exchanges, queues, streams, bindings as JSON',
    load: async () => (await import('./commands/export.ts')).command(),
  },
  {
    name: 'import',
    summary: 'declare what an export has and the gateway lacks',
    load: async () => (await import('./commands/import.ts')).command(),
  },
  { name: 'pub', summary: 'publish over MQTT', load: async () => (await import('./commands/pub.ts')).command() },
  { name: 'sub', summary: 'subscribe over MQTT', load: async () => (await import('./commands/sub.ts')).command() },
]

/** Runs one command line and sets the exit status: 0 done, 1 the operation failed, 2 wrong usage. */
export async function runCli(args: readonly string[]): Promise<void> {
  process.stdout.on('error', error => {
    // Whoever read our output has seen enough: `sluice queues | head`.
    if ('code' in error && error.code === 'EPIPE') process.exit()
    throw error
  })
  try {
    await parse(args)
  } catch (error) {
    process.exitCode = report(error)
  }
}

async function parse(args: readonly string[]): Promise<void> {
  if (args[0] === '--version') {
    const { versionText } = await import('../version.ts')
    console.log(versionText())
    return
  }
  const program = dressCommand(new Command('sluice'))
    .description('MQTT at the edge, AMQP at the centre, nothing lost between.')
    .option('--version', 'version, commit, runtime, LevelDB')
    .addHelpText('after', '\nEvery command has --help with an example.')
    .helpCommand('help [command]', 'show the help of a command')
  const wanted = args.find(arg => !arg.startsWith('-'))
  const named = wanted === 'help' ? args[args.indexOf(wanted) + 1] : wanted
  for (const { name, summary, load } of ENTRIES) {
    const command = name === named ? await load() : new Command(name)
    program.addCommand(command.summary(summary))
  }
  await program.parseAsync(args, { from: 'user' })
}

/** Says what went wrong in one line and returns the exit status. What nobody foresaw is thrown: a crash with its stack, status 1. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof BrokerError || error instanceof Failure) {
    process.stderr.write(`sluice: ${error.message}\n`)
    return 1
  }
  throw error
}
