import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { type Handshake, Handshakes } from '../../../src/transport/handshakes.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const limited = (atOnce: number, clientsMax = 500) =>
  new Handshakes({ atOnce, clientsMax, deadlineMs: 10_000, monotonicMs: () => performance.now() })

/** Whoever expires is closed, as a listener does it. */
function arrive(handshakes: Handshakes, address: string) {
  const state = { phase: 'waiting' }
  const handshake: Handshake = {
    address,
    begin: () => {
      state.phase = 'running'
    },
    expire: () => {
      state.phase = 'expired'
      handshakes.fail(handshake, 'timeout')
      handshakes.leave(handshake)
    },
  }
  const isTaken = handshakes.enter(handshake)
  return { handshake, state, isTaken }
}

test('so many handshakes go on at once, and the others follow in their order', () => {
  const handshakes = limited(2)
  const all = ['a', 'b', 'c', 'd'].map(address => arrive(handshakes, address))
  const phases = () => all.map(({ state }) => state.phase)
  expect(phases()).toEqual(['running', 'running', 'waiting', 'waiting'])
  const [first, second] = all
  if (first === undefined || second === undefined) throw new TypeError('four have arrived')
  handshakes.complete(first.handshake)
  expect(phases()).toEqual(['running', 'running', 'running', 'waiting'])
  handshakes.leave(second.handshake)
  expect(phases()).toEqual(['running', 'running', 'running', 'running'])
  expect(handshakes).toMatchObject({ clients: 3, waiting: 0, completed: 1 })
})

test('one address holds half of the places at most, so that others pass it', () => {
  const handshakes = limited(4)
  const attacker = Array.from({ length: 10 }, () => arrive(handshakes, 'attacker'))
  expect(attacker.filter(({ state }) => state.phase === 'running').length).toBe(2)
  expect(arrive(handshakes, 'device').state.phase).toBe('running')
})

test('who does not get on keeps the place for ten seconds, and for three while somebody waits for it', () => {
  const handshakes = limited(1)
  const alone = arrive(handshakes, 'a')
  vi.advanceTimersByTime(9_500)
  expect(alone.state.phase).toBe('running')
  vi.advanceTimersByTime(750)
  expect(alone.state.phase).toBe('expired')

  const [pressed, next] = [arrive(handshakes, 'a'), arrive(handshakes, 'b')]
  vi.advanceTimersByTime(2_500)
  expect(pressed.state.phase).toBe('running')
  vi.advanceTimersByTime(750)
  expect([pressed.state.phase, next.state.phase]).toEqual(['expired', 'running'])
})

test('nobody waits for more than twenty seconds', () => {
  const handshakes = limited(1)
  const all = Array.from({ length: 20 }, (_, n) => arrive(handshakes, String(n)))
  vi.advanceTimersByTime(20_500)
  expect(all.slice(0, 6).every(({ state }) => state.phase === 'expired')).toBe(true)
  expect(all.some(({ state }) => state.phase === 'waiting')).toBe(false)
  vi.advanceTimersByTime(10_500)
  expect(handshakes.clients).toBe(0)
  expect(handshakes.failed).toEqual(new Map([['timeout', 20]]))
})

test('one connection too many is not taken, and counted', () => {
  const handshakes = limited(8, 2)
  const all = Array.from({ length: 3 }, () => arrive(handshakes, 'a'))
  expect(all.map(({ isTaken }) => isTaken)).toEqual([true, true, false])
  expect(handshakes).toMatchObject({ clients: 2, refused: 1 })
})
