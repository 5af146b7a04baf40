import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Address } from '../api/contract.ts'

/** Usage errors as one line on standard error with a pointer to the help; no exit from within (main.ts decides the status). */
export function dressCommand(command: Command): Command {
  const path = (of: Command): string => (of.parent === null ? of.name() : `${path(of.parent)} ${of.name()}`)
  return command
    .exitOverride()
    .helpOption('--help', 'show this help')
    .helpCommand(false)
    .allowExcessArguments(false)
    .configureOutput({
      outputError: (text, write) => {
        const line = text
          .trim()
          .replace(/^error: /, '')
          .replaceAll('\n', ' ')
        write(`sluice: ${line} (see ${path(command)} --help)\n`)
      },
    })
}

/** `--help` ends with examples, one line each. */
export function examples(...lines: readonly string[]): string {
  return `\nExample${lines.length === 1 ? '' : 's'}:\n${lines.map(line => `  $ ${line}`).join('\n')}`
}

/** Where the running gateway is and how to print: for every command that talks HTTP. */
export interface GatewayOptions {
  readonly url: string
  readonly token?: string
  readonly json?: true
}

/** Adds --url, --token and --json. */
export function withGateway(command: Command): Command {
  return command
    .addOption(
      new Option('--url <url>', 'HTTP address of the gateway').default('http://127.0.0.1:15680').env('SLUICE_URL'),
    )
    .addOption(new Option('--token <token>', 'token for it').env('SLUICE_TOKEN'))
    .option('--json', 'print JSON')
}

/** A parser of whole numbers for commander. */
export function wholeNumber({ min, max }: { min: number; max: number }): (text: string) => number {
  return text => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`Accepted is a whole number from ${min} to ${max}.`)
  }
}

/** Collects an option that may be given several times. */
export function collect(value: string, before: readonly string[]): readonly string[] {
  return [...before, value]
}

/** `--to`: exchange and key, or an exchange alone. */
export function address(text: string): Address {
  const colon = text.indexOf(':')
  if (colon < 0) return { exchange: text, routing_key: null }
  return { exchange: text.slice(0, colon), routing_key: text.slice(colon + 1) }
}
