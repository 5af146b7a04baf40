import type { BrokerError, ErrorCode } from '../model/error.ts'
import type { Problem } from './contract.ts'

/** What HTTP answers for each code; a new code does not compile until it says so here. */
const HTTP_STATUS = {
  CONFIG_INVALID: 422,
  CONFIG_NOT_FOUND: 404,
  LISTENER_PORT_IN_USE: 500,
  LISTENER_FAILED: 500,
  TLS_FILES_INVALID: 500,
  STORE_LOCKED: 503,
  STORE_UNWRITABLE: 503,
  STORE_UNAVAILABLE: 503,
  STORE_FORMAT_UNKNOWN: 503,
  DISK_FULL: 507,
  MEMORY_FULL: 429,
  QUEUE_FULL: 429,
  RETAINED_FULL: 429,
  QUEUE_NOT_FOUND: 404,
  QUEUE_IN_USE: 409,
  STREAM_NOT_FOUND: 404,
  STREAM_READERS_FULL: 429,
  EXCHANGE_NOT_FOUND: 404,
  BINDING_NOT_FOUND: 404,
  DECLARATION_MISMATCH: 409,
  DEFINITIONS_REFUSED: 409,
  LIMIT_REACHED: 409,
  UPSTREAM_NOT_FOUND: 404,
  UPSTREAM_UNREACHABLE: 502,
  UPSTREAM_UNCONFIRMED: 504,
  UPSTREAM_REFUSED: 502,
  CLIENT_NOT_FOUND: 404,
  SESSION_NOT_FOUND: 404,
  BAN_NOT_FOUND: 404,
  NAME_INVALID: 400,
  REQUEST_INVALID: 400,
  NOT_AUTHORIZED: 403,
  STOPPING: 503,
} as const satisfies Record<ErrorCode, number>

type ProblemStatus = (typeof HTTP_STATUS)[ErrorCode] | 401 | 404 | 413

/** Phrases of RFC 9110; `about:blank` asks for exactly these as title. */
const TITLES: Readonly<Record<ProblemStatus, string>> = {
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  409: 'Conflict',
  413: 'Content Too Large',
  422: 'Unprocessable Content',
  429: 'Too Many Requests',
  500: 'Internal Server Error',
  502: 'Bad Gateway',
  503: 'Service Unavailable',
  504: 'Gateway Timeout',
  507: 'Insufficient Storage',
}

/** A BrokerError as RFC 9457 problem document: its facts become members beside `code`. */
export function problemOf({ code, message, facts }: BrokerError): Problem & { status: ProblemStatus } {
  return { ...facts, ...problem(HTTP_STATUS[code], code, message) }
}

/** A problem of HTTP itself, which no ErrorCode stands for. */
export function problem<S extends ProblemStatus>(status: S, code: string, detail: string): Problem & { status: S } {
  return { type: 'about:blank', title: TITLES[status], status, code, detail }
}
