import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { Report } from '../../../firmware-sim/arrivals.ts'
import { type Fleet, startFleet, withDevices } from '../../../firmware-sim/fleet.ts'
import { fleet as factory } from '../../../firmware-sim/fleets/factory.ts'
import { startVerifier, type Verifier } from '../../../firmware-sim/verifier.ts'
import { type RabbitPeer, startRabbit } from '../../../scripts/peers.ts'
import { Broker } from '../../broker.ts'
import { loadConfig } from '../../config/load.ts'
import { configuredName, queueName } from '../../model/names.ts'
import { formatDuration } from '../../model/quantity.ts'
import { createLogger } from '../../telemetry/log.ts'
import { type DemoFigures, DemoPicture } from './picture.ts'

export interface DemoOptions {
  readonly devices: number
  readonly seconds: number
  readonly hasOutage: boolean
  /** Same seed, same readings. */
  readonly seed: number
}

/** The balance at the end, and what it rests on. */
export interface DemoBalance {
  readonly published: number
  /** Of these, sent at QoS 0. */
  readonly unacknowledgeable: number
  readonly acknowledged: number
  readonly upstream: number
  readonly duplicates: number
  readonly lost: number
  readonly report: Report
}

/** Virtual seconds per real one: the factory's 5 readings a second become 100. */
const SPEED = 20
const FRAME_MS = 250
/** After the fleet has stopped: for the outbox to empty and everything to arrive. */
const CLOSING_DEADLINE_MS = 60_000
const ROUTE = 'telemetry'
const UPSTREAM = 'central'

/** Gateway, RabbitMQ and fleet on this machine, an outage in the middle, and the books at the end. */
export async function tellStory(options: DemoOptions, out: NodeJS.WriteStream): Promise<DemoBalance> {
  const directory = await mkdtemp(join(tmpdir(), 'sluice-demo-'))
  const picture = new DemoPicture(out)
  await using stack = new AsyncDisposableStack()
  stack.defer(() => rm(directory, { recursive: true, force: true }))

  picture.say('starting a private RabbitMQ; if it is missing it is installed from Debian')
  const rabbit = stack.use(
    await startRabbit({
      directory: join(directory, 'rabbitmq'),
      source: { mayInstall: process.env.SLUICE_PEERS_INSTALL !== 'no', onProgress: line => picture.say(line) },
    }),
  )
  const verifier = await startVerifier({
    url: rabbit.url,
    queue: { name: 'demo' },
    exchange: { name: 'telemetry', type: 'topic' },
  })
  stack.defer(() => verifier.stop())
  const file = join(directory, 'sluice.yaml')
  await writeFile(file, configText(join(directory, 'gateway'), rabbit.url))
  const config = await loadConfig({ file, env: {}, set: [] })
  const broker = await Broker.start(config, { log: createLogger('silent') })
  stack.defer(() => broker.stop())
  const mqtt = broker.addresses.get('mqtt')
  if (mqtt === undefined) throw new TypeError('the gateway has no MQTT listener')

  const fleet = startFleet(withDevices(factory, options.devices), {
    broker: `mqtt://${mqtt.host}:${mqtt.port}`,
    seed: options.seed,
    speed: SPEED,
  })
  const story = new Story({ options, picture, broker, rabbit, fleet, verifier })
  stack.defer(() => fleet.stop({ drainMs: 0 }).then(() => undefined))
  return await story.tell()
}

/** What an operator would write; JSON is YAML. */
function configText(dataDir: string, upstreamUrl: string): string {
  return JSON.stringify({
    data_dir: dataDir,
    listeners: { mqtt: { port: 0 } },
    http: { port: 0 },
    store: { disk_free_min: '16MiB' },
    upstreams: { [UPSTREAM]: { urls: [upstreamUrl] } },
    routes: { [ROUTE]: { from: ['sensors/#'], upstream: UPSTREAM, exchange: { name: 'telemetry' } } },
  })
}

class Story {
  readonly #options: DemoOptions
  readonly #picture: DemoPicture
  readonly #broker: Broker
  readonly #rabbit: RabbitPeer
  readonly #fleet: Fleet
  readonly #verifier: Verifier
  readonly #startedMs = performance.now()
  #last = { ms: 0, published: 0, received: 0 }

  constructor(parts: {
    options: DemoOptions
    picture: DemoPicture
    broker: Broker
    rabbit: RabbitPeer
    fleet: Fleet
    verifier: Verifier
  }) {
    this.#options = parts.options
    this.#picture = parts.picture
    this.#broker = parts.broker
    this.#rabbit = parts.rabbit
    this.#fleet = parts.fleet
    this.#verifier = parts.verifier
  }

  async tell(): Promise<DemoBalance> {
    const totalMs = this.#options.seconds * 1000
    if (this.#options.hasOutage) {
      await this.#watch('all is well', totalMs * 0.3)
      await this.#rabbit.kill()
      const back = formatDuration(Math.round(totalMs * 0.0003) * 1000)
      await this.#watch(`RabbitMQ was killed (SIGKILL), down for about ${back}`, totalMs * 0.6)
      await this.#during('RabbitMQ is being started again', this.#rabbit.restart())
      await this.#watch('RabbitMQ is back: the outbox drains, live data goes on', totalMs)
    } else {
      await this.#watch('all is well', totalMs)
    }
    const ledgers = await this.#during('sensors stop; what they hold is acknowledged', this.#fleet.stop())
    await this.#during(
      'closing the books: everything acknowledged must be upstream',
      this.#verifier.complete(ledgers, CLOSING_DEADLINE_MS),
    )
    this.#draw('done')
    this.#picture.end()
    const report = this.#verifier.verify(ledgers)
    const stats = this.#fleet.stats()
    return {
      published: stats.published,
      unacknowledgeable: stats.publishedAtQos0,
      acknowledged: stats.acknowledged,
      upstream: report.received,
      duplicates: report.deliveries - report.received,
      lost: report.lost,
      report,
    }
  }

  async #watch(phase: string, untilMs: number): Promise<void> {
    while (performance.now() - this.#startedMs < untilMs) {
      this.#draw(phase)
      await delay(FRAME_MS)
    }
  }

  async #during<T>(phase: string, work: Promise<T>): Promise<T> {
    const drawing = setInterval(() => this.#draw(phase), FRAME_MS)
    try {
      return await work
    } finally {
      clearInterval(drawing)
    }
  }

  #draw(phase: string): void {
    const { gateway } = this.#broker
    const upstream = gateway.upstream(configuredName(UPSTREAM))
    const outbox = gateway.model.queue(queueName(ROUTE))
    if (upstream === undefined || outbox === undefined) throw new TypeError('the demo has lost its route')
    const elapsedMs = performance.now() - this.#startedMs
    const stats = this.#fleet.stats()
    const { received, deliveries } = this.#verifier
    const missing = this.#verifier.missing(this.#fleet.devices.map(device => device.ledger.snapshot()))
    const onTheWay = outbox.depth + Math.max(0, upstream.confirmed - received)
    const sinceS = Math.max(0.001, (elapsedMs - this.#last.ms) / 1000)
    const figures: DemoFigures = {
      elapsedMs,
      totalMs: this.#options.seconds * 1000,
      phase,
      devices: stats.devices,
      online: stats.online,
      published: stats.published,
      acknowledged: stats.acknowledged,
      publishedPerSecond: (stats.published - this.#last.published) / sinceS,
      upstream,
      upstreamReceived: received,
      forwardedPerSecond: (received - this.#last.received) / sinceS,
      outboxDepth: outbox.depth,
      outboxBytes: outbox.bytes,
      duplicates: deliveries - received,
      lost: Math.max(0, missing - onTheWay),
    }
    this.#last = { ms: elapsedMs, published: stats.published, received }
    this.#picture.draw(figures)
  }
}
