import pino from 'pino'
import type { Config } from '../config/schema.ts'

export type Logger = pino.Logger

/**
 * The one logger: JSON lines to stdout. Written synchronously: worker threads (`pino.transport`) break inside the executable, and a
 * line that is still in memory when the process dies is the line one would have wanted.
 */
export function createLogger(level: Config['log']['level']): Logger {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: label => ({ level: label }) } },
    pino.destination({ dest: 1, sync: true }),
  )
}
