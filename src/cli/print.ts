/*
 * Text for people. Names come from outside and go to a terminal: control characters are shown, not obeyed.
 */
import type { Forecast } from '../api/contract.ts'

export interface Column<Row> {
  readonly title: string
  readonly text: (row: Row) => string
  readonly align?: 'left' | 'right'
}

const WIDTH = 80
const GAP = 2
/** No column gives way beyond this. */
const LEAST_WIDTH = 12

/** A table with a heading. The widest columns give way where the whole would be wider than the terminal. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = [
    columns.map(column => column.title),
    ...rows.map(row => columns.map(column => printable(column.text(row)))),
  ]
  const widths = columns.map((_, index) => Math.max(...cells.map(line => line[index]?.length ?? 0)))
  const limit = Math.max(process.stdout.columns ?? WIDTH, WIDTH)
  let excess = widths.reduce((sum, width) => sum + width, GAP * (columns.length - 1)) - limit
  for (; excess > 0; excess--) {
    const most = Math.max(...widths)
    if (most <= LEAST_WIDTH) break
    widths[widths.indexOf(most)] = most - 1
  }
  const line = (texts: readonly string[]): string =>
    texts
      .map((text, index) => {
        const width = widths[index] ?? 0
        const fitted = clip(text, width)
        return columns[index]?.align === 'right' ? fitted.padStart(width) : fitted.padEnd(width)
      })
      .join(' '.repeat(GAP))
      .trimEnd()
  return cells.map(line).join('\n')
}

/** `name  value` lines, the names in one column. */
export function pairs(entries: readonly (readonly [name: string, value: string])[]): string {
  const width = Math.max(...entries.map(([name]) => name.length))
  return entries.map(([name, value]) => `${name.padEnd(width)}  ${printable(value)}`).join('\n')
}

/** Prints a document as JSON, indented. */
export function printJson(document: unknown): void {
  console.log(JSON.stringify(document, null, 2))
}

/** 1234567 is `1.2M`; up to 9,999 exactly. */
export function shortCount(count: number): string {
  if (count < 10_000) return String(Math.round(count))
  return shorten(count, 1000, ['', 'k', 'M', 'G', 'T'])
}

/** Bytes with one figure behind the point. */
export function shortSize(bytes: number): string {
  return shorten(bytes, 1024, [' B', ' KiB', ' MiB', ' GiB', ' TiB'])
}

/** The two largest units: `3d 4h`, `12m 5s`, `0.3s`. */
export function shortDuration(durationMs: number): string {
  const seconds = Math.floor(durationMs / 1000)
  if (seconds < 10) return `${(durationMs / 1000).toFixed(1)}s`
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'm'],
    [seconds % 60, 's'],
  ] as const
  const first = parts.findIndex(([value]) => value > 0)
  return parts
    .slice(first, first + 2)
    .filter(([value]) => value > 0)
    .map(([value, unit]) => `${value}${unit}`)
    .join(' ')
}

/** What becomes of a queue: `full in 2h`, `empty in 5m`; `-` where nothing can be said. */
export function shortForecast({ full_in_ms, drained_in_ms }: Forecast): string {
  if (full_in_ms !== null) return `full in ${shortDuration(full_in_ms)}`
  return drained_in_ms === null ? '-' : `empty in ${shortDuration(drained_in_ms)}`
}

/** With control characters written as escapes. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, character => {
    const code = character.codePointAt(0) ?? 0
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, '0')}` : `\\u{${code.toString(16)}}`
  })
}

/** Cut to a width, with a sign that it was cut. */
export function clip(text: string, width: number): string {
  return text.length <= width ? text : `${text.slice(0, width - 1)}…`
}

function shorten(value: number, base: number, units: readonly string[]): string {
  let rest = value
  let index = 0
  while (rest >= base && index < units.length - 1) {
    rest /= base
    index++
  }
  const text = index === 0 ? String(Math.round(rest)) : rest.toFixed(rest < 100 ? 1 : 0)
  return `${text}${units[index] ?? ''}`
}
