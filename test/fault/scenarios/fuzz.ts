/*
 * Clients that say what nobody should: valid conversations of all versions made wrong, against the real server and core in this process, some
 * of them over a socket. What must hold: nothing throws; whatever is answered is well-formed and in order; who is closed in 5.0 is told why; a
 * client that behaves is served all along; what was held for the others is given back.
 */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import fc from 'fast-check'
import pino from 'pino'
import { checkAnswers } from '../../support/check-answers.ts'
import { eventually } from '../../support/eventually.ts'
import { sayInProcess } from '../../support/in-process-client.ts'
import { type Conversation, conversation } from '../../support/mqtt-frames.ts'
import { mutate, seededRandom, split } from '../../support/mutation.ts'
import { bytes, MqttUnderTest, packet, text, WireClient } from '../../support/wire.ts'

export interface FuzzResult {
  readonly frames: number
  readonly conversations: number
  readonly overSocket: number
  /** Connections of 5.0 that were let in and then closed with this reason, by reason. */
  readonly reasons: ReadonlyMap<number, number>
  /** Use of the heap and its buffers after a collection, lowest in the second tenth and in the last tenth of the run, bytes. */
  readonly memory: { readonly early: number; readonly late: number }
}

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

/** Distinct conversations that are mutated again and again. */
const CORPUS = 2_000
/** So many are under way at once. */
const LANES = 16
/** Of so many conversations one is said over a socket. */
const SOCKET_IN = 50
/** Between two looks at the well-behaved client and at memory. */
const CONVERSATIONS_A_ROUND = 5_000
/** As the server logs it. */
const LEFT_BY_ITSELF = new Set(['disconnected', 'closed by the client'])
const MEMORY_BYTES = 64 * 1024 ** 2
/** Sessions that outlive their connections end after a second, so that their number does not grow. */
const LIMITS = { clients: 200, subscriptionsPerSession: 20, sessionExpiryMaxMs: 1_000 } as const

/** Says `frames` frames in all, and rejects with the seed when something does not hold. */
export async function fuzz({
  frames,
  seed,
  say,
}: {
  frames: number
  seed: number
  say: (line: string) => void
}): Promise<FuzzResult> {
  const corpus = fc.sample(conversation, { seed, numRuns: Math.min(CORPUS, Math.ceil(frames / 10)) })
  const random = seededRandom(seed)
  /** Why connections ended, by the port of their client. */
  const ends = new Map<number, string>()
  const log = pino(
    { level: 'info' },
    {
      write: (line: string) => {
        const { address, reason } = JSON.parse(line)
        if (typeof address === 'string' && typeof reason === 'string') ends.set(Number(address.split(':')[1]), reason)
      },
    },
  )
  await using broker = await MqttUnderTest.start({ limits: LIMITS, memoryBytes: MEMORY_BYTES, log })
  await broker.core.queue('jobs', 'a/b')
  await broker.core.stream('history', 'a/#')
  const witness = await broker.client()
  await witness.says(packet(0x10, text('MQTT'), '04 02 00 00', text('witness'))).hears(bytes('20 02 00 00'))
  await witness.says(packet(0x82, '00 01', text('witness/+'), '00')).hears(bytes('90 03 00 01 00'))

  const reasons = new Map<number, number>()
  const samples: number[] = []
  let said = 0
  let conversations = 0
  let overSocket = 0
  let port = 0

  const play = async (): Promise<void> => {
    const { level, frames: valid } = corpus[random(corpus.length)] as Conversation
    const wrong = mutate(valid, random)
    said += wrong.length
    conversations++
    if (random(SOCKET_IN) === 0) {
      overSocket++
      await sayOverSocket(await WireClient.connect(broker.port), split(Buffer.concat(wrong), random))
      return
    }
    const mine = ++port
    const { heard, isCutOff } = await sayInProcess(broker.server, {
      port: mine,
      chunks: split(Buffer.concat(wrong), random),
      random,
    })
    const why = ends.get(mine)
    ends.delete(mine)
    // A mutated CONNECT may be of another version.
    const spoken = wrong[0]?.equals(valid[0] ?? Buffer.alloc(0)) === true ? level : null
    const reason = checkAnswers(heard, spoken, { mayBeCut: isCutOff })
    if (reason !== null) reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
    if (spoken === 5 && !isCutOff && why !== undefined && !LEFT_BY_ITSELF.has(why) && reason === null)
      throw new Error(`closed without a reason: ${why}`)
  }

  const lane = async (until: number): Promise<void> => {
    while (conversations < until && said < frames) await play()
  }

  const { promise: thrown, reject } = Promise.withResolvers<never>()
  thrown.catch(() => undefined)
  process.on('uncaughtException', reject)
  try {
    while (said < frames) {
      const until = conversations + CONVERSATIONS_A_ROUND
      await Promise.race([thrown, Promise.all(Array.from({ length: LANES }, () => lane(until)))])
      await isServed(witness)
      await eventually(() => broker.server.clientCount === 1, { what: 'all clients but the one being gone' })
      if (broker.core.memory.usedBytes > MEMORY_BYTES) throw new Error(`${broker.core.memory.usedBytes} bytes are held`)
      collectGarbage()
      const { heapUsed, external } = process.memoryUsage()
      samples.push(heapUsed + external)
      say(`${said.toLocaleString('en-US')} frames, ${conversations.toLocaleString('en-US')} conversations`)
    }
  } catch (error) {
    throw new Error(`seed ${seed}, conversation ${conversations}: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    })
  } finally {
    process.off('uncaughtException', reject)
  }
  const lowest = (from: number, to: number) =>
    Math.min(...samples.slice(Math.floor(samples.length * from), Math.max(1, Math.ceil(samples.length * to))))
  return { frames: said, conversations, overSocket, reasons, memory: { early: lowest(0.1, 0.2), late: lowest(0.9, 1) } }
}

async function sayOverSocket(client: WireClient, chunks: readonly Buffer[]): Promise<void> {
  for (const chunk of chunks) client.socket.write(chunk)
  client.socket.end()
  client.socket.resume()
  await eventually(() => client.isClosed, { what: 'the close', intervalMs: 1 })
}

/** The client that behaves publishes to itself, and is acknowledged. */
async function isServed(witness: WireClient): Promise<void> {
  const topic = text('witness/1')
  await witness.says(packet(0x32, topic, '00 07', 'fine')).hears(packet(0x30, topic, 'fine'), bytes('40 02 00 07'))
}
