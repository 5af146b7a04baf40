import { expect, test } from 'vitest'
import { Ledger } from '../../../firmware-sim/ledger.ts'

test('a ledger tells acknowledged from unacknowledged messages', () => {
  const ledger = new Ledger({ device: 'm1', topic: 'sensors/m1/energy', qos: 1 })
  for (let sequence = 1; sequence <= 6; sequence++) ledger.noteSent(sequence)
  for (const sequence of [1, 2, 5]) ledger.noteAcknowledged(sequence)
  expect(ledger.snapshot()).toEqual({
    device: 'm1',
    topic: 'sensors/m1/energy',
    qos: 1,
    acknowledged: [
      [1, 2],
      [5, 5],
    ],
    unacknowledged: [
      [3, 4],
      [6, 6],
    ],
  })
})

test('a message sent twice and acknowledged twice counts once', () => {
  const ledger = new Ledger({ device: 'm1', topic: 't', qos: 1 })
  for (let time = 0; time < 2; time++) {
    ledger.noteSent(1)
    ledger.noteAcknowledged(1)
  }
  expect([ledger.sent, ledger.acknowledged]).toEqual([1, 1])
})

test('an acknowledgement of what was never sent is a mistake of the simulator', () => {
  const ledger = new Ledger({ device: 'm1', topic: 't', qos: 1 })
  expect(() => ledger.noteAcknowledged(1)).toThrow(TypeError)
})
