import { readFile } from 'node:fs/promises'
import { Command } from 'commander'
import { type DefinitionsImported, definitionsImported } from '../../api/contract.ts'
import { DEFINITIONS_BYTES_MAX, DEFINITIONS_PATH } from '../../model/definitions-document.ts'
import { post } from '../api-client.ts'
import { Failure } from '../failure.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { printable, printJson, shortSize, table } from '../print.ts'

interface ImportFlags extends GatewayOptions {
  readonly dryRun?: true
}

const KINDS = ['exchanges', 'queues', 'streams', 'bindings'] as const

/** `sluice import` */
export function command(): Command {
  return withGateway(dressCommand(new Command('import')))
    .description(
      'Declare on a running gateway what is missing of an export: all of it, or nothing if anything is in the way. Nothing is deleted or changed; what came from a configuration is left to it.',
    )
    .argument('<file>', 'what `sluice export` wrote')
    .option('--dry-run', 'only say what would be declared')
    .addHelpText('after', examples('sluice import definitions.json --dry-run', 'sluice import definitions.json'))
    .action(importDefinitions)
}

async function importDefinitions(file: string, { dryRun, ...options }: ImportFlags): Promise<void> {
  const document = await readDocument(file)
  const path = dryRun === undefined ? DEFINITIONS_PATH : `${DEFINITIONS_PATH}?dry_run`
  const imported = await post(options, path, definitionsImported, document)
  if (options.json) printJson(imported)
  else printSummary(imported)
}

async function readDocument(file: string): Promise<object> {
  let text: string
  try {
    text = await readFile(file, 'utf8')
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Failure(`${file} cannot be read: ${reason}. Name a file that \`sluice export\` wrote.`, { cause })
  }
  const document = parse(file, text)
  // A gateway that refuses a body may close before it has read it, and then nobody hears why.
  if (Buffer.byteLength(JSON.stringify(document)) > DEFINITIONS_BYTES_MAX) {
    throw new Failure(
      `${file} is larger than ${shortSize(DEFINITIONS_BYTES_MAX)}, the most a gateway takes at once; cut its lists into several files.`,
    )
  }
  return document
}

function parse(file: string, text: string): object {
  try {
    return Object(JSON.parse(text))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new Failure(`${file} is not JSON: ${cause.message}. Name a file that \`sluice export\` wrote.`, { cause })
  }
}

function printSummary(imported: DefinitionsImported): void {
  const { dry_run, created } = imported
  for (const item of created) console.log(`+ ${printable(item)}`)
  const total = KINDS.reduce((sum, kind) => sum + imported[kind].created, 0)
  if (total > created.length) console.log(`+ ${total - created.length} more`)
  if (total > 0) console.log('')
  const figure = (title: string, of: keyof DefinitionsImported['queues']) =>
    ({ title, text: (kind: (typeof KINDS)[number]) => String(imported[kind][of]), align: 'right' }) as const
  console.log(
    table(KINDS, [
      { title: 'DEFINITIONS', text: kind => kind },
      figure(dry_run ? 'WOULD BE CREATED' : 'CREATED', 'created'),
      figure('THERE ALREADY', 'existing'),
      figure('LEFT TO CONFIGURATION', 'config'),
    ]),
  )
}
