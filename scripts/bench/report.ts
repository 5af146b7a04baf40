import { type Contender, type Measurement, median } from './measure.ts'
import type { Scenario } from './scenarios.ts'

/* Measurements as a table of 80 columns. */

/** All repeats of one broker under one scenario. */
export interface Series {
  readonly contender: Contender
  readonly runs: readonly Measurement[]
}

export interface ScenarioResult {
  readonly scenario: Scenario
  /** In the order of `contendersOf`: the first is compared with. */
  readonly series: readonly Series[]
}

export interface Verdict {
  /** Sluice's rate by the first broker's, medians. */
  readonly ratio: number
  readonly amplification: number | null
  /** Whether both are within the bar; null where there is none. */
  readonly isMet: boolean | null
}

/** How Sluice stands; null if it was not measured or nothing to compare with was. */
export function verdictOf({ scenario, series }: ScenarioResult): Verdict | null {
  const reference = series[0]
  const sluice = series.find(({ contender }) => contender.broker === 'sluice')
  if (reference === undefined || sluice === undefined || reference === sluice) return null
  const ratio = rateOf(sluice) / rateOf(reference)
  const amplifications = sluice.runs.flatMap(run => run.amplification ?? [])
  const amplification = amplifications.length === 0 ? null : median(amplifications)
  const { bar } = scenario
  if (bar === null) return { ratio, amplification, isMet: null }
  const isWithin = bar.amplification === null || (amplification ?? Number.POSITIVE_INFINITY) <= bar.amplification
  return { ratio, amplification, isMet: ratio >= bar.ratio && isWithin }
}

const rateOf = ({ runs }: Series) => median(runs.map(run => run.ratePerS))

const COLUMNS = ['scenario', 'broker', 'messages/s', '±%', 'ratio', 'bar', 'lost', 'CPU %'] as const
const WIDTHS = [15, 17, 13, 3, 6, 6, 6, 7] as const
/** Columns of words stand left, those of figures right. */
const LEFT = 2

/** What a quiet machine's own processes use. */
const QUIET_CORES = 0.1

/** Medians; ±% is half the distance of the extremes; CPU is the broker's and the generator's share of its core. */
export function table(results: readonly ScenarioResult[]): string {
  const lines = [row(COLUMNS), WIDTHS.map(width => '-'.repeat(width)).join(' ')]
  for (const result of results) lines.push(...scenarioRows(result))
  const others = results.flatMap(({ series }) =>
    series.flatMap(({ runs }) => runs.flatMap(run => run.othersBusy ?? [])),
  )
  if (others.length > 0) {
    const [typical, most] = [median(others), Math.max(...others)]
    lines.push(
      '',
      `Other processes meanwhile: ${typical.toFixed(2)} cores in the median run, ${most.toFixed(2)} at most`,
    )
    if (typical > QUIET_CORES) lines.push('The machine was busy with other work: these figures are noise.')
  }
  return lines.join('\n')
}

function scenarioRows(result: ScenarioResult): string[] {
  const { scenario, series } = result
  const reference = series[0]
  const verdict = verdictOf(result)
  const lines: string[] = []
  for (const one of series) {
    const { contender, runs } = one
    const lost = runs.reduce((sum, run) => sum + run.lost, 0)
    const busy = [median(runs.map(run => run.brokerBusy ?? Number.NaN)), median(runs.map(run => run.generatorBusy))]
    const ratio = reference === undefined || reference === one ? '' : (rateOf(one) / rateOf(reference)).toFixed(2)
    const bar = contender.broker === 'sluice' && scenario.bar !== null ? `≥${scenario.bar.ratio}` : ''
    const isLatency = scenario.shows === 'latency'
    lines.push(
      row([
        lines.length === 0 ? scenario.name : '',
        contender.label,
        isLatency ? latency(runs) : grouped(rateOf(one)),
        isLatency ? '' : spread(runs).toFixed(0),
        isLatency ? '' : ratio,
        bar,
        grouped(lost),
        busy.map(share => (share * 100).toFixed(0)).join('/'),
      ]),
    )
  }
  if (verdict?.amplification !== null && verdict?.amplification !== undefined) {
    const limit = scenario.bar?.amplification
    const bar = limit === null || limit === undefined ? '' : `≤${limit}`
    lines.push(row(['', 'written/accepted', '', '', verdict.amplification.toFixed(2), bar, '', '']))
  }
  if (verdict?.isMet === false) lines.push(row(['', 'BAR NOT REACHED', '', '', '', '', '', '']))
  return lines
}

function latency(runs: readonly Measurement[]): string {
  const of = (pick: 'p50' | 'p99') => median(runs.flatMap(run => run.latencyMs?.[pick] ?? [])).toFixed(2)
  return `${of('p50')}/${of('p99')} ms`
}

/** Half the distance between best and worst run, in percent of the median. */
function spread(runs: readonly Measurement[]): number {
  const rates = runs.map(run => run.ratePerS)
  return (50 * (Math.max(...rates) - Math.min(...rates))) / median(rates)
}

const grouped = (value: number) => Math.round(value).toLocaleString('en-US')

function row(cells: readonly string[]): string {
  return cells
    .map((cell, column) => (column < LEFT ? cell.padEnd(WIDTHS[column] ?? 0) : cell.padStart(WIDTHS[column] ?? 0)))
    .join(' ')
    .trimEnd()
}
