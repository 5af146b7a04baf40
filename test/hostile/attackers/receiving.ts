/* Those that do not take what they asked for. */
import { packet, text } from '../../support/wire.ts'
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
      await arena.floods(publisher, () => flood)
      if ((await arena.metric('sluice_mqtt_messages_dropped_total')) === 0) throw new Error('nothing was dropped')
    },
  },
]
