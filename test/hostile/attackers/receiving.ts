/* Those that do not take what they asked for. */
import { packet, text } from '../../support/packet-bytes.ts'
import type { Attacker } from '../attacker.ts'

export const receiving: readonly Attacker[] = [
  {
    name: 'reads-nothing',
    does: '20 subscribers to everything that read nothing, while a publisher floods them with QoS 0',
    answer: 'QoS 0 to them is dropped and counted (output_full), their connections stay',
    async attack(arena) {
      for (let n = 0; n < 20; n++) {
        const foe = await arena.client(`reads-nothing-${n}`)
        foe.says(packet(0x82, '00 01', text('#'), '00'))
        await foe.hears(0x90, 'SUBACK', 4)
        foe.socket.pause()
      }
      const publisher = await arena.client('floods')
      const flood = Buffer.concat(Array<Buffer>(64).fill(packet(0x30, text('flood'), Buffer.alloc(1_000))))
      await arena.pursue(
        () => arena.floods(publisher, () => flood),
        async () => (await arena.metric('sluice_mqtt_messages_dropped_total')) > 0,
        'a message that is dropped',
      )
    },
  },
  {
    name: 'reads-slowly',
    does: 'a subscriber to everything at QoS 1 that reads 20,000 bytes a second, while a publisher floods it',
    answer: 'its queue takes limits.session_queue, then its oldest messages give way, counted',
    async attack(arena) {
      const slow = await arena.client('reads-slowly')
      slow.says(packet(0x82, '00 01', text('#'), '01'))
      await slow.hears(0x90, 'SUBACK', 4)
      slow.socket.pause()
      const reading = setInterval(() => {
        slow.socket.resume()
        slow.socket.once('data', () => slow.socket.pause())
      }, 1_000)
      const publisher = await arena.client('floods-slow')
      const flood = Buffer.concat(
        Array.from({ length: 64 }, (_, n) => packet(0x32, text('slow'), Buffer.from([0, n + 1]), Buffer.alloc(1_000))),
      )
      await arena.floods(publisher, () => flood)
      clearInterval(reading)
      if (publisher.isClosed) throw new Error('the publisher was closed')
    },
  },
  {
    name: 'acknowledges-nothing',
    does: '20 subscribers at QoS 1 that never send PUBACK, while a publisher floods them',
    answer: 'limits.inflight are sent to each, the rest waits in its queue, whose oldest messages give way, counted',
    async attack(arena) {
      const foes = await Promise.all(
        Array.from({ length: 20 }, async (_, n) => {
          const foe = await arena.client(`acknowledges-nothing-${n}`)
          foe.says(packet(0x82, '00 01', text('unanswered'), '01'))
          await foe.hears(0x90, 'SUBACK', 4)
          return foe
        }),
      )
      const publisher = await arena.client('floods-unanswered')
      const flood = Buffer.concat(
        Array.from({ length: 64 }, (_, n) => packet(0x32, text('unanswered'), Buffer.from([0, n + 1]), 'x')),
      )
      await arena.floods(publisher, () => flood)
      if (foes.some(foe => foe.isClosed) || publisher.isClosed) throw new Error('a connection was closed')
      const [foe] = foes
      const sent = ((foe?.heardBytes ?? 0) - 9) / packet(0x32, text('unanswered'), '00 01', 'x').length
      if (sent !== 64) throw new Error(`${sent} messages were sent, not limits.inflight`)
    },
  },
]
