/*
 * Attackers against a running gateway that 100 clients use as they should: three processes, one attacker at a time.
 *
 * Judged is what the clients see, and what the attack leaves behind: messages take no longer than twice as long as undisturbed, memory stays within its limit, nothing is
 * closed or lost, the log stays small, no descriptor stays open, and the attacker has got the documented answer.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readdir, readlink } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { setTimeout as delay } from 'node:timers/promises'
import { freePort } from '../../scripts/free-port.ts'
import { Gateway } from '../fault/support/gateway.ts'
import { watchMemory } from '../fault/support/memory.ts'
import { CertificateAuthority } from '../support/certificates.ts'
import { eventually } from '../support/eventually.ts'
import type { Attacker, Target } from './attacker.ts'
import type { Seen } from './well-behaved-process.ts'

const WELL_BEHAVED = resolve(import.meta.dirname, '../hostile/well-behaved-process.ts')
const ATTACK = resolve(import.meta.dirname, '../hostile/attack-process.ts')
const BYSTANDER = resolve(import.meta.dirname, '../hostile/bystander-process.ts')

/** Before anything is measured: what is slow the first time has been done. */
const WARM_UP_MS = 1_000
/** Beyond the length of the attack, for answers that come late by design. */
const ATTACK_DEADLINE_MS = 45_000
/** Connections that close have been closed after so long, and what they held is given back. */
const CLOSING_DEADLINE_MS = 15_000

/**
 * Resident memory at most: 134 MB of heap (the flags of the executable), 84 MB for `limits.memory` and the quarter it may be exceeded by, 17 MB of unfinished packets, and 85 MB for the
 * runtime, its code and the store.
 */
export const PEAK_BYTES = 320e6
/** Of the log: a burst, and two lines a second (telemetry/limited-log.ts). */
const LOG_BURST_BYTES = 32 * 1024
const LOG_BYTES_PER_S = 1024

/** Bytes of log that an attack of so long may cause. */
export const logLimit = (seconds: number): number => LOG_BURST_BYTES + seconds * LOG_BYTES_PER_S

/** What one attacker did. */
export interface Outcome {
  readonly name: string
  /** What the clients saw meanwhile. */
  readonly seen: Seen
  /** Highest resident memory so far, bytes. */
  readonly peakBytes: number
  /** Printed meanwhile. */
  readonly logBytes: number
  readonly seconds: number
  /** Descriptors that were not open before, but for files of the store, whose number varies by itself. */
  readonly leaked: readonly string[]
  /** What was not as documented; null: all was. */
  readonly fault: string | null
}

export interface Hostilities {
  /** What the clients saw before the first attack, beside processes that keep the machine as busy as an attack does. */
  readonly undisturbed: Seen
  readonly outcomes: readonly Outcome[]
}

/** Starts a gateway and has it attacked. Rejects when it ends by itself. */
export async function hostilities({
  directory,
  config,
  attackers,
  attackMs,
  undisturbedMs,
  say,
}: {
  directory: string
  /** Of the gateway. */
  config: Readonly<Record<string, unknown>>
  attackers: readonly Attacker[]
  /** Of each attack, at least. */
  attackMs: number
  undisturbedMs: number
  say: (line: string) => void
}): Promise<Hostilities> {
  const tlsPort = await freePort()
  const tls = await (await CertificateAuthority.create(directory)).issue('gateway')
  const listeners = { mqtt: { port: 0 }, mqtts: { port: tlsPort, tls } }
  const queues = { jobs: { bind: ['jobs/#'] } }
  await using gateway = await Gateway.start({ directory, config: { listeners, queues, ...config } })
  using clients = await WellBehavedClients.start(gateway.mqttPort)
  const memory = watchMemory(gateway.pid)
  try {
    await clients.during(() => delay(WARM_UP_MS))
    const undisturbed = await clients.during(() => bystanders(undisturbedMs))
    const outcomes: Outcome[] = []
    const target = { mqttPort: gateway.mqttPort, tlsPort, httpPort: gateway.httpPort, attackMs }
    for (const { name } of attackers) {
      const before = await descriptors(gateway)
      const logged = gateway.printedBytes
      const startedMs = performance.now()
      let fault: string | null = null
      const seen = await clients.during(async () => {
        fault = await attack(name, target)
      })
      const seconds = (performance.now() - startedMs) / 1000
      const logBytes = gateway.printedBytes - logged
      const leaked = await leftOpen(gateway, before)
      if (!gateway.isRunning) throw new Error(`the gateway ended during ${name}: ${gateway.output}`)
      const peakBytes = memory.peak.total
      const outcome = { name, seen, peakBytes, logBytes, seconds, leaked, fault }
      outcomes.push(outcome)
      say(line(outcome))
    }
    return { undisturbed, outcomes }
  } finally {
    memory.stop()
  }
}

function line({ name, seen, peakBytes, logBytes, leaked, fault }: Outcome): string {
  const { p50, p90, p99, most } = seen.latencyMs
  const figures = [
    `p50 ${p50.toFixed(2)} p90 ${p90.toFixed(2)} p99 ${p99.toFixed(2)} most ${most.toFixed(0)} ms`,
    `${Math.round(peakBytes / 1e6)} MB`,
    `${logBytes} B of log`,
  ]
  if (seen.missing > 0) figures.push(`${seen.missing} of ${seen.messages} missing`)
  if (seen.closed > 0) figures.push(`${seen.closed} closed`)
  if (leaked.length > 0) figures.push(`leaked ${leaked.slice(0, 3).join(' ')}`)
  if (fault !== null) figures.push(fault)
  return `${name}: ${figures.join(', ')}`
}

class WellBehavedClients {
  readonly #child: ReturnType<typeof fork>

  private constructor(child: ReturnType<typeof fork>) {
    this.#child = child
  }

  static async start(port: number): Promise<WellBehavedClients> {
    const child = fork(WELL_BEHAVED, [String(port)], { execArgv: [] })
    const [said] = await Promise.race([once(child, 'message'), once(child, 'exit')])
    if (said !== 'ready') throw new Error(`the clients ended with ${said}`)
    return new WellBehavedClients(child)
  }

  /** What they see while `act` goes on. */
  async during(act: () => Promise<unknown>): Promise<Seen> {
    this.#child.send('begin')
    await act()
    const answered = once(this.#child, 'message')
    this.#child.send('end')
    const [seen] = await answered
    return seen
  }

  [Symbol.dispose](): void {
    this.#child.disconnect()
  }
}

/** As many as are busy during an attack: the attacker, and the gateway it keeps busy. */
async function bystanders(ms: number): Promise<void> {
  const both = [1, 2].map(() => once(fork(BYSTANDER, [String(ms)], { execArgv: [] }), 'close'))
  await Promise.all(both)
}

/** Why it was not as documented; null: it was. */
async function attack(name: string, target: Target): Promise<string | null> {
  const child = fork(ATTACK, [name, JSON.stringify(target)], {
    execArgv: [],
    stdio: ['ignore', 'inherit', 'pipe', 'ipc'],
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), target.attackMs + ATTACK_DEADLINE_MS)
  const said = child.stderr === null ? '' : text(child.stderr)
  const [status, signal] = await once(child, 'close')
  clearTimeout(timer)
  if (status === 0) return null
  return (await said) || `ended by ${signal ?? status}`
}

/** Open descriptors by what they lead to, but for the store's files. */
async function descriptors(gateway: Gateway): Promise<string[]> {
  const directory = `/proc/${gateway.pid}/fd`
  const names = await readdir(directory)
  const targets = await Promise.all(names.map(name => readlink(join(directory, name)).catch(() => '')))
  return targets.filter(target => target !== '' && !target.startsWith(gateway.dataDirectory))
}

/** What is open that was not before, once it has had time to close. */
async function leftOpen(gateway: Gateway, before: readonly string[]): Promise<string[]> {
  const known = new Set(before)
  let left: string[] = []
  await eventually(
    async () => {
      left = (await descriptors(gateway)).filter(target => !known.has(target))
      return left.length === 0
    },
    { deadlineMs: CLOSING_DEADLINE_MS, intervalMs: 50 },
  ).catch(() => undefined)
  return left
}
