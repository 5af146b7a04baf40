import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants, existsSync } from 'node:fs'
import { mkdir, open, readFile, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { delimiter, join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs, promisify } from 'node:util'
import { freePort } from './free-port.ts'

/*
 * Other brokers as peers for tests and for the demo: RabbitMQ and mosquitto, each instance on free ports of 127.0.0.1, with a
 * directory of its own and no trace outside it. Several run at once. Every process is known by its pid and ended by it; when
 * this process ends, in whatever way, peers that still run are killed.
 */

/** A running broker of somebody else. */
export interface Peer extends AsyncDisposable {
  readonly url: string
  readonly port: number
  /** Of the process that serves; another one after `restart`. Throws while the peer is down. */
  readonly pid: number
  /** SIGKILL, as by the kernel's out-of-memory killer; resolves when the process is gone. */
  kill(): Promise<void>
  /** Up again on the same port with the same data, whether it ran or had been killed; resolves when it answers. */
  restart(): Promise<void>
  /** SIGSTOP: connections stay open and nothing answers. */
  freeze(): void
  /** SIGCONT, after `freeze`. */
  thaw(): void
  /** Orderly shutdown of all that was started; idempotent. */
  stop(): Promise<void>
}

export interface RabbitPeer extends Peer {
  /** Of its TLS listener, without a user; null: it has none. */
  readonly tlsUrl: string | null
  /** Runs rabbitmqctl against this instance and returns what it printed. */
  ctl(args: readonly string[]): Promise<string>
  /**
   * Has the names of quorum queues written to disk now. RabbitMQ 3.10 does so 3 s after a queue was declared; a queue whose broker
   * is killed before that has no leader ever after, and nacks everything. Only for tests that kill that early.
   */
  flushQueueNames(): Promise<void>
}

export interface PackageSource {
  /** Whether a missing package may be installed with apt-get (needs root or sudo without password). */
  readonly mayInstall: boolean
  /** Progress of an installation, a line at a time. */
  readonly onProgress: (line: string) => void
}

const DEFAULT_SOURCE: PackageSource = {
  mayInstall: process.env.SLUICE_PEERS_INSTALL !== 'no',
  onProgress: line => process.stderr.write(`${line}\n`),
}

const RABBIT_SERVER = '/usr/lib/rabbitmq/bin/rabbitmq-server'
const RABBIT_CTL = '/usr/lib/rabbitmq/bin/rabbitmqctl'
const BOOT_DEADLINE_MS = 60_000
const STOP_GRACE_MS = 20_000
const PROBE_PERIOD_MS = 50
/** Erlang: syncs the table in which quorum queues are registered. */
const FLUSH_QUEUE_NAMES = '#{names := #{directory_rev := Table}} = ra_system:fetch(quorum_queues), dets:sync(Table).'
const PROBE_DEADLINE_MS = 2_000

const run = promisify(execFile)

// ---- Finding and installing --------------------------------------------------------------------------------------------

/** Path of the real rabbitmq-server script (Debian's one in PATH switches user); installs the package if it may. */
export async function findRabbit(source: PackageSource = DEFAULT_SOURCE): Promise<string> {
  return findOrInstall({ name: 'RabbitMQ', package: 'rabbitmq-server', find: () => executable(RABBIT_SERVER), source })
}

/** Path of mosquitto; installs the package if it may. */
export async function findMosquitto(source: PackageSource = DEFAULT_SOURCE): Promise<string> {
  return findOrInstall({ name: 'mosquitto', package: 'mosquitto', find: () => inPath('mosquitto'), source })
}

const FAKETIME_LIBRARIES = ['x86_64', 'aarch64'].map(arch => `/usr/lib/${arch}-linux-gnu/faketime/libfaketimeMT.so.1`)

/** Path of the library that turns a process' clock; installs the package if it may. */
export async function findFaketime(source: PackageSource = DEFAULT_SOURCE): Promise<string> {
  const find = () => FAKETIME_LIBRARIES.find(path => existsSync(path)) ?? null
  return findOrInstall({ name: 'libfaketime', package: 'libfaketime', find, source })
}

interface Wanted {
  readonly name: string
  readonly package: string
  readonly find: () => string | null
  readonly source: PackageSource
}

async function findOrInstall(wanted: Wanted): Promise<string> {
  const found = wanted.find()
  if (found !== null) return found
  const advice = `install it with: sudo apt-get install ${wanted.package}`
  if (!wanted.source.mayInstall) throw new Error(`${wanted.name} is not installed; ${advice}`)
  await installPackage(wanted.package, wanted.source.onProgress).catch(error => {
    throw new Error(`${wanted.name} is not installed and could not be: ${messageOf(error)}; ${advice}`, {
      cause: error,
    })
  })
  const installed = wanted.find()
  if (installed === null) throw new Error(`${wanted.name} was installed but is not where Debian puts it; ${advice}`)
  return installed
}

/** Installs a Debian package without letting it start a service: policy-rc.d answers 101 (forbidden) meanwhile and is put back after. */
const INSTALL_SCRIPT = `
set -e
policy=/usr/sbin/policy-rc.d
saved=$(mktemp -d)
restore() {
  if [ -e "$saved/policy-rc.d" ]; then cp -p "$saved/policy-rc.d" "$policy"; else rm -f "$policy"; fi
  rm -rf "$saved"
}
trap restore EXIT
trap 'exit 1' HUP INT TERM
if [ -e "$policy" ]; then cp -p "$policy" "$saved/policy-rc.d"; fi
printf '#!/bin/sh\\nexit 101\\n' > "$policy"
chmod 755 "$policy"
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get --option DPkg::Lock::Timeout=120 install --yes --no-install-recommends "$1"
`

/** Runs apt-get as root or by sudo; rejects with its last line when it fails. */
export async function installPackage(name: string, onProgress: (line: string) => void): Promise<void> {
  if (inPath('apt-get') === null) throw new Error('this machine has no apt-get')
  const command = ['sh', '-c', INSTALL_SCRIPT, 'install', name]
  if (process.getuid?.() !== 0) {
    const sudo = inPath('sudo')
    if (sudo === null) throw new Error('installing needs root, and there is no sudo')
    command.unshift(sudo, '--non-interactive')
  }
  const [program = 'sh', ...args] = command
  onProgress(`installing the Debian package ${name}`)
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let lastLine = ''
  const forward = (text: string) => {
    for (const line of text.split('\n')) {
      if (line.trim() === '') continue
      lastLine = line.trim()
      onProgress(lastLine)
    }
  }
  child.stdout.setEncoding('utf8').on('data', forward)
  child.stderr.setEncoding('utf8').on('data', forward)
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(lastLine === '' ? `apt-get ended with status ${code}` : lastLine)
}

function executable(path: string): string | null {
  try {
    accessSync(path, constants.X_OK)
    return path
  } catch {
    return null
  }
}

/** Also looks in /usr/sbin, which an ordinary user's PATH lacks and where Debian puts servers. */
function inPath(program: string): string | null {
  const directories = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/usr/bin']
  for (const directory of directories) {
    const path = executable(join(directory, program))
    if (path !== null) return path
  }
  return null
}

// ---- Processes ---------------------------------------------------------------------------------------------------------

interface Command {
  readonly program: string
  readonly args: readonly string[]
  readonly environment: NodeJS.ProcessEnv
  readonly directory: string
  /** File that takes what the process prints. */
  readonly output: string
}

/** One process of a peer, from its start to its end. */
class PeerProcess {
  readonly pid: number
  readonly #child: ChildProcess
  readonly #gone: Promise<unknown>

  static async start(command: Command): Promise<PeerProcess> {
    const output = await open(command.output, 'a')
    // A process group of its own: Ctrl-C in the terminal reaches this process only, which then stops the peer in order.
    const child = spawn(command.program, command.args, {
      cwd: command.directory,
      env: command.environment,
      stdio: ['ignore', output.fd, output.fd],
      detached: true,
    })
    try {
      await once(child, 'spawn')
    } finally {
      await output.close()
    }
    return new PeerProcess(child)
  }

  private constructor(child: ChildProcess) {
    if (child.pid === undefined) throw new TypeError('a spawned process has a pid')
    this.pid = child.pid
    this.#child = child
    const watcher = watch(child.pid)
    this.#gone = once(child, 'exit').finally(() => watcher.kill('SIGKILL'))
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name)
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.#gone
  }

  /** SIGTERM (which a frozen process sees only once thawed), and SIGKILL after the grace. */
  async stop(): Promise<void> {
    if (!this.isRunning) return
    this.signal('SIGTERM')
    this.signal('SIGCONT')
    const timer = setTimeout(() => this.signal('SIGKILL'), STOP_GRACE_MS)
    await this.#gone
    clearTimeout(timer)
  }
}

/** A shell that kills the process `pid` when the pipe to it closes, that is when this process has ended: by SIGKILL too. */
function watch(pid: number): ChildProcess {
  const watcher = spawn('/bin/sh', ['-c', 'read -r line; kill -KILL "$1"', 'watch', String(pid)], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  watcher.on('error', error => {
    throw new Error('no shell to watch over a peer', { cause: error })
  })
  return watcher
}

interface Server {
  readonly name: string
  readonly url: string
  readonly port: number
  readonly command: Command
  /** What a new connection says first, and how the answer starts when the server is ready. */
  readonly greeting: Buffer
  readonly answer: Buffer
}

/** What both peers have in common: one server process that can be killed, frozen and started again. */
class ServerPeer implements Peer {
  readonly #server: Server
  #process: PeerProcess | null = null

  constructor(server: Server) {
    this.#server = server
  }

  get url(): string {
    return this.#server.url
  }

  get port(): number {
    return this.#server.port
  }

  get pid(): number {
    return this.#running().pid
  }

  async start(): Promise<void> {
    const { command, name } = this.#server
    this.#process = await PeerProcess.start(command).catch(error => {
      throw new Error(`${name} could not be started: ${messageOf(error)}`, { cause: error })
    })
    const deadline = performance.now() + BOOT_DEADLINE_MS
    while (!(await this.#answers())) {
      if (!this.#process.isRunning) throw new Error(`${name} ended while starting: ${await lastLines(command.output)}`)
      if (performance.now() > deadline) {
        await this.#process.kill()
        throw new Error(
          `${name} did not answer within ${BOOT_DEADLINE_MS / 1000} s: ${await lastLines(command.output)}`,
        )
      }
      await delay(PROBE_PERIOD_MS)
    }
  }

  async kill(): Promise<void> {
    await this.#running().kill()
  }

  async restart(): Promise<void> {
    await this.stop()
    await this.start()
  }

  freeze(): void {
    this.#running().signal('SIGSTOP')
  }

  thaw(): void {
    this.#running().signal('SIGCONT')
  }

  async stop(): Promise<void> {
    await this.#process?.stop()
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.stop()
  }

  #running(): PeerProcess {
    if (!this.#process?.isRunning) throw new Error(`${this.#server.name} on port ${this.port} is not running`)
    return this.#process
  }

  /** Whether a connection made now is greeted as a server that is ready does. */
  async #answers(): Promise<boolean> {
    const { port, greeting, answer } = this.#server
    const socket = connect({ host: '127.0.0.1', port })
    try {
      const signal = AbortSignal.timeout(PROBE_DEADLINE_MS)
      socket.write(greeting)
      const [bytes] = await once(socket, 'data', { signal })
      return bytes.subarray(0, answer.length).equals(answer)
    } catch {
      // Refused, closed or silent: not yet.
      return false
    } finally {
      // A late error of the destroyed socket says nothing new.
      socket.on('error', () => undefined)
      socket.destroy()
    }
  }
}

async function lastLines(file: string): Promise<string> {
  const text = await readFile(file, 'utf8')
  return text.trim().split('\n').slice(-5).join(' | ') || 'it printed nothing'
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

// ---- RabbitMQ ----------------------------------------------------------------------------------------------------------

export interface RabbitOptions {
  /** Takes all files of the instance; made if missing, kept by `stop`. Data found there is used again. */
  readonly directory: string
  /** Default: a free one. */
  readonly port?: number
  /** Above it RabbitMQ blocks publishing connections. */
  readonly memoryMiB?: number
  /** Below it RabbitMQ blocks publishing connections. */
  readonly diskFreeMiB?: number
  /** Files in PEM: listens with TLS too, on a free port, and takes a client certificate of that authority as a login (SASL EXTERNAL, user by common name). */
  readonly tls?: { readonly ca: string; readonly cert: string; readonly key: string }
  readonly source?: PackageSource
}

const AMQP_HEADER = Buffer.from('AMQP\x00\x00\x09\x01', 'latin1')
/** A method frame on channel 0: connection.start. */
const AMQP_START = Buffer.from([1, 0, 0])

function tlsSettings({ ca, cert, key }: NonNullable<RabbitOptions['tls']>, port: number | null): string[] {
  return [
    `listeners.ssl.1 = 127.0.0.1:${port}`,
    `ssl_options.cacertfile = ${ca}`,
    `ssl_options.certfile = ${cert}`,
    `ssl_options.keyfile = ${key}`,
    'ssl_options.verify = verify_peer',
    'ssl_options.fail_if_no_peer_cert = false',
    'ssl_cert_login_from = common_name',
    'auth_mechanisms.1 = PLAIN',
    'auth_mechanisms.2 = EXTERNAL',
  ]
}

/** Starts a private RabbitMQ (user guest, password guest, no plugins but for TLS) and waits until it answers the AMQP handshake. */
export async function startRabbit(options: RabbitOptions): Promise<RabbitPeer> {
  const { memoryMiB = 1024, diskFreeMiB = 50, source = DEFAULT_SOURCE } = options
  const program = await findRabbit(source)
  const directory = resolve(options.directory)
  await mkdir(directory, { recursive: true })
  const port = options.port ?? (await freePort())
  const distributionPort = await freePort()
  const mapperPort = await freePort()
  const file = (name: string) => join(directory, name)
  const settings = [
    `listeners.tcp.1 = 127.0.0.1:${port}`,
    'loopback_users = none',
    `vm_memory_high_watermark.absolute = ${memoryMiB}MiB`,
    `disk_free_limit.absolute = ${diskFreeMiB}MB`,
    // Quorum queues keep their log in memory up to this size; the default of 512 MB is meant for a server.
    'raft.wal_max_size_bytes = 67108864',
  ]
  const tlsPort = options.tls === undefined ? null : await freePort()
  if (options.tls !== undefined) settings.push(...tlsSettings(options.tls, tlsPort))
  await writeFile(file('rabbitmq.conf'), `${settings.join('\n')}\n`)
  await writeFile(file('enabled_plugins'), options.tls === undefined ? '[].\n' : '[rabbitmq_auth_mechanism_ssl].\n')
  // Keeps the machine's own /etc/rabbitmq/rabbitmq-env.conf out.
  await writeFile(file('rabbitmq-env.conf'), '')
  const environment: NodeJS.ProcessEnv = {
    PATH: `${process.env.PATH ?? ''}${delimiter}/usr/sbin${delimiter}/usr/bin${delimiter}/bin`,
    LANG: 'C.UTF-8',
    // The Erlang cookie is kept in HOME, the crash dump in the working directory.
    HOME: directory,
    ERL_EPMD_PORT: String(mapperPort),
    ERL_EPMD_ADDRESS: '127.0.0.1',
    // The name must not depend on the port: the data directory is only valid for a node of the same name.
    RABBITMQ_NODENAME: 'peer@localhost',
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distributionPort),
    RABBITMQ_MNESIA_BASE: file('data'),
    RABBITMQ_LOG_BASE: file('log'),
    RABBITMQ_CONFIG_FILE: file('rabbitmq.conf'),
    RABBITMQ_CONF_ENV_FILE: file('rabbitmq-env.conf'),
    RABBITMQ_ENABLED_PLUGINS_FILE: file('enabled_plugins'),
    RABBITMQ_GENERATED_CONFIG_DIR: file('generated'),
    // The port mapper is ours: one started by Erlang becomes a daemon that nobody would stop.
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}',
  }
  const mapperProgram = inPath('epmd')
  if (mapperProgram === null) throw new Error('epmd is missing; install it with: sudo apt-get install erlang-base')
  const mapper = await PeerProcess.start({
    program: mapperProgram,
    args: ['-port', String(mapperPort), '-address', '127.0.0.1'],
    environment,
    directory,
    output: file('epmd.out'),
  })
  const server = new ServerPeer({
    name: 'RabbitMQ',
    url: `amqp://guest:guest@127.0.0.1:${port}`,
    port,
    // `detached` makes the script replace itself by the Erlang machine, so that the pid is the one to signal.
    command: {
      program,
      args: [],
      environment: { ...environment, detached: 'yes' },
      directory,
      output: file('rabbitmq.out'),
    },
    greeting: AMQP_HEADER,
    answer: AMQP_START,
  })
  try {
    await server.start()
  } catch (error) {
    await mapper.stop()
    throw error
  }
  const ctl = async (args: readonly string[]) => {
    const { stdout } = await run(RABBIT_CTL, args, { env: environment, cwd: directory })
    return stdout
  }
  const stop = async () => {
    await server.stop()
    await mapper.stop()
  }
  return {
    url: server.url,
    tlsUrl: tlsPort === null ? null : `amqps://localhost:${tlsPort}`,
    port,
    get pid() {
      return server.pid
    },
    kill: () => server.kill(),
    restart: () => server.restart(),
    freeze: () => server.freeze(),
    thaw: () => server.thaw(),
    ctl,
    flushQueueNames: async () => {
      await ctl(['eval', FLUSH_QUEUE_NAMES])
    },
    stop,
    [Symbol.asyncDispose]: stop,
  }
}

// ---- mosquitto ---------------------------------------------------------------------------------------------------------

export interface MosquittoOptions {
  /** Takes the configuration, the log and, where `config` asks for persistence, the data. */
  readonly directory: string
  /** Further lines of mosquitto.conf. */
  readonly config?: string
  /** Default: a free one. */
  readonly port?: number
  readonly source?: PackageSource
}

/** CONNECT of MQTT 3.1.1, clean session, client id "peers-probe". */
const MQTT_CONNECT = Buffer.from('\x10\x17\x00\x04MQTT\x04\x02\x00\x3c\x00\x0bpeers-probe', 'latin1')
/** CONNACK, whatever it answers: a server that refuses the probe is ready too. */
const MQTT_CONNACK = Buffer.from([0x20, 0x02])

/** Starts a private mosquitto (anonymous clients allowed) and waits until it answers CONNECT. */
export async function startMosquitto(options: MosquittoOptions): Promise<Peer> {
  const { config = '', source = DEFAULT_SOURCE } = options
  const program = await findMosquitto(source)
  const directory = resolve(options.directory)
  await mkdir(directory, { recursive: true })
  const port = options.port ?? (await freePort())
  const lines = [`listener ${port} 127.0.0.1`, 'allow_anonymous true', `persistence_location ${directory}/`, config]
  // Started by root it would change to its own user, who can't enter a private directory.
  if (process.getuid?.() === 0) lines.unshift('user root')
  const file = join(directory, 'mosquitto.conf')
  await writeFile(file, `${lines.join('\n')}\n`)
  const peer = new ServerPeer({
    name: 'mosquitto',
    url: `mqtt://127.0.0.1:${port}`,
    port,
    command: {
      program,
      args: ['-c', file],
      environment: process.env,
      directory,
      output: join(directory, 'mosquitto.out'),
    },
    greeting: MQTT_CONNECT,
    answer: MQTT_CONNACK,
  })
  await peer.start()
  return peer
}

// ---- Command line ------------------------------------------------------------------------------------------------------

const USAGE = `Starts a private peer broker and prints its URL; Ctrl-C stops it.

  peers.ts rabbitmq  --directory DIR [--port N] [--no-install]
  peers.ts mosquitto --directory DIR [--port N] [--config FILE] [--no-install]
  peers.ts install   install RabbitMQ and mosquitto if they are missing`

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    allowNegative: true,
    options: {
      directory: { type: 'string' },
      port: { type: 'string' },
      config: { type: 'string' },
      install: { type: 'boolean', default: true },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(`${USAGE}\n`)
    return
  }
  const source: PackageSource = { ...DEFAULT_SOURCE, mayInstall: values.install }
  const [kind] = positionals
  if (kind === 'install') {
    process.stdout.write(`${await findRabbit(source)}\n${await findMosquitto(source)}\n`)
    return
  }
  const { directory } = values
  const port = values.port === undefined ? await freePort() : Number(values.port)
  if (directory === undefined || !Number.isInteger(port) || (kind !== 'rabbitmq' && kind !== 'mosquitto')) {
    process.stderr.write(`${USAGE}\n`)
    process.exitCode = 2
    return
  }
  if (values.config !== undefined && !existsSync(values.config)) throw new Error(`no such file: ${values.config}`)
  const config = values.config === undefined ? '' : await readFile(values.config, 'utf8')
  const stopped = Promise.race([once(process, 'SIGINT'), once(process, 'SIGTERM')])
  const options = { directory, port, source }
  await using peer = kind === 'rabbitmq' ? await startRabbit(options) : await startMosquitto({ ...options, config })
  process.stdout.write(`${peer.url}\n`)
  await stopped
}

if (import.meta.main) {
  await main().catch(error => {
    process.stderr.write(`${messageOf(error)}\n`)
    process.exitCode = 1
  })
}
