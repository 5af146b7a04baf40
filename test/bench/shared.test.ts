import { expect, test } from 'vitest'
import { connect5, publish5, subscribe5 } from '../protocol/mqtt/packets.ts'
import { eventually } from '../support/eventually.ts'
import { MqttUnderTest } from '../support/wire.ts'

/*
 * A guard against a slide: three members of a group and a publisher, all in the process of the gateway, which does most of the work. A quiet machine shows ten times as much.
 */

const COUNT = 30_000
const MEMBERS = 3
const PAYLOAD = 'x'.repeat(64)

for (const [qos, perS] of [
  [0, 50_000],
  [1, 10_000],
] as const) {
  test(`a group takes more than ${perS} messages/s of QoS ${qos}, each once`, async () => {
    await using broker = await MqttUnderTest.start()
    const frame = publish5('jobs', PAYLOAD, qos === 0 ? 0x30 : 0x32, qos === 0 ? '' : '00 01')
    const received = Array.from({ length: MEMBERS }, () => 0)
    for (const n of received.keys()) {
      const { socket } = await broker.client()
      let rest: Buffer = Buffer.alloc(0)
      let isSubscribed = false
      socket.on('data', chunk => {
        if (!isSubscribed) {
          // CONNACK and SUBACK: nothing has been published yet.
          isSubscribed = chunk.includes(0x90)
          return
        }
        rest = Buffer.concat([rest, chunk])
        const whole = Math.floor(rest.length / frame.length)
        const acks = Buffer.alloc(4 * whole)
        for (let i = 0; i < whole; i++) {
          acks.writeUInt16BE(0x40_02, 4 * i)
          rest.copy(acks, 4 * i + 2, i * frame.length + 8, i * frame.length + 10)
        }
        if (qos === 1 && whole > 0) socket.write(acks)
        rest = rest.subarray(whole * frame.length)
        received[n] = (received[n] ?? 0) + whole
      })
      socket.write(Buffer.concat([connect5(`member-${n}`), subscribe5('00 01', '$share/g/jobs', `0${qos}`)]))
      await eventually(() => isSubscribed)
    }
    const publisher = await broker.client()
    const total = () => received.reduce((sum, count) => sum + count, 0)
    publisher.says(connect5('publisher'))
    const since = performance.now()
    // No more than the receive maximum at once.
    for (let sent = 0; sent < COUNT; sent += 60) {
      publisher.says(Buffer.concat(Array.from({ length: 60 }, () => frame)))
      if (qos === 1) await eventually(() => total() >= sent, { intervalMs: 0 })
    }
    await eventually(() => total() >= COUNT, { intervalMs: 1, deadlineMs: 60_000 })
    const seconds = (performance.now() - since) / 1000
    expect(total()).toBe(COUNT)
    expect(COUNT / seconds).toBeGreaterThan(perS)
    // Shared fairly.
    for (const count of received) expect(count).toBeGreaterThan(COUNT / MEMBERS / 3)
  })
}
