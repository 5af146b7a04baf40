import { expect, test } from 'vitest'
import { backlog } from './scenarios/backlog.ts'

test('a backlog of 100,000 messages is filled, survives stop and kill, and drains, in little memory', {
  timeout: 180_000,
}, async () => {
  const { startUpMs, peak, filledPerS, drainedPerS } = await backlog({
    messages: 100_000,
    waitMs: 1_000,
    say: () => undefined,
  })
  // Memory does not depend on the length of the backlog nor on how busy the machine is: the bars of the full form.
  for (const { anonymous, total } of Object.values(peak)) {
    expect(anonymous).toBeLessThan(120e6)
    expect(total).toBeLessThan(220e6)
  }
  // Times do: a third of the bar, and the better of two starts.
  expect(Math.min(startUpMs.afterStop, startUpMs.afterKill)).toBeLessThan(3_000)
  expect(filledPerS).toBeGreaterThan(5_000)
  expect(drainedPerS).toBeGreaterThan(1_000)
})
