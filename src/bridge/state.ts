import type { BrokerError } from '../model/error.ts'

/**
 * What the link to an upstream is doing. Times are monotonic milliseconds. `next` is the whole behaviour; upstream.ts performs what a
 * state asks for when it is entered.
 */
export type BridgeState =
  /** By the operator, or before start and after stop. */
  | { readonly kind: 'paused' }
  /** `attempt` counts from 1 since the link was last up. */
  | { readonly kind: 'connecting'; readonly attempt: number }
  | { readonly kind: 'forwarding'; readonly since: number }
  /** The upstream sent connection.blocked (memory or disk alarm): it reads nothing until it says otherwise. */
  | { readonly kind: 'blocked'; readonly since: number; readonly reason: string }
  /** Connects again at `until`. */
  | { readonly kind: 'waiting'; readonly until: number; readonly attempt: number; readonly cause: BrokerError }

export type BridgeEvent =
  | { readonly kind: 'resumed' }
  | { readonly kind: 'paused' }
  | { readonly kind: 'opened'; readonly at: number }
  | { readonly kind: 'blocked'; readonly at: number; readonly reason: string }
  | { readonly kind: 'unblocked'; readonly at: number }
  /** The link broke, or could not be opened. */
  | { readonly kind: 'lost'; readonly retryAt: number; readonly cause: BrokerError }
  | { readonly kind: 'retryDue' }
  /** Over a further URL, while the first one can be reached again. */
  | { readonly kind: 'firstIsBack' }

/** The state after an event. An event that means nothing in this state (it came late) leaves the same object. */
export function next(state: BridgeState, event: BridgeEvent): BridgeState {
  switch (event.kind) {
    case 'paused':
      return state.kind === 'paused' ? state : { kind: 'paused' }
    case 'resumed':
      return state.kind === 'paused' ? { kind: 'connecting', attempt: 1 } : state
    case 'opened':
      return state.kind === 'connecting' ? { kind: 'forwarding', since: event.at } : state
    case 'blocked':
      return state.kind === 'forwarding' ? { kind: 'blocked', since: event.at, reason: event.reason } : state
    case 'unblocked':
      return state.kind === 'blocked' ? { kind: 'forwarding', since: event.at } : state
    case 'firstIsBack':
      return state.kind === 'forwarding' || state.kind === 'blocked' ? { kind: 'connecting', attempt: 1 } : state
    case 'retryDue':
      return state.kind === 'waiting' ? { kind: 'connecting', attempt: state.attempt + 1 } : state
    case 'lost':
      switch (state.kind) {
        case 'connecting':
          return { kind: 'waiting', until: event.retryAt, attempt: state.attempt, cause: event.cause }
        case 'forwarding':
        case 'blocked':
          return { kind: 'waiting', until: event.retryAt, attempt: 0, cause: event.cause }
        case 'paused':
        case 'waiting':
          return state
        default:
          return state satisfies never
      }
    default:
      return event satisfies never
  }
}
