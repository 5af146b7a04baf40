import { Command } from 'commander'
import { Broker } from '../../broker.ts'
import { type ConfigSources, findConfigFile, loadConfig } from '../../config/load.ts'
import type { Config } from '../../config/schema.ts'
import { BrokerError } from '../../model/error.ts'
import { createLogger, type Logger } from '../../telemetry/log.ts'
import { collect, dressCommand, examples } from '../options.ts'

interface RunOptions {
  readonly config?: string
  readonly data?: string
  readonly set: readonly string[]
}

/** `sluice run` */
export function command(): Command {
  return dressCommand(new Command('run'))
    .description(
      'Run the gateway in the foreground until SIGTERM or SIGINT. SIGHUP reads the configuration again. The log goes to standard output as JSON lines.',
    )
    .option('--config <file>', 'configuration (default: ./sluice.yaml if there is one, else safe defaults)')
    .option('--data <dir>', 'directory for everything that is kept; overrides data_dir')
    .option('--set <key=value>', 'override one option, such as http.port=8080; may be repeated', collect, [])
    .addHelpText(
      'after',
      examples('sluice run --config /etc/sluice.yaml', 'sluice run --data /tmp/try --set listeners.mqtt.port=11883'),
    )
    .action(run)
}

async function run({ config: file, data, set }: RunOptions): Promise<void> {
  const sources = {
    file: file ?? findConfigFile(),
    env: process.env,
    set: data === undefined ? set : [...set, `data_dir=${data}`],
  }
  const config = await loadConfig(sources)
  const log = createLogger(config.log.level)
  // What nobody foresaw must not go on with a state nobody foresaw: logged, then the supervisor starts anew and the store recovers.
  process.on('uncaughtExceptionMonitor', error => log.fatal({ err: error }, 'stopped by an unexpected error'))
  for (const warning of config.warnings) log.warn(warning)

  // Asked to stop while still starting: start first, then stop in order.
  const asked = new Promise<string>(resolve => {
    process.once('SIGTERM', resolve)
    process.once('SIGINT', resolve)
  })
  const starting = Broker.start(config, { log })
  reloadOnHangup(starting, sources, log)
  const broker = await starting
  const signal = await asked
  log.info({ signal }, 'stopping')
  await broker.stop()
  log.info('stopped')
}

/** Reads the configuration again with each SIGHUP, one reading after the other. */
function reloadOnHangup(starting: Promise<Broker>, sources: ConfigSources, log: Logger): void {
  // Why it does not start is told by whoever starts it.
  let last: Promise<Broker | null> = starting.catch(() => null)
  process.on('SIGHUP', () => {
    last = last.then(async broker => {
      if (broker !== null) await reload(broker, sources, log)
      return broker
    })
  })
}

async function reload(broker: Broker, sources: ConfigSources, log: Logger): Promise<void> {
  let config: Config
  try {
    config = await loadConfig(sources)
  } catch (error) {
    if (!(error instanceof BrokerError)) throw error
    log.error({ code: error.code }, `the configuration is not taken and nothing changes: ${error.message}`)
    return
  }
  for (const warning of config.warnings) log.warn(warning)
  const { applied, restart } = broker.reload(config)
  log.info({ applied }, applied.length === 0 ? 'configuration read again: no change to apply' : 'configuration applied')
  if (restart.length > 0) log.warn(`restart to apply: ${restart.join(', ')}`)
}
