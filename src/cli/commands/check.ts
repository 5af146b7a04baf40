import { Command } from 'commander'
import { findConfigFile, readConfig } from '../../config/load.ts'
import { type ConfigProblem, formatProblems } from '../../config/problem.ts'
import type { Config } from '../../config/schema.ts'
import { examineTokensFile, examineUsersFile } from '../../config/users-file.ts'
import { AccessRules } from '../../core/acl.ts'
import { answerLine, askRules, type QuestionPart, readPart } from '../acl-question.ts'
import { Failure } from '../failure.ts'
import { collect, dressCommand, examples } from '../options.ts'
import { printJson } from '../print.ts'

interface CheckOptions {
  readonly set: readonly string[]
  readonly acl?: readonly QuestionPart[]
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
    .option(
      '--acl <key=value...>',
      'ask the rules whether client=ID of user=NAME in group=NAME may publish=TOPIC, subscribe=FILTER, consume=NAME; status 1 if one is refused',
      readPart,
    )
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      examples(
        'sluice check /etc/sluice.yaml',
        'sluice check /etc/sluice.yaml --acl client=dev-7 user=ann publish=sensors/dev-7/t',
      ),
    )
    .action(check)
}

async function check(given: string | undefined, { set, acl, json }: CheckOptions): Promise<void> {
  const file = given ?? findConfigFile()
  const { config, problems: found } = await readConfig({ file, env: process.env, set })
  const problems = config === null ? found : await examineCredentials(config)
  const name = file ?? 'the default configuration'
  if (acl !== undefined && config !== null && problems.length === 0) {
    await answer(acl, config, json === true)
    return
  }
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

/** Answers what the rules of a configuration would say, without a gateway. */
async function answer(parts: readonly QuestionPart[], { auth }: Config, asJson: boolean): Promise<void> {
  const rules = new AccessRules(auth.acl)
  const users = auth.usersFile === null ? [] : (await examineUsersFile(auth.usersFile)).entries
  const answers = askRules(rules, parts, user => users.find(({ name }) => name === user)?.groups ?? [])
  if (answers.length === 0) {
    throw new Failure('Nothing is asked: give --acl publish=TOPIC, subscribe=FILTER or consume=NAME.')
  }
  if (asJson) printJson(answers.map(({ act, what, isAllowed, rule }) => ({ act, what, allowed: isAllowed, rule })))
  else for (const answer of answers) console.log(answerLine(answer, rules))
  if (answers.some(({ isAllowed }) => !isAllowed)) process.exitCode = 1
}

/** What is wrong with the files of users and tokens. */
async function examineCredentials({ auth: { usersFile }, http: { tokensFile } }: Config): Promise<ConfigProblem[]> {
  const users = usersFile === null ? [] : (await examineUsersFile(usersFile)).problems
  const tokens = tokensFile === null ? [] : (await examineTokensFile(tokensFile)).problems
  return [...users, ...tokens]
}
