import { readFileSync } from 'node:fs'
import { BrokerError } from '../model/error.ts'

const FILE = 'file:'

/** As it stands in the configuration: an AMQP URL, or `file:PATH` of a file that holds one. Throws RangeError with the reason, which never repeats the value: it may hold a password. */
export function parseUpstreamUrl(value: string): string {
  if (value.startsWith(FILE)) return value
  const url = URL.canParse(value) ? new URL(value) : null
  if (url === null) throw new RangeError('this is not a URL')
  if (url.protocol !== 'amqp:' && url.protocol !== 'amqps:')
    throw new RangeError(`the scheme is ${JSON.stringify(url.protocol)}, neither amqp: nor amqps:`)
  if (url.hostname === '') throw new RangeError('the URL names no host')
  return value
}

/** The URL itself; of `file:PATH` the first line of that file as it is now. Throws BrokerError CONFIG_INVALID if there is none. */
export function readUpstreamUrl(value: string): string {
  if (!value.startsWith(FILE)) return value
  const file = value.slice(FILE.length)
  try {
    const [line = ''] = readFileSync(file, 'utf8').split('\n', 1)
    if (line.startsWith(FILE)) throw new RangeError('it names another file')
    return parseUpstreamUrl(line.trim())
  } catch (error) {
    if (!(error instanceof Error)) throw error
    throw new BrokerError('CONFIG_INVALID', `no URL of an upstream in ${file}: ${error.message}`, { cause: error })
  }
}
