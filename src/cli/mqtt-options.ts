import { type Command, InvalidArgumentError } from 'commander'
import { Failure } from './failure.ts'
import type { MqttAddress, MqttVersion } from './mqtt-client.ts'
import { wholeNumber } from './options.ts'

/** The options that `pub` and `sub` have in common, in the letters of mosquitto_pub and mosquitto_sub. */
export interface MqttOptions {
  readonly host: string
  readonly port: number
  readonly url?: string
  readonly user?: string
  readonly password?: string
  readonly id?: string
  readonly protocol: MqttVersion
  readonly qos: 0 | 1 | 2
}

const VERSIONS: ReadonlyMap<string, MqttVersion> = new Map([
  ...(['3.1', '31', 'mqttv31'] as const).map(name => [name, 3] as const),
  ...(['3.1.1', '311', 'mqttv311'] as const).map(name => [name, 4] as const),
  ...(['5', '5.0', 'mqttv5'] as const).map(name => [name, 5] as const),
])

/** Adds them to a command. */
export function withMqtt(command: Command): Command {
  return command
    .option('-h, --host <host>', 'host of the broker', '127.0.0.1')
    .option('-p, --port <port>', 'its port', wholeNumber({ min: 1, max: 65_535 }), 1883)
    .option('--url <url>', 'instead of both: mqtt://user:password@host:port')
    .option('-u, --user <name>', 'user name')
    .option('-P, --password <password>', 'password')
    .option('-i, --id <client-id>', 'client id (default: one of its own)')
    .option('-V, --protocol <version>', 'MQTT version: 3.1, 3.1.1, 5', parseVersion, 5)
    .option('-q, --qos <qos>', 'quality of service: 0, 1, 2', wholeNumber({ min: 0, max: 2 }), 0)
}

/** Where to connect, from --url or the single options. */
export function readAddress(options: MqttOptions, role: 'pub' | 'sub'): MqttAddress {
  const address = {
    host: options.host,
    port: options.port,
    user: options.user ?? null,
    password: options.password ?? null,
    version: options.protocol,
    clientId: options.id ?? `sluice-${role}-${process.pid}`,
  }
  if (options.url === undefined) return address
  const url = URL.parse(options.url)
  if (url?.protocol !== 'mqtt:' || url.hostname === '') {
    throw new Failure(`"${options.url}" is no address of a broker; --url takes mqtt://user:password@host:port.`)
  }
  return {
    ...address,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? 1883 : Number(url.port),
    user: url.username === '' ? address.user : decodeURIComponent(url.username),
    password: url.password === '' ? address.password : decodeURIComponent(url.password),
  }
}

function parseVersion(text: string): MqttVersion {
  const version = VERSIONS.get(text)
  if (version === undefined) throw new InvalidArgumentError('Accepted are 3.1, 3.1.1 and 5.')
  return version
}
