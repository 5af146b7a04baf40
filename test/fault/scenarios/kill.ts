import assert from 'node:assert/strict'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Report } from '../../../firmware-sim/arrivals.ts'
import { meter } from '../../../firmware-sim/firmwares/meter.ts'
import { type FleetPlan, startFleet } from '../../../firmware-sim/fleet.ts'
import { PERFECT_RADIO } from '../../../firmware-sim/radio.ts'
import { Random } from '../../../firmware-sim/random.ts'
import { startVerifier } from '../../../firmware-sim/verifier.ts'
import { freePort } from '../../../scripts/free-port.ts'
import { startRabbit } from '../../../scripts/peers.ts'
import { TcpProxy } from '../../../scripts/tcp-proxy.ts'
import { LossyDisk, type Syncs } from '../../support/lossy-disk.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { forwarding, Gateway, imbalance } from '../support/gateway.ts'
import { faultsOf } from '../support/report.ts'

export interface KillOptions {
  readonly seed: number
  readonly kills: number
  /** Each kill is a power cut, which takes what the disk had not synced; null: the disk keeps it all. */
  readonly powerCuts: Syncs | null
  /** How long to wait at the end for what was acknowledged and is not upstream. */
  readonly closingMs: number
  readonly say: (line: string) => void
}

export interface KillFigures {
  readonly kills: number
  /** Of those, how many hit a gateway that was still starting. */
  readonly killsWhileStarting: number
  readonly report: Report
}

const LONGEST_LIFE_MS = 900
/** A gateway is up in about half a second: these kills fall into its recovery. */
const LONGEST_START_MS = 500
const SHARE_KILLED_WHILE_STARTING = 0.2

/** Devices in a hurry: 800 readings a second, and back at once after each death. */
const FLEET: FleetPlan = {
  name: 'hurried',
  groups: [
    {
      name: 'hurried',
      count: 20,
      radio: PERFECT_RADIO,
      firmware: { ...meter, samplePeriodMs: 1_000, reconnect: { firstMs: 20, maxMs: 100 } },
    },
  ],
}
const SPEED = 40

/**
 * A gateway under load is killed at random moments, some of them while it starts, or loses its power, and is started again on what it left; its
 * upstream is there half of the time. After each start its books balance and it lives; at the end everything acknowledged is upstream.
 */
export async function kill({ seed, kills, powerCuts, closingMs, say }: KillOptions): Promise<KillFigures> {
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
  const gatewayDirectory = join(directory.path, 'gateway')
  const disk = powerCuts === null ? null : await LossyDisk.over(join(gatewayDirectory, 'data'), powerCuts)
  if (disk !== null) stack.use(disk)
  const variables = Object.entries(disk?.environment ?? {}).map(([name, value]) => `${name}=${value}`)
  await using gateway = await Gateway.start({
    directory: gatewayDirectory,
    wrap: command => ({ program: 'env', args: [...variables, ...command] }),
    config: {
      ...forwarding(`amqp://guest:guest@127.0.0.1:${proxy.port}`, {
        upstream: { reconnect: { first: '20ms', max: '200ms' } },
      }),
      // The devices know one address.
      listeners: { mqtt: { port: await freePort() } },
    },
  })
  const fleet = startFleet(FLEET, { broker: gateway.mqttUrl, seed, speed: SPEED })
  stack.defer(() => fleet.stop({ drainMs: 0 }).then(() => undefined))

  const end = async () => {
    await gateway.kill()
    const survived = await disk?.cutPower(random)
    if (survived !== undefined) say(`power cut: ${survived}`)
  }

  let killsWhileStarting = 0
  for (let n = 1; n <= kills; n++) {
    if (random.next() < 0.5) proxy.heal()
    else proxy.refuse()
    if (n < kills && random.next() < SHARE_KILLED_WHILE_STARTING) {
      await end()
      // It is killed before it has said that it runs, which is what `start` complains about; or it was quicker.
      const starting = gateway.start().catch(() => undefined)
      await delay(random.between(50, LONGEST_START_MS))
      await end()
      await starting
      n++
      killsWhileStarting++
    } else {
      await delay(random.between(10, LONGEST_LIFE_MS))
      await end()
    }
    await gateway.start()
    assert.equal((await gateway.get('/health/live')).status, 200)
    for (const queue of await gateway.queues()) {
      const books = `seed ${seed}, after kill ${n}: ${JSON.stringify(queue)}`
      assert.equal(imbalance(queue), 0, `the ledger is off: ${books}`)
      assert.deepEqual(queue.ledger.dropped, {}, `messages were dropped: ${books}`)
    }
    if (n % 20 === 0) {
      const { acknowledged, stored } = fleet.stats()
      const { depth } = await gateway.queue('telemetry')
      say(
        `${n} kills: acknowledged ${acknowledged}, in the outbox ${depth}, arrived ${verifier.received}, devices hold ${stored}`,
      )
    }
  }

  proxy.heal()
  const ledgers = await fleet.stop({ drainMs: 30_000 })
  const isComplete = await verifier.complete(ledgers, closingMs)
  const report = verifier.verify(ledgers)
  say(
    `acknowledged ${report.acknowledged}, arrived ${report.received}, repeated ids ${report.repeatedIds}, ` +
      `resent by devices ${report.resentByDevice}, lost ${report.lost}`,
  )
  assert.ok(isComplete, `seed ${seed}: ${report.lost} acknowledged messages are not upstream: ${faultsOf(report)}`)
  assert.ok(report.isFaultless, `seed ${seed}: ${faultsOf(report)}`)
  assert.equal(await gateway.stop(), 0, gateway.output)
  return { kills, killsWhileStarting, report }
}
