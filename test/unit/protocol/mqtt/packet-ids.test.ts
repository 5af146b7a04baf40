import fc from 'fast-check'
import { expect, test } from 'vitest'
import { AwaitedAnswer, NOT_IN_FLIGHT, PacketIds } from '../../../../src/protocol/mqtt/packet-ids.ts'

const WINDOW = 5

/** What a client may do, in any order and with any id, and what the server may send. */
const step = fc.oneof(
  fc.record({ act: fc.constant('send' as const), qos: fc.constantFrom(1 as const, 2 as const), position: fc.nat(99) }),
  fc.record({
    act: fc.constantFrom('acknowledge' as const, 'receive' as const, 'complete' as const),
    id: fc.integer({ min: 0, max: WINDOW + 1 }),
  }),
)

test('an id goes through its states and is never given out twice [MQTT-2.2.1-4], 3.1.1 [MQTT-2.3.1-2]', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), steps => {
      const ids = new PacketIds(WINDOW)
      const model = new Map<number, { awaited: number; position: number }>()
      for (const it of steps) {
        if (it.act === 'send') {
          if (ids.free === 0) continue
          const id = ids.next
          expect(model.has(id)).toBe(false)
          ids.take(7, it.position, it.qos)
          model.set(id, { awaited: it.qos, position: it.position })
        } else {
          const known = model.get(it.id)
          expect(ids.awaited(it.id)).toBe(known?.awaited ?? AwaitedAnswer.none)
          expect(ids.positionOf(it.id)).toBe(known?.position ?? NOT_IN_FLIGHT)
          if (known === undefined) continue
          if (it.act === 'receive' && known.awaited === AwaitedAnswer.pubrec) {
            ids.received(it.id)
            model.set(it.id, { awaited: AwaitedAnswer.pubcomp, position: NOT_IN_FLIGHT })
          } else if (
            (it.act === 'acknowledge' && known.awaited === AwaitedAnswer.puback) ||
            (it.act === 'complete' && known.awaited === AwaitedAnswer.pubcomp)
          ) {
            ids.giveBack(it.id)
            model.delete(it.id)
          }
        }
        expect(ids.inFlight).toBe(model.size)
        expect(ids.free).toBe(WINDOW - model.size)
      }
    }),
  )
})
