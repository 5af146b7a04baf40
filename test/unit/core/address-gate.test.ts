import { describe, expect, test } from 'vitest'
import { AddressGate, type AddressLimits } from '../../../src/core/address-gate.ts'

const ADDRESS = '192.0.2.7'

function gateWith(limits: Partial<AddressLimits> = {}): { gate: AddressGate; pass: (ms: number) => void } {
  let nowMs = 0
  const all = { connectionsPerS: 0, loginFailures: 3, banMs: 60_000, ...limits }
  return {
    gate: new AddressGate(all, () => nowMs),
    pass: ms => {
      nowMs += ms
    },
  }
}

function guesses(gate: AddressGate, count: number, address = ADDRESS): void {
  for (let n = 0; n < count; n++) gate.failed(address, `guess ${n}`)
}

describe('wrong passwords', () => {
  test('ban an address for a while when there were as many as limits.login_failures', () => {
    const { gate, pass } = gateWith()
    guesses(gate, 2)
    expect(gate.admits(ADDRESS)).toBe(true)
    guesses(gate, 3)
    expect(gate.admits(ADDRESS)).toBe(false)
    expect(gate.isBanned(ADDRESS)).toBe(true)
    expect([...gate.bans()]).toEqual([{ address: ADDRESS, endsInMs: 60_000 }])
    expect(gate.admits('192.0.2.8')).toBe(true)
    expect(gate.refused).toEqual({ banned: 1, rate: 0 })
    pass(60_000)
    expect(gate.admits(ADDRESS)).toBe(true)
    expect([...gate.bans()]).toEqual([])
  })

  test('that are the same every time ban nobody: a device with an old password shares its address with others', () => {
    const { gate } = gateWith()
    for (let n = 0; n < 1000; n++) gate.failed(ADDRESS, 'old password')
    expect(gate.isBanned(ADDRESS)).toBe(false)
  })

  test('ban longer every time, up to 64 times as long; a day of rest makes up for it', () => {
    const { gate, pass } = gateWith()
    const banned: number[] = []
    for (let n = 0; n < 9; n++) {
      guesses(gate, 3)
      const [ban] = gate.bans()
      banned.push((ban?.endsInMs ?? 0) / 60_000)
      pass(ban?.endsInMs ?? 0)
    }
    expect(banned).toEqual([1, 2, 4, 8, 16, 32, 64, 64, 64])
    pass(25 * 3_600_000)
    guesses(gate, 3)
    expect([...gate.bans()]).toEqual([{ address: ADDRESS, endsInMs: 60_000 }])
  })

  test('are forgotten after ten minutes without another', () => {
    const { gate, pass } = gateWith()
    guesses(gate, 2)
    pass(10 * 60_000 + 1)
    gate.failed(ADDRESS, 'one more')
    expect(gate.isBanned(ADDRESS)).toBe(false)
  })

  test('make each answer wait longer, up to five seconds', () => {
    const { gate } = gateWith({ loginFailures: 9 })
    const pauses = Array.from({ length: 9 }, (_, n) => gate.failed(ADDRESS, `guess ${n}`))
    expect(pauses).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000])
  })

  test.each(['127.0.0.1', '::1', '::ffff:127.0.0.1', ''])(
    'from this machine (%s) are slowed and never banned',
    address => {
      const { gate } = gateWith()
      guesses(gate, 100, address)
      expect(gate.isBanned(address)).toBe(false)
      expect(gate.failed(address, 'another')).toBe(800)
    },
  )

  test('with login_failures 0 ban nobody', () => {
    const { gate } = gateWith({ loginFailures: 0 })
    guesses(gate, 1000)
    expect(gate.isBanned(ADDRESS)).toBe(false)
  })

  test('count for a whole /64 of IPv6, and for an IPv4 address in either form', () => {
    const { gate } = gateWith()
    guesses(gate, 3, '2001:db8:1:2::5')
    expect(gate.isBanned('2001:db8:1:2:ffff::1')).toBe(true)
    expect(gate.isBanned('2001:db8:1:3::5')).toBe(false)
    guesses(gate, 3, '::ffff:192.0.2.7')
    expect(gate.isBanned('192.0.2.7')).toBe(true)
  })
})

describe('new connections', () => {
  test('of one address are limited a second, those of others are not', () => {
    const { gate, pass } = gateWith({ connectionsPerS: 5 })
    const admitted = (count: number) => Array.from({ length: count }, () => gate.admits(ADDRESS)).filter(Boolean).length
    expect(admitted(20)).toBe(5)
    pass(400)
    expect(admitted(20)).toBe(2)
    pass(60_000)
    expect(admitted(20)).toBe(5)
    expect(gate.admits('192.0.2.8')).toBe(true)
    expect(gate.refused.rate).toBe(48)
  })

  test('of addresses nobody has heard of for longest are forgotten first: the table does not grow', () => {
    const { gate } = gateWith({ connectionsPerS: 1 })
    guesses(gate, 3, '198.51.100.1')
    for (let n = 0; n < 9_999; n++) gate.admits(`10.0.${n >> 8}.${n & 255}`)
    expect(gate.isBanned('198.51.100.1')).toBe(true)
    gate.admits('10.1.0.0')
    expect(gate.isBanned('198.51.100.1')).toBe(false)
  })
})
