import { describe, expect, test } from 'vitest'
import { type BridgeEvent, type BridgeState, next } from '../../../src/bridge/state.ts'
import { BrokerError } from '../../../src/model/error.ts'

const cause = new BrokerError('UPSTREAM_UNREACHABLE', 'gone')
const states = {
  paused: { kind: 'paused' },
  connecting: { kind: 'connecting', attempt: 3 },
  forwarding: { kind: 'forwarding', since: 10 },
  blocked: { kind: 'blocked', since: 20, reason: 'low on memory' },
  waiting: { kind: 'waiting', until: 30, attempt: 3, cause },
} as const satisfies Record<string, BridgeState>

const events = {
  resumed: { kind: 'resumed' },
  paused: { kind: 'paused' },
  opened: { kind: 'opened', at: 40 },
  blocked: { kind: 'blocked', at: 40, reason: 'low on disk' },
  unblocked: { kind: 'unblocked', at: 40 },
  lost: { kind: 'lost', retryAt: 50, cause },
  retryDue: { kind: 'retryDue' },
  firstIsBack: { kind: 'firstIsBack' },
} as const satisfies Record<string, BridgeEvent>

const connecting: BridgeState = { kind: 'connecting', attempt: 1 }
const forwarding: BridgeState = { kind: 'forwarding', since: 40 }
const blocked: BridgeState = { kind: 'blocked', since: 40, reason: 'low on disk' }
const waiting = (attempt: number): BridgeState => ({ kind: 'waiting', until: 50, attempt, cause })

/** What is not listed changes nothing. */
const changes: Record<keyof typeof states, Partial<Record<keyof typeof events, BridgeState>>> = {
  paused: { resumed: { kind: 'connecting', attempt: 1 } },
  connecting: { paused: { kind: 'paused' }, opened: forwarding, lost: waiting(3) },
  forwarding: { paused: { kind: 'paused' }, blocked, lost: waiting(0), firstIsBack: connecting },
  blocked: { paused: { kind: 'paused' }, unblocked: forwarding, lost: waiting(0), firstIsBack: connecting },
  waiting: { paused: { kind: 'paused' }, retryDue: { kind: 'connecting', attempt: 4 } },
}

describe('the state of a link', () => {
  for (const from of Object.keys(states) as (keyof typeof states)[]) {
    for (const event of Object.keys(events) as (keyof typeof events)[]) {
      const expected = changes[from][event]
      test(`${from}, ${event}: ${expected?.kind ?? 'stays as it is'}`, () => {
        const after = next(states[from], events[event])
        if (expected === undefined) expect(after).toBe(states[from])
        else expect(after).toEqual(expected)
      })
    }
  }

  test('counts attempts from one again after the link was up', () => {
    let state: BridgeState = { kind: 'paused' }
    for (const event of [events.resumed, events.lost, events.retryDue, events.lost, events.retryDue]) {
      state = next(state, event)
    }
    expect(state).toEqual({ kind: 'connecting', attempt: 3 })
    for (const event of [events.opened, events.lost, events.retryDue]) state = next(state, event)
    expect(state).toEqual({ kind: 'connecting', attempt: 1 })
  })
})
