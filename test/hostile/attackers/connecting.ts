/* Those that attack with connections. */
import { setTimeout as delay } from 'node:timers/promises'
import { bytes } from '../../support/packet-bytes.ts'
import { type Attacker, connect, type Foe } from '../attacker.ts'

const CONNACK_ACCEPTED = 0x20

export const connecting: readonly Attacker[] = [
  {
    name: 'silent',
    does: '300 connections that say nothing',
    answer: 'each is closed after limits.connect_timeout, without a word',
    async attack(arena) {
      const foes = await Promise.all(Array.from({ length: 300 }, () => arena.connect()))
      for (const foe of foes) await foe.isCutOff('the end of a silent connection')
      for (const foe of foes) foe.heardNothing()
    },
  },
  {
    name: 'byte-a-second',
    does: '300 connections that send CONNECT a byte a second',
    answer: 'each is closed limits.connect_timeout after it was opened, without a word',
    async attack(arena) {
      const foes = await Promise.all(Array.from({ length: 300 }, () => arena.connect()))
      const said = connect('a client with a name that is long enough')
      for (let at = 0; foes.some(foe => !foe.isClosed); at++) {
        for (const foe of foes) foe.says(said.subarray(at, at + 1))
        // The first bytes come quickly, or a short timeout would meet a silent connection.
        await delay(at < 5 ? 100 : 1_000)
      }
      for (const foe of foes) foe.heardNothing()
    },
  },
  {
    name: 'reconnects',
    does: '500 connections a second, each let in and gone',
    answer: 'each is served; the log says how many there were',
    async attack(arena) {
      await arena.atRate(500, async n => {
        const foe = await arena.connect()
        foe.says(connect(`reconnects-${n % 100}`))
        await foe.hears(CONNACK_ACCEPTED, 'CONNACK')
        foe.reset()
      })
    },
  },
  {
    name: 'same-client-id',
    does: 'the same client id from 20 places, which all come back when they are thrown out',
    answer: 'the newest connection stays, the older one is told 0x8E and closed',
    async attack(arena) {
      const place = async () => {
        while (!arena.isOver) {
          const foe = await arena.client('everywhere', { version: 5 })
          await foe.isCutOff('the take-over')
          const { heard } = foe
          const disconnect = 2 + (heard[1] ?? 0)
          if (!arena.isOver && heard.subarray(disconnect).toString('hex') !== 'e0028e00')
            throw new Error(`heard ${heard.toString('hex')}, not a take-over`)
        }
      }
      const places = Promise.all(Array.from({ length: 20 }, place))
      while (!arena.isOver) await delay(10)
      arena.close()
      await places.catch(error => {
        if (!arena.isOver) throw error
      })
    },
  },
  {
    name: 'thousands',
    does: '5,000 connections from 50 addresses that say nothing',
    answer: 'limits.clients and 256 more are held; a newcomer takes the place of the one that has been silent longest',
    async attack(arena) {
      const foes: Foe[] = []
      for (let n = 0; n < 5_000; n += 100)
        foes.push(
          ...(await Promise.all(Array.from({ length: 100 }, (_, i) => arena.connect({ address: addressOf(n + i) })))),
        )
      // Whoever has had a second for its CONNECT gives way.
      await delay(1_000)
      const held = foes.filter(foe => !foe.isClosed).length
      if (held > 2_256) throw new Error(`${held} connections are held`)
      // Somebody else still comes in.
      const newcomer = await arena.client('newcomer')
      newcomer.reset()
      await arena.pass()
    },
  },
  {
    name: 'half-closed',
    does: '200 clients that end their half of the connection and keep the other open',
    answer: 'each is closed at once, as if it had left',
    async attack(arena) {
      const foes = await Promise.all(
        Array.from({ length: 200 }, async (_, n) => {
          const foe = await arena.connect({ halfOpen: true })
          foe.socket.end(connect(`half-closed-${n}`))
          return foe
        }),
      )
      for (const foe of foes) {
        await foe.hears(CONNACK_ACCEPTED, 'CONNACK')
        foe.socket.end()
        await eventuallyEnded(foe)
      }
    },
  },
  {
    name: 'reset-mid-frame',
    does: '200 resets a second in the middle of a PUBLISH of 10,000 bytes',
    answer: 'what had begun is forgotten',
    async attack(arena) {
      const begun = Buffer.concat([bytes('30 90 4e'), Buffer.alloc(5_000)])
      await arena.atRate(200, async n => {
        const foe = await arena.client(`reset-${n % 100}`)
        foe.says(begun)
        await foe.hasRoom(() => arena.isOver)
        foe.reset()
      })
    },
  },
]

/** One of 50 addresses. */
const addressOf = (n: number) => `127.0.1.${1 + (n % 50)}`

async function eventuallyEnded(foe: { readonly isEnded: boolean; readonly isClosed: boolean }): Promise<void> {
  const deadline = performance.now() + 5_000
  while (!foe.isEnded && !foe.isClosed) {
    if (performance.now() >= deadline) throw new Error('the gateway keeps its half of a connection open')
    await delay(5)
  }
}
