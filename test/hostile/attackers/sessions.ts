/* Those that attack with sessions and queues. */
import { packet, text } from '../../support/packet-bytes.ts'
import { type Attacker, connect } from '../attacker.ts'

export const sessions: readonly Attacker[] = [
  {
    name: 'refused-jobs',
    does: 'takes messages of a queue and gives each back at once (PUBACK 0x83), for ever',
    answer: 'the message goes to whoever takes it, the next time too',
    async attack(arena) {
      const publisher = await arena.client('jobs')
      for (let id = 1; id <= 50; id++) publisher.says(packet(0x32, text('jobs/1'), Buffer.from([0, id]), 'x'))
      await publisher.hasHeard(4 + 50 * 4, '50 PUBACKs')
      const foe = await arena.client('refuses', { version: 5 })
      let given = 0
      let rest = Buffer.alloc(0)
      let from = 2 + (foe.heard[1] ?? 0)
      foe.socket.on('data', chunk => {
        const heard = Buffer.concat([rest, chunk])
        const refusals: Buffer[] = []
        let at = 0
        for (let end = 0; heard.length >= at + 2; at = end) {
          end = at + 2 + (heard[at + 1] ?? 0)
          if (end > heard.length) break
          if ((heard[at] ?? 0) >> 4 !== 3) continue
          const id = at + 4 + ((heard[at + 2] ?? 0) << 8) + (heard[at + 3] ?? 0)
          refusals.push(packet(0x40, heard.subarray(id, id + 2), '83'))
          given++
        }
        rest = Buffer.from(heard.subarray(at))
        if (refusals.length > 0) foe.says(...refusals)
      })
      foe.says(packet(0x82, '00 01', '00', text('$queue/jobs'), '01'))
      await foe.hears(0x90, 'SUBACK', from)
      from = 0
      await arena.pass()
      if (foe.isClosed) throw new Error('the connection was closed')
      if (given < 100) throw new Error(`only ${given} messages came`)
    },
  },
  {
    name: 'vanishing',
    does: '300 clients with subscriptions that vanish all at once, and come back',
    answer: 'each is served; their sessions end with them',
    async attack(arena) {
      while (!arena.isOver) {
        const foes = await Promise.all(
          Array.from({ length: 300 }, async (_, n) => {
            const foe = await arena.client(`vanishing-${n}`)
            foe.says(packet(0x82, '00 01', text(`v/${n}/#`), '01'), packet(0x82, '00 02', text('v/all'), '00'))
            await foe.hasHeard(14, 'SUBACK')
            return foe
          }),
        )
        for (const foe of foes) foe.reset()
      }
    },
  },
  {
    name: 'full-session',
    does: 'fills the queue of a session that is away with 10,000 messages, and drops it with a clean start, again and again',
    answer: 'limits.session_queue: the oldest give way, counted; all go with their session',
    async attack(arena) {
      const message = packet(0x32, text('away'), '00 01', Buffer.alloc(100))
      while (!arena.isOver) {
        const away = await arena.client('away', { isClean: false })
        away.says(packet(0x82, '00 01', text('away'), '01'))
        await away.hears(0x90, 'SUBACK', 4)
        away.reset()
        const publisher = await arena.client('fills')
        for (let n = 0; n < 10_100 && !publisher.isClosed; n += 50) {
          publisher.says(...Array<Buffer>(50).fill(message))
          await publisher.hasHeard(4 + (n + 50) * 4, 'PUBACK')
        }
        publisher.reset()
        const clean = await arena.client('away')
        clean.reset()
      }
    },
  },
  {
    name: 'many-sessions',
    does: 'sessions that outlive their connections under ever new client ids, 1,000 a second',
    answer: 'limits.sessions are kept; who asks for one more is refused (0x97; 3.1.1: 3)',
    async attack(arena) {
      const refusals = new Set<number>()
      await arena.atRate(1_000, async n => {
        const foe = await arena.connect()
        foe.says(connect(`session-${n}-${Math.random()}`, { isClean: false }))
        await foe.hears(0x20, 'CONNACK')
        refusals.add(foe.heard[3] ?? 0)
        foe.reset()
      })
      if ([...refusals].some(code => code !== 0 && code !== 3)) throw new Error(`refused with ${[...refusals]}`)
    },
  },
]
