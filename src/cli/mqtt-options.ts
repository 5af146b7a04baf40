import { readFileSync } from 'node:fs'
import { type Command, InvalidArgumentError } from 'commander'
import { Failure } from './failure.ts'
import type { MqttAddress, MqttVersion } from './mqtt-client.ts'
import type { TlsTrust } from './mqtt-tls.ts'
import { wholeNumber } from './options.ts'

/** The options that `pub` and `sub` have in common, in the letters of mosquitto_pub and mosquitto_sub. */
export interface MqttOptions {
  readonly host: string
  readonly port?: number
  readonly tls?: true
  readonly cafile?: string
  readonly cert?: string
  readonly key?: string
  readonly insecure?: true
  readonly url?: string
  readonly user?: string
  readonly password?: string
  readonly id?: string
  readonly protocol: MqttVersion
  readonly qos: 0 | 1 | 2
}

const PORT = 1883
const TLS_PORT = 8883

const VERSIONS: ReadonlyMap<string, MqttVersion> = new Map([
  ...(['3.1', '31', 'mqttv31'] as const).map(name => [name, 3] as const),
  ...(['3.1.1', '311', 'mqttv311'] as const).map(name => [name, 4] as const),
  ...(['5', '5.0', 'mqttv5'] as const).map(name => [name, 5] as const),
])

/** Adds them to a command. */
export function withMqtt(command: Command): Command {
  return command
    .option('-h, --host <host>', 'host of the broker', '127.0.0.1')
    .option('-p, --port <port>', 'its port (default: 1883, with TLS 8883)', wholeNumber({ min: 1, max: 65_535 }))
    .option(
      '--url <url>',
      'instead of both: mqtt://user:password@host:port; mqtts:// is with TLS, ws://…/path and wss:// are over WebSocket',
    )
    .option('--tls', 'TLS, with the authorities Node knows')
    .option('--cafile <file>', 'TLS, with these authorities (PEM)')
    .option('--cert <file>', 'own certificate (PEM), with --key')
    .option('--key <file>', 'its private key (PEM)')
    .option('--insecure', 'with TLS: take a certificate for other hosts, too')
    .option('-u, --user <name>', 'user name')
    .option('-P, --password <password>', 'password')
    .option('-i, --id <client-id>', 'client id (default: one of its own)')
    .option('-V, --protocol <version>', 'MQTT version: 3.1, 3.1.1, 5', parseVersion, 5)
    .option('-q, --qos <qos>', 'quality of service: 0, 1, 2', wholeNumber({ min: 0, max: 2 }), 0)
}

/** Where to connect, from --url or the single options. */
export function readAddress(options: MqttOptions, role: 'pub' | 'sub'): MqttAddress {
  const url = options.url === undefined ? null : readUrl(options.url)
  const isTls =
    url?.protocol === 'mqtts:' ||
    url?.protocol === 'wss:' ||
    [options.tls, options.cafile, options.cert, options.key].some(given => given !== undefined)
  const address = {
    host: options.host,
    port: options.port ?? (isTls ? TLS_PORT : PORT),
    ...(isTls && { tls: readTrust(options) }),
    user: options.user ?? null,
    password: options.password ?? null,
    version: options.protocol,
    clientId: options.id ?? `sluice-${role}-${process.pid}`,
  }
  if (url === null) return address
  const isWebSocket = url.protocol === 'ws:' || url.protocol === 'wss:'
  const [port, tlsPort] = isWebSocket ? [80, 443] : [PORT, TLS_PORT]
  return {
    ...address,
    ...(isWebSocket && { webSocketPath: url.pathname === '/' ? '/mqtt' : `${url.pathname}${url.search}` }),
    host: url.hostname.replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? (isTls ? tlsPort : port) : Number(url.port),
    user: url.username === '' ? address.user : decodeURIComponent(url.username),
    password: url.password === '' ? address.password : decodeURIComponent(url.password),
  }
}

function readUrl(text: string): URL {
  const url = URL.parse(text)
  if (url === null || !['mqtt:', 'mqtts:', 'ws:', 'wss:'].includes(url.protocol) || url.hostname === '') {
    throw new Failure(
      `"${text}" is no address of a broker; --url takes mqtt://user:password@host:port, mqtts:// for TLS, ws:// or wss:// for WebSocket.`,
    )
  }
  return url
}

function readTrust({ cafile, cert, key, insecure }: MqttOptions): TlsTrust {
  if ((cert === undefined) !== (key === undefined)) throw new Failure('--cert and --key belong together; give both.')
  const read = (option: string, file: string | undefined): Buffer | null => {
    if (file === undefined) return null
    try {
      return readFileSync(file)
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause)
      throw new Failure(`The file of ${option} can't be read: ${reason}.`, { cause })
    }
  }
  return {
    ca: read('--cafile', cafile),
    cert: read('--cert', cert),
    key: read('--key', key),
    checksHost: insecure === undefined,
  }
}

function parseVersion(text: string): MqttVersion {
  const version = VERSIONS.get(text)
  if (version === undefined) throw new InvalidArgumentError('Accepted are 3.1, 3.1.1 and 5.')
  return version
}
