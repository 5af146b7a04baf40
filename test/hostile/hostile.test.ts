/*
 * The short form: each attacker for a second or two, all on one gateway. p99 of so short a time is its one longest pause, which a busy machine makes by itself: here
 * nine in ten messages count, and `npm run prove -- --only hostile` judges the rest.
 */
import { beforeAll, describe, expect, test } from 'vitest'
import { tempDir } from '../support/temp-dir.ts'
import { ATTACKERS } from './attackers.ts'
import { type Hostilities, hostilities, logLimit, PEAK_BYTES } from './scenario.ts'

const ATTACK_MS = 400
const UNDISTURBED_MS = 1_500
/** Two cores with something else to do delay a message by as much. */
const FLOOR_MS = 100

let result: Hostilities

beforeAll(async () => {
  await using directory = await tempDir()
  result = await hostilities({
    directory: directory.path,
    config: { limits: { connect_timeout: '2s' } },
    attackers: ATTACKERS,
    attackMs: ATTACK_MS,
    undisturbedMs: UNDISTURBED_MS,
    say: () => undefined,
  })
}, 180_000)

describe('beside 100 clients that behave', () => {
  test.each(ATTACKERS)('$name: $does; $answer', ({ name }) => {
    const outcome = result.outcomes.find(candidate => candidate.name === name)
    if (outcome === undefined) throw new TypeError(name)
    expect(outcome).toMatchObject({ fault: null, leaked: [], seen: { missing: 0, closed: 0 } })
    expect(outcome.seen.latencyMs.p90).toBeLessThan(Math.max(FLOOR_MS, 2 * result.undisturbed.latencyMs.p90))
    expect(outcome.peakBytes).toBeLessThan(PEAK_BYTES)
    expect(outcome.logBytes).toBeLessThan(logLimit(outcome.seconds))
  })
})
