import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Random } from '../../../firmware-sim/random.ts'
import { type RabbitPeer, startRabbit } from '../../../scripts/peers.ts'
import { TcpProxy } from '../../../scripts/tcp-proxy.ts'
import { BridgeUnderTest, bindQueue, onChannel } from '../../support/bridge-kit.ts'
import { eventually } from '../../support/eventually.ts'
import { tempDir } from '../../support/temp-dir.ts'
import { Watcher } from '../../support/upstream-watcher.ts'

/** What a fault may touch. */
interface Scene {
  readonly rabbit: RabbitPeer
  readonly proxy: TcpProxy
  readonly exchange: string
  readonly queue: string
  readonly random: Random
  /** How long the fault lasts, milliseconds. */
  readonly lastsMs: number
}

/** Resolves when the fault is over and its cause cured. */
type Fault = (scene: Scene) => Promise<void>

export interface FaultFigures {
  readonly published: number
  /** Acknowledged by the gateway and not upstream. */
  readonly lost: number
  /** Came under an id that was there already. */
  readonly repeated: number
  /** Came under an id that stands for another message. */
  readonly unknown: number
  /** Times the link was opened again, or its channel. */
  readonly interruptions: number
  readonly window: number
  /** From the cure until a message accepted after it was confirmed, milliseconds. */
  readonly resumedMs: number
  /** Memory of queues in use when all was through, bytes. */
  readonly heldBytes: number
}

const WINDOW = 64
/** The limits of the upstream are shorter than the defaults, as the faults are shorter than in the field. */
const TIMES = {
  window: WINDOW,
  stallTimeoutMs: 2000,
  reconnect: { firstMs: 100, maxMs: 1000, connectTimeoutMs: 1000, handshakeTimeoutMs: 2000, returnMs: 60_000 },
}
const PUBLISH_EVERY_MS = 5
const HEALTHY_MS = 500
const CLOSING_DEADLINE_MS = 60_000

const alarm = (set: readonly string[], clear: readonly string[]): Fault => {
  return async ({ rabbit, lastsMs }) => {
    await rabbit.ctl(set)
    await delay(lastsMs)
    await rabbit.ctl(clear)
  }
}

const FAULTS = {
  'frozen (SIGSTOP)': async ({ rabbit, lastsMs }) => {
    rabbit.freeze()
    await delay(lastsMs)
    rabbit.thaw()
  },
  'killed (SIGKILL)': async ({ rabbit, lastsMs }) => {
    await rabbit.kill()
    await delay(lastsMs)
    await rabbit.restart()
  },
  'stopped in order': async ({ rabbit, lastsMs }) => {
    await rabbit.stop()
    await delay(lastsMs)
    await rabbit.restart()
  },
  'memory alarm': alarm(['set_vm_memory_high_watermark', '0'], ['set_vm_memory_high_watermark', '0.4']),
  'disk alarm': alarm(['set_disk_free_limit', '1000000GB'], ['set_disk_free_limit', '50MB']),
  'exchange deleted': async ({ rabbit, exchange, queue, lastsMs }) => {
    await onChannel(rabbit.url, channel => channel.deleteExchange(exchange))
    await delay(lastsMs)
    await bindWitness(rabbit.url, queue, exchange)
  },
  'permission to write revoked': async ({ rabbit, proxy, lastsMs }) => {
    await rabbit.ctl(['set_permissions', 'guest', '.*', '^$', '.*'])
    // RabbitMQ asks once per channel.
    proxy.reset()
    await delay(lastsMs)
    await rabbit.ctl(['set_permissions', 'guest', '.*', '.*', '.*'])
  },
  'forced close by management': ({ rabbit, lastsMs }) =>
    again(lastsMs, 1000, async () => void (await rabbit.ctl(['close_all_connections', 'on purpose']))),
  'frames cut mid-way': ({ proxy, random, lastsMs }) =>
    again(lastsMs, 500, async () => proxy.cutAfter(Math.floor(random.between(1, 2000)))),
  'black hole between publish and confirm': async ({ proxy, lastsMs }) => {
    proxy.blackHole('to-client')
    await delay(lastsMs)
    proxy.heal()
  },
  'black hole both ways': async ({ proxy, lastsMs }) => {
    proxy.blackHole()
    await delay(lastsMs)
    proxy.heal()
  },
  'connections reset at random': ({ proxy, random, lastsMs }) =>
    again(lastsMs, 200, async () => {
      if (random.between(0, 1) < 0.3) proxy.reset()
    }),
  'flapping every two seconds': ({ proxy, lastsMs }) =>
    again(lastsMs, 1000, async () => {
      proxy.refuse()
      await delay(1000)
      proxy.heal()
    }),
} as const satisfies Record<string, Fault>

export type FaultName = keyof typeof FAULTS

/** Does something, with a pause after it, for so long. */
async function again(lastsMs: number, pauseMs: number, act: () => Promise<void>): Promise<void> {
  const endMs = performance.now() + lastsMs
  while (performance.now() < endMs) {
    await act()
    await delay(pauseMs)
  }
}

/** Classic: a young quorum queue of RabbitMQ 3.10 that was killed finds no leader after the restart and confirms nothing. */
const bindWitness = (url: string, queue: string, exchange: string): Promise<void> =>
  bindQueue(url, queue, exchange, { options: { arguments: {} } })

/** A RabbitMQ and a link to it that can be broken, for one fault after the other. */
export class FaultTable implements AsyncDisposable {
  readonly #stack: AsyncDisposableStack
  readonly #rabbit: RabbitPeer
  readonly #proxy: TcpProxy

  static async start(): Promise<FaultTable> {
    await using stack = new AsyncDisposableStack()
    const directory = stack.use(await tempDir())
    const rabbit = stack.use(await startRabbit({ directory: join(directory.path, 'rabbitmq') }))
    const proxy = stack.use(await TcpProxy.start({ port: rabbit.port }))
    return new FaultTable(stack.move(), rabbit, proxy)
  }

  private constructor(stack: AsyncDisposableStack, rabbit: RabbitPeer, proxy: TcpProxy) {
    this.#stack = stack
    this.#rabbit = rabbit
    this.#proxy = proxy
  }

  /** Publishes without a pause through the fault and beyond its cure; resolves when everything is settled and counted. Rejects if it never is. */
  async run(name: FaultName, { lastsMs, seed }: { lastsMs: number; seed: number }): Promise<FaultFigures> {
    const rabbit = this.#rabbit
    const proxy = this.#proxy
    const exchange = `ex-${randomUUID()}`
    const queue = `q-${randomUUID()}`
    await bindWitness(rabbit.url, queue, exchange)
    await using bridge = await BridgeUnderTest.start(
      `amqp://guest:guest@127.0.0.1:${proxy.port}`,
      { telemetry: { from: 'sensors/#', exchange: { name: exchange, type: 'topic', declare: true } } },
      TIMES,
    )
    await bridge.reaches('forwarding')
    let isOver = false
    const publishing = (async () => {
      while (!isOver) {
        await bridge.publish(1, 'sensors/a')
        await delay(PUBLISH_EVERY_MS)
      }
    })()
    await delay(HEALTHY_MS)
    await FAULTS[name]({ rabbit, proxy, exchange, queue, random: new Random(seed), lastsMs })
    const curedMs = performance.now()
    const { confirmed } = bridge.status()
    await eventually(() => bridge.status().confirmed > confirmed, {
      what: `forwarding after: ${name}`,
      deadlineMs: CLOSING_DEADLINE_MS,
      intervalMs: 5,
    })
    const resumedMs = performance.now() - curedMs
    await delay(HEALTHY_MS)
    isOver = true
    await publishing
    await bridge.settlesAll(CLOSING_DEADLINE_MS)
    const outbox = bridge.queues.get('telemetry')
    assert.equal(outbox?.ledger.imbalance, 0, `${name}: the ledger is off`)
    const interruptions = bridge.status().connects - 1 + bridge.route('telemetry').channelCloses
    return {
      ...(await this.#count(queue, bridge.published)),
      interruptions,
      window: WINDOW,
      resumedMs,
      heldBytes: bridge.core.memory.usedBytes,
    }
  }

  async #count(queue: string, published: number) {
    const payloads = new Map<string, string>()
    let repeated = 0
    let unknown = 0
    await using watcher = await Watcher.start(this.#rabbit.url, queue)
    const left = (): number => published - new Set(watcher.arrivals.map(({ payload }) => payload)).size
    await eventually(() => left() === 0, { what: 'all of them', deadlineMs: 20_000, intervalMs: 50 }).catch(
      () => undefined,
    )
    for (const { id, payload } of watcher.arrivals) {
      const known = payloads.get(id)
      if (known === undefined) payloads.set(id, payload)
      else if (known === payload) repeated++
      else unknown++
    }
    return { published, lost: left(), repeated, unknown: unknown + payloads.size - (published - left()) }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync()
  }
}
