import { randomBytes, scryptSync } from 'node:crypto'
import { once } from 'node:events'
import { writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { MqttClient } from '../../../src/cli/mqtt-client.ts'
import { formatScryptHash, NOBODYS_HASH } from '../../../src/model/scrypt-hash.ts'
import { startGatewayProcess } from '../../support/gateway-process.ts'
import { packet, text } from '../../support/wire.ts'
import { SLUICE } from '../support/gateway.ts'

/** How long a commit takes: a publish of QoS 1 into a durable queue that nobody reads, one after the other. Milliseconds. */
export interface Commits {
  readonly count: number
  readonly p50Ms: number
  readonly p99Ms: number
}

export interface LoginStorm {
  readonly idle: Commits
  readonly storm: Commits
  /** Until the last client was in. */
  readonly allInMs: number
  /** Clients that had to come again. */
  readonly attempts: number
}

const PASSWORD = 'the same for all'

/** Clients that were never here before all log in at once, with hashes as `sluice passwd` makes them, while a publisher goes on. */
export async function loginStorm({ clients, directory }: { clients: number; directory: string }): Promise<LoginStorm> {
  const hash = usualHash()
  const names = Array.from({ length: clients }, (_, n) => `device-${n}`)
  await writeFile(join(directory, 'users.yaml'), names.map(name => `${name}: { password: "${hash}" }\n`).join(''))
  await using gateway = await startGatewayProcess({
    command: [SLUICE],
    directory,
    config: 'auth: { users_file: users.yaml }\nqueues: { kept: { bind: [ "kept/#" ] } }\nlog: { level: warn }',
  })
  const { hostname: host, port } = new URL(gateway.mqttUrl)
  const publisher = await MqttClient.connect(
    { host, port: Number(port), user: null, password: null, version: 4, clientId: 'publisher' },
    () => 'taken',
  )
  // The first commits make files.
  await commitsWhile(publisher, after(500))
  const idle = await commitsWhile(publisher, after(3000))
  const from = performance.now()
  const logins = Promise.all(names.map(name => logIn({ host, port: Number(port) }, name)))
  const storm = await commitsWhile(publisher, logins)
  const allInMs = performance.now() - from
  await publisher.end()
  const attempts = (await logins).reduce((sum, count) => sum + count, 0)
  return { idle, storm, allInMs, attempts }
}

function usualHash(): string {
  const { salt, key, options } = NOBODYS_HASH
  const fresh = randomBytes(salt.length)
  return formatScryptHash(fresh, scryptSync(PASSWORD, fresh, key.length, options))
}

async function after(ms: number): Promise<void> {
  await new Promise(resolve => setTimeout(resolve, ms))
}

async function commitsWhile(publisher: MqttClient, condition: Promise<unknown>): Promise<Commits> {
  let isOver = false
  const over = condition.finally(() => {
    isOver = true
  })
  const times: number[] = []
  while (!isOver) {
    const from = performance.now()
    await publisher.publish({ topic: 'kept/1', payload: Buffer.alloc(100), qos: 1, retain: false })
    times.push(performance.now() - from)
  }
  await over
  times.sort((a, b) => a - b)
  const at = (share: number): number => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? 0
  return { count: times.length, p50Ms: at(0.5), p99Ms: at(0.99) }
}

/** Resolves with how often the client had to come until it was let in. */
async function logIn(place: { host: string; port: number }, name: string): Promise<number> {
  for (let attempt = 1; ; attempt++) {
    const socket = connect(place)
    socket.write(packet(0x10, text('MQTT'), '04 c2 00 00', text(name), text(name), text(PASSWORD)))
    const [connack] = await Promise.race([once(socket, 'data'), once(socket, 'close')])
    const isIn = connack instanceof Buffer && connack[3] === 0
    socket.destroy()
    if (isIn) return attempt
  }
}
