import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { cpus, loadavg, release, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import { findMosquitto } from '../peers.ts'
import { CORES } from './brokers.ts'
import type { Latency } from './load.ts'
import { contendersOf, type Measurement, measure } from './measure.ts'
import { type ScenarioResult, table } from './report.ts'
import { SCENARIOS, scenarioNamed } from './scenarios.ts'

const USAGE = `Measures Sluice beside mosquitto and aedes: npm run bench [-- OPTIONS]

  --scenario NAME   only this one; may be repeated
                    (${SCENARIOS.map(scenario => scenario.name).join(', ')})
  --seconds N       length of each measurement, default 5
  --repeats N       how often each is measured; medians are shown, default 3
  --data DIR        where stores are kept meanwhile, on a disk, default /var/tmp
  --sluice PROGRAM  what to start, default scripts/sluice (the sources)
  --write           put the table into scripts/bench/RESULTS.md

Nothing else should run on the machine: figures taken beside other work are noise.`

const ROOT = resolve(import.meta.dirname, '../..')
const RESULTS = join(import.meta.dirname, 'RESULTS.md')
const WARM_UP_S = 1

const run = promisify(execFile)

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      scenario: { type: 'string', multiple: true },
      seconds: { type: 'string', default: '5' },
      repeats: { type: 'string', default: '3' },
      data: { type: 'string', default: '/var/tmp' },
      sluice: { type: 'string', default: join(ROOT, 'scripts/sluice') },
      write: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(`${USAGE}\n`)
    return
  }
  const seconds = positive('--seconds', values.seconds)
  const repeats = Math.ceil(positive('--repeats', values.repeats))
  const scenarios = values.scenario?.map(scenarioNamed) ?? SCENARIOS
  const before = await surroundings()
  const directory = await mkdtemp(join(values.data, 'sluice-bench-'))
  const results: ScenarioResult[] = []
  let failure: unknown = null
  try {
    for (const scenario of scenarios) {
      progress(`${scenario.name}: ${scenario.title}`)
      const series = contendersOf(scenario).map(contender => ({ contender, runs: [] as Measurement[] }))
      // All brokers once, then all again: what the machine does meanwhile hits them alike.
      for (let repeat = 1; repeat <= repeats; repeat++) {
        for (const { contender, runs } of series) {
          const options = { scenario, contender, warmUpS: WARM_UP_S, seconds, directory, sluice: values.sluice }
          const measurement = await measure(options)
          runs.push(measurement)
          progress(`  ${repeat}/${repeats} ${contender.label}: ${inWords(measurement)}`)
        }
      }
      results.push({ scenario, series })
    }
  } catch (error) {
    // What has been measured took minutes: it is shown before the failure.
    failure = error
  } finally {
    await rm(directory, { recursive: true, force: true })
  }
  const text = table(results)
  process.stdout.write(`${text}\n`)
  if (failure !== null) throw failure
  if (values.write) await writeFile(RESULTS, document(text, { before, seconds, repeats }))
}

function positive(option: string, text: string): number {
  const value = Number(text)
  if (!(value > 0)) throw new Error(`${option} must be a number above 0, not ${text}`)
  return value
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`)
}

function inWords(run: Measurement): string {
  const { ratePerS, sent, acked, received, lost, disordered, brokerBusy, generatorBusy } = run
  const words = [perSecond(ratePerS)]
  if (run.latencyMs !== null) words.push(latency(run.latencyMs))
  if (run.frozenLatencyMs !== null) words.push(`with a frozen subscriber ${latency(run.frozenLatencyMs)}`)
  if (run.replayPerS !== null) words.push(`replay ${perSecond(run.replayPerS)}`)
  if (run.connectionBytes !== null) words.push(`${Math.round(run.connectionBytes)} bytes per connection`)
  if (sent > 0) words.push(`sent ${sent}, acknowledged ${acked}, received ${received}, lost ${lost}`)
  if (disordered > 0) words.push(`${disordered} acknowledgements out of order`)
  if (run.amplification !== null) words.push(`${run.amplification.toFixed(2)} bytes written per byte accepted`)
  words.push(`CPU ${percent(brokerBusy ?? Number.NaN)}/${percent(generatorBusy)}`)
  return words.join('; ')
}

const perSecond = (rate: number) => `${Math.round(rate).toLocaleString('en-US')}/s`
const percent = (share: number) => (100 * share).toFixed(0)
const latency = ({ p50, p99 }: Latency) => `p50 ${p50.toFixed(3)} ms, p99 ${p99.toFixed(3)} ms`

/** What the figures depend on besides the code. */
async function surroundings(): Promise<readonly string[]> {
  const { stdout: commit } = await run('git', ['rev-parse', '--short', 'HEAD'], { cwd: ROOT })
  const { stdout: changes } = await run('git', ['status', '--porcelain', '--', 'src'], { cwd: ROOT })
  const { stdout: banner } = await run(await findMosquitto(), ['-h']).catch(
    (error: { readonly stdout: string }) => error,
  )
  const aedes = JSON.parse(await readFile(join(ROOT, 'node_modules/aedes/package.json'), 'utf8'))
  const processor = cpus()[0]?.model ?? 'unknown processor'
  return [
    `Date: ${new Date().toISOString().slice(0, 10)}`,
    `Commit: ${commit.trim()}${changes === '' ? '' : ' with uncommitted changes in src'}`,
    `Command: npm run bench -- ${process.argv.slice(2).join(' ')}`.trimEnd(),
    `Machine: ${processor}, ${cpus().length} cores, ${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}`,
    `Load of the machine before the start (1 minute): ${loadavg()[0]?.toFixed(2)}`,
    `Cores: ${CORES === null ? 'not pinned' : `broker ${CORES.broker}, generator ${CORES.generator}`}`,
    `Versions: Node ${process.versions.node}, ${banner.split('\n')[0]?.replace(' version', '')}, aedes ${aedes.version}`,
  ]
}

function document(
  text: string,
  { before, seconds, repeats }: { before: readonly string[]; seconds: number; repeats: number },
): string {
  return `# Results of \`npm run bench\`

Written by \`npm run bench -- --write\`; do not edit.

${before.map(line => `* ${line}`).join('\n')}
* Each figure: median of ${repeats} runs of ${seconds} s after ${WARM_UP_S} s of warm-up, each with a fresh broker process.

\`\`\`
${text}
\`\`\`

\`±%\` is half the distance between the best and the worst run. \`CPU %\` is the share of its core that broker and
generator used: a generator near 100 means that the broker could have done more. \`ratio\` compares with the first line of the
scenario. \`lost\` is the sum over all runs of messages acknowledged (QoS 0: sent) and not received by the end.

## What is measured

${SCENARIOS.map(({ name, title }) => `* **${name}**: ${title}.`).join('\n')}

Rates are deliveries per second where there is a subscriber, acknowledgements per second where there is none. QoS 0 publishers
write 64 KiB at a time and have a bounded number of messages under way, so that no broker is made to drop.

**latency, frozen.** From the write of a message to its read by the subscriber, after a warm-up at full speed. \`frozen\` shows the 99th percentile while another subscriber of the same
messages has stopped reading, by what it was before; all brokers run with their default limits there, and the messages fill them.

**connecting, idle-memory.** The figures stand for themselves, the ratio is for information.

**tls-….** Each broker has a certificate of its own, of a key on the curve P-256; nothing is resumed.

mosquitto runs with \`max_inflight_messages 1000\`, \`max_queued_messages 0\` (no limit) and no persistence; with its defaults it acknowledges and
drops. Sluice gets limits as wide: \`inflight\` and \`receive_max\` 1000, \`session_queue\` 10,000,000 messages, \`output_per_client\`
256 MiB, \`memory\` 1 GiB; it runs from its sources with the V8 flags of the executable.

**offline-in, offline-replay.** The session is one of MQTT 3.1.1 without clean session, subscribed at QoS 1. mosquitto and aedes keep it in memory, Sluice on disk.

**durable-ingress.** Sluice keeps each message in the outbox of a route whose upstream refuses connections, and acknowledges it
after fdatasync. mosquitto is measured three times, never writing anything: *fan-in* hands each message to a subscriber, which is its figure for QoS 1 in
memory from these publishers, and what Sluice is compared with; *kept* has a persistent session whose client is away, so that it keeps each message in memory;
*nobody* has no subscriber at all: it acknowledges and forgets. For Sluice \`lost\` is what was acknowledged and is not in the outbox. \`written/accepted\` is what the process caused to be written to the disk
from start to end, as the kernel counts it, by payload and topic bytes acknowledged; payloads are random bytes.

**durable-through.** A durable queue of Sluice with a consumer by \`$queue/NAME\`. What the consumer has acknowledged by the time it would be written is not
written.
`
}

await main().catch(error => {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`)
  process.exitCode = 1
})
