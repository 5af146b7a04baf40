import pino from 'pino'
import type { Config } from '../config/schema.ts'

export type Logger = pino.Logger

/**
 * The one logger: JSON lines to stdout. Written synchronously: worker threads (`pino.transport`) break inside the executable, and a
 * line that is still in memory when the process dies is the line one would have wanted.
 */
export function createLogger(level: Config['log']['level']): Logger {
  const children: Logger[] = []
  const log = pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: label => ({ level: label }) },
      onChild: child => children.push(child),
    },
    pino.destination({ dest: 1, sync: true }),
  )
  childrenOf.set(log, children)
  return log
}

/** What is derived from a logger has a level of its own. It is made at the start and stays. */
const childrenOf = new WeakMap<Logger, readonly Logger[]>()

/** From now on lines of at least this importance are written, by the logger and all that is derived from it. */
export function changeLevel(log: Logger, level: Config['log']['level']): void {
  for (const one of [log, ...(childrenOf.get(log) ?? [])]) one.level = level
}
