import { expect, test } from 'vitest'
import { fullDisk, startOnFullDisk } from './scenarios/full-disk.ts'

test('on a full disk publishers are refused before the acknowledgement, nothing is lost, and it goes on by itself when there is room', {
  timeout: 180_000,
}, async () => {
  const { acknowledged, heldMs } = await fullDisk({ say: line => console.log(line) })
  expect(acknowledged).toBeGreaterThan(1_000)
  // MQTT 3.1.1 has no word for it: held for limits.refuse_disconnect_after, then closed.
  expect(heldMs).toBeGreaterThanOrEqual(950)
  expect(heldMs).toBeLessThan(5_000)
})

test('a gateway that finds the disk full to the last byte starts all the same, refuses, and goes on when there is room', {
  timeout: 60_000,
}, async ({ skip }) => {
  const outcome = await startOnFullDisk()
  if (outcome === null) skip('no tmpfs can be mounted here')
  else expect(outcome.kept).toBe(3_000)
})
