import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { BootClock } from '../../../src/core/boot-clock.ts'
import { Clock as Trust } from '../../../src/model/message.ts'
import { messageTo } from '../../support/messages.ts'
import { type TempDir, tempDir } from '../../support/temp-dir.ts'
import { CoreUnderTest } from '../../support/with-core.ts'

const HOUR_MS = 3_600_000
const YEAR_MS = 365 * 24 * HOUR_MS
const TODAY_MS = Date.UTC(2026, 10, 26)

/** A machine whose clocks are turned by hand; each start of the gateway begins its monotonic clock anew. */
class Machine {
  monotonic = 0
  wall = TODAY_MS
  isSynchronised = true

  readonly clock = { monotonicMs: () => this.monotonic, wallMs: () => this.wall }

  passes(ms: number): void {
    this.monotonic += ms
    this.wall += ms
  }

  /** The next start finds this wall clock. */
  restarts(wall: number): void {
    this.monotonic = 0
    this.wall = wall
  }

  async opens(directory: TempDir) {
    const core = await CoreUnderTest.open(directory.path, { clock: this.clock })
    const bootClock = new BootClock({
      offset: () => core.store.boot,
      clock: this.clock,
      isTrusted: async () => this.isSynchronised,
      correct: offset => core.schedule.change(core.store.correctBoot(offset)),
      log: pino({ level: 'silent' }),
    })
    return { core, bootClock }
  }
}

/** Wall time, trust and age of the only message. */
async function dateOfMessage({ topology, identities }: CoreUnderTest) {
  const found: { wall: number; trust: Trust; ageMs: number }[] = []
  await topology.queue('jobs').peek(2, (bytes, at) => {
    found.push({
      wall: identities.wallTimeMs(bytes, at),
      trust: identities.trustOf(bytes, at),
      ageMs: identities.ageMs(bytes, at),
    })
  })
  expect(found.length).toBe(1)
  return found[0]
}

describe('a gateway that starts in 1970 and hears the time later', () => {
  it('dates what it has already taken by the right time, and so does the next start', async () => {
    await using directory = await tempDir()
    const machine = new Machine()
    machine.wall = 0
    machine.isSynchronised = false
    const { core, bootClock } = await machine.opens(directory)
    await core.queue('jobs', '#')
    machine.passes(1000)
    await core.router.publish(messageTo('a', 'x'))
    await bootClock.look()
    expect(await dateOfMessage(core)).toMatchObject({ wall: 1000, trust: Trust.unknown })
    machine.passes(5000)
    machine.wall = TODAY_MS
    machine.isSynchronised = true
    await bootClock.look()
    const expected = { wall: TODAY_MS - 5000, trust: Trust.synced }
    expect(await dateOfMessage(core)).toMatchObject(expected)
    await core.close()
    machine.restarts(TODAY_MS)
    const again = await machine.opens(directory)
    expect(await dateOfMessage(again.core)).toMatchObject(expected)
    await again.core.close()
    await rm(join(directory.path, 'store', 'state'), { recursive: true })
    const rebuilt = await machine.opens(directory)
    expect(await dateOfMessage(rebuilt.core)).toMatchObject(expected)
    await rebuilt.core.close()
  })

  it('does not believe a clock that is behind a time it was sure of', async () => {
    await using directory = await tempDir()
    const machine = new Machine()
    const first = await machine.opens(directory)
    await first.bootClock.look()
    await first.core.close()
    machine.restarts(TODAY_MS - HOUR_MS)
    const behind = await machine.opens(directory)
    expect(behind.core.store.boot.clock).toBe(Trust.unknown)
    await behind.core.close()
    machine.restarts(TODAY_MS + HOUR_MS)
    const later = await machine.opens(directory)
    expect(later.core.store.boot.clock).toBe(Trust.estimated)
    await later.core.close()
  })
})

describe('the age of a message', () => {
  /** Accepted two hours before the gateway is switched off, looked at a minute after it is on again. */
  async function ageAfterPause({
    offMs,
    isSyncedBefore = true,
    isSyncedAfter = true,
  }: {
    offMs: number
    isSyncedBefore?: boolean
    isSyncedAfter?: boolean
  }): Promise<number | undefined> {
    await using directory = await tempDir()
    const machine = new Machine()
    machine.isSynchronised = isSyncedBefore
    const before = await machine.opens(directory)
    await before.bootClock.look()
    await before.core.queue('jobs', '#')
    await before.core.router.publish(messageTo('a', 'x'))
    machine.passes(2 * HOUR_MS)
    await before.core.close()
    machine.restarts(machine.wall + offMs)
    machine.isSynchronised = isSyncedAfter
    const after = await machine.opens(directory)
    await after.bootClock.look()
    machine.passes(60_000)
    const ageMs = (await dateOfMessage(after.core))?.ageMs
    await after.core.close()
    return ageMs
  }

  it('counts the time switched off if the clock was trusted before and after', async () => {
    expect(await ageAfterPause({ offMs: 5 * HOUR_MS })).toBe(7 * HOUR_MS + 60_000)
  })

  it.each([
    { offMs: 50 * YEAR_MS, isSyncedAfter: false },
    { offMs: 50 * YEAR_MS, isSyncedBefore: false },
    { offMs: -50 * YEAR_MS, isSyncedAfter: false },
    { offMs: -50 * YEAR_MS, isSyncedBefore: false },
    { offMs: -HOUR_MS },
  ])('counts only the time since the start otherwise: %o', async pause => {
    const ageMs = await ageAfterPause(pause)
    expect(ageMs).toBe(pause.offMs === -HOUR_MS ? HOUR_MS + 60_000 : 60_000)
  })

  it.each([50, -50])('does not change when the clock jumps by %i years while running, trusted or not', async years => {
    await using directory = await tempDir()
    const machine = new Machine()
    const { core, bootClock } = await machine.opens(directory)
    await bootClock.look()
    const queue = await core.queue('jobs', '#', { messages: 10, bytes: 2 ** 20, ageMs: HOUR_MS, onFull: 'reject' })
    await core.router.publish(messageTo('a', 'x'))
    const { wallOffsetMs } = core.store.boot
    machine.passes(60_000)
    machine.wall += years * YEAR_MS
    await bootClock.look()
    expect(core.store.boot.wallOffsetMs).toBe(wallOffsetMs)
    core.topology.expire()
    expect(queue.ledger.figures()).toMatchObject({ queued: 1, expired: 0 })
    expect(await dateOfMessage(core)).toEqual({ wall: TODAY_MS, trust: Trust.synced, ageMs: 60_000 })
    machine.passes(HOUR_MS)
    core.topology.expire()
    expect(queue.ledger.figures()).toMatchObject({ queued: 0, expired: 1 })
    await core.close()
  })

  it('follows the small steps of a time service', async () => {
    await using directory = await tempDir()
    const machine = new Machine()
    const { core, bootClock } = await machine.opens(directory)
    await bootClock.look()
    machine.wall += 12_000
    await bootClock.look()
    expect(core.store.boot.wallOffsetMs).toBe(TODAY_MS + 12_000)
    machine.wall += 500
    await bootClock.look()
    expect(core.store.boot.wallOffsetMs).toBe(TODAY_MS + 12_000)
    await core.close()
  })
})
