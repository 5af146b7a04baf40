import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AckRing } from '../../../../src/protocol/mqtt/ack-ring.ts'

const PUBACK = 0x40
const PUBREC = 0x50

test('the ring is a queue, whatever is pushed and shifted in between', () => {
  const publish = fc.tuple(fc.constantFrom(PUBACK, PUBREC), fc.nat(0xffff), fc.nat(), fc.nat(255))
  fc.assert(
    fc.property(fc.array(fc.option(publish), { maxLength: 400 }), steps => {
      const ring = new AckRing()
      const model: [number, number, number, number][] = []
      for (const step of steps) {
        if (step !== null) {
          ring.push(...step)
          model.push(step)
        } else if (model.length > 0) {
          expect([ring.headPacket, ring.headId, ring.headTicket, ring.headAnswer]).toEqual(model.shift())
          ring.shift()
        }
        expect(ring.count).toBe(model.length)
        expect(ring.pubacks).toBe(model.filter(([packet]) => packet === PUBACK).length)
      }
    }),
  )
})
