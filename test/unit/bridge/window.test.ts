import fc from 'fast-check'
import { expect, test } from 'vitest'
import { WINDOW_BYTES, Window } from '../../../src/bridge/window.ts'

class Route {
  weight = 1
  unconfirmed = 0
  isWaiting = false
  readonly #window: Window
  constructor(window: Window) {
    this.#window = window
    window.join(this)
  }

  get credit(): number {
    return this.#window.creditOf(this)
  }

  /** Sends as long as it may. */
  send(bytes = 100): number {
    let sent = 0
    while (this.isWaiting && this.credit > 0) {
      this.#window.take(bytes)
      this.unconfirmed++
      sent++
    }
    return sent
  }

  confirm(messages = 1, bytes = 100): void {
    for (let i = 0; i < messages; i++) this.#window.give(bytes)
    this.unconfirmed -= messages
  }
}

function routesOn(window: Window, count: number, isWaiting = true): Route[] {
  return Array.from({ length: count }, () => Object.assign(new Route(window), { isWaiting }))
}

test('a route alone may use the whole window', () => {
  const [route] = routesOn(new Window(256), 1)
  expect(route?.send()).toBe(256)
  expect(route?.credit).toBe(0)
})

test('a route whose neighbours have nothing to send may use the whole window', () => {
  const window = new Window(256)
  const [busy] = routesOn(window, 1)
  routesOn(window, 9, false)
  expect(busy?.send()).toBe(256)
})

test('a route that held the whole window gives way until the newcomer has its part', () => {
  const window = new Window(100)
  const [first, second] = routesOn(window, 2)
  if (first === undefined || second === undefined) throw new TypeError('two routes')
  second.isWaiting = false
  first.send()
  second.isWaiting = true
  expect(second.send()).toBe(0)
  for (let i = 0; i < 50; i++) {
    first.confirm()
    expect(first.send()).toBe(0)
    expect(second.send()).toBe(1)
  }
  first.confirm()
  expect(first.send()).toBe(1)
})

test('what waits shares the window by weight', () => {
  const window = new Window(100)
  const [live, backlog] = routesOn(window, 2)
  if (live === undefined || backlog === undefined) throw new TypeError('two of them')
  live.weight = 70
  backlog.weight = 30
  expect([live.send(), backlog.send()]).toEqual([70, 30])
  backlog.confirm(10)
  expect([live.send(), backlog.send()]).toEqual([0, 10])
})

test('whoever has next to no weight still gets one message out, while others of all weight have more to send', () => {
  const window = new Window(8)
  const [heavy, light] = routesOn(window, 2)
  if (heavy === undefined || light === undefined) throw new TypeError('two of them')
  heavy.weight = 70 * 2 ** 9
  light.isWaiting = false
  heavy.send()
  light.isWaiting = true
  heavy.confirm()
  expect([heavy.send(), light.send()]).toEqual([0, 1])
  light.confirm()
  expect([heavy.send(), light.send()]).toEqual([0, 1])
  heavy.confirm(4)
  expect([light.send(), heavy.send()]).toEqual([0, 4])
})

test('no more than WINDOW_BYTES are out, whatever the number of messages, and one large message always passes', () => {
  const window = new Window(256)
  const [route] = routesOn(window, 1)
  expect(route?.send(WINDOW_BYTES * 2)).toBe(1)
  route?.confirm(1, WINDOW_BYTES * 2)
  expect(route?.send(WINDOW_BYTES / 8)).toBe(8)
})

test('the window is never overrun, and every waiting route gets something, in whatever order they send and are confirmed', () => {
  const step = fc.record({ route: fc.nat(4), act: fc.constantFrom('send', 'confirm', 'rest', 'want') })
  fc.assert(
    fc.property(fc.integer({ min: 5, max: 64 }), fc.array(step, { maxLength: 100 }), (limit, steps) => {
      const window = new Window(limit)
      const routes = routesOn(window, 5)
      for (const { route: index, act } of steps) {
        const route = routes[index]
        if (route === undefined) continue
        if (act === 'send') route.send()
        else if (act === 'confirm') route.confirm(Math.min(1, route.unconfirmed))
        else route.isWaiting = act === 'want'
        expect(window.messages).toBe(routes.reduce((sum, { unconfirmed }) => sum + unconfirmed, 0))
        expect(window.messages).toBeLessThanOrEqual(limit)
      }
      for (const route of routes) route.isWaiting = true
      for (let round = 0; round < limit * 2; round++) {
        for (const route of routes) route.confirm(Math.min(1, route.unconfirmed))
        for (const route of routes) route.send()
      }
      for (const route of routes) expect(route.unconfirmed).toBeGreaterThanOrEqual(Math.floor(limit / 5))
    }),
  )
})
