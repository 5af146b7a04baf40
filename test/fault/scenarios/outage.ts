import assert from 'node:assert/strict'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Report } from '../../../firmware-sim/arrivals.ts'
import { startFleet, withDevices } from '../../../firmware-sim/fleet.ts'
import { fleet as factory } from '../../../firmware-sim/fleets/factory.ts'
import { Random } from '../../../firmware-sim/random.ts'
import { startVerifier } from '../../../firmware-sim/verifier.ts'
import { startRabbit } from '../../../scripts/peers.ts'
import { TcpProxy } from '../../../scripts/tcp-proxy.ts'
import { eventually } from '../../support/eventually.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { forwarding, Gateway, imbalance } from '../support/gateway.ts'
import { faultsOf } from '../support/report.ts'

export interface OutageOptions {
  readonly seed: number
  readonly devices: number
  /** How long the fleet takes readings, faults included. */
  readonly seconds: number
  /** Null: the link is healthy throughout. */
  readonly faults: {
    /** How long RabbitMQ is gone after a SIGKILL before it is started again (which takes some seconds more). */
    readonly downMs: number
    readonly frozenMs: number
    readonly blackHoleMs: number
  } | null
  /** Options of the upstream; the defaults if none. */
  readonly upstream?: Readonly<Record<string, unknown>>
  /** The section `store` of the configuration; the defaults if none. */
  readonly store?: Readonly<Record<string, unknown>>
  readonly say: (line: string) => void
}

export interface OutageFigures {
  readonly report: Report
  /** Times the gateway's link came up again. */
  readonly reconnects: number
  /** Accepted bytes, and those of them that were written to disk. */
  readonly acceptedBytes: number
  readonly writtenBytes: number
}

/** Virtual seconds per real one: the factory's 5 readings a second become 100. */
const SPEED = 20
const CLOSING_DEADLINE_MS = 60_000

/**
 * A fleet publishes through a gateway to a RabbitMQ that is killed twice, frozen once, and once out of reach without a word (black
 * hole). Everything acknowledged must be upstream, in the order promised, and what the gateway sent twice under one id.
 */
export async function outage({
  seed,
  devices,
  seconds,
  faults,
  upstream = {},
  store = {},
  say,
}: OutageOptions): Promise<OutageFigures> {
  const random = new Random(seed)
  await using directory = await tempDir()
  await using rabbit = await startRabbit({ directory: join(directory.path, 'rabbitmq') })
  await using proxy = await TcpProxy.start({ port: rabbit.port })
  const verifier = await startVerifier({
    url: rabbit.url,
    queue: { name: 'arrivals' },
    exchange: { name: 'telemetry', type: 'topic' },
  })
  await using stack = new AsyncDisposableStack()
  stack.defer(() => verifier.stop())
  await using gateway = await Gateway.start({
    directory: join(directory.path, 'gateway'),
    config: { ...forwarding(`amqp://guest:guest@127.0.0.1:${proxy.port}`, { upstream }), store },
  })
  // What comes before the link is up is backlog, and written.
  await gateway.reaches('forwarding')
  const fleet = startFleet(withDevices(factory, devices), { broker: gateway.mqttUrl, seed, speed: SPEED })
  stack.defer(() => fleet.stop({ drainMs: 0 }).then(() => undefined))
  await eventually(() => fleet.stats().online >= devices / 2, { what: 'a fleet that is online' })

  const startedMs = performance.now()
  const elapsed = () => `${Math.round((performance.now() - startedMs) / 1000)} s`
  if (faults === null) {
    say(`${devices} devices, ${seconds} s, all is well`)
    await delay(seconds * 1000)
  } else {
    const restartMs = 5_000
    const faultyMs = 2 * (faults.downMs + restartMs) + faults.frozenMs + faults.blackHoleMs
    const healthyMs = Math.max(1_000, (seconds * 1000 - faultyMs) / 5)
    const killRabbit = async () => {
      await rabbit.kill()
      await delay(faults.downMs)
      await rabbit.restart()
    }
    const steps: readonly (readonly [string, () => Promise<void>])[] = [
      ['RabbitMQ is killed', killRabbit],
      [
        'RabbitMQ is frozen',
        async () => {
          rabbit.freeze()
          await delay(faults.frozenMs)
          rabbit.thaw()
        },
      ],
      ['RabbitMQ is killed', killRabbit],
      [
        'the link is a black hole',
        async () => {
          proxy.blackHole()
          await delay(faults.blackHoleMs)
          proxy.heal()
        },
      ],
    ]
    for (const [what, happens] of steps) {
      await delay(healthyMs * random.between(0.7, 1.3))
      say(`${elapsed()}: ${what}`)
      await happens()
      say(`${elapsed()}: … no longer`)
    }
    await delay(Math.max(0, seconds * 1000 - (performance.now() - startedMs)))
  }

  const ledgers = await fleet.stop()
  const isComplete = await verifier.complete(ledgers, CLOSING_DEADLINE_MS)
  const report = verifier.verify(ledgers)
  const { reconnects } = await gateway.upstream()
  say(
    `${elapsed()}: acknowledged ${report.acknowledged}, arrived ${report.received}, repeated ids ${report.repeatedIds}, ` +
      `replayed ${report.replayed}, lost ${report.lost}, link up again ${reconnects} times`,
  )
  assert.ok(isComplete, `seed ${seed}: ${report.lost} acknowledged messages are not upstream: ${faultsOf(report)}`)
  assert.ok(report.isFaultless, `seed ${seed}: ${faultsOf(report)}`)
  const outbox = await eventually(
    async () => {
      const queue = await gateway.queue('telemetry')
      return queue.depth === 0 && queue
    },
    { what: 'an empty outbox' },
  )
  assert.equal(imbalance(outbox), 0, `seed ${seed}: the ledger is off: ${JSON.stringify(outbox.ledger)}`)
  const metrics = await gateway.metrics()
  assert.equal(await gateway.stop(), 0, gateway.output)
  return {
    report,
    reconnects,
    acceptedBytes: metrics.get('sluice_accepted_bytes_total') ?? Number.NaN,
    writtenBytes: metrics.get('sluice_store_accepted_bytes_total') ?? Number.NaN,
  }
}
