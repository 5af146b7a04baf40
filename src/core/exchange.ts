import type { Binding } from './binding.ts'
import { DirectMatcher } from './exchanges/direct.ts'
import { FanoutMatcher } from './exchanges/fanout.ts'
import { HeadersMatcher, type HeaderValue } from './exchanges/headers.ts'
import { TopicMatcher } from './exchanges/topic.ts'
import { AMQP_DIALECT, type Dialect } from './topic-tree.ts'

/** AMQP 0-9-1 section 3.1.3, with headers as in RabbitMQ. */
const EXCHANGE_KINDS = ['direct', 'topic', 'fanout', 'headers'] as const
export type ExchangeKind = (typeof EXCHANGE_KINDS)[number]

/** Routes every message to the queue whose name is its key (AMQP 0-9-1 section 3.1.3.1). */
export const DEFAULT_EXCHANGE = ''

export type Headers = ReadonlyMap<string, HeaderValue>

/** Which of an exchange's bindings a message goes over. */
export interface Matcher {
  readonly size: number
  bind(binding: Binding): void
  /** False if that very binding is not held. */
  unbind(binding: Binding): boolean
  match(key: string, headers: Headers, visit: (binding: Binding) => void): void
}

export interface ExchangeSpec {
  readonly name: string
  readonly kind: ExchangeKind
  /** Its definition outlives the process. */
  readonly isDurable: boolean
  /** Clients may not publish to it; other exchanges may. */
  readonly isInternal: boolean
  /** Takes what matches no binding here (RabbitMQ, Alternate Exchanges); null: such messages are unrouted. */
  readonly alternate: string | null
}

export class Exchange {
  readonly spec: ExchangeSpec
  readonly matcher: Matcher

  constructor(spec: ExchangeSpec, dialect: Dialect = AMQP_DIALECT) {
    this.spec = spec
    this.matcher = matcherOf(spec.kind, dialect)
  }

  get name(): string {
    return this.spec.name
  }

  /** Its choice depends on the message and not on the key alone: a route through it holds for one message. */
  get readsHeaders(): boolean {
    return this.spec.kind === 'headers'
  }
}

function matcherOf(kind: ExchangeKind, dialect: Dialect): Matcher {
  switch (kind) {
    case 'direct':
      return new DirectMatcher()
    case 'topic':
      return new TopicMatcher(dialect)
    case 'fanout':
      return new FanoutMatcher()
    case 'headers':
      return new HeadersMatcher()
    default:
      return kind satisfies never
  }
}
