import { describe, expect, it } from 'vitest'
import { Tickets } from '../../../src/core/tickets.ts'

function publisher(): {
  ticketsSafe(): void
  ticketRefused(ticket: number): void
  resume(): void
  told: number
  refused: number[]
} {
  const self = {
    told: 0,
    ticketsSafe: () => {
      self.told++
    },
    refused: [] as number[],
    ticketRefused: (ticket: number) => {
      self.refused.push(ticket)
    },
    resume: () => undefined,
  }
  return self
}

describe('Tickets', () => {
  it('are safe once every durable queue has settled the message, and the publisher hears of it in the same turn', async () => {
    const tickets = new Tickets()
    const one = publisher()
    const handle = tickets.register(one)
    const first = tickets.open(handle, 2, 2)
    tickets.settle(first)
    expect(tickets.isSafe(first)).toBe(false)
    tickets.settle(first)
    expect(tickets.isSafe(first)).toBe(true)
    expect(tickets.isSafe(first + 1)).toBe(false)
    await Promise.resolve()
    expect(one.told).toBe(1)
    expect(tickets.oldestOpen).toBe(first + 1)
  })

  it('are safe when a commit has covered them, whoever has settled what', () => {
    const tickets = new Tickets()
    const one = publisher()
    const two = publisher()
    const a = tickets.open(tickets.register(one), 3, 1)
    const b = tickets.open(tickets.register(two), 1, 1)
    tickets.commit(a + 2)
    expect([a, a + 1, a + 2].every(ticket => tickets.isSafe(ticket))).toBe(true)
    expect(tickets.isSafe(b)).toBe(false)
    tickets.commit(b)
    expect(tickets.isSafe(b)).toBe(true)
    expect(two.told).toBeGreaterThan(0)
  })

  it('keep their state while the ring grows under many open ones', () => {
    const tickets = new Tickets()
    const handle = tickets.register(publisher())
    const first = tickets.open(handle, 900, 1)
    for (let ticket = first; ticket < first + 900; ticket += 2) tickets.settle(ticket)
    tickets.open(handle, 5000, 1)
    for (let ticket = first; ticket < first + 900; ticket++) {
      expect(tickets.isSafe(ticket)).toBe((ticket - first) % 2 === 0)
    }
    expect(tickets.isSafe(first + 900)).toBe(false)
    expect(tickets.isSafe(first + 5899)).toBe(false)
  })

  it('do not disturb when a settlement comes twice or after the commit', () => {
    const tickets = new Tickets()
    const handle = tickets.register(publisher())
    const first = tickets.open(handle, 1, 1)
    tickets.settle(first)
    tickets.settle(first)
    tickets.commit(first)
    tickets.settle(first)
    const next = tickets.open(handle, 1, 1)
    expect(tickets.isSafe(next)).toBe(false)
  })

  it('of a publisher that has gone tell nobody', async () => {
    const tickets = new Tickets()
    const gone = publisher()
    const handle = tickets.register(gone)
    const first = tickets.open(handle, 2, 1)
    tickets.unregister(handle)
    tickets.settle(first)
    tickets.commit(first + 1)
    await Promise.resolve()
    expect(gone.told).toBe(0)
  })
})
