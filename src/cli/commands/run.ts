import { Command } from 'commander'
import { Broker } from '../../broker.ts'
import { findConfigFile, loadConfig } from '../../config/load.ts'
import { createLogger } from '../../telemetry/log.ts'
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
      'Run the gateway in the foreground until SIGTERM or SIGINT. The log goes to standard output as JSON lines.',
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
  const config = await loadConfig({
    file: file ?? findConfigFile(),
    env: process.env,
    set: data === undefined ? set : [...set, `data_dir=${data}`],
  })
  const log = createLogger(config.log.level)
  // What nobody foresaw must not go on with a state nobody foresaw: logged, then the supervisor starts anew and the store recovers.
  process.on('uncaughtExceptionMonitor', error => log.fatal({ err: error }, 'stopped by an unexpected error'))
  for (const warning of config.warnings) log.warn(warning)

  // Asked to stop while still starting: start first, then stop in order.
  const asked = new Promise<string>(resolve => {
    process.once('SIGTERM', resolve)
    process.once('SIGINT', resolve)
  })
  const broker = await Broker.start(config, { log })
  const signal = await asked
  log.info({ signal }, 'stopping')
  await broker.stop()
  log.info('stopped')
}
