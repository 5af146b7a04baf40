import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PacketIdSet } from '../../../../src/protocol/mqtt/packet-id-set.ts'

const id = fc.oneof(fc.integer({ min: 1, max: 65_535 }), fc.integer({ min: 31, max: 33 }), fc.constantFrom(1, 65_535))

test('it is a set of numbers, whatever is done with it and with others before', () => {
  const step = fc.tuple(fc.constantFrom('add', 'delete', 'has', 'clear'), id)
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), steps => {
      const set = new PacketIdSet()
      const model = new Set<number>()
      for (const [act, packetId] of steps) {
        if (act === 'add') {
          set.add(packetId)
          model.add(packetId)
        } else if (act === 'delete') {
          expect(set.delete(packetId)).toBe(model.delete(packetId))
        } else if (act === 'clear') {
          set.clear()
          model.clear()
        }
        expect(set.has(packetId)).toBe(model.has(packetId))
        expect(set.size).toBe(model.size)
      }
      // Not cleared at times: what it held must not be seen in the next one.
      if (steps.length % 2 === 0) set.clear()
    }),
  )
})

test('it holds all 65,535 ids there are', () => {
  const set = new PacketIdSet()
  for (let packetId = 1; packetId <= 65_535; packetId++) set.add(packetId)
  expect(set.size).toBe(65_535)
  for (let packetId = 1; packetId <= 65_535; packetId++) expect(set.delete(packetId)).toBe(true)
  expect(set.size).toBe(0)
})
