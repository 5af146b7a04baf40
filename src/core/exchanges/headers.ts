import type { Binding } from '../binding.ts'
import type { Headers, Matcher } from '../exchange.ts'

/** Values that headers are compared by; others match only by their presence. */
export type HeaderValue = string | number | boolean | null

/** How many of a binding's arguments must be found (RabbitMQ: `-with-x` counts those that begin with `x-` too). */
export const HEADERS_MATCHES = ['all', 'any', 'all-with-x', 'any-with-x'] as const
export type HeadersMatch = (typeof HEADERS_MATCHES)[number]

interface Terms {
  readonly isAny: boolean
  readonly wanted: readonly (readonly [string, HeaderValue])[]
}

/**
 * Compares the message's headers with the binding's arguments (AMQP 0-9-1 section 3.1.3.4). An argument of null is satisfied by the header's presence.
 * A binding without arguments to compare matches everything with `all` and nothing with `any`.
 */
export class HeadersMatcher implements Matcher {
  readonly #terms = new Map<Binding, Terms>()

  get size(): number {
    return this.#terms.size
  }

  bind(binding: Binding): void {
    this.#terms.set(binding, termsOf(binding.headers))
  }

  unbind(binding: Binding): boolean {
    return this.#terms.delete(binding)
  }

  match(_key: string, headers: Headers, visit: (binding: Binding) => void): void {
    for (const [binding, { isAny, wanted }] of this.#terms) {
      const isFound = ([name, value]: readonly [string, HeaderValue]): boolean =>
        value === null ? headers.has(name) : headers.get(name) === value
      if (isAny ? wanted.some(isFound) : wanted.every(isFound)) visit(binding)
    }
  }
}

function termsOf(headers: Binding['headers']): Terms {
  const match = headers?.match ?? 'all'
  const countsX = match.endsWith('-with-x')
  const wanted = [...(headers?.values ?? [])].filter(([name]) => countsX || !name.startsWith('x-'))
  return { isAny: match.startsWith('any'), wanted }
}
