import { Command } from 'commander'
import { findConfigFile, readConfig } from '../../config/load.ts'
import { type ConfigProblem, formatProblems } from '../../config/problem.ts'
import type { Config } from '../../config/schema.ts'
import { examineTokensFile, examineUsersFile } from '../../config/users-file.ts'
import { Failure } from '../failure.ts'
import { collect, dressCommand, examples } from '../options.ts'
import { printJson } from '../print.ts'

interface CheckOptions {
  readonly set: readonly string[]
  readonly json?: true
}

/** `sluice check` */
export function command(): Command {
  return dressCommand(new Command('check'))
    .description(
      'Validate a configuration as `run` would read it: every error with its place, the key, and what is accepted.',
    )
    .argument('[file]', 'configuration (default: ./sluice.yaml if there is one, else the defaults)')
    .option('--set <key=value>', 'override one option, as for run; may be repeated', collect, [])
    .option('--json', 'print JSON')
    .addHelpText('after', examples('sluice check /etc/sluice.yaml'))
    .action(check)
}

async function check(given: string | undefined, { set, json }: CheckOptions): Promise<void> {
  const file = given ?? findConfigFile()
  const { config, problems: found } = await readConfig({ file, env: process.env, set })
  const problems = config === null ? found : await examineCredentials(config)
  const name = file ?? 'the default configuration'
  if (json) {
    const valid = problems.length === 0
    printJson({ file, valid, problems, warnings: config?.warnings ?? [] })
    if (!valid) process.exitCode = 1
    return
  }
  if (config === null || problems.length > 0) throw new Failure(formatProblems(name, problems))
  for (const warning of config.warnings) console.log(`warning: ${warning}`)
  const { routes, upstreams, queues, streams } = config
  console.log(
    `${name} is valid: ${routes.length} routes, ${upstreams.length} upstreams, ${queues.length} queues, ${streams.length} streams`,
  )
}

/** What is wrong with the files of users and tokens. */
async function examineCredentials({ auth: { usersFile }, http: { tokensFile } }: Config): Promise<ConfigProblem[]> {
  const users = usersFile === null ? [] : (await examineUsersFile(usersFile)).problems
  const tokens = tokensFile === null ? [] : (await examineTokensFile(tokensFile)).problems
  return [...users, ...tokens]
}
