/* Those that attack the API port, from the machine itself. */
import { randomBytes } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import type { Attacker } from '../attacker.ts'

/** In which a header has to be whole; looked at every five seconds. */
const HEADERS_DEADLINE_MS = 15_000

export const http: readonly Attacker[] = [
  {
    name: 'http-garbage',
    does: 'noise on the API port',
    answer: '400 and closed',
    async attack(arena) {
      const noise = randomBytes(64 * 1024)
      while (!arena.isOver) {
        const foe = await arena.connectHttp()
        foe.says(noise)
        await foe.isCutOff('the end of the noise')
        const heard = foe.heard.toString('latin1', 0, 12)
        if (heard !== '' && heard !== 'HTTP/1.1 400') throw new Error(`heard ${heard}`)
      }
    },
  },
  {
    name: 'http-too-large',
    does: 'bodies of 10 MB and headers of 1 MB',
    answer: '413 and 431',
    async attack(arena) {
      const body = Buffer.alloc(10_000_000)
      const post = `POST /api/v1/publish HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: ${body.length}\r\n\r\n`
      const header = `GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx: ${'x'.repeat(1_000_000)}\r\n\r\n`
      while (!arena.isOver) {
        const large = await arena.connectHttp()
        large.says(Buffer.from(post), body)
        await large.hasHeard(12, 'an answer to a large body')
        const long = await arena.connectHttp()
        long.says(Buffer.from(header))
        await long.isCutOff('the end of a long header')
        const codes = [large, long].map(({ heard }) => heard.toString('latin1', 9, 12))
        if (codes[0] !== '413' || (codes[1] !== '431' && codes[1] !== '')) throw new Error(`heard ${codes}`)
        large.reset()
      }
    },
  },
  {
    name: 'http-requests',
    does: 'GET /metrics on 20 connections, as fast as it is answered',
    answer: 'each is answered',
    async attack(arena) {
      const request = Buffer.from('GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n')
      const asker = async () => {
        const foe = await arena.connectHttp()
        while (!arena.isOver && !foe.isClosed) {
          const before = foe.heardBytes
          foe.says(request)
          await foe.hasHeard(before + 1_000, 'an answer')
        }
      }
      await Promise.all(Array.from({ length: 20 }, asker))
    },
  },
  {
    name: 'slowloris',
    does: '200 connections to the API port that send a header a byte a second',
    answer: '64 are held for 15 seconds at most, the others closed at once',
    async attack(arena) {
      const foes = await Promise.all(Array.from({ length: 200 }, () => arena.connectHttp()))
      for (const foe of foes) foe.says(Buffer.from('GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nx-slow: '))
      await delay(200)
      const held = foes.filter(foe => !foe.isClosed)
      if (held.length > 64) throw new Error(`${held.length} are held`)
      while (!arena.isOver) {
        for (const foe of held) foe.says(Buffer.from('x'))
        await delay(200)
      }
      if (arena.lasted(HEADERS_DEADLINE_MS) && held.some(foe => !foe.isClosed)) throw new Error('some are held still')
    },
  },
]
