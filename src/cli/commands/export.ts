import { writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import { definitionsDocument } from '../../api/contract.ts'
import { DEFINITIONS_PATH } from '../../model/definitions-document.ts'
import { read } from '../api-client.ts'
import { Failure } from '../failure.ts'
import { dressCommand, examples, type GatewayOptions, withGateway } from '../options.ts'
import { printJson } from '../print.ts'

interface ExportFlags extends GatewayOptions {
  readonly output?: string
}

/** `sluice export` */
export function command(): Command {
  return withGateway(dressCommand(new Command('export')))
    .description(
      'Exchanges, queues, streams and bindings of a running gateway as JSON, without messages. The same definitions are the same bytes.',
    )
    .option('--output <file>', 'write to a file instead of standard output')
    .addHelpText('after', examples('sluice export > definitions.json', 'sluice export --output definitions.json'))
    .action(exportDefinitions)
}

async function exportDefinitions({ output, ...options }: ExportFlags): Promise<void> {
  const document = await read(options, DEFINITIONS_PATH, definitionsDocument)
  if (output === undefined) return printJson(document)
  try {
    await writeFile(output, `${JSON.stringify(document, null, 2)}\n`)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new Failure(`${output} cannot be written: ${reason}. Name another file.`, { cause })
  }
}
