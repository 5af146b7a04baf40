import type { UpstreamStatus } from '../../api/contract.ts'
import { formatDuration } from '../../model/quantity.ts'

/** What the picture shows, read once a frame. */
export interface DemoFigures {
  readonly elapsedMs: number
  readonly totalMs: number
  /** What is going on, in words. */
  readonly phase: string
  readonly devices: number
  readonly online: number
  readonly published: number
  readonly acknowledged: number
  readonly publishedPerSecond: number
  readonly upstream: UpstreamStatus
  readonly upstreamReceived: number
  readonly forwardedPerSecond: number
  readonly outboxDepth: number
  readonly outboxBytes: number
  readonly duplicates: number
  /** Acknowledged, and neither upstream nor in the outbox or in flight: must stay 0. */
  readonly lost: number
}

const BARS = '▁▂▃▄▅▆▇█'
const GRAPH_COLUMNS = 60
const CLEAR_TO_END = '\x1b[0J'

/** Draws the demo into a terminal of at least 80 columns, or, where output is no terminal, writes a line now and then. */
export class DemoPicture {
  readonly #out: NodeJS.WriteStream
  readonly #isLive: boolean
  readonly #depths: number[] = []
  #linesDrawn = 0
  #lastLineMs = Number.NEGATIVE_INFINITY
  #lastPhase = ''

  constructor(out: NodeJS.WriteStream) {
    this.#out = out
    this.#isLive = out.isTTY === true
  }

  /** Something worth a line of its own, above the picture. */
  say(line: string): void {
    this.#erase()
    this.#out.write(`${line}\n`)
  }

  draw(figures: DemoFigures): void {
    this.#depths.push(figures.outboxDepth)
    if (this.#isLive) this.#drawLive(figures)
    else this.#drawLine(figures)
  }

  /** Leaves the last picture standing. */
  end(): void {
    this.#linesDrawn = 0
  }

  #drawLine(figures: DemoFigures): void {
    const isDue = figures.phase !== this.#lastPhase || figures.elapsedMs - this.#lastLineMs >= 5000
    if (!isDue) return
    this.#lastLineMs = figures.elapsedMs
    this.#lastPhase = figures.phase
    this.#out.write(
      `${seconds(figures.elapsedMs)} ${figures.phase}: published ${figures.published}, acknowledged ${figures.acknowledged}, ` +
        `upstream ${figures.upstreamReceived}, outbox ${figures.outboxDepth}, lost ${figures.lost}\n`,
    )
  }

  #drawLive(figures: DemoFigures): void {
    const { upstream } = figures
    const state = upstream.cause === null ? upstream.state : `${upstream.state}: ${upstream.cause}`
    const lines = [
      '',
      `${bold(figures.phase.padEnd(60))}${`${seconds(figures.elapsedMs)} of ${seconds(figures.totalMs)}`.padStart(18)}`,
      `${bar(figures.elapsedMs / figures.totalMs)}`,
      '',
      row(
        'sensors',
        `${figures.online} of ${figures.devices} connected`,
        `${figures.published} published`,
        rate(figures.publishedPerSecond),
      ),
      row(
        'gateway',
        `${figures.acknowledged} acknowledged`,
        `${figures.outboxDepth} in the outbox`,
        bytesText(figures.outboxBytes),
      ),
      row(
        'RabbitMQ',
        `${figures.upstreamReceived} arrived`,
        `${figures.duplicates} repeated`,
        rate(figures.forwardedPerSecond),
      ),
      row('link', clip(state, 64), '', ''),
      '',
      `  outbox   ${sparkline(this.#depths)}`,
      `  lost     ${figures.lost === 0 ? green('0') : red(String(figures.lost))}`,
      '',
    ]
    this.#erase()
    this.#out.write(`${lines.join('\n')}\n`)
    this.#linesDrawn = lines.length
  }

  #erase(): void {
    if (this.#linesDrawn > 0) this.#out.write(`\x1b[${this.#linesDrawn}A\r${CLEAR_TO_END}`)
    this.#linesDrawn = 0
  }
}

function row(name: string, first: string, second: string, third: string): string {
  return `  ${name.padEnd(9)}${first.padEnd(26)}${second.padEnd(24)}${third}`.trimEnd()
}

function sparkline(values: readonly number[]): string {
  const perColumn = Math.max(1, Math.ceil(values.length / GRAPH_COLUMNS))
  const columns: number[] = []
  for (let i = 0; i < values.length; i += perColumn) columns.push(Math.max(...values.slice(i, i + perColumn)))
  const highest = Math.max(1, ...columns)
  return columns.map(value => BARS[Math.round((value / highest) * (BARS.length - 1))] ?? '').join('')
}

function bar(share: number): string {
  const width = 78
  const done = Math.round(Math.min(1, share) * width)
  return `${'━'.repeat(done)}${dim('─'.repeat(width - done))}`
}

const seconds = (ms: number): string => formatDuration(Math.max(0, Math.round(ms / 1000)) * 1000)
const rate = (perSecond: number): string => `${Math.round(perSecond)}/s`
const clip = (text: string, width: number): string => (text.length <= width ? text : `${text.slice(0, width - 1)}…`)
const bytesText = (bytes: number): string => (bytes < 10_240 ? `${bytes} B` : `${Math.round(bytes / 1024)} KiB`)
const bold = (text: string): string => `\x1b[1m${text}\x1b[0m`
const dim = (text: string): string => `\x1b[2m${text}\x1b[0m`
const green = (text: string): string => `\x1b[32m${text}\x1b[0m`
const red = (text: string): string => `\x1b[31m${text}\x1b[0m`
