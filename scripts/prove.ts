/*
 * Proves what issues 2, 4 and 6 say must hold, in full: long outages, hundreds of kills, a million messages. The same scenarios run in small
 * form in `npm test`. Takes up to two hours; stopped in between, it goes on where it was. The result is docs/proof.md.
 *
 *   npm run prove -- [--only NAME] [--seed N] [--fresh]
 */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { cpus, release, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { backlog } from '../test/fault/scenarios/backlog.ts'
import { backlogRead } from '../test/fault/scenarios/backlog-read.ts'
import { fullDisk } from '../test/fault/scenarios/full-disk.ts'
import { fuzz } from '../test/fault/scenarios/fuzz.ts'
import { kill } from '../test/fault/scenarios/kill.ts'
import { longQueue } from '../test/fault/scenarios/long-queue.ts'
import { manyQueues } from '../test/fault/scenarios/many-queues.ts'
import { outage } from '../test/fault/scenarios/outage.ts'
import { slowDiskIngress } from '../test/fault/scenarios/slow-disk.ts'
import { type FaultName, FaultTable } from '../test/fault/scenarios/upstream-faults.ts'
import { measureSluice } from '../test/fault/support/measure-sluice.ts'
import { rememberFailedSeed } from '../test/fault/support/seeds.ts'
import { ATTACKERS } from '../test/hostile/attackers.ts'
import { hostilities, logLimit, type Outcome, PEAK_BYTES } from '../test/hostile/scenario.ts'
import { tempDir } from '../test/support/temp-dir.ts'
import { contendersOf, type Measurement, measure } from './bench/measure.ts'
import { barOf, inUnit, verdictOf } from './bench/report.ts'
import { SCENARIOS, scenarioNamed } from './bench/scenarios.ts'

const ROOT = resolve(import.meta.dirname, '..')
const CACHE = join(ROOT, '.cache')
const STATE = join(CACHE, 'prove.json')
const RESULT = join(ROOT, 'docs/proof.md')
/** What the result depends on: a change of anything else does not make a proof old. */
const PROVED = ['src', 'package-lock.json']
const HIGHEST_SEED = 1_000_000

const run = promisify(execFile)

/** One bar. */
interface Row {
  readonly what: string
  readonly bar: string
  readonly measured: string
  readonly holds: boolean
}

interface Context {
  readonly name: string
  readonly seed: number
  readonly say: (line: string) => void
}

interface Item {
  readonly name: string
  readonly title: string
  /** Whether chance plays a part in it. */
  readonly isSeeded: boolean
  readonly prove: (context: Context) => Promise<Row[]>
}

/** What became of an item. */
interface Proof {
  readonly rows: readonly Row[]
  readonly commit: string
  readonly seed: number | null
  readonly date: string
  readonly seconds: number
}

interface State {
  /** Of what is proved. */
  readonly commit: string
  readonly proofs: Readonly<Record<string, Proof>>
}

// ---- The list ----------------------------------------------------------------------------------------------------------

const FLEET = { devices: 50, seconds: 150 }
/** A machine of two cores delays a message by as much without an attacker: below it, twice as long says nothing. */
const LATENCY_FLOOR_MS = 20
/** For what is still on its way to the upstream when the faults are over. */
const CLOSING_MS = 120_000

/** Milliseconds that each fault of an upstream lasts. */
const FAULT_MS: Readonly<Record<FaultName, number>> = {
  'frozen (SIGSTOP)': 30_000,
  'killed (SIGKILL)': 5_000,
  'stopped in order': 5_000,
  'memory alarm': 20_000,
  'disk alarm': 20_000,
  'exchange deleted': 10_000,
  'permission to write revoked': 10_000,
  'forced close by management': 10_000,
  'frames cut mid-way': 20_000,
  'black hole between publish and confirm': 20_000,
  'black hole both ways': 20_000,
  'connections reset at random': 30_000,
  'flapping every two seconds': 120_000,
}

const ITEMS: readonly Item[] = [
  {
    name: 'outage',
    title:
      'Fleet of 50 devices, 150 s; RabbitMQ killed (SIGKILL) and restarted twice, frozen (SIGSTOP) 20 s, black-holed 20 s',
    isSeeded: true,
    prove: async ({ seed, say }) => {
      const faults = { downMs: 5_000, frozenMs: 20_000, blackHoleMs: 20_000 }
      const { report, reconnects } = await outage({ ...FLEET, seed, faults, say })
      const { live, replay } = report.orderViolations
      return [
        row('acknowledged messages that are not upstream', 0, report.lost, `of ${report.acknowledged}`),
        row('live messages out of order', 0, live.count, `of ${report.live}`),
        row('backlog messages out of order', 0, replay.count, `of ${report.replayed}`),
        row(
          'duplicates under another id than their original',
          0,
          report.unmarkedDuplicates.count,
          `${report.repeatedIds} repeats under the same id, ${report.resentByDevice} resent by devices and marked so`,
        ),
        { what: 'the link came up again', bar: '≥ 4 times', measured: String(reconnects), holds: reconnects >= 4 },
      ]
    },
  },
  {
    name: 'healthy-link',
    title: 'The same fleet, 150 s, with the link healthy throughout',
    isSeeded: true,
    prove: async ({ seed, say }) => {
      const { report, acceptedBytes, writtenBytes } = await outage({ ...FLEET, seed, faults: null, say })
      const share = writtenBytes / acceptedBytes
      return [
        row('acknowledged messages that are not upstream', 0, report.lost, `of ${report.acknowledged}`),
        {
          what: 'accepted bytes that were written to disk',
          bar: '< 5 %',
          measured: `${(share * 100).toFixed(2)} % (${writtenBytes} of ${acceptedBytes})`,
          holds: share < 0.05,
        },
      ]
    },
  },
  {
    name: 'upstream-faults',
    title: 'RabbitMQ, or the link to it, broken in thirteen ways for 5 to 120 s each, while messages keep coming',
    isSeeded: true,
    prove: async ({ seed, say }) => {
      await using table = await FaultTable.start()
      const rows: Row[] = []
      for (const [name, lastsMs] of Object.entries(FAULT_MS) as [FaultName, number][]) {
        const { published, lost, repeated, unknown, interruptions, window, resumedMs } = await table.run(name, {
          lastsMs,
          seed,
        })
        say(
          `${name}: ${published} published, ${lost} lost, ${repeated} repeated, goes on after ${Math.round(resumedMs)} ms`,
        )
        rows.push(
          row(`${name}: lost, or under an unknown id`, 0, lost + unknown, `of ${published}`),
          atMost(`${name}: repeated, ${interruptions} interruptions`, repeated, interruptions * window, 'messages'),
          atMost(`${name}: from the cure to the first confirm`, Math.round(resumedMs), 10_000, 'ms'),
        )
      }
      return rows
    },
  },
  {
    name: 'kill',
    title: 'Gateway killed (SIGKILL) 200 times at random moments under load, its upstream there half of the time',
    isSeeded: true,
    prove: async ({ seed, say }) => {
      const { report, kills, killsWhileStarting } = await kill({
        seed,
        kills: 200,
        powerCuts: null,
        closingMs: CLOSING_MS,
        say,
      })
      return [
        row('acknowledged messages lost', 0, report.lost, `of ${report.acknowledged}, in ${kills} kills`),
        row(
          'starts after which a ledger was off or messages were dropped',
          0,
          0,
          `of ${kills - killsWhileStarting}; ${killsWhileStarting} more kills hit a gateway that was starting`,
        ),
        row('order and ids: faults', 0, report.isFaultless ? 0 : 1),
      ]
    },
  },
  {
    name: 'backlog',
    title: '1,000,000 messages of 256 B of backlog',
    isSeeded: false,
    prove: async ({ say }) => {
      const { startUpMs, peak, filledPerS, drainedPerS } = await backlog({ messages: 1_000_000, waitMs: 30_000, say })
      const startUp = (what: string, ms: number) => atMost(`process start to first CONNACK, ${what}`, ms, 1_000, 'ms')
      const megabytes = (bytes: number) => Math.ceil(bytes / 1e6)
      const memory = Object.entries(peak).flatMap(([phase, { anonymous, total }]) => [
        atMost(`anonymous memory while ${phase}, highest`, megabytes(anonymous), 120, 'MB'),
        atMost(`resident memory while ${phase}, highest`, megabytes(total), 220, 'MB'),
      ])
      const rate = (what: string, perS: number) => ({
        what,
        bar: '',
        measured: `${Math.round(perS).toLocaleString('en-US')} messages/s`,
        holds: true,
      })
      return [
        startUp('after SIGTERM', startUpMs.afterStop),
        startUp('after SIGKILL', startUpMs.afterKill),
        ...memory,
        row('messages that did not arrive, out of order or under a second id', 0, 0),
        rate('filled', filledPerS),
        rate('drained into RabbitMQ', drainedPerS),
      ]
    },
  },
  ...SCENARIOS.filter(scenario => scenario.bar !== null).map(
    (scenario): Item => ({
      name: scenario.name,
      title: `${scenario.title}, beside mosquitto 2.0.11`,
      isSeeded: false,
      prove: async ({ say }) => {
        const verdict = await compare(scenario, say)
        const { bar } = scenario
        if (bar === null) return []
        const rows: Row[] = [
          {
            what: bar.ratio === null ? 'by itself' : "by mosquitto's",
            bar: barOf(scenario),
            measured: bar.ratio === null ? inUnit(scenario, verdict.figure) : verdict.ratio.toFixed(2),
            holds: verdict.isFigureMet === true,
          },
        ]
        if (bar.amplification !== null) {
          rows.push(
            atMost('bytes written by bytes accepted', verdict.amplification ?? Number.NaN, bar.amplification, ''),
          )
        }
        return rows
      },
    }),
  ),
  {
    name: 'power-cut',
    title:
      'Power of the gateway cut 100 times at random moments under load: what was not synced is gone, in whole, in part or torn',
    isSeeded: true,
    prove: async ({ seed, say }) => {
      const { report, kills } = await kill({ seed, kills: 100, powerCuts: 'honest', closingMs: CLOSING_MS, say })
      const lying = await kill({ seed, kills: 10, powerCuts: 'ignored', closingMs: 5_000, say }).then(
        () => 'nothing missed',
        error => String(error instanceof Error ? error.message : error),
      )
      return [
        row('acknowledged messages lost', 0, report.lost, `of ${report.acknowledged}, in ${kills} power cuts`),
        row('starts after which a ledger was off or messages were dropped', 0, 0, `of ${kills}`),
        row('order and ids: faults', 0, report.isFaultless ? 0 : 1),
        {
          what: 'the same on a disk that lies about syncing',
          bar: 'messages are lost',
          measured: lying,
          holds: /acknowledged messages are not upstream|messages were dropped/.test(lying),
        },
      ]
    },
  },
  {
    name: 'slow-disk',
    title: 'Durable ingress with an fdatasync that takes 5 ms more, 200 messages of 256 B in flight',
    isSeeded: false,
    prove: async () => {
      const { ratePerS, lost } = await slowDiskIngress({ delayMs: 5, seconds: 10 })
      return [atLeast('messages acknowledged', ratePerS, 20_000, '/s'), row('acknowledged messages not kept', 0, lost)]
    },
  },
  {
    name: 'backlog-read',
    title: 'Store and core in this process, opened on 1,000,000 messages of 256 B in one queue',
    isSeeded: false,
    prove: async () => [
      atLeast(
        'from disk to a consumer in the process that settles each at once',
        await backlogRead(1_000_000),
        200_000,
        '/s',
      ),
    ],
  },
  {
    name: 'durable-through',
    title: scenarioNamed('durable-through').title,
    isSeeded: false,
    prove: async ({ name }) => {
      const { ratePerS, lost } = await measureSluice(name, { seconds: 10 })
      return [
        atLeast('delivered over MQTT, QoS 1', ratePerS, 100_000, '/s'),
        row('acknowledged messages not delivered', 0, lost),
      ]
    },
  },
  {
    name: 'long-queue',
    title:
      'A durable queue at 500 messages/s, in a gateway of its own and beside a queue with 1,000,000 messages; medians of five 99th percentiles',
    isSeeded: false,
    prove: async () => {
      const { alone, beside } = await longQueue({ messages: 1_000_000, seconds: 5, rounds: 5 })
      return [
        ratio('publish to PUBACK by fdatasync', beside.acknowledgedMs, alone.acknowledgedMs, 2, inMs),
        ratio('publish to delivery', beside.deliveredMs, alone.deliveredMs, 2, inMs),
      ]
    },
  },
  {
    name: 'many-queues',
    title: '2,000 durable queues of the configuration with ten messages each by one with 20,000',
    isSeeded: false,
    prove: async () => {
      const { many, one } = await manyQueues(2_000, 5)
      return [
        ratio('process start to first CONNACK', many.startUpMs, one.startUpMs, 2, inMs),
        ratio('anonymous memory after it', many.memory.anonymous, one.memory.anonymous, 1.5, inMegabytes),
        ratio('resident memory after it', many.memory.total, one.memory.total, 1.5, inMegabytes),
        ratio('log/ and state/ on disk', many.diskBytes, one.diskBytes, 1.5, inMegabytes),
      ]
    },
  },
  {
    name: 'store-kill',
    title: 'A process that commits, settles and makes checkpoints in a loop, killed (SIGKILL) 200 times',
    isSeeded: false,
    prove: context => tests(context, ['test/fault/store-kill.test.ts'], { SLUICE_KILLS: '200' }),
  },
  {
    name: 'store-power-cut',
    title:
      'The same with 200 power cuts that take what was not synced, in whole, in part or torn; and on a disk that lies about syncing',
    isSeeded: false,
    prove: context => tests(context, ['test/fault/store-power-cut.test.ts'], { SLUICE_CUTS: '200' }),
  },
  {
    name: 'foreign-clients',
    title: 'Clients we did not write: mosquitto_pub and _sub, MQTT.js, paho',
    isSeeded: false,
    prove: context => tests(context, ['test/integration/foreign-clients.test.ts']),
  },
  {
    name: 'wrong-things',
    title:
      'Wrong configuration, port in use, data directory in use or unwritable, upstream refusing the password: one clear line, right exit status, nothing lost',
    isSeeded: false,
    prove: context => tests(context, ['test/fault/wrong-things.test.ts']),
  },
  {
    name: 'fuzz',
    title:
      '10,000,000 frames of clients of all versions that say what nobody should: valid conversations, up to three packets of each made wrong, one in 50 over a socket',
    isSeeded: true,
    prove: async ({ seed, say }) => {
      const { frames, conversations, overSocket, reasons, memory } = await fuzz({ frames: 10_000_000, seed, say })
      const given = [...reasons].sort(([, one], [, other]) => other - one)
      return [
        row(
          'exceptions, answers that are none, closes of 5.0 without a reason, times a client that behaves was not served',
          0,
          0,
          `of ${frames} frames in ${conversations} conversations, ${overSocket} of them over a socket`,
        ),
        {
          what: 'reasons in CONNACK and DISCONNECT',
          bar: '',
          measured: given.map(([reason, times]) => `0x${reason.toString(16).padStart(2, '0')} ${times} ×`).join(', '),
          holds: true,
        },
        atMost(
          'growth of heap and buffers from the second to the last tenth of the run, beside limits.memory of 67 MB',
          Math.max(0, Math.round((memory.late - memory.early) / 1e6)),
          128,
          'MB',
        ),
      ]
    },
  },
  {
    name: 'hostile',
    title: `${ATTACKERS.length} attackers, one at a time for 10 s, each on a gateway of its own that 100 clients use as they should (docs/security.md)`,
    isSeeded: false,
    prove: async ({ say }) => {
      const rows: Row[] = []
      for (const attacker of ATTACKERS) {
        await using directory = await tempDir()
        const { undisturbed, outcomes } = await hostilities({
          directory: directory.path,
          config: {},
          attackers: [attacker],
          attackMs: 10_000,
          undisturbedMs: 5_000,
          say,
        })
        rows.push(...outcomes.map(outcome => attackRow(outcome, undisturbed.latencyMs.p99)))
      }
      return rows
    },
  },
  {
    name: 'full-disk',
    title: 'Full disk: refusal before the acknowledgement, nothing lost, works again without a restart',
    isSeeded: false,
    prove: async ({ say }) => {
      const { disk, acknowledged, heldMs } = await fullDisk({ say })
      return [
        row('acknowledged messages lost', 0, 0, `of ${acknowledged}, on a full ${disk}`),
        {
          what: 'MQTT 5',
          bar: 'PUBACK 0x97 and /health/ready 503 until there is room',
          measured: 'so it was',
          holds: true,
        },
        {
          what: 'MQTT 3.1.1, limits.refuse_disconnect_after 1 s',
          bar: 'held, then closed',
          measured: `closed after ${Math.round(heldMs)} ms`,
          holds: true,
        },
      ]
    },
  },
  {
    name: 'acknowledgements',
    title:
      'PUBACK is withheld with the commit and leaves in order; it is sent as soon as the upstream confirmed that message and all earlier ones',
    isSeeded: false,
    prove: context => tests(context, ['test/fault/acknowledgements.test.ts']),
  },
  {
    name: 'model',
    title: 'Queue and store against a model: 2,000 random histories with restarts and deaths',
    isSeeded: false,
    prove: context => tests(context, ['test/model'], { SLUICE_MODEL_RUNS: '2000' }),
  },
  {
    name: 'footprint',
    title: 'Size, start, memory and writing of the idle executable (docs/footprint.md)',
    isSeeded: false,
    prove: async ({ say }) => {
      const status = await passThrough([process.execPath, 'scripts/footprint.ts'], say)
      const figures = (await readFile(join(ROOT, 'docs/footprint.md'), 'utf8')).matchAll(
        /^\| (?<what>[^|]+) \| (?<measured>[^|]+) \| (?<bar>≤[^|]+) \|/gm,
      )
      const rows = [...figures].map(({ groups = {}, input = '', index }) => ({
        what: groups.what ?? '',
        bar: groups.bar ?? '',
        measured: groups.measured ?? '',
        holds: !input.slice(index).split('\n', 1)[0]?.includes('missed'),
      }))
      if (rows.length === 0) throw new Error(`npm run footprint ended with status ${status} and without figures`)
      return rows
    },
  },
]

function row(what: string, bar: number, measured: number, of = ''): Row {
  return { what, bar: String(bar), measured: `${measured} ${of}`.trimEnd(), holds: measured === bar }
}

/** What the clients saw beside one attacker, and what was left of it. */
function attackRow({ name, seen, peakBytes, logBytes, seconds, leaked, fault }: Outcome, undisturbedMs: number): Row {
  const barMs = Math.max(LATENCY_FLOOR_MS, 2 * undisturbedMs)
  const { p99 } = seen.latencyMs
  const isWell = fault === null && leaked.length === 0 && seen.missing === 0 && seen.closed === 0
  const faults = [
    fault,
    leaked.length > 0 && `${leaked.length} descriptors left open`,
    seen.missing > 0 && `${seen.missing} messages missing`,
  ]
  return {
    what: name,
    bar: `p99 < ${barMs.toFixed(0)} ms; < ${PEAK_BYTES / 1e6} MB; answered as documented`,
    measured: [`p99 ${inMs(p99)}`, inMegabytes(peakBytes), ...faults.filter(text => typeof text === 'string')].join(
      ', ',
    ),
    holds: isWell && p99 < barMs && peakBytes < PEAK_BYTES && logBytes < logLimit(seconds),
  }
}

function atMost(what: string, measured: number, bar: number, unit: string): Row {
  const figure = Number.isInteger(measured) ? String(measured) : measured.toFixed(measured < 10 ? 2 : 0)
  return { what, bar: `< ${bar} ${unit}`.trimEnd(), measured: `${figure} ${unit}`.trimEnd(), holds: measured < bar }
}

function atLeast(what: string, measured: number, bar: number, unit: string): Row {
  const figure = (n: number) => `${Math.round(n).toLocaleString('en-US')}${unit}`
  return { what, bar: `≥ ${figure(bar)}`, measured: figure(measured), holds: measured >= bar }
}

/** A cost beside what it is compared with. */
function ratio(what: string, measured: number, reference: number, bar: number, inWords: (n: number) => string): Row {
  return {
    what,
    bar: `≤ ${bar} ×`,
    measured: `${(measured / reference).toFixed(2)} × (${inWords(measured)} by ${inWords(reference)})`,
    holds: measured <= bar * reference,
  }
}

const inMs = (ms: number): string => `${ms.toFixed(ms < 100 ? 2 : 0)} ms`
const inMegabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`

/** Medians of three runs of five seconds, as `npm run bench`. */
async function compare(scenario: (typeof SCENARIOS)[number], say: Context['say']) {
  const directory = await mkdtemp('/var/tmp/sluice-prove-')
  const series = contendersOf(scenario).map(contender => ({ contender, runs: [] as Measurement[] }))
  try {
    for (let repeat = 1; repeat <= 3; repeat++) {
      for (const { contender, runs } of series) {
        const sluice = join(ROOT, 'scripts/sluice')
        const measurement = await measure({ scenario, contender, warmUpS: 1, seconds: 5, directory, sluice })
        runs.push(measurement)
        say(`${repeat}/3 ${contender.label}: ${Math.round(measurement.ratePerS).toLocaleString('en-US')}/s`)
      }
    }
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
  const verdict = verdictOf({ scenario, series })
  if (verdict === null) throw new TypeError(`${scenario.name} has nothing to compare with`)
  return verdict
}

/** Runs test files on their own. */
async function tests(
  { name, say }: Context,
  files: readonly string[],
  environment: NodeJS.ProcessEnv = {},
): Promise<Row[]> {
  const report = join(CACHE, `prove-${name}.json`)
  const vitest = join(ROOT, 'node_modules/vitest/vitest.mjs')
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`]
  await rm(report, { force: true })
  const status = await passThrough([process.execPath, vitest, 'run', ...files, ...reporters], say, environment)
  const { numPassedTests, numTotalTests } = JSON.parse(await readFile(report, 'utf8'))
  return [
    {
      what: files.join(', '),
      bar: 'all tests pass',
      measured: `${numPassedTests} of ${numTotalTests} passed`,
      holds: status === 0 && numPassedTests === numTotalTests && numTotalTests > 0,
    },
  ]
}

/** Runs a command; its output goes to a log beside the state. Gives its exit status. */
async function passThrough(
  [program = '', ...args]: readonly string[],
  say: Context['say'],
  environment: NodeJS.ProcessEnv = {},
): Promise<number> {
  const log = join(CACHE, 'prove.log')
  const child = spawn(program, args, {
    cwd: ROOT,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const file = createWriteStream(log)
  child.stdout.pipe(file, { end: false })
  child.stderr.pipe(file, { end: false })
  const [status] = await once(child, 'close')
  file.end()
  if (status !== 0) say(`ended with status ${status}, see ${log}`)
  return status
}

// ---- What has been proved ----------------------------------------------------------------------------------------------

/** The last commit that changed what is proved; marked where it is not all committed. */
async function provedCommit(): Promise<string> {
  const { stdout: commit } = await run('git', ['log', '-1', '--format=%h', '--', ...PROVED], { cwd: ROOT })
  const { stdout: changes } = await run('git', ['status', '--porcelain', '--', ...PROVED], { cwd: ROOT })
  return commit.trim() + (changes === '' ? '' : ' with uncommitted changes')
}

async function readState(commit: string): Promise<State> {
  try {
    const state: State = JSON.parse(await readFile(STATE, 'utf8'))
    return state.commit === commit ? state : { commit, proofs: {} }
  } catch {
    // None yet.
    return { commit, proofs: {} }
  }
}

async function proveItem(item: Item, seed: number, commit: string): Promise<Proof> {
  const startedMs = performance.now()
  const say = (line: string) => process.stdout.write(`  ${line}\n`)
  let rows: readonly Row[]
  try {
    rows = await item.prove({ name: item.name, seed, say })
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error)
    say(reason)
    rows = [{ what: item.title, bar: 'holds', measured: reason, holds: false }]
  }
  if (item.isSeeded && rows.some(({ holds }) => !holds)) {
    rememberFailedSeed(item.name, seed)
    say(`seed ${seed} is kept in test/fault/seeds.txt, which npm test replays`)
  }
  const date = new Date().toISOString().slice(0, 16).replace('T', ' ')
  const seconds = Math.round((performance.now() - startedMs) / 1000)
  return { rows, commit, seed: item.isSeeded ? seed : null, date, seconds }
}

function document({ proofs }: State): string {
  const lines = [
    '# Proof',
    '',
    'Written by `npm run prove`; do not edit. What issues 2, 4 and 6 say must hold, and what was measured. The same scenarios run in small form in `npm test`.',
    '',
    `Machine: ${cpus()[0]?.model ?? 'unknown processor'}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}; Node ${process.versions.node}.`,
  ]
  for (const { name, title } of ITEMS) {
    const proof = proofs[name]
    lines.push('', `## ${name}`, '', `${title}.`, '')
    if (proof === undefined) {
      lines.push('Not run yet.')
      continue
    }
    const { rows, commit, seed, date, seconds } = proof
    lines.push('| what | bar | measured | |', '|---|---|---|---|')
    for (const { what, bar, measured, holds } of rows) {
      const verdict = bar === '' ? '' : holds ? 'holds' : '**missed**'
      lines.push(`| ${cell(what)} | ${cell(bar)} | ${cell(measured)} | ${verdict} |`)
    }
    const seeded = seed === null ? '' : ` --seed ${seed}`
    lines.push(
      '',
      `Commit ${commit}, ${date} UTC, ${seconds} s. Again: \`npm run prove -- --fresh --only ${name}${seeded}\``,
    )
  }
  return `${lines.join('\n')}\n`
}

function cell(value: string): string {
  return value.replaceAll('\n', ' ').replaceAll('|', '\\|').slice(0, 500)
}

async function main(): Promise<void> {
  // An exit by `process.exit` takes the peers and gateways with it.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(130))
  const { values } = parseArgs({
    options: {
      only: { type: 'string', multiple: true },
      seed: { type: 'string' },
      fresh: { type: 'boolean', default: false },
    },
  })
  const unknown = values.only?.find(name => !ITEMS.some(item => item.name === name))
  if (unknown !== undefined)
    throw new Error(`there is no ${unknown}; choose from ${ITEMS.map(({ name }) => name).join(', ')}`)
  const seed = values.seed === undefined ? Math.floor(Math.random() * HIGHEST_SEED) : Number(values.seed)
  if (!Number.isSafeInteger(seed)) throw new Error(`--seed must be a whole number, not ${values.seed}`)

  const commit = await provedCommit()
  let state = await readState(commit)
  await mkdir(CACHE, { recursive: true })
  const items = ITEMS.filter(({ name }) => values.only?.includes(name) ?? true)
  for (const item of items) {
    const known = state.proofs[item.name]
    if (!values.fresh && known?.rows.every(({ holds }) => holds)) {
      process.stdout.write(`${item.name}: holds, as of ${known.date}\n`)
      continue
    }
    process.stdout.write(`${item.name}: ${item.title}${item.isSeeded ? ` (seed ${seed})` : ''}\n`)
    const proof = await proveItem(item, seed, commit)
    state = { commit, proofs: { ...state.proofs, [item.name]: proof } }
    await writeFile(STATE, JSON.stringify(state, null, 2))
    await writeFile(RESULT, document(state))
    for (const { what, bar, measured, holds } of proof.rows)
      process.stdout.write(
        `  ${holds ? 'holds ' : 'MISSED'}  ${what}: ${measured}${bar === '' ? '' : ` (bar ${bar})`}\n`,
      )
  }
  const missed = items.filter(({ name }) => state.proofs[name]?.rows.some(({ holds }) => !holds))
  process.stdout.write(
    missed.length === 0 ? 'all of it holds\n' : `missed: ${missed.map(({ name }) => name).join(', ')}\n`,
  )
  if (missed.length > 0) process.exitCode = 1
}

await main().catch(error => {
  process.stderr.write(`prove: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 2
})
