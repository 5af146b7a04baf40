import fc from 'fast-check'
import { expect, test } from 'vitest'
import { frame, Opcode } from '../../support/raw-web-socket.ts'
import { Speaker } from '../../support/speaker.ts'
import { bytes, MqttUnderTest, PINGREQ, packet, runOver, type Transport } from '../../support/wire.ts'
import './connect-properties.test.ts'
import './fixed-header.test.ts'
import './publish-5.test.ts'
import './subscribe.test.ts'
import './version-31.test.ts'

/** The transcripts of these files once more, over WebSocket. */
runOver('ws')

const speaker = new Speaker(5, 'cut')
/** A client that talks to itself, at each QoS, without waiting for answers. */
const SAID = Buffer.concat([
  speaker.connect('client'),
  speaker.subscribe('00 01', ['a', '02'], ['b', '00']),
  speaker.publish('a', 'x'.repeat(200)),
  speaker.publish('b', 'y', 0x32, '00 02'),
  speaker.publish('a', 'z', 0x32, '00 03'),
  speaker.publish('a', '', 0x34, '00 04'),
  packet(0x62, bytes('00 04')),
  speaker.unsubscribe('00 05', 'b'),
  PINGREQ,
])
/** CONNACK, SUBACK, four PUBLISH, two PUBACK, PUBREC, PUBCOMP, UNSUBACK, PINGRESP. */
const ANSWERS = 12

/** Pieces of these lengths, one after the other and again from the first. */
function cut(said: Buffer, lengths: readonly number[]): Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0; at < said.length; ) {
    const length = lengths[pieces.length % lengths.length] ?? said.length
    pieces.push(said.subarray(at, at + length))
    at += length
  }
  return pieces
}

type Wrapping = 'message' | 'fragments' | 'behind a ping' | 'behind an empty message'

/** One piece as frames of a WebSocket. */
function wrap(piece: Buffer, how: Wrapping): Buffer[] {
  switch (how) {
    case 'message':
      return [frame(piece)]
    case 'fragments': {
      const [first, ...more] = cut(piece, [3])
      return [
        frame(first ?? piece, { isFinal: false }),
        frame(Buffer.from('ping'), { opcode: Opcode.ping }),
        ...more.map(fragment => frame(fragment, { opcode: Opcode.continuation, isFinal: false })),
        frame(Buffer.alloc(0), { opcode: Opcode.continuation }),
      ]
    }
    case 'behind a ping':
      return [frame(Buffer.from('ping'), { opcode: Opcode.ping }), frame(piece)]
    case 'behind an empty message':
      return [frame(Buffer.alloc(0)), frame(piece)]
    default:
      return how satisfies never
  }
}

/** Says the pieces, each in a segment of its own as far as the kernel lets it be one. The answers are sorted: a message and an acknowledgement may come in either order. */
async function answers(broker: MqttUnderTest, over: Transport, pieces: readonly Buffer[]): Promise<string[]> {
  runOver(over)
  const client = await broker.client()
  for (const piece of pieces) {
    client.socket.write(piece)
    await new Promise(resolve => setImmediate(resolve))
  }
  const heard: string[] = []
  while (heard.length < ANSWERS) heard.push((await client.hearsPacket()).toString('hex'))
  client.close()
  return heard.toSorted()
}

test('however the stream is cut into segments and messages, the answers are the same [MQTT-6.0.0-2], 3.1.1 [MQTT-6.0.0-2]', async () => {
  runOver('ws')
  await using webSocket = await MqttUnderTest.start()
  runOver('tcp')
  await using tcp = await MqttUnderTest.start()
  const expected = await answers(tcp, 'tcp', [SAID])
  const lengths = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 8 })
  const wrappings = fc.array(
    fc.constantFrom<Wrapping>('message', 'fragments', 'behind a ping', 'behind an empty message'),
    { minLength: 1, maxLength: 5 },
  )
  await fc.assert(
    fc.asyncProperty(lengths, lengths, wrappings, async (messages, segments, hows) => {
      expect(await answers(tcp, 'tcp', cut(SAID, segments))).toEqual(expected)
      const frames = cut(SAID, messages).flatMap((piece, n) => wrap(piece, hows[n % hows.length] ?? 'message'))
      expect(await answers(webSocket, 'ws', cut(Buffer.concat(frames), segments))).toEqual(expected)
    }),
    { numRuns: 40 },
  )
})
