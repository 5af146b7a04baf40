/* Those that attack the port for TLS. */
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
        Array.from({ length: 300 }, (_, n) => arena.encryptedClient(`tls-handshakes-${n}`)),
      )
      for (const socket of sockets) socket.destroy()
    },
  },
  {
    name: 'tls-half-handshake',
    does: '20 TLS handshakes that stop after the first bytes',
    answer: 'each is closed limits.connect_timeout after its turn has come, and others get in meanwhile',
    async attack(arena) {
      const foes = await Promise.all(Array.from({ length: 20 }, () => arena.connectTls()))
      for (const foe of foes) foe.says(HALF_A_HELLO)
      await arena.encryptedClient('tls-meanwhile', '127.0.0.67')
      if (foes.every(foe => foe.isClosed)) throw new Error('others had to wait for the last of them')
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
