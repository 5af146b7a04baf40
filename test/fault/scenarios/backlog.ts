import assert from 'node:assert/strict'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { startVerifier } from '../../../firmware-sim/verifier.ts'
import { startRabbit } from '../../../scripts/peers.ts'
import { TcpProxy } from '../../../scripts/tcp-proxy.ts'
import { eventually } from '../../support/eventually.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { forwarding, Gateway, imbalance } from '../support/gateway.ts'
import { LoadClient } from '../support/load-client.ts'
import { type Residence, watchMemory } from '../support/memory.ts'
import { faultsOf } from '../support/report.ts'
import { startUp } from '../support/start-up.ts'

export interface BacklogOptions {
  readonly messages: number
  /** How long the gateway sits on the backlog before the upstream comes up. */
  readonly waitMs: number
  readonly say: (line: string) => void
}

export interface BacklogFigures {
  /** From the start of the process to the first CONNACK, with the backlog on disk: after SIGTERM and after SIGKILL. */
  readonly startUpMs: { readonly afterStop: number; readonly afterKill: number }
  /** Highest resident memory in each phase. */
  readonly peak: { readonly filling: Residence; readonly waiting: Residence; readonly draining: Residence }
  readonly filledPerS: number
  readonly drainedPerS: number
}

const PUBLISHERS = 10
const WINDOW = 50
const PAYLOAD_BYTES = 256
/** Slower than this is a failure by itself. */
const SLOWEST_DRAIN_PER_S = 500

/** An outbox takes a long backlog while the upstream is away, the gateway is started again on it, and everything arrives. */
export async function backlog({ messages, waitMs, say }: BacklogOptions): Promise<BacklogFigures> {
  await using directory = await tempDir()
  await using rabbit = await startRabbit({ directory: join(directory.path, 'rabbitmq') })
  await using proxy = await TcpProxy.start({ port: rabbit.port })
  proxy.refuse()
  const verifier = await startVerifier({
    url: rabbit.url,
    queue: { name: 'arrivals' },
    exchange: { name: 'telemetry', type: 'topic' },
  })
  await using stack = new AsyncDisposableStack()
  stack.defer(() => verifier.stop())
  await using gateway = await Gateway.start({
    directory: join(directory.path, 'gateway'),
    config: forwarding(`amqp://guest:guest@127.0.0.1:${proxy.port}`, {
      upstream: { reconnect: { first: '50ms', max: '500ms' } },
      route: { limits: { messages: 2 * messages } },
    }),
  })

  const clients: LoadClient[] = []
  for (let n = 1; n <= PUBLISHERS; n++) {
    clients.push(
      await LoadClient.connect({
        id: `load-${n}`,
        port: gateway.mqttPort,
        window: WINDOW,
        payloadBytes: PAYLOAD_BYTES,
      }),
    )
  }
  const filling = watchMemory(gateway.pid)
  const fillStartedMs = performance.now()
  await Promise.all(clients.map(client => client.publish(messages / PUBLISHERS)))
  const filledPerS = messages / ((performance.now() - fillStartedMs) / 1000)
  filling.stop()
  await Promise.all(clients.map(client => client.close()))
  say(`filled: ${messages} messages, ${Math.round(filledPerS)}/s, ${megabytes(filling.peak)}`)
  assert.equal((await gateway.queue('telemetry')).depth, messages)

  assert.equal(await gateway.stop(), 0, gateway.output)
  const afterStop = await startUp(gateway)
  await gateway.kill()
  const afterKill = await startUp(gateway)
  say(`started again in ${Math.round(afterStop)} ms, after SIGKILL in ${Math.round(afterKill)} ms`)
  const outbox = await gateway.queue('telemetry')
  assert.equal(outbox.depth, messages)
  assert.equal(imbalance(outbox), 0, `the ledger is off: ${JSON.stringify(outbox.ledger)}`)

  const waiting = watchMemory(gateway.pid)
  await delay(waitMs)
  waiting.stop()
  say(`waiting: ${megabytes(waiting.peak)}`)

  const draining = watchMemory(gateway.pid)
  proxy.heal()
  const drainStartedMs = performance.now()
  const ledgers = clients.map(client => client.ledger.snapshot())
  const isComplete = await verifier.complete(ledgers, (messages / SLOWEST_DRAIN_PER_S) * 1000)
  const drainedPerS = messages / ((performance.now() - drainStartedMs) / 1000)
  const report = verifier.verify(ledgers)
  assert.ok(isComplete && report.isFaultless, faultsOf(report))
  await eventually(async () => (await gateway.queue('telemetry')).depth === 0, { what: 'an empty outbox' })
  draining.stop()
  say(`drained: ${Math.round(drainedPerS)}/s, repeated ids ${report.repeatedIds}, ${megabytes(draining.peak)}`)
  assert.equal(await gateway.stop(), 0, gateway.output)
  return {
    startUpMs: { afterStop, afterKill },
    peak: { filling: filling.peak, waiting: waiting.peak, draining: draining.peak },
    filledPerS,
    drainedPerS,
  }
}

export function megabytes({ anonymous, total }: Residence): string {
  return `${Math.round(anonymous / 1e6)} MB anonymous, ${Math.round(total / 1e6)} MB in all`
}
