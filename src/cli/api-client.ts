import type * as z from 'zod/mini'
import { problem } from '../api/contract.ts'
import { Failure } from './failure.ts'
import type { GatewayOptions } from './options.ts'
import { printable } from './print.ts'

const ANSWER_TIMEOUT_MS = 10_000

/** Reads one document from the running gateway; a Failure says what to do when there is none. */
export async function read<T extends z.ZodMiniType>(
  options: GatewayOptions,
  path: string,
  schema: T,
  method: 'GET' | 'POST' | 'DELETE' = 'GET',
): Promise<z.output<T>> {
  return parse(options, path, schema, await request(options, path, method))
}

/** Performs an act that says what it has done. */
export async function post<T extends z.ZodMiniType>(
  options: GatewayOptions,
  path: string,
  schema: T,
  body: object,
): Promise<z.output<T>> {
  return parse(options, path, schema, await request(options, path, 'POST', body))
}

async function parse<T extends z.ZodMiniType>(
  options: GatewayOptions,
  path: string,
  schema: T,
  response: Response,
): Promise<z.output<T>> {
  const parsed = schema.safeParse(await response.json())
  if (parsed.success) return parsed.data
  const fields = parsed.error.issues.map(issue => issue.path.join('.')).join(', ')
  throw new Failure(
    `The gateway at ${options.url} answers ${path} in a form this version does not understand (${fields}). Use the sluice of the gateway's version.`,
  )
}

/** Performs an act that answers nothing. */
export async function act(options: GatewayOptions, path: string, method: 'DELETE' | 'POST'): Promise<void> {
  await request(options, path, method)
}

async function request({ url, token }: GatewayOptions, path: string, method: string, body?: object): Promise<Response> {
  const target = URL.parse(path, url)
  if (target === null || !/^https?:$/.test(target.protocol)) {
    throw new Failure(`"${url}" is not an HTTP address; --url takes one such as http://127.0.0.1:15680.`)
  }
  let response: Response
  try {
    response = await fetch(target, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS),
    })
  } catch (cause) {
    throw new Failure(
      `No gateway answers at ${url}: ${reason(cause)}. Start it with \`sluice run\`, or name another with --url.`,
      { cause },
    )
  }
  if (response.ok) return response
  const text = await response.text()
  const parsed = problem.safeParse(parseJson(text))
  if (parsed.success) {
    const { detail, errors = [] } = parsed.data
    const lines = errors.map(({ item, detail }) => `  ${printable(item)}: ${printable(detail)}`)
    throw new Failure([detail, ...lines].join('\n'))
  }
  throw new Failure(
    `${target.origin} answered ${response.status} to ${method} ${path}: is this a Sluice gateway? Check --url.`,
  )
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    // Not our gateway; the caller says so.
    return null
  }
}

/** fetch hides the system's reason in `cause`. */
function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  if (error.name === 'TimeoutError') return `nothing came within ${ANSWER_TIMEOUT_MS / 1000} s`
  const { cause } = error
  if (cause instanceof Error)
    return 'code' in cause && cause.code === 'ECONNREFUSED' ? 'connection refused' : cause.message
  return error.message
}
