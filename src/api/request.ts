import type { Context } from 'hono'
import type * as z from 'zod/mini'
import { BrokerError } from '../model/error.ts'

/** A body can have as many faults as members. */
const FAULTS_TOLD = 20

/** The JSON body in the form of `schema`; an empty body is undefined to it. @throws BrokerError REQUEST_INVALID that names every fault, of many the first. */
export async function readBody<T extends z.ZodMiniType>(c: Context, schema: T): Promise<z.output<T>> {
  const text = await c.req.text()
  const parsed = schema.safeParse(parseJson(text))
  if (parsed.success) return parsed.data
  const { issues } = parsed.error
  const faults = issues.slice(0, FAULTS_TOLD).map(issue => `${issue.path.join('.') || 'body'}: ${issue.message}`)
  if (issues.length > FAULTS_TOLD) faults.push(`and ${issues.length - FAULTS_TOLD} more`)
  throw new BrokerError('REQUEST_INVALID', `The request is not understood: ${faults.join('; ')}.`)
}

/** Whether a word stands in the query: `?dry_run`, `?dry_run=true`. @throws BrokerError REQUEST_INVALID */
export function readFlag(c: Context, name: string): boolean {
  const text = c.req.query(name)
  if (text === undefined || text === 'false') return false
  if (text === '' || text === 'true') return true
  throw new BrokerError('REQUEST_INVALID', `${name}: accepted are true and false.`)
}

/** A whole number in the query, such as `?limit=20`. @throws BrokerError REQUEST_INVALID */
export function readCount(c: Context, name: string, { fallback, max }: { fallback: number; max: number }): number {
  const text = c.req.query(name)
  if (text === undefined) return fallback
  const value = /^\d{1,15}$/.test(text) ? Number(text) : 0
  if (value >= 1 && value <= max) return value
  throw new BrokerError('REQUEST_INVALID', `${name}: accepted is a whole number from 1 to ${max}.`)
}

function parseJson(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text, refusePrototype)
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw new BrokerError('REQUEST_INVALID', 'The body is not JSON.', { cause })
  }
}

/** zod leaves this member out without a word, and what is left would mean something else. */
function refusePrototype(key: string, value: unknown): unknown {
  if (key !== '__proto__') return value
  throw new BrokerError('REQUEST_INVALID', 'A member must not be called __proto__.')
}
