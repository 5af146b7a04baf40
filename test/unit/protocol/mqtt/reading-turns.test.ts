import { Duplex } from 'node:stream'
import { expect, test } from 'vitest'
import { ReadingTurns } from '../../../../src/protocol/mqtt/reading-turns.ts'
import { connect311 } from '../../../protocol/mqtt/packets.ts'
import { eventually } from '../../../support/eventually.ts'
import { MqttUnderTest, PINGREQ } from '../../../support/wire.ts'

const nextTurn = () => new Promise(setImmediate)

/** A client's end without a network: it hears and says nothing by itself. */
class Wire extends Duplex {
  heardBytes = 0

  override _read(): void {
    // The test pushes.
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    this.heardBytes += chunk.length
    done()
  }
}

test('a million PINGREQs in one read of the socket kept everybody else waiting: after its share a connection pauses, and goes on in a later turn', async () => {
  await using broker = await MqttUnderTest.start()
  const wire = new Wire()
  broker.server.accept(wire)
  wire.push(connect311('pings'))
  await eventually(() => wire.heardBytes === 4, { what: 'CONNACK' })
  const chunk = Buffer.concat(Array<Buffer>(32_768).fill(PINGREQ))
  let reads = 0
  // As libuv does: up to 32 reads of one socket before anybody else's, unless it is paused.
  while (reads < 32 && !wire.isPaused()) {
    wire.emit('data', Buffer.from(chunk))
    reads++
  }
  expect(reads).toBeLessThanOrEqual(4)
  await eventually(() => !wire.isPaused(), { what: 'its next turn', intervalMs: 1 })
  await eventually(() => wire.heardBytes === 4 + reads * chunk.length, { what: 'an answer to each' })
  wire.destroy()
})

test('those who wait go on a few in each turn, in the order in which they came', async () => {
  const turns = new ReadingTurns()
  const order: number[] = []
  for (let n = 0; n < 20; n++) turns.wait({ turnCame: () => void order.push(n) })
  await nextTurn()
  expect(order).toEqual([0, 1, 2, 3, 4, 5, 6, 7])
  await nextTurn()
  await nextTurn()
  expect(order).toEqual(Array.from({ length: 20 }, (_, n) => n))
})

test('one that is gone is not called', async () => {
  const turns = new ReadingTurns()
  const gone = { turnCame: () => expect.unreachable() }
  turns.wait(gone)
  turns.forget(gone)
  await nextTurn()
})

test('200 connections with a megabyte each took a turn of 200 ms: once a turn is used up each gives way after one read', async () => {
  const turns = new ReadingTurns()
  const shares = Array.from({ length: 200 }, () => ({ ms: 0, bytes: 65_536 }))
  const isOver = shares.map(share => turns.isOver(share, 0.2))
  expect(isOver.indexOf(true)).toBeGreaterThanOrEqual(19)
  expect(isOver.slice(20).every(over => over)).toBe(true)
  await nextTurn()
  expect(turns.isOver({ ms: 0, bytes: 65_536 }, 0.2)).toBe(false)
})
