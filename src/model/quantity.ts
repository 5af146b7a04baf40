import { BrokerError } from './error.ts'

/** What `parseDuration` accepts, for error texts and the generated documentation. */
export const DURATION_FORM = 'a number with a unit (ms, s, m, h, d), such as 250ms, 30s, 7d'
/** What `parseSize` accepts. */
export const SIZE_FORM = 'a number with a unit (B, KiB, MiB, GiB, TiB), such as 64MiB'

/** Largest first: formatting takes the first unit that divides the value. */
const DURATION_UNITS: ReadonlyMap<string, number> = new Map([
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
])

const SIZE_UNITS: ReadonlyMap<string, number> = new Map([
  ['TiB', 2 ** 40],
  ['GiB', 2 ** 30],
  ['MiB', 2 ** 20],
  ['KiB', 2 ** 10],
  ['B', 1],
])

/** Milliseconds of a text such as `30s`; 0 needs no unit. Throws BrokerError REQUEST_INVALID, which says what is accepted. */
export function parseDuration(text: string): number {
  return parseQuantity(text, { units: DURATION_UNITS, what: 'duration', form: DURATION_FORM })
}

/** Bytes of a text such as `64MiB`; 0 needs no unit. Throws BrokerError REQUEST_INVALID, which says what is accepted. */
export function parseSize(text: string): number {
  return parseQuantity(text, { units: SIZE_UNITS, what: 'size', form: SIZE_FORM })
}

/** The shortest exact text of a whole number of milliseconds: 90000 is `90s`. `parseDuration` reads it back. */
export function formatDuration(durationMs: number): string {
  return formatQuantity(durationMs, DURATION_UNITS)
}

/** The shortest exact text of a whole number of bytes: 67108864 is `64MiB`. `parseSize` reads it back. */
export function formatSize(bytes: number): string {
  return formatQuantity(bytes, SIZE_UNITS)
}

function parseQuantity(
  text: string,
  { units, what, form }: { units: ReadonlyMap<string, number>; what: string; form: string },
): number {
  const trimmed = text.trim()
  if (trimmed === '0') return 0
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]+)$/.exec(trimmed)
  const unit = match === null ? undefined : units.get(match[2] ?? '')
  if (match === null || unit === undefined) {
    throw new BrokerError('REQUEST_INVALID', `"${text}" is not a ${what}; accepted is ${form}`)
  }
  const exact = Number(match[1]) * unit
  const value = Math.round(exact)
  // 0.1s is 100.00000000000001 in binary fractions but 100 ms to everybody; 0.5ms is half of the smallest unit.
  if (Math.abs(exact - value) > 1e-6 || !Number.isSafeInteger(value)) {
    throw new BrokerError('REQUEST_INVALID', `"${text}" is too fine or too large for a ${what}; accepted is ${form}`)
  }
  return value
}

function formatQuantity(value: number, units: ReadonlyMap<string, number>): string {
  for (const [unit, factor] of units) {
    if (value >= factor && value % factor === 0) return `${value / factor}${unit}`
  }
  return '0'
}
