import { tmpdir } from 'node:os'
import { resolve } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { contendersOf, type Measurement, measure } from '../../scripts/bench/measure.ts'
import { barOf, isToBeLarge, verdictOf } from '../../scripts/bench/report.ts'
import { type Bar, SCENARIOS, type Scenario, scenarioNamed } from '../../scripts/bench/scenarios.ts'
import { findMosquitto } from '../../scripts/peers.ts'
import { backlogRead } from '../fault/scenarios/backlog-read.ts'
import { loginStorm } from '../fault/scenarios/login-storm.ts'
import { longQueue } from '../fault/scenarios/long-queue.ts'
import { manyQueues } from '../fault/scenarios/many-queues.ts'
import { slowDiskIngress } from '../fault/scenarios/slow-disk.ts'
import { measureSluice } from '../fault/support/measure-sluice.ts'
import { tempDir } from '../support/temp-dir.ts'

/*
 * Guards against a slide, not a measurement: short runs, beside whatever else the machine does, must reach a third of what `npm run bench`
 * has to show. Both brokers of a comparison run right after each other, and a comparison that fell behind is made again: other work hits
 * one of the two more than the other, a slide of the code shows each time.
 */

const SHARE_OF_BAR = 1 / 3
const ATTEMPTS = 3
const SLUICE = resolve(import.meta.dirname, '../../scripts/sluice')
/** As `npm run bench` has it by default; a store in memory would write nothing. */
const DISK = '/var/tmp'

/** mosquitto, or where it is neither installed nor may be, aedes, which is no faster in any of these. */
let reference: 'mosquitto' | 'aedes' = 'mosquitto'
beforeAll(async () => {
  await findMosquitto().catch(() => {
    reference = 'aedes'
  })
})

async function compare(scenario: Scenario) {
  const contenders = contendersOf(scenario)
  const measured: Measurement[] = []
  const series = []
  for (const broker of [reference, 'sluice'] as const) {
    const contender = contenders.find(one => one.broker === broker)
    if (contender === undefined) throw new TypeError(`${scenario.name} has no ${broker}`)
    const directory = broker === 'sluice' ? DISK : tmpdir()
    const run = await measure({ scenario, contender, warmUpS: 0.5, seconds: 1.5, directory, sluice: SLUICE })
    measured.push(run)
    series.push({ contender, runs: [run] })
  }
  const verdict = verdictOf({ scenario, series })
  const sluice = measured[1]
  if (verdict === null || sluice === undefined) throw new TypeError('nothing was measured')
  return { verdict, sluice }
}

/** The first run that is good enough, else the last one. */
async function bestOf<R>(measured: () => Promise<R>, isGoodEnough: (run: R) => boolean): Promise<R> {
  let run = await measured()
  for (let attempt = 2; attempt <= ATTEMPTS && !isGoodEnough(run); attempt++) run = await measured()
  return run
}

/** Single late messages are as much the machine's doing as the broker's. */
const isTimed = ({ shows }: Scenario): boolean => shows === 'latency' || shows === 'frozen'

describe('a third of the rates that hold against mosquitto 2.0.11', () => {
  for (const scenario of SCENARIOS) {
    const { bar } = scenario
    if (bar === null || isTimed(scenario)) continue
    const weaker = isToBeLarge(scenario) ? SHARE_OF_BAR : 1 / SHARE_OF_BAR
    const guarded: Bar = {
      ratio: bar.ratio === null ? null : bar.ratio * weaker,
      figure: bar.figure === null ? null : bar.figure * weaker,
      amplification: null,
    }
    const guard = { ...scenario, bar: guarded }
    it(`${scenario.title}: ${barOf(guard)}`, async () => {
      const { verdict, sluice } = await bestOf(
        () => compare(guard),
        run => run.verdict.isFigureMet === true,
      )
      expect(verdict).toMatchObject({ isFigureMet: true })
      expect(sluice).toMatchObject({ lost: 0, disordered: 0 })
      if (bar.amplification !== null) {
        // Smaller is better, and it does not depend on how busy the machine is as a rate does.
        expect(verdict.amplification).toBeLessThanOrEqual(bar.amplification / SHARE_OF_BAR)
        expect(verdict.amplification).toBeGreaterThanOrEqual(1)
      }
    })
  }
})

it('at 2,000 messages a second half of them arrive within 5 ms, beside a subscriber that reads nothing too', async () => {
  const { sluice: alone } = await compare(scenarioNamed('latency'))
  expect(alone.lost).toBe(0)
  expect(alone.latencyMs?.p50).toBeLessThan(5)
  const { sluice: beside } = await compare(scenarioNamed('frozen'))
  expect(beside.lost).toBe(0)
  expect(beside.frozenLatencyMs?.p50).toBeLessThan(5)
})

it('with an fdatasync of 5 ms and 200 messages in flight a third of 20,000 messages/s are kept', async () => {
  const [delayMs, inFlight] = [5, 200]
  const wanted = 20_000 * SHARE_OF_BAR
  const run = await bestOf(
    () => slowDiskIngress({ delayMs, seconds: 1.5 }),
    ({ ratePerS }) => ratePerS >= wanted,
  )
  expect(run.ratePerS).toBeGreaterThanOrEqual(wanted)
  // All that is in flight with each fdatasync: faster than this, it was not waited for.
  expect(run.ratePerS).toBeLessThanOrEqual((inFlight * 1000) / delayMs)
  expect(run).toMatchObject({ lost: 0, disordered: 0 })
})

it('a backlog of 100,000 messages comes from disk at a third of 200,000/s', async () => {
  const wanted = 200_000 * SHARE_OF_BAR
  const ratePerS = await bestOf(
    () => backlogRead(100_000),
    rate => rate >= wanted,
  )
  expect(ratePerS).toBeGreaterThanOrEqual(wanted)
})

it('through a durable queue with a consumer go a third of 100,000 messages/s', async () => {
  const wanted = 100_000 * SHARE_OF_BAR
  const run = await bestOf(
    () => measureSluice('durable-through', { seconds: 1 }),
    ({ ratePerS }) => ratePerS >= wanted,
  )
  expect(run.ratePerS).toBeGreaterThanOrEqual(wanted)
  expect(run).toMatchObject({ lost: 0, disordered: 0 })
})

it('a queue of 100,000 messages does not slow another', async () => {
  const most = 2 / SHARE_OF_BAR
  const slowdown = await bestOf(
    async () => {
      const { alone, beside } = await longQueue({ messages: 100_000, seconds: 0.4, rounds: 1 })
      return Math.max(beside.acknowledgedMs / alone.acknowledgedMs, beside.deliveredMs / alone.deliveredMs)
    },
    ratio => ratio <= most,
  )
  expect(slowdown).toBeLessThanOrEqual(most)
})

it('200 durable queues with ten messages each cost no more than one with 2,000', async () => {
  const { many, one } = await bestOf(
    () => manyQueues(200, 1),
    run => run.many.startUpMs <= 2 * run.one.startUpMs,
  )
  expect(many.startUpMs).toBeLessThanOrEqual(2 * one.startUpMs)
  expect(many.memory.anonymous).toBeLessThanOrEqual(1.5 * one.memory.anonymous)
  expect(many.diskBytes).toBeLessThanOrEqual(1.5 * one.diskBytes)
})

it('a hundred clients that log in at once delay commits no more than may be', async () => {
  const run = await bestOf(
    async () => {
      await using directory = await tempDir({ on: DISK })
      return await loginStorm({ clients: 100, directory: directory.path })
    },
    ({ idle, storm }) => storm.p99Ms * SHARE_OF_BAR <= 3 * idle.p99Ms,
  )
  expect(run.storm.p99Ms * SHARE_OF_BAR).toBeLessThanOrEqual(3 * run.idle.p99Ms)
})
