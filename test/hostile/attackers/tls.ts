/* Those that attack the port for TLS. */
import { once } from 'node:events'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { type Attacker, connect } from '../attacker.ts'

/** The beginning of a ClientHello that announces 512 bytes. */
const HALF_A_HELLO = Buffer.from('1603010200010001fc0303', 'hex')

export const encrypted: readonly Attacker[] = [
  {
    name: 'tls-handshakes',
    does: '300 TLS handshakes at once',
    answer: 'limits.handshakes of them go on at a time, half of them for one address; all get through',
    async attack(arena) {
      const sockets = await Promise.all(
        Array.from({ length: 300 }, async (_, n) => {
          const { socket } = await arena.connectTls()
          const encrypted: TLSSocket = connectTls({ socket, rejectUnauthorized: false })
          encrypted.write(connect(`tls-handshakes-${n}`))
          const [connack] = await once(encrypted, 'data')
          if (connack[0] !== 0x20 || connack[3] !== 0) throw new Error(`heard ${connack.toString('hex')}`)
          return encrypted
        }),
      )
      for (const socket of sockets) socket.destroy()
    },
  },
  {
    name: 'tls-half-handshake',
    does: '100 TLS handshakes that stop after the first bytes',
    answer: 'each is closed limits.connect_timeout after it was opened at the latest, without a word',
    async attack(arena) {
      const foes = await Promise.all(Array.from({ length: 100 }, () => arena.connectTls()))
      for (const foe of foes) foe.says(HALF_A_HELLO)
      for (const foe of foes) await foe.isCutOff('the end of half a handshake')
      for (const foe of foes) foe.heardNothing()
    },
  },
  {
    name: 'tls-plain',
    does: '200 connections a second that speak MQTT in the clear to the port for TLS',
    answer: 'each is closed at once; counted, and in the log as often as that allows',
    async attack(arena) {
      await arena.atRate(200, async n => {
        const foe = await arena.connectTls()
        foe.says(connect(`tls-plain-${n}`))
        await foe.isCutOff('the end of a connection in the clear')
      })
    },
  },
]
