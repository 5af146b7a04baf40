/** What can go wrong while operating, by stable code. Every edge maps each code to its own wire with `Record<ErrorCode, …>`. */
export const ERROR_CODES = [
  'CONFIG_INVALID',
  'CONFIG_NOT_FOUND',
  'LISTENER_PORT_IN_USE',
  'LISTENER_FAILED',
  'TLS_FILES_INVALID',
  'STORE_LOCKED',
  'STORE_UNWRITABLE',
  'STORE_UNAVAILABLE',
  'STORE_FORMAT_UNKNOWN',
  'DISK_FULL',
  'MEMORY_FULL',
  'QUEUE_FULL',
  'RETAINED_FULL',
  'QUEUE_NOT_FOUND',
  'QUEUE_IN_USE',
  'STREAM_NOT_FOUND',
  'STREAM_READERS_FULL',
  'EXCHANGE_NOT_FOUND',
  'BINDING_NOT_FOUND',
  'DECLARATION_MISMATCH',
  'DEFINITIONS_REFUSED',
  'LIMIT_REACHED',
  'UPSTREAM_NOT_FOUND',
  'UPSTREAM_UNREACHABLE',
  'UPSTREAM_UNCONFIRMED',
  'UPSTREAM_REFUSED',
  'CLIENT_NOT_FOUND',
  'SESSION_NOT_FOUND',
  'BAN_NOT_FOUND',
  'NAME_INVALID',
  'REQUEST_INVALID',
  'NOT_AUTHORIZED',
  'STOPPING',
] as const

export type ErrorCode = (typeof ERROR_CODES)[number]

/** Facts an operator or a program may want beside the sentence: names, limits, sizes. */
export interface ErrorFacts {
  readonly [name: string]: string | number | boolean | readonly ErrorFacts[]
}

/**
 * An operating error: the world is not as it should be, the program is. The message says what happened, why, and what to do.
 * A mistake in our own code is a TypeError or an assertion and is never caught.
 */
export class BrokerError extends Error {
  readonly code: ErrorCode
  readonly facts: ErrorFacts

  constructor(code: ErrorCode, message: string, { cause, facts = {} }: { cause?: unknown; facts?: ErrorFacts } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = 'BrokerError'
    this.code = code
    this.facts = facts
  }
}
