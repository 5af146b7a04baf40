import { type Contender, type Measurement, median } from './measure.ts'
import type { FigureName, Scenario } from './scenarios.ts'

/* Measurements as a table of 83 columns. */

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
  /** Sluice's figure by the first broker's, medians. */
  readonly ratio: number
  /** Sluice's figure. */
  readonly figure: number
  readonly amplification: number | null
  /** Whether the figure is within the bar, and whether everything is; null where there is none. */
  readonly isFigureMet: boolean | null
  readonly isMet: boolean | null
}

/** What can be shown of a measurement. */
interface Figure {
  readonly of: (run: Measurement) => number | null
  readonly isToBeLarge: boolean
  readonly unit: string
  readonly digits: number
}

const FIGURES: Record<FigureName, Figure> = {
  rate: { of: run => run.ratePerS, isToBeLarge: true, unit: '/s', digits: 0 },
  connecting: { of: run => run.ratePerS, isToBeLarge: true, unit: '/s', digits: 0 },
  replay: { of: run => run.replayPerS, isToBeLarge: true, unit: '/s', digits: 0 },
  latency: { of: run => run.latencyMs?.p99 ?? null, isToBeLarge: false, unit: ' ms', digits: 2 },
  frozen: {
    of: run => (run.frozenLatencyMs?.p99 ?? Number.NaN) / (run.latencyMs?.p99 ?? Number.NaN),
    isToBeLarge: false,
    unit: ' x',
    digits: 2,
  },
  memory: { of: run => (run.connectionBytes ?? Number.NaN) / 1000, isToBeLarge: false, unit: ' kB', digits: 1 },
}

/** Whether what is shown must be at least what a bar says, or at most. */
export const isToBeLarge = ({ shows }: Scenario): boolean => FIGURES[shows].isToBeLarge

/** How Sluice stands; null if it was not measured or nothing to compare with was. */
export function verdictOf({ scenario, series }: ScenarioResult): Verdict | null {
  const reference = series[0]
  const sluice = series.find(({ contender }) => contender.broker === 'sluice')
  if (reference === undefined || sluice === undefined || reference === sluice) return null
  const figure = figureOf(scenario, sluice)
  const ratio = figure / figureOf(scenario, reference)
  const amplifications = sluice.runs.flatMap(run => run.amplification ?? [])
  const amplification = amplifications.length === 0 ? null : median(amplifications)
  const { bar } = scenario
  if (bar === null) return { ratio, figure, amplification, isFigureMet: null, isMet: null }
  const isWithin = (value: number, limit: number | null) =>
    limit === null || (isToBeLarge(scenario) ? value >= limit : value <= limit)
  const isFigureMet = isWithin(ratio, bar.ratio) && isWithin(figure, bar.figure)
  const isFrugal = bar.amplification === null || (amplification ?? Number.POSITIVE_INFINITY) <= bar.amplification
  return { ratio, figure, amplification, isFigureMet, isMet: isFigureMet && isFrugal }
}

const figuresOf = ({ shows }: Scenario, { runs }: Series) => runs.map(run => FIGURES[shows].of(run) ?? Number.NaN)
const figureOf = (scenario: Scenario, series: Series) => median(figuresOf(scenario, series))

const COLUMNS = ['scenario', 'broker', 'figure', '±%', 'ratio', 'bar', 'lost', 'CPU %'] as const
const WIDTHS = [15, 17, 14, 3, 6, 8, 6, 7] as const
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
    const figure = figureOf(scenario, one)
    const ratio = reference === undefined || reference === one ? '' : fixed(figure / figureOf(scenario, reference), 2)
    lines.push(
      row([
        lines.length === 0 ? scenario.name : '',
        contender.label,
        scenario.shows === 'latency' ? latency(runs) : inUnit(scenario, figure),
        fixed(spread(figuresOf(scenario, one)), 0),
        ratio,
        contender.broker === 'sluice' ? barOf(scenario) : '',
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

/** What is asked of Sluice's figure. */
export function barOf(scenario: Scenario): string {
  const { bar, shows } = scenario
  if (bar === null) return ''
  const relation = isToBeLarge(scenario) ? '≥' : '≤'
  return `${relation}${bar.ratio === null ? grouped(bar.figure ?? Number.NaN) + FIGURES[shows].unit : grouped(bar.ratio)}`
}

export function inUnit({ shows }: Scenario, value: number): string {
  const { unit, digits } = FIGURES[shows]
  if (Number.isNaN(value)) return 'none'
  const shown = value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })
  return `${shown}${unit}`
}

function latency(runs: readonly Measurement[]): string {
  const of = (pick: 'p50' | 'p99') => median(runs.flatMap(run => run.latencyMs?.[pick] ?? [])).toFixed(2)
  return `${of('p50')}/${of('p99')} ms`
}

/** Half the distance between best and worst run, in percent of the median. */
function spread(figures: readonly number[]): number {
  return (50 * (Math.max(...figures) - Math.min(...figures))) / median(figures)
}

/** Nothing where there is no such figure. */
const fixed = (value: number, digits: number) => (Number.isNaN(value) ? '' : value.toFixed(digits))
const grouped = (value: number) => value.toLocaleString('en-US', { maximumFractionDigits: 2 })

function row(cells: readonly string[]): string {
  return cells
    .map((cell, column) => (column < LEFT ? cell.padEnd(WIDTHS[column] ?? 0) : cell.padStart(WIDTHS[column] ?? 0)))
    .join(' ')
    .trimEnd()
}
